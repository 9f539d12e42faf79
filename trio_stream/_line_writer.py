"""Lines that a thread writes to a descriptor: whoever does not read them blocks nobody else."""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_MAX_QUEUED = 1024 * 1024  # bytes that wait for somebody to read them

# What comes in so many seconds is written together: waking the thread for each line would cost more
# than all else.
_PAUSE = 0.05

# A pipe takes so many bytes in one piece (PIPE_BUF): so the lines of several workers don't mix.
_WRITE_SIZE = 4096

_END = 10  # of a line

_PAUSE_BETWEEN_LOSSES = 60  # seconds

# How long the end of the program waits for somebody to read the last lines, in seconds.
_LAST_WAIT = 1.0


class LineWriter:
    """Has a thread write lines. Those for which there is no room are dropped.

    How many were is said when there is room again. Not the `QueueListener` of the standard library:
    it wakes its thread for each line, and its `stop` waits for a blocked write.

    Args:
      fd: The descriptor.
      to_note: Makes a line of what is said about those that were dropped.
      on_loss: Is told, once a minute at most and by either thread, why lines are being lost.
    """

    def __init__(
        self,
        fd: int,
        to_note: Callable[[str], str] = str,
        on_loss: Callable[[str], object] | None = None,
    ) -> None:
        self._fd = fd
        self._to_note = to_note
        self._on_loss = on_loss
        self._loss_told_at = -inf
        # Each of the numbers is changed on one side of the queue only, so that none needs a lock.
        self._queue: deque[bytes] = deque()
        self._size_in = self._size_out = 0
        self._dropped = self._dropped_told = 0
        self._failed = 0  # lines that could not be written
        self._is_torn = False  # a part of the last one was
        self._wakeup = threading.Event()
        self._closing = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"log to {fd}", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Have `line` written, with an end. It may be called by one thread at a time."""
        if self._size_in - self._size_out > _MAX_QUEUED:
            self._dropped += 1
            self._tell_loss("nobody reads it fast enough")
            return
        data = line.encode("utf-8", "backslashreplace")
        self._size_in += len(data)
        self._queue.append(data)
        if len(self._queue) == 1:
            self._wakeup.set()

    def close(self) -> None:
        """Write what is queued; what nobody takes within a second is lost."""
        self._closing.set()
        self._wakeup.set()
        self._thread.join(_LAST_WAIT)
        self._closed = True

    def _run(self) -> None:
        is_last = False
        while self._queue or not is_last:
            self._wakeup.wait()
            self._wakeup.clear()
            is_last = self._closing.wait(_PAUSE)
            for piece in _pieces(self._take_lines()):
                self._write(piece)
                if self._closed:
                    return  # the descriptor may be that of something else by now
            if self._queue:
                self._wakeup.set()

    def _take_lines(self) -> Iterator[bytes]:
        for _ in range(len(self._queue)):
            data = self._queue.popleft()
            self._size_out += len(data)
            yield data
        if dropped := self._dropped - self._dropped_told:
            self._dropped_told += dropped
            text = f"{dropped} lines of this log were dropped: nobody read it fast enough"
            yield self._to_note(text).encode()

    def _write(self, piece: bytes) -> None:
        """Write some lines; what went wrong before is told as soon as that works again."""
        before = b"\n" if self._is_torn else b""
        if self._failed:
            note = f"{self._failed} lines of this log were lost: they could not be written"
            before += self._to_note(note).encode() + b"\n"
        data = before + piece
        written, error = _write(self._fd, data)
        if error is not None:
            self._tell_loss(f"it can't be written: {error.strerror}")
        if written:
            self._is_torn = data[written - 1] != _END
        if written >= len(before):
            self._failed = 0
        self._failed += piece.count(b"\n", max(written - len(before), 0))

    def _tell_loss(self, why: str) -> None:
        now = time.monotonic()
        if self._on_loss is not None and now - self._loss_told_at > _PAUSE_BETWEEN_LOSSES:
            self._loss_told_at = now
            self._on_loss(why)


def _pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines with their ends, joined as far as one write can take them in one piece."""
    piece: list[bytes] = []
    size = 0
    for line in lines:
        size += len(line) + 1
        if size > _WRITE_SIZE and piece:
            yield b"\n".join(piece) + b"\n"
            piece.clear()
            size = len(line) + 1
        piece.append(line)
    if piece:
        yield b"\n".join(piece) + b"\n"


def _write(fd: int, data: bytes) -> tuple[int, OSError | None]:
    """Write all of `data`, if that is possible: how much of it was written, and what went wrong."""
    written = 0
    while written < len(data):
        try:
            written += os.write(fd, data[written:])
        except BlockingIOError:  # some other program has made it non-blocking
            select.select((), (fd,), ())
        except OSError as exc:
            return written, exc  # nobody is there to read it, or the disk is full for the moment
    return written, None
