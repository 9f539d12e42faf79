"""The app behind `python -m trio_stream PATH`: a file or a directory, for people with a browser."""

from __future__ import annotations

import errno
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ._app import App
from ._background import open_background
from ._file_answer import FileOptions
from ._file_page import file_page
from ._listing import listing_page
from ._media import content_disposition
from ._progress import Transfers
from ._routing import answer_status
from ._static import StaticFiles, redirect_to_directory, trouble_in_one_line
from ._tree import Entry, Tree
from ._zip import HAVE_ZIP, zip_directory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from ._file import OpenFile, StrPath
    from ._request import Request
    from ._response import Response

# The pages need nothing but themselves and the files, and run no script.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; media-src 'self'; img-src data:"


class Share(App):
    """Serves a directory and all below it, or one file, and shows what it sends.

    A directory is a page of what is in it, and with `?zip` an archive. A file is itself, with
    `?download` to be saved, and with `?play` a page with a player. Names that begin with a dot, and
    symlinks that lead out of the directory, are not served.

    Args:
      path: The file or directory.

    Attributes:
      name: What it is called.
      is_directory: Else it is a file.
      transfers: What is sent to whom.

    Raises:
      OSError: There is none, or it can't be read.
    """

    def __init__(self, path: StrPath) -> None:
        super().__init__()
        path = Path(path)
        self.name = (path.resolve() if path.name in ("", "..") else path).name or "files"
        self.is_directory = path.is_dir()
        self.transfers = Transfers()
        tree = Tree(path) if self.is_directory else _OnlyFile(path)
        tree.entries(())  # better now than in the answer to the first who asks
        make_page = self._make_directory_page if self.is_directory else self._make_only_page
        self._files = StaticFiles(tree=tree, depth=0, make_page=make_page)
        self._downloads = replace(self._files, options=FileOptions(download=True))
        self.get("/*", self._serve)
        self.lifespan(self._show_transfers)

    @asynccontextmanager
    async def _show_transfers(self) -> AsyncIterator[None]:
        async with open_background() as start_soon:
            start_soon(self.transfers.show)
            yield

    # Answers...

    async def _serve(self, res: Response, req: Request) -> None:
        with trouble_in_one_line(res, req):
            await self._answer(res, req)

    async def _answer(self, res: Response, req: Request) -> None:
        *directory, name = self._files.names(req)
        if not name:
            res.write_header("Content-Security-Policy", _POLICY)
            if self.is_directory and HAVE_ZIP and "zip" in req.query:
                await self._send_zip(res, req, directory)
            else:
                await self._files.serve(res, req)
        elif "play" in req.query:
            await self._send_file_page(res, req, [*directory, name])
        else:
            self.transfers.add("/".join([*directory, name]), res, req)
            files = self._downloads if "download" in req.query else self._files
            await files.serve(res, req)

    async def _send_zip(self, res: Response, req: Request, directory: Sequence[str]) -> None:
        tree = self._files.tree
        try:
            await trio.to_thread.run_sync(tree.entries, directory)
        except FileNotFoundError:
            answer_status(res, 404)
            return
        name = directory[-1] if directory else self.name
        self.transfers.add(f"{'/'.join([*directory[:-1], name])}.zip", res, req)
        res.write_header("Content-Type", "application/zip")
        res.write_header("Content-Disposition", content_disposition(f"{name}.zip", download=True))
        await res.send_from(zip_directory(tree, directory, name))

    async def _send_file_page(self, res: Response, req: Request, names: Sequence[str]) -> None:
        try:
            entry = await trio.to_thread.run_sync(_describe, self._files.tree, names)
        except IsADirectoryError:
            redirect_to_directory(res, req)
        except FileNotFoundError:
            answer_status(res, 404)
        else:
            root = self.name if self.is_directory else None
            res.write_header("Content-Security-Policy", _POLICY)
            res.write_header("Content-Type", "text/html; charset=utf-8")
            res.write_header("Cache-Control", "no-cache")
            res.end(file_page(names[:-1], entry, root=root, autoplay=True))

    def _make_directory_page(
        self, names: Sequence[str], entries: Sequence[Entry], query: Mapping[str, str]
    ) -> bytes:
        return listing_page(
            names, entries, query, root=self.name, has_players=True, has_zips=HAVE_ZIP
        )

    def _make_only_page(
        self, _: Sequence[str], entries: Sequence[Entry], __: Mapping[str, str]
    ) -> bytes:
        (entry,) = entries
        return file_page((), entry)


class _OnlyFile(Tree):
    """A directory of which nothing can be seen but one file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.parent, dotfiles=True, symlinks_out=True)
        self._only_name = path.name

    def open(self, names: Sequence[str]) -> OpenFile:
        if list(names) != [self._only_name]:
            raise FileNotFoundError(errno.ENOENT, "not shared", "/".join(names))
        return super().open(names)

    def entries(self, names: Sequence[str]) -> list[Entry]:
        if names:
            raise FileNotFoundError(errno.ENOENT, "not shared", "/".join(names))
        return [_describe(self, [self._only_name])]


def _describe(tree: Tree, names: Sequence[str]) -> Entry:
    with tree.open(names) as file:
        return Entry(names[-1], is_directory=False, size=file.size, modified=file.modified_ns / 1e9)
