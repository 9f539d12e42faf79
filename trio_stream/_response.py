"""The response: its head, its offset, partial sends, and what happens when the client goes."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, NamedTuple, Self

import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from ._head import ResponseHead
from ._stats import AbortReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from ._protocol import Protocol
    from ._stats import Stats
    from ._transport import Transport

logger = logging.getLogger("trio_stream")


class SendResult(NamedTuple):
    """What became of a send.

    Attributes:
      ok: Every byte of the data was accepted. `(False, True)` says that the client has gone, and
        nothing else does.
      done: The response is over: complete if `ok`.
    """

    ok: bool
    done: bool


_SENT = SendResult(ok=True, done=False)
_DONE = SendResult(ok=True, done=True)
_BLOCKED = SendResult(ok=False, done=False)
_GONE = SendResult(ok=False, done=True)


class Response:
    """One HTTP response, streamed.

    The head is collected first and leaves with the first bytes of the body, in one system call. The
    body is sent by `await send_chunk(...)`, which parks as often as the client needs, or by
    `try_end(...)`, which never does and says how much was taken. A response that ends before it is
    complete is *aborted*.
    """

    def __init__(
        self,
        transport: Transport,
        protocol: Protocol,
        cancel_scope: trio.CancelScope,
        stats: Stats,
        *,
        send_budget: int,
        cancel_on_abort: bool,
        close: bool = False,
    ) -> None:
        self._transport = transport
        self._protocol = protocol
        self._cancel_scope = cancel_scope
        self._stats = stats
        self._send_budget = send_budget
        self._cancel_on_abort = cancel_on_abort
        self._close = close

        self._head = ResponseHead()
        self._total_size: int | None = None
        self._head_started = False
        self._unsent_head: bytes | memoryview = b""

        self._offset = 0
        self._unsent_end: bytes | memoryview = b""
        self._ended = False  # the handler has given all; what is left is `_unsent_end`
        self._complete = False
        self._abort_reason: AbortReason | None = None
        self._abort_was_told = False

        self._sending = False  # somebody is in `send_chunk`...
        self._parked = False  # ...and waits there for the transport
        self._blocked = False  # a try has failed, and the transport has not been writable since
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
            f"<Response {self._head.status}, {self._offset} of {self._total_size} bytes, {state}>"
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
        """How many bytes of the body the transport has accepted: exact at all times."""
        return self._offset

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

    def end(self, data: Buffer | str = b"") -> bool:
        """Send `data` as the rest of the body, at once or as the client takes it.

        What does not go now is queued, and delivered by the connection.

        Args:
          data: Any bytes-like object, or text, which is sent as UTF-8.

        Returns:
          `True` if all has gone; `False` if some is queued (see `drain`), or the client has gone.

        Raises:
          ValueError: `data` is not what is missing to the `total_size` given before.
          RuntimeError: The response is complete, or has been ended.
          TypeError: `data` is neither bytes-like nor text.
          trio.BusyResourceError: Another task is in `send_chunk`.
        """
        view = data.encode() if isinstance(data, str) else _byte_view(data)
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this response")
        if self._abort_reason is not None:
            return False
        self._check_body_is_open()
        size = self._offset + len(view)
        if self._total_size is not None and self._total_size != size:
            raise ValueError(
                f"end() with {len(view)} bytes makes a body of {size}, "
                f"not of total_size={self._total_size}"
            )
        self._end(view)
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

    async def send_chunk(self, data: Buffer, total_size: int) -> SendResult:
        """Send all of `data`, of a body of `total_size` bytes, parking as often as needed.

        A checkpoint: it always checks for cancellation, yields when it parks, and at the latest
        after its share of `Config.send_budget` without parking, or if `data` is empty. When it is
        cancelled while it is parked, `get_write_offset()` says exactly how much was accepted, and
        the connection will not be used for another request.

        Args:
          data: Any bytes-like object; don't change it before this returns. It is not copied on its
            way to a socket.
          total_size: The length of the whole body in bytes, the same in each call.

        Returns:
          `(True, done)` when all of `data` was accepted, `(False, True)` when the client has gone.
          That is said once: with `cancel_on_abort`, a handler that sends on is cancelled.

        Raises:
          ValueError, RuntimeError, TypeError: As `try_end`.
          trio.BusyResourceError: Another task is in `send_chunk`.
        """
        view = data if type(data) is bytes else _byte_view(data)
        start = self._offset
        if start + len(view) < self._plain_until and view and total_size == self._total_size:
            # Nearly all chunks go this way, which saves a third of what is not the system call.
            await checkpoint_if_cancelled()
            if self._send(view) == len(view):
                return _SENT
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this response")
        self._sending = True
        self._plain_until = 0
        try:
            if start >= self._yield_at or not view or self._abort_was_told:
                self._begin_turn()
                await cancel_shielded_checkpoint()
            if self._abort_reason is None or self._abort_was_told:
                await checkpoint_if_cancelled()
            while True:
                rest = memoryview(view)[self._offset - start :]
                result = self._try_end(rest, total_size)
                if result is not _BLOCKED:
                    break
                await self._park_sending()
        finally:
            self._sending = False
        if result is _GONE:
            self._abort_was_told = True
        elif result is _SENT and self._head_started:
            self._plain_until = min(total_size, self._yield_at)
        return result

    async def drain(self) -> None:
        """Park until what `end` queued has gone, or the response is aborted."""
        await checkpoint()
        while self._ended and not self._is_over:
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
            self._blocked = True
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

    # Sending, step by step...

    @property
    def _is_over(self) -> bool:
        return self._complete or self._abort_reason is not None

    def _try_end(self, view: bytes | memoryview, total_size: int) -> SendResult:
        if self._abort_reason is not None:
            return _GONE
        if self._ended or total_size != self._total_size:
            self._check_body_is_open()
            self._set_total_size(total_size)
        missing = total_size - self._offset
        if len(view) > missing:
            raise ValueError(
                f"{len(view)} bytes at offset {self._offset} go beyond total_size={total_size}"
            )
        has_body = self._head_started or self._protocol.response_has_body(self._head.status)
        if not (missing and has_body):
            self._end(b"")
            return _GONE if self.aborted else _DONE
        if not view:
            return _SENT
        if not self._head_started:
            self._start_head()
        accepted = self._send(view)
        if self.aborted:
            return _GONE
        if accepted == missing:
            self._set_complete()
            return _DONE
        return _SENT if accepted == len(view) else _BLOCKED

    def _end(self, view: bytes | memoryview) -> None:
        """Accept `view` as the rest of the body, and send what goes now."""
        if not self._head_started:
            if self._total_size is None:
                self._total_size = len(view)
            self._start_head()
        self._ended = True
        self._plain_until = 0
        self._unsent_end = view if self._protocol.response_has_body(self._head.status) else b""
        self._send_end()
        if self._unsent_end and not isinstance(memoryview(self._unsent_end).obj, bytes):
            # The caller may change the data once this has returned.
            self._unsent_end = bytes(self._unsent_end)

    def _send_end(self) -> None:
        accepted = self._send(self._unsent_end)
        if accepted == len(self._unsent_end):
            self._unsent_end = b""  # an empty view would still hold on to the caller's data
        elif accepted:
            self._unsent_end = memoryview(self._unsent_end)[accepted:]
        if not (self._unsent_head or self._unsent_end or self._abort_reason):
            self._set_complete()

    def _start_head(self) -> None:
        assert self._total_size is not None
        self._unsent_head = self._protocol.start_response(
            self._head, self._total_size, close=self._close
        )
        self._head_started = True

    def _send(self, view: bytes | memoryview) -> int:
        """Send what is left of the head, and of `view` what goes now: its length is returned."""
        head = self._unsent_head
        try:
            accepted = self._transport.send_some(view, head)
        except trio.BrokenResourceError:
            self._abort(AbortReason.CLIENT_CLOSED)
            return 0
        if head:
            self._unsent_head = memoryview(head)[accepted:] if accepted < len(head) else b""
            accepted = max(accepted - len(head), 0)
        self._offset += accepted
        self._stats.body_bytes_sent += accepted
        if accepted < len(view) or (head and self._unsent_head):
            self._blocked = True
            self._missed_writable = False
        return accepted

    def _begin_turn(self) -> None:
        others = max(self._stats.active_responses - 1, 0)  # none, too, for one that is long over
        share = self._send_budget // min(1 + others, 8)
        self._yield_at = self._offset + share

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
            self._missed_writable = not self._blocked
            raise
        finally:
            self._parked = False

    def _wake(self) -> None:
        if self._wakeup is not None:
            self._wakeup.set()
            self._wakeup = None

    # What the transport tells...

    def _transport_writable(self) -> None:
        if not self._blocked or self._is_over:
            return
        self._blocked = False
        if self._ended:
            self._send_end()
        self._missed_writable = self._writable_handler is None and not self._parked
        self._wake()
        if self._writable_handler is not None and not self._ended:
            try:
                self._writable_handler(self, self._offset)
            except Exception:
                logger.exception("the on_writable handler of %r raised", self)
                self._abort(AbortReason.HANDLER_ERROR)

    def _transport_lost(self, reason: AbortReason) -> None:
        self._abort(reason)

    # The end...

    def _set_complete(self) -> None:
        assert self._total_size is not None
        self._ended = self._complete = True
        self._plain_until = 0
        has_body = self._protocol.response_has_body(self._head.status)
        self._protocol.finish_response(self._total_size if has_body else 0)
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

    def _handler_failed(self) -> None:
        """The handler raised: a 500 if nothing was sent, else a cut that the client sees."""
        if self._is_over:
            return
        if self._head_started:
            self._abort(AbortReason.HANDLER_ERROR)
            return
        self._head = ResponseHead(500)
        self._head.write_header("Content-Type", "text/plain; charset=utf-8")
        self._total_size = None
        self._end(b"Internal Server Error\n")

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

    # Checks...

    def _check_head_is_open(self, method: str) -> None:
        if self._head_started:
            raise RuntimeError(f"{method}() came after the head of the response was sent")

    def _check_body_is_open(self) -> None:
        if self._ended:
            raise RuntimeError("the response is complete: nothing more can be sent on it")

    def _set_total_size(self, total_size: int) -> None:
        if not isinstance(total_size, int):
            raise TypeError(f"total_size must be an integer, not {total_size!r}")
        if total_size < 0:
            raise ValueError(f"total_size must not be negative, not {total_size}")
        if self._total_size is not None and total_size != self._total_size:
            raise ValueError(
                f"total_size was {self._total_size} before, and now it is {total_size}"
            )
        self._total_size = total_size


def _byte_view(data: Buffer) -> bytes | memoryview:
    """The bytes of `data`, not copied."""
    if isinstance(data, bytes):
        return data
    view = memoryview(data)
    # A view with a zero in its shape can't be cast.
    return view.cast("B") if view.nbytes else b""


def _check_handler(method: str, handler: Callable[..., object]) -> None:
    if not callable(handler):
        raise TypeError(f"{method}() needs a callable, not {handler!r}")
    if inspect.iscoroutinefunction(handler):
        raise TypeError(f"{method}() needs a plain function: nobody would await {handler!r}")
