"""The response: its head and its body, sent whole or in parts, and how it ends."""

from __future__ import annotations

import inspect
import logging
from contextlib import aclosing, nullcontext
from typing import TYPE_CHECKING, Self

from trio.lowlevel import checkpoint, checkpoint_if_cancelled

from ._body_stream import BodyStream
from ._events import EventStream, open_event_stream
from ._file import HasFileno, StrPath, open_variants
from ._file_answer import FileOptions
from ._file_response import send_file
from ._head import trailer_fields
from ._outgoing import GONE, SENT, SendResult, WriteResult
from ._response_served import ServedResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    import trio
    from typing_extensions import Buffer

    from ._stats import AbortReason


logger = logging.getLogger("trio_stream")


class Response(ServedResponse):
    """One HTTP response, streamed.

    The head is collected first and leaves with the first bytes of the body, in one system call. The
    body is sent by `await send_chunk(...)`, which parks as often as the client needs, or by
    `try_end(...)` and `try_write(...)`, which never do and say how much was taken. A response that
    ends before it is complete is *aborted*.

    A body has a length known from the first call, given as `total_size`, or it has not: then it is
    chunked (RFC 9112 section 7.1), or for HTTP/1.0 ends with the connection, and is complete with
    `end()` or when the handler returns.
    """

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
        noting an offset to go on from. Of small chunks in a row, `send_chunk` counts up to 256 KiB
        that leave together, within a turn of the scheduler. What the transport will not get of all
        this is taken off again before `on_aborted` handlers run.
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
        if view or total_size == self._outgoing.offset:  # else it does nothing, as callbacks may
            self._check_nobody_sends()
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
        view = data if type(data) is bytes else _byte_view(data)
        start = self._outgoing.offset
        # Like the chunks before it, and not the last one?
        is_plain = (
            start < start + len(view) < self._plain_until
            and total_size == self._total_size
            and not self._sending
        )
        if is_plain and (start < self._look_at or self._turn_goes_on(len(view))):
            # Nearly all chunks go this way, which saves a third of what is not the system call.
            self._sending = True  # others run before a cancelled one ends
            try:
                await checkpoint_if_cancelled()
            finally:
                self._sending = False
            if self._corks(view):
                if self._cork(view):
                    return SENT
            elif self._send(view, is_lent=True) == len(view) and not self._outgoing.blocked:
                return SENT
        return await self._send_all(view, total_size, start, is_plain=is_plain)

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
        that were written before stay as they are; conditions are about the file, though, and not
        about an `ETag` that was written.

        On a socket, the kernel sends the file without copying it. What is not in its cache is read
        in a worker thread, so nobody waits for the disk but this client. To change a file that is
        served, replace it (`os.replace`): if it is changed in place, clients get some of both.

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
          EOFError: It became shorter than it was when it was opened. If the head was sent, the
            response is aborted as `INCOMPLETE`. A file that becomes longer is sent up to its first
            length.
          ValueError: A value can't be that of a header field, or the path has a NUL in it, or the
            file was closed.
          TypeError: `file` is neither a path nor a file.
          RuntimeError: The head has been sent.
          NotImplementedError: This is no POSIX system.
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
        self._flush_corked()
        while not (self._outgoing.is_flushed or self._is_over):
            await self._park()
            self._flush_corked()  # what others have sent since may not keep this waiting

    # How it ends...

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

        Handlers add up and are called in order; one that is registered again, while the request is
        served, counts once. If the response has been aborted already, `handler` is called now. An
        exception in it is logged. (uWebSockets: `onAborted`.)
        """
        _check_handler("on_aborted", handler)
        self._tell_aborted(handler)
        return self


def _byte_view(data: Buffer) -> bytes | memoryview:
    """The bytes of `data`, not copied."""
    if isinstance(data, bytes):
        return data
    if isinstance(data, str):
        raise TypeError(f"the body is sent as bytes, so encode what is text: {data[:20]!r}")
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
