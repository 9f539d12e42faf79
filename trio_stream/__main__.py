"""The command line: `python -m trio_stream [TARGET]`, or `trio-stream`."""

from __future__ import annotations

import errno
import logging
import sys
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

import trio

from . import _demo
from ._announce import announce
from ._command_line import check_options, load_certificates, make_parser
from ._console import complain, say
from ._listeners import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    ListenOptions,
    open_listeners,
    take_systemd_fds,
)
from ._log_writer import open_log
from ._reload import watch_code
from ._share import Share
from ._targets import UsageError, find_app, list_examples
from ._worker import take_worker
from ._workers import Supervisor

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from ._app import App
    from ._server import Server
    from ._worker import Worker

logger = logging.getLogger("trio_stream")

# What to do about an address that can't be bound.
ADVICE = {
    errno.EMFILE: "allow this program more descriptors (ulimit -n)",
    errno.EADDRINUSE: "end the program that uses it, or choose another --port (0: a free one)",
    errno.EACCES: "choose another --port, from 1024 on (0: a free one)",
    errno.EADDRNOTAVAIL: "choose a --host of this machine (0.0.0.0: all its addresses)",
}
OTHER_ADVICE = "choose another --host, such as 127.0.0.1"
UNIX_ADVICE = {
    errno.EADDRINUSE: "end the server that uses it, or choose another --unix",
    errno.EEXIST: "remove it, or choose another --unix",
}
OTHER_UNIX_ADVICE = "choose another --unix, in a directory that is there and that you can write to"
FD_ADVICE = "--fd and LISTEN_FDS name descriptors that the program before this one has left open"


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit status: that of `App.run`, 2 for a usage error."""
    parser = make_parser()
    try:
        options = parser.parse_args(args)
        if options.list:
            list_examples()
            return 0
        worker = take_worker()
        check_options(options)
        several = worker is not None or options.workers > 1 or options.reload
        with open_log(options.access_log, options.log_level, show_process=several):
            if several and worker is None:
                given = sys.argv[1:] if args is None else args
                return supervise([sys.executable, "-m", "trio_stream", *given], options)
            with worker.watch_supervisor() if worker else nullcontext():
                return serve_target(options, worker)
    except UsageError as exc:
        complain(f"{parser.prog}: {exc}")
        return 2
    except KeyboardInterrupt:
        pass  # it came before or after the time in which `App.run` waits for signals
    return 0


def serve_target(options: argparse.Namespace, worker: Worker | None) -> int:
    """Serve what the command line names, in this process, and return the exit status.

    Raises:
      UsageError: It can't be served, or the address can't be bound.
    """
    is_demo = options.target is None
    tell = log if options.access_log == "json" else say  # or programs that read it would stumble
    with open_demo() if is_demo else nullcontext(find_app(options.target)) as app:
        announce_it = partial(
            announce,
            shared=app.name if isinstance(app, Share) else None,
            qr=options.qr,
            song="song.wav" if is_demo else None,
            tell=tell,
        )
        return serve(app, options, announce_it, worker)


@contextmanager
def open_demo() -> Iterator[App]:
    """The demo.

    Raises:
      UsageError: There is no room for its song.
    """
    with ExitStack() as stack:
        try:
            demo = stack.enter_context(_demo.open_demo())
        except OSError as exc:
            raise UsageError(f"no temporary file for the demo: {exc.strerror}") from exc
        yield demo


def log(*lines: str) -> None:
    """Log lines, instead of saying them."""
    for line in lines:
        logger.info("%s", line)


def serve(
    app: App,
    options: argparse.Namespace,
    announce: Callable[[Server], object],
    worker: Worker | None = None,
) -> int:
    """`App.run`, in this process, which may be a worker.

    Raises:
      UsageError: The address can't be bound.
    """
    is_bound = False

    @asynccontextmanager
    async def note_bound() -> AsyncIterator[None]:
        nonlocal is_bound
        is_bound = True  # whatever is raised now is not about the address
        yield

    def tell(server: Server) -> None:
        if worker is None or worker.announces:
            announce(server)
        if worker is not None:
            worker.tell_ready(app.config.shutdown_grace)

    app._lifespans.insert(0, note_bound)
    certificates = load_certificates(options)
    try:
        return app.run(
            host=options.host or [DEFAULT_HOST],
            port=DEFAULT_PORT if options.port is None else options.port,
            unix=None if worker else options.unix,
            unix_mode=options.unix_mode,
            fds=worker.fds if worker else options.fd,
            ssl_context=certificates,
            announce=tell,
        )
    except OSError as exc:
        if is_bound or exc.filename is None:
            raise
        raise _address_error(exc) from exc
    except KeyboardInterrupt:
        if not is_bound:
            raise
        return 1  # a third one, most likely: it has broken off what would not end


def supervise(command: Sequence[str], options: argparse.Namespace) -> int:
    """Serve in several processes, or in one that is restarted.

    Raises:
      UsageError: The address can't be bound.
    """

    async def run() -> int:
        async with AsyncExitStack() as stack:
            try:
                listeners = await stack.enter_async_context(open_listeners(listen))
            except OSError as exc:
                raise _address_error(exc) from exc
            fds = [listener.socket.fileno() for listener in listeners]
            changes = watch_code() if options.reload else None
            return await Supervisor(command, fds, options.workers, changes=changes).run()

    listen = ListenOptions(
        host=options.host or [DEFAULT_HOST],
        port=DEFAULT_PORT if options.port is None else options.port,
        unix=options.unix,
        unix_mode=options.unix_mode,
        fds=[*options.fd, *take_systemd_fds()],
    )
    return trio.run(run)


def _address_error(exc: OSError) -> UsageError:
    """What to do about an address that `open_listeners` could not have."""
    number = exc.errno or 0
    match exc.filename:
        case host, port:
            where = f"{host!r}, port {port}"
            advice = ADVICE.get(number, OTHER_ADVICE)
        case int() as fd:
            where = f"descriptor {fd}"
            advice = FD_ADVICE
        case path:
            where = repr(path)
            advice = UNIX_ADVICE.get(number, OTHER_UNIX_ADVICE)
    return UsageError(f"can't serve on {where}: {exc.strerror or exc.args[0]}; {advice}")


if __name__ == "__main__":
    sys.exit(main())
