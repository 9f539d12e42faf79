"""The bytes of one response on their way to the transport: head, framing, body, queue."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import trio

from ._file import FilePart
from ._transport import after

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ._stats import Stats
    from ._transport import Bytes, Transport


# Once its size has been sent, a frame must be finished: so much is copied and kept at most.
FRAME_SIZE = 16 * 1024

# Chunks of less are corked: they leave together, in one system call. Beside one call for each, that
# saves two thirds of the CPU time with 4 KiB, half with 16 KiB and a quarter with 64 KiB.
CORKED_CHUNK_SIZE = 128 * 1024
_CORK_SIZE = 256 * 1024
_CORKED_CHUNKS = 512  # a system call takes 1024 pieces

# With data that is lent, nothing is copied as long as somebody waits for it to go. Larger frames
# would be no cheaper.
LENT_FRAME_SIZE = 256 * 1024

# A client may take frames as fast as they come. Of more than so much, the rest goes after others
# have had a turn.
_MOST_AT_ONCE = 2 * 1024 * 1024


class WriteResult(NamedTuple):
    """What became of a `try_write`.

    Attributes:
      ok: Every byte of the data was accepted.
      accepted: How many bytes were, from the start of the data.
    """

    ok: bool
    accepted: int


class SendResult(NamedTuple):
    """What became of a send.

    Attributes:
      ok: Every byte of the data was accepted. `(False, True)` says that the client has gone, and
        nothing else does.
      done: The response is over: complete if `ok`.
    """

    ok: bool
    done: bool


SENT = SendResult(ok=True, done=False)
DONE = SendResult(ok=True, done=True)
BLOCKED = SendResult(ok=False, done=False)
GONE = SendResult(ok=False, done=True)


def byte_view(data: Buffer) -> bytes | memoryview:
    """The bytes of `data`, not copied.

    Raises:
      TypeError: It is not bytes-like, or has gaps.
    """
    if isinstance(data, bytes):
        return data
    if isinstance(data, str):
        raise TypeError(f"the body is sent as bytes, so encode what is text: {data[:20]!r}")
    try:
        view = memoryview(data)
    except TypeError:
        kind = type(data).__name__
        raise TypeError(f"the body is sent as bytes, and this is of type {kind!r}") from None
    if view.nbytes and not view.c_contiguous:
        raise TypeError("the bytes of a body must be contiguous, as bytes(data) makes them")
    # A view with a zero in its shape can't be cast.
    return view.cast("B") if view.nbytes else b""


class Outgoing:
    """Sends one response: what must go first, then the body, framed if its length is unknown.

    Attributes:
      offset: How many bytes of the body were accepted: by the transport or, of a frame that it has
        taken the beginning of and of what is corked, here; or dropped.
      blocked: Something did not go, and the transport has not been writable since.
      corked_size: How many bytes of it are held back here, to leave with what follows.
      queued: What was queued of the body and has not been accepted yet.
    """

    __slots__ = (
        "_after_frame",
        "_corked",
        "_frame_size",
        "_is_chunked",
        "_stats",
        "_tail",
        "_transport",
        "_unsent",
        "blocked",
        "corked_size",
        "offset",
        "queued",
    )

    def __init__(self, transport: Transport, stats: Stats) -> None:
        self._transport = transport
        self._stats = stats
        self._is_chunked = False
        self._unsent: tuple[Bytes, ...] = ()  # before anything else: a head, the rest of a frame
        self._frame_size = 0  # so much of the body is in that frame...
        self._after_frame = 0  # ...and so many bytes follow it
        self._corked: list[Bytes] = []  # counts, but was not sent yet
        self._tail = b""  # goes after all that is queued
        self.offset = 0
        self.blocked = False
        self.corked_size = 0
        self.queued: Bytes = b""

    @property
    def is_flushed(self) -> bool:
        """Whether the transport has taken all that was accepted and queued."""
        return not (self._unsent or self._corked or self.queued or self._tail)

    def start(self, head: bytes, *, is_chunked: bool = False) -> None:
        """Have `head` leave with the next bytes, and the body after it chunked if asked."""
        self._unsent = (*self._unsent, head)
        self._is_chunked = is_chunked

    def send(self, data: Bytes | FilePart, *, is_lent: bool = False) -> int:
        """Send what goes now of `data`. Nothing may be queued.

        Args:
          data: The next bytes of the body. A part of a file can't be framed, nor go with a head.
          is_lent: The caller leaves `data` as it is until it is accepted and `is_flushed`, or calls
            `copy_unsent`. Then the rest of a frame need not be copied, and frames can be larger.

        Returns:
          How many bytes of `data` were accepted.

        Raises:
          trio.BrokenResourceError: Nothing can be sent any more.
          FileTooShortError, io.UnsupportedOperation: As `Transport.send_file`.
        """
        if self._corked and not self.uncork():
            return 0
        if isinstance(data, FilePart):
            return self._send_file(data)
        if self._is_chunked:
            return self._send_chunked(data, is_lent=is_lent)
        if self._unsent:
            size = sum(map(len, self._unsent))
            accepted = self._transport.send_some(*self._unsent, data)
            self._unsent = after(accepted, self._unsent)
            accepted = max(accepted - size, 0)
        else:
            accepted = self._transport.send_some(data)
        return self._count(accepted, len(data))

    def _send_file(self, part: FilePart) -> int:
        assert self.is_flushed
        size = len(part)
        sent = 0
        while sent < size and (accepted := self._transport.send_file(part.after(sent))):
            sent += self._count(accepted, accepted)
        self.blocked = self.blocked or sent < size
        return sent

    def _count(self, accepted: int, size: int) -> int:
        self.offset += accepted
        self._stats.body_bytes_sent += accepted
        if accepted < size or self._unsent:
            self.blocked = True
        return accepted

    def cork(self, data: bytes) -> None:
        """Accept `data`, and send it with what follows. Nothing may wait for the transport.

        Raises:
          trio.BrokenResourceError: Nothing can be sent any more.
        """
        self._corked.append(data)
        self.offset += len(data)
        self.corked_size += len(data)
        if self.corked_size >= _CORK_SIZE or len(self._corked) == _CORKED_CHUNKS:
            self.uncork()

    def uncork(self) -> bool:
        """Send what goes now of what is corked. All of it is one frame, if there are any.

        Returns:
          Whether nothing is left of it.

        Raises:
          trio.BrokenResourceError: Nothing can be sent any more.
        """
        if not self._corked:
            return True
        pieces: tuple[Bytes, ...] = tuple(self._corked)
        size = self.corked_size
        if self._is_chunked:
            pieces = (b"%x\r\n" % size, *pieces, b"\r\n")
            size += len(pieces[0]) + 2
        taken = self._transport.send_some(*pieces)
        rest = () if taken == size else after(taken, pieces)
        self.blocked = self.blocked or bool(rest)
        if not self._is_chunked:
            self._stats.body_bytes_sent += taken
            self._corked = list(rest)
            self.corked_size -= taken
        elif taken:  # the frame counts
            self._stats.body_bytes_sent += self.corked_size
            self._keep_frame(rest, self.corked_size)
            self._corked = []
            self.corked_size = 0
        return not rest

    def abandon(self) -> None:
        """Take off the offset what was accepted and does not go now: the body ends here."""
        if not self.blocked:
            with suppress(trio.BrokenResourceError):
                self.uncork()
        unsent = sum(map(len, self._unsent)) - self._after_frame
        self.offset -= self.corked_size + min(max(unsent, 0), self._frame_size)
        self._corked = []
        self.corked_size = 0

    def drop(self, size: int) -> None:
        """Accept `size` bytes of a body that is not sent, such as that of an answer to HEAD."""
        self.offset += size

    def copy_unsent(self) -> None:
        """Keep what is left of lent data, which its owner wants back."""
        if self._unsent:
            self._unsent = (b"".join(self._unsent),)

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
        """Send what goes now of all that was accepted and queued.

        Raises:
          trio.BrokenResourceError: Nothing can be sent any more.
        """
        if not self.uncork():
            return
        if self.queued:
            accepted = self.send(self.queued)
            if accepted == len(self.queued):
                self.queued = b""
            elif isinstance(self.queued, bytearray):
                del self.queued[:accepted]
            elif accepted:
                self.queued = memoryview(self.queued)[accepted:]
        if self.queued:
            return
        if pieces := (*self._unsent, self._tail) if self._tail else self._unsent:
            self._after_frame += len(self._tail)
            self._tail = b""
            self._unsent = pieces  # if it fails, none of it has gone
            self._unsent = after(self._transport.send_some(*pieces), pieces)
            self.blocked = self.blocked or bool(self._unsent)

    # Chunked (RFC 9112 section 7.1)...

    def _send_chunked(self, data: Bytes, *, is_lent: bool) -> int:
        frame_size = LENT_FRAME_SIZE if is_lent else FRAME_SIZE
        size = len(data)
        if size <= frame_size:
            return self._count(size if self._send_frame(data, is_lent=is_lent) else 0, size)
        accepted = 0
        view = memoryview(data)
        while accepted < size:
            if accepted >= _MOST_AT_ONCE:
                self._transport.notify_soon()
                break
            frame = view[accepted : accepted + frame_size]
            if not self._send_frame(frame, is_lent=is_lent):
                break
            accepted += self._count(len(frame), len(frame))  # if the next one fails, this has gone
            if self._unsent:
                break
        self.blocked = self.blocked or accepted < size
        return accepted

    def _send_frame(self, frame: Bytes, *, is_lent: bool) -> bool:
        """Send `frame`, which is accepted if the transport takes a byte of it."""
        head = b"%x\r\n" % len(frame)
        unsent = self._unsent
        if unsent:
            pieces = (*unsent, head, frame, b"\r\n")
            taken = self._transport.send_some(*pieces)
        else:
            pieces = (head, frame, b"\r\n")
            taken = self._transport.send_some(head, frame, b"\r\n")
            if taken == len(head) + len(frame) + 2:  # as nearly always
                return True
        if taken <= sum(map(len, unsent)):
            self._unsent = after(taken, unsent)
            return False
        rest = after(taken, pieces)
        self._keep_frame(rest if is_lent or not rest else (b"".join(rest),), len(frame))
        return True

    def _keep_frame(self, rest: tuple[Bytes, ...], size: int) -> None:
        """Have `rest` go before anything else, of a frame with `size` bytes of the body."""
        self._unsent = rest
        self._frame_size = size
        self._after_frame = len(b"\r\n")
