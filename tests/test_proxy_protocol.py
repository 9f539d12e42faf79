"""The header of the PROXY protocol, versions 1 and 2, without a socket."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trio_stream._proxy_protocol import ProxyHeader, ProxyProtocolError, parse_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V4 = bytes([192, 0, 2, 1, 192, 0, 2, 2]) + struct.pack("!HH", 56324, 443)
V6 = IPv6Address("2001:db8::1").packed + IPv6Address("::2").packed + struct.pack("!HH", 1, 2)


def v2(command: int, family: int, payload: bytes = b"", length: int | None = None) -> bytes:
    size = len(payload) if length is None else length
    return SIGNATURE + struct.pack("!BBH", command, family, size) + payload


LONGEST = b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535".ljust(105, b" ")

HEADERS: list[tuple[bytes, object]] = [
    (b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", ("192.0.2.1", 56324)),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", ("255.255.255.255", 65535)),
    (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", ("0.0.0.0", 0)),
    (b"PROXY TCP6 2001:DB8::1 ::2 56324 443\r\n", ("2001:db8::1", 56324, 0, 0)),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::2 1 2\r\n", ("192.0.2.1", 1)),
    (
        b"PROXY TCP6 %b %b 65535 65535\r\n" % ((b"ffff:" * 8)[:-1], (b"ffff:" * 8)[:-1]),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535, 0, 0),
    ),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN whatever \n that is\r\n", None),
    (LONGEST + b"\r\n", None),
    (v2(0x21, 0x11, V4), ("192.0.2.1", 56324)),
    (v2(0x21, 0x21, V6), ("2001:db8::1", 1, 0, 0)),
    (v2(0x21, 0x11, V4 + b"\x03\0\x04abcd\x04\0\0"), ("192.0.2.1", 56324)),
    (v2(0x21, 0x21, V6 + bytes(1000)), ("2001:db8::1", 1, 0, 0)),
    (v2(0x21, 0x11, V4.ljust(65535, b"x")), ("192.0.2.1", 56324)),
    (v2(0x20, 0x00), None),
    (v2(0x20, 0x11, V4), None),
    (v2(0x20, 0x11), None),
    (v2(0x20, 0xFF, b"what LOCAL comes with is skipped"), None),
    (v2(0x21, 0x00), None),
    (v2(0x21, 0x00, b"skipped"), None),
    (v2(0x21, 0x12, V4), None),
    (v2(0x21, 0x22, V6), None),
    (v2(0x21, 0x31, bytes(216)), None),
    (v2(0x21, 0x32, bytes(216)), None),
]


@pytest.mark.parametrize(("header", "client"), HEADERS)
def test_header(header: bytes, client: object) -> None:
    for rest in (b"", b"GET / HTTP/1.1\r\n\r\n", header):
        assert parse_header(header + rest) == (len(header), client)


@pytest.mark.parametrize("header", [header for header, _ in HEADERS if len(header) < 300])
def test_header_in_pieces(header: bytes) -> None:
    for size in range(len(header)):
        assert parse_header(header[:size]) is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"G", "no header of the PROXY protocol, but b'G'"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", "but b'GET / HTTP/1.1\\r\\nHost'"),
        (b"\x16\x03\x01", "no header"),
        (b"proxy ", "no header"),
        (b"PROXY\r\n", "no header"),
        (b"PROXY\t", "no header"),
        (b" PROXY TCP4", "no header"),
        (b"\r\n\r\n\0\r\nQUIT\r\n", "no header"),
        (b"\r\nPROXY ", "no header"),
        *(
            (b"PROXY " + line + b"\r\n", "malformed: b'PROXY ")
            for line in (
                *(b"", b"TCP4", b"TCP5 192.0.2.1 192.0.2.2 1 2", b"tcp4 192.0.2.1 192.0.2.2 1 2"),
                *(b"UNKNOWNS", b"unknown", b"TCP4  192.0.2.1 192.0.2.2 1 2"),
                *(b" TCP4 192.0.2.1 192.0.2.2 1 2", b"TCP4 192.0.2.1 192.0.2.2 1 2 "),
                *(b"TCP4 192.0.2.1 192.0.2.2 1", b"TCP4 192.0.2.1 192.0.2.2 1 2 3"),
                *(b"TCP4 192.0.2.1\t192.0.2.2 1 2", b"TCP4 192.0.2.1 192.0.2.2 1 2\n"),
                *(b"TCP4 192.0.2.01 192.0.2.2 1 2", b"TCP4 192.0.2.256 192.0.2.2 1 2"),
                *(b"TCP4 192.0.2 192.0.2.2 1 2", b"TCP4 ::1 ::1 1 2", b"TCP4 192.0.2.1 ::1 1 2"),
                *(b"TCP6 192.0.2.1 192.0.2.2 1 2", b"TCP6 ::1%lo ::1 1 2", b"TCP6 [::1] ::1 1 2"),
                *(b"TCP6 1::2::3 ::1 1 2", b"TCP6 ::12345 ::1 1 2"),
                *(b"TCP4 192.0.2.1 192.0.2.2 65536 2", b"TCP4 192.0.2.1 192.0.2.2 1 65536"),
                *(b"TCP4 192.0.2.1 192.0.2.2 01 2", b"TCP4 192.0.2.1 192.0.2.2 -1 2"),
                *(b"TCP4 192.0.2.1 192.0.2.2 1 x", b"TCP4 192.0.2.1 192.0.2.2 123456 2"),
                b"TCP4 192.0.2.\xb2 192.0.2.2 1 2",
            )
        ),
        (b"PROXY ".ljust(107), "no end of the line in 107 bytes"),
        (LONGEST + b" \r\n", "no end of the line in 107 bytes"),
        (b"PROXY UNKNOWN\n".ljust(107), "no end of the line in 107 bytes"),
        *(
            (v2(command, 0x11, V4), "no version and command")
            for command in (0, 1, 0x11, 0x22, 0x31)
        ),
        *((v2(0x21, family, V6), f"no family 0x{family:02x}") for family in (1, 0x10, 0x13, 0x41)),
        (v2(0x21, 0x11, V4[:-1]), "no family 0x11 with addresses of 11 bytes"),
        (v2(0x21, 0x21, V4), "no family 0x21 with addresses of 12 bytes"),
        (v2(0x21, 0x22, V4), "no family 0x22"),
        (v2(0x21, 0x31, V6), "no family 0x31"),
        (v2(0x21, 0x11), "no family 0x11 with addresses of 0 bytes"),
        # As soon as it can be known, not when all of it is there.
        (v2(0x22, 0x11, length=65535), "no version and command: 0x22"),
        (v2(0x21, 0xFF, length=65535), "no family 0xff"),
    ],
)
def test_what_is_no_header(data: bytes, message: str) -> None:
    with pytest.raises(ProxyProtocolError) as error:
        parse_header(data)
    assert message in str(error.value)


@given(
    data=st.binary()
    | st.binary().map(lambda data: b"PROXY " + data)
    | st.text("TCP46UNKOW 0123456789abcdef.:\r\n").map(lambda text: b"PROXY " + text.encode())
    | st.binary(min_size=4).map(lambda data: SIGNATURE + data)
    | st.builds(v2, st.sampled_from([0x20, 0x21]), st.integers(0, 255), st.binary(max_size=250))
)
def test_any_bytes_are_a_header_or_the_begin_of_one_or_none(data: bytes) -> None:
    try:
        header = parse_header(data)
    except ProxyProtocolError:
        # Then no more bytes make it one.
        with pytest.raises(ProxyProtocolError):
            parse_header(data + b"\r\n")
        return
    if header is None:
        # Nothing was overlooked: it is the begin of a header.
        assert len(data) < 16 + 65535
    else:
        assert 15 <= header.size <= len(data)
        assert parse_header(data[: header.size]) == header
        assert parse_header(data[: header.size - 1]) is None


PORTS = st.integers(0, 65535)


@given(st.ip_addresses(v=4), st.ip_addresses(v=4), PORTS, PORTS, st.binary(max_size=300))
def test_any_ipv4_client(
    client: IPv4Address, server: IPv4Address, port: int, own: int, rest: bytes
) -> None:
    line = f"PROXY TCP4 {client} {server} {port} {own}\r\n".encode()
    assert parse_header(line + rest) == ProxyHeader(len(line), (str(client), port))
    payload = client.packed + server.packed + struct.pack("!HH", port, own) + rest
    header = v2(0x21, 0x11, payload)
    assert parse_header(header + rest) == ProxyHeader(len(header), (str(client), port))


@given(st.ip_addresses(v=6), st.ip_addresses(v=6), PORTS, PORTS, st.binary(max_size=300))
def test_any_ipv6_client(
    client: IPv6Address, server: IPv6Address, port: int, own: int, rest: bytes
) -> None:
    assume(client.ipv4_mapped is None)
    client, server = IPv6Address(client.packed), IPv6Address(server.packed)  # without a zone
    line = f"PROXY TCP6 {client} {server} {port} {own}\r\n".encode()
    assert parse_header(line + rest) == ProxyHeader(len(line), (str(client), port, 0, 0))
    payload = client.packed + server.packed + struct.pack("!HH", port, own) + rest
    header = v2(0x21, 0x21, payload)
    assert parse_header(header + rest) == ProxyHeader(len(header), (str(client), port, 0, 0))
