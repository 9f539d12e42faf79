"""Lines that a thread writes, to pipes that somebody reads, or nobody."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from trio_stream import _line_writer
from trio_stream._line_writer import LineWriter

if TYPE_CHECKING:
    from io import FileIO


def make_writer(file: FileIO) -> LineWriter:
    return LineWriter(file.fileno())


def put(writer: LineWriter, *lines: str) -> None:
    for line in lines:
        writer.put(line)


def read_to_end(reader: FileIO, writer: FileIO) -> bytes:
    writer.close()
    return reader.read()


def test_lines_are_written(pipe: tuple[FileIO, FileIO]) -> None:
    writer = make_writer(pipe[1])
    put(writer, "one 1")
    assert pipe[0].read(100) == b"one 1\n"
    put(writer, "two", "caf\xe9 \udc80")
    writer.close()
    assert not writer._thread.is_alive()
    assert read_to_end(*pipe) == "two\ncaf\xe9 \\udc80\n".encode()


def test_many_lines_are_written_whole_and_in_order(pipe: tuple[FileIO, FileIO]) -> None:
    reader, file = pipe
    writer = make_writer(file)
    lines = [f"{n} {n * 'x'}" for n in range(0, 6000, 7)]
    encoded = [line.encode() for line in lines]
    received: list[bytes] = []
    thread = threading.Thread(target=lambda: received.append(reader.read()))
    with patch.object(_line_writer, "_MAX_QUEUED", 1 << 30):
        put(writer, *lines)
    pieces = [*_line_writer._pieces(encoded)]
    assert sum(len(piece) > 4096 for piece in pieces) == sum(len(line) >= 4096 for line in encoded)
    assert len(pieces) < len(lines)
    thread.start()
    with patch.object(_line_writer, "_LAST_WAIT", 30):
        writer.close()
    file.close()
    thread.join()
    assert received[0].decode().splitlines() == lines


def test_what_comes_while_others_are_written_is_written_too(pipe: tuple[FileIO, FileIO]) -> None:
    reader, file = pipe
    writer = make_writer(file)
    file.write(bytes(4096))  # nobody reads it
    put(writer, "one")
    while writer._queue:  # until the thread has taken it, and waits
        pass
    put(writer, "two")
    assert reader.read(4096) == bytes(4096)
    assert reader.read(4) == b"one\n"
    assert reader.read(4) == b"two\n"
    file.write(bytes(4096))
    put(writer, "three")
    while writer._queue:
        pass
    put(writer, "four")
    closing = threading.Thread(target=writer.close)
    with patch.object(_line_writer, "_LAST_WAIT", 30):
        closing.start()
        writer._closing.wait(30)
        assert reader.read(4096) == bytes(4096)
        closing.join()
    assert read_to_end(*pipe) == b"three\nfour\n"


@pytest.mark.parametrize("blocking", [True, False])
def test_a_blocked_log_blocks_nobody_and_says_what_it_dropped(
    pipe: tuple[FileIO, FileIO], blocking: bool
) -> None:
    reader, file = pipe
    os.set_blocking(file.fileno(), blocking)
    file.write(bytes(4096))  # nobody reads it
    writer = make_writer(file)
    with patch.object(_line_writer, "_MAX_QUEUED", 1000):
        put(writer, "first")
        while writer._queue:  # until the thread has taken it, and waits
            pass
        put(writer, *(99 * "x" for _ in range(100)))
    with patch.object(_line_writer, "_LAST_WAIT", 0):
        writer.close()  # it does not wait
    assert reader.read(4096) == bytes(4096)
    writer._thread.join(30)
    # Since it was closed it has written what it had in its hands, and no more: its descriptor may
    # be that of something else.
    assert read_to_end(*pipe) == b"first\n"
    assert [*writer._take_lines()][-1] == (
        b"89 lines of this log were dropped: nobody read it fast enough"
    )


def test_what_was_dropped_is_told_once(pipe: tuple[FileIO, FileIO]) -> None:
    reader, file = pipe
    file.write(bytes(4096))
    writer = make_writer(file)
    with patch.object(_line_writer, "_MAX_QUEUED", 5):
        put(writer, "first")
        while writer._queue:
            pass
        put(writer, "second", "third")
        assert reader.read(4096) == bytes(4096)
        assert reader.read(6) == b"first\n"
        lines = b"second\n1 lines of this log were dropped: nobody read it fast enough\n"
        assert reader.read(len(lines)) == lines
        put(writer, "fourth")
        assert reader.read(7) == b"fourth\n"
    writer.close()
    assert read_to_end(*pipe) == b""


def test_losses_are_told_once_a_minute(pipe: tuple[FileIO, FileIO]) -> None:
    reader, file = pipe
    file.write(bytes(4096))
    told: list[str] = []
    now = 0.0
    with (
        patch("time.monotonic", lambda: now),
        patch.object(_line_writer, "_MAX_QUEUED", 5),
    ):
        writer = LineWriter(file.fileno(), on_loss=told.append)
        put(writer, "first")
        while writer._queue:  # until the thread has taken it, and waits
            pass
        put(writer, "second", "third", "fourth")
        assert told == ["nobody reads it fast enough"]
        now = 61
        put(writer, "fifth")
        assert told == 2 * ["nobody reads it fast enough"]
        now = 122
        reader.close()
        writer.close()
    assert told[2:] == ["it can't be written: Broken pipe"]


def test_a_log_that_nobody_can_read_is_no_error(pipe: tuple[FileIO, FileIO]) -> None:
    reader, file = pipe
    reader.close()
    writer = make_writer(file)
    put(writer, "lost")
    writer.close()
    assert not writer._thread.is_alive()


def test_lines_that_could_not_be_written_are_told(
    pipe: tuple[FileIO, FileIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    room = 0

    def write_to_a_disk(fd: int, data: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(fd, data[:room])
        room -= written
        return written

    def write_lines(*lines: str, room_for: int) -> None:
        nonlocal room
        room = room_for
        for line in lines:
            writer._write(line.encode() + b"\n")

    writer = make_writer(pipe[1])
    writer.close()
    monkeypatch.setattr(os, "write", write_to_a_disk)
    write_lines("one\ntwo\nthree", room_for=5)
    write_lines("four", room_for=0)
    write_lines("five", room_for=1)  # which ends the line that was torn, and no more
    write_lines("six", "seven", room_for=1000)
    write_lines("eight\nnine", room_for=6)  # a line may just have found room
    write_lines("ten", room_for=1000)
    monkeypatch.undo()
    assert read_to_end(*pipe).decode().splitlines() == [
        "one",
        "t",
        "4 lines of this log were lost: they could not be written",
        "six",
        "seven",
        "eight",
        "1 lines of this log were lost: they could not be written",
        "ten",
    ]
