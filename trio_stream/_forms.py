"""Forms: multipart (RFC 7578), part by part as they come, and urlencoded (WHATWG URL section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self, TypeAlias
from urllib.parse import parse_qsl

import trio
from multidict import CIMultiDict, CIMultiDictProxy, MultiDict, MultiDictProxy

from ._bad_request import BadRequestError
from ._message import Message, too_large
from ._request_body import BufferedBody

try:
    import multipart
except ImportError:
    multipart = None

if TYPE_CHECKING:
    from collections.abc import Iterator

    from multipart import MultipartSegment

# A part begins: its segment. A piece of its body: bytes. A part has ended: `None`.
Event: TypeAlias = "MultipartSegment | bytes | bytearray | object | None"
_NEED_DATA = object()

# To decode an escape takes a microsecond. From so many bytes on, a thread does it, so that others
# have their turn.
_LARGE_FORM = 64 * 1024


@dataclass(frozen=True, slots=True)
class FormFile:
    """A file that was sent as a field of a form, read whole.

    Attributes:
      filename: As the client calls it. Never use it as a path.
      content_type: What the client takes it for: `"image/png"`, or `""`.
      data: What is in it.
    """

    filename: str
    content_type: str
    data: bytes


class Part(Message):
    """One part of a multipart form.

    Attributes:
      name: That of the field.
      filename: As the client calls the file (never use it as a path); `None` for another field.
      body: What has not been read of it, as it comes; a `trio.abc.ReceiveStream`. It is closed
        when the next part is asked for.
    """

    def __init__(
        self, segment: MultipartSegment, body: trio.abc.ReceiveStream, max_body_size: int
    ) -> None:
        super().__init__(max_body_size)
        self.name: str = segment.name or ""
        self.filename: str | None = segment.filename
        self.body = body
        self._headers = CIMultiDictProxy(CIMultiDict(segment.headerlist))

    def __repr__(self) -> str:
        return f"<Part {self.name!r}, filename {self.filename!r}>"

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """The header fields of the part."""
        return self._headers


class Parts:
    """The parts of a multipart form. `Request.parts` makes it.

    Args:
      body: That of the request.
      boundary: What comes between the parts.
      max_bytes: The most that is taken of `body`; `None` for all.
      max_part_size: The most that is taken of a part which is read whole.
      max_parts: How many there may be.
    """

    def __init__(
        self,
        body: trio.abc.ReceiveStream,
        boundary: str,
        *,
        max_bytes: int | None,
        max_part_size: int,
        max_parts: int,
    ) -> None:
        if multipart is None:
            raise RuntimeError("multipart forms need a library: pip install 'trio-stream[forms]'")
        self._body = body
        self._max_bytes = max_bytes
        self._received = 0
        self._max_part_size = max_part_size
        try:
            self._parser = multipart.PushMultipartParser(boundary, max_segment_count=max_parts)
        except multipart.MultipartError as exc:
            raise BadRequestError(f"the boundary of the form is not valid: {exc}", 400) from None
        self._events: Iterator[Event] = iter(())
        self._part_body: _PartBody | None = None

    def __aiter__(self) -> Self:
        """Return itself: a body can be read only once."""
        return self

    async def __anext__(self) -> Part:
        """Wait for the next part.

        Raises:
          BadRequestError: As `Request.parts`.
        """
        await trio.lowlevel.checkpoint()
        if self._part_body is not None:
            await self._part_body._skip()
            self._part_body = None
        while (event := self._next_event()) is _NEED_DATA:
            if not await self._receive():
                raise StopAsyncIteration
        assert isinstance(event, multipart.MultipartSegment)
        self._part_body = _PartBody(self)
        return Part(event, self._part_body, self._max_part_size)

    def _next_event(self) -> Event:
        """What the parser has made of what was received; `_NEED_DATA` if there is no more."""
        try:
            return next(self._events, _NEED_DATA)
        except multipart.ParserLimitReached as exc:
            raise BadRequestError(f"the form is too large: {exc}", 413) from None
        except multipart.MultipartError as exc:
            raise BadRequestError(f"the form is malformed: {exc}", 400) from None

    async def _receive(self) -> bool:
        """Give the parser more to work on; whether there was more."""
        data = await self._body.receive_some()
        self._received += len(data)
        if self._max_bytes is not None and self._received > self._max_bytes:
            raise too_large(self._max_bytes)
        if data:
            if not self._parser.closed:  # what comes after the last part means nothing
                self._events = self._parser.parse(data)
        else:
            try:
                self._parser.close()
            except multipart.MultipartError as exc:
                raise BadRequestError(f"the form ended early: {exc}", 400) from None
        return bool(data)


class _PartBody(BufferedBody):
    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self._parts = parts

    def _take_received(self) -> None:
        while not (self._received or self._at_end):
            event = self._parts._next_event()
            if event is _NEED_DATA:
                break
            self._at_end = event is None
            self._received = bytes(event) if isinstance(event, bytes | bytearray) else b""

    async def _wait_received(self) -> None:
        while not (self._received or self._at_end):
            await self._parts._receive()
            self._take_received()

    async def _skip(self) -> None:
        self._close()
        while not self._at_end:
            self._received = b""
            self._take_received()
            await self._wait_received()


async def read_form(parts: Parts) -> MultiDictProxy[str | FormFile]:
    """As `Request.form` for a multipart form."""
    form = MultiDict[str | FormFile]()
    async for part in parts:
        if part.filename is None:
            form.add(part.name, await part.text())
        else:
            data = await part.read()
            form.add(part.name, FormFile(part.filename, part.content_type, data))
    return MultiDictProxy(form)


async def parse_urlencoded(data: bytes) -> MultiDictProxy[str | FormFile]:
    """As `Request.form` for a form that is urlencoded.

    Raises:
      BadRequestError: 400: it is not, or not in UTF-8.
    """
    parse = partial(parse_qsl, keep_blank_values=True, errors="strict")
    try:
        if len(data) < _LARGE_FORM:
            fields = parse(data.decode())
        else:
            fields = await trio.to_thread.run_sync(parse, data.decode(), abandon_on_cancel=True)
    except ValueError as exc:
        raise BadRequestError(f"the form is not urlencoded UTF-8: {exc}", 400) from None
    return MultiDictProxy(MultiDict[str | FormFile](fields))
