"""A directory of the file system as a space of names: what may be seen of it, and nothing else.

All of it may wait for a disk, and belongs in a worker thread.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ._file import NO_SYMLINK, OpenFile, StrPath, open_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_T = TypeVar("_T")

_DIRECTORY = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_PASSING = _DIRECTORY | getattr(os, "O_PATH", os.O_RDONLY)  # which needs no right to list it

# What a client may know of a thing that it can't have: that there is none. All else (no descriptor
# left, a broken disk) is trouble that the operator must hear of.
_NOT_THERE = {
    errno.EACCES,
    errno.EILSEQ,  # a name that is no UTF-8, on macOS and some file systems
    errno.EINVAL,
    errno.ELOOP,
    errno.EMLINK,  # FreeBSD's ELOOP, if symlinks are not followed
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ENXIO,
    errno.EPERM,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """What a directory shows of one thing that is in it.

    Attributes:
      name: As the file system has it; `os.fsencode` gives its bytes.
      is_directory: Else it is a regular file.
      size: In bytes; 0 for a directory.
      modified: In seconds since 1970.
    """

    name: str
    is_directory: bool
    size: int
    modified: float


class Tree:
    """The regular files and directories below a directory: no device, FIFO or socket.

    Each is opened step by step from the root, without following a symlink. Only where that fails,
    symlinks are resolved first, and the path that comes out is then walked in the same way: so it
    can't lead out of the tree, even if somebody replaces a directory by a symlink in between.

    Args:
      root: The directory.
      dotfiles: Whether names that begin with a dot can be seen.
      symlinks_out: Whether symlinks may lead out of the tree. Those that stay inside are followed
        anyway.

    Raises:
      NotADirectoryError: `root` is not a directory.
    """

    def __init__(
        self, root: StrPath, *, dotfiles: bool = False, symlinks_out: bool = False
    ) -> None:
        if not Path(root).is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", os.fspath(root))
        self._root = str(Path(root).absolute())  # a symlink there may be changed at any time
        self._dotfiles = dotfiles
        self._symlinks_out = symlinks_out

    def open(self, names: Sequence[str]) -> OpenFile:
        """Open a file.

        Args:
          names: Those of the directories that lead to it, and its own.

        Raises:
          IsADirectoryError: It is a directory.
          FileNotFoundError: There is nothing else that may be seen.
          OSError: The system is in trouble.
        """
        return self._reach(_open_file, names)

    def entries(self, names: Sequence[str]) -> list[Entry]:
        """What may be seen of a directory, in any order.

        Raises:
          FileNotFoundError: There is no such directory that may be seen.
          OSError: The system is in trouble.
        """
        return self._reach(self._entries, names)

    def walk(self, names: Sequence[str]) -> Iterator[tuple[str, OpenFile]]:
        """Open all files below a directory, one after the other. The caller closes each.

        What can't be opened is left out, and so is what is behind a symlink to a directory: it
        could lead round in a circle.

        Yields:
          The path below the directory, with slashes, and the file.

        Raises:
          FileNotFoundError: There is no such directory that may be seen.
          OSError: The system is in trouble.
        """
        start, way = self._reach(self._directory_place, names)
        directories: list[tuple[str, ...]] = [()]
        while directories:
            path = directories.pop()
            try:
                entries = self._entries(start, (*way, *path))
            except OSError as exc:
                if not _is_not_there(exc):
                    raise
                continue
            for entry in sorted(entries, key=lambda entry: entry.name):
                below = (*path, entry.name)
                if entry.is_directory:
                    directories.append(below)
                    continue
                try:
                    file = self.open((*names, *below))
                except (FileNotFoundError, IsADirectoryError):  # it has changed since
                    continue
                yield "/".join(below), file

    def _reach(self, take: Callable[[str, Sequence[str]], _T], names: Sequence[str]) -> _T:
        """`take` a thing from a place to start from, and the names from there on."""
        try:
            if not all(map(self.is_visible, names)):
                raise FileNotFoundError(errno.ENOENT, "hidden", "/".join(names))
            try:
                return take(self._root, names)
            except OSError as exc:
                if not _is_not_there(exc):
                    raise
                return take(*self._resolve(names))
        except OSError as exc:
            if not _is_not_there(exc):
                raise
            raise FileNotFoundError(errno.ENOENT, "not found", "/".join(names)) from exc

    def _resolve(self, names: Sequence[str]) -> tuple[str, Sequence[str]]:
        """A place to start from, and the names from there on, without symlinks."""
        path = Path(os.path.realpath(Path(self._root, *names), strict=True))
        root = Path(os.path.realpath(self._root))
        if path.is_relative_to(root):
            return str(root), path.relative_to(root).parts
        if self._symlinks_out:
            return str(path.parent), path.parts[1:][-1:]  # nothing below that is the root of all
        raise FileNotFoundError(errno.ENOENT, "outside", str(path))

    def is_visible(self, name: str) -> bool:
        """Whether there could be a file or directory of that name."""
        if name in ("", ".", "..") or not {"/", "\\", "\0", os.sep}.isdisjoint(name):
            return False
        return self._dotfiles or not name.startswith(".")

    def _directory_place(self, start: str, names: Sequence[str]) -> tuple[str, Sequence[str]]:
        with _open_directory(start, names):
            return start, names

    def _entries(self, start: str, names: Sequence[str]) -> list[Entry]:
        with _open_directory(start, names) as passing:
            fd = os.open(".", _DIRECTORY | os.O_RDONLY, dir_fd=passing)
            try:
                with os.scandir(fd) as scan:
                    found = [self._entry(Path(start, *names), item) for item in scan]
            finally:
                os.close(fd)
        return [entry for entry in found if entry is not None]

    def _entry(self, directory: Path, item: os.DirEntry[str]) -> Entry | None:
        if not self.is_visible(item.name):
            return None
        try:
            if item.is_symlink() and not self._symlinks_out:
                path = Path(os.path.realpath(directory / item.name, strict=True))
                if not path.is_relative_to(os.path.realpath(self._root)):
                    return None
            status = item.stat()
        except OSError:  # a symlink to nowhere, or it has gone
            return None
        is_directory = stat.S_ISDIR(status.st_mode)
        if not (is_directory or stat.S_ISREG(status.st_mode)):
            return None
        return Entry(
            item.name, is_directory, 0 if is_directory else status.st_size, status.st_mtime
        )


def _open_file(start: str, names: Sequence[str]) -> OpenFile:
    if not names:
        raise IsADirectoryError(errno.EISDIR, "is a directory", start)
    with _open_directory(start, names[:-1]) as fd:
        return open_file(names[-1], flags=NO_SYMLINK, dir_fd=fd)


@contextmanager
def _open_directory(start: str, names: Sequence[str]) -> Iterator[int]:
    """A descriptor of a directory, open for the length of the block; no symlink leads to it."""
    fd = os.open(start, _PASSING)
    try:
        for name in names:
            below = os.open(name, _PASSING | NO_SYMLINK, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def _is_not_there(exc: OSError) -> bool:
    return exc.errno in _NOT_THERE
