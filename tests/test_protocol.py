"""The sans-I/O part beside an h11 client: framing, keep-alive, limits, and what is no request."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trio_stream import BadRequestError, Config, _protocol
from trio_stream._protocol import Protocol
from trio_stream._response_head import ResponseHead

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trio_stream._request_head import RequestHead

SMALL = Config(max_head_size=100, max_discarded_body=10)

DATE = b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"  # the example of RFC 9110 section 5.6.7


@pytest.fixture
def frozen_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """All heads have `DATE`."""
    monkeypatch.setattr(_protocol, "time", SimpleNamespace(time=lambda: 784111777.9))


@dataclass
class Pair:
    """A client and the server's protocol, joined by calls."""

    server: Protocol = field(default_factory=lambda: Protocol(Config()))
    client: h11.Connection = field(default_factory=lambda: h11.Connection(h11.CLIENT))

    def send(self, *events: h11.Event) -> None:
        for event in events:
            if data := self.client.send(event):
                self.server.receive_data(data)

    def request(
        self,
        method: str = "GET",
        target: str = "/",
        *,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> RequestHead:
        fields = [("Host", "x"), *headers]
        if body:
            fields.append(("Content-Length", str(len(body))))
        self.send(h11.Request(method=method, target=target, headers=fields))
        self.send(h11.Data(data=body), h11.EndOfMessage())
        request = self.server.next_request()
        assert request is not None
        return request

    def respond(
        self, status: int = 200, body: bytes = b"", *, close: bool = False
    ) -> tuple[h11.Response, bytes]:
        """Answer, and let the client read it to its end."""
        head = ResponseHead(status)
        data = self.server.start_response(head, len(body), closes=close)
        sent = body if self.server.response_has_body(status) else b""
        self.server.finish_response()
        self.client.receive_data(data + sent)
        response = self.client.next_event()
        assert isinstance(response, h11.Response)
        received = b""
        while isinstance(event := self.client.next_event(), h11.Data):
            received += event.data
        assert isinstance(event, h11.EndOfMessage)
        assert self.client.trailing_data == (b"", False)
        return response, received

    def start_next_cycle(self) -> bool:
        """Whether both agree that there may be another request."""
        assert self.server.discard_request_body() is None
        reusable = self.server.start_next_cycle()
        assert (self.client.our_state is h11.DONE) == reusable
        assert (self.client.their_state is h11.DONE) == reusable
        if reusable:
            self.client.start_next_cycle()
        return reusable


def waits_for_rest(protocol: Protocol) -> bool:
    """Drop what there is of a body; whether more is to come."""
    while discarded := protocol.discard_request_body():
        pass
    return discarded is not None


def converse(
    pieces: Iterable[bytes], config: Config = SMALL, *, eof: bool = False
) -> tuple[list[str], bytes]:
    """Answer each request with its target, as a connection would.

    Returns:
      What became of it, and all that was sent.
    """
    protocol = Protocol(config)
    unsent = iter([*pieces, b""] if eof else pieces)
    story: list[str] = []
    sent = b""
    while True:
        try:
            while (head := protocol.next_request()) is None:
                if protocol.client_has_closed:
                    return [*story, "closed"], sent
                if (piece := next(unsent, None)) is None:
                    return [*story, "waits for a head"], sent
                protocol.receive_data(piece)
        except BadRequestError as exc:
            sent += protocol.start_response(ResponseHead(exc.status), 0, closes=True)
            protocol.finish_response()
            assert not protocol.start_next_cycle()
            return [*story, str(exc.status)], sent
        target = bytes(head.target)
        story.append(f"{head.method.decode()} {target.decode()}")
        sent += protocol.start_response(ResponseHead(), len(target), closes=False)
        body = target if protocol.response_has_body(200) else b""
        protocol.finish_response()
        sent += body
        try:
            while waits_for_rest(protocol):
                if (piece := next(unsent, None)) is None:
                    return [*story, "waits for a body"], sent
                protocol.receive_data(piece)
        except BadRequestError:
            assert not protocol.start_next_cycle()
            return [*story, "bad body"], sent
        if not protocol.start_next_cycle():
            return [*story, "ends"], sent


GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345"
CHUNKED = (
    b"PUT /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'3\r\nabc\r\n04;x="y"\r\nde\r\n\r\n0\r\nTrailer: 1\r\n\r\n'
)


def answer(body: bytes, *, head: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n%b\r\n%b" % (DATE, len(body), head, body)


# Cutting it anywhere makes no difference...


@pytest.mark.parametrize(
    ("data", "story"),
    [
        (GET, ["GET /a", "waits for a head"]),
        (POST, ["POST /b", "waits for a head"]),
        (CHUNKED, ["PUT /c", "waits for a head"]),
        (GET + GET, ["GET /a", "GET /a", "waits for a head"]),
        (POST + CHUNKED + GET[:-1], ["POST /b", "PUT /c", "waits for a head"]),
        (CHUNKED + POST[:-1], ["PUT /c", "POST /b", "waits for a body"]),
        (CHUNKED[:-1], ["PUT /c", "waits for a body"]),
        (GET + b"GET HTTP/1.1\r\n\r\n" + GET, ["GET /a", "400"]),
        (CHUNKED.replace(b"abc\r", b"abcd\r") + GET, ["PUT /c", "bad body"]),
        (GET.replace(b"1.1", b"1.0") + GET, ["GET /a", "ends"]),
        (GET[:-2] + b"Connection: close\r\n\r\n" + GET, ["GET /a", "ends"]),
        (POST[:-5].replace(b"5", b"11") + b"0123456789a" + GET, ["POST /b", "ends"]),
        (POST[:-7] + b"Expect: 100-continue\r\n" + POST[-7:] + GET, ["POST /b", "ends"]),
        (b"CONNECT h:80 HTTP/1.1\r\nHost: x\r\n\r\n" + GET, ["CONNECT h:80", "ends"]),
        (
            b"HEAD /d HTTP/1.1\r\nHost: x\r\n\r\n" + GET,
            ["HEAD /d", "GET /a", "waits for a head"],
        ),
    ],
)
def test_requests_cut_at_every_position(data: bytes, story: list[str], frozen_time: None) -> None:
    whole = converse([data])
    assert whole[0] == story
    assert converse(data[i : i + 1] for i in range(len(data))) == whole
    for cut in range(1, len(data)):
        assert converse([data[:cut], data[cut:]]) == whole


def test_pipelined_requests(frozen_time: None) -> None:
    story, sent = converse([GET + POST + CHUNKED + GET])
    assert story == ["GET /a", "POST /b", "PUT /c", "GET /a", "waits for a head"]
    assert sent == answer(b"/a") + answer(b"/b") + answer(b"/c") + answer(b"/a")


@pytest.mark.parametrize(
    ("data", "name"), [(GET, "GET /a"), (POST, "POST /b"), (CHUNKED, "PUT /c")]
)
@pytest.mark.parametrize("before", [b"", GET])
def test_eof_at_every_position(data: bytes, name: str, before: bytes) -> None:
    head_size = data.index(b"\r\n\r\n") + 4
    earlier = ["GET /a"] if before else []
    for length in range(len(data) + 1):
        story, _ = converse([before + data[:length]], eof=True)
        if length == 0:
            assert story == [*earlier, "closed"]
        elif length < head_size:
            assert story == [*earlier, "400"]
        elif length < len(data):
            assert story == [*earlier, name, "bad body"]
        else:
            assert story == [*earlier, name, "closed"]


def test_eof_is_not_the_end_of_what_came_before_it() -> None:
    protocol = Protocol(Config())
    protocol.receive_data(GET + GET)
    protocol.receive_data(b"")
    closed = [protocol.client_has_closed]
    for _ in range(2):
        assert protocol.next_request() is not None
        protocol.start_response(ResponseHead(), 0, closes=False)
        protocol.finish_response()
        assert protocol.discard_request_body() is None
        assert protocol.start_next_cycle()
        closed.append(protocol.client_has_closed)
    assert protocol.next_request() is None
    closed.append(protocol.client_has_closed)
    assert closed == [False, False, False, True]
    assert protocol.next_request() is None


# The request...


def test_request() -> None:
    protocol = Protocol(Config())
    assert protocol.next_request() is None
    protocol.receive_data(b"POST /%C3%A9?b HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n")
    assert protocol.next_request() is None
    protocol.receive_data(b"x-a:  caf\xe9 \r\n\r\n")
    request = protocol.next_request()
    assert request is not None
    assert (request.method, request.target, request.http_version) == (b"POST", b"/%C3%A9?b", b"1.1")
    assert request.fields.items == [(b"Host", b"x"), (b"X-A", b"1"), (b"x-a", b"caf\xe9")]
    assert not protocol.client_has_closed


# The head of the response...


@pytest.mark.parametrize(
    ("method", "status", "size", "fields", "has_body"),
    [
        ("GET", 200, 0, b"Content-Length: 0\r\n", True),
        ("GET", 200, 7, b"Content-Length: 7\r\n", True),
        ("GET", 200, 2**63 - 1, b"Content-Length: 9223372036854775807\r\n", True),
        ("GET", 404, 7, b"Content-Length: 7\r\n", True),
        ("GET", 599, 7, b"Content-Length: 7\r\n", True),
        ("HEAD", 200, 0, b"Content-Length: 0\r\n", False),
        ("HEAD", 200, 7, b"Content-Length: 7\r\n", False),
        ("HEAD", 404, 7, b"Content-Length: 7\r\n", False),
        ("HEAD", 304, 7, b"Content-Length: 7\r\n", False),
        ("HEAD", 204, 7, b"", False),
        ("GET", 204, 0, b"", False),
        ("GET", 204, 7, b"", False),
        ("GET", 304, 0, b"", False),
        ("GET", 304, 7, b"Content-Length: 7\r\n", False),
        ("CONNECT", 404, 7, b"Content-Length: 7\r\nConnection: close\r\n", True),
        ("CONNECT", 300, 7, b"Content-Length: 7\r\nConnection: close\r\n", True),
    ],
)
def test_response(
    method: str, status: int, size: int, fields: bytes, has_body: bool, frozen_time: None
) -> None:
    pair = Pair()
    pair.request(method, "h:80" if method == "CONNECT" else "/")
    assert pair.server.response_has_body(status) is has_body
    head = ResponseHead(status)
    data = pair.server.start_response(head, size, closes=False)
    status_line = b"HTTP/1.1 %d %b\r\n" % (status, head.reason)
    assert data == status_line + DATE + fields + b"\r\n"
    pair.server.finish_response()
    assert pair.server.discard_request_body() is None
    # What comes after a CONNECT may have been meant for the tunnel.
    assert pair.server.start_next_cycle() is (method != "CONNECT")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
@pytest.mark.parametrize("status", [200, 204, 304, 404, 500])
def test_a_client_reads_the_response_and_goes_on(method: str, status: int) -> None:
    pair = Pair()
    for body in (b"", b"hello"):
        pair.request(method, "/")
        response, received = pair.respond(status, body)
        assert response.status_code == status
        assert received == (b"" if method == "HEAD" or status in (204, 304) else body)
        assert pair.start_next_cycle()


@pytest.mark.parametrize("status", [200, 204, 299])
def test_tunnel(status: int, frozen_time: None) -> None:
    # RFC 9110 section 9.3.6: neither body nor Content-Length, and no HTTP after it.
    pair = Pair()
    pair.request("CONNECT", "h:80")
    assert not pair.server.response_has_body(status)
    head = ResponseHead(status)
    data = pair.server.start_response(head, 0, closes=False)
    line = b"HTTP/1.1 %d %b\r\n" % (status, head.reason)
    assert data == line + DATE + b"Connection: close\r\n\r\n"
    pair.server.finish_response()
    assert pair.server.discard_request_body() is None
    assert not pair.server.start_next_cycle()


def test_there_is_a_body_where_there_was_no_request() -> None:
    protocol = Protocol(Config())
    assert protocol.response_has_body(400)
    assert not protocol.response_has_body(204)


@pytest.mark.parametrize(
    ("seconds", "date"),
    [
        (0, b"Thu, 01 Jan 1970 00:00:00 GMT"),
        (784111777, b"Sun, 06 Nov 1994 08:49:37 GMT"),
        (784111777.999, b"Sun, 06 Nov 1994 08:49:37 GMT"),
        (784111778, b"Sun, 06 Nov 1994 08:49:38 GMT"),
        (1709164800, b"Thu, 29 Feb 2024 00:00:00 GMT"),
        (4102444800, b"Fri, 01 Jan 2100 00:00:00 GMT"),
    ],
)
def test_date(seconds: float, date: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for now in (1, seconds, seconds):
        monkeypatch.setattr(_protocol, "time", SimpleNamespace(time=lambda now=now: now))
        pair = Pair()
        pair.request()
        data = pair.server.start_response(ResponseHead(), 0, closes=False)
    assert data == b"HTTP/1.1 200 OK\r\nDate: " + date + b"\r\nContent-Length: 0\r\n\r\n"


def test_fields_of_the_handler_are_between_those_of_the_server(frozen_time: None) -> None:
    pair = Pair()
    pair.request()
    head = ResponseHead()
    head.write_header("ETag", '"x"')
    head.write_header("b", "1")
    head.write_header("A", "2")
    head.write_header("B", "3")
    assert pair.server.start_response(head, 5, closes=True) == (
        b"HTTP/1.1 200 OK\r\n" + DATE + b'ETag: "x"\r\nb: 1\r\nA: 2\r\nB: 3\r\n'
        b"Content-Length: 5\r\nConnection: close\r\n\r\n"
    )


@pytest.mark.parametrize("body_length", [0, 1, 16384, 2**63 - 1])
def test_the_body_is_told_at_once(body_length: int) -> None:
    pair = Pair()
    pair.request()
    pair.server.start_response(ResponseHead(), body_length, closes=False)
    pair.server.finish_response()
    assert pair.server.discard_request_body() is None
    assert pair.server.start_next_cycle()


# Keeping the connection...


@pytest.mark.parametrize(
    ("version", "lines", "close", "reusable"),
    [
        ("1.1", b"", False, True),
        ("1.1", b"", True, False),
        ("1.1", b"Connection: close\r\n", False, False),
        ("1.1", b"Connection: close\r\n", True, False),
        ("1.1", b"connection: Keep-Alive, CLOSE\r\n", False, False),
        ("1.1", b"Connection: x\r\nConnection: close\r\n", False, False),
        ("1.1", b"Connection: keep-alive\r\n", False, True),
        ("1.1", b"Connection: closed\r\n", False, True),
        ("1.1", b"Connection: upgrade\r\nUpgrade: websocket\r\n", False, True),
        ("1.0", b"", False, False),
        ("1.0", b"Connection: keep-alive\r\n", False, False),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("status", [200, 204])
def test_keep_alive(
    method: bytes,
    version: str,
    lines: bytes,
    close: bool,
    reusable: bool,
    status: int,
    frozen_time: None,
) -> None:
    protocol = Protocol(Config())
    protocol.receive_data(
        method + b" / HTTP/" + version.encode("ascii") + b"\r\nHost: x\r\n" + lines + b"\r\n" + GET
    )
    assert protocol.next_request() is not None
    data = protocol.start_response(ResponseHead(status), 2, closes=close)
    connection = b"" if reusable else b"Connection: close\r\n"
    length = b"" if status == 204 else b"Content-Length: 2\r\n"
    assert data.split(b"\r\n", 1)[1] == DATE + length + connection + b"\r\n"
    protocol.finish_response()
    assert not waits_for_rest(protocol)
    assert protocol.start_next_cycle() is reusable
    if reusable:
        request = protocol.next_request()
        assert request is not None
        assert request.target == b"/a"


@pytest.mark.parametrize("value", ["close", "Close", "x, close"])
def test_the_handler_may_close(value: str) -> None:
    pair = Pair()
    pair.request()
    head = ResponseHead()
    head.write_header("Connection", value)
    data = pair.server.start_response(head, 0, closes=False)
    assert b"\r\nConnection: " + value.encode("ascii") + b"\r\n" in data
    pair.server.finish_response()
    assert pair.server.discard_request_body() is None
    assert not pair.server.start_next_cycle()


def test_an_answer_after_a_malformed_body_is_the_last_one(frozen_time: None) -> None:
    protocol = Protocol(Config())
    protocol.receive_data(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n")
    assert protocol.next_request() is not None
    with pytest.raises(BadRequestError):
        protocol.receive_body()
    data = protocol.start_response(ResponseHead(), 0, closes=False)
    assert data.endswith(b"Content-Length: 0\r\nConnection: close\r\n\r\n")
    protocol.finish_response()
    assert protocol.discard_request_body() is None
    assert not protocol.start_next_cycle()


def test_there_is_no_next_cycle_before_the_end_of_this_one() -> None:
    pair = Pair()
    assert not pair.server.start_next_cycle()
    pair.request()
    assert not pair.server.start_next_cycle()
    pair.server.start_response(ResponseHead(), 5, closes=False)
    assert not pair.server.start_next_cycle()
    pair.server.finish_response()
    assert pair.server.discard_request_body() is None
    assert pair.server.start_next_cycle()
    assert not pair.server.start_next_cycle()


def test_many_requests_on_one_connection() -> None:
    pair = Pair()
    for number in range(200):
        request = pair.request("POST" if number % 3 else "GET", f"/{number}", body=b"x" * number)
        assert request.target == b"/%d" % number
        _, received = pair.respond(body=b"y" * number)
        assert received == b"y" * number
        assert pair.start_next_cycle()


def test_a_new_request_is_judged_by_itself() -> None:
    pair = Pair()
    pair.request("HEAD")
    assert not pair.server.response_has_body(200)
    pair.respond(body=b"x")
    assert pair.start_next_cycle()
    assert pair.server.response_has_body(200)
    pair.request("GET")
    assert pair.server.response_has_body(200)


# Dropping what nobody read of the request...


def length_of(size: int) -> bytes:
    return b"Content-Length: %d\r\n" % size


CODING = b"Transfer-Encoding: chunked\r\n"
EXPECT = b"Expect: 100-continue\r\n"


@pytest.mark.parametrize(
    ("lines", "body", "more", "closes", "reusable"),
    [
        # As much as is dropped, and one byte more...
        (length_of(10), b"0123456789", [], False, True),
        (length_of(11), b"0123456789a", [], True, False),
        # ... known from the head...
        (length_of(10), b"", [b"01234", b"56789"], False, True),
        (length_of(10), b"0123", [b"456789"], False, True),
        (length_of(11), b"", [], True, False),
        (length_of(2**63 - 1), b"", [], True, False),
        (length_of(0), b"", [], False, True),
        # ... or not.
        (CODING, b"0\r\n\r\n", [], False, True),
        (CODING, b"a\r\n0123456789\r\n0\r\n\r\n", [], False, True),
        (CODING, b"", [b"5\r\n01234\r\n", b"5\r\n56789\r\n", b"0\r\n", b"\r\n"], False, True),
        (CODING, b"b\r\n0123456789a\r\n0\r\n\r\n", [], False, False),
        (CODING, b"", [b"5\r\n01234\r\n6\r\n", b"56789", b"a"], False, False),
        (CODING, b"ffffffff\r\n", [b"0123456789", b"a"], False, False),
        # A body that the client holds back: it may come, or not.
        (EXPECT + length_of(5), b"", [], True, False),
        (EXPECT + CODING, b"", [], True, False),
        (EXPECT + length_of(11), b"", [], True, False),
        # Without a body there is nothing to expect.
        (EXPECT + length_of(0), b"", [], False, True),
    ],
)
def test_body_that_nobody_read(
    lines: bytes,
    body: bytes,
    more: list[bytes],
    closes: bool,
    reusable: bool,
    frozen_time: None,
) -> None:
    protocol = Protocol(SMALL)
    protocol.receive_data(b"POST / HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n" + body)
    assert protocol.next_request() is not None
    data = protocol.start_response(ResponseHead(), 0, closes=False)
    assert data == answer(b"", head=b"Connection: close\r\n" if closes else b"")
    protocol.finish_response()
    if closes:
        # Even if the rest is not waited for, which is decided below.
        assert not protocol.start_next_cycle()
        return
    for piece in more:
        assert waits_for_rest(protocol)
        assert not protocol.start_next_cycle()
        protocol.receive_data(piece)
    assert not waits_for_rest(protocol)
    assert protocol.start_next_cycle() is reusable


def test_many_small_chunks_are_decoded_little_by_little() -> None:
    """In a time that others can wait, whether anybody wants them or not."""
    for is_wanted in (True, False):
        protocol = Protocol(Config())
        body = 1100 * b"2\r\nxy\r\n" + b"0\r\n\r\n"
        protocol.receive_data(b"POST / HTTP/1.1\r\nHost: x\r\n" + CODING + b"\r\n" + body + GET)
        assert protocol.next_request() is not None
        if is_wanted:
            pieces = [protocol.receive_body() or b"" for _ in range(4)]
            assert pieces == [512 * b"xy", 512 * b"xy", 76 * b"xy", b""]
        protocol.start_response(ResponseHead(), 0, closes=False)
        protocol.finish_response()
        if not is_wanted:
            discarded = [protocol.discard_request_body() for _ in range(3)]
            assert discarded == [1024, 1024, None]
        assert protocol.start_next_cycle()
        following = protocol.next_request()
        assert following is not None
        assert following.target == b"/a"


@pytest.mark.parametrize("size", [0, 1, 9])
def test_discarded_bodies_are_counted_one_by_one(size: int) -> None:
    pair = Pair(Protocol(Config(max_discarded_body=9)))
    for _ in range(5):
        pair.request("POST", body=b"x" * size)
        pair.respond()
        assert pair.start_next_cycle()
        pair.request("POST", headers=[("Transfer-Encoding", "chunked")])
        pair.respond()
        assert pair.start_next_cycle()


def test_nothing_is_discarded_where_that_is_forbidden() -> None:
    story, _ = converse([POST + GET], Config(max_discarded_body=0))
    assert story == ["POST /b", "ends"]
    story, _ = converse([GET + GET], Config(max_discarded_body=0))
    assert story == ["GET /a", "GET /a", "waits for a head"]


@pytest.mark.parametrize(
    ("lines", "close"),
    [
        (EXPECT + length_of(5), False),
        (EXPECT + CODING, False),
        (b"Connection: close\r\n" + length_of(5), False),
        (length_of(5), True),
    ],
)
def test_it_is_not_worth_waiting_for_the_rest_of_the_last_request(
    lines: bytes, close: bool
) -> None:
    protocol = Protocol(SMALL)
    protocol.receive_data(b"POST / HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n")
    assert protocol.next_request() is not None
    protocol.start_response(ResponseHead(), 0, closes=close)
    protocol.finish_response()
    assert protocol.discard_request_body() is None


@pytest.mark.parametrize(
    "body",
    [
        b"x\r\n",
        b"-1\r\n",
        b"\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\nno trailer\r\n\r\n",
        b"123456789012345678901\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"1;" + 100 * b"x",
    ],
)
def test_malformed_body(body: bytes) -> None:
    protocol = Protocol(SMALL)
    protocol.receive_data(b"POST / HTTP/1.1\r\nHost: x\r\n" + CODING + b"\r\n" + body)
    assert protocol.next_request() is not None
    protocol.start_response(ResponseHead(), 0, closes=False)
    protocol.finish_response()
    with pytest.raises(BadRequestError):
        while waits_for_rest(protocol):
            protocol.receive_data(b"\r\n")
    assert not protocol.start_next_cycle()


# What is no request...


@pytest.mark.parametrize(
    ("data", "status"),
    [
        # The request line.
        (b" ", 400),
        (b"\0", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400),  # a TLS client
        (b"GET\r\nHost: x\r\n\r\n", 400),
        (b"GET /\r\nHost: x\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n", 400),
        (b"GET / / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /\tHTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /caf\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"G(T / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / http/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.10\r\nHost: x\r\n\r\n", 400),
        (b"HTTP/1.1 200 OK\r\n\r\n", 400),
        # Header fields.
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX\xe9: a\r\n\r\n", 400),
        # Framing.
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1" + 20 * b"0" + b"\r\n\r\n", 400),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\n" + CODING + CODING + b"\r\n", 400),
        # Size.
        (b"GET /" + 95 * b"x", 0),
        (b"GET /" + 96 * b"x", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + 100 * b"x", 431),
        (b"GET / HTTP/1.1\r\n" + 20 * b"X: y\r\n", 431),
    ],
)
def test_bad_request(data: bytes, status: int, frozen_time: None) -> None:
    story, sent = converse([data])
    if not status:
        assert story == ["waits for a head"]
        return
    assert story == [str(status)]
    reason = ResponseHead(status).reason
    assert sent == (
        b"HTTP/1.1 %d %b\r\n" % (status, reason)
        + DATE
        + b"Content-Length: 0\r\nConnection: close\r\n\r\n"
    )
    # After a good request it is no better.
    assert converse([GET, data])[0] == ["GET /a", str(status)]


def test_bad_request_error() -> None:
    protocol = Protocol(Config())
    protocol.receive_data(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(BadRequestError) as error:
        protocol.next_request()
    assert error.value.status == 400
    assert str(error.value) == "Missing mandatory Host: header"
    # As its traceback would lead to h11's frames, which lead to it.
    assert isinstance(error.value.__context__, h11.RemoteProtocolError)
    assert error.value.__context__.__traceback__ is None
    with pytest.raises(BadRequestError):
        protocol.next_request()


def test_what_is_accepted_though_strange() -> None:
    for data in (
        b"GET / HTTP/1.0\r\n\r\n",
        b"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.2\r\nHost: x\r\n\r\n",  # RFC 9112 section 2.3
    ):
        assert converse([data])[0][0].endswith(" /")


@pytest.mark.parametrize("version", [b"0.9", b"2.0", b"3.1", b"9.9"])
def test_another_major_version_is_not_supported(version: bytes) -> None:
    # RFC 9110 section 15.6.6; a client of HTTP/2 that knows the server says PRI.
    assert converse([GET.replace(b"1.1", version)])[0] == ["505"]


def test_two_kinds_of_framing_at_once_are_refused() -> None:
    # RFC 9112 section 6.1.
    for start in (b"POST / HTTP/1.1\r\nHost: x\r\n", b"POST / HTTP/1.0\r\n"):
        for fields in (length_of(4) + CODING, CODING + length_of(4)):
            data = start + fields + b"\r\n0\r\n\r\n"
            assert converse([data + GET])[0] == ["400"]


@pytest.mark.parametrize(
    "data",
    [
        b"HEAD / HTTP/2.0\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nHost: x\r\n" + length_of(4) + CODING + b"\r\n",
    ],
)
def test_bad_head_request_is_answered_without_a_body(data: bytes) -> None:
    protocol = Protocol(SMALL)
    protocol.receive_data(data)
    with pytest.raises(BadRequestError) as error:
        protocol.next_request()
    assert not protocol.response_has_body(error.value.status)
    protocol.start_response(ResponseHead(error.value.status), 5, closes=True)
    protocol.finish_response()
    assert protocol.discard_request_body() is None
    assert not protocol.start_next_cycle()


def test_empty_lines_are_not_looked_at_beyond_their_limit() -> None:
    protocol = Protocol(Config())
    protocol.receive_data(b"\r\n" * 200_000)
    with pytest.raises(BadRequestError, match="too many empty lines before a request"):
        protocol.next_request()
    assert protocol._guard._empty_lines == 9


@pytest.mark.parametrize("size", [101, 200, 1000])
def test_head_that_comes_at_once_is_too_large(size: int) -> None:
    data = GET[:-2] + b"X: " + b"x" * (size - len(GET) - 5) + b"\r\n\r\n"
    assert len(data) == size
    assert converse([data])[0] == ["431"]


def test_head_of_exactly_the_largest_size() -> None:
    data = GET[:-2] + b"X: " + b"x" * (100 - len(GET) - 5) + b"\r\n\r\n"
    assert len(data) == 100
    for pieces in ([data], [data[i : i + 1] for i in range(100)], [GET + data]):
        assert converse(pieces)[0][-2:] == ["GET /a", "waits for a head"]
    story, _ = converse([GET, data[:-4] + b"xx", b"\r\n\r\n"])
    assert story == ["GET /a", "431"]


# Whatever comes, there is an answer.


@settings(deadline=None)
@given(st.lists(st.binary()), st.booleans())
def test_random_bytes(pieces: list[bytes], eof: bool) -> None:
    story, _ = converse(filter(None, pieces), eof=eof)
    assert story[-1] in ("400", "431", "waits for a head", "closed")


fragments = st.sampled_from(
    [
        *(GET, POST, CHUNKED, EXPECT, CODING, length_of(3), length_of(30), length_of(10**20)),
        *(b"GET ", b"HEAD ", b"CONNECT ", b"/", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"Host: x\r\n"),
        *(b"Connection: close\r\n", b"Upgrade: h2c\r\n", b"X: ", b"Content-Length: "),
        *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"0\r\n", b"1\r\nx\r\n", b"ff;x=y\r\n", b" ", b"\t"),
        *(b"\0", b"\xff", b":", b",", b";", b"="),
    ]
)
some_bytes = st.lists(fragments | st.binary(max_size=3), max_size=12).map(b"".join)


@settings(deadline=None)
@given(some_bytes, st.data(), st.booleans())
@example(b"\r", None, False)
def test_almost_requests(data: bytes, draws: st.DataObject | None, eof: bool) -> None:
    config = Config(max_head_size=10_000, max_discarded_body=10)
    whole = converse([data] if data else [], config, eof=eof)[0]
    assert whole[-1] in {
        *("400", "431", "501", "ends", "bad body"),
        *(("closed",) if eof else ("waits for a head", "waits for a body")),
    }
    # However it is cut.
    assert converse([data[i : i + 1] for i in range(len(data))], config, eof=eof)[0] == whole
    if draws is not None and len(data) > 1:
        cuts = sorted(draws.draw(st.sets(st.integers(1, len(data) - 1), max_size=4)))
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        assert converse(pieces, config, eof=eof)[0] == whole
