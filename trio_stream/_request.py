"""The request as a handler sees it."""

from __future__ import annotations

from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from multidict import CIMultiDictProxy, MultiDict, MultiDictProxy

from ._bad_request import BadRequestError
from ._forms import FormFile, Parts, parse_urlencoded, read_form
from ._forwarded import Origin, find_origin
from ._message import Message, decode_fields, too_large
from ._request_target import split_target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from ._config import Config
    from ._forms import Part
    from ._request_body import RequestBody
    from ._request_head import RequestHead


class Request(Message):
    """One HTTP request: its head, its body, and who sent it.

    Attributes:
      id: What the logs call it, unique over workers: twelve random hexadecimal digits for its
        connection, and its number there: `"5f1d3c9a07be-1"`.
      method: As sent, case-sensitive (RFC 9110 section 9.1): `"GET"`.
      target: The request target as sent (RFC 9112 section 3.2): `"/caf%C3%A9?size=2"`.
      raw_path: The path in the target, not decoded: `"/caf%C3%A9"`. The target itself where that
        has no path (`OPTIONS *`, and the authority of a CONNECT, which a route sees as one
        segment).
      params: What the parts of the route's pattern matched, decoded: `{"id": "7"}` for
        `/users/:id`, and under `"*"` the tail of a wildcard. The client chooses them: what was
        `%2F` is a slash in them, so one may be `"../x"`: never use it as a file name unchecked.
      client_certificate: The certificate that the client has shown and the server has verified, as
        `ssl.SSLSocket.getpeercert` gives it; `None` without.
      body: What has not been read of the body, as it comes: `async for data in req.body`. Not
        reading stops the client.
    """

    id: str
    body: RequestBody

    def __init__(
        self,
        head: RequestHead,
        config: Config,
        *,
        peer: Origin,
        trusted_proxies: tuple[str, ...] = (),
        client_certificate: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(config.max_body_size)
        self._head = head
        self._max_form_fields = config.max_form_fields
        self.method = head.method.decode("ascii")
        self.target = head.target.decode("ascii")
        self.raw_path, self._raw_query = split_target(self.method, self.target)
        self.params: Mapping[str, str] = MappingProxyType({})
        self.client_certificate = client_certificate
        self._peer = peer
        self._trusted_proxies = trusted_proxies

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.target}>"

    @property
    def client(self) -> object:
        """The client's address, as `socket.getpeername` gives it; `None` if the stream has none.

        That is the peer's, unless the peer is one of `Config.trusted_proxies` and tells another one
        by the PROXY protocol, or in `Forwarded` (RFC 7239) or `X-Forwarded-For`. What others say
        there is ignored, and what is malformed. A port that is not told is 0.
        """
        return self._origin.client if self._trusted_proxies else self._peer[0]

    @property
    def scheme(self) -> str:
        """`"http"` or `"https"`: that of the connection, or what a trusted proxy says it was.

        In `Forwarded` or `X-Forwarded-Proto`.
        """
        return self._origin.scheme if self._trusted_proxies else self._peer[1]

    @cached_property
    def _origin(self) -> Origin:
        return find_origin(self.headers, self._peer, self._trusted_proxies)

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
        return decode_fields(self._head.fields.items)

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

    @property
    def last_event_id(self) -> str | None:
        """The id of the last event that the client has seen, when it connects again (`events`)."""
        value = self.headers.get("Last-Event-ID")
        return None if value is None else value.encode("latin-1").decode("utf-8", "replace")

    # The body...

    async def read(self, max_bytes: int | None = None) -> bytes:
        """Read what is left of the body.

        Args:
          max_bytes: The most that is taken; `None` for `Config.max_body_size`.

        Raises:
          BadRequestError: As `Message.read`; 413: what is left says that it is larger.
        """
        self._check_length(max_bytes)
        return await super().read(max_bytes)

    def _check_length(self, max_bytes: int | None) -> int:
        """The limit in bytes, which what is left of the body does not say to be beyond.

        Raises:
          BadRequestError: 413: it does.
        """
        limit = self._limit(max_bytes)
        if self.body._to_come > limit:
            raise too_large(limit)
        return limit

    async def form(self, max_bytes: int | None = None) -> MultiDictProxy[str | FormFile]:
        """Read what is left of the body as a form, urlencoded or multipart.

        Args:
          max_bytes: The most that is taken; `None` for `Config.max_body_size`.

        Returns:
          The fields; of a multipart form, what has a filename is a `FormFile`.

        Raises:
          BadRequestError: As `read` and `parts`; 413: there are more than `Config.max_form_fields`.
          RuntimeError: As `parts`.
        """
        if self.content_type == "application/x-www-form-urlencoded":
            data = await self.read(max_bytes)
            if data.removesuffix(b"&").count(b"&") >= self._max_form_fields:
                raise BadRequestError(f"more than {self._max_form_fields} form fields", 413)
            return await parse_urlencoded(data)
        return await read_form(self._parts(self._check_length(max_bytes)))

    def parts(self) -> AsyncIterator[Part]:
        """The parts of a multipart form, as they come: `async for part in req.parts()`.

        What has not been read of a part when the next one is asked for is dropped.

        Raises:
          BadRequestError: 415: it is not `multipart/form-data`; 400: its boundary is not valid.
            From the iteration, 400: the form is malformed; 413: it has more than
            `Config.max_form_fields` parts.
          RuntimeError: The library for it is not installed: `pip install trio-stream[forms]`.
        """
        return self._parts()

    def _parts(self, max_bytes: int | None = None) -> Parts:
        media_type, parameters = self._content_type()
        if media_type != "multipart/form-data":
            raise BadRequestError(f"a form can't be {media_type or 'of no type'}", 415)
        return Parts(
            self.body,
            parameters.get("boundary", ""),
            max_bytes=max_bytes,
            max_part_size=self._max_body_size if max_bytes is None else max_bytes,
            max_parts=self._max_form_fields,
        )
