"""What an app answers: its routes, and those that are made for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ._file_answer import FileOptions
from ._listing import listing_page
from ._metrics import HAVE_PROMETHEUS, make_tell_ready, send_metrics, tell_live
from ._routing import ANY, Handler, Router
from ._static import StaticFiles
from ._tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._file import StrPath

_H = TypeVar("_H", bound=Handler)


class Routes:
    """Registers handlers: the part of `App` that knows nothing of servers."""

    def __init__(self, *, cancel_on_abort: bool) -> None:
        self._cancel_on_abort = cancel_on_abort
        self._router = Router()

    def _route(
        self, method: str, path: str, handler: Handler | None, cancel_on_abort: bool | None
    ) -> Callable[[_H], _H]:
        if not isinstance(path, str):
            raise TypeError(f'a route needs a path, as in @app.get("/"), not {path!r}')

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
        """Serve GET requests for `path`, and HEAD, as a decorator or with `handler` directly.

        Args:
          path: What requests ask for, as in the docstring of `App`.
          handler: A function of a `Response` and a `Request`, `async` or not.
          cancel_on_abort: Whether an abort cancels the handler; `None`: as the app was told.

        Raises:
          ValueError: The path is malformed, or has a handler for that method already.
          TypeError: There is no path, or the handler can't be called, or is a generator.
        """
        return self._route("GET", path, handler, cancel_on_abort)

    def post(
        self,
        path: str,
        handler: Handler | None = None,
        *,
        cancel_on_abort: bool | None = None,
    ) -> Callable[[_H], _H]:
        """Serve POST requests for `path`; otherwise as `get`."""
        return self._route("POST", path, handler, cancel_on_abort)

    def put(
        self,
        path: str,
        handler: Handler | None = None,
        *,
        cancel_on_abort: bool | None = None,
    ) -> Callable[[_H], _H]:
        """Serve PUT requests for `path`; otherwise as `get`."""
        return self._route("PUT", path, handler, cancel_on_abort)

    def patch(
        self,
        path: str,
        handler: Handler | None = None,
        *,
        cancel_on_abort: bool | None = None,
    ) -> Callable[[_H], _H]:
        """Serve PATCH requests for `path`; otherwise as `get`."""
        return self._route("PATCH", path, handler, cancel_on_abort)

    def delete(
        self,
        path: str,
        handler: Handler | None = None,
        *,
        cancel_on_abort: bool | None = None,
    ) -> Callable[[_H], _H]:
        """Serve DELETE requests for `path`; otherwise as `get`."""
        return self._route("DELETE", path, handler, cancel_on_abort)

    def head(
        self,
        path: str,
        handler: Handler | None = None,
        *,
        cancel_on_abort: bool | None = None,
    ) -> Callable[[_H], _H]:
        """Serve HEAD requests for `path`; otherwise as `get`."""
        return self._route("HEAD", path, handler, cancel_on_abort)

    def options(
        self,
        path: str,
        handler: Handler | None = None,
        *,
        cancel_on_abort: bool | None = None,
    ) -> Callable[[_H], _H]:
        """Serve OPTIONS requests for `path`; otherwise as `get`."""
        return self._route("OPTIONS", path, handler, cancel_on_abort)

    def connect(
        self,
        path: str,
        handler: Handler | None = None,
        *,
        cancel_on_abort: bool | None = None,
    ) -> Callable[[_H], _H]:
        """Serve CONNECT requests for `path`; otherwise as `get`.

        What they have for a path is one segment, the authority (RFC 9112 section 3.2.3). No other
        route answers them, so an app without such a route answers 501. There are no tunnels: the
        connection closes after the answer, and none with a 2xx has a body.
        """
        return self._route("CONNECT", path, handler, cancel_on_abort)

    def trace(
        self,
        path: str,
        handler: Handler | None = None,
        *,
        cancel_on_abort: bool | None = None,
    ) -> Callable[[_H], _H]:
        """Serve TRACE requests for `path`; otherwise as `get`."""
        return self._route("TRACE", path, handler, cancel_on_abort)

    def any(
        self,
        path: str,
        handler: Handler | None = None,
        *,
        cancel_on_abort: bool | None = None,
    ) -> Callable[[_H], _H]:
        """Serve requests of every method without a route of its own for `path`; otherwise as `get`.

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
          NotADirectoryError: `directory` is not a directory.
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
        its process id as the label `worker`. A worker that is killed takes along what it has
        counted since they were last asked for. Metrics of the app's own are left out.

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
        check: Callable[[], object] | None = None,
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
          TypeError: `check` can't be called.
        """
        if check is not None and not callable(check):
            raise TypeError(f"check must be callable, not {check!r}")
        self.get(live, tell_live)
        self.get(ready, make_tell_ready(check))
