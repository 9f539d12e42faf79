"""The response: its head and its body, sent whole or in parts, and how it ends."""

from __future__ import annotations

import inspect
import logging
from contextlib import aclosing, contextmanager, nullcontext
from http import HTTPStatus
from typing import TYPE_CHECKING, Self

import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from ._body_stream import BodyStream
from ._events import EventStream, open_event_stream
from ._file import FilePart, HasFileno, StrPath, open_variants
from ._file_answer import FileOptions
from ._file_response import send_file, wait_cached
from ._head import ResponseHead, trailer_fields
from ._outgoing import BLOCKED, DONE, GONE, SENT, Outgoing, SendResult, WriteResult
from ._stats import AbortReason

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    import h11
    from typing_extensions import Buffer

    from ._protocol import Protocol
    from ._stats import Stats
    from ._transport import Transport

logger = logging.getLogger("trio_stream")


class Response:
    """One HTTP response, streamed.

    The head is collected first and leaves with the first bytes of the body, in one system call. The
    body is sent by `await send_chunk(...)`, which parks as often as the client needs, or by
    `try_end(...)` and `try_write(...)`, which never do and say how much was taken. A response that
    ends before it is complete is *aborted*.

    A body has a length known from the first call, given as `total_size`, or it has not: then it is
    chunked (RFC 9112 section 7.1), or for HTTP/1.0 ends with the connection, and is complete with
    `end()` or when the handler returns.
    """

    def __init__(
        self,
        transport: Transport,
        protocol: Protocol,
        cancel_scope: trio.CancelScope,
        stats: Stats,
        *,
        send_budget: int,
        max_queued_bytes: int,
        cancel_on_abort: bool,
        close: bool = False,
    ) -> None:
        self._transport = transport
        self._protocol = protocol
        self._cancel_scope = cancel_scope
        self._stats = stats
        self._send_budget = send_budget
        self._max_queued_bytes = max_queued_bytes
        self._cancel_on_abort = cancel_on_abort
        self._close = close

        self._head = ResponseHead()
        self._total_size: int | None = None  # once the head has started, `None` is "not known"
        self._head_started = False
        self._has_body = True
        self._outgoing = Outgoing(transport, stats)
        self._ended = False  # the handler has given all; what is left is outgoing
        self._is_cut = False  # a stream of the body was closed by force
        self._complete = False
        self._abort_reason: AbortReason | None = None
        self._abort_was_told = False

        self._sending = False  # somebody is in `send_chunk`...
        self._parked = False  # ...and waits there for the transport
        self._failed_try = False  # and the transport has not been writable since
        self._missed_writable = False
        self._plain_until = 0  # below this offset, nothing is left to check before sending a chunk
        self._yield_at = 0  # the offset at which `send_chunk` lets other tasks run
        self._begin_turn()
        self._wakeup: trio.Event | None = None
        self._writable_handler: Callable[[Response, int], object] | None = None
        self._aborted_handlers: list[Callable[[Response], object]] = []

    def __repr__(self) -> str:
        state = "complete" if self._complete else "open"
        if self._abort_reason is not None:
            state = f"aborted: {self._abort_reason.name}"
        return (
            f"<Response {self._head.status}, {self._outgoing.offset} of "
            f"{'?' if self._total_size is None else self._total_size} bytes, {state}>"
        )

    # The head...

    def write_status(self, status: int | str) -> Self:
        """Set the status: `404`, `"404 Not Found"`, or `"404"`.

        Raises:
          ValueError: It is no final status code (from 200 to 599), or the phrase is not printable
            ASCII.
          RuntimeError: The head has been sent.
        """
        self._check_head_is_open("write_status")
        self._head.write_status(status)
        return self

    def write_header(self, name: str, value: str | bytes | int) -> Self:
        """Add a header field. One that is added twice is sent twice, as `Set-Cookie` needs it.

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
        """How many bytes of the body were accepted: exact at all times, and without any framing.

        By the transport; of a chunked body, the rest of the frame that it has taken the beginning
        of counts, too. What `write` has queued counts when its turn comes: `await drain()` before
        noting an offset to go on from.
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
          TypeError: `data` is not bytes-like, or `total_size` no integer.
          trio.BusyResourceError: Another task is in `send_chunk`.
        """
        view = _byte_view(data)
        if self._sending and view:
            raise trio.BusyResourceError("another task is sending on this response")
        return self._try_end(view, total_size)

    def try_write(self, data: Buffer) -> WriteResult:
        """Hand over as much of `data` as the transport takes now, of a body of unknown length.

        The rest is not kept: go on with `data[accepted:]` when `on_writable` calls. A chunked body
        is accepted in frames of 16 KiB: when the transport takes a part of one, the rest of it is
        kept and sent as soon as it goes.

        Args:
          data: Any bytes-like object. It is not copied on its way to a socket.

        Returns:
          `ok`, whether all of `data` was accepted, and `accepted`, how many bytes of it were. An
          aborted response accepts nothing.

        Raises:
          ValueError: A `total_size` was given before.
          RuntimeError: The response is complete, or has been ended.
          TypeError: `data` is not bytes-like.
          trio.BusyResourceError: Another task is in `send_chunk`.
        """
        view = _byte_view(data)
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
        view = data.encode() if isinstance(data, str) else _byte_view(data)
        self._check_nobody_sends()
        if self._abort_reason is not None:
            return False
        queued = len(self._outgoing.queued)
        if queued + len(view) > self._max_queued_bytes:
            raise BufferError(
                f"{len(view)} bytes after {queued} that wait for the client are more than "
                f"max_queued_bytes={self._max_queued_bytes}; await drain(), or use send_chunk()"
            )
        self._start_unknown_length("write")
        self._plain_until = 0
        if self._has_body:
            self._outgoing.queue(view)
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
        view = data.encode() if isinstance(data, str) else _byte_view(data)
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

        A checkpoint: it always checks for cancellation, yields when it parks, and at the latest
        after its share of `Config.send_budget` without parking, or if `data` is empty. When it is
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
        view = data if type(data) is bytes else _byte_view(data)
        start = self._outgoing.offset
        if start + len(view) < self._plain_until and view and total_size == self._total_size:
            # Nearly all chunks go this way, which saves a third of what is not the system call.
            await checkpoint_if_cancelled()
            if self._send(view, is_lent=True) == len(view) and not self._outgoing.blocked:
                return SENT
        return await self._send_all(view, total_size, start)

    async def _send_all(
        self, view: bytes | memoryview | FilePart, total_size: int | None, start: int
    ) -> SendResult:
        """As `send_chunk`, with all that can come in between; also for a part of a file.

        Args:
          view: What is to be sent; the beginning of it may have been sent already.
          total_size: As in `send_chunk`.
          start: The offset of its first byte.

        Raises:
          FileTooShortError, io.UnsupportedOperation: As `Transport.send_file`.
        """
        self._check_nobody_sends()
        self._sending = True
        self._plain_until = 0
        try:
            if start >= self._yield_at or not view or self._abort_was_told:
                self._begin_turn()
                await cancel_shielded_checkpoint()
            if self._abort_reason is None or self._abort_was_told:
                await checkpoint_if_cancelled()
            while self._outgoing.queued and not (self._ended or self._is_over):
                await self._park_sending()
                start = self._outgoing.offset
            while True:
                sent = self._outgoing.offset - start
                if isinstance(view, FilePart):
                    assert total_size is not None
                    rest = await wait_cached(view.after(sent))
                    result = self._try_end(rest, total_size)
                    if result is SENT and sent + len(rest) < len(view):
                        continue
                elif total_size is None:
                    result = self._try_send_chunk(memoryview(view)[sent:])
                else:
                    result = self._try_end(memoryview(view)[sent:], total_size)
                if result is not BLOCKED:
                    break
                await self._park_sending()
        finally:
            self._sending = False
            self._outgoing.take_over()
        if result is GONE:
            self._abort_was_told = True
        elif result is SENT and self._head_started:
            self._plain_until = self._yield_at
            if total_size is not None:
                self._plain_until = min(total_size, self._yield_at)
        return result

    async def send_from(
        self,
        source: AsyncIterable[Buffer] | trio.abc.ReceiveStream,
        total_size: int | None = None,
    ) -> SendResult:
        """Send all that `source` gives, as `send_chunk` would, and close it.

        It is closed however this ends, and at once when the client goes, even with
        `cancel_on_abort=False`. The body may go on after it.

        Args:
          source: A `trio.abc.ReceiveStream`, or any other async iterable of bytes-like objects,
            which is closed if it has an `aclose`.
          total_size: The length of the whole body in bytes; `None` if it is not known.

        Returns:
          `(True, done)` when all was accepted, `(False, True)` when the client has gone.

        Raises:
          ValueError, RuntimeError, TypeError, trio.BusyResourceError: As `send_chunk`.
        """
        result = SENT
        async with _closing(source):
            with self._cancelled_by_abort():
                async for data in source:
                    result = await self.send_chunk(data, total_size)
                    if not result.ok or result.done:
                        break
        if not (self._head_started or self._is_over):  # there was nothing in it, and that is all
            if total_size is None:
                self._start_stream("send_from")
            else:
                result = self._try_end(b"", total_size)
        await checkpoint()
        return GONE if self.aborted else result

    async def send_file(
        self,
        file: StrPath | HasFileno,
        *,
        content_type: str | None = None,
        filename: str | None = None,
        download: bool = False,
        cache_control: str | None = None,
        precompressed: bool = False,
    ) -> SendResult:
        """Answer with a file, or with what the client asks for of it.

        All of RFC 9110 that is about files is done: `ETag` and `Last-Modified`, conditions, ranges,
        and their 206, 304, 412 and 416, unless another status than 200 was written before. Fields
        that were written before stay as they are.

        On a socket, the kernel sends the file without copying it. What is not in its cache is read
        in a worker thread, so nobody waits for the disk but this client.

        Args:
          file: A path, or an open file that has a descriptor. That is sent from its start, stays
            open, and is not moved.
          content_type: The value of `Content-Type`; without it, what the name says.
          filename: What the client shall call the file, in any script.
          download: Whether it shall be saved, and not shown.
          cache_control: The value of `Cache-Control`.
          precompressed: Whether `file` may have siblings with the same content, called `*.zst`,
            `*.br` and `*.gz`, for clients that accept these codings.

        Returns:
          As `send_chunk`: `(True, True)`, or `(False, True)` when the client has gone.

        Raises:
          OSError: The file can't be opened, or is no regular file; nothing was sent. Or it can't be
            read.
          EOFError: It became shorter while it was sent. The response is aborted as `INCOMPLETE`. If
            it became longer, it is sent up to its first length.
          ValueError: A value can't be that of a header field.
          TypeError: `file` is neither a path nor a file.
          RuntimeError: The head has been sent.
        """
        self._check_head_is_open("send_file")
        options = FileOptions(
            content_type=content_type,
            filename=filename,
            download=download,
            cache_control=cache_control,
            precompressed=precompressed,
        )
        return await send_file(self, open_variants(file), options)

    def body_stream(self, total_size: int | None = None) -> BodyStream:
        """The body as a `trio.abc.SendStream`, for any code that writes to one.

        Closing it ends the body; leaving its `async with` block by an exception does not, so that
        the client sees the cut, even if the handler then returns: only `end` could still mend it.

        Args:
          total_size: The length of the whole body in bytes; `None` if it is not known.
        """
        return BodyStream(self, total_size)

    def events(self, *, keep_alive: float = 15) -> AbstractAsyncContextManager[EventStream]:
        """Answer with server-sent events (HTML Living Standard, section 9.2).

        ::

            async with res.events() as events:
                async for reading in readings:
                    await events.send(reading.text, event="reading", id=reading.number)

        The head leaves at once. The block ends when the client goes, even with
        `cancel_on_abort=False`; leaving it completes the response.

        Args:
          keep_alive: A comment is sent after so many seconds without an event, so that no proxy
            takes the connection for dead. `math.inf` for none.
        """
        return open_event_stream(self, keep_alive)

    async def drain(self) -> None:
        """Park until what `write` or `end` queued has gone, or the response is aborted."""
        await checkpoint()
        while not (self._outgoing.is_flushed or self._is_over):
            await self._park()

    # How it ends...

    @property
    def aborted(self) -> bool:
        """Whether the response ended before it was complete."""
        return self._abort_reason is not None

    @property
    def abort_reason(self) -> AbortReason | None:
        """Why the response ended before it was complete; `None` if it has not."""
        return self._abort_reason

    @property
    def cancel_scope(self) -> trio.CancelScope:
        """The scope around the handler. With `cancel_on_abort`, an abort cancels it.

        It is the connection's: when it is cancelled, from whatever side, the connection closes.
        """
        return self._cancel_scope

    async def wait_aborted(self) -> AbortReason:
        """Park until the response is aborted, and return why.

        If the response completes, that never happens: run it in a nursery, and cancel it.
        """
        await checkpoint()
        while self._abort_reason is None:
            await self._park()
        return self._abort_reason

    def on_writable(self, handler: Callable[[Response, int], object]) -> Self:
        """Have `handler(res, offset)` called when the transport takes bytes after a failed try.

        There is one such handler; the last one registered counts. Only a failed try arms the next
        call, so what `handler` returns (by custom whether its own try went through) is not looked
        at. An exception in it aborts the response. (uWebSockets: `onWritable`.)
        """
        _check_handler("on_writable", handler)
        if self._is_over:
            return self
        self._writable_handler = handler
        if self._missed_writable:
            self._missed_writable = False
            self._failed_try = self._outgoing.blocked = True
            self._transport.notify_soon()
        return self

    def on_aborted(self, handler: Callable[[Response], object]) -> Self:
        """Have `handler(res)` called once if the response ends before it is complete.

        Handlers add up and are called in order; one that is registered again counts once. If the
        response has been aborted already, `handler` is called now. An exception in it is logged.
        (uWebSockets: `onAborted`.)
        """
        _check_handler("on_aborted", handler)
        if self._abort_reason is not None:
            self._call_aborted_handler(handler)
        elif not self._complete and handler not in self._aborted_handlers:
            self._aborted_handlers.append(handler)
        return self

    @contextmanager
    def _cancelled_by_abort(self) -> Iterator[trio.CancelScope]:
        """Cancel the block when the response is aborted, even with `cancel_on_abort=False`."""
        with trio.CancelScope() as scope:

            def cancel(_: Response) -> None:
                scope.cancel()

            self.on_aborted(cancel)
            try:
                yield scope
            finally:
                if cancel in self._aborted_handlers:
                    self._aborted_handlers.remove(cancel)

    # Sending, step by step...

    @property
    def _is_over(self) -> bool:
        return self._complete or self._abort_reason is not None

    def _try_end(self, view: bytes | memoryview | FilePart, total_size: int) -> SendResult:
        if self._abort_reason is not None:
            return GONE
        if self._ended or total_size != self._total_size:
            self._check_body_is_open()
            self._set_total_size(total_size)
        missing = total_size - self._outgoing.offset
        if len(view) > missing:
            raise ValueError(
                f"{len(view)} bytes at offset {self._outgoing.offset} "
                f"go beyond total_size={total_size}"
            )
        has_body = self._head_started or self._protocol.response_has_body(self._head.status)
        if not (missing and has_body):
            self._end(b"")
            return GONE if self.aborted else DONE
        if not view:
            return SENT
        if not self._head_started:
            self._start_head()
        accepted = self._send(view)
        if self.aborted:
            return GONE
        if accepted == missing:
            self._set_complete()
            return DONE
        return SENT if accepted == len(view) else BLOCKED

    def _try_send_chunk(self, view: bytes | memoryview) -> SendResult:
        """One step of `send_chunk` without a total: `SENT` when nothing of it is kept here."""
        if self._abort_reason is not None:
            return GONE
        if not view and not self._outgoing.blocked:
            self._check_unknown_length("send_chunk")
            return SENT
        self._start_unknown_length("send_chunk")
        accepted = 0
        if view:
            accepted = self._try_write(view, is_lent=True)
        else:
            self._flush()
        if self.aborted:
            return GONE
        if not self._has_body:
            return DONE
        if accepted < len(view) or not self._outgoing.is_flushed:
            return BLOCKED
        return SENT

    def _try_write(self, view: bytes | memoryview, *, is_lent: bool = False) -> int:
        if not self._has_body:
            return len(view)
        if self._outgoing.queued:
            self._flush()
        if self._outgoing.queued:
            self._failed_try = self._failed_try or bool(view)
            return 0
        if view:
            return self._send(view, is_lent=is_lent)
        self._flush()  # the head, which nobody would wait for
        return 0

    def _start_unknown_length(self, method: str) -> None:
        self._check_unknown_length(method)
        if not self._head_started:
            self._start_head()
            if not self._has_body:
                self._flush()

    def _end(self, view: bytes | memoryview, trailers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Accept `view` as the rest of the body, and send what goes now."""
        if not self._head_started:
            if self._total_size is None:
                self._total_size = len(view)
            self._start_head()
        self._ended = True
        self._plain_until = 0
        if self._has_body:
            self._outgoing.queue(view)
        if self._total_size is None:
            tail = self._protocol.finish_chunks(trailers if self._has_body else ())
            self._outgoing.finish(tail)
        self._flush()

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
        if if_flushed and not self._outgoing.is_flushed:
            return
        if data and self._has_body and not (self._ended or self._is_over):
            self._plain_until = 0
            self._outgoing.queue(data)
            self._flush()

    async def _wait_writable(self) -> None:
        while self._outgoing.blocked and not self._is_over:
            await self._park()

    def _replace_head(self, head: ResponseHead) -> None:
        self._check_head_is_open("send_file")
        self._head = head

    @property
    def _request_head(self) -> h11.Request | None:
        return self._protocol.request

    def _start_head(self) -> None:
        head = self._protocol.start_response(self._head, self._total_size, close=self._close)
        is_chunked = self._total_size is None and self._protocol.chunks_are_understood
        self._has_body = self._protocol.response_has_body(self._head.status)
        self._outgoing.start(head, is_chunked=is_chunked and self._has_body)
        self._head_started = True

    def _flush(self) -> None:
        """Send what goes now of all that was accepted; an ended response may be complete then."""
        try:
            self._outgoing.flush()
        except trio.BrokenResourceError:
            self._abort(AbortReason.CLIENT_CLOSED)
        if self._ended and self._outgoing.is_flushed and not self._is_over:
            self._set_complete()

    def _send(self, view: bytes | memoryview | FilePart, *, is_lent: bool = False) -> int:
        """Send of `view` what goes now: its length is returned."""
        try:
            accepted = self._outgoing.send(view, is_lent=is_lent)
        except trio.BrokenResourceError:
            self._abort(AbortReason.CLIENT_CLOSED)
            return 0
        if accepted < len(view):
            self._failed_try = True
            self._missed_writable = False
        return accepted

    def _send_interim(self, data: bytes) -> None:
        """Send an interim response, such as `100 Continue`, if the final one has not begun."""
        if data and not self._head_started and not self._is_over:
            self._outgoing.start(data)
            self._flush()

    @property
    def _turn_size(self) -> int:
        """How many bytes are sent before other tasks run."""
        others = max(self._stats.active_responses - 1, 0)  # none, too, for one that is long over
        return self._send_budget // min(1 + others, 8)

    def _begin_turn(self) -> None:
        self._yield_at = self._outgoing.offset + self._turn_size

    async def _park(self) -> None:
        """Wait until the transport is writable or the response is over."""
        if self._wakeup is None:
            self._wakeup = trio.Event()
        await self._wakeup.wait()

    async def _park_sending(self) -> None:
        self._stats.parks += 1
        self._begin_turn()
        self._parked = True
        try:
            await self._park()
        except trio.Cancelled:
            self._close = True
            # Nobody has taken notice, if it became writable in the meantime.
            self._missed_writable = not self._outgoing.blocked
            raise
        finally:
            self._parked = False

    def _wake(self) -> None:
        if self._wakeup is not None:
            self._wakeup.set()
            self._wakeup = None

    # What the transport tells...

    def _transport_writable(self) -> None:
        if not self._outgoing.blocked or self._is_over:
            return
        self._outgoing.blocked = False
        self._flush()
        self._wake()
        if self._outgoing.blocked or self._ended or not self._failed_try:
            return
        self._failed_try = False
        self._missed_writable = self._writable_handler is None and not self._parked
        if self._writable_handler is not None:
            try:
                self._writable_handler(self, self._outgoing.offset)
            except Exception:
                logger.exception("the on_writable handler of %r raised", self)
                self._abort(AbortReason.HANDLER_ERROR)

    def _transport_lost(self, reason: AbortReason) -> None:
        self._abort(reason)

    # The end...

    def _set_complete(self) -> None:
        self._ended = self._complete = True
        self._plain_until = 0
        if self._total_size is not None:
            self._protocol.finish_response(self._total_size if self._has_body else 0)
        self._forget_handlers()
        self._wake()

    def _abort(self, reason: AbortReason) -> None:
        """End the response early. The order is part of the contract, and nothing in it yields."""
        if self._is_over:
            return
        self._abort_reason = reason
        self._plain_until = 0
        self._stats.aborts[reason] += 1
        handlers = self._aborted_handlers
        self._forget_handlers()
        for handler in handlers:
            self._call_aborted_handler(handler)
        self._wake()
        if self._cancel_on_abort:
            self._cancel_scope.cancel()

    def _forget_handlers(self) -> None:
        # They usually refer to this response: without this, only the garbage collector would end
        # it.
        self._writable_handler = None
        self._aborted_handlers = []

    def _call_aborted_handler(self, handler: Callable[[Response], object]) -> None:
        try:
            handler(self)
        except Exception:
            logger.exception("an on_aborted handler of %r raised", self)

    # What the connection tells and asks...

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
            await self._park()

    @property
    def _allows_reuse(self) -> bool:
        """Whether the connection may serve another request after this response."""
        return self._complete and not self._close

    @property
    def _ends_with_connection(self) -> bool:
        """Whether nothing but the end of the connection ends the body."""
        unknown = self._head_started and self._total_size is None and self._has_body
        return unknown and not self._protocol.chunks_are_understood

    # Checks...

    def _check_head_is_open(self, method: str) -> None:
        if self._head_started:
            raise RuntimeError(f"{method}() came after the head of the response was sent")

    def _check_body_is_open(self) -> None:
        if self._ended:
            raise RuntimeError("the response is complete: nothing more can be sent on it")

    def _check_nobody_sends(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this response")

    def _check_unknown_length(self, method: str) -> None:
        self._check_body_is_open()
        if self._total_size is not None:
            raise ValueError(
                f"{method}() without a total_size came after total_size={self._total_size}"
            )

    def _set_total_size(self, total_size: int) -> None:
        if not isinstance(total_size, int):
            raise TypeError(f"total_size must be an integer, not {total_size!r}")
        if total_size < 0:
            raise ValueError(f"total_size must not be negative, not {total_size}")
        if self._total_size is not None and total_size != self._total_size:
            raise ValueError(
                f"total_size was {self._total_size} before, and now it is {total_size}"
            )
        if self._head_started and self._total_size is None:
            raise ValueError(
                f"total_size={total_size} came after the head was sent without a length"
            )
        self._total_size = total_size


def _byte_view(data: Buffer) -> bytes | memoryview:
    """The bytes of `data`, not copied."""
    if isinstance(data, bytes):
        return data
    view = memoryview(data)
    # A view with a zero in its shape can't be cast.
    return view.cast("B") if view.nbytes else b""


def _closing(source: object) -> AbstractAsyncContextManager[object]:
    return aclosing(source) if hasattr(source, "aclose") else nullcontext()


def _check_handler(method: str, handler: Callable[..., object]) -> None:
    if not callable(handler):
        raise TypeError(f"{method}() needs a callable, not {handler!r}")
    if inspect.iscoroutinefunction(handler):
        raise TypeError(f"{method}() needs a plain function: nobody would await {handler!r}")
