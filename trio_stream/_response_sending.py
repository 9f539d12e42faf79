"""How a response is sent, step by step."""

from __future__ import annotations

import logging
from math import inf
from typing import TYPE_CHECKING, Protocol

import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

from ._outgoing import BLOCKED, CORKED_CHUNK_SIZE, DONE, GONE, SENT, SendResult
from ._response_base import ResponseBase
from ._stats import AbortReason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._file import FilePart

logger = logging.getLogger("trio_stream")


class Pieces(Protocol):
    """What is not all there when it is sent, but piece by piece."""

    def __len__(self) -> int:
        """The size of all pieces in bytes."""

    async def next(self, sent: int) -> memoryview | FilePart:
        """What is there of that after the first `sent` bytes. Waiting for it is not cancelled."""


class SendingResponse(ResponseBase):
    """A response and the steps in which it leaves."""

    __slots__ = ()

    # Step by step...

    async def _send_all(
        self,
        view: bytes | memoryview | Pieces,
        total_size: int | None,
        start: int,
        *,
        is_plain: bool = False,
        is_blocked: bool = False,
    ) -> SendResult:
        """As `send_chunk`, with all that can come in between; also for a part of a file.

        Args:
          view: What is to be sent.
          total_size: As in `send_chunk`.
          start: The offset of its first byte.
          is_plain: It is a chunk like those before it, and not the last one. Others have had their
            turn if they were to, and its beginning may have been sent already.
          is_blocked: The transport has just not taken all of it.

        Raises:
          FileTooShortError, io.UnsupportedOperation: As `Transport.send_file`.
        """
        self._check_nobody_sends()
        self._sending = True
        self._plain_until = 0
        if not self._head_started:
            self._turn.begin(self._outgoing.offset)
        try:
            if not is_plain and (
                not (view and self._has_body)
                or self._abort_was_told
                or self._turn_is_over(start, len(view))
            ):
                start = await self._pass_turn()
            if self._abort_reason is None or self._abort_was_told:
                await checkpoint_if_cancelled()
            while self._outgoing.queued and not (self._ended or self._is_over):
                await self._park_sending()
                start = self._outgoing.offset
            is_open = start == self._outgoing.offset and not (self._ended or self.aborted)
            result = self._try_cork(view) if is_plain and is_open else None
            if result is None:
                is_blocked = is_blocked and not self.aborted
                result = await self._send_rest(view, total_size, start, is_blocked=is_blocked)
        finally:
            self._sending = False
            self._outgoing.copy_unsent()
        if result is GONE:
            self._abort_was_told = True
        elif result is SENT and self._head_started and self._has_body:
            self._plain_until = inf if total_size is None else total_size
        return result

    def _turn_is_over(self, start: int, size: int) -> bool:
        turn = self._turn
        return (start >= turn.look_at or size < turn.look_below) and not turn.goes_on(start, size)

    async def _pass_turn(self) -> int:
        """Let others run, and return the offset then: what was queued may have gone."""
        if self._outgoing.corked_size and not self._outgoing.blocked:
            self._flush()
        await cancel_shielded_checkpoint()
        self._turn.begin(self._outgoing.offset)
        return self._outgoing.offset

    async def _send_rest(
        self,
        view: bytes | memoryview | Pieces,
        total_size: int | None,
        start: int,
        *,
        is_blocked: bool,
    ) -> SendResult:
        while True:
            if is_blocked:
                await self._park_sending()
                if self.aborted:
                    return GONE
                is_blocked = False
            sent = self._outgoing.offset - start
            if not isinstance(view, (bytes, memoryview)):
                assert total_size is not None
                rest = await view.next(sent)
                if self._abort_reason is None:
                    await checkpoint_if_cancelled()
                result = self._try_end(rest, total_size)
                if result is SENT and sent + len(rest) < len(view):
                    continue
            elif total_size is None:
                result = self._try_send_chunk(memoryview(view)[sent:])
            else:
                result = self._try_end(memoryview(view)[sent:], total_size)
            if result is not BLOCKED:
                return result
            is_blocked = True

    def _try_end(self, view: bytes | memoryview | FilePart, total_size: int) -> SendResult:
        if self._abort_reason is not None:
            return GONE
        if self._ended or self._total_size is None or total_size != self._total_size:
            self._check_body_is_open()
            self._check_total_size(total_size)
        missing = total_size - self._outgoing.offset
        if len(view) > missing:
            raise ValueError(
                f"{len(view)} bytes at offset {self._outgoing.offset} "
                f"go beyond total_size={total_size}"
            )
        self._total_size = total_size
        if self._ended:  # it has no body: its handler need not look at what this returns
            self._outgoing.drop(len(view))
            return DONE
        has_body = self._head_started or self._protocol.response_has_body(self._head.status)
        if not (missing and has_body):
            self._end(b"")
            self._outgoing.drop(len(view))
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
            return SENT if self._has_body else DONE
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
            self._outgoing.drop(len(view))
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
        head = self._protocol.start_response(self._head, self._total_size, closes=self._closes)
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
        else:
            self._outgoing.drop(len(view))
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
        elif self._outgoing.blocked and self._outgoing.is_flushed:
            if self._writable_handler is not None:
                self._wake()
            else:
                # There is room, though the kernel does not say so before half of what it may keep
                # has gone. Until then chunks would leave one by one: with 1000 clients, half did.
                self._transport.on_writable()
        return accepted

    def _flush(self) -> None:
        """Send what goes now of all that was accepted; an ended response may be complete then.

        As in `_send`, who waits for all to go is woken, before there is room for the transport.
        """
        try:
            self._outgoing.flush()
        except trio.BrokenResourceError:
            self._abort(AbortReason.CLIENT_CLOSED)
        if self._outgoing.is_flushed and not self._is_over:
            if self._ended:
                self._set_complete()
            elif self._outgoing.blocked:
                self._wake()

    async def _park_sending(self) -> None:
        self._count_park()
        self._begin_uncorked()
        self._parked = True
        try:
            await self._park()
            self._turn.begin(self._outgoing.offset)
        except trio.Cancelled:
            self._closes = True
            # Nobody has taken notice, if it became writable in the meantime.
            self._missed_writable = not self._outgoing.blocked
            raise
        finally:
            self._parked = False

    # Small chunks, held back...

    def _try_cork(self, view: object) -> SendResult | None:
        """Accept `view`, the next chunk, to be sent with those that follow it at once.

        Returns:
          `SENT`, `GONE` if that failed, or `None` if it is to be sent by itself.
        """
        outgoing = self._outgoing
        if (
            type(view) is not bytes
            or len(view) >= CORKED_CHUNK_SIZE
            or outgoing.offset < self._cork_from
            or outgoing.blocked
            or outgoing.queued
        ):
            return None
        if not outgoing.corked_size:
            self._flusher.flush_soon(self)
        try:
            outgoing.cork(view)
        except trio.BrokenResourceError:
            self._abort(AbortReason.CLIENT_CLOSED)
            return GONE
        return SENT

    def _flush_corked(self) -> None:
        if self._outgoing.corked_size and not self._outgoing.blocked:
            self._begin_uncorked()
            self._flush()

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
