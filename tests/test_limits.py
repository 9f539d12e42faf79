"""Limits in time and number: exact times, exact bytes, and what becomes of the handler."""

from __future__ import annotations

import socket
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from tests.harness import connect, get, open_peer, start_server, without_date
from trio_stream import (
    AbortReason,
    App,
    BadRequestError,
    Config,
    Request,
    Response,
    Server,
)
from trio_stream._connection import Connection
from trio_stream._socket_transport import SocketTransport
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from tests.harness import Kind
    from trio_stream.testing import Client

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
HELLO_CLOSE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
HEAD = (
    "HTTP/1.1 {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n"
    "Connection: close\r\n\r\n{}\n"
)
TIMEOUT = HEAD.format("408 Request Timeout", 16, "Request Timeout").encode()
BAD_REQUEST = HEAD.format("400 Bad Request", 12, "Bad Request").encode()
UNAVAILABLE = HEAD.format("503 Service Unavailable", 20, "Service Unavailable").encode()

POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"


def hello_app(config: Config | None = None) -> App:
    app = App(config=config)
    app.get("/", lambda res, _: res.end("hello"))
    return app


async def receive_until_eof(client: Client) -> tuple[bytes, float]:
    """What the client gets until the server ends its stream, and when that is."""
    received = bytearray()
    while data := await client.receive_some():
        received += data
    return without_date(bytes(received)), trio.current_time()


async def trickle(client: Client, data: bytes, interval: float, at_once: int = 1) -> None:
    """Send `data` slowly, until the server has closed."""
    for start in range(0, len(data), at_once):
        try:
            await client.send_all(data[start : start + at_once])
        except trio.BrokenResourceError:
            return
        await trio.sleep(interval)


# The head


@pytest.mark.parametrize("timeout", [20, 0.5])
@pytest.mark.parametrize("sent", [get("/")[:-1], b"G", b"GET / HTTP/1.1\r\nHost:"])
async def test_head_that_does_not_come_in_time_is_408(
    timeout: float, sent: bytes, autojump_clock: MockClock
) -> None:
    async with open_client(hello_app(Config(head_timeout=timeout))) as client:
        await client.send_all(sent)
        assert await receive_until_eof(client) == (TIMEOUT, timeout)
        assert client.stats.requests == 0
        assert client.stats.aborts == {}


async def test_trickling_bytes_earn_no_time_for_a_head(autojump_clock: MockClock) -> None:
    async with open_client(hello_app()) as client, trio.open_nursery() as nursery:
        nursery.start_soon(trickle, client, get("/", *["X: y"] * 100), 1)
        assert await receive_until_eof(client) == (TIMEOUT, 20)
        nursery.cancel_scope.cancel()


async def test_connection_without_a_byte_is_closed_without_a_word(
    autojump_clock: MockClock,
) -> None:
    async with open_client(hello_app()) as client:
        assert await receive_until_eof(client) == (b"", 20)


async def test_head_that_comes_at_the_last_moment_is_served(autojump_clock: MockClock) -> None:
    async with open_client(hello_app()) as client:
        await client.send_all(get("/")[:-2])
        await trio.sleep(19.999)
        await client.send_all(get("/")[-2:])
        assert without_date(await client.receive_some()) == HELLO


