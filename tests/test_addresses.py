"""Which addresses are trusted."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from trio_stream._addresses import is_trusted, make_address


def test_an_address_is_what_a_socket_has() -> None:
    assert make_address(ip_address("192.0.2.1"), 80) == ("192.0.2.1", 80)
    assert make_address(ip_address("2001:DB8::0:1"), 80) == ("2001:db8::1", 80, 0, 0)
    assert make_address(ip_address("::ffff:c000:201"), 80) == ("192.0.2.1", 80)


@pytest.mark.parametrize(
    ("address", "proxies", "trusted"),
    [
        (("192.0.2.1", 80), (), False),
        (("192.0.2.1", 80), ("192.0.2.1",), True),
        (("192.0.2.1", 80), ("192.0.2.2", "192.0.2.0/24"), True),
        (("192.0.3.1", 80), ("192.0.2.0/24", "::/0", "unix"), False),
        (("::ffff:192.0.2.1", 80, 0, 0), ("192.0.2.0/24",), True),
        (("::ffff:192.0.3.1", 80, 0, 0), ("192.0.2.0/24",), False),
        (("::ffff:192.0.2.1", 80, 0, 0), ("::ffff:192.0.2.1",), True),
        (("192.0.2.1", 80), ("::ffff:192.0.2.0/120",), True),
        (("192.0.3.1", 80), ("::ffff:192.0.2.0/120",), False),
        (("::ffff:192.0.3.1", 80, 0, 0), ("::fffe:0:0/95",), False),
        (("2001:db8::1", 80, 0, 0), ("2001:db8::/32",), True),
        (("2001:db9::1", 80, 0, 0), ("2001:db8::/32", "0.0.0.0/0"), False),
        (("fe80::1%eth0", 80, 0, 3), ("fe80::/10",), True),
        ("", ("unix",), True),
        ("/run/client.sock", ("10.0.0.1", "unix"), True),
        (b"\0name", ("unix",), True),
        ("", ("0.0.0.0/0", "::/0"), False),
        ("", (), False),
        (None, ("0.0.0.0/0", "::/0", "unix"), False),
    ],
)
def test_trust(address: object, proxies: tuple[str, ...], trusted: bool) -> None:
    assert is_trusted(address, proxies) is trusted
