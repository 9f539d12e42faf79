"""Who sent a request, and how, as the proxies on its way tell: RFC 7239, and `X-Forwarded-*`."""

from __future__ import annotations

import re
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, NamedTuple

from ._addresses import is_trusted, make_address
from ._grammar import TOKEN, unescape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from multidict import CIMultiDictProxy

    from ._addresses import Address

# RFC 7239 section 4.
_PAIR = re.compile(rf'({TOKEN})=(?:({TOKEN})|"((?:[^"\\]|\\.)*)")')
_SEPARATOR = re.compile(r";+|[ \t]*,[ \t,]*")

# RFC 7239 section 6: an address, or a name for one that is not told; and a port, or a name for it.
_NODE = re.compile(
    r"(?:([0-9.]+)|\[([0-9A-Fa-f:.]+)\]|unknown|_[0-9A-Za-z._-]+)"
    r"(?::(?:([0-9]{1,5})|_[0-9A-Za-z._-]+))?",
    re.IGNORECASE,
)

_NOT_TOLD = "unknown"


class Origin(NamedTuple):
    """Who sent a request: an address as `socket.getpeername` gives it, and a scheme."""

    client: object
    scheme: str


class _Hop(NamedTuple):
    """What a proxy tells of the connection that it had a request from; `None`: it does not."""

    client: Address | None
    scheme: str | None


def find_origin(headers: CIMultiDictProxy[str], peer: Origin, proxies: tuple[str, ...]) -> Origin:
    """Follow a request back to where it came from, as far as trusted proxies tell.

    Each proxy adds at the right who it had the request from. So the way back begins there, and ends
    with the first address that is not trusted: what is to the left of it, anybody can have written.
    It ends early, at the last address that is known, where a proxy hides one, or tells something
    malformed.

    A proxy that knows only one of `Forwarded` and `X-Forwarded-*` may pass on the other as its
    client sent it. So if both are there, they must agree; otherwise both are ignored.

    Args:
      headers: What the request came with.
      peer: Who sent it to us, and how.
      proxies: Whom to trust: `Config.trusted_proxies`.
    """
    if not is_trusted(peer.client, proxies):
        return peer
    forwarded = headers.getall("Forwarded", ())
    clients = _split(headers.getall("X-Forwarded-For", ()))
    schemes = _split(headers.getall("X-Forwarded-Proto", ()))
    origin = _follow(_read_forwarded(forwarded), peer, proxies)
    if clients or schemes:
        other = _follow(_read_x_forwarded(clients, schemes), peer, proxies)
        if not forwarded:
            return other
        # No port: X-Forwarded-For has none, most of the time.
        if (_host(other), other.scheme) != (_host(origin), origin.scheme):
            return peer
    return origin


def _follow(hops: Iterable[_Hop], origin: Origin, proxies: tuple[str, ...]) -> Origin:
    with suppress(ValueError):  # malformed, so it ends here
        for hop in hops:
            origin = Origin(hop.client or origin.client, hop.scheme or origin.scheme)
            if hop.client is None or not is_trusted(hop.client, proxies):
                break
    return origin


def _read_forwarded(lines: Sequence[str]) -> Iterator[_Hop]:
    """The elements of `Forwarded` (RFC 7239 section 4), from the last to the first."""
    for line in reversed(lines):
        for element in reversed(_parse_elements(line)):
            scheme = element.get("proto")
            yield _Hop(
                _parse_node(element.get("for", _NOT_TOLD)),
                None if scheme is None else _parse_scheme(scheme),
            )


def _read_x_forwarded(clients: Sequence[str], schemes: Sequence[str]) -> Iterator[_Hop]:
    """The elements of `X-Forwarded-For`, from the last to the first.

    Nothing says what `X-Forwarded-Proto` is: mostly one scheme, that of the client, whatever came
    between; some proxies add to it as to the other.
    """
    if not clients:
        yield _Hop(None, _parse_scheme(schemes[-1]))
    for index in reversed(range(len(clients))):
        scheme = None
        if len(schemes) == 1:
            scheme = _parse_scheme(schemes[0])
        elif len(schemes) == len(clients):
            scheme = _parse_scheme(schemes[index])
        node = clients[index]
        is_bare = node.count(":") > 1 and not node.startswith("[")
        yield _Hop(_parse_node(f"[{node}]" if is_bare else node), scheme)


def _split(lines: Iterable[str]) -> list[str]:
    elements = (element.strip(" \t") for line in lines for element in line.split(","))
    return [element for element in elements if element]  # RFC 9110 section 5.6.1.2


def _parse_elements(line: str) -> list[dict[str, str]]:
    """The elements of one line of `Forwarded`: their parameters, names in lower case.

    Raises:
      ValueError: It is malformed.
    """
    elements: list[dict[str, str]] = [{}]
    position = 0
    while True:
        if pair := _PAIR.match(line, position):
            name, token, quoted = pair.groups()
            if name.lower() in elements[-1]:
                raise ValueError(f"{name} twice in one element of Forwarded: {line!r}")
            value = unescape(quoted) if token is None else token
            elements[-1][name.lower()] = value
            position = pair.end()
        if position == len(line):
            return [element for element in elements if element]
        separator = _SEPARATOR.match(line, position)
        if separator is None:
            raise ValueError(f"malformed Forwarded: {line!r}")
        if "," in separator[0]:
            elements.append({})
        position = separator.end()


def _parse_node(text: str) -> Address | None:
    """An address; `None` if it is unknown or hidden.

    Raises:
      ValueError: It is malformed.
    """
    node = _NODE.fullmatch(text)
    if node is None:
        raise ValueError(f"no node of RFC 7239: {text!r}")
    ipv4, ipv6, digits = node.groups()
    port = int(digits or 0)
    if port > 65535:
        raise ValueError(f"no port: {text!r}")
    if ipv4 is not None:
        return make_address(IPv4Address(ipv4), port)
    return None if ipv6 is None else make_address(IPv6Address(ipv6), port)


def _parse_scheme(text: str) -> str:
    scheme = text.lower()
    if scheme not in ("http", "https"):
        raise ValueError(f"no scheme of HTTP: {text!r}")
    return scheme


def _host(origin: Origin) -> object:
    return origin.client[0] if isinstance(origin.client, tuple) else origin.client