@pytest.mark.parametrize(
    ("rest", "answer"), [(b"\r\n", TIMEOUT), (b"no field\r\n\r\n", BAD_REQUEST)]
)
async def test_head_that_comes_in_the_moment_of_its_timeout_is_answered_once(
    rest: bytes, answer: bytes, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_timeout = Connection.on_timeout

    def send_and_stall(self: Connection) -> None:
        client._transport.send_to_server(rest)
        on_timeout(self)

    monkeypatch.setattr(Connection, "on_timeout", send_and_stall)
    async with open_client(hello_app()) as client:
        await client.send_all(get("/")[:-2])
        assert await receive_until_eof(client) == (answer, 20)
        assert client.stats.requests == 0


@pytest.mark.parametrize("begins", ["later", "with the request before"])
async def test_later_head_is_timed_from_its_first_byte(
    begins: str, autojump_clock: MockClock
) -> None:
    async with open_client(hello_app()) as client:
        await client.send_all(get("/") + (b"" if begins == "later" else b"GET"))
        assert without_date(await client.receive_some()) == HELLO
        if begins == "later":
            await trio.sleep(70)
            await client.send_all(b"GET")
        start = trio.current_time()
        assert await receive_until_eof(client) == (TIMEOUT, start + 20)


async def test_408_is_sent_over_a_socket(kind: Kind) -> None:
    with trio.fail_after(10):
        async with open_peer(hello_app(Config(head_timeout=0.05)), kind) as peer:
            await peer.send_all(b"GET / HTTP/1.1\r\n")
            assert without_date(await peer.receive_until_eof()) == TIMEOUT


# Idle


@pytest.mark.parametrize("timeout", [75, 5])
async def test_idle_connection_is_closed_without_a_word(
    timeout: float, autojump_clock: MockClock
) -> None:
    async with open_client(hello_app(Config(keep_alive_timeout=timeout))) as client:
        for _ in range(3):
            await trio.sleep(min(timeout, 20) - 0.001)
            await client.send_all(get("/"))
            assert without_date(await client.receive_some()) == HELLO
        start = trio.current_time()
        assert await receive_until_eof(client) == (b"", start + timeout)


async def test_idle_socket_is_closed(kind: Kind) -> None:
    with trio.fail_after(10):
        async with open_peer(hello_app(Config(keep_alive_timeout=0.05)), kind) as peer:
            await peer.send_all(get("/"))
            assert without_date(await peer.receive_until_eof()) == HELLO


async def test_without_timeouts_a_connection_stays(autojump_clock: MockClock) -> None:
    config = Config(head_timeout=inf, keep_alive_timeout=inf, rate_grace=inf)
    async with open_client(hello_app(config)) as client:
        for _ in range(3):
            await trio.sleep(1e6)
            await client.send_all(get("/")[:5])
            await trio.sleep(1e6)
            await client.send_all(get("/")[5:])
            assert without_date(await client.receive_some()) == HELLO


async def test_keep_alive_does_not_count_while_a_response_is_under_way(
    autojump_clock: MockClock,
) -> None:
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        await trio.sleep(1000)
        res.end("hello")

    async with open_client(app) as client:
        for _ in range(2):
            await client.send_all(get("/"))
            assert without_date(await client.receive_some()) == HELLO


async def test_an_empty_line_between_requests_begins_none(autojump_clock: MockClock) -> None:
    """RFC 9112 section 2.2."""
    config = Config(head_timeout=2, keep_alive_timeout=75)
    async with open_client(hello_app(config)) as client:
        await client.send_all(get("/"))
        assert without_date(await client.receive_some()) == HELLO
        await trio.sleep(1)
        await client.send_all(b"\r\n")
        assert await receive_until_eof(client) == (b"", 75)


# A server that is busy


@pytest.mark.parametrize(
    ("before", "rest"),
    [
        (b"", get("/")),
        (get("/")[:5], get("/")[5:]),
        (get("/"), get("/")),
        (get("/", "Content-Length: 5", method="POST"), b"hello"),
    ],
)
async def test_what_comes_while_the_server_is_busy_has_come_in_time(
    before: bytes, rest: bytes, kind: Kind, mock_clock: MockClock
) -> None:
    app = hello_app(Config(min_upload_rate=1000))

    @app.post("/")
    async def handler(res: Response, req: Request) -> None:
        res.end(await req.read())

    for _ in range(10):  # who runs first is left to chance
        async with open_peer(app, kind) as peer:
            await peer.send_all(before)
            if before == get("/"):
                assert without_date(await peer.receive_some()) == HELLO
            await wait_all_tasks_blocked()
            peer.send_now(rest)
            mock_clock.jump(1000)
            assert without_date(await peer.receive_some()) == HELLO


async def test_time_in_which_the_server_is_busy_is_nobodys_debt(
    kind: Kind, mock_clock: MockClock
) -> None:
    app = App(config=Config(min_upload_rate=1000))

    @app.post("/")
    async def handler(res: Response, req: Request) -> None:
        async for _ in req.body:
            for _ in range(10):  # while it may be looked at how slow the client was
                await trio.lowlevel.checkpoint()
        res.end("hello")

    for _ in range(10):  # who runs first is left to chance
        async with open_peer(app, kind) as peer:
            await peer.send_all(get("/", "Content-Length: 5", method="POST"))
            await wait_all_tasks_blocked()
            peer.send_now(b"hello")
            mock_clock.jump(1000)
            assert without_date(await peer.receive_some()) == HELLO


# The body


def reading_app(config: Config, *, begin: bool = False, think: float = 0) -> App:
    app = App(config=config)

    @app.post("/")
    async def handler(res: Response, req: Request) -> None:
        if begin:
            await res.send_chunk(b"x", 10)
        async for _ in req.body:
            await trio.sleep(think)
        res.end("hello")

    app.get("/", lambda res, _: res.end("hello"))
    return app


@pytest.mark.parametrize(
    ("size", "interval", "ends_at"),
    [
        (0, inf, 5),  # nothing: when the grace is over
        (1, 1, 10),  # a trickle: when it is next looked at
        (119, 1, 10),  # less than half
        (190, 1, 25),  # four fifths: a fifth of the time adds up
        (950, 4.5, 25),  # bursts, a little too small
    ],
)
async def test_slow_body_is_408(
    size: int, interval: float, ends_at: float, autojump_clock: MockClock
) -> None:
    async with open_client(reading_app(Config())) as client, trio.open_nursery() as nursery:
        await client.send_all(POST)
        if size:
            nursery.start_soon(trickle, client, bytes(100_000), interval, size)
        assert await receive_until_eof(client) == (TIMEOUT, ends_at)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("size", "interval"), [(241, 1), (1000, 4), (1100, 4.5), (16_000, 4.9)])
