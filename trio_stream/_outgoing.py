"""The bytes of one response on their way to the transport: head, framing, body, queue."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._stats import Stats
    from ._transport import Bytes, Transport

# The most that is kept here of what the transport does not take: once its size has been sent, a
# frame must be finished.
FRAME_SIZE = 16 * 1024

# A frame is three pieces, and a `writev` takes 1024 (IOV_MAX).
_SLAB_SIZE = 256 * FRAME_SIZE


class Outgoing:
    """Sends one response: what must go first, then the body, framed if its length is unknown.

    All methods raise `trio.BrokenResourceError` when nothing can be sent any more.

    Attributes:
      offset: How many bytes of the body were accepted: by the transport or, of a frame that it has
        taken the beginning of, here.
      blocked: Something did not go, and the transport has not been writable since.
      queued: What was queued of the body and has not been accepted yet.
    """

    __slots__ = (
        "_is_chunked",
        "_stats",
        "_tail",
        "_transport",
        "_unsent",
        "blocked",
        "offset",
        "queued",
    )

    def __init__(self, transport: Transport, stats: Stats) -> None:
        self._transport = transport
        self._stats = stats
        self._is_chunked = False
        self._unsent: bytes | memoryview = b""  # goes before anything else: a head, a frame's rest
        self._tail = b""  # goes after all that is queued
        self.offset = 0
        self.blocked = False
        self.queued: bytes | bytearray | memoryview = b""

    @property
    def is_flushed(self) -> bool:
        """Whether the transport has taken all that was accepted and queued."""
        return not (self._unsent or self.queued or self._tail)

    def start(self, head: bytes, *, is_chunked: bool = False) -> None:
        """Have `head` leave with the next bytes, and the body after it chunked if asked."""
        self._unsent = head if not self._unsent else bytes(self._unsent) + head
        self._is_chunked = is_chunked

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Send what goes now of `data`. Nothing may be queued.

        Returns:
          How many bytes of `data` were accepted.
        """
        if self._is_chunked:
            return self._send_chunked(data)
        if unsent := self._unsent:
            accepted = self._transport.send_some(unsent, data) - len(unsent)
            self._unsent = memoryview(unsent)[accepted:] if accepted < 0 else b""
            accepted = max(accepted, 0)
        else:
            accepted = self._transport.send_some(data)
        self.offset += accepted
        self._stats.body_bytes_sent += accepted
        if accepted < len(data) or self._unsent:
            self.blocked = True
        return accepted

    def queue(self, data: bytes | memoryview) -> None:
        """Keep `data` for `flush`. It is not copied if it is immutable and nothing else is kept."""
        if isinstance(self.queued, bytearray):
            self.queued += data
        elif self.queued:
            self.queued = bytearray(self.queued) + data
        else:
            self.queued = data if isinstance(memoryview(data).obj, bytes) else bytes(data)

    def finish(self, tail: bytes) -> None:
        """Have `tail` leave after all that is queued."""
        self._tail = tail

    def flush(self) -> None:
        """Send what goes now of all that was accepted and queued."""
        if self.queued:
            accepted = self.send(self.queued)
            if accepted == len(self.queued):
                self.queued = b""
            elif isinstance(self.queued, bytearray):
                del self.queued[:accepted]
            elif accepted:
                self.queued = memoryview(self.queued)[accepted:]
        elif self._unsent or self._tail:
            self.send(b"")

    # Chunked (RFC 9112 section 7.1)...

    def _send_chunked(self, data: bytes | bytearray | memoryview) -> int:
        view = memoryview(data)
        accepted = 0
        while True:
            slab = view[accepted : accepted + _SLAB_SIZE]
            newly_accepted = self._send_frames(slab, is_last=accepted + len(slab) == len(view))
            accepted += newly_accepted
            if newly_accepted < len(slab) or accepted == len(view):
                break
        self.offset += accepted
        self._stats.body_bytes_sent += accepted
        if accepted < len(view) or self._unsent or self._tail:
            self.blocked = True
        return accepted

    def _send_frames(self, slab: memoryview, *, is_last: bool) -> int:
        """Send `slab` in frames. Each is accepted whole, if the transport takes a byte of it."""
        frames: list[tuple[Bytes, Bytes, Bytes]] = [
            (b"%x\r\n" % len(frame), frame, b"\r\n")
            for start in range(0, len(slab), FRAME_SIZE)
            for frame in (slab[start : start + FRAME_SIZE],)
        ]
        tail = self._tail if is_last else b""
        pieces: list[Bytes] = [self._unsent, *chain.from_iterable(frames), tail]
        rest = self._transport.send_some(*pieces) - len(self._unsent)
        if rest < 0:
            self._unsent = memoryview(self._unsent)[rest:]
            return 0
        self._unsent = b""
        accepted = 0
        for frame in frames:
            if rest == 0:
                return accepted
            head, data, end = frame
            accepted += len(data)
            rest -= len(head) + len(data) + len(end)
            if rest < 0:
                self._unsent = b"".join(frame)[rest:]
                return accepted
        if tail:
            self._unsent = tail[rest:]
            self._tail = b""
        return accepted
