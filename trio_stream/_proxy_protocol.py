"""The PROXY protocol, versions 1 and 2, without I/O.

A proxy that passes bytes on without reading them says with it, before the first of them, who its
client is. What is here is the receiver's part of the specification, which is HAProxy's
proxy-protocol.txt; the sections are its.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, NamedTuple

from ._addresses import make_address

if TYPE_CHECKING:
    from ._addresses import Address

# Version 1, section 2.1: a line of text.
_V1_START = b"PROXY "
_V1_MAX_SIZE = 107
_V1_LINE = re.compile(
    rb"PROXY (?:UNKNOWN(?: .*)?|(TCP4|TCP6) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) (\d{1,5}) (\d{1,5}))",
    re.DOTALL,
)

# Version 2, section 2.2: binary, with a length, so that what is not understood can be skipped.
_V2_START = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED_SIZE = 16
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21
# The least size of the addresses, by family and transport. Those that are not TCP have no client
# that we could name.
_V2_SIZES = {0x00: 0, _TCP4: 12, 0x12: 12, _TCP6: 36, 0x22: 36, 0x31: 216, 0x32: 216}


class ProxyProtocolError(ValueError):
    """A connection does not begin as the PROXY protocol has it."""


class ProxyHeader(NamedTuple):
    """What a connection begins with.

    Attributes:
      size: Its length in bytes; what follows is the client's.
      client: The client's address, as `socket.getpeername` would give it; `None`: not told, as of
        a connection of the proxy's own. Of clients on Unix sockets, HAProxy says the same.
    """

    size: int
    client: Address | None


def parse_header(data: bytes) -> ProxyHeader | None:
    """Parse the header that `data`, all that was received so far, begins with.

    Returns:
      The header; `None` if it is not complete yet: then all of `data` belongs to it.

    Raises:
      ProxyProtocolError: It begins with something else, or is malformed.
    """
    if data.startswith(_V1_START):
        return _parse_v1(data)
    if data.startswith(_V2_START):
        return _parse_v2(data)
    if _V1_START.startswith(data) or _V2_START.startswith(data):
        return None
    raise ProxyProtocolError(f"no header of the PROXY protocol, but {data[:20]!r}")


def _parse_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, _V1_MAX_SIZE)
    if end < 0:
        if len(data) < _V1_MAX_SIZE:
            return None
        raise ProxyProtocolError(f"no end of the line in {_V1_MAX_SIZE} bytes")
    line = _V1_LINE.fullmatch(data[:end])
    if line is None:
        raise ProxyProtocolError(f"malformed: {data[:end]!r}")
    client = None
    if line[1] is not None:
        kind = IPv4Address if line[1] == b"TCP4" else IPv6Address
        try:
            client, _ = (
                make_address(kind(host.decode("ascii")), _parse_port(port))
                for host, port in ((line[2], line[4]), (line[3], line[5]))
            )
        except ValueError as exc:
            raise ProxyProtocolError(f"malformed: {data[:end]!r}: {exc}") from None
    return ProxyHeader(end + 2, client)


def _parse_port(digits: bytes) -> int:
    port = int(digits)
    if port > 65535 or (digits[:1] == b"0" and port):
        raise ValueError(f"no port: {digits!r}")
    return port


def _parse_v2(data: bytes) -> ProxyHeader | None:
    if len(data) < _V2_FIXED_SIZE:
        return None
    command, family, length = data[12], data[13], int.from_bytes(data[14:16], "big")
    if command not in (_LOCAL, _PROXY):
        raise ProxyProtocolError(f"no version and command: 0x{command:02x}")
    if command == _PROXY and length < _V2_SIZES.get(family, length + 1):
        raise ProxyProtocolError(f"no family 0x{family:02x} with addresses of {length} bytes")
    size = _V2_FIXED_SIZE + length
    if len(data) < size:
        return None
    client = None
    if command == _PROXY and family == _TCP4:
        client = make_address(IPv4Address(data[16:20]), int.from_bytes(data[24:26], "big"))
    elif command == _PROXY and family == _TCP6:
        client = make_address(IPv6Address(data[16:32]), int.from_bytes(data[48:50], "big"))
    return ProxyHeader(size, client)