async def test_body_at_the_minimum_rate_is_received(
    size: int, interval: float, autojump_clock: MockClock
) -> None:
    async with open_client(reading_app(Config())) as client, trio.open_nursery() as nursery:
        await client.send_all(POST.replace(b"1000000", b"100000"))
        nursery.start_soon(trickle, client, bytes(100_000), interval, size)
        assert without_date(await client.receive_some()) == HELLO


async def test_slow_body_is_a_cut_after_the_head(autojump_clock: MockClock) -> None:
    async with open_client(reading_app(Config(), begin=True)) as client:
        await client.send_all(POST)
        received, time = await receive_until_eof(client)
        assert received.startswith(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n")
        assert (received[-5:], time) == (b"\r\n\r\nx", 5)
        assert client.stats.aborts == {AbortReason.HANDLER_ERROR: 1}


async def test_no_rate_is_required_if_it_is_0(autojump_clock: MockClock) -> None:
    async with open_client(reading_app(Config(min_upload_rate=0))) as client:
        await client.send_all(POST.replace(b"1000000", b"2"))
        for _ in range(2):
            await trio.sleep(1e6)
            await client.send_all(b"x")
        assert without_date(await client.receive_some()) == HELLO


async def test_slowness_of_the_handler_does_not_count(autojump_clock: MockClock) -> None:
    async with open_client(reading_app(Config(), think=1000)) as client:
        await client.send_all(POST.replace(b"1000000", b"4"))
        for _ in range(4):
            await client.send_all(b"x")
            await trio.sleep(999)
        assert without_date(await client.receive_some()) == HELLO


async def test_handler_is_told_of_a_slow_body_as_often_as_it_asks(
    autojump_clock: MockClock,
) -> None:
    app = App()

    @app.post("/")
    async def handler(res: Response, req: Request) -> None:
        assert len(await req.body.receive_some()) == 3
        for _ in range(2):
            with pytest.raises(BadRequestError, match=r"slower than 240\.0 bytes") as info:
                await req.body.receive_some()
            assert info.value.status == 408
        res.end("hello")

    async with open_client(app) as client:
        await client.send_all(POST + b"abc")
        assert await receive_until_eof(client) == (HELLO, 5)


async def test_slowness_may_be_found_while_nobody_reads(autojump_clock: MockClock) -> None:
    app = App(config=Config(rate_grace=5))

    @app.post("/")
    async def handler(_: Response, req: Request) -> None:
        await req.body.receive_some()  # after 1 s
        await req.body.receive_some()  # after 9.9 s, looked at after 5 s and 10 s
        await trio.sleep(1)
        await req.body.receive_some()

    async with open_client(app) as client:
        await client.send_all(POST)
        await trio.sleep(1)
        await client.send_all(bytes(1000))
        await trio.sleep(8.9)
        await client.send_all(bytes(1))
        assert await receive_until_eof(client) == (TIMEOUT, 10.9)


async def test_slow_body_is_408_over_a_socket(kind: Kind) -> None:
    with trio.fail_after(10):
        async with open_peer(reading_app(Config(rate_grace=0.05)), kind) as peer:
            await peer.send_all(POST + b"abc")
            assert without_date(await peer.receive_until_eof()) == TIMEOUT


@pytest.mark.parametrize(
    ("rate", "linger", "ends_at"), [(240, 20, 5), (0, 20, 20), (240, 2, 2), (240, inf, 5)]
)
async def test_body_that_is_discarded_must_come_at_the_rate(
    rate: float, linger: float, ends_at: float, autojump_clock: MockClock
) -> None:
    app = App(config=Config(min_upload_rate=rate, linger_timeout=linger))
    app.post("/", lambda res, _: res.end("hello"))
    async with open_client(app) as client:
        await client.send_all(POST.replace(b"1000000", b"1000"))
        assert without_date(await client.receive_some()) == HELLO
        assert await receive_until_eof(client) == (b"", ends_at)


async def test_body_that_is_discarded_in_time_keeps_the_connection(
    autojump_clock: MockClock,
) -> None:
    app = hello_app(Config(linger_timeout=100))
    app.post("/", lambda res, _: res.end("hello"))
    async with open_client(app) as client, trio.open_nursery() as nursery:
        await client.send_all(POST.replace(b"1000000", b"10000"))
        assert without_date(await client.receive_some()) == HELLO
        nursery.start_soon(trickle, client, bytes(10_000) + get("/"), 1, 250)
        assert without_date(await client.receive_some()) == HELLO


# The response


def sending_app(config: Config, think: float = 0) -> App:
    app = App(config=config)

    @app.get("/")
    async def handler(res: Response, req: Request) -> None:
        for _ in range(100):
            await trio.sleep(think)
            await res.send_chunk(bytes(1000), 100_000)

    return app


async def take(client: Client, size: int, interval: float) -> None:
    while True:
        await trio.sleep(interval)
        try:
            if not await client.receive_some(size):
                return
        except trio.BrokenResourceError:
            return


@pytest.mark.parametrize(
    ("size", "interval", "ends_at"),
    [(1, 1e9, 5), (1, 1, 10), (499, 1, 10), (750, 1, 20), (3900, 4.5, 25)],
)
async def test_client_that_takes_less_than_the_rate_is_stalled(
    size: int, interval: float, ends_at: float, autojump_clock: MockClock
) -> None:
    app = App(config=Config(min_download_rate=1000))
    ends: list[tuple[float, AbortReason | None]] = []

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        res.on_aborted(lambda res: ends.append((trio.current_time(), res.abort_reason)))
        await res.send_chunk(bytes(100_000), 100_000)

    async with open_client(app, window=5000) as client, trio.open_nursery() as nursery:
        await client.send_all(get("/"))
        nursery.start_soon(take, client, size, interval)
        await trio.sleep(300)
        nursery.cancel_scope.cancel()
    assert ends == [(ends_at, AbortReason.STALLED)]


@pytest.mark.parametrize(
    ("rate", "size", "interval"), [(0, 500, 50), (1000, 1001, 1), (1000, 4500, 4.5)]
)
async def test_client_that_takes_the_minimum_rate_gets_all(
    rate: float, size: int, interval: float, autojump_clock: MockClock
) -> None:
    app = sending_app(Config(min_download_rate=rate))
    async with open_client(app, window=5000) as client, trio.open_nursery() as nursery:
        await client.send_all(get("/"))
        nursery.start_soon(take, client, size, interval)
        while client.stats.body_bytes_sent < 100_000:
            assert client.stats.aborts == {}
            await trio.sleep(10)
        nursery.cancel_scope.cancel()


async def test_slow_handler_does_not_make_its_client_slow(autojump_clock: MockClock) -> None:
    app = sending_app(Config(min_download_rate=1000), think=100)
    async with open_client(app, window=500) as client:
        response = await client.get("/")
        assert len(await response.read()) == 100_000


async def test_client_that_takes_too_little_from_a_socket_is_stalled(kind: Kind) -> None:
    app = App(config=Config(min_download_rate=1e9, rate_grace=0.05))
    aborted = trio.Event()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        res.on_aborted(lambda _: aborted.set())
        while (await res.send_chunk(bytes(100_000), 10**12)).ok:
            pass

    with trio.fail_after(10):
        async with open_peer(app, kind) as peer:
            await peer.send_all(get("/"))
            while not aborted.is_set():  # it takes some, again and again
                with trio.move_on_after(0.01):
                    await aborted.wait()
                with suppress(trio.BrokenResourceError):
                    await peer.receive_some(100)
            assert peer.stats.aborts == {AbortReason.STALLED: 1}


# The whole request


async def test_request_that_takes_too_long_is_503(autojump_clock: MockClock) -> None:
    log: list[object] = []
    app = App(config=Config(request_timeout=30))

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        res.on_aborted(lambda res: log.append((trio.current_time(), res.abort_reason)))
        try:
            await trio.sleep_forever()
        finally:
            log.append((trio.current_time(), "unwound"))

    async with open_client(app) as client:
        await client.send_all(get("/"))
        assert await receive_until_eof(client) == (UNAVAILABLE, 30)
        assert log == [(30, AbortReason.TIMED_OUT), (30, "unwound")]
        assert client.stats.aborts == {AbortReason.TIMED_OUT: 1}


async def test_request_that_takes_too_long_is_cut_after_the_head(
    autojump_clock: MockClock,
) -> None:
    app = App(config=Config(request_timeout=30))

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        await res.send_chunk(b"abc", 10)
        await trio.sleep_forever()

    async with open_client(app) as client:
        await client.send_all(get("/"))
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
        assert await receive_until_eof(client) == (head, 30)
        assert client.stats.aborts == {AbortReason.TIMED_OUT: 1}


async def test_time_that_the_client_takes_counts_for_a_request(autojump_clock: MockClock) -> None:
    app = App(config=Config(request_timeout=30))
    app.get("/", lambda res, _: res.end(bytes(100_000)))
    async with open_client(app, window=100) as client, trio.open_nursery() as nursery:
        await client.send_all(get("/"))
        nursery.start_soon(take, client, 10, 1)
        await trio.sleep(29.9)
        assert client.stats.aborts == {}
        await trio.sleep(0.2)
        assert client.stats.aborts == {AbortReason.TIMED_OUT: 1}
        nursery.cancel_scope.cancel()


async def test_client_that_takes_nothing_outlives_no_request(autojump_clock: MockClock) -> None:
    app = App(config=Config(request_timeout=30))

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        await res.send_chunk(bytes(1_000_000), 1_000_000)

    client, stream = lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.serve_stream, stream)
        await client.send_all(get("/"))
    assert trio.current_time() == 30


