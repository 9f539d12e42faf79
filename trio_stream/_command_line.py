"""The options of the command line, and what they must be."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import NoReturn

from . import __version__
from ._announce import HAVE_QR
from ._certificates import Certificates
from ._listeners import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    DEFAULT_UNIX_MODE,
    has_systemd_fds,
    split_host,
)
from ._reload import HAVE_WATCHFILES
from ._targets import UsageError

IS_POSIX = os.name == "posix"


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
        "the file or folder, but for .py files, which are apps. Without a target, a demo",
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
        "--unix",
        metavar="PATH",
        type=_path,
        help="a Unix socket to listen on, instead of --host and --port",
    )
    parser.add_argument(
        "--unix-mode",
        metavar="MODE",
        type=_mode,
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
        "--workers",
        metavar="N",
        type=_count,
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
    parser.add_argument(
        "--access-log",
        choices=("combined", "json", "off"),
        default="off",
        help="write a line for each response to stdout, in the format of Apache and nginx with "
        "how long it took and how it ended, or as JSON (%(default)s)",
    )
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="what is logged on stderr (%(default)s); debug tells why a request was refused, and "
        "with --access-log json, only info and debug tell the address",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def check_options(options: argparse.Namespace) -> None:
    """Check what no option can tell alone, and add what the environment says.

    Raises:
      UsageError: Something is missing, or contradicts the rest.
    """
    if options.workers is None:
        try:
            options.workers = _count(os.environ.get("WEB_CONCURRENCY") or "1")
        except argparse.ArgumentTypeError as exc:
            raise UsageError(f"the environment variable WEB_CONCURRENCY: {exc}") from None
    if options.qr and not HAVE_QR:
        raise UsageError("--qr needs a library: pip install 'trio-stream[share]'")
    if options.reload and not HAVE_WATCHFILES:
        raise UsageError("--reload needs a library: pip install 'trio-stream[reload]'")
    if (options.reload or options.workers > 1) and not IS_POSIX:
        raise UsageError("--workers and --reload need a POSIX system, such as Linux or macOS")
    has_address = bool(options.host) or options.port is not None
    if (options.unix is not None or options.fd) and has_address:
        raise UsageError("--unix and --fd can't be combined with --host and --port: choose")
    if has_address and has_systemd_fds():
        raise UsageError(
            "--host and --port can't be combined with the sockets that systemd passes (LISTEN_FDS)"
        )
    if options.qr and options.unix is not None:
        raise UsageError("--qr is for an address that a phone can use, unlike --unix")
    if options.unix_mode is None:
        options.unix_mode = DEFAULT_UNIX_MODE
    elif options.unix is None:
        raise UsageError("--unix-mode needs a --unix")


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


def _host(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("the host is empty; * is for all")
    try:
        split_host(text, DEFAULT_PORT)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
    return text


def _path(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return text


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")
    return int(text)


def _mode(text: str) -> int:
    if not re.fullmatch("0?[0-7]{3}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an octal mode such as 660")
    return int(text, 8)


def _descriptor(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a descriptor number such as 3")
    return int(text)


def _count(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 1000):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes from 1 to 1000")
    return int(text)
