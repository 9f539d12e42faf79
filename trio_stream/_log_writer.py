"""Logs on stdout and stderr, written by threads: whoever does not read them blocks nobody else."""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Literal, TypeAlias

from ._access_log import CombinedFormatter, JSONFormatter
from ._access_log import logger as access_logger

if TYPE_CHECKING:
    from collections.abc import Iterator

AccessLog: TypeAlias = Literal["combined", "json", "off"]

_STDOUT, _STDERR = 1, 2

_ERROR_FORMAT = "%(asctime)s %(levelname)s %(name)s{}: %(message)s"

_MAX_QUEUED = 1024 * 1024  # characters that wait for somebody to read them

# What is logged in so many seconds is written together: waking the thread for each line would cost
# more than all else.
_PAUSE = 0.05

# A pipe takes so many bytes in one piece (PIPE_BUF): so the lines of several workers don't mix.
_WRITE_SIZE = 4096

# How long the end of the program waits for somebody to read the last lines, in seconds.
_LAST_WAIT = 1.0


@contextmanager
def open_log(access_log: AccessLog, *, show_process: bool = False) -> Iterator[None]:
    """Log to stderr, from level INFO on, and responses to stdout, for the length of the block.

    A process that is forked in it needs its own. Streams that were closed when the program started
    take what is written to them, and nobody gets it: their numbers must not become those of others.

    Args:
      access_log: How the lines about responses look, or `"off"`.
      show_process: Whether a line on stderr tells which process it is of.
    """
    for fd in (0, _STDOUT, _STDERR):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    with ExitStack() as stack:
        process = "[%(process)d]" if show_process else ""
        # Lines about transfers in a terminal make way for those of a handler of streams.
        is_terminal = sys.stderr is not None and sys.stderr.isatty()
        errors = logging.StreamHandler() if is_terminal else BackgroundHandler(_STDERR)
        errors.setFormatter(logging.Formatter(_ERROR_FORMAT.format(process)))
        stack.enter_context(_logging(logging.getLogger(), logging.INFO, errors))
        if access_log == "off":
            stack.enter_context(_logging(access_logger, logging.WARNING))
        else:
            lines = BackgroundHandler(_STDOUT)
            is_combined = access_log == "combined"
            lines.setFormatter(CombinedFormatter() if is_combined else JSONFormatter())
            stack.enter_context(_logging(access_logger, logging.INFO, lines))
        yield


@contextmanager
def _logging(
    logger: logging.Logger, level: int, handler: logging.Handler | None = None
) -> Iterator[None]:
    before = logger.level, logger.propagate
    logger.setLevel(level)
    if handler is not None:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        logger.setLevel(before[0])
        logger.propagate = before[1]
        if handler is not None:
            logger.removeHandler(handler)
            handler.close()


class BackgroundHandler(logging.Handler):
    """Has a thread write the lines to a descriptor. Lines for which there is no room are dropped.

    How many were is said when there is room again. Not the `QueueListener` of the standard library:
    it wakes its thread for each record, and its `stop` waits for a blocked write.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._lines: list[str] = []
        self._size = 0
        self._dropped = 0
        self._wakeup = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"log to {fd}", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the line for `record`."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 (of whoever logged it, and it is custom to say so)
            self.handleError(record)
            return
        if self._size > _MAX_QUEUED:
            self._dropped += 1
            return
        if not self._lines:
            self._wakeup.set()
        self._lines.append(line)
        self._size += len(line)

    def close(self) -> None:
        """Write what is queued; what nobody takes within a second is lost."""
        super().close()
        self._closing.set()
        self._wakeup.set()
        self._thread.join(_LAST_WAIT)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wakeup.wait()
            self._wakeup.clear()
            self._closing.wait(_PAUSE)
            for piece in _pieces(self._take_lines()):
                _write(self._fd, piece)

    def _take_lines(self) -> list[str]:
        assert self.lock is not None
        with self.lock:  # as those have it who call `emit`
            lines, self._lines, self._size = self._lines, [], 0
            dropped, self._dropped = self._dropped, 0
        if dropped:
            lines.append(f"{dropped} lines of this log were dropped: nobody read it fast enough")
        return lines


def _pieces(lines: list[str]) -> Iterator[bytes]:
    """The lines, joined as far as one write can take them in one piece."""
    piece = b""
    for line in lines:
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        if piece and len(piece) + len(data) > _WRITE_SIZE:
            yield piece
            piece = b""
        piece += data
    if piece:
        yield piece


def _write(fd: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:  # some other program has made it non-blocking
            select.select((), (fd,), ())
        except OSError:
            return  # nobody is there to read it, or the disk is full: nobody could be told either
