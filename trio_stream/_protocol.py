"""The sans-I/O part: h11 reads the heads of requests, and the duties that it leaves are done here.

Nothing in this file waits, sends or knows Trio: bytes and calls go in, bytes and requests come out.

Heads of responses do not go through h11: their fields were checked when they were written, and to
have them checked once more would be a tenth of the CPU time of a small request.
"""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache
from typing import TYPE_CHECKING

from ._bad_request import BadRequestError
from ._guard import HeadGuard
from ._request_head import list_items, parse_head
from ._request_rules import check_request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._config import Config
    from ._framing import ChunkedDecoder, LengthDecoder
    from ._request_head import Fields, RequestHead
    from ._response_head import ResponseHead


_HEAD_READ_SIZE = 16 * 1024

# An upload costs a third of what it does in pieces of 64 KiB.
_BODY_READ_SIZE = 256 * 1024


class Protocol:
    """The server's side of one HTTP/1.1 connection.

    Attributes:
      request: The head of the request that is being answered; `None` if there was none to read.
      client_has_closed: The client ended its stream between two requests.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._guard = HeadGuard(config)
        self._known_fields: Fields | None = None  # what came twice in a row
        self._last_fields = b""
        self._received = b""
        self._at_eof = False
        self.client_has_closed = False
        self._is_broken = False
        self._start_request(None)

    def _start_request(self, request: RequestHead | None) -> None:
        self.request = request
        self._body: LengthDecoder | ChunkedDecoder | None = None
        self._body_has_begun = False
        self._body_is_wanted = False
        self._taken = 0
        self._discarded = 0
        self._awaits_continue = False
        self._closes = False  # after this response
        self._is_chunked = False
        self._is_answered = False

    # Receiving the request...

    def receive_data(self, data: bytes) -> None:
        """Take what the client sent; `b""` says that it has ended its stream."""
        if not data:
            self._at_eof = True
            return
        self._received = self._received + data if self._received else data
        self._body_has_begun = True

    def next_request(self) -> RequestHead | None:
        """The next request's head; `None` while it has not been received whole.

        Raises:
          BadRequestError: What was received is not a request.
        """
        self._check_intact()
        try:
            head, self._received = self._guard.take_head(self._received)
            if head:
                self._read_head(head)
                return self.request
            if self._at_eof and self._received:
                raise BadRequestError(f"the head ended after {len(self._received)} bytes", 400)
        except BaseException:
            self._is_broken = True
            raise
        self.client_has_closed = self._at_eof
        return None

    def _read_head(self, head: bytes) -> None:
        request = parse_head(head, self._known_fields, self._config)
        self._start_request(request)  # first: a refusal of HEAD has no body either
        self.request, self._body, self._closes, self._awaits_continue = check_request(
            request, self._config
        )
        self._body_has_begun = bool(self._received)
        self._remember(request.fields)

    def _remember(self, fields: Fields) -> None:
        # Of what comes once, nothing but the bytes is kept beyond its request: to keep objects for
        # so long costs a twentieth of a small request, as they leave the caches and meet the
        # garbage collector.
        if fields is not self._known_fields and fields.are_worth_remembering:
            if fields.raw == self._last_fields:
                self._known_fields = fields
            self._last_fields = fields.raw

    @property
    def head_has_begun(self) -> bool:
        """Whether a part of the next request's head has been received."""
        return bool(self._received)

    # Receiving its body...

    @property
    def request_is_incomplete(self) -> bool:
        """Whether the client may still be sending: some of the request has not been taken."""
        return self._is_broken or (self._body is not None and not self._body.is_over)

    @property
    def read_size(self) -> int:
        """How many bytes to receive at a time."""
        return _BODY_READ_SIZE if self._body_is_wanted else _HEAD_READ_SIZE

    @property
    def body_to_come(self) -> int:
        """How many bytes of the body have not been taken, at least."""
        return 0 if self._body is None else max(self._body.length - self._taken, 0)

    def continue_request(self) -> bytes:
        """What must be sent before the client sends the body: usually nothing.

        Of a client that expects `100 Continue`, that (RFC 9110 section 10.1.1), unless it does not
        wait for it.
        """
        if self._body_has_begun or not self._awaits_continue:
            return b""
        self._awaits_continue = False
        return b"HTTP/1.1 100 Continue\r\n\r\n"

    def receive_body(self) -> bytes | None:
        """Take what has been received of the request's body.

        Returns:
          `b""` after its end; `None` if there is nothing to take yet.

        Raises:
          BadRequestError: The body is malformed, or ended early.
        """
        self._body_is_wanted = True
        data = self._take_body()
        self._taken += len(data or b"")
        return data

    def _take_body(self) -> bytes | None:
        if self._body is None:
            return b""
        self._check_intact()
        try:
            data, self._received = self._body.decode(self._received)
            if self._at_eof and not (data or self._body.is_over):
                raise BadRequestError("the body ended early", 400)
        except BaseException:
            self._is_broken = True
            raise
        return data if data or self._body.is_over else None

    def _check_intact(self) -> None:
        if self._is_broken:  # nobody knows where the next request would begin
            raise BadRequestError("this follows a bad request", 400)

    # Sending the response...

    def start_response(
        self,
        head: ResponseHead,
        body_length: int | None,
        *,
        closes: bool,
    ) -> bytes:
        """Build the head of the response.

        Args:
          head: What the handler has given of it.
          body_length: In bytes, as the answer to a GET would have it; `None` if it is not known:
            then the body is chunked, or, for HTTP/1.0, ends with the connection.
          closes: Whether the connection closes after this response. It also does when the client
            asked for that, speaks HTTP/1.0, or has too much of its request left to send.

        Returns:
          The bytes of the head.
        """
        status = head.status
        if status == 205:  # RFC 9110 section 15.3.6
            body_length = 0
        # RFC 9110 section 8.6: no framing in a 204 or where a tunnel begins; in a 304 only the
        # length of what a GET would get, if that was told.
        tunnel = self._opens_tunnel(status)
        is_framed = not (status == 204 or tunnel or (status == 304 and not body_length))
        self._closes |= closes or tunnel or not self._can_reach_next_request()
        self._awaits_continue = False
        fields = [(b"Date", _http_date(int(time.time()))), *head.fields]
        if is_framed:
            if body_length is not None:
                fields.append((b"Content-Length", b"%d" % body_length))
            elif self.chunks_are_understood:
                fields.append((b"Transfer-Encoding", b"chunked"))
                self._is_chunked = self.response_has_body(status)
        if self._closes:
            fields.append((b"Connection", b"close"))
        else:  # the handler may have said so itself
            values = [value.lower() for name, value in head.fields if name.lower() == b"connection"]
            self._closes = b"close" in list_items(values)
        return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, head.reason, _lines(fields))

    @property
    def chunks_are_understood(self) -> bool:
        """Whether a body of unknown length is chunked; else it ends with the connection."""
        return self.request is not None and self.request.http_version > b"1.0"

    def finish_chunks(self, trailers: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
        """The end of a body of unknown length, with trailers for a client that keeps them."""
        self._is_answered = True
        if not self._is_chunked:
            return b""
        if not self._trailers_are_accepted:
            trailers = ()
        return b"0\r\n%b\r\n" % _lines(trailers)

    def finish_response(self) -> None:
        """Note that a response of known length is complete."""
        self._is_answered = True

    def response_has_body(self, status: int) -> bool:
        """Whether a body follows the head (RFC 9112 section 6.3; RFC 9110 section 15.3.6)."""
        head = self.request is not None and self.request.method == b"HEAD"
        return not (head or status in (204, 205, 304) or self._opens_tunnel(status))

    @property
    def _trailers_are_accepted(self) -> bool:
        # RFC 9110 section 6.5.1: `TE: trailers`.
        return self.chunks_are_understood and any(
            name.lower() == b"te" and b"trailers" in list_items([value.lower()])
            for name, value in (self.request.fields.items if self.request else ())
        )

    def _opens_tunnel(self, status: int) -> bool:
        connect = self.request is not None and self.request.method == b"CONNECT"
        return connect and 200 <= status < 300

    # And on to the next one...

    def discard_request_body(self) -> int | None:
        """Drop some of what has been received of the request's body.

        Returns:
          How many bytes: if 0, more must be received first. `None` if that is the end, or it is not
          worth waiting for, as the connection can't be kept.

        Raises:
          BadRequestError: The body is malformed, or ended early.
        """
        while (
            self._is_answered
            and not self._closes
            and self.request_is_incomplete
            and self._can_reach_next_request()
        ):
            data = self._take_body()
            if data is None:
                return 0
            self._discarded += len(data)
            if self._received and self.request_is_incomplete:
                return len(data)
        return None

    def start_next_cycle(self) -> bool:
        """Whether the connection can serve another request; if so, it is ready for it."""
        if (
            not self._is_answered
            or self._closes
            or self.request_is_incomplete
            or self._discarded > self._config.max_discarded_body
        ):
            return False
        self._start_request(None)
        return True

    def _can_reach_next_request(self) -> bool:
        """Whether the end of this one will be received, as far as can be told now."""
        if self._is_broken:
            return False
        if self._body is None or self._body.is_over:
            return True
        if self._body_is_wanted and not self._is_answered:
            return True  # the handler is reading it
        if self._awaits_continue:
            return False  # it may send the body or not: nobody could tell the next request from it
        return max(self.body_to_come, self._discarded) <= self._config.max_discarded_body


def _lines(fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % field for field in fields])


@lru_cache(maxsize=1)
def _http_date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode("ascii")
