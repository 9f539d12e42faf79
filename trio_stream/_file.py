"""A regular file, open for reading at any position, and what can be read of it without waiting.

What is in the page cache can be read at once; all the rest, opening included, may wait for a disk
or a network and belongs in a worker thread.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self


class HasFileno(Protocol):
    """An open file, such as `open(path, "rb")` or `tempfile.TemporaryFile()` gives."""

    def fileno(self) -> int:
        """The descriptor."""


OpenVariant: TypeAlias = "Callable[[str], OpenFile]"
"""Opens the file whose name has this suffix more; `""` is for the file itself.

Raises:
  OSError: There is none.
"""

StrPath: TypeAlias = "str | os.PathLike[str]"

# Never a FIFO's other end, and no controlling terminal, should the name have become one of these.
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
)
NO_SYMLINK = getattr(os, "O_NOFOLLOW", 0)

# What one sample of the cache stands for: a look costs as much as sending 8 KiB. The short one is
# what the kernel reads ahead by default.
_LONG_STRETCH = 1024 * 1024
_SHORT_STRETCH = 128 * 1024

_WARM_STEP = 256 * 1024


class FileTooShortError(EOFError):
    """A file ended before the part of it that was to be sent."""

    def __init__(self, part: FilePart) -> None:
        super().__init__(
            f"{part.file.name!r} had {part.file.size} bytes when it was opened, "
            f"and now it ends before byte {part.start}"
        )


class OpenFile:
    """A context manager that closes the file, unless it is somebody else's.

    Attributes:
      fd: Its descriptor.
      name: The last part of its path; `""` if it has none.
      size: In bytes, when it was opened.
      modified_ns: When it was last modified, in nanoseconds since 1970.
      stretch: How far one sample of the cache reaches.
    """

    __slots__ = ("_is_owned", "fd", "modified_ns", "name", "size", "stretch")

    def __init__(self, fd: int, name: str, status: os.stat_result, *, is_owned: bool) -> None:
        self.fd = fd
        self.name = name
        self.size = status.st_size
        self.modified_ns = status.st_mtime_ns
        self.stretch = _LONG_STRETCH
        self._is_owned = is_owned

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def read(self, offset: int, size: int) -> bytes:
        """Read at most `size` bytes from `offset` on, waiting for the disk.

        Returns:
          `b""` at the end of the file.
        """
        return os.pread(self.fd, size, offset)

    def read_cached(self, offset: int, size: int) -> bytes | None:
        """Read at most `size` bytes from `offset` on, without waiting.

        Returns:
          At least one byte; `None` if there is none, or nobody can tell without waiting.
        """
        if sys.platform != "linux":
            return None
        buffer = bytearray(size)
        try:
            count = os.preadv(self.fd, [buffer], offset, os.RWF_NOWAIT)
        except OSError:  # it would wait, or this file system can't tell
            return None
        # Nothing need not be the end: in Linux 5.9 and 5.10 it can also mean that it would wait
        # (preadv2(2), BUGS).
        return bytes(memoryview(buffer)[:count]) if count else None

    def close(self) -> None:
        """Close the file, unless it is somebody else's."""
        if self._is_owned:
            os.close(self.fd)


