"""How a response is sent, step by step, and how it ends."""

from __future__ import annotations

import logging
from http import HTTPStatus
from math import inf
from typing import TYPE_CHECKING, TypeGuard

import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

from ._file_response import PacedPart
from ._head import ResponseHead
from ._outgoing import BLOCKED, CORKED_CHUNK_SIZE, DONE, GONE, SENT, Outgoing, SendResult
from ._stats import AbortReason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._file import FilePart
    from ._flusher import Flusher
    from ._protocol import Protocol
    from ._stats import Stats
    from ._transport import Transport

logger = logging.getLogger("trio_stream")

# Small chunks are not held back before so many bytes of them went without a pause: a lone one has
# nothing to wait for, and of a slow client's chunks none is kept that need not be.
_UNCORKED_SIZE = 256 * 1024


class ResponseBase:
    """The machinery of a response, on which `Response` builds what handlers call.

    It is its base, and no part of it: that would be one call more for each chunk.
    """

    def __init__(
        self,
        transport: Transport,
        protocol: Protocol,
        cancel_scope: trio.CancelScope,
        stats: Stats,
        flusher: Flusher,
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
        self._flusher = flusher
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
        self._parks = 0
        self._failed_try = False  # and the transport has not been writable since
        self._missed_writable = False
        # Up to this offset, nothing is left to check before sending a chunk.
        self._plain_until: float = 0
        self._yield_at = 0  # the offset at which `send_chunk` lets other tasks run
        self._cork_from = _UNCORKED_SIZE  # the offset from which small chunks are corked
        self._begin_turn()
        self._wakeup: trio.Event | None = None
        self._writable_handler: Callable[..., object] | None = None
        self._aborted_handlers: list[Callable[..., object]] = []

    def __repr__(self) -> str:
        state = "complete" if self._complete else "open"
        if self._abort_reason is not None:
            state = f"aborted: {self._abort_reason.name}"
        return (
            f"<Response {self._head.status}, {self._outgoing.offset} of "
            f"{'?' if self._total_size is None else self._total_size} bytes, {state}>"
        )

    # Sending, step by step...

    @property
    def aborted(self) -> bool:
        """Whether the response ended before it was complete."""
        return self._abort_reason is not None

    @property
    def _is_over(self) -> bool:
        return self._complete or self._abort_reason is not None

    async def _send_all(
        self,
        view: bytes | memoryview | PacedPart,
        total_size: int | None,
        start: int,
        *,
        is_plain: bool = False,
    ) -> SendResult:
        """As `send_chunk`, with all that can come in between; also for a part of a file.

        Args:
          view: What is to be sent; the beginning of it may have been sent already.
          total_size: As in `send_chunk`.
          start: The offset of its first byte.
          is_plain: It is like what was sent before it, and not the end.

        Raises:
          FileTooShortError, io.UnsupportedOperation: As `Transport.send_file`.
        """
        self._check_nobody_sends()
        self._sending = True
        self._plain_until = 0
        try:
            if start >= self._yield_at or not view or self._abort_was_told:
                if self._outgoing.is_corked and not self._outgoing.blocked:
                    self._flush()
                self._begin_turn()
                await cancel_shielded_checkpoint()
            if self._abort_reason is None or self._abort_was_told:
                await checkpoint_if_cancelled()
            while self._outgoing.queued and not (self._ended or self._is_over):
                await self._park_sending()
                start = self._outgoing.offset
            is_open = start == self._outgoing.offset and not (self._ended or self.aborted)
            if is_plain and is_open and self._corks(view):
                result = SENT if self._cork(view) else GONE
            else:
                result = await self._send_rest(view, total_size, start)
        finally:
            self._sending = False
            self._outgoing.take_over()
        if result is GONE:
            self._abort_was_told = True
        elif result is SENT and self._head_started:
            self._plain_until = inf if total_size is None else total_size
        return result

    async def _send_rest(
        self, view: bytes | memoryview | PacedPart, total_size: int | None, start: int
    ) -> SendResult:
        while True:
            sent = self._outgoing.offset - start
            if isinstance(view, PacedPart):
                assert total_size is not None
                rest = await view.next(sent)
                result = self._try_end(rest, total_size)
                if result is SENT and sent + len(rest) < len(view):
                    continue
            elif total_size is None:
                result = self._try_send_chunk(memoryview(view)[sent:])
            else:
                result = self._try_end(memoryview(view)[sent:], total_size)
            if result is not BLOCKED:
                return result
            await self._park_sending()

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

    def _start_head(self) -> None:
        head = self._protocol.start_response(self._head, self._total_size, close=self._close)
        is_chunked = self._total_size is None and self._protocol.chunks_are_understood
        self._has_body = self._protocol.response_has_body(self._head.status)
        self._outgoing.start(head, is_chunked=is_chunked and self._has_body)
        self._head_started = True

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

    def _flush(self) -> None:
        """Send what goes now of all that was accepted; an ended response may be complete then."""
        try:
            self._outgoing.flush()
        except trio.BrokenResourceError:
            self._abort(AbortReason.CLIENT_CLOSED)
        if self._ended and self._outgoing.is_flushed and not self._is_over:
            self._set_complete()

    # Small chunks, held back...

    def _corks(self, view: object) -> TypeGuard[bytes]:
        """Whether `view`, which is nothing but the next chunk, is to be corked."""
        outgoing = self._outgoing
        return (
            type(view) is bytes
            and len(view) < CORKED_CHUNK_SIZE
            and outgoing.offset >= self._cork_from
            and not (outgoing.blocked or outgoing.queued)
        )

    def _cork(self, chunk: bytes) -> bool:
        """Accept `chunk`, to be sent with those that follow it at once; `False` if that failed."""
        if not self._outgoing.is_corked:
            self._flusher.flush_soon(self)
        try:
            self._outgoing.cork(chunk)
        except trio.BrokenResourceError:
            self._abort(AbortReason.CLIENT_CLOSED)
        return not self.aborted

    def _flush_corked(self) -> None:
        if self._outgoing.is_corked and not self._outgoing.blocked:
            self._begin_uncorked()
            self._flush()

    def _begin_uncorked(self) -> None:
        """Send chunks as they come, until so many went on that corking them will be worth it."""
        self._cork_from = self._outgoing.offset + _UNCORKED_SIZE

    # Waiting, and the turns of others...

    @property
    def _turn_size(self) -> int:
        """How many bytes are sent before other tasks run."""
        sharing = max(self._stats.active_responses, 1)  # also for one that is long over
        return max(self._send_budget // min(sharing, 8), 1)

    def _begin_turn(self) -> None:
        self._yield_at = self._outgoing.offset + self._turn_size

    async def _park(self) -> None:
        """Wait until the transport is writable or the response is over."""
        if self._wakeup is None:
            self._wakeup = trio.Event()
        await self._wakeup.wait()

    def _count_park(self) -> None:
        self._parks += 1
        self._stats.parks += 1

    async def _park_sending(self) -> None:
        self._count_park()
        self._begin_turn()
        self._begin_uncorked()
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
            self._protocol.finish_response()
        self._forget_handlers()
        self._wake()

    def _abort(self, reason: AbortReason) -> None:
        """End the response early. The order is part of the contract, and nothing in it yields."""
        if self._is_over:
            return
        self._abort_reason = reason
        self._plain_until = 0
        self._outgoing.abandon()
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

    def _call_aborted_handler(self, handler: Callable[..., object]) -> None:
        try:
            handler(self)
        except Exception:
            logger.exception("an on_aborted handler of %r raised", self)

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
