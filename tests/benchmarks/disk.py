"""Files to download: real bytes on a disk, in a folder that the servers are told of."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_VARIABLE = "BENCHMARK_FOLDER"

# Not /tmp, which may be in memory: a file is never dropped from there.
_DISK = "/var/tmp"


@contextmanager
def provided(*sizes: int) -> Iterator[None]:
    """Make files of these sizes, named after them, for the servers that start in the block."""
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=_DISK) as name:
        Path(name).chmod(0o755)  # nginx reads them as another user
        os.environ[_VARIABLE] = name
        try:
            for size in sizes:
                _write(path(size), size)
            yield
        finally:
            del os.environ[_VARIABLE]


def folder() -> str:
    """Where they are: in the server, too. Without any, the current folder."""
    return os.environ.get(_VARIABLE, os.curdir)


def path(size: int) -> Path:
    """The file of that size."""
    return Path(folder(), str(size))


def content(size: int) -> bytes:
    """What is in it."""
    return path(size).read_bytes()


def drop(size: int) -> None:
    """Have the kernel forget what it has cached of the file, so that a download reads the disk."""
    with path(size).open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _write(file_path: Path, size: int) -> None:
    block = os.urandom(min(size, 1 << 20))
    with file_path.open("wb") as file:
        for _ in range(size // len(block)):
            file.write(block)
        file.write(block[: size % len(block)])
        file.flush()
        os.fsync(file.fileno())  # what is not on the disk yet can't be dropped
    # Of a file that has just changed, a server may tell something else than a moment later.
    os.utime(file_path, (1e9, 1e9))
