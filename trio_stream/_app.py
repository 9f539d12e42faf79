"""The application: its routes, and the ways to serve them."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import replace
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import TYPE_CHECKING, TypeVar

import trio

from ._certificates import Certificates, check_context
from ._config import Config
from ._console import say
from ._listeners import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    DEFAULT_UNIX_MODE,
    ListenOptions,
    describe_address,
    open_listeners,
    take_systemd_fds,
)
from ._routes import Routes
from ._server import Server
from ._signals import serve_until_signal
from ._turn import MOST_SHARING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from ._file import StrPath

# Set while the command line imports an app, which it serves itself then.
is_imported_to_be_served = ContextVar("is_imported_to_be_served", default=False)

_L = TypeVar("_L", bound="Callable[[], AbstractAsyncContextManager[object]]")


class App(Routes):
    """Routes and their handlers, and the ways to serve them.

    A handler is called as `handler(res, req)` and may be `async def` or a plain function. When its
    client goes away, an async handler is cancelled, unless `cancel_on_abort` is false. Each begins
    with the context variables that the app is served with, whatever others have set.

    Paths are literal (`/a/b`), have parameters (`/users/:id`, found as `req.params["id"]`), or a
    wildcard as their tail (`/files/*`, found as `req.params["*"]`). A literal segment beats a
    parameter, a parameter beats a wildcard. A path that is known under other methods only is
    answered with 405, an unknown one with 404. A GET route answers HEAD, and OPTIONS is answered
    where no route claims it.

    Args:
      config: Limits and timeouts.
      cancel_on_abort: Whether an abort cancels the handler of a route that does not say.
    """

    def __init__(self, *, config: Config | None = None, cancel_on_abort: bool = True) -> None:
        if not isinstance(config, Config | None):
            raise TypeError(f"config must be a Config, not {config!r}")
        self.config = config or Config()
        super().__init__(cancel_on_abort=cancel_on_abort)
        self._lifespans: list[Callable[[], AbstractAsyncContextManager[object]]] = []

    # Serving...

    def lifespan(self, open_lifespan: _L) -> _L:
        """Keep an async context manager open for as long as the app is served, as a decorator.

        It is entered before the first connection is accepted, and left after the last one has
        ended. An exception in it ends the server with that exception, and a cancellation of its own
        with a `RuntimeError`. What it does at a shutdown is cancelled in the end, see
        `Server.shutdown`. Of several, each is entered after those before it, and left before them::

            @app.lifespan
            @asynccontextmanager
            async def keep_pool():
                async with open_pool(URL) as pool:
                    database.pool = pool
                    yield  # while it is served

        Args:
          open_lifespan: Makes the context manager; called each time that the app is served.

        Raises:
          TypeError: It can't be called, or is a generator or a coroutine function.
        """
        if (
            isasyncgenfunction(open_lifespan)
            or isgeneratorfunction(open_lifespan)
            or iscoroutinefunction(open_lifespan)
            or not callable(open_lifespan)
        ):
            raise TypeError(
                f"lifespan() needs what makes an async context manager, not {open_lifespan!r}: "
                "@asynccontextmanager makes one of a generator"
            )
        self._lifespans.append(open_lifespan)
        return open_lifespan

    async def serve(
        self,
        *,
        host: str | Sequence[str] | None = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        unix: StrPath | None = None,
        unix_mode: int = DEFAULT_UNIX_MODE,
        fds: Sequence[int] = (),
        ssl_context: ssl.SSLContext | Certificates | None = None,
        task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled, or until `Server.shutdown`.

        With `await nursery.start(app.serve)` it returns a `Server` once all listeners are bound.

        Args:
          host: The name or address to listen on, or several; each may have its own port, as in
            `"127.0.0.1:8080"` or `"[::1]:8080"`. `None` for all interfaces, of IPv4 and IPv6.
          port: 0 for a free one, which `Server.port` then tells.
          unix: The path of a Unix socket to listen on, instead of `host`. What a server that died
            has left there is replaced; at the end it is removed, if it is still the same.
          unix_mode: The permissions of that socket.
          fds: Descriptors of listening sockets (TCP or Unix) to serve instead of `host`. They are
            taken over, so they are closed at the end; the path of a Unix socket stays.
          ssl_context: For HTTPS: `Certificates`, or a context for servers; neither is changed.
          task_status: For `nursery.start`.

        Raises:
          OSError: An address can't be bound, or a descriptor is not a listening socket.
          ValueError: `host` is empty, a port is out of range, or the context is for clients.
          TypeError: `ssl_context` is neither `Certificates` nor a context.
          RuntimeError: A lifespan has cancelled itself.
        """
        check_context(ssl_context)
        listen = ListenOptions(host=host, port=port, unix=unix, unix_mode=unix_mode, fds=fds)
        async with open_listeners(listen) as listeners:
            server = self._make_server(listeners, ssl_context)
            await server._serve(task_status.started)

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one connection over any stream (TLS, memory, a tunnel) to its end, and close it.

        If somebody else closes it before, the client counts as gone when next something is sent or
        received. Each call is a server of its own: it opens the app's lifespans, and knows nothing
        of other connections, so its responses let other tasks run as if they were many.
        """
        config = replace(self.config, send_budget=max(self.config.send_budget // MOST_SHARING, 1))
        server = self._make_server(config=config)
        async with server._running():
            await server._serve_stream(stream)

    def run(
        self,
        *,
        host: str | Sequence[str] | None = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        unix: StrPath | None = None,
        unix_mode: int = DEFAULT_UNIX_MODE,
        fds: Sequence[int] = (),
        ssl_context: ssl.SSLContext | Certificates | None = None,
        announce: Callable[[Server], object] | None = None,
    ) -> int:
        """Serve from a script, until Ctrl-C, SIGTERM or SIGHUP: `trio.run` around `serve`.

        The first signal is `Server.shutdown`; a second SIGINT or SIGTERM ends it at once, and
        cancels all that is under way. What shields itself from that is killed by a third SIGTERM.

        Args:
          host: The name or address to listen on, or several, as `serve` takes them.
          port: 0 for a free one.
          unix: The path of a Unix socket to listen on, instead of `host`.
          unix_mode: The permissions of that socket.
          fds: Descriptors of listening sockets to serve instead of `host`. Those that systemd
            passes to this process (`LISTEN_FDS`) are added.
          ssl_context: For HTTPS, as in `serve`. `Certificates` are loaded again by SIGHUP.
          announce: Called with the `Server` as soon as connections are accepted. Without it, where
            it serves is printed on stdout.

        Returns:
          An exit status, for `sys.exit(app.run())`: 1 if the end has cut something off, else 0.

        Raises:
          OSError: An address can't be bound, or a descriptor is not a listening socket.
          ValueError: `host` is empty, a port is out of range, or the context is for clients.
          TypeError: `ssl_context` is neither `Certificates` nor a context.
          RuntimeError: The command line imports this app, to serve it; or a lifespan has cancelled
            itself.
        """
        if is_imported_to_be_served.get():
            raise RuntimeError('app.run() needs an `if __name__ == "__main__":` before it')
        check_context(ssl_context)
        fds = [*fds, *take_systemd_fds()]
        listen = ListenOptions(host=host, port=port, unix=unix, unix_mode=unix_mode, fds=fds)
        announce = announce or _print_addresses
        return trio.run(self._serve_until_signal, listen, ssl_context, announce)

    async def _serve_until_signal(
        self,
        listen: ListenOptions,
        ssl_context: ssl.SSLContext | Certificates | None,
        announce: Callable[[Server], object],
    ) -> int:
        reload = ssl_context.reload if isinstance(ssl_context, Certificates) else None
        async with open_listeners(listen) as listeners:
            server = self._make_server(listeners, ssl_context)
            return await serve_until_signal(server, announce, reload=reload)

    def _make_server(
        self,
        listeners: Sequence[trio.SocketListener] = (),
        ssl_context: ssl.SSLContext | Certificates | None = None,
        *,
        config: Config | None = None,
    ) -> Server:
        return Server(
            self._router,
            config or self.config,
            listeners,
            ssl_context=ssl_context,
            lifespans=self._lifespans,
        )


def _print_addresses(server: Server) -> None:
    for address in server.addresses:
        say(f"Serving on {describe_address(address, server.scheme)}")
