"""Addresses as `socket.getpeername` gives them, and which of them are trusted."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Any, TypeAlias

from ._wording import printable

Address: TypeAlias = tuple[Any, ...]

_MAPPED_PREFIX = 96  # the bits before an address of IPv4 that is written as IPv6: ::ffff:0:0/96


def make_address(ip: IPv4Address | IPv6Address, port: int) -> Address:
    """The address of a socket of TCP; one of IPv4 that is written as IPv6 is one of IPv4."""
    ip = _unmap(ip)
    return (str(ip), port) if ip.version == 4 else (str(ip), port, 0, 0)


def socket_name(address: object) -> str:
    """The name of a Unix socket, as ss(8) shows it: with `@` before one that is no file.

    A client chooses its own, so what is not printable becomes U+FFFD.

    Args:
      address: As `socket.getsockname` gives it, text or bytes.
    """
    if isinstance(address, bytes):
        address = address.decode("utf-8", "surrogateescape")
    return printable(str(address).replace("\0", "@"))


def is_trusted(address: object, proxies: tuple[str, ...]) -> bool:
    """Whether an address is one of `Config.trusted_proxies`.

    Args:
      address: As `socket.getpeername` gives it, which is text for a Unix socket, often empty.
        `None`: unknown, so that nobody trusts it.
      proxies: Addresses, networks, or `"unix"`.
    """
    if isinstance(address, tuple):
        return bool(proxies) and _is_host_trusted(address[0], proxies)
    return isinstance(address, str | bytes) and "unix" in proxies


def is_local(address: object) -> bool:
    """Whether only this machine can use the address of a socket, as `getsockname` gives it."""
    return not isinstance(address, tuple) or ip_address(address[0]).is_loopback


@lru_cache(maxsize=1024)
def _is_host_trusted(host: str, proxies: tuple[str, ...]) -> bool:
    ip = _unmap(ip_address(host))  # on a socket that takes both, IPv4 looks like IPv6
    return any(ip in _network(proxy) for proxy in proxies if proxy != "unix")


def _network(proxy: str) -> IPv4Network | IPv6Network:
    network = ip_network(proxy)
    first = _unmap(network.network_address)
    if network.version == 6 and first.version == 4 and network.prefixlen >= _MAPPED_PREFIX:
        return IPv4Network((int(first), network.prefixlen - _MAPPED_PREFIX))
    return network


def _unmap(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    return (ip.ipv4_mapped or ip) if isinstance(ip, IPv6Address) else ip
