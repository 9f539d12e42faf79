"""The application: its routes, and the ways to serve them."""

from __future__ import annotations

from dataclasses import replace
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import TYPE_CHECKING, TypeVar

import trio

from ._certificates import Certificates, check_context
from ._config import Config
from ._file_answer import FileOptions
from ._listeners import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    DEFAULT_UNIX_MODE,
    Listen,
    describe_address,
    open_listeners,
    take_systemd_fds,
)
from ._listing import listing_page
from ._metrics import HAVE_PROMETHEUS, make_tell_ready, send_metrics, tell_live
from ._routing import ANY, Handler, Router
from ._server import Server
from ._signals import serve_until_signal
from ._static import StaticFiles
from ._stdout import say
from ._tree import Tree

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from ._file import StrPath

_H = TypeVar("_H", bound=Handler)
_L = TypeVar("_L", bound="Callable[[], AbstractAsyncContextManager[object]]")


class App:
    """Routes and their handlers, and the ways to serve them.

    A handler is called as `handler(res, req)` and may be `async def` or a plain function. When its
    client goes away, an async handler is cancelled, unless `cancel_on_abort` is false.

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
        self.config = config or Config()
        self._cancel_on_abort = cancel_on_abort
        self._router = Router()
        self._lifespans: list[Callable[[], AbstractAsyncContextManager[object]]] = []

    # Routes...

    def _route(
        self, method: str, path: str, handler: Handler | None, cancel_on_abort: bool | None
    ) -> Callable[[_H], _H]:
        def register(handler: _H) -> _H:
            cancel = self._cancel_on_abort if cancel_on_abort is None else cancel_on_abort
            self._router.add(method, path, handler, cancel_on_abort=cancel)
            return handler

        if handler is not None:
            register(handler)
        return register

    def get(
        self,
        path: str,
        handler: Handler | None = None,
        *,
        cancel_on_abort: bool | None = None,
    ) -> Callable[[_H], _H]:
        """Serve GET requests for `path`, and HEAD, as a decorator or with `handler` directly."""
        return self._route("GET", path, handler, cancel_on_abort)

    def post(
        self,
        path: str,
        handler: Handler | None = None,
        *,
        cancel_on_abort: bool | None = None,
    ) -> Callable[[_H], _H]:
        """Serve POST requests for `path`, as a decorator or with `handler` directly."""
        return self._route("POST", path, handler, cancel_on_abort)

    def put(
        self,
        path: str,
        handler: Handler | None = None,
        *,
        cancel_on_abort: bool | None = None,
    ) -> Callable[[_H], _H]:
        """Serve PUT requests for `path`, as a decorator or with `handler` directly."""
        return self._route("PUT", path, handler, cancel_on_abort)

    def patch(
        self,
        path: str,
        handler: Handler | None = None,
        *,
        cancel_on_abort: bool | None = None,
    ) -> Callable[[_H], _H]:
        """Serve PATCH requests for `path`, as a decorator or with `handler` directly."""
        return self._route("PATCH", path, handler, cancel_on_abort)

    def delete(
        self,
        path: str,
        handler: Handler | None = None,
        *,
        cancel_on_abort: bool | None = None,
    ) -> Callable[[_H], _H]:
        """Serve DELETE requests for `path`, as a decorator or with `handler` directly."""
        return self._route("DELETE", path, handler, cancel_on_abort)

    def head(
        self,
        path: str,
        handler: Handler | None = None,
        *,
        cancel_on_abort: bool | None = None,
    ) -> Callable[[_H], _H]:
        """Serve HEAD requests for `path`, as a decorator or with `handler` directly."""
        return self._route("HEAD", path, handler, cancel_on_abort)

    def options(
        self,
        path: str,
        handler: Handler | None = None,
        *,
        cancel_on_abort: bool | None = None,
    ) -> Callable[[_H], _H]:
        """Serve OPTIONS requests for `path`, as a decorator or with `handler` directly."""
        return self._route("OPTIONS", path, handler, cancel_on_abort)

    def connect(
        self,
        path: str,
        handler: Handler | None = None,
        *,
        cancel_on_abort: bool | None = None,
    ) -> Callable[[_H], _H]:
        """Serve CONNECT requests for `path`, as a decorator or with `handler` directly.

        What they have for a path is one segment, the authority (RFC 9112 section 3.2.3). No other
        route answers them, so an app without such a route answers 501.
        """
        return self._route("CONNECT", path, handler, cancel_on_abort)

    def trace(
        self,
        path: str,
        handler: Handler | None = None,
        *,
        cancel_on_abort: bool | None = None,
    ) -> Callable[[_H], _H]:
        """Serve TRACE requests for `path`, as a decorator or with `handler` directly."""
        return self._route("TRACE", path, handler, cancel_on_abort)

    def any(
        self,
        path: str,
        handler: Handler | None = None,
        *,
        cancel_on_abort: bool | None = None,
    ) -> Callable[[_H], _H]:
        """Serve requests of every method that has no route of its own for `path`.

        Except CONNECT, which asks for a tunnel and not for a path; it is for `connect` alone.
        """
        return self._route(ANY, path, handler, cancel_on_abort)

    def static(
        self,
        prefix: str,
        directory: StrPath,
        *,
        index: str | None = "index.html",
        listing: bool = False,
        not_found: str | None = None,
        cache_control: str | None = None,
        precompressed: bool = False,
        dotfiles: bool = False,
        symlinks_out: bool = False,
    ) -> None:
        """Serve the regular files below a directory, as `Response.send_file` does.

        Nothing else can be reached: no path leads out of the directory, and a device, a FIFO or a
        socket is never opened. What is not there, or must not be seen or read, is answered with
        404; trouble of the system, such as too many open files, with 500. A path to a directory
        gets its slash by a redirect.

        Args:
          prefix: The path of the directory: `"/static"`, or `"/"`.
          directory: Where the files are.
          index: The name of the file that stands for its directory; `None` for none.
          listing: Whether a directory without an index is shown as a page of its files.
          not_found: The name of a file, in `directory`, that is the text of a 404; `None` for a
            short plain text.
          cache_control: The value of `Cache-Control` with files.
          precompressed: As in `Response.send_file`.
          dotfiles: Whether names that begin with a dot can be reached. A symlink of another name
            that leads to one is followed.
          symlinks_out: Whether symlinks may lead out of the directory. Those that lead to something
            inside are followed anyway.

        Raises:
          NotADirectoryError: `directory` is none.
          ValueError: The prefix is malformed, or has a route for GET; or `index` or `not_found`
            can't be the name of a file there.
          NotImplementedError: This is no POSIX system.
        """
        path = prefix.rstrip("/")
        options = FileOptions(cache_control=cache_control, precompressed=precompressed)
        tree = Tree(directory, dotfiles=dotfiles, symlinks_out=symlinks_out)
        for what, name in (("index", index), ("not_found", not_found)):
            if name is not None and not tree.is_visible(name):
                raise ValueError(f"{what} must be the name of a file, and no hidden one: {name!r}")
        files = StaticFiles(
            tree=tree,
            depth=path.count("/"),
            index=index,
            make_page=listing_page if listing else None,
            not_found=not_found,
            options=options,
        )
        self.get(f"{path}/*", files.serve)
        if path:
            self.get(path, files.serve)

    def metrics(self, path: str = "/metrics") -> None:
        """Serve what the server counts, as Prometheus and OpenMetrics read it.

        With several workers, counters are sums over all of them, and gauges are those of each, with
        its process id as the label `worker`.

        Raises:
          RuntimeError: The library for it is not installed: `pip install trio-stream[metrics]`.
          ValueError: The path is malformed, or has a route for GET.
        """
        if not HAVE_PROMETHEUS:
            raise RuntimeError("metrics need a library: pip install 'trio-stream[metrics]'")
        self.get(path, send_metrics)

    def health(
        self,
        live: str = "/livez",
        ready: str = "/readyz",
        *,
        check: Callable[[], Awaitable[object] | object] | None = None,
    ) -> None:
        """Serve probes for an orchestrator, with status 200 or 503.

        A shutdown closes the listeners as it begins, so most probes are refused from then on; those
        on their way get 503. Both say that nothing more should be sent here.

        Args:
          live: The path for liveness: always 200.
          ready: The path for readiness: 503 from the moment that a shutdown begins.
          check: Called for each readiness probe, and awaited if need be: 503 if what it returns is
            false. An exception is logged, and the probe gets 500.

        Raises:
          ValueError: A path is malformed, or has a route for GET.
        """
        self.get(live, tell_live)
        self.get(ready, make_tell_ready(check))

    # Serving...

    def lifespan(self, open_lifespan: _L) -> _L:
        """Keep an async context manager open for as long as the app is served, as a decorator.

        It is entered before the first connection is accepted, and left after the last one has
        ended. An exception in it ends the server with that exception. What it does at a shutdown is
        cancelled in the end, see `Server.shutdown`. Of several, each is entered
        after those before it, and left before them::

            @app.lifespan
            @asynccontextmanager
            async def keep_pool():
                async with open_pool(URL) as pool:
                    database.pool = pool
                    yield  # while it is served

        Args:
          open_lifespan: Makes the context manager; called each time that the app is served.

        Raises:
          TypeError: It is an async generator or a coroutine function.
        """
        if isasyncgenfunction(open_lifespan) or iscoroutinefunction(open_lifespan):
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
          OSError: The address is not to be had, or a descriptor is no listening socket.
          ValueError: There is no host, a port is none, or the context is for clients.
        """
        check_context(ssl_context)
        listen = Listen(host=host, port=port, unix=unix, unix_mode=unix_mode, fds=fds)
        async with open_listeners(listen) as listeners:
            server = self._make_server(listeners, ssl_context)
            await server.serve(task_status.started)

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one connection over any stream (TLS, memory, a tunnel) to its end, and close it.

        If somebody else closes it before, the client counts as gone when next something is sent or
        received. Each call is a server of its own: it opens the app's lifespans, and knows nothing
        of other connections, so its responses let other tasks run as if they were many.
        """
        config = replace(self.config, send_budget=max(self.config.send_budget // 8, 1))
        server = self._make_server(config=config)
        async with server.running():
            await server.serve_stream(stream)

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
        cancels all that is under way. After a third, what shields itself from that is killed.

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
          OSError: The address is not to be had, or a descriptor is no listening socket.
          ValueError: There is no host, a port is none, or the context is for clients.
        """
        check_context(ssl_context)
        fds = [*fds, *take_systemd_fds()]
        listen = Listen(host=host, port=port, unix=unix, unix_mode=unix_mode, fds=fds)
        announce = announce or _print_addresses
        return trio.run(self._serve_until_signal, listen, ssl_context, announce)

    async def _serve_until_signal(
        self,
        listen: Listen,
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
