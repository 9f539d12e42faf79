"""The target of a request and its Host (RFC 9112 section 3.2)."""

from __future__ import annotations

import re
from ipaddress import IPv6Address

from ._bad_request import BadRequestError

# RFC 3986 section 3.2.2. A comma belongs to it, too; but where it is read as that of a list, each
# reader may choose another item. Without userinfo (RFC 9110 section 4.2.4).
_AUTHORITY = re.compile(
    rb"((?:[A-Za-z0-9\-._~!$&'()*+;=]|%[0-9A-Fa-f]{2})+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{0,5}))?"
)

_ABSOLUTE_FORM = re.compile(rb"(?i:https?)://([^/?]*).*")


def check_authority(authority: bytes, *, port_is_needed: bool = False) -> None:
    """Refuse what is not `host` or `host:port`.

    Raises:
      BadRequestError: 400.
    """
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise BadRequestError(f"{authority!r} is not a host", 400)
    host, port = match.groups()
    # RFC 9110 section 9.3.6, for CONNECT, and RFC 6335 section 6.
    if (port_is_needed and not port) or (port and int(port) > 65535):
        raise BadRequestError(f"{authority!r} has no valid port", 400)
    if host[:1] == b"[":
        try:
            IPv6Address(host[1:-1].decode("ascii"))
        except ValueError as exc:
            raise BadRequestError(f"{authority!r} is no host: {exc}", 400) from None


def check_target(method: bytes, target: bytes) -> bytes | None:
    """Refuse a target that has none of the four forms, or not that of its method.

    Returns:
      The authority in a target of absolute form, which counts instead of `Host` (RFC 9112 section
      3.2.2).

    Raises:
      BadRequestError: 400.
    """
    if b"#" in target:  # a fragment is not sent (RFC 9110 section 7.1)
        raise BadRequestError(f"{target!r} has a fragment", 400)
    if method == b"CONNECT":
        check_authority(target, port_is_needed=True)
        return None
    if target[:1] == b"/" or (target == b"*" and method == b"OPTIONS"):
        return None
    match = _ABSOLUTE_FORM.fullmatch(target)
    if match is None:
        raise BadRequestError(f"{target!r} is no target for {method.decode()}", 400)
    check_authority(match[1])
    return match[1]


def split_target(method: str, target: str) -> tuple[str, str]:
    """The path and the query in a target that was checked.

    Where there is no path, in the asterisk and the authority form, the target stands for it.
    """
    path, has_query, query = target.partition("?")
    if not path.startswith("/"):
        _, is_absolute, rest = path.partition("://")
        if is_absolute:
            _, has_path, rest = rest.partition("/")
            if method == "OPTIONS" and not (has_path or has_query):
                return "*", ""  # RFC 9112 section 3.2.4
            path = f"/{rest}"
    return path, query
