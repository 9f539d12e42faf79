"""What the command line says about where it serves: addresses, a QR code, a warning."""

from __future__ import annotations

import io
import ipaddress
import logging
import shlex
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

try:
    import segno
except ImportError:
    HAVE_QR = False
else:
    HAVE_QR = True

from ._addresses import is_local
from ._console import say
from ._listeners import describe_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._server import Server

logger = logging.getLogger("trio_stream")

# For documentation only, so it is nobody's: RFC 5737 and RFC 3849. Its way leads to the network.
_SOMEBODY = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}


def announce(
    server: Server,
    *,
    shared: str | None = None,
    qr: bool = False,
    song: str | None = None,
    tell: Callable[..., None] = say,
) -> None:
    """Say where it serves, and log what to be careful about.

    Args:
      server: What serves.
      shared: What is served, if it is not an app but a file or directory.
      qr: Whether to print the best address as a QR code, too.
      song: What the demo has to be downloaded, if it is that.
      tell: Takes the lines.
    """
    found: list[object] = []
    for bound in server.addresses:
        found += find_addresses(*bound[:2]) if isinstance(bound, tuple) else [bound]
    lines = [f"Serving on {describe_address(address, server.scheme)}" for address in found]
    if song is not None:
        lines[:0] = [
            "The demo: open the address below in a browser, or try",
            f"  curl --limit-rate 500k --output {song} {_curl_url(found[0], server.scheme)}/{song}",
        ]
    if qr:
        # The best one is what the phone can use that takes a picture of it.
        best = min(found, key=is_local)
        lines.append(qr_code(describe_address(best, server.scheme)))
        if is_local(best):
            lines.append("Only this machine can use it. --host 0.0.0.0 lets others in.")
    tell(*lines)
    is_public = not all(map(is_local, server.addresses))
    if shared is not None and is_public:
        logger.warning("whoever can reach this machine can read %r; there is no password", shared)


def _curl_url(address: object, scheme: str) -> str:
    where = describe_address(address, scheme)
    if isinstance(address, tuple):
        return where
    return f"--unix-socket {shlex.quote(where.removeprefix('unix:'))} {scheme}://localhost"


def find_addresses(host: str, port: int) -> list[tuple[str, int]]:
    """Where a server that is bound to an address can be found. Nothing is sent to find out.

    If it is bound to all addresses of this machine, that is the one that only this machine can use,
    and the one that it has in the network, if any.
    """
    ip = ipaddress.ip_address(host)
    if not ip.is_unspecified:
        return [(host, port)]
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    hosts = ["127.0.0.1" if ip.version == 4 else "::1"]
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((_SOMEBODY[family], 9))  # which only looks up the way there
        hosts.append(probe.getsockname()[0])
    return [(host, port) for host in hosts]


def qr_code(url: str) -> str:
    """A URL as lines that show a QR code, in the characters that stdout has."""
    text = io.StringIO()
    is_unicode = sys.stdout is not None and sys.stdout.encoding.lower().startswith("utf")
    segno.make(url, error="m", micro=False).terminal(text, border=2, compact=is_unicode)
    return text.getvalue().removesuffix("\n")
