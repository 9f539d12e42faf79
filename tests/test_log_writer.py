"""Logs that are written by threads, to pipes that somebody reads, or nobody."""

from __future__ import annotations

import fcntl
import io
import logging
import os
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from trio_stream import _log_writer
from trio_stream._access_log import logger as access_logger
from trio_stream._log_writer import BackgroundHandler, open_log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO
    from pathlib import Path

    from trio_stream._log_writer import AccessLog


def record(message: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("x", logging.INFO, "", 0, message, args, None)


@pytest.fixture
def pipe() -> Iterator[tuple[FileIO, FileIO]]:
    """A small pipe: what reads, and what writes."""
    read_fd, write_fd = os.pipe()
    with os.fdopen(read_fd, "rb", 0) as reader, os.fdopen(write_fd, "wb", 0) as writer:
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        yield reader, writer


def read_to_end(reader: FileIO, writer: FileIO) -> bytes:
    writer.close()
    return reader.read()


def test_lines_are_written(pipe: tuple[FileIO, FileIO]) -> None:
    handler = BackgroundHandler(pipe[1].fileno())
    handler.handle(record("one %d", 1))
    assert pipe[0].read(100) == b"one 1\n"
    for text in ("two", "caf\xe9 \udc80"):
        handler.handle(record(text))
    handler.close()
    assert not handler._thread.is_alive()
    assert read_to_end(*pipe) == "two\ncaf\xe9 \\udc80\n".encode()


def test_many_lines_are_written_whole_and_in_order(pipe: tuple[FileIO, FileIO]) -> None:
    reader, writer = pipe
    handler = BackgroundHandler(writer.fileno())
    lines = [f"{n} {n * 'x'}" for n in range(0, 6000, 7)]
    received: list[bytes] = []
    thread = threading.Thread(target=lambda: received.append(reader.read()))
    with patch.object(_log_writer, "_MAX_QUEUED", 1 << 30):
        for line in lines:
            handler.handle(record(line))
    assert [len(piece) > 4096 for piece in _log_writer._pieces(lines)].count(True) == sum(
        len(line) >= 4096 for line in lines
    )
    thread.start()
    with patch.object(_log_writer, "_LAST_WAIT", 30):
        handler.close()
    writer.close()
    thread.join()
    assert received[0].decode().splitlines() == lines


@pytest.mark.parametrize("blocking", [True, False])
def test_a_blocked_log_blocks_nobody_and_says_what_it_dropped(
    pipe: tuple[FileIO, FileIO], blocking: bool
) -> None:
    reader, writer = pipe
    os.set_blocking(writer.fileno(), blocking)
    writer.write(bytes(4096))  # nobody reads it
    handler = BackgroundHandler(writer.fileno())
    with patch.object(_log_writer, "_MAX_QUEUED", 1000):
        handler.handle(record("first"))
        while handler._lines:  # until the thread has taken it, and waits
            pass
        for _ in range(100):
            handler.handle(record(99 * "x"))
    with patch.object(_log_writer, "_LAST_WAIT", 0):
        handler.close()  # it does not wait
    assert reader.read(4096) == bytes(4096)
    handler._thread.join(30)
    # Since it was closed it has written what it had taken, and no more.
    assert read_to_end(*pipe) == b"first\n"
    assert handler._dropped == 89
    assert handler._take_lines()[-1] == (
        "89 lines of this log were dropped: nobody read it fast enough"
    )


def test_a_log_that_nobody_can_read_is_no_error(pipe: tuple[FileIO, FileIO]) -> None:
    reader, writer = pipe
    reader.close()
    handler = BackgroundHandler(writer.fileno())
    handler.handle(record("lost"))
    handler.close()
    assert not handler._thread.is_alive()


def test_a_mistake_in_a_message_is_told_as_ever(
    pipe: tuple[FileIO, FileIO], capsys: pytest.CaptureFixture[str]
) -> None:
    handler = BackgroundHandler(pipe[1].fileno())
    handler.handle(record("%d", "no number"))
    handler.close()
    assert "--- Logging error ---" in capsys.readouterr().err


@contextmanager
def written_to(stdout: FileIO, stderr: FileIO, access_log: AccessLog) -> Iterator[None]:
    with (
        patch.object(_log_writer, "_STDOUT", stdout.fileno()),
        patch.object(_log_writer, "_STDERR", stderr.fileno()),
        open_log(access_log),
    ):
        yield


@pytest.mark.parametrize("access_log", ["combined", "json", "off"])
def test_logs_go_where_they_belong(
    pipe: tuple[FileIO, FileIO], access_log: AccessLog, tmp_path: Path
) -> None:
    root = logging.getLogger()
    before = [(it.level, it.propagate, it.handlers.copy()) for it in (root, access_logger)]
    stdout = tmp_path / "stdout"
    with stdout.open("wb", buffering=0) as file, written_to(file, pipe[1], access_log):
        logging.getLogger("somebody").info("hello")
        logging.getLogger("somebody").debug("psst")
        assert access_logger.isEnabledFor(logging.INFO) == (access_log != "off")
        handlers = len(access_logger.handlers)
    assert handlers == (access_log != "off")
    after = [(it.level, it.propagate, it.handlers.copy()) for it in (root, access_logger)]
    assert after == before
    assert read_to_end(*pipe).endswith(b" INFO somebody: hello\n")
    assert stdout.read_bytes() == b""


def test_a_terminal_gets_lines_that_make_way_for_those_of_transfers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    with open_log("off"):
        (handler,) = [it for it in logging.getLogger().handlers if it.formatter is not None][-1:]
        assert isinstance(handler, logging.StreamHandler)
        assert handler.stream is terminal
        logging.getLogger("somebody").info("hello")
    assert terminal.getvalue().endswith(" INFO somebody: hello\n")
