"""Heads of requests, as h11 reads them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import h11

from ._bad_request import BadRequestError
from ._guard import REQUEST_LINE, check_head

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._config import Config

# What says where the request ends and to whom it goes, in a head of lower case. Looking for all at
# once costs less than going through the fields.
_RULING_FIELDS = re.compile(
    rb"\r\n(host|connection|content-length|transfer-encoding|expect):[\t ]*([^\r]*)"
)

# Fields of more bytes are not remembered.
_MAX_REMEMBERED = 4096


class Fields:
    """The header fields of a request, and what has been found out about them.

    Attributes:
      raw: As sent, from the end of the request line on.
      are_reusable: They name one valid host, and nothing about a body. So they are good for any
        request.
      referer_and_user_agent: Once the access log has looked for them.
      wants_close: They ask for the end of the connection.
    """

    __slots__ = ("_list", "are_reusable", "raw", "referer_and_user_agent", "wants_close")

    def __init__(self, raw: bytes, list_items: Callable[[], list[tuple[bytes, bytes]]]) -> None:
        self.raw = raw
        self._list = list_items
        self.are_reusable = False
        self.wants_close = False
        self.referer_and_user_agent: tuple[str | None, str | None] | None = None

    @property
    def items(self) -> list[tuple[bytes, bytes]]:
        """Names and values, in order. For many a request, nobody asks."""
        return self._list()

    @property
    def are_worth_remembering(self) -> bool:
        """Whether `parse_head` may use them once more."""
        return self.are_reusable and len(self.raw) <= _MAX_REMEMBERED


class RequestHead(NamedTuple):
    """The head of a request, as sent.

    Attributes:
      method: The method.
      target: The request target.
      http_version: Two digits with a dot: `b"1.1"`.
      fields: The header fields.
    """

    method: bytes
    target: bytes
    http_version: bytes
    fields: Fields


def parse_head(head: bytes, known: Fields | None, config: Config) -> RequestHead:
    """Parse a head that is complete.

    Many a client sends the same fields, byte by byte, with each request of a connection. Not to
    parse them each time saves from a quarter to a half of the CPU time of a small request, and more
    with all that a browser sends.

    Args:
      head: Its bytes, with the empty line.
      known: Fields that `are_reusable`, of an earlier request.
      config: The limits.

    Raises:
      BadRequestError: It is not one, as `check_head` or h11 says.
    """
    if known is not None:
        line = REQUEST_LINE.match(head)
        if line is not None and head[line.end() :] == known.raw:
            return RequestHead(line[1], line[2], line[3], known)
    check_head(head, config)
    parser = h11.Connection(h11.SERVER)  # a new one is cheaper than to tell it of all else
    parser.receive_data(head)
    try:
        request = parser.next_event()
    except h11.RemoteProtocolError as exc:
        # h11's frames refer to it, and so it would to ours: a cycle for each bad request.
        exc.__traceback__ = None
        if exc.error_status_hint == 501:
            _refuse_coding(head)
        raise BadRequestError(str(exc), exc.error_status_hint) from None
    assert isinstance(request, h11.Request)
    fields = Fields(head[head.index(b"\r\n") :], request.headers.raw_items)
    return RequestHead(request.method, request.target, request.http_version, fields)


def _refuse_coding(head: bytes) -> NoReturn:
    """Refuse a transfer coding that h11 does not know, or several fields of them.

    Raises:
      BadRequestError: 501 if it may be one that others know; 400 if it can't frame a request, and
        so nobody could tell where that ends (RFC 9112 sections 6.1 and 6.3).
    """
    ruling = ruling_fields(head)
    values = values_of(ruling, b"transfer-encoding")
    codings = list_items(values)
    before_last = codings[:-1]
    malformed = len(values) > 1 or b"" in codings or b"chunked" in before_last
    version = head.partition(b"\r\n")[0].rpartition(b"/")[2]
    if malformed or version < b"1.1" or values_of(ruling, b"content-length"):
        raise BadRequestError(f"Transfer-Encoding: {b', '.join(values)!r} frames no request", 400)
    raise BadRequestError(f"Transfer-Encoding: {values[0]!r} is not known here", 501)


def ruling_fields(raw: bytes) -> list[tuple[bytes, bytes]]:
    """Which of the fields rule how the request is read: names and values in lower case."""
    return _RULING_FIELDS.findall(raw.lower())


def values_of(fields: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """The values of all of `fields` that are called `name`, without white space at their ends."""
    return [value.rstrip(b"\t ") for found, value in fields if found == name]


def list_items(values: list[bytes]) -> list[bytes]:
    """The items of a field that is a comma-separated list (RFC 9110 section 5.6.1)."""
    return [item.strip(b"\t ") for value in values for item in value.split(b",")]
