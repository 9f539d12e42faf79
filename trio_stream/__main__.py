"""The command line: `python -m trio_stream [TARGET]`, or `trio-stream`."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import re
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from . import __version__, _demo
from ._announce import HAVE_QR, announce
from ._certificates import Certificates
from ._listeners import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    DEFAULT_UNIX_MODE,
    describe_address,
    split_host,
)
from ._share import Share
from ._targets import UsageError, find_app, list_examples

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


# What to do about an address that is not to be had.
ADVICE = {
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
FD_ADVICE = "--fd takes a descriptor that the program before this one has left open"


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit status: 2 for a usage error."""
    parser = make_parser()
    try:
        options = parser.parse_args(args)
        if options.list:
            list_examples()
            return 0
        check_options(options)
        certificates = load_certificates(options)
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        if options.target is None:
            print("The demo: open the address below in a browser, or try")
            print(f"  curl --limit-rate 500k --output song.wav {_demo_url(options)}/song.wav")
        is_demo = options.target is None
        with _demo.open_demo() if is_demo else nullcontext(find_app(options.target)) as app:
            shared = app.name if isinstance(app, Share) else None
            run = partial(app.run, announce=partial(announce, shared=shared, qr=options.qr))
            if certificates is not None:
                run = partial(run, ssl_context=certificates)
            serve(run, options)
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
        metavar="HOST[:PORT]",
        type=_host,
        action="append",
        help=f"a name or address to listen on ({DEFAULT_HOST}); can be repeated. 0.0.0.0 lets "
        "other machines in",
    )
    parser.add_argument(
        "--port",
        type=_port,
        help=f"the port to listen on ({DEFAULT_PORT}); 0 picks a free one and prints it",
    )
    parser.add_argument(
        "--unix", metavar="PATH", help="a Unix socket to listen on, instead of --host and --port"
    )
    parser.add_argument(
        "--unix-mode",
        metavar="MODE",
        type=_mode,
        default=DEFAULT_UNIX_MODE,
        help=f"the permissions of that socket ({DEFAULT_UNIX_MODE:o})",
    )
    parser.add_argument(
        "--fd",
        metavar="N",
        type=_descriptor,
        action="append",
        default=[],
        help="the descriptor of a listening socket, instead of --host and --port; can be repeated. "
        "Those that systemd passes (LISTEN_FDS) need no option",
    )
    parser.add_argument(
        "--qr", action="store_true", help="print the address as a QR code, for a phone"
    )
    parser.add_argument(
        "--certfile",
        metavar="FILE",
        action="append",
        default=[],
        help="serve HTTPS with the certificate in this PEM file, followed by those that lead to a "
        "root. Several: each for its names. SIGHUP loads them again",
    )
    parser.add_argument(
        "--keyfile",
        metavar="FILE",
        action="append",
        default=[],
        help="its private key, in PEM, one for each --certfile; without, it is in that file",
    )
    parser.add_argument(
        "--keyfile-password",
        metavar="SOURCE",
        help="where to find the password of the private keys: env:NAME (an environment variable) "
        "or file:PATH (its first line)",
    )
    parser.add_argument(
        "--ca-certs",
        metavar="FILE",
        help="let in only clients with a certificate that leads to one in this PEM file",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def check_options(options: argparse.Namespace) -> None:
    """Check what no option can tell alone.

    Raises:
      UsageError: Something is missing, or contradicts the rest.
    """
    if options.qr and not HAVE_QR:
        raise UsageError("--qr needs a library: pip install 'trio-stream[share]'")
    if (options.unix is not None or options.fd) and (options.host or options.port is not None):
        raise UsageError("--unix and --fd can't be combined with --host and --port: choose")


def _host(text: str) -> str:
    try:
        split_host(text, DEFAULT_PORT)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
    return text


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port, which is a number from 0 to 65535")
    return int(text)


def _mode(text: str) -> int:
    if not re.fullmatch("0?[0-7]{3}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no mode, which is octal, such as 660")
    return int(text, 8)


def _descriptor(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no descriptor, which is a number such as 3")
    return int(text)


def _demo_url(options: argparse.Namespace) -> str:
    scheme = "https" if options.certfile else "http"
    if options.unix is not None:
        return f"--unix-socket {options.unix} {scheme}://localhost"
    if options.fd:
        return f"{scheme}://ADDRESS"
    port = DEFAULT_PORT if options.port is None else options.port
    host, port = split_host((options.host or [DEFAULT_HOST])[0], port)
    return describe_address((host, port or "PORT"), scheme)


def load_certificates(options: argparse.Namespace) -> Certificates | None:
    """What the options for TLS ask for.

    Raises:
      UsageError: They do not fit together, or a file is not what it should be.
    """
    certfiles, keyfiles = options.certfile, options.keyfile
    if not certfiles:
        for name in ("keyfile", "keyfile_password", "ca_certs"):
            if getattr(options, name):
                raise UsageError(f"--{name.replace('_', '-')} needs a --certfile")
        return None
    if keyfiles and len(keyfiles) != len(certfiles):
        raise UsageError(
            f"each --certfile needs its --keyfile, in the same order, or none has one; there are "
            f"{len(certfiles)} and {len(keyfiles)}"
        )
    password = find_password(options.keyfile_password)
    pairs = zip(certfiles, keyfiles or [None] * len(certfiles), strict=True)
    try:
        return Certificates(*pairs, password=password, ca_certs=options.ca_certs)
    except OSError as exc:
        raise UsageError(f"can't read {exc.filename!r}: {exc.strerror}") from exc
    except ValueError as exc:
        advice = "" if password else "; --keyfile-password says where it is"
        raise UsageError(f"{exc}{advice if 'is encrypted' in str(exc) else ''}") from exc


def find_password(source: str | None) -> str | None:
    """The password that `--keyfile-password` leads to. It is not shown in a list of processes.

    Raises:
      UsageError: It leads to none.
    """
    if source is None:
        return None
    kind, _, name = source.partition(":")
    if kind == "env" and name:
        if name not in os.environ:
            raise UsageError(f"--keyfile-password: there is no environment variable {name!r}")
        return os.environ[name]
    if kind == "file" and name:
        try:
            return Path(name).read_text("utf-8").partition("\n")[0]
        except (OSError, UnicodeError) as exc:
            reason = getattr(exc, "strerror", None) or str(exc)
            raise UsageError(f"--keyfile-password: can't read {name!r}: {reason}") from exc
    raise UsageError(
        "--keyfile-password takes env:NAME or file:PATH, and not the password itself, which all "
        "users of this machine could see"
    )


def serve(run: Callable[..., object], options: argparse.Namespace) -> None:
    """`App.run`.

    Raises:
      UsageError: The address is not to be had.
    """
    hosts = options.host or [DEFAULT_HOST]
    port = DEFAULT_PORT if options.port is None else options.port
    try:
        run(
            host=hosts,
            port=port,
            unix=options.unix,
            unix_mode=options.unix_mode,
            fds=options.fd,
        )
    except (OSError, UnicodeError) as exc:  # UnicodeError: no name is like that
        number = getattr(exc, "errno", None) or 0
        reason = getattr(exc, "strerror", None) or str(exc)
        if options.unix is not None:
            where = repr(options.unix)
            advice = UNIX_ADVICE.get(number, OTHER_UNIX_ADVICE)
        elif options.fd:
            where = f"descriptor {', '.join(map(str, options.fd))}"
            advice = FD_ADVICE
        else:
            where = f"{', '.join(map(repr, hosts))}, port {port}"
            advice = ADVICE.get(number, OTHER_ADVICE)
        raise UsageError(f"can't serve on {where}: {reason}; {advice}") from exc


if __name__ == "__main__":
    sys.exit(main())
