"""The command line: `python -m trio_stream [TARGET]`, or `trio-stream`."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import sys
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import trio

from . import __version__, _demo
from ._announce import HAVE_QR, announce
from ._server import open_listeners
from ._share import Share
from ._targets import UsageError, find_app, list_examples
from ._worker import take_worker
from ._workers import HAVE_WATCHFILES, Supervisor, watch_code

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from ._app import App
    from ._server import Server
    from ._worker import Worker

IS_POSIX = os.name == "posix"

# What to do about an address that is not to be had.
ADVICE = {
    errno.EADDRINUSE: "end the program that uses it, or choose another --port (0: a free one)",
    errno.EACCES: "choose another --port, from 1024 on (0: a free one)",
    errno.EADDRNOTAVAIL: "choose a --host of this machine (0.0.0.0: all its addresses)",
}
OTHER_ADVICE = "choose another --host, such as 127.0.0.1"


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
        name = "%(name)s[%(process)d]" if several else "%(name)s"
        logging.basicConfig(
            level=logging.INFO, format=f"%(asctime)s %(levelname)s {name}: %(message)s"
        )
        if several and worker is None:
            given = sys.argv[1:] if args is None else args
            return supervise([sys.executable, "-m", "trio_stream", *given], options)
        is_demo = options.target is None
        if is_demo and (worker is None or worker.announces):
            host = f"[{options.host}]" if ":" in options.host else options.host
            where = f"http://{host}:{options.port or 'PORT'}"
            print("The demo: open the address below in a browser, or try")
            print(f"  curl --limit-rate 500k --output song.wav {where}/song.wav")
        with _demo.open_demo() if is_demo else nullcontext(find_app(options.target)) as app:
            shared = app.name if isinstance(app, Share) else None
            tell = partial(announce, shared=shared, qr=options.qr)
            return serve(app, options, tell, worker)
    except UsageError as exc:
        print(f"{parser.prog}: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass  # it came before or after the time in which `App.run` waits for signals
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; --help shows what there is")


def make_parser() -> argparse.ArgumentParser:
    """The options that there are."""
    parser = _Parser(
        prog="trio-stream",
        description="Serve until Ctrl-C: a file or a folder, an app, or a demo.",
    )
    parser.add_argument(
        "target",
        metavar="TARGET",
        nargs="?",
        help="a file or a folder to share; or package.module:app, path/to/file.py[:app], or the "
        "name of an example. A name that can be both is the example or the module, and ./name is "
        "the file or folder. Without a target, a demo",
    )
    parser.add_argument("--list", action="store_true", help="show the examples")
    parser.add_argument(
        "--host",
        "--bind",
        default="127.0.0.1",
        help="the name or address to listen on (%(default)s); 0.0.0.0 lets other machines in",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=8000,
        help="the port to listen on (%(default)s); 0 picks a free one and prints it",
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=_count,
        default=os.environ.get("WEB_CONCURRENCY") or "1",
        help="how many processes serve (WEB_CONCURRENCY, or 1); a supervisor replaces those that "
        "die and, at SIGHUP, all of them, one by one",
    )
    parser.add_argument(
        "--reload",
        action="store_true",
        help="start anew whenever a .py file below the current directory changes",
    )
    parser.add_argument(
        "--qr", action="store_true", help="print the address as a QR code, for a phone"
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def check_options(options: argparse.Namespace) -> None:
    """Check what no option can tell alone.

    Raises:
      UsageError: Something is missing.
    """
    if options.qr and not HAVE_QR:
        raise UsageError("--qr needs a library: pip install 'trio-stream[share]'")
    if options.reload and not HAVE_WATCHFILES:
        raise UsageError("--reload needs a library: pip install 'trio-stream[reload]'")
    if (options.reload or options.workers > 1) and not IS_POSIX:
        raise UsageError("--workers and --reload need a POSIX system, such as Linux or macOS")


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port, which is a number from 0 to 65535")
    return int(text)


def _count(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 1000):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes, from 1 to 1000")
    return int(text)


def serve(
    app: App,
    options: argparse.Namespace,
    announce: Callable[[Server], object],
    worker: Worker | None = None,
) -> int:
    """`App.run`, in this process, which may be a worker.

    Raises:
      UsageError: The address is not to be had.
    """
    is_bound = False

    @asynccontextmanager
    async def enclose() -> AsyncIterator[None]:
        nonlocal is_bound
        is_bound = True  # whatever is raised now is not about the address
        async with worker.watch_supervisor() if worker else nullcontext():
            yield

    def tell(server: Server) -> None:
        if worker is None or worker.announces:
            announce(server)
        if worker is not None:
            worker.tell_ready(app.config.shutdown_grace)

    app._lifespans.insert(0, enclose)
    fds = worker.fds if worker else ()
    try:
        return app.run(host=options.host, port=options.port, fds=fds, announce=tell)
    except (OSError, UnicodeError) as exc:  # UnicodeError: no name is like that
        if is_bound:
            raise
        raise _address_error(exc, options) from exc


def supervise(command: Sequence[str], options: argparse.Namespace) -> int:
    """Serve in several processes, or in one that is restarted.

    Raises:
      UsageError: The address is not to be had.
    """

    async def run() -> int:
        try:
            listeners = await open_listeners(options.host, options.port)
        except (OSError, UnicodeError) as exc:
            raise _address_error(exc, options) from exc
        fds = [listener.socket.fileno() for listener in listeners]
        changes = watch_code() if options.reload else None
        return await Supervisor(command, fds, options.workers, changes=changes).run()

    return trio.run(run)


def _address_error(exc: Exception, options: argparse.Namespace) -> UsageError:
    reason = getattr(exc, "strerror", None) or str(exc)
    advice = ADVICE.get(getattr(exc, "errno", None) or 0, OTHER_ADVICE)
    return UsageError(f"can't serve on {options.host!r}, port {options.port}: {reason}; {advice}")


if __name__ == "__main__":
    sys.exit(main())
