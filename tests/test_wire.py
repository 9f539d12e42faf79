"""What comes in, strictly: the requests of `hostile_requests.py`, however they are split."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

import pytest
import trio

from tests.harness import decode, get, open_peer, without_date
from tests.hostile_requests import CONFIG, FOLLOW_UP, REQUESTS, Hostile
from trio_stream import App, BadRequestError, Request, Response
from trio_stream._protocol import Protocol
from trio_stream._response_head import ResponseHead

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.harness import Kind


def echo(pieces: Iterable[bytes]) -> tuple[list[int], bytes, str]:
    """Answer each request with its body, or else its host, as a connection would.

    Returns:
      The statuses, the last body but that of the follow-up, and whether more is waited for.
    """
    protocol = Protocol(CONFIG)
    unsent = iter(pieces)
    statuses: list[int] = []
    body = b""
    while True:
        status = 200
        try:
            while (head := protocol.next_request()) is None:
                if (piece := next(unsent, None)) is None:
                    return statuses, body, "waits"
                protocol.receive_data(piece)
            received = b""
            while (data := protocol.receive_body()) != b"":
                if data is None:
                    if (piece := next(unsent, None)) is None:
                        return statuses, body, "waits"
                    protocol.receive_data(piece)
                received += data or b""
            if head.target == b"/next":
                return statuses, body, "lives"
            fields = {name.lower(): value for name, value in head.fields.items}
            host = fields.get(b"host", b"")
            framed = fields.get(b"transfer-encoding")
            body = b"" if head.method == b"HEAD" else received if received or framed else host
        except BadRequestError as exc:
            status = exc.status
            body = b""
        if head is not None and (head.method, head.target) == (b"OPTIONS", b"*"):
            status, body = 204, b""
        statuses.append(status)
        protocol.start_response(ResponseHead(status), 0, closes=status >= 400)
        protocol.finish_response()
        protocol.discard_request_body()
        if not protocol.start_next_cycle():
            return statuses, body, "ends"


def name_of(request: Hostile) -> str:
    return re.sub(r"\W+", "-", f"{request.rfc} {request.why}")


@pytest.mark.parametrize("hostile", REQUESTS, ids=name_of)
def test_hostile_request_however_it_is_split(hostile: Hostile) -> None:
    data = hostile.data + FOLLOW_UP
    end = {True: "lives", False: "ends", None: "waits"}[hostile.lives]
    expected = (list(hostile.statuses), hostile.body, end)
    assert echo([data]) == expected
    assert echo(data[i : i + 1] for i in range(len(data))) == expected
    cut = random.Random(len(data)).randrange(1, len(data))
    assert echo([data[:cut], data[cut:]]) == expected
    assert echo([hostile.data, FOLLOW_UP]) == expected


def app_that_echoes() -> App:
    app = App(config=CONFIG)

    async def handler(res: Response, req: Request) -> None:
        body = await req.read()
        res.end(body or req.headers.get("Host", "").encode("ascii"))

    for method in ("get", "post", "head", "trace"):
        getattr(app, method)("/*", handler)
    return app


@pytest.mark.parametrize("hostile", [r for r in REQUESTS if r.lives is False], ids=name_of)
async def test_connection_ends_with_an_answer_that_says_so(hostile: Hostile) -> None:
    # RFC 9112 section 9.6, RFC 9110 section 6.6.1.
    async with open_peer(app_that_echoes(), "memory", window=10_000) as peer:
        await peer.send_all(hostile.data + FOLLOW_UP)
        received = await peer.receive_until_eof()
    answer, rest = decode(without_date(received))
    assert (answer.status,) == hostile.statuses
    assert (b"Connection", b"close") in answer.fields
    assert answer.is_whole
    assert rest == b""


@pytest.mark.parametrize("hostile", [r for r in REQUESTS if r.lives], ids=name_of)
async def test_unusual_request_is_answered_and_the_next_one(hostile: Hostile) -> None:
    method = hostile.data.strip().partition(b" ")[0].decode("ascii")
    async with open_peer(app_that_echoes(), "memory", window=10_000) as peer:
        await peer.send_all(hostile.data + get("/", "Connection: close").replace(b"x", b"next", 1))
        answer, rest = decode(without_date(await peer.receive_until_eof()), method=method)
    if method != "get":  # a method of no route
        assert (answer.status,) == hostile.statuses
    assert decode(rest)[0].body == b"next"


# 100 Continue (RFC 9110 section 10.1.1)...


@pytest.mark.parametrize(
    ("lines", "begun", "rest", "version", "expected"),
    [
        (("Content-Length: 5",), b"", b"hello", "1.1", True),
        (("Content-Length: 5",), b"h", b"ello", "1.1", False),
        (("Content-Length: 5",), b"hello", b"", "1.1", False),
        (("Content-Length: 5",), b"", b"hello", "1.0", False),
        (("Transfer-Encoding: chunked",), b"", b"5\r\nhello\r\n0\r\n\r\n", "1.1", True),
        (("Transfer-Encoding: chunked",), b"5", b"\r\nhello\r\n0\r\n\r\n", "1.1", False),
        ((), b"", b"", "1.1", False),
    ],
)
async def test_client_is_told_to_continue_only_if_it_waits(
    lines: tuple[str, ...], begun: bytes, rest: bytes, version: str, expected: bool, kind: Kind
) -> None:
    head = get("/", *lines, "Expect: 100-Continue", method="POST", version=version)
    async with open_peer(app_that_echoes(), kind) as peer:
        await peer.send_all(head + begun)
        if expected:
            assert await peer.receive_head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        if rest:
            await peer.send_all(rest)
        assert (await peer.receive_head()).startswith(b"HTTP/1.1 200 OK\r\n")
        assert await peer.receive_exactly(5 if lines else 1) in (b"hello", b"x")


# Answers...


@pytest.mark.parametrize("length_is_known", [True, False])
async def test_reset_content_has_none_itself(length_is_known: bool) -> None:
    # RFC 9110 section 15.3.6.
    app = App()

    @app.get("/")
    async def reset(res: Response, _: Request) -> None:
        res.write_status(205)
        result = await res.send_chunk(b"hello", 5 if length_is_known else None)
        assert result == (True, True)

    async with open_peer(app, "memory") as peer:
        await peer.send_all(get("/"))
        head = await peer.receive_head()
        await peer.send_all(get("/none"))
        assert b"\r\nContent-Length: 0\r\n" in head
        assert b"chunked" not in head
        assert (await peer.receive_head()).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (get("/", "Content-Length: 4000000", "Expect: no", method="POST"), 417),
        (get("/", "Content-Length: 4000000", "Transfer-Encoding: chunked", method="POST"), 400),
        (get("/", "Transfer-Encoding: chunked", method="POST") + b"x\r\n", 400),
        (get("/" + 700 * "a", "Content-Length: 4000000"), 414),
        (get("/", "Content-Length: 4000000", method="PUT"), 405),
    ],
)
async def test_client_reads_the_answer_though_it_was_still_sending(
    head: bytes, status: int, kind: Kind
) -> None:
    # RFC 9112 section 9.6: a reset would destroy what it has not read.
    with trio.fail_after(10):
        async with open_peer(app_that_echoes(), kind) as peer, trio.open_nursery() as nursery:

            async def send() -> None:
                await peer.send_all(head)
                for _ in range(4):
                    await peer.send_all(bytes(1_000_000))

            nursery.start_soon(send)
            answer, rest = decode(without_date(await peer.receive_until_eof()))
            assert (answer.status, answer.is_whole, rest) == (status, True, b"")
            assert (b"Connection", b"close") in answer.fields
