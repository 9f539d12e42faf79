"""A running server: its listeners, what its connections share, and its end."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import trio

from ._accept import ClientCounts, accept_connections
from ._background import open_background
from ._certificates import current_context
from ._connection import Connection
from ._flusher import Flusher
from ._proxied import receive_header
from ._proxy_protocol import ProxyProtocolError
from ._readiness import HAVE_EPOLL, ReadinessWatcher
from ._socket_transport import peer_address
from ._stats import Stats
from ._stream_transport import open_transport
from ._timeouts import Timeouts, TimeoutWatch
from ._tls import serve_tls
from ._wording import count
from ._worker_stats import told_to_workers

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from ._certificates import Certificates
    from ._config import Config
    from ._routing import Router
    from ._transport import Transport

logger = logging.getLogger("trio_stream")

# What lifespans have to begin or end when responses have used up the grace. A supervisor kills a
# worker two seconds later.
_LIFESPAN_GRACE = 3.0


class Server:
    """A running server. `await nursery.start(app.serve)` returns one.

    Attributes:
      stats: What it has done and is doing, counted.
    """

    def __init__(
        self,
        router: Router,
        config: Config,
        listeners: Sequence[trio.SocketListener] = (),
        *,
        ssl_context: ssl.SSLContext | Certificates | None = None,
        lifespans: Sequence[Callable[[], AbstractAsyncContextManager[object]]] = (),
    ) -> None:
        self.stats = Stats()
        self._router = router
        self._config = config
        self._listeners = listeners
        self._ssl_context = ssl_context
        self._addresses = [listener.socket.getsockname() for listener in listeners]
        self._watcher = ReadinessWatcher() if HAVE_EPOLL else None
        self._stalls = TimeoutWatch(config.stall_timeout)
        self._timeouts = Timeouts(config)
        self._flusher = Flusher()
        self._clients = ClientCounts(config.max_connections_per_client)
        self._connections: set[Connection] = set()
        self._handshakes: set[trio.CancelScope] = set()
        self._lifespans = lifespans
        self._accepting = trio.CancelScope()
        self._serving = trio.CancelScope()
        self._grace = trio.CancelScope()  # ends when responses under way are cut off
        self._has_begun = False
        self._lifetime = trio.CancelScope()
        self._has_cut_off = False

    def __repr__(self) -> str:
        return f"<Server on {self._addresses}, {self.stats.open_connections} connections>"

    @property
    def addresses(self) -> list[Any]:
        """The addresses it listens on, as `socket.getsockname` gives them."""
        return list(self._addresses)

    @property
    def port(self) -> int:
        """The port of its first listener on TCP.

        Raises:
          LookupError: It has none.
        """
        for address in self._addresses:
            if isinstance(address, tuple):
                port: int = address[1]
                return port
        raise LookupError(f"a server on {self._addresses} has no port")

    @property
    def scheme(self) -> str:
        """`"http"` or `"https"`."""
        return "http" if self._ssl_context is None else "https"

    @property
    def has_cut_off(self) -> bool:
        """Whether the end has cut off a response, or a lifespan that began or ended.

        Also of a response that was over: what waited here for the client to take it (TLS).
        """
        return self._has_cut_off or self._lifetime.cancelled_caught

    def shutdown(self, *, grace: float | None = None) -> None:
        """End gracefully: accept nothing more, and close each connection as soon as it is idle.

        A request that has begun to arrive is still answered, with `Connection: close`. What is not
        over after `grace` seconds is cut off: responses are aborted as `AbortReason.SHUTDOWN`, and
        all that is left is cancelled. Then the lifespans of the app end; they have what is left of
        the grace, and at least 3 seconds, before they are cancelled. Then `serve` returns. Another
        call can shorten the grace of responses. If lifespans are still beginning, nothing will be
        served, and they have the same time for that.

        Args:
          grace: In seconds; `None` for `Config.shutdown_grace`, `math.inf` for no limit.

        Raises:
          ValueError: The grace is negative, or no number.
        """
        seconds: object = self._config.shutdown_grace if grace is None else grace
        if not isinstance(seconds, int | float) or not seconds >= 0:
            raise ValueError(f"grace must be a number of seconds, and not negative: {seconds!r}")
        if not self.stats.shutting_down:
            logger.info(
                "shutting down: %s under way, which may take %g seconds",
                count(self.stats.active_responses, "response"),
                seconds,
            )
        self._grace.deadline = min(self._grace.deadline, trio.current_time() + seconds)
        self.stats.shutting_down = True
        if not self._has_begun:
            self._limit_lifespans()
        self._accepting.cancel()
        for scope in self._handshakes:
            self._shorten(scope)
        for connection in self._connections:
            connection.close_when_idle()

    async def _serve(self, started: Callable[[Server], object]) -> None:
        """Serve the listeners until cancelled or shut down, and close them then.

        Args:
          started: Called as soon as connections are accepted.
        """
        async with told_to_workers(self.stats), self._running():
            if not self.stats.shutting_down:
                with self._serving:
                    await self._serve_listeners(started)
        if self.stats.shutting_down:
            logger.info("shut down")

    async def _serve_listeners(self, started: Callable[[Server], object]) -> None:
        async with trio.open_nursery() as nursery:
            if self._watcher is not None:
                for listener in self._listeners:
                    self._watcher.attend(listener.socket.fileno())
            started(self)
            room = trio.CapacityLimiter(self._config.max_connections)
            with self._accepting:
                async with trio.open_nursery() as accepting:
                    for listener in self._listeners:
                        accepting.start_soon(
                            accept_connections, listener, self._serve_accepted, nursery, room
                        )

    async def _serve_accepted(self, stream: trio.SocketStream, peer: object) -> None:
        client, is_anonymous = peer, False
        if self._config.proxy_protocol:
            header = None
            try:
                header = await receive_header(stream, peer, self._config, self._handshake_limit)
            except ProxyProtocolError as exc:
                logger.warning("%s: closed without an answer: %s", peer, exc)
                return
            except trio.BrokenResourceError as exc:
                logger.debug("%s: gone before its PROXY header: %s", peer, exc)
                return
            finally:
                if header is None:
                    await trio.aclose_forcefully(stream)
            is_anonymous = header.client is None
            client = header.client or peer
        await self._serve_stream(stream, client=client, is_anonymous=is_anonymous)

    @contextmanager
    def _handshake_limit(self) -> Iterator[trio.CancelScope]:
        """Limit the time of what comes before a connection: a handshake, or a proxy's header."""
        with trio.move_on_after(self._config.handshake_timeout) as scope:
            self._handshakes.add(scope)
            if self.stats.shutting_down:
                self._shorten(scope)
            try:
                yield scope
            finally:
                self._handshakes.remove(scope)

    def _shorten(self, scope: trio.CancelScope) -> None:
        """As a new connection has it for its first request."""
        deadline = trio.current_time() + self._config.linger_timeout
        scope.deadline = min(scope.deadline, deadline)

    async def _serve_stream(
        self, stream: trio.abc.Stream, *, client: object = None, is_anonymous: bool = False
    ) -> None:
        """Serve one connection to its end, and close `stream`. The server must be `_running`.

        Args:
          stream: The connection.
          client: Who it comes from; without it, whom `stream` is connected to.
          is_anonymous: A proxy passes on its bytes without telling whose they are. So what they say
            about that is not the proxy's word.
        """
        if client is None:
            client = peer_address(stream)
        try:
            async with open_transport(
                stream, self._config, self._stalls, self._watcher, client=client
            ) as transport:
                if is_anonymous:
                    transport.trusted_proxies = ()
                with self._clients.counted(transport.client) as is_within_limit:
                    if self._ssl_context is None:
                        refusal = None if is_within_limit else 503
                        await self._serve_transport(transport, refusal=refusal)
                    elif is_within_limit:  # a handshake would cost more than the answer is worth
                        await serve_tls(
                            transport,
                            current_context(self._ssl_context),
                            self._config,
                            self._stalls,
                            self._handshake_limit,
                            self._serve_transport,
                        )
        # An error of ours: what handlers raise has been dealt with, and one client is not all.
        except* Exception:
            logger.exception("a connection ended by an error of the server")

    async def _serve_transport(self, transport: Transport, *, refusal: int | None = None) -> None:
        """Serve one connection until it is over; closing `transport` is the caller's.

        Args:
          transport: The connection.
          refusal: The status code of an answer to give instead, before any request is read.
        """
        connection = Connection(
            transport, self._router, self._config, self.stats, self._timeouts, self._flusher
        )
        if self._config.min_download_rate:
            transport.require_rate(self._timeouts.rate, self._config.min_download_rate)
        self._connections.add(connection)
        if self.stats.shutting_down:  # it was accepted just before
            connection.close_when_idle()
        try:
            await connection.serve(refusal=refusal)
        finally:
            self._connections.remove(connection)
            transport.stop_timers()

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        """Keep the app's lifespans open, and the watchers at work, for the length of the block.

        If a shutdown has begun when the block does, they may not be, and it should serve nothing.

        Raises:
          RuntimeError: A lifespan has cancelled itself, and what was served in it.
        """
        is_over = False
        with self._lifetime:
            async with AsyncExitStack() as stack:
                for open_lifespan in self._lifespans:
                    await stack.enter_async_context(open_lifespan())
                self._has_begun = True
                async with self._watching():
                    yield
                is_over = True
                if self.stats.shutting_down:
                    self._limit_lifespans()
        if self._lifetime.cancelled_caught:
            logger.warning(
                "shutting down: a lifespan has not %s in time, and is cancelled",
                "ended" if self._has_begun else "begun",
            )
        elif self._has_begun and not (is_over or self.stats.shutting_down):
            raise RuntimeError("a lifespan has ended before its time, and with it the server")
        if not self._has_begun:
            yield

    def _limit_lifespans(self) -> None:
        end = trio.current_time() + _LIFESPAN_GRACE
        self._lifetime.deadline = max(self._grace.deadline, end)

    @asynccontextmanager
    async def _watching(self) -> AsyncIterator[None]:
        with self._watcher or nullcontext():
            async with open_background() as start_soon:
                start_soon(self._stalls.run)
                start_soon(self._flusher.run)
                self._timeouts.run(start_soon)
                start_soon(self._watch_grace)
                if self._watcher is not None:
                    start_soon(self._watcher.run)
                yield

    async def _watch_grace(self) -> None:
        with self._grace:
            await trio.sleep_forever()
        self._cut_off()

    def _cut_off(self) -> None:
        """Abort all responses as `AbortReason.SHUTDOWN`, and cancel what is left."""
        if under_way := self.stats.active_responses:
            logger.warning("shutting down: %s cut off", count(under_way, "response"))
        for connection in tuple(self._connections):
            self._has_cut_off |= connection.cut_off()
        self._serving.cancel()