async def test_handler_that_is_not_cancelled_is_answered_for_when_it_returns(
    autojump_clock: MockClock,
) -> None:
    app = App(config=Config(request_timeout=30), cancel_on_abort=False)

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        await trio.sleep(50)
        assert res.abort_reason is AbortReason.TIMED_OUT
        assert not res.end("too late")

    async with open_client(app) as client:
        await client.send_all(get("/"))
        assert await receive_until_eof(client) == (UNAVAILABLE, 50)


async def test_each_request_has_its_own_time(autojump_clock: MockClock) -> None:
    app = App(config=Config(request_timeout=30))

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        await trio.sleep(29)
        res.end("hello")

    async with open_client(app) as client:
        await client.send_all(get("/") * 3)
        for _ in range(3):
            assert without_date(await client.receive_some(len(HELLO) + 37)) == HELLO


async def test_time_of_a_request_ends_with_its_response(autojump_clock: MockClock) -> None:
    went_on = []
    app = App(config=Config(request_timeout=30))

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        res.end("hello")
        await trio.sleep(50)
        went_on.append(trio.current_time())

    async with open_client(app) as client:
        await client.send_all(get("/"))
        assert without_date(await client.receive_some()) == HELLO
        await trio.sleep(60)
        assert went_on == [50]
        assert client.stats.aborts == {}


