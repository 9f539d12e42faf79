"""One connection: a transport and a protocol joined, and the cycle of requests and responses.

All of it is one task: receiving a request, its handler and the flush follow each other in
`_serve_request`.
"""

from __future__ import annotations

import logging
import os
from math import inf
from typing import TYPE_CHECKING

import trio

from ._access_log import log_response
from ._access_log import logger as access_logger
from ._bad_request import BadRequestError
from ._forwarded import Origin
from ._handling import run_handler
from ._protocol import Protocol
from ._request import Request
from ._request_body import RequestBody
from ._response import Response
from ._routing import answer_status
from ._stats import AbortReason
from ._timeouts import MinimumRate

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._config import Config
    from ._flusher import Flusher
    from ._request_head import RequestHead
    from ._routing import Router
    from ._stats import Stats
    from ._timeouts import Timeouts
    from ._transport import Transport

logger = logging.getLogger("trio_stream")


class Connection:
    """Serves one client from its first request to its last.

    There is one cancel scope for all of a connection's requests, and none for each: an abort ends
    the connection anyway, and a scope costs more than routing a request does.

    It is in one of the watches of `timeouts` at a time, as it waits for a request or serves one.
    """

    def __init__(
        self,
        transport: Transport,
        router: Router,
        config: Config,
        stats: Stats,
        timeouts: Timeouts,
        flusher: Flusher,
    ) -> None:
        self._transport = transport
        self._protocol = Protocol(config)
        self._router = router
        self._config = config
        self._stats = stats
        self._timeouts = timeouts
        self._flusher = flusher
        self._context = trio.lowlevel.current_task().context
        self._peer = Origin(transport.client, transport.scheme)
        self._id = os.urandom(6).hex()
        self._requests = 0
        self._is_late = False  # the client has sent no request in time
        self._refusal: int | None = None
        self._cancel_scope = trio.CancelScope()
        self._response: Response | None = None
        # `trio.current_time` looks for the clock each time, and so takes twice as long.
        self._now = trio.lowlevel.current_clock().current_time
        self._opened_at = self._now()
        self._began_at: float | None = None  # the response under way, if it will be logged
        self._is_fresh = True  # nothing was received
        self._awaits_head = False
        self._closes_idle = False  # as the server is shut down
        self._client_has_stalled = False
        self._needs_reset = False  # in a body that only a reset tells from a whole one

    async def serve(self, *, refusal: int | None = None) -> None:
        """Serve requests until the client goes or one of them ends the connection.

        The transport is then finished, but not closed.

        Args:
          refusal: The status code of an answer to give instead, before any request is read.
        """
        self._stats.connections += 1
        self._stats.open_connections += 1
        self._refusal = refusal
        try:
            await self._serve_requests()
            if self._refusal is not None:
                self._cancel_scope = trio.CancelScope()  # a timeout may have cancelled the last one
                with self._cancel_scope:
                    await self._refuse(self._refusal)
            if not self._client_has_stalled:
                await self._finish()
        except trio.BrokenResourceError:
            pass  # the client has gone between two responses: nobody to tell
        finally:
            if self._needs_reset or self._transport.has_kept():  # as nobody will send the rest
                self._transport.reset()
            self._stats.open_connections -= 1
            trio.lowlevel.current_task().context = self._context  # it may be somebody else's task

    async def _serve_requests(self) -> None:
        with self._cancel_scope:
            while self._refusal is None and await self._serve_request():
                pass
        # What has come since it was found idle was sent before the client could know.
        if self._closes_idle and self._transport.has_unread():
            self._closes_idle = False
            self._cancel_scope = trio.CancelScope()
            await self._serve_requests()

    async def _finish(self) -> None:
        if self._needs_reset:
            await self._transport.wait_taken()
        else:
            await self._transport.finish(
                peer_is_sending=self._protocol.request_is_incomplete or self._refusal is not None
            )

    def close_when_idle(self) -> None:
        """Close now if no request is being served or has begun to arrive, else after its response.

        On a new connection the first request may be on its way, and few clients would send it once
        more: it has `Config.linger_timeout` to arrive, from the connection on.
        """
        if self._response is not None:
            self._response._begin_shutdown()
        elif self._is_idle:
            self._closes_idle = True
            if self._is_fresh:
                self._cancel_scope.deadline = self._opened_at + self._config.linger_timeout
            else:
                self._cancel_scope.cancel()

    def cut_off(self) -> bool:
        """Abort the response under way, as the server is shut down, and cancel what is left.

        Returns:
          Whether something was cut off: that response, or the last bytes of one that is over.
        """
        is_cut = self._transport.has_kept()
        if (response := self._response) is not None:
            is_cut = is_cut or not response._is_over
            response._abort(AbortReason.SHUTDOWN)
        self._closes_idle = False
        self._cancel_scope.cancel()
        return is_cut

    @property
    def _is_idle(self) -> bool:
        has_begun = self._protocol.head_has_begun or self._transport.has_unread()
        return self._awaits_head and not has_begun

    @property
    def _request_id(self) -> str:
        return f"{self._id}-{self._requests}"

    # What its watch tells, in another task...

    def has_progressed(self) -> bool:
        """Never: what has come of a request so far earns no more time for the rest (slowloris)."""
        return False

    def on_timeout(self) -> None:
        """End the wait for a request, or the response to it."""
        if (response := self._response) is None:
            self._is_late = True
            self._closes_idle = False
            if self._protocol.head_has_begun:
                self._refusal = 408  # RFC 9110 section 15.5.9
            self._cancel_scope.cancel()
        elif not response._is_over:
            if response._is_untouched:
                self._refusal = 503  # RFC 9110 section 15.6.4
            is_stuck = response._outgoing.blocked
            response._abort(AbortReason.TIMED_OUT)
            if is_stuck:
                self._transport.reset()  # or the client could take minutes for what waits for it

    # Receiving the request...

    async def _receive_head(self) -> RequestHead | None:
        """The next request's head; `None` when the client has ended its stream instead."""
        # What the last handler has set is not for the next one, which may serve somebody else,
        # behind a proxy. Trio uses the copy from the next wait on, and there is one.
        trio.lowlevel.current_task().context = self._context.copy()
        head = self._protocol.next_request() if self._protocol.head_has_begun else None
        if head is not None:
            # It was pipelined. Nothing else here has to wait, and the other connections want their
            # turn.
            await trio.lowlevel.checkpoint()
            return head
        timeouts = self._timeouts
        is_idle = self._requests > 0 and not self._protocol.head_has_begun
        watch = timeouts.keep_alive if is_idle else timeouts.head
        watch.start(self)
        self._awaits_head = True
        if self._stats.shutting_down:
            self.close_when_idle()
        try:
            while head is None and not self._protocol.client_has_closed:
                await self._receive_data()
                head = self._protocol.next_request()
                has_begun = head is not None or self._protocol.head_has_begun
                if has_begun and self._stats.shutting_down:
                    self._cancel_scope.deadline = inf  # it came in time
                    self._closes_idle = False
                if head is None and has_begun and watch is timeouts.keep_alive:
                    watch.stop(self)
                    watch = timeouts.head
                    watch.start(self)
        finally:
            self._awaits_head = False
            watch.stop(self)
        if self._is_late:  # and the rest came in the same moment
            await trio.lowlevel.checkpoint_if_cancelled()
        return head

    async def _receive_data(self) -> int:
        data = await self._transport.receive_some(self._protocol.read_size)
        self._is_fresh = False
        self._protocol.receive_data(data)
        return len(data)

    async def _discard_request_body(self) -> bool:
        """Drop what the handler has not read of the request; whether its end was reached."""
        try:
            if self._protocol.discard_request_body() is not None:
                with trio.move_on_after(self._config.linger_timeout) as scope:
                    await self._receive_rest(scope.cancel)
        except BadRequestError:
            return False  # the response is complete: there is no place for another answer
        return self._protocol.start_next_cycle()

    async def _receive_rest(self, on_slow: Callable[[], None]) -> None:
        size = 0
        pace = MinimumRate(self._timeouts.rate, self._config.min_upload_rate, lambda: size, on_slow)
        pace.wait()
        try:
            while (discarded := self._protocol.discard_request_body()) is not None:
                if discarded:
                    await trio.lowlevel.checkpoint()
                else:
                    size += await self._receive_data()
        finally:
            pace.close()

    # Sending the response...

    async def _serve_request(self) -> bool:
        """Serve the next request; whether another one may follow."""
        try:
            head = await self._receive_head()
            if head is None:
                return False
            transport = self._transport
            request = Request(
                head,
                self._config,
                peer=self._peer,
                trusted_proxies=transport.trusted_proxies,
                client_certificate=transport.client_certificate,
            )
        except BadRequestError as exc:
            logger.debug("%s: %d for a bad request: %s", self._transport.client, exc.status, exc)
            self._refusal = exc.status
            return False
        route, request.params = self._router.find(request.method, request.raw_path)
        self._stats.requests += 1
        is_last = self._requests + 1 >= self._config.max_requests
        response = self._begin_response(request, route.cancel_on_abort, closes=is_last)
        try:
            request.body = RequestBody(
                self._protocol,
                transport,
                response._send_interim,
                self._stats,
                self._timeouts.rate,
                self._config.min_upload_rate,
            )
            if self._config.request_timeout < inf:
                self._timeouts.request.start(self)
            try:
                await run_handler(route.handler, response, request)
                await response._wait_over()
            finally:
                self._timeouts.request.stop(self)
                request.body._close()
        finally:
            self._end_response(response, request)
        while request.body._is_receiving:  # a task that has outlived the handler
            await trio.lowlevel.checkpoint()  # or both would receive what comes now
        return response._allows_reuse and await self._discard_request_body()

    async def _refuse(self, status: int) -> None:
        """Give an answer that serves no request, and is the last one."""
        response = self._begin_response(None, cancel_on_abort=True, closes=True)
        try:
            answer_status(response, status)
            await response._wait_over()
        finally:
            self._end_response(response, None)

    # Not a context manager: that would take a twentieth of the time of a small request.
    def _begin_response(
        self, request: Request | None, cancel_on_abort: bool, *, closes: bool
    ) -> Response:
        """Make the response that the transport reports to, until `_end_response`."""
        self._stats.active_responses += 1
        self._requests += 1
        if request is not None:
            request.id = self._request_id
        self._began_at = self._now() if access_logger.isEnabledFor(logging.INFO) else None
        response = Response(
            self._transport,
            self._protocol,
            self._cancel_scope,
            self._stats,
            self._flusher,
            self._config,
            cancel_on_abort=cancel_on_abort,
            closes=closes or self._stats.shutting_down,
        )
        self._response = self._transport.user = response
        if self._transport.hung_up:
            # It came with the request, or before it. The handler may still answer, if it does not
            # wait.
            self._transport.notify_soon()
        return response

    def _end_response(self, response: Response, request: Request | None) -> None:
        """End the response at the latest, count it and log it."""
        self._response = self._transport.user = None
        if self._cancel_scope.deadline != inf:
            self._cancel_scope.deadline = inf  # which the handler has set for itself
        if self._cancel_scope.shield:
            self._cancel_scope.shield = False  # the same
        self._stats.active_responses -= 1
        response._abort(AbortReason.CANCELLED)  # does nothing if the response is over
        response._forget_handlers()
        # Whatever else ended it early, the client shall see what was accepted, and then the cut:
        # one that has ended its stream may still read, if only the answer before.
        self._client_has_stalled = response.abort_reason is AbortReason.STALLED
        # A proper end would look like that of the body.
        self._needs_reset = response.aborted and response._ends_with_connection
        if (status := response._sent_status) is not None:
            self._stats.responses[status] += 1
        if self._began_at is not None:
            log_response(
                self._protocol.request,
                self._transport.client if request is None else request.client,
                request_id=self._request_id if request is None else request.id,
                duration=self._now() - self._began_at,
                status=status,
                body_bytes=response._body_bytes,
                parks=response._parks,
                abort_reason=response.abort_reason,
            )
