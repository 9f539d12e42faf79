"""What a well-formed head must not say, and what it says of the body."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import h11

from ._bad_request import BadRequestError
from ._framing import ChunkedDecoder, LengthDecoder
from ._target import check_authority, check_target

if TYPE_CHECKING:
    from ._config import Config

# In a head of lower case. Looking for all at once costs less than going through the fields.
_FIELDS = re.compile(
    rb"\r\n(host|connection|content-length|transfer-encoding|expect):[\t ]*([^\r]*)"
)

_MAX_LENGTH = 2**63 - 1


class CheckedRequest(NamedTuple):
    """What the head of a request says.

    Attributes:
      head: With the `Host` that counts.
      body: `None` if it has none.
      is_last: Whether the client wants the connection closed after the response.
    """

    head: h11.Request
    body: LengthDecoder | ChunkedDecoder | None
    is_last: bool


def check_request(request: h11.Request, head: bytes, config: Config) -> CheckedRequest:
    """Refuse what h11 lets pass in a request that it has made of `head`.

    Raises:
      BadRequestError: 400, 414, 417, 505: as the message says.
    """
    if request.http_version[:2] != b"1.":  # RFC 9110 section 15.6.6
        raise BadRequestError(f"HTTP/{request.http_version.decode()} is not spoken here", 505)
    target = request.target
    if len(target) > config.max_target_size:
        raise BadRequestError(f"a request target of {len(target)} bytes", 414)
    authority = check_target(request.method, target)
    fields = _FIELDS.findall(head.lower())
    hosts = _values(fields, b"host")
    connections = _values(fields, b"connection")
    body = None
    if len(hosts) == 1 and len(hosts) + len(connections) == len(fields):  # nearly always
        check_authority(hosts[0])
    else:
        _check_host(request, hosts)
        _check_expectation(request, _values(fields, b"expect"))
        body = _choose_body(request, fields, config)
    if authority is not None:
        request = _with_host(request, authority)
    # RFC 9112 section 9.3.
    is_last = request.http_version < b"1.1" or b"close" in list_items(connections)
    return CheckedRequest(request, body, is_last)


def refuse_coding(head: bytes) -> NoReturn:
    """Refuse a transfer coding that h11 does not know, or several fields of them.

    Raises:
      BadRequestError: 501 if it may be one that others know; 400 if it can't frame a request, and
        so nobody could tell where that ends (RFC 9112 sections 6.1 and 6.3).
    """
    fields = _FIELDS.findall(head.lower())
    values = _values(fields, b"transfer-encoding")
    codings = list_items(values)
    before_last = codings[:-1]
    malformed = len(values) > 1 or b"" in codings or b"chunked" in before_last
    version = head.partition(b"\r\n")[0].rpartition(b"/")[2]
    if malformed or version < b"1.1" or _values(fields, b"content-length"):
        raise BadRequestError(f"Transfer-Encoding: {b', '.join(values)!r} frames no request", 400)
    raise BadRequestError(f"Transfer-Encoding: {values[0]!r} is not known here", 501)


def _values(fields: list[tuple[bytes, bytes]], wanted: bytes) -> list[bytes]:
    return [value.rstrip(b"\t ") for name, value in fields if name == wanted]


def list_items(values: list[bytes]) -> list[bytes]:
    """The items of a field that is a comma-separated list (RFC 9110 section 5.6.1)."""
    return [item.strip(b"\t ") for value in values for item in value.split(b",")]


def _check_host(request: h11.Request, hosts: list[bytes]) -> None:
    # RFC 9112 section 3.2. h11 counts them for HTTP/1.1 only, and more than one for all versions.
    if not hosts and request.http_version > b"1.0":
        raise BadRequestError("no Host", 400)
    for host in hosts:
        check_authority(host)


def _check_expectation(request: h11.Request, values: list[bytes]) -> None:
    # RFC 9110 section 10.1.1: HTTP/1.0 knows none.
    expected = list_items(values)
    if request.http_version > b"1.0" and (unknown := set(expected) - {b"", b"100-continue"}):
        raise BadRequestError(f"Expect: {unknown.pop()!r} is not known here", 417)


def _choose_body(
    request: h11.Request, fields: list[tuple[bytes, bytes]], config: Config
) -> LengthDecoder | ChunkedDecoder | None:
    lengths = _values(fields, b"content-length")
    body: LengthDecoder | ChunkedDecoder | None = None
    if _values(fields, b"transfer-encoding"):  # h11 has made sure that it is one `chunked`
        if lengths:
            raise BadRequestError("both Transfer-Encoding and Content-Length", 400)
        if request.http_version < b"1.1":
            raise BadRequestError("Transfer-Encoding in HTTP/1.0", 400)
        body = ChunkedDecoder(config.max_head_size)
    elif lengths:
        # RFC 9112 section 6.3: h11 takes several that agree.
        if len(lengths) > 1 or not lengths[0].isdigit() or int(lengths[0]) > _MAX_LENGTH:
            raise BadRequestError(f"Content-Length: {b', '.join(lengths)!r} is no length", 400)
        if int(lengths[0]):
            body = LengthDecoder(int(lengths[0]))
    if body is not None and request.method == b"TRACE":  # RFC 9110 section 9.3.8
        raise BadRequestError("a TRACE with a body", 400)
    return body


def _with_host(request: h11.Request, authority: bytes) -> h11.Request:
    others = [item for item in request.headers.raw_items() if item[0].lower() != b"host"]
    return h11.Request(
        method=request.method,
        target=request.target,
        headers=[(b"Host", authority), *others],
        http_version=request.http_version,
    )