@pytest.mark.parametrize(
    ("own", "ends_at", "reason"),
    [(10, 10, AbortReason.CANCELLED), (50, 30, AbortReason.TIMED_OUT)],
)
async def test_deadline_of_a_handler_and_that_of_requests_do_not_undo_each_other(
    own: float, ends_at: float, reason: AbortReason, autojump_clock: MockClock
) -> None:
    app = App(config=Config(request_timeout=30))

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        res.cancel_scope.deadline = trio.current_time() + own
        await trio.sleep_forever()

    async with open_client(app) as client:
        await client.send_all(get("/"))
        received, time = await receive_until_eof(client)
        assert time == ends_at
        assert received == (UNAVAILABLE if reason is AbortReason.TIMED_OUT else b"")
        assert client.stats.aborts == {reason: 1}


async def test_deadline_of_a_handler_is_not_that_of_the_idle_connection(
    autojump_clock: MockClock,
) -> None:
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        res.cancel_scope.deadline = trio.current_time() + 10
        res.end("hello")

    async with open_client(app) as client:
        await client.send_all(get("/"))
        assert await receive_until_eof(client) == (HELLO, 75)


async def test_request_is_timed_out_over_a_socket(kind: Kind) -> None:
    app = App(config=Config(request_timeout=0.05))
    app.get("/", lambda *_: trio.sleep_forever())
    with trio.fail_after(10):
        async with open_peer(app, kind) as peer:
            await peer.send_all(get("/"))
            assert without_date(await peer.receive_until_eof()) == UNAVAILABLE
            assert peer.stats.aborts == {AbortReason.TIMED_OUT: 1}


