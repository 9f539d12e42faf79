"""Files: what is opened and what never is, and what is read without waiting."""

from __future__ import annotations

import errno
import io
import os
import socket
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.clients import open_descriptors, settled_descriptors
from tests.files import MODIFIED_NS, make_file
from trio_stream._file import (
    NO_SYMLINK,
    FilePart,
    FileTooShortError,
    OpenFile,
    borrow_file,
    check_system,
    open_file,
    open_variants,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DATA = bytes(range(256)) * 10


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_file(tmp_path / "file.bin", DATA)


def test_open(path: Path) -> None:
    before = settled_descriptors()
    with open_file(path) as file:
        assert (file.name, file.size, file.modified_ns) == ("file.bin", 2560, MODIFIED_NS)
        assert file.read(0, 3) == DATA[:3]
        assert file.read(2558, 100) == DATA[-2:]
        assert file.read(2560, 100) == b""
        assert not os.get_inheritable(file.fd)
        assert len(open_descriptors()) == len(before) + 1
    assert open_descriptors() == before
    with open_file(str(path)) as file:
        assert file.size == 2560


@pytest.mark.skipif(sys.platform != "linux", reason="needs RWF_NOWAIT")
def test_read_cached(path: Path) -> None:
    with open_file(path) as file:
        file.read(0, 2560)
        if file.read_cached(0, 1) is None:
            pytest.skip("this file system can't tell what is cached")
        assert file.read_cached(0, 3) == DATA[:3]
        assert file.read_cached(2558, 100) == DATA[-2:]
        # Linux 5.9 and 5.10 also read nothing, in the middle of a file, where they would wait.
        assert file.read_cached(2560, 100) is None


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def make_device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(4095, 0))  # which has no driver
    except OSError:
        pytest.skip("only root can make a device")


MAKERS = (os.mkdir, make_fifo, make_socket, make_device)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("flags", [0, NO_SYMLINK])
def test_nothing_but_regular_files_is_opened(
    make: Callable[[Path], None], flags: int, tmp_path: Path
) -> None:
    path = tmp_path / "thing"
    make(path)
    before = settled_descriptors()
    kind = IsADirectoryError if make is os.mkdir else OSError
    with pytest.raises(kind, match="thing") as caught:
        open_file(path, flags=flags)
    # No kernel says that of a socket or a device without a driver: nobody has tried.
    assert caught.value.errno == (errno.EISDIR if make is os.mkdir else errno.EINVAL)
    assert open_descriptors() == before


