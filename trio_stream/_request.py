"""The request as a handler sees it."""

from __future__ import annotations

from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

from multidict import CIMultiDict, CIMultiDictProxy, MultiDict, MultiDictProxy

from ._protocol import split_target

if TYPE_CHECKING:
    from collections.abc import Mapping

    import h11


class Request:
    """One HTTP request: its head, and who sent it.

    Attributes:
      method: As sent, case-sensitive (RFC 9110 section 9.1): `"GET"`.
      target: The request target as sent (RFC 9112 section 3.2): `"/caf%C3%A9?size=2"`.
      raw_path: The path in the target, not decoded: `"/caf%C3%A9"`. The target itself where that
        has no path (`OPTIONS *`, and the authority of a CONNECT, which a route sees as one
        segment).
      params: What the parts of the route's pattern matched, decoded: `{"id": "7"}` for
        `/users/:id`, and under `"*"` the tail of a wildcard.
      client: The peer's address, as `socket.getpeername` gives it; `None` if the stream has none.
      scheme: `"http"` or `"https"`.

    Raises:
      BadRequestError: The target has none of the four forms.
    """

    def __init__(self, head: h11.Request, *, client: object, scheme: str) -> None:
        self._head = head
        self.method = head.method.decode("ascii")
        self.target = head.target.decode("ascii")
        self.raw_path, self._raw_query = split_target(self.method, self.target)
        self.params: Mapping[str, str] = MappingProxyType({})
        self.client = client
        self.scheme = scheme

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.target}>"

    @property
    def http_version(self) -> str:
        """`"1.1"` or `"1.0"`."""
        return self._head.http_version.decode("ascii")

    @cached_property
    def path(self) -> str:
        """The path, percent-decoded as UTF-8; what is not UTF-8 becomes U+FFFD."""
        return unquote(self.raw_path)

    @cached_property
    def query(self) -> MultiDictProxy[str]:
        """The fields of the query string, decoded: `["n"]` is the first, `.getall("n")` all."""
        return MultiDictProxy(MultiDict(parse_qsl(self._raw_query, keep_blank_values=True)))

    @cached_property
    def headers(self) -> CIMultiDictProxy[str]:
        """The header fields: names in any case, values as ISO-8859-1 (RFC 9110 section 5.5)."""
        fields = CIMultiDict[str]()
        for name, value in self._head.headers.raw_items():
            fields.add(name.decode("ascii"), value.decode("latin-1"))
        return CIMultiDictProxy(fields)

    @cached_property
    def cookies(self) -> Mapping[str, str]:
        """The cookies by name; of one name, the first (RFC 6265 section 5.4).

        Not by `http.cookies`, which drops all of them for one that it does not like.
        """
        cookies: dict[str, str] = {}
        for header in self.headers.getall("Cookie", ()):
            for pair in header.split(";"):
                name, equals, value = (part.strip(" \t") for part in pair.partition("="))
                if len(value) > 1 and value[0] == value[-1] == '"':
                    value = value[1:-1]
                if equals:
                    cookies.setdefault(name, value)
        return MappingProxyType(cookies)