# Numbers


@pytest.mark.parametrize("limit", [1, 3])
async def test_last_request_of_a_connection_closes_it(limit: int, kind: Kind) -> None:
    with trio.fail_after(10):
        async with open_peer(hello_app(Config(max_requests=limit)), kind) as peer:
            await peer.send_all(get("/") * 5)
            received = without_date(await peer.receive_until_eof())
            assert received == HELLO * (limit - 1) + HELLO_CLOSE
            assert peer.stats.requests == limit


async def receive_all(stream: trio.SocketStream) -> bytes:
    received = b""
    while data := await stream.receive_some():
        received += data
    return received


@pytest.mark.parametrize("epoll", [True, False])
async def test_connection_beyond_those_of_a_client_is_503(epoll: bool) -> None:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            app = hello_app(Config(max_connections_per_client=2))
            server = await start_server(nursery, app, epoll=epoll)
            streams = [await connect(server.port) for _ in range(2)]
            for stream in streams:
                await stream.send_all(get("/"))
                assert without_date(bytes(await stream.receive_some())) == HELLO
            async with await connect(server.port) as third:
                await third.send_all(b"\0 no request at all")  # it is not looked at
                assert without_date(await receive_all(third)) == UNAVAILABLE
            await streams[0].aclose()
            while server.stats.open_connections > 1:
                await trio.sleep(0.001)
            async with await connect(server.port) as fourth:
                await fourth.send_all(get("/"))
                assert without_date(bytes(await fourth.receive_some())) == HELLO
            assert server.stats.requests == 3
            await streams[1].aclose()
            nursery.cancel_scope.cancel()


