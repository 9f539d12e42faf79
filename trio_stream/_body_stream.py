"""The body of a response as a `trio.abc.SendStream`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from ._transport import ClientGoneError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Buffer

    from ._response_writing import WritingResponse


class BodyStream(trio.abc.SendStream):
    """Sends the body of a response. `Response.body_stream` makes it.

    Raises what any `trio.abc.SendStream` does, `trio.BrokenResourceError` if the client has gone,
    and `ValueError` and `RuntimeError` as `Response.send_chunk`.
    """

    def __init__(self, response: WritingResponse, total_size: int | None) -> None:
        self._response = response
        self._total_size = total_size
        self._closed = False
        self._call: trio.CancelScope | None = None

    async def send_all(self, data: Buffer) -> None:
        """Send all of `data`."""
        with self._call_under_way():
            await trio.lowlevel.checkpoint()
            ok, _ = await self._response.send_chunk(data, self._total_size)
            if not ok:
                raise ClientGoneError("sending failed: the client has gone")

    async def wait_send_all_might_not_block(self) -> None:
        """Park until the transport takes bytes."""
        with self._call_under_way():
            await trio.lowlevel.checkpoint()
            await self._response._wait_writable()
            if self._response.aborted:
                raise ClientGoneError("sending failed: the client has gone")

    async def aclose(self) -> None:
        """End the body, and wait until all of it has gone.

        If this is cancelled from the start, as `trio.aclose_forcefully` does, or cuts off a
        `send_all` of another task, the body is not ended: the client sees that it is not complete.
        If it is cancelled while it waits, all that was sent is delivered, and the end, too.
        """
        was_closed, self._closed = self._closed, True
        if self._call is not None:
            self._call.cancel()
            was_closed = True
        self._response._cut_stream()  # unless it is ended below
        await trio.lowlevel.checkpoint()
        if not was_closed:
            self._response._end_stream(self._total_size)
            await self._response.drain()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is None:
            await self.aclose()
        else:  # the client must not take what was sent so far for the whole
            await trio.aclose_forcefully(self)

    @contextmanager
    def _call_under_way(self) -> Iterator[None]:
        if self._closed:
            raise trio.ClosedResourceError("the stream was closed")
        if self._call is not None:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._call = scope = trio.CancelScope()
        try:
            with scope:
                yield
        finally:
            self._call = None
        if scope.cancelled_caught:
            raise trio.ClosedResourceError("another task has closed the stream")
