"""What a response is at any moment, who waits for what of it, and how it ends."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Self

import trio
from trio.lowlevel import checkpoint

from ._outgoing import Outgoing
from ._response_head import ResponseHead
from ._turn import SendTurn

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._config import Config
    from ._flusher import Flusher
    from ._protocol import Protocol
    from ._stats import AbortReason, Stats
    from ._transport import Transport

logger = logging.getLogger("trio_stream")

# Small chunks are not held back before so many bytes of them went without a pause: a lone one has
# nothing to wait for, and of a slow client's chunks none is kept that need not be.
_UNCORKED_SIZE = 256 * 1024


class ResponseBase:
    """The state of a response.

    What is built on it, up to `Response`, is a chain of classes and no chain of objects: that would
    be one call more for each chunk.
    """

    # With a `__dict__` for so many attributes, a small chunk costs a tenth more instructions, and a
    # small request a twentieth.
    __slots__ = (
        "__weakref__",
        "_abort_reason",
        "_abort_was_told",
        "_aborted_handlers",
        "_cancel_on_abort",
        "_cancel_scope",
        "_closes",
        "_complete",
        "_config",
        "_cork_from",
        "_ended",
        "_failed_try",
        "_flusher",
        "_has_body",
        "_head",
        "_head_started",
        "_missed_writable",
        "_outgoing",
        "_parked",
        "_parks",
        "_plain_until",
        "_protocol",
        "_sending",
        "_shutdown",
        "_stats",
        "_stream_was_cut",
        "_total_size",
        "_transport",
        "_turn",
        "_wakeup",
        "_writable_handler",
    )

    def __init__(
        self,
        transport: Transport,
        protocol: Protocol,
        cancel_scope: trio.CancelScope,
        stats: Stats,
        flusher: Flusher,
        config: Config,
        *,
        cancel_on_abort: bool,
        closes: bool = False,
    ) -> None:
        self._transport = transport
        self._protocol = protocol
        self._cancel_scope = cancel_scope
        self._stats = stats
        self._flusher = flusher
        self._config = config
        self._cancel_on_abort = cancel_on_abort
        self._closes = closes

        self._head = ResponseHead()
        self._total_size: int | None = None  # once the head has started, `None` is "not known"
        self._head_started = False
        self._has_body = True
        self._outgoing = Outgoing(transport, stats)
        self._ended = False  # the handler has given all; what is left is outgoing
        self._stream_was_cut = False  # a stream of the body was closed by force
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
        self._turn = SendTurn(transport, stats, config.send_budget)
        self._begin_uncorked()
        self._wakeup: trio.Event | None = None
        self._shutdown: trio.Event | None = None  # once somebody waits for it
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

    async def wait_shutdown(self) -> None:
        """Park until the server begins to shut down: the response has its grace to end.

        If the response is over before that, it never returns. For one that would not end, such as
        an endless stream of events::

            async with res.events() as events, trio_util.move_on_when(res.wait_shutdown):
                while True: ...
        """
        await checkpoint()
        if not self._stats.shutting_down:
            if self._shutdown is None:
                self._shutdown = trio.Event()
            await self._shutdown.wait()

    def on_aborted(self, handler: Callable[[Self], object]) -> Self:
        """Have `handler(res)` called once if the response ends before it is complete.

        Handlers add up and are called in order; one that is registered again, while the request is
        served, counts once. If the response has been aborted already, `handler` is called now. An
        exception in it is logged. (uWebSockets: `onAborted`.)

        Raises:
          TypeError: `handler` can't be called, or is a coroutine function.
        """
        check_handler("on_aborted", handler)
        self._tell_aborted(handler)
        return self

    @property
    def _sent_status(self) -> int | None:
        """The status code of the head, once that has started."""
        return self._head.status if self._head_started else None

    @property
    def _body_bytes(self) -> int:
        """How many bytes of the body the client gets."""
        return self._outgoing.offset if self._has_body else 0

    @property
    def _is_over(self) -> bool:
        return self._complete or self._abort_reason is not None

    # Waiting...

    def _begin_uncorked(self) -> None:
        """Send chunks as they come, until so many went on that corking them will be worth it."""
        self._cork_from = self._outgoing.offset + _UNCORKED_SIZE

    async def _park(self) -> None:
        """Wait until the transport is writable or the response is over."""
        if self._wakeup is None:
            self._wakeup = trio.Event()
        await self._wakeup.wait()

    def _count_park(self) -> None:
        self._parks += 1
        self._stats.parks += 1

    def _wake(self) -> None:
        if self._wakeup is not None:
            self._wakeup.set()
            self._wakeup = None

    # The end...

    def _set_complete(self) -> None:
        self._ended = self._complete = True
        self._plain_until = 0
        self._transport.stop_waiting()  # what it has not sent yet is no concern of ours
        if self._total_size is not None:
            self._protocol.finish_response()
        self._forget_handlers()
        self._wake()

    def _begin_shutdown(self) -> None:
        self._closes = True
        if self._shutdown is not None:
            self._shutdown.set()

    def _abort(self, reason: AbortReason) -> None:
        """End the response early. The order is part of the contract, and nothing in it yields."""
        if self._is_over:
            return
        self._abort_reason = reason
        self._plain_until = 0
        self._outgoing.abandon()
        self._stats.aborts[reason] += 1
        self._writable_handler = None
        for handler in tuple(self._aborted_handlers):
            self._call_aborted_handler(handler)
        self._wake()
        if self._cancel_on_abort:
            self._cancel_scope.cancel()

    def _tell_aborted(self, handler: Callable[..., object]) -> None:
        """Have `handler` called with the response when it is aborted, or now if it has been."""
        if self._complete or handler in self._aborted_handlers:
            return
        self._aborted_handlers.append(handler)
        if self._abort_reason is not None:
            self._call_aborted_handler(handler)

    def _forget_handlers(self) -> None:
        # They usually refer to this response: without this, only the garbage collector would end
        # it. After an abort they are needed until the connection leaves it, to be told once.
        self._writable_handler = None
        self._aborted_handlers = []

    def _call_aborted_handler(self, handler: Callable[..., object]) -> None:
        try:
            handler(self)
        except Exception:
            logger.exception("an on_aborted handler of %r raised", self)

    # Checks...

    def _check_head_is_open(self, method: str) -> None:
        if self._head_started:
            raise RuntimeError(f"{method}() came after the head of the response was sent")

    def _check_body_is_open(self) -> None:
        # What is dropped may go on to its end, though the response is complete: for a GET it would.
        dropped = not self._has_body and self._outgoing.offset < (self._total_size or 0)
        if self._ended and not dropped:
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

    def _check_total_size(self, total_size: int) -> None:
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


def check_handler(method: str, handler: Callable[..., object]) -> None:
    if not callable(handler):
        raise TypeError(f"{method}() needs a callable, not {handler!r}")
    if inspect.iscoroutinefunction(handler):
        raise TypeError(f"{method}() needs a plain function: nobody would await {handler!r}")
