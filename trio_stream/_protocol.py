"""The sans-I/O part: one `h11.Connection` and the HTTP duties that h11 leaves to a server.

Nothing in this file waits, sends or knows Trio: bytes and calls go in, bytes and requests come out.
"""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import h11

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._config import Config
    from ._head import ResponseHead


_HEAD_READ_SIZE = 16 * 1024
_BODY_READ_SIZE = 64 * 1024


class BadRequestError(Exception):
    """What the client sent is no HTTP/1.1 request: it gets an answer, and the connection closes.

    Attributes:
      status: The status code of the answer, from 400 to 599.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Protocol:
    """The server's side of one HTTP/1.1 connection."""

    def __init__(self, config: Config) -> None:
        self._max_discarded_body = config.max_discarded_body
        self._max_head_size = config.max_head_size
        self._h11 = self._new_parser()
        self._request: h11.Request | None = None
        self._body_is_wanted = False
        self._taken = 0
        self._discarded = 0
        self._parsed = 0
        # A body of known length needs no parser: when h11 has given all that came with the head,
        # the rest goes past it, and the next request gets a new one.
        self._missing: int | None = None
        self._passing = b""
        self._ahead = b""

    # Receiving the request...

    def receive_data(self, data: bytes) -> None:
        """Take what the client sent; `b""` says that it has ended its stream.

        Raises:
          BadRequestError: That was in the middle of a body of known length.
        """
        if self._missing is None:
            self._h11.receive_data(data)
            return
        if not data:
            raise BadRequestError(f"the body ended {self._missing} bytes early", 400)
        if len(data) > self._missing:
            self._ahead += data[self._missing :]
            data = data[: self._missing]
        self._missing -= len(data)
        self._passing += data

    def next_request(self) -> h11.Request | None:
        """The next request's head; `None` while it has not been received whole.

        Raises:
          BadRequestError: What was received is no request.
        """
        before = len(self._h11.trailing_data[0])
        event = self._next_event()
        if not isinstance(event, h11.Request):
            return None
        self._request = event  # first: a refusal of HEAD has no body either
        # h11 looks at its limit only when it needs more data.
        if (size := before - len(self._h11.trailing_data[0])) > self._max_head_size:
            raise BadRequestError(f"a head of {size} bytes", 431)
        if not _check_request(event):
            self._next_event()  # the end, so that it is known to be complete
        return event

    @property
    def head_has_begun(self) -> bool:
        """Whether a part of the next request's head has been received."""
        return bool(self._h11.trailing_data[0])

    @property
    def request(self) -> h11.Request | None:
        """The head of the request that is being answered; `None` if there was none to read."""
        return self._request

    @property
    def client_has_closed(self) -> bool:
        """Whether the client ended its stream between two requests."""
        return self._h11.their_state is h11.CLOSED

    # Receiving its body...

    @property
    def request_is_incomplete(self) -> bool:
        """Whether some of the request's body has not been received, or not been taken."""
        if self._missing is not None:
            return self._missing > 0
        return self._h11.their_state is h11.SEND_BODY

    @property
    def read_size(self) -> int:
        """How many bytes to receive at a time."""
        return _BODY_READ_SIZE if self._body_is_wanted else _HEAD_READ_SIZE

    def continue_request(self) -> bytes:
        """What must be sent before the client sends the body: usually nothing.

        Of a client that expects `100 Continue`, that (RFC 9110 section 10.1.1).
        """
        if not self._h11.they_are_waiting_for_100_continue:
            return b""
        return self._send_event(h11.InformationalResponse(status_code=100, headers=[]))

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
        if self._missing is not None:
            data, self._passing = self._passing, b""
            return data or (None if self._missing else b"")
        pieces: list[bytes] = []
        while self._h11.their_state in (h11.SEND_BODY, h11.ERROR):
            event = self._next_event()
            if event is h11.NEED_DATA and not pieces:
                if (length := self._request_length) is not None:
                    self._missing = length - self._parsed
                return None
            if not isinstance(event, h11.Data):
                break
            pieces.append(event.data)
            self._parsed += len(event.data)
        return b"".join(pieces)

    @property
    def _request_length(self) -> int | None:
        """What `Content-Length` says; h11 has checked it."""
        assert self._request is not None
        return next((int(v) for n, v in self._request.headers if n == b"content-length"), None)

    # Sending the response...

    def start_response(
        self,
        head: ResponseHead,
        body_length: int | None,
        *,
        close: bool,
    ) -> bytes:
        """Build the head of the response.

        Args:
          head: What the handler has given of it.
          body_length: In bytes, as the answer to a GET would have it; `None` if it is not known:
            then the body is chunked, or, for HTTP/1.0, ends with the connection.
          close: Whether the connection closes after this response. It also does when the client
            asked for that, speaks HTTP/1.0, or has too much of its request left to send.

        Returns:
          The bytes of the head.
        """
        status = head.status
        fields = [(b"Date", _http_date(int(time.time()))), *head.fields]
        # RFC 9110 section 8.6: never in a 204 or where a tunnel begins; in a 304 only what a GET
        # would get, which nobody has told.
        tunnel = self._opens_tunnel(status)
        if body_length is not None and not (
            status == 204 or tunnel or (status == 304 and body_length == 0)
        ):
            fields.append((b"Content-Length", b"%d" % body_length))
        if close or tunnel or not self._can_reach_next_request():
            fields.append((b"Connection", b"close"))
        return self._send_event(
            h11.Response(status_code=status, reason=head.reason, headers=fields)
        )

    @property
    def chunks_are_understood(self) -> bool:
        """Whether a body of unknown length is chunked; else it ends with the connection."""
        return self._request is not None and self._request.http_version > b"1.0"

    def finish_chunks(self, trailers: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
        """The end of a body of unknown length, with trailers for a client that keeps them."""
        if self._h11.our_state is not h11.SEND_BODY:  # a tunnel, where h11 knows no end
            return b""
        if not self._trailers_are_accepted:
            trailers = ()
        return self._send_event(h11.EndOfMessage(headers=list(trailers)))

    def finish_response(self, body_length: int) -> None:
        """Note that a response of known length is complete, with that many bytes of body."""
        if body_length:
            body = cast("bytes", _BodyOfLength(body_length))
            self._h11.send_with_data_passthrough(h11.Data(data=body))
        if self._h11.our_state is h11.SEND_BODY:  # and not in a tunnel, where h11 knows no end
            self._h11.send(h11.EndOfMessage())

    def response_has_body(self, status: int) -> bool:
        """Whether a body follows the head (RFC 9112 section 6.3, rules 1 and 2)."""
        head = self._request is not None and self._request.method == b"HEAD"
        return not (head or status in (204, 304) or self._opens_tunnel(status))

    @property
    def _trailers_are_accepted(self) -> bool:
        # RFC 9110 section 6.5.1: `TE: trailers`.
        return self.chunks_are_understood and any(
            name == b"te" and b"trailers" in value.lower().replace(b" ", b"").split(b",")
            for name, value in (self._request.headers if self._request else ())
        )

    def _opens_tunnel(self, status: int) -> bool:
        connect = self._request is not None and self._request.method == b"CONNECT"
        return connect and 200 <= status < 300

    # And on to the next one...

    def discard_request_body(self) -> bool:
        """Drop what has been received of the request's body.

        Returns:
          Whether it is worth waiting for the rest: there is some, and the connection can be kept.

        Raises:
          BadRequestError: The body is malformed, or ended early.
        """
        while (
            self._h11.our_state is h11.DONE
            and self.request_is_incomplete
            and self._can_reach_next_request()
        ):
            data = self._take_body()
            if data is None:
                return True
            self._discarded += len(data)
        return False

    def start_next_cycle(self) -> bool:
        """Whether the connection can serve another request; if so, it is ready for it."""
        if self._h11.our_state is not h11.DONE or self._discarded > self._max_discarded_body:
            return False
        if self._missing == 0:
            self._h11 = self._new_parser()
            if self._ahead:  # empty data would say that the client has ended its stream
                self._h11.receive_data(self._ahead)
        elif self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
        else:
            return False
        self._request = None
        self._body_is_wanted = False
        self._taken = 0
        self._discarded = 0
        self._parsed = 0
        self._missing = None
        self._ahead = b""
        return True

    def _can_reach_next_request(self) -> bool:
        """Whether the end of this one will be received, as far as can be told now."""
        if self._h11.their_state is h11.ERROR:
            return False
        if self._request is None or not self.request_is_incomplete:
            return True
        if self._body_is_wanted and self._h11.our_state is not h11.DONE:
            return True  # the handler is reading it
        if self._h11.they_are_waiting_for_100_continue:
            return False  # it may send the body or not: nobody could tell the next request from it
        to_come = (self._request_length or 0) - self._taken
        return max(to_come, self._discarded) <= self._max_discarded_body

    def _new_parser(self) -> h11.Connection:
        return h11.Connection(h11.SERVER, max_incomplete_event_size=self._max_head_size)

    def _send_event(self, event: h11.Event) -> bytes:
        data = self._h11.send(event)
        assert data is not None
        return data

    def _next_event(self) -> h11.Event | type[h11.NEED_DATA | h11.PAUSED]:
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError as exc:
            raise BadRequestError(str(exc), exc.error_status_hint) from exc


def _check_request(request: h11.Request) -> bool:
    """Refuse what h11 lets pass; whether there is a body, even an empty one."""
    if not request.http_version.startswith(b"1."):  # RFC 9110 section 15.6.6
        raise BadRequestError(f"HTTP/{request.http_version.decode()} is not spoken here", 505)
    names = {name for name, _ in request.headers}
    if names >= {b"transfer-encoding", b"content-length"}:  # RFC 9112 section 6.1
        raise BadRequestError("both Transfer-Encoding and Content-Length", 400)
    return not names.isdisjoint({b"transfer-encoding", b"content-length"})


def split_target(method: str, target: str) -> tuple[str, str]:
    """The path and the query in a request target (RFC 9112 section 3.2).

    Where there is no path, in the asterisk and the authority form, the target stands for it.

    Raises:
      BadRequestError: The target has none of the four forms.
    """
    if target.startswith("/"):
        path, _, query = target.partition("?")
        return path, query
    if method == "CONNECT" or target == "*":
        return target, ""
    try:
        parts = urlsplit(target)
    except ValueError as exc:
        raise BadRequestError(f"{target!r} is no request target: {exc}", 400) from None
    if not (parts.scheme and parts.netloc):
        raise BadRequestError(f"{target!r} is no request target", 400)
    return parts.path or "/", parts.query


class _BodyOfLength:
    """A stand-in for a body that h11 is told of once, at its end, and never sees.

    h11 only looks at the length of data that it passes through (its documented way for sendfile).
    An event for each 16 KiB would cost half as much again as sending them.
    """

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length


@lru_cache(maxsize=1)
def _http_date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode("ascii")
