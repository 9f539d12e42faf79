"""What its connection does with a response, and what further ways to send need of it."""

from __future__ import annotations

from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

import trio

from ._head import ResponseHead
from ._response_sending import SendingResponse
from ._stats import AbortReason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._request_head import RequestHead


class ServedResponse(SendingResponse):
    """A response between its connection and its handler."""

    # What the connection tells and asks...

    def _send_interim(self, data: bytes) -> None:
        """Send an interim response, such as `100 Continue`, if the final one has not begun."""
        if data and not self._head_started and not self._is_over:
            self._outgoing.start(data)
            self._flush()

    def _handler_failed(self, status: int) -> None:
        """The handler raised: `status` if nothing was sent, else a cut that the client sees."""
        if self._is_over:
            return
        if self._head_started:
            self._abort(AbortReason.HANDLER_ERROR)
            return
        # Nobody will read on.
        self._close = self._close or self._protocol.request_is_incomplete
        self._head = ResponseHead(status)
        self._head.write_header("Content-Type", "text/plain; charset=utf-8")
        self._total_size = None
        self._end(f"{HTTPStatus(status).phrase}\n".encode("ascii"))

    def _handler_returned(self, *, may_go_on: bool) -> bool:
        """Check that the handler did its work; `False` if it sent nothing.

        Args:
          may_go_on: It was a plain function, whose callbacks may send the rest.
        """
        if self._ended or self._abort_reason is not None:
            return True
        if may_go_on and (self._writable_handler is not None or self._aborted_handlers):
            return True
        if not self._head_started:
            return False
        if self._total_size is None and not self._is_cut:
            self._end(b"")
        else:
            self._abort(AbortReason.INCOMPLETE)
        return True

    async def _wait_over(self) -> None:
        """Wait until the response is complete or aborted; a checkpoint only if it has to wait."""
        while not self._is_over:
            if self._outgoing.blocked:
                self._count_park()
            await self._park()

    @property
    def _is_untouched(self) -> bool:
        """Whether another answer may still be given instead: not a byte of this one has left."""
        return not self._head_started and self._outgoing.is_flushed

    @property
    def _allows_reuse(self) -> bool:
        """Whether the connection may serve another request after this response."""
        return self._complete and not self._close

    @property
    def _ends_with_connection(self) -> bool:
        """Whether nothing but the end of the connection ends the body."""
        unknown = self._head_started and self._total_size is None and self._has_body
        return unknown and not self._protocol.chunks_are_understood

    # What streams, events and files need...

    @property
    def _request_head(self) -> RequestHead | None:
        return self._protocol.request

    def _write_default_header(self, name: str, value: str) -> None:
        """Add a header field, unless the handler has written one of that name."""
        self._check_head_is_open("events")
        if self._head.get_header(name) is None:
            self._head.write_header(name, value)

    def _replace_head(self, head: ResponseHead) -> None:
        self._check_head_is_open("send_file")
        self._head = head

    def _start_stream(self, method: str) -> bool:
        """Send the head of a body of unknown length; whether there will be a body."""
        self._check_nobody_sends()
        if self._abort_reason is None:
            self._start_unknown_length(method)
            self._flush()
        return self._has_body

    def _end_stream(self, total_size: int | None) -> None:
        """End the body, if nobody is sending and all of it is there."""
        if self._ended or self._is_over or self._sending:
            return
        if total_size is None:
            total_size = self._total_size
        if total_size is None:
            self._end(b"")
        else:
            self._try_end(b"", total_size)

    def _cut_stream(self) -> None:
        """Have the body end with `end` only, and be incomplete if the handler returns instead."""
        self._is_cut = True

    @property
    def _drops_body(self) -> bool:
        """Whether all is done, and whatever the handler still sends of the body goes nowhere."""
        return self._ended and not self._has_body

    def _send_aside(self, data: bytes, *, if_flushed: bool = False) -> None:
        """Send all of `data`, of a body of unknown length that has begun, now or later.

        Args:
          data: Nothing of it is lost.
          if_flushed: Leave it, if anything else still waits for the client.
        """
        is_waiting = self._sending or self._outgoing.blocked or not self._outgoing.is_flushed
        if if_flushed and is_waiting:
            return
        if data and self._has_body and not (self._ended or self._is_over):
            self._plain_until = 0
            self._outgoing.queue(data)
            self._flush()

    async def _wait_writable(self) -> None:
        while self._outgoing.blocked and not self._is_over:
            await self._park()

    @contextmanager
    def _cancelled_by_abort(self) -> Iterator[trio.CancelScope]:
        """Cancel the block when the response is aborted, even with `cancel_on_abort=False`."""
        with trio.CancelScope() as scope:

            def cancel(_: object) -> None:
                scope.cancel()

            self._tell_aborted(cancel)
            try:
                yield scope
            finally:
                if cancel in self._aborted_handlers:
                    self._aborted_handlers.remove(cancel)
