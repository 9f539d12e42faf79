"""The response: further ways to send it, and what its connection does with it."""

from __future__ import annotations

from contextlib import aclosing, nullcontext
from typing import TYPE_CHECKING

from trio.lowlevel import checkpoint

from ._body_stream import BodyStream
from ._events import EventStream, open_event_stream
from ._file import HasFileno, StrPath, open_variants
from ._file_answer import FileOptions
from ._file_response import send_file
from ._outgoing import GONE, SENT, SendResult
from ._response_head import ResponseHead, status_text
from ._response_writing import WritingResponse
from ._stats import AbortReason

if TYPE_CHECKING:
    from collections.abc import AsyncIterable
    from contextlib import AbstractAsyncContextManager

    import trio
    from typing_extensions import Buffer


class Response(WritingResponse):
    """One HTTP response, streamed.

    The head is collected first and leaves with the first bytes of the body, in one system call. The
    body is sent by `await send_chunk(...)`, which parks as often as the client needs, or by
    `try_end(...)` and `try_write(...)`, which never do and say how much was taken. A response that
    ends before it is complete is *aborted*.

    A body has a length known from the first call, given as `total_size`, or it has not: then it is
    chunked (RFC 9112 section 7.1), or for HTTP/1.0 ends with the connection, and is complete with
    `end()` or when the handler returns.

    It has slots, so keep what is yours elsewhere, such as in context variables.
    """

    __slots__ = ()

    # Further ways to send the body...

    async def send_from(
        self,
        source: AsyncIterable[Buffer] | trio.abc.ReceiveStream,
        total_size: int | None = None,
    ) -> SendResult:
        """Send all that `source` gives, as `send_chunk` would, and close it.

        It is closed however this ends, and at once when the client goes, even with
        `cancel_on_abort=False`. The body may go on after it. Nothing more is taken from it once
        the body is complete.

        Args:
          source: A `trio.abc.ReceiveStream`, or any other async iterable of bytes-like objects,
            which is closed if it has an `aclose`.
          total_size: The length of the whole body in bytes; `None` if it is not known.

        Returns:
          `(True, done)` when all was accepted; with `cancel_on_abort=False`, `(False, True)` when
          the client has gone. Else that raises `Cancelled`, as in whatever waits for `source`.

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

        It does what RFC 9110 has for files: `ETag` and `Last-Modified`, conditions, ranges, and
        their 206, 304, 412 and 416, unless another status than 200 was written before. Fields
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
          OSError: The file can't be opened, or is not a regular file; nothing was sent. Or it can't
            be read.
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

    def body_stream(self, total_size: int | None = None) -> trio.abc.SendStream:
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

        Raises:
          ValueError: `keep_alive` is not more than 0.
          RuntimeError: The head has been sent.
        """
        return open_event_stream(self, keep_alive)

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
        self._closes = self._closes or self._protocol.request_is_incomplete
        self._head = ResponseHead(status)
        self._head.write_header("Content-Type", "text/plain; charset=utf-8")
        self._total_size = None
        self._end(status_text(status).encode("ascii"))

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
        # What another task is in the middle of is no proper end.
        if self._total_size is None and not (self._stream_was_cut or self._parked):
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
        return self._complete and not self._closes

    @property
    def _ends_with_connection(self) -> bool:
        """Whether nothing but the end of the connection ends the body."""
        unknown = self._head_started and self._total_size is None and self._has_body
        return unknown and not self._protocol.chunks_are_understood


def _closing(source: object) -> AbstractAsyncContextManager[object]:
    return aclosing(source) if hasattr(source, "aclose") else nullcontext()