@pytest.mark.parametrize("make", MAKERS)
def test_what_replaces_a_file_at_the_last_moment_is_not_kept_open(
    make: Callable[[Path], None], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a FIFO without a writer waited for."""
    real_open = os.open

    def replace_and_open(name: Path, flags: int, *, dir_fd: int | None) -> int:
        name.unlink()
        make(name)
        return real_open(name, flags, dir_fd=dir_fd)

    before = settled_descriptors()
    monkeypatch.setattr(os, "open", replace_and_open)
    with pytest.raises(OSError, match=r"file\.bin"):
        open_file(path)
    assert open_descriptors() == before


def test_symlinks(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    with open_file(link) as file:
        assert (file.name, file.size) == ("link", 2560)
    with pytest.raises(OSError, match="not a regular file"):
        open_file(link, flags=NO_SYMLINK)


def test_relative_to_a_folder(path: Path, tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with open_file("file.bin", dir_fd=fd) as file:
            assert file.size == 2560
        with pytest.raises(FileNotFoundError):
            open_file("other", dir_fd=fd)
    finally:
        os.close(fd)


def test_borrowed_file_stays_open_and_is_not_moved(path: Path) -> None:
    with path.open("rb") as theirs:
        theirs.seek(7)
        with borrow_file(theirs) as file:
            assert (file.fd, file.name, file.size) == (theirs.fileno(), "file.bin", 2560)
            assert file.read(0, 3) == DATA[:3]
        file.close()
        assert theirs.tell() == 7
        assert theirs.read(2) == DATA[7:9]


def test_names_of_borrowed_files(path: Path) -> None:
    with tempfile.TemporaryFile() as unnamed, borrow_file(unnamed) as file:
        assert file.name == ""
    with open(bytes(path), "rb") as theirs, borrow_file(theirs) as file:  # noqa: PTH123
        assert file.name == ""
    with open(os.open(path, os.O_RDONLY), "rb") as theirs, borrow_file(theirs) as file:  # noqa: PTH123
        assert file.name == ""


def test_only_regular_files_are_borrowed() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as file, os.fdopen(writer, "wb"), pytest.raises(OSError) as error:
        borrow_file(file)
    assert error.value.strerror == "not a regular file"
    with pytest.raises(TypeError, match="a file is a path, or has a descriptor, unlike <"):
        borrow_file(io.BytesIO())


def test_variants(path: Path) -> None:
    make_file(path.with_name("file.bin.gz"), b"small")
    for file in (path, str(path)):
        open_variant = open_variants(file)
        with open_variant("") as opened:
            assert opened.size == 2560
        with open_variant(".gz") as opened:
            assert (opened.size, opened.name) == (5, "file.bin.gz")
        with pytest.raises(FileNotFoundError):
            open_variant(".br")
    with path.open("rb") as theirs:
        open_variant = open_variants(theirs)
        with open_variant("") as opened:
            assert opened.fd == theirs.fileno()
        with pytest.raises(FileNotFoundError):  # its name may be that of another file by now
            open_variant(".gz")


@pytest.mark.parametrize("file", [None, 7, b"name", ["name"]])
def test_variants_of_what_is_no_file(file: object) -> None:
    with pytest.raises(TypeError, match="a file is a path, or has a descriptor"):
        open_variants(file)  # type: ignore[arg-type]


def test_parts(path: Path) -> None:
    with open_file(path) as file:
        part = FilePart(file, 100, 300)
        assert len(part) == 200
        assert spans([part.first(50), part.first(200), part.first(500)]) == [
            (100, 150),
            (100, 300),
            (100, 300),
        ]
        assert spans([part.after(0), part.after(50), part.after(200)]) == [
            (100, 300),
            (150, 300),
            (300, 300),
        ]
        assert not part.after(200)
        assert len(FilePart(file, 2**40, 2**41)) == 2**40


def spans(parts: Sequence[FilePart]) -> list[tuple[int, int]]:
    return [(part.start, part.stop) for part in parts]


def test_what_was_warmed_is_cached(path: Path) -> None:
    os.truncate(path, 5_000_000)
    with open_file(path) as file:
        part = FilePart(file, 0, 5_000_000)
        part.warm()
        if file.read_cached(0, 1) is not None:
            assert part.cached_size() == 5_000_000
            assert part.first(1).cached_size() == 1
        # It ends early: reading it will tell.
        FilePart(file, 4_000_000, 9_000_000).warm()


def test_cold_part_is_cached_when_it_was_warmed(tmp_path: Path) -> None:
    path = make_file(tmp_path / "cold", DATA * 1000)
    with open_file(path) as file:
        cool_down(file)
        part = FilePart(file, 0, file.size)
        part.warm()
        assert part.cached_size() == file.size


def test_part_is_cached_up_to_the_end_of_the_file(path: Path) -> None:
    with open_file(path) as file:
        if file.read_cached(0, 1) is None:
            pytest.skip("this file system can't tell what is cached")
        assert FilePart(file, 0, file.size).cached_size() == file.size
        assert FilePart(file, 0, file.size + 1).cached_size() == 0
        assert FilePart(file, file.size, file.size + 1).cached_size() == 0


def test_file_system_that_does_not_tell_what_is_cached() -> None:
    try:
        path = make_file(Path("/dev/shm/trio_stream-test"), DATA)
    except OSError:
        pytest.skip("there is no /dev/shm")
    try:
        with open_file(path) as file:
            if file.read_cached(0, 1) is not None:
                pytest.skip("it does tell")
            with pytest.raises(io.UnsupportedOperation, match="this file system does not tell"):
                FilePart(file, 0, file.size).cached_size()
    finally:
        path.unlink()


@pytest.mark.skipif(sys.platform != "linux", reason="others can't tell")
def test_file_that_was_found_cold_is_looked_at_closely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mib = 1 << 20
    path = make_file(tmp_path / "holey", bytes(4 * mib))
    missing = range(mib, mib + 128 * 1024)
    looks: list[int] = []

    def preadv(fd: int, buffers: Sequence[bytearray], offset: int, flags: int) -> int:
        assert flags == os.RWF_NOWAIT
        assert [len(buffer) for buffer in buffers] == [1]
        looks.append(offset + 1)
        if offset in missing:
            raise BlockingIOError(errno.EAGAIN, "it would wait")
        return 1

    monkeypatch.setattr(os, "preadv", preadv)
    with open_file(path) as file:
        part = FilePart(file, 0, file.size)
        # The end of each long stretch is there...
        assert part.cached_size() == file.size
        assert looks == [mib, 2 * mib, 3 * mib, 4 * mib]
        # ...but once something is missing, the file is looked at more closely.
        assert FilePart(file, mib, mib + 4096).cached_size() == 0
        looks.clear()
        assert part.cached_size() == mib
        assert looks == [*range(128 * 1024, mib + 1, 128 * 1024), mib + 128 * 1024]
        assert part.after(mib + 128 * 1024).cached_size() == 3 * mib - 128 * 1024
    # And at once, if it is missing where it is looked for.
    with open_file(path) as file:
        missing = range(3 * mib - 1, 4 * mib)
        assert FilePart(file, 0, file.size).cached_size() == 3 * mib - 128 * 1024


def cool_down(file: OpenFile) -> None:
    """Have the kernel forget a file, or skip the test where that is not to be had."""
    if sys.platform != "linux" or file.read_cached(0, 1) is None:
        pytest.skip("this file system can't tell what is cached")
    os.fsync(file.fd)
    # Whether it has is not looked at: to be asked for a page has it read ahead.
    os.posix_fadvise(file.fd, 0, 0, os.POSIX_FADV_DONTNEED)


def test_not_cached_on_another_system(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with open_file(path) as file:
        assert file.read_cached(0, 1) is None
        with pytest.raises(io.UnsupportedOperation, match="only Linux tells"):
            FilePart(file, 0, 10).cached_size()


def test_error_says_how_long_it_was(path: Path) -> None:
    with open_file(path) as file:
        error = FileTooShortError(FilePart(file, 100, 200))
    assert isinstance(error, EOFError)
    expected = "'file.bin' had 2560 bytes when it was opened, and now it ends before byte 100"
    assert str(error) == expected


def test_files_need_a_posix_system(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_system()
    monkeypatch.delattr(os, "pread")
    monkeypatch.setattr(os, "name", "nt")
    with pytest.raises(NotImplementedError, match="POSIX systems only, and not on nt"):
        open_variants(str(path))
