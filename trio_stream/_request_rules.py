"""What a well-formed head must not say, and what it says of the body."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ._bad_request import BadRequestError
from ._framing import ChunkedDecoder, LengthDecoder
from ._request_head import Fields, RequestHead, list_items, ruling_fields, values_of
from ._request_target import check_authority, check_target

if TYPE_CHECKING:
    from ._config import Config

_MAX_LENGTH = 2**63 - 1


class CheckedRequest(NamedTuple):
    """What the head of a request says.

    Attributes:
      head: With the `Host` that counts.
      body: `None` if it has none.
      is_last: Whether the client wants the connection closed after the response.
      awaits_continue: Whether the client may wait for `100 Continue` before it sends the body.
    """

    head: RequestHead
    body: LengthDecoder | ChunkedDecoder | None
    is_last: bool
    awaits_continue: bool


def check_request(request: RequestHead, config: Config) -> CheckedRequest:
    """Refuse what h11 lets pass in the head of a request.

    Raises:
      BadRequestError: 400, 414, 417, 505: as the message says.
    """
    method, target, http_version, fields = request
    if http_version[:2] != b"1.":  # RFC 9110 section 15.6.6
        raise BadRequestError(f"HTTP/{http_version.decode()} is not spoken here", 505)
    if len(target) > config.max_target_size:
        raise BadRequestError(f"a request target of {len(target)} bytes", 414)
    authority = check_target(method, target)
    body = None
    awaits_continue = False
    if not fields.are_reusable:
        ruling = ruling_fields(fields.raw)
        hosts = values_of(ruling, b"host")
        connections = values_of(ruling, b"connection")
        fields.wants_close = b"close" in list_items(connections)
        if len(hosts) == 1 and len(hosts) + len(connections) == len(ruling):  # nearly always
            check_authority(hosts[0])
            fields.are_reusable = True
        else:
            _check_host(http_version, hosts)
            awaits_continue = _awaits_continue(http_version, values_of(ruling, b"expect"))
            body = _choose_body(request, ruling, config)
    # RFC 9112 section 9.3. And after a CONNECT, which gets no tunnel here, may come what was meant
    # for one: from somebody else than the client.
    is_last = http_version < b"1.1" or fields.wants_close or method == b"CONNECT"
    if authority is not None:
        request = request._replace(fields=_with_host(fields, authority))
    return CheckedRequest(request, body, is_last, awaits_continue)


def _check_host(http_version: bytes, hosts: list[bytes]) -> None:
    # RFC 9112 section 3.2. h11 counts them for HTTP/1.1 only, and more than one for all versions.
    if not hosts and http_version > b"1.0":
        raise BadRequestError("no Host", 400)
    for host in hosts:
        check_authority(host)


def _awaits_continue(http_version: bytes, values: list[bytes]) -> bool:
    # RFC 9110 section 10.1.1: HTTP/1.0 knows no expectations.
    expected = set(list_items(values)) if http_version > b"1.0" else set()
    if unknown := expected - {b"", b"100-continue"}:
        raise BadRequestError(f"Expect: {unknown.pop()!r} is not known here", 417)
    return b"100-continue" in expected


def _choose_body(
    request: RequestHead, ruling: list[tuple[bytes, bytes]], config: Config
) -> LengthDecoder | ChunkedDecoder | None:
    lengths = values_of(ruling, b"content-length")
    body: LengthDecoder | ChunkedDecoder | None = None
    if values_of(ruling, b"transfer-encoding"):  # h11 has made sure that it is one `chunked`
        if lengths:
            raise BadRequestError("both Transfer-Encoding and Content-Length", 400)
        if request.http_version < b"1.1":
            raise BadRequestError("Transfer-Encoding in HTTP/1.0", 400)
        body = ChunkedDecoder(config.max_head_size)
    elif lengths:
        # RFC 9112 section 6.3: h11 takes several that agree.
        if len(lengths) > 1 or not lengths[0].isdigit() or int(lengths[0]) > _MAX_LENGTH:
            raise BadRequestError(f"Content-Length: {b', '.join(lengths)!r} is not a length", 400)
        if int(lengths[0]):
            body = LengthDecoder(int(lengths[0]))
    if body is not None and request.method == b"TRACE":  # RFC 9110 section 9.3.8
        raise BadRequestError("a TRACE with a body", 400)
    return body


def _with_host(fields: Fields, authority: bytes) -> Fields:
    others = [item for item in fields.items if item[0].lower() != b"host"]
    return Fields(b"", lambda: [(b"Host", authority), *others])
