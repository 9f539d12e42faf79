"""A directory as a zip archive that is made while it is sent, at constant memory."""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING

import trio

from ._file import FilePart, FileTooShortError

try:
    import zipstream
except ImportError:
    HAVE_ZIP = False
else:
    HAVE_ZIP = True

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterator, Sequence

    from ._file import OpenFile
    from ._tree import Tree

# What a worker thread does at a time: with less, changing threads would take longer than reading.
_PIECE_SIZE = 256 * 1024


async def zip_directory(
    tree: Tree, names: Sequence[str], prefix: str
) -> AsyncGenerator[bytes, None]:
    """The bytes of an archive of all files below a directory, as they are asked for.

    One file is open at a time. It is closed with the iterator, which only waits for a read that is
    under way. The files are not compressed: most that are large are so already.

    Args:
      tree: What may be seen.
      names: Those that lead to the directory.
      prefix: The directory that all files of the archive are in.

    Raises:
      FileNotFoundError: There is no such directory that may be seen.
      EOFError: A file became shorter while it was read.
      OSError: The system is in trouble.
    """
    with closing(_zip_directory(tree, names, prefix)) as pieces:
        while piece := await trio.to_thread.run_sync(_take, pieces):
            yield piece


def _zip_directory(tree: Tree, names: Sequence[str], prefix: str) -> Generator[bytes, None, None]:
    archive = zipstream.ZipStream()
    taken: set[str] = set()  # of those with a `%`: no two others are alike
    for path, file in tree.walk(names):
        with file:
            name = _entry_name(f"{prefix}/{path}")
            while name in taken:
                name += "~"
            if "%" in name:
                taken.add(name)
            archive.add(_read(file), name, size=file.size)
            yield from archive.all_files()
    yield from archive.finalize()


def _take(pieces: Iterator[bytes]) -> bytes:
    """The next pieces as one: those between files are tiny. `b""` at the end."""
    taken: list[bytes] = []
    size = 0
    for piece in pieces:
        taken.append(piece)
        size += len(piece)
        if size >= _PIECE_SIZE:
            break
    return b"".join(taken)


def _read(file: OpenFile) -> Iterator[bytes]:
    rest = FilePart(file, 0, file.size)
    while rest:
        data = file.read(rest.start, min(len(rest), _PIECE_SIZE))
        if not data:
            raise FileTooShortError(rest)
        yield data
        rest = rest.after(len(data))


def _entry_name(path: str) -> str:
    """A path as an archive can have it: bytes that are not UTF-8 become `%E9` and the like."""
    return re.sub("[\udc80-\udcff]", lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", path)
