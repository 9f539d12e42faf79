"""Partial sends over any Trio stream, by two tasks; and which transport fits a stream."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from ._background import open_background
from ._socket_transport import (
    SocketTransport,
    count_unsent,
    has_unread,
    reset_on_close,
    socket_below,
)
from ._stats import AbortReason
from ._transport import READ_SIZE, Bytes, Transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ._background import StartSoon
    from ._config import Config
    from ._readiness import ReadinessWatcher
    from ._timeouts import TimeoutWatch

# One TLS record: a larger piece would hide progress, a smaller one costs a system call more.
_SLICE_SIZE = 16 * 1024


class StreamTransport(Transport):
    """Any `trio.abc.Stream`, made non-blocking by two tasks of its own.

    One drains a bounded send buffer; the other reads ahead, also bounded, so that the end of the
    stream is noticed while nobody reads.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        config: Config,
        stalls: TimeoutWatch,
        start_soon: StartSoon,
        *,
        client: object,
    ) -> None:
        super().__init__(
            config,
            stalls,
            client=client,
            scheme="https" if isinstance(stream, trio.SSLStream) else "http",
        )
        self._stream = stream
        self._eof_is_close = not isinstance(stream, trio.abc.HalfCloseableStream)
        self._start_soon = start_soon
        self._stall_timeout = config.stall_timeout
        self._size = config.stream_buffer_size
        self._unsent = bytearray()
        self._blocked = False
        self._broken = False
        self._received = bytearray()
        self._at_eof = False
        # Whoever waits for one of the above to change parks here and then looks again.
        self._change = trio.lowlevel.ParkingLot()
        start_soon(self._drain_send_buffer)
        start_soon(self._read_ahead)

    @property
    def client_certificate(self) -> dict[str, Any] | None:
        if isinstance(self._stream, trio.SSLStream):
            return self._stream.getpeercert() or None
        return None

    def send_some(self, *pieces: Bytes) -> int:
        if self._broken:
            raise trio.BrokenResourceError("sending failed: the stream is broken")
        before = len(self._unsent)
        for piece in pieces:
            self._unsent += piece[: self._size - len(self._unsent)]
        accepted = len(self._unsent) - before
        size = sum(map(len, pieces))
        self._blocked = self._blocked or accepted < size
        self._change.unpark_all()
        self._time_send(accepted, size)
        return accepted

    async def receive_some(self, max_bytes: int = READ_SIZE) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._received and not self._at_eof:
            await self._change.park()
        if self._broken and not self._received:
            raise trio.BrokenResourceError("receiving failed: the stream is broken")
        data = bytes(self._received[:max_bytes])
        del self._received[:max_bytes]
        self._change.unpark_all()
        return data

    def has_unread(self) -> bool:
        below = socket_below(self._stream)
        return bool(self._received) or (below is not None and has_unread(below))

    def unsent(self) -> int:
        below = socket_below(self._stream)
        return len(self._unsent) + (0 if below is None else count_unsent(below))

    def has_kept(self) -> bool:
        return bool(self._unsent)

    def notify_soon(self) -> None:
        self._start_soon(self._notify)

    async def send_eof(self) -> None:
        while self._unsent and not self._broken:
            before = len(self._unsent)
            with trio.move_on_after(self._stall_timeout) as scope:
                while len(self._unsent) == before and not self._broken:
                    await self._change.park()
            if scope.cancelled_caught:
                raise trio.BrokenResourceError("the client has stopped reading")
        if self._broken:
            raise trio.BrokenResourceError("the stream is broken")
        # The end of TLS is a record, for which there must be room as for any other.
        with trio.move_on_after(self._stall_timeout) as scope:
            await self._send_end()
        if scope.cancelled_caught:
            raise trio.BrokenResourceError("the client has stopped reading")

    async def _send_end(self) -> None:
        if self._eof_is_close:
            await self._stream.aclose()
            return
        assert isinstance(self._stream, trio.abc.HalfCloseableStream)
        try:
            await self._stream.send_eof()
        except trio.ClosedResourceError as exc:  # by whoever else has the stream
            raise trio.BrokenResourceError("the stream was closed") from exc

    def reset(self) -> None:
        self._broken = True
        self._unsent.clear()
        self._change.unpark_all()
        reset_on_close(self._stream)

    async def _notify(self) -> None:
        if self.hung_up:
            self._lose(AbortReason.CLIENT_CLOSED)
        elif len(self._unsent) < self._size:
            self.on_writable()
        else:
            self._blocked = True  # so that it is told as soon as there is room

    async def _drain_send_buffer(self) -> None:
        while True:
            while not self._unsent:
                await self._change.park()
            piece = bytes(self._unsent[:_SLICE_SIZE])
            try:
                await self._stream.send_all(piece)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._broken = True
                self._at_eof = True
                self._change.unpark_all()
                self.on_hang_up(reset=True)
                return
            del self._unsent[: len(piece)]
            self._change.unpark_all()
            # At half: earlier would wake a sender for each slice, later would let the stream run
            # dry.
            if self._blocked and len(self._unsent) <= self._size // 2:
                self._blocked = False
                self.on_writable()

    async def _read_ahead(self) -> None:
        while True:
            while len(self._received) >= self._size:
                await self._change.park()
            try:
                data = await self._stream.receive_some(READ_SIZE)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._broken = True
                data = b""
            self._received += data
            self._at_eof = not data
            self._change.unpark_all()
            if self._at_eof:
                self.on_hang_up(reset=self._broken)
                return


@asynccontextmanager
async def open_transport(
    stream: trio.abc.Stream,
    config: Config,
    stalls: TimeoutWatch,
    watcher: ReadinessWatcher | None,
    *,
    client: object = None,
) -> AsyncIterator[Transport]:
    """Wrap the `stream` of a client for the length of the block, and close it, without ceremony."""
    try:
        if watcher is not None and isinstance(stream, trio.SocketStream):
            fd = stream.socket.fileno()
            transport = SocketTransport(stream, config, stalls, watcher, client=client)
            watcher.add(fd, transport)
            try:
                yield transport
            finally:
                watcher.remove(fd, transport)
        else:
            async with open_background() as start_soon:
                yield StreamTransport(stream, config, stalls, start_soon, client=client)
    finally:
        await trio.aclose_forcefully(stream)