class FilePart:
    """A part of a file, to be sent without being read: its length is that of the bytes.

    Attributes:
      file: Where they are.
      start: The position of the first one.
      stop: That behind the last one.
    """

    __slots__ = ("file", "start", "stop")

    def __init__(self, file: OpenFile, start: int, stop: int) -> None:
        self.file = file
        self.start = start
        self.stop = stop

    def __len__(self) -> int:
        return self.stop - self.start

    def first(self, size: int) -> FilePart:
        """Its first `size` bytes, or all of it if there are not so many."""
        return FilePart(self.file, self.start, min(self.stop, self.start + size))

    def after(self, size: int) -> FilePart:
        """What is left of it without the first `size` bytes."""
        return FilePart(self.file, self.start + size, self.stop)

    def cached_size(self) -> int:
        """How many bytes can be read without waiting, from the first one on, as samples tell.

        The kernel reads and drops pages by the hundred, and reads them in their order: so the last
        one of each stretch tells enough, and of a file of which nothing was found missing yet, long
        stretches will do. To look at all pages would cost as much as to read them.

        Raises:
          io.UnsupportedOperation: This system, or file system, can't tell.
        """
        if sys.platform != "linux":
            raise io.UnsupportedOperation("only Linux tells what is in its cache")
        file = self.file
        buffers = (bytearray(1),)
        position = self.start
        try:
            while position < self.stop:
                end = min(position + file.stretch, self.stop)
                if not os.preadv(file.fd, buffers, end - 1, os.RWF_NOWAIT):
                    break  # the end, or as in `read_cached`
                position = end
        except BlockingIOError:
            if file.stretch != _SHORT_STRETCH:
                file.stretch = _SHORT_STRETCH
                return self.cached_size()
        except OSError as exc:
            raise io.UnsupportedOperation(f"this file system does not tell: {exc}") from exc
        return position - self.start

    def warm(self) -> None:
        """Read it into the cache of the kernel."""
        size = len(self)
        for position in range(self.start, self.stop, _WARM_STEP):
            if not self.file.read(position, _WARM_STEP):
                break
        if hasattr(os, "posix_fadvise"):
            # Meanwhile: what comes next can be read from the disk while this is sent.
            os.posix_fadvise(self.file.fd, self.stop, size, os.POSIX_FADV_WILLNEED)


def open_file(path: StrPath, *, flags: int = 0, dir_fd: int | None = None) -> OpenFile:
    """Open a regular file, and nothing else: no directory, and never a device or a FIFO.

    Args:
      path: Where it is.
      flags: Further ones for `os.open`: `NO_SYMLINK`.
      dir_fd: What `path` is relative to.

    Raises:
      OSError: It can't be opened, or is not a regular file.
    """
    # Opening a device can already do something, so look first. Whoever is quick enough to replace
    # it in between is found out by the second look.
    _check_regular(path, os.stat(path, dir_fd=dir_fd, follow_symlinks=not flags & NO_SYMLINK))
    fd = os.open(path, _FLAGS | flags, dir_fd=dir_fd)
    try:
        status = os.fstat(fd)
        _check_regular(path, status)
        return OpenFile(fd, Path(path).name, status, is_owned=True)
    except BaseException:
        os.close(fd)
        raise


def borrow_file(file: HasFileno) -> OpenFile:
    """Use a file that somebody has opened, and will close.

    Raises:
      OSError: It is not a regular file.
      TypeError: It has no descriptor.
    """
    try:
        fd = file.fileno()
    except io.UnsupportedOperation:
        raise TypeError(f"a file is a path, or has a descriptor, unlike {file!r}") from None
    status = os.fstat(fd)
    _check_regular(file, status)
    name = getattr(file, "name", None)  # an integer, if it has none in the file system
    return OpenFile(fd, Path(name).name if isinstance(name, str) else "", status, is_owned=False)


def open_variants(file: StrPath | HasFileno) -> OpenVariant:
    """What opens a file, and its siblings that have one more suffix; only a path has any.

    Raises:
      TypeError: It is neither a path nor a file.
      NotImplementedError: As `check_system`.
    """
    check_system()
    if isinstance(file, str | os.PathLike):
        path = os.fspath(file)
        return lambda suffix: open_file(path + suffix)
    if not hasattr(file, "fileno"):
        raise TypeError(f"a file is a path, or has a descriptor, unlike {file!r}")

    def borrow(suffix: str) -> OpenFile:
        if suffix:
            raise FileNotFoundError(errno.ENOENT, "an open file has no siblings", str(file))
        return borrow_file(file)

    return borrow


def check_system() -> None:
    """Check that files can be served here.

    Raises:
      NotImplementedError: They can't.
    """
    if not (hasattr(os, "pread") and os.open in os.supports_dir_fd):
        raise NotImplementedError(f"files are served on POSIX systems only, and not on {os.name}")


def _check_regular(path: object, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
