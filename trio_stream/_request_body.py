"""Bodies that come in, as a `trio.abc.ReceiveStream`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import trio

from ._bad_request import BadRequestError
from ._timeouts import MinimumRate
from ._transport import ClientGoneError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._protocol import Protocol
    from ._stats import Stats
    from ._timeouts import TimeoutWatch
    from ._transport import Transport


class BufferedBody(trio.abc.ReceiveStream):
    """A body that comes in pieces of any size, and is taken in pieces of any other."""

    def __init__(self) -> None:
        self._received: bytes | memoryview = b""
        self._at_end = False
        self._closed = False
        self._is_receiving = False
        self._call: trio.CancelScope | None = None  # while that waits

    @abstractmethod
    def _take_received(self) -> None:
        """Set `_received` or `_at_end`, if that needs no waiting."""

    @abstractmethod
    async def _wait_received(self) -> None:
        """Set `_received` or `_at_end`; cancelling it must lose nothing."""

    def _check_client(self) -> None:
        """Raise if the client has been found to send too slowly."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive at least one byte of the body, or `b""` after its end.

        Args:
          max_bytes: The most that is returned; `None` for what there is, some 256 KiB at most.

        Raises:
          BadRequestError: A handler that lets it pass answers 400: the body is malformed, or ended
            early. 408: it came slower than `Config.min_upload_rate`. 431: its framing has too much
            beside it, as chunk extensions and trailers.
          trio.BrokenResourceError: The client has gone. With `cancel_on_abort`, the handler is
            cancelled instead.
          trio.ClosedResourceError: The body was closed, or what it belongs to is over with.
          trio.BusyResourceError: Another task is receiving.
        """
        if max_bytes is not None:
            if not isinstance(max_bytes, int):
                raise TypeError(f"max_bytes must be an integer or None, not {max_bytes!r}")
            if max_bytes < 1:
                raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        if self._closed:
            raise trio.ClosedResourceError("the body was closed")
        if self._is_receiving:
            raise trio.BusyResourceError("another task is receiving this body")
        self._check_client()
        if not (self._received or self._at_end):
            self._take_received()
        self._is_receiving = True
        try:
            if self._received or self._at_end:
                await trio.lowlevel.checkpoint()
            else:
                with trio.CancelScope() as self._call:
                    await self._wait_received()
        finally:
            self._is_receiving = False
            self._call = None
        self._check_client()
        if self._closed:  # and what was received is gone: that must not look like the end
            raise trio.ClosedResourceError("another task has closed the body")
        received, self._received = self._received, b""
        if max_bytes is None or len(received) <= max_bytes:
            return bytes(received)
        left = memoryview(received)  # or what is left would be copied each time
        self._received = left[max_bytes:]
        return bytes(left[:max_bytes])

    async def __anext__(self) -> bytes:
        """The next bytes, which are `bytes`: what sends them on need not care."""
        if not (data := await self.receive_some()):
            raise StopAsyncIteration
        return data

    async def aclose(self) -> None:
        """Receive no more. The rest is dropped, or ends the connection after the response."""
        self._close()
        await trio.lowlevel.checkpoint()

    def _close(self) -> None:
        self._closed = True
        self._received = b""
        if self._call is not None:
            self._call.cancel()


class RequestBody(BufferedBody):
    """Receives the body of a request: `Request.body`.

    What is not read stays in the socket, and stops the client. A client that expects `100 Continue`
    gets it when a read has to wait for the first time.
    """

    def __init__(
        self,
        protocol: Protocol,
        transport: Transport,
        send_interim: Callable[[bytes], None],
        stats: Stats,
        rate_watch: TimeoutWatch,
        min_rate: float,
    ) -> None:
        super().__init__()
        self._protocol = protocol
        self._transport = transport
        self._send_interim = send_interim
        self._stats = stats
        self._rate_watch = rate_watch
        self._min_rate = min_rate
        self._pace: MinimumRate | None = None  # until a read has to wait for the first time
        self._size = 0  # of what came while somebody waited, framing included
        self._is_too_slow = False

    @property
    def _to_come(self) -> int:
        """How many bytes can be received, at least: 0 if the client has not said it."""
        return 0 if self._closed else len(self._received) + self._protocol.body_to_come

    def _take_received(self) -> None:
        data = self._protocol.receive_body()
        self._at_end = data == b""
        self._received = data or b""
        self._stats.body_bytes_received += len(self._received)

    async def _wait_received(self) -> None:
        self._send_interim(self._protocol.continue_request())
        if self._pace is None:
            self._pace = MinimumRate(
                self._rate_watch, self._min_rate, lambda: self._size, self._on_too_slow
            )
        pace = self._pace
        pace.wait()
        try:
            while not (self._received or self._at_end):
                await self._receive()
        finally:
            pace.stop_waiting()

    async def _receive(self) -> None:
        try:
            data = await self._transport.receive_some(self._protocol.read_size)
        except trio.BrokenResourceError:
            self._transport.on_hang_up(reset=True)
            data = b""
        if not data:
            self._transport.on_hang_up(reset=False)
            if self._transport.hung_up:
                await trio.lowlevel.checkpoint_if_cancelled()
                raise ClientGoneError("receiving failed: the client has gone")
        self._size += len(data)
        self._protocol.receive_data(data)
        if not self._closed:  # else it is of the next request
            self._take_received()

    def _on_too_slow(self) -> None:
        self._is_too_slow = True
        if self._call is not None:
            self._call.cancel()

    def _check_client(self) -> None:
        if self._is_too_slow:  # RFC 9110 section 15.5.9
            raise BadRequestError(
                f"the body comes slower than {self._min_rate} bytes a second", 408
            )

    def _close(self) -> None:
        super()._close()
        if self._pace is not None:
            self._pace.close()
            self._pace = None
