"""A response as its handler writes it: the head, and the body, at once or parking."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled

from ._outgoing import SENT, SendResult, WriteResult, byte_view
from ._response_base import check_handler
from ._response_head import trailer_fields
from ._response_sending import SendingResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from typing_extensions import Buffer

    from ._request_head import RequestHead
    from ._response_head import ResponseHead


class WritingResponse(SendingResponse):
    """A response and the ways to send it from which all others are made."""

    __slots__ = ()

    # The head...

    def write_status(self, status: int | str) -> Self:
        """Set the status: `404`, `"404 Not Found"`, or `"404"`.

        Raises:
          ValueError: It is not a final status code (from 200 to 599), or the phrase is not
            printable ASCII.
          RuntimeError: The head has been sent.
        """
        self._check_head_is_open("write_status")
        self._head.write_status(status)
        return self

    def write_header(self, name: str, value: str | bytes | int) -> Self:
        """Add a header field. One that is added twice is sent twice, as `Set-Cookie` needs it.

        If the handler raises, the error is answered with a head of its own, and none of these.

        Args:
          name: A token, in any case (RFC 9110 section 5.6.2).
          value: Text is sent as ISO-8859-1.

        Raises:
          ValueError: The name or the value could split the response or confuse its reader (CR, LF,
            NUL and other control characters, white space at an end, text beyond ISO-8859-1), or the
            field is one that the server writes itself: `Content-Length` (from `total_size`),
            `Date`, `Transfer-Encoding`.
          TypeError: The value is neither text nor bytes nor an integer.
          RuntimeError: The head has been sent.
        """
        self._check_head_is_open("write_header")
        self._head.write_header(name, value)
        return self

    # The body, without blocking...

    def get_write_offset(self) -> int:
        """How many bytes of the body have been accepted, without framing: exact at all times.

        Accepted is what the transport has taken, and two things more: the rest of a chunked frame
        of which it took the beginning, and up to 256 KiB of small chunks that `send_chunk` holds
        back to send them together, until the handler next lets others run. What `write` has queued
        does not count before it is sent, so `await drain()` before you note an offset to go on
        from. After an abort, what the transport will not get is taken off again before `on_aborted`
        handlers run. Of a body that is dropped, as in an answer to HEAD, all counts: what goes on
        from here comes to its end as it would for GET.
        """
        return self._outgoing.offset

    def try_end(self, data: Buffer, total_size: int) -> SendResult:
        """Hand over as much of `data` as the transport takes now, of a body of `total_size` bytes.

        The rest is not kept: to go on, note `get_write_offset()` as `start` *before* the first try,
        and when `on_writable` calls, try `data[get_write_offset() - start:]`. (uWebSockets:
        `tryEnd`.)

        Args:
          data: Any bytes-like object. It is not copied on its way to a socket.
          total_size: The length of the whole body in bytes, the same in each call.

        Returns:
          `ok`, whether all of `data` was accepted, and `done`, whether the response is over.

        Raises:
          ValueError: `data` goes beyond `total_size`, or `total_size` is not what it was.
          RuntimeError: The response is complete, or has been ended.
          TypeError: `data` is not bytes-like, or `total_size` is not an integer.
          trio.BusyResourceError: Another task is in `send_chunk`.
        """
        view = byte_view(data)
        # Else it does nothing, as callbacks may.
        if view or total_size != self._total_size or total_size == self._outgoing.offset:
            self._check_nobody_sends()
        return self._try_end(view, total_size)

    def on_writable(self, handler: Callable[[Self, int], object]) -> Self:
        """Have `handler(res, offset)` called when the transport takes bytes after a failed try.

        There is one such handler; the last one registered counts. Only a failed try arms the next
        call, so what `handler` returns (by custom whether its own try went through) is not looked
        at. An exception in it aborts the response. While a `send_chunk` is parked, whose try has
        failed as well, `handler` is called, too, but may not send. (uWebSockets: `onWritable`.)

        Raises:
          TypeError: `handler` can't be called, or is a coroutine function.
        """
        check_handler("on_writable", handler)
        if self._is_over:
            return self
        self._writable_handler = handler
        if self._missed_writable:
            self._missed_writable = False
            self._failed_try = self._outgoing.blocked = True
            self._transport.notify_soon()
        return self

    def try_write(self, data: Buffer) -> WriteResult:
        """Hand over as much of `data` as the transport takes now, of a body of unknown length.

        The rest is not kept: go on with `data[accepted:]` when `on_writable` calls. A chunked body
        is accepted in frames of 16 KiB: when the transport takes a part of one, the rest of it is
        kept and sent as soon as it goes.

        Args:
          data: Any bytes-like object. It is not copied on its way to a socket.

        Returns:
          `ok`, whether all of `data` was accepted, and `accepted`, how many bytes of it were. An
          aborted response accepts nothing; of the call in which it is aborted, `get_write_offset`
          tells what has gone.

        Raises:
          ValueError: A `total_size` was given before.
          RuntimeError: The response is complete, or has been ended.
          TypeError: `data` is not bytes-like.
          trio.BusyResourceError: Another task is in `send_chunk`.
        """
        view = byte_view(data)
        self._check_nobody_sends()
        if self._abort_reason is not None:
            return WriteResult(ok=False, accepted=0)
        self._start_unknown_length("try_write")
        accepted = self._try_write(view)
        return WriteResult(ok=accepted == len(view), accepted=accepted)

    def write(self, data: Buffer | str) -> bool:
        """Send `data` as a part of a body of unknown length, at once or as the client takes it.

        What does not go now is queued, at most `Config.max_queued_bytes`.

        Args:
          data: Any bytes-like object, or text, which is sent as UTF-8.

        Returns:
          `True` if all has gone; `False` if some is queued (see `drain`), or the client has gone.

        Raises:
          BufferError: `data` and what is queued are more than `Config.max_queued_bytes`. Nothing of
            `data` is sent; what was accepted before will be.
          ValueError: A `total_size` was given before.
          RuntimeError: The response is complete, or has been ended.
          TypeError: `data` is neither bytes-like nor text.
          trio.BusyResourceError: Another task is in `send_chunk`.
        """
        view = data.encode() if isinstance(data, str) else byte_view(data)
        self._check_nobody_sends()
        if self._abort_reason is not None:
            return False
        queued = len(self._outgoing.queued)
        most = self._config.max_queued_bytes
        if queued + len(view) > most:
            raise BufferError(
                f"{len(view)} bytes after {queued} that wait for the client are more than "
                f"max_queued_bytes={most}; await drain(), or use send_chunk()"
            )
        self._start_unknown_length("write")
        self._plain_until = 0
        if self._has_body:
            self._outgoing.queue(view)
        else:
            self._outgoing.drop(len(view))
        self._flush()
        is_flushed = self._outgoing.is_flushed
        self._failed_try = self._failed_try or not is_flushed
        return is_flushed and not self.aborted

    def end(
        self,
        data: Buffer | str = b"",
        *,
        trailers: Mapping[str, str | bytes | int] | None = None,
    ) -> bool:
        """Send `data` as the rest of the body, at once or as the client takes it.

        What does not go now is queued, and delivered by the connection.

        Args:
          data: Any bytes-like object, or text, which is sent as UTF-8.
          trailers: Fields that follow a body of unknown length, if the client said `TE: trailers`;
            else they are left out (RFC 9110 section 6.5.1).

        Returns:
          `True` if all has gone; `False` if some is queued (see `drain`), or the client has gone.

        Raises:
          ValueError: `data` is not what is missing to the `total_size` given before; or a trailer
            could not be a header field, may not come after a body, or comes after one of known
            length.
          RuntimeError: The response is complete, or has been ended.
          TypeError: `data` is neither bytes-like nor text.
          trio.BusyResourceError: Another task is in `send_chunk`.
        """
        view = data.encode() if isinstance(data, str) else byte_view(data)
        fields = None if trailers is None else trailer_fields(trailers)
        self._check_nobody_sends()
        if self._abort_reason is not None:
            return False
        self._check_body_is_open()
        if self._total_size is not None:
            if fields is not None:
                raise ValueError("trailers can't follow a body of known length (total_size)")
            size = self._outgoing.offset + len(view)
            if self._total_size != size:
                raise ValueError(
                    f"end() with {len(view)} bytes makes a body of {size}, "
                    f"not of total_size={self._total_size}"
                )
        elif fields is not None:
            self._start_unknown_length("end")
        self._end(view, fields or ())
        return self._complete

    def end_without_body(self) -> bool:
        """Send the head alone: an answer with nothing in it.

        Returns:
          As `end`.

        Raises:
          ValueError: A `total_size` was given before.
          RuntimeError: The response is complete, or has been ended.
        """
        return self.end()

    # The body, parking...

    async def send_chunk(self, data: Buffer, total_size: int | None = None) -> SendResult:
        """Send all of `data`, of a body of `total_size` bytes, parking as often as needed.

        Small chunks of `bytes` that follow each other without a pause leave together, some 256 KiB
        in one system call, and at the latest when the handler waits for anything else.

        A checkpoint: it always checks for cancellation, yields when it parks, and at the latest
        after what `Config.send_budget` gives it without parking, or if `data` is empty. When it is
        cancelled while it is parked, `get_write_offset()` says exactly how much was accepted, and
        the connection will not be used for another request.

        Args:
          data: Any bytes-like object; don't change it before this returns. It is not copied on its
            way to a socket.
          total_size: The length of the whole body in bytes, the same in each call; `None` if it is
            not known.

        Returns:
          `(True, done)` when all of `data` was accepted, `(False, True)` when the client has gone.
          That is said once: with `cancel_on_abort`, a handler that sends on is cancelled.

        Raises:
          ValueError, RuntimeError, TypeError: As `try_end`.
          trio.BusyResourceError: Another task is in `send_chunk`.
        """
        view = data if type(data) is bytes else byte_view(data)
        size = len(view)
        start = self._outgoing.offset
        turn = self._turn
        # Nearly all chunks are like those before them, and not the last one: what can be left out
        # for these is a third of what is not the system call.
        if (
            not start < start + size < self._plain_until
            or total_size != self._total_size
            or self._sending
        ):
            return await self._send_all(view, total_size, start)
        self._sending = True  # others run in their turn, and before a cancelled one ends
        try:
            if (start >= turn.look_at or size < turn.look_below) and not turn.goes_on(start, size):
                start = await self._pass_turn()
            is_unchanged = start + size < self._plain_until
            if is_unchanged:
                await checkpoint_if_cancelled()
        finally:
            self._sending = False
        if not is_unchanged:
            return await self._send_all(view, total_size, start, is_plain=True)
        result = self._try_cork(view)
        if result is SENT:
            return SENT
        is_blocked = False
        if result is None:
            accepted = self._send(view, is_lent=True)
            if accepted == size and not self._outgoing.blocked:
                return SENT
            is_blocked = accepted < size
        return await self._send_all(view, total_size, start, is_plain=True, is_blocked=is_blocked)

    async def drain(self) -> None:
        """Park until what `write` or `end` queued has gone, or the response is aborted."""
        await checkpoint()
        self._flush_corked()
        while not (self._outgoing.is_flushed or self._is_over):
            await self._park()
            self._flush_corked()  # what others have sent since may not keep this waiting

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
        self._stream_was_cut = True

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
