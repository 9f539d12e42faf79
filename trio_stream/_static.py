"""A directory of files as a part of an app's URLs."""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import trio

from ._file import FileTooShortError
from ._file_answer import FileOptions
from ._file_response import send_file
from ._routing import answer_status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ._file import OpenFile
    from ._request import Request
    from ._response import Response
    from ._tree import Entry, Tree

logger = logging.getLogger("trio_stream")


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticFiles:
    """Answers requests for the files and directories of a tree.

    Attributes:
      tree: What may be seen.
      depth: How many segments of a path lead to the root of the tree.
      index: The name of the file that stands for its directory, if there is one.
      make_page: Makes a page (HTML in UTF-8) of a directory without such a file, from the names
        that lead to it, what is in it, and the query. It runs in a worker thread. `None`: 404.
      not_found: The name of a file in the root that is the text of a 404; `None`: plain text.
      options: How files are sent.
    """

    tree: Tree
    depth: int
    index: str | None = None
    make_page: Callable[[Sequence[str], Sequence[Entry], Mapping[str, str]], bytes] | None = None
    not_found: str | None = None
    options: FileOptions = field(default_factory=FileOptions)

    def names(self, req: Request) -> list[str]:
        """The names that lead to what is asked for: empty at the end for a directory.

        They are decoded once, and only after they were taken apart: a slash within a segment
        belongs to the name, so that there is no such file.
        """
        segments = req.raw_path.split("/")[1 + self.depth :]
        return [os.fsdecode(unquote_to_bytes(segment)) for segment in segments]

    async def serve(self, res: Response, req: Request) -> None:
        """Answer with a file, an index, a page of a directory, a redirect to it, or 404."""
        names = self.names(req)
        with trouble_in_one_line(res, req):
            try:
                if names and not names[-1]:
                    await self._send_directory(res, req, names[:-1])
                elif names:
                    await self._send_file(res, names, self.options)
                else:
                    redirect_to_directory(res, req)
            except IsADirectoryError:
                redirect_to_directory(res, req)
            except FileNotFoundError:
                await self._send_not_found(res)

    async def _send_directory(self, res: Response, req: Request, names: Sequence[str]) -> None:
        if self.index is not None:
            try:
                await self._send_file(res, [*names, self.index], self.options)
            except (FileNotFoundError, IsADirectoryError):
                pass
            else:
                return
        if self.make_page is None:
            raise FileNotFoundError("a directory without an index")
        page = await trio.to_thread.run_sync(self._make_page, names, req.query)
        res.write_header("Content-Type", "text/html; charset=utf-8")
        res.write_header("Cache-Control", "no-cache")
        await res.send_chunk(page, len(page))

    def _make_page(self, names: Sequence[str], query: Mapping[str, str]) -> bytes:
        assert self.make_page is not None
        return self.make_page(names, self.tree.entries(names), query)

    async def _send_file(self, res: Response, names: Sequence[str], options: FileOptions) -> None:
        *directory, name = names

        def open_variant(suffix: str) -> OpenFile:
            return self.tree.open([*directory, name + suffix])

        await send_file(res, open_variant, options)

    async def _send_not_found(self, res: Response) -> None:
        if self.not_found is not None:
            res.write_status(404)
            try:
                await self._send_file(res, [self.not_found], FileOptions())
            except (FileNotFoundError, IsADirectoryError):
                pass
            else:
                return
        answer_status(res, 404)


@contextmanager
def trouble_in_one_line(res: Response, req: Request) -> Iterator[None]:
    """Log trouble of the file system in a line, and end the answer as after any exception.

    It is no fault of the code, so a traceback would be of no help.
    """
    try:
        yield
    except (OSError, FileTooShortError) as exc:
        logger.error("%s %s: %s (request %s)", req.method, req.target, exc, req.id)
        res._handler_failed(500)


def redirect_to_directory(res: Response, req: Request) -> None:
    """Send the client to the same path with a slash at its end, so that relative links work.

    The target is relative, too: a path such as `//example.org` would be the address of a host.
    """
    name = req.raw_path.rpartition("/")[2]
    query = req.target.partition("?")[1:]
    res.write_status(301).write_header("Location", f"./{name}/{''.join(query)}")
    res.end_without_body()