async def test_client_without_an_address_does_not_count(tmp_path: Path) -> None:
    app = hello_app(Config(max_connections_per_client=1))
    server = Server(app._router, app.config)
    with trio.fail_after(10), socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        async with server._running(), trio.open_nursery() as nursery:
            clients: list[trio.abc.Stream] = []
            for _ in range(2):
                clients.append(await trio.open_unix_socket(tmp_path / "socket"))
                sock, _ = listener.accept()
                stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
                nursery.start_soon(server._serve_stream, stream)
                pair = memory_stream_pair()
                clients.append(pair[0])
                nursery.start_soon(server._serve_stream, pair[1])
            for client in clients:
                await client.send_all(get("/"))
                assert without_date(bytes(await client.receive_some())) == HELLO
            for client in clients:
                await client.aclose()


@pytest.mark.parametrize("epoll", [True, False])
async def test_connections_beyond_the_limit_wait_in_the_backlog(epoll: bool) -> None:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            app = hello_app(Config(max_connections=2))
            server = await start_server(nursery, app, epoll=epoll)
            streams = [await connect(server.port) for _ in range(4)]
            for stream in streams:
                await stream.send_all(get("/"))
            for stream in streams[:2]:
                assert without_date(bytes(await stream.receive_some())) == HELLO
            await wait_all_tasks_blocked(0.01)
            assert server.stats.open_connections == server.stats.requests == 2
            for before, stream in zip(streams, streams[2:], strict=False):
                await before.aclose()
                assert without_date(bytes(await stream.receive_some())) == HELLO
                assert server.stats.open_connections == 2
            for stream in streams[2:]:
                await stream.aclose()
            nursery.cancel_scope.cancel()


# What is kept of requests that are sent ahead


class Flood(trio.abc.Stream):
    """Requests without end, as many as are asked for."""

    def __init__(self) -> None:
        self.taken = 0

    async def send_all(self, _data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        assert max_bytes is not None
        self.taken += max_bytes
        return (get("/") * (max_bytes // len(get("/")) + 1))[:max_bytes]

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_bytes_sent_ahead_on_a_stream_are_bounded(autojump_clock: MockClock) -> None:
    app = App()
    app.get("/", lambda *_: trio.sleep_forever())
    stream = Flood()
    with trio.move_on_after(10):
        await app.serve_stream(stream)
    # The first read, what is read ahead, and the read that goes over it.
    assert stream.taken <= 16 * 1024 + app.config.stream_buffer_size + 16 * 1024


async def test_bytes_sent_ahead_on_a_socket_stay_there(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = 0
    receive_some = SocketTransport.receive_some

    async def count(self: SocketTransport, max_bytes: int = 0) -> bytes:
        nonlocal taken
        data = await receive_some(self, max_bytes)
        taken += len(data)
        return data

    monkeypatch.setattr(SocketTransport, "receive_some", count)
    app = App()
    app.get("/", lambda *_: trio.sleep_forever())
    with trio.fail_after(10):
        async with open_peer(app, "socket") as peer:
            with trio.move_on_after(0.2):
                while True:
                    await peer.send_all(get("/") * 1000)
            assert 0 < taken <= 16 * 1024
