"""A graceful end: who is still answered, who is cut off and when; and the lifespan of an app."""

from __future__ import annotations

import logging
import socket
from contextlib import asynccontextmanager
from math import inf, nan
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from tests.harness import connect, get, open_peer, start_server, without_date
from trio_stream import AbortReason, App, Config, Request, Response, Server
from trio_stream._protocol import Protocol
from trio_stream._socket_transport import SocketTransport
from trio_stream._stream_transport import StreamTransport
from trio_stream._tls import TLSTransport
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from trio.testing import MockClock

    from tests.harness import Kind

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
LAST_HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"


def hello_app(config: Config | None = None) -> App:
    app = App(config=config)
    app.get("/", lambda res, _: res.end("hello"))
    return app


# Connections without a response under way...


@pytest.mark.parametrize("times", [1, 2])
async def test_an_idle_connection_is_closed(kind: Kind, times: int) -> None:
    async with open_peer(hello_app(), kind) as peer:
        await peer.send_all(get("/"))
        assert without_date(await peer.receive_some()) == HELLO
        await wait_all_tasks_blocked()
        for _ in range(times):
            peer.server.shutdown()
        assert await peer.receive_some() == b""


async def test_a_request_that_has_just_arrived_is_answered(kind: Kind) -> None:
    async with open_peer(hello_app(), kind) as peer:
        await peer.send_all(get("/"))
        assert without_date(await peer.receive_some()) == HELLO
        await wait_all_tasks_blocked()
        peer.send_now(get("/"))
        peer.server.shutdown()
        assert without_date(await peer.receive_until_eof()) == LAST_HELLO


async def test_a_request_that_arrives_before_the_end_of_the_stream_is_sent_is_answered(
    kind: Kind,
) -> None:
    """Its client could not know; and what is no GET, a proxy may not send once more."""
    if kind == "stream":
        pytest.skip("what has arrived is known when a task has read it")
    async with open_peer(hello_app(), kind) as peer:
        await peer.send_all(get("/"))
        assert without_date(await peer.receive_some()) == HELLO
        await wait_all_tasks_blocked()
        peer.server.shutdown()
        peer.send_now(get("/"))
        assert without_date(await peer.receive_until_eof()) == LAST_HELLO


async def test_a_request_that_arrives_after_the_cut_is_not_answered() -> None:
    async with open_peer(hello_app(), "memory") as peer:
        await peer.send_all(get("/"))
        assert without_date(await peer.receive_some()) == HELLO
        await wait_all_tasks_blocked()
        peer.server.shutdown()
        peer.server._cut_off()
        peer.send_now(get("/"))
        assert await peer.receive_until_eof() == b""


@pytest.mark.parametrize("requests", [0, 1])
async def test_a_head_that_has_begun_is_answered(kind: Kind, requests: int) -> None:
    async with open_peer(hello_app(Config(linger_timeout=0.01)), kind) as peer:
        for _ in range(requests):
            await peer.send_all(get("/"))
            assert without_date(await peer.receive_some()) == HELLO
        head = get("/")
        await peer.send_all(head[:9])
        await wait_all_tasks_blocked()
        peer.server.shutdown()
        await trio.sleep(0.02)
        await peer.send_all(head[9:])
        assert without_date(await peer.receive_until_eof()) == LAST_HELLO


async def test_a_pipelined_request_that_was_received_is_answered(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def between_requests(protocol: Protocol) -> bool:
        client.server.shutdown()
        return start_next_cycle(protocol)

    start_next_cycle = Protocol.start_next_cycle
    monkeypatch.setattr(Protocol, "start_next_cycle", between_requests)
    async with open_client(hello_app()) as client:
        await client.send_all(get("/") + get("/"))
        await trio.sleep(1)
        assert without_date(await client.receive_some()) == HELLO + LAST_HELLO


async def test_a_new_connection_has_a_while_for_its_request(autojump_clock: MockClock) -> None:
    app = hello_app(Config(linger_timeout=3))
    async with open_client(app) as client:
        await trio.sleep(1)
        client.server.shutdown()
        await trio.sleep(1.9)
        await client.send_all(get("/")[:5])
        await trio.sleep(10)
        await client.send_all(get("/")[5:])
        assert without_date(await client.receive_some()) == LAST_HELLO
    for age in (1, 5):
        async with open_client(app) as client:
            opened_at = trio.current_time()
            await trio.sleep(age)
            client.server.shutdown()
            assert await client.receive_some() == b""
            assert trio.current_time() == opened_at + max(age, 3)


async def test_an_empty_line_is_no_request_that_came_in_time(autojump_clock: MockClock) -> None:
    async with open_client(hello_app(Config(linger_timeout=2))) as client:
        await wait_all_tasks_blocked()
        client.server.shutdown(grace=60)
        await trio.sleep(1)
        await client.send_all(b"\r\n")
        assert await client.receive_some() == b""
        assert trio.current_time() == 2


async def test_a_connection_that_was_just_accepted_has_it_too(autojump_clock: MockClock) -> None:
    async with open_client(hello_app()) as client:
        client.server.shutdown()  # its task has not begun
        await trio.sleep(1)
        await client.send_all(get("/"))
        assert without_date(await client.receive_some()) == LAST_HELLO


async def test_a_connection_that_becomes_idle_later_is_closed(autojump_clock: MockClock) -> None:
    app = hello_app()
    async with open_client(app) as client:
        await client.send_all(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1234"
        )  # its answer does not wait for the rest
        answer = b"".join([await client.receive_some() for _ in range(1)])
        assert answer.startswith(b"HTTP/1.1 405 ")
        client.server.shutdown()
        await client.send_all(b"56789")
        assert await client.receive_some() == b""


# Responses under way...


def slow_app(
    told: list[str],
    *,
    cancel_on_abort: bool = True,
    grace: float = 25,
    on_aborted: Callable[[Response], object] = lambda _: None,
) -> App:
    app = hello_app(Config(shutdown_grace=grace, stall_timeout=1000))

    @app.get("/slow", cancel_on_abort=cancel_on_abort)
    async def slow(res: Response, req: Request) -> None:
        res.on_aborted(lambda res: told.append(f"aborted: {res.abort_reason}"))
        res.on_aborted(on_aborted)
        try:
            if "stalled" in req.query:
                result = await res.send_chunk(bytes(10_000_000), 10_000_000)
                told.append(f"returned: {result}")
            await trio.sleep(float(req.query.get("seconds", "inf")))
            res.end("slept")
        except trio.Cancelled:
            told.append("cancelled")
            raise

    return app


async def test_a_response_has_its_grace(autojump_clock: MockClock) -> None:
    told: list[str] = []
    async with open_client(slow_app(told)) as client:
        await client.send_all(get("/slow?seconds=24.9"))
        await wait_all_tasks_blocked()
        client.server.shutdown()
        assert client.server.stats.shutting_down
        answer = without_date(await client.receive_some())
        assert answer == LAST_HELLO.replace(b"hello", b"slept")
        assert await client.receive_some() == b""
    assert told == []


@pytest.mark.parametrize("waiting", [0, 1, 3])
async def test_a_response_may_end_when_a_shutdown_begins(
    waiting: int, autojump_clock: MockClock
) -> None:
    app = App()

    @app.get("/")
    async def endless(res: Response, _: Request) -> None:
        async with trio.open_nursery() as nursery:
            for _number in range(waiting):
                nursery.start_soon(res.wait_shutdown)
            if not waiting:  # it is told as well who asks late
                await trio.sleep(10)
        await res.wait_shutdown()
        res.end("well")

    async with open_client(app) as client:
        await client.send_all(get("/"))
        await trio.sleep(5)
        assert (client.unread, client.stats.active_responses) == (0, 1)
        client.server.shutdown()
        answer = without_date(await client.receive_some())
        assert answer == LAST_HELLO.replace(b"hello", b"well").replace(b": 5", b": 4")
        assert trio.current_time() == (5 if waiting else 10)
        assert not client.server.has_cut_off


@pytest.mark.parametrize("kind", ["stream", "tls"])
async def test_what_a_task_would_still_have_sent_is_cut_off(kind: Kind) -> None:
    """Of a response that is over, as all of it was accepted."""
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        transport = res._transport
        transport = transport._below if isinstance(transport, TLSTransport) else transport
        assert isinstance(transport, StreamTransport | SocketTransport)
        assert isinstance(transport._stream, trio.SocketStream)
        transport._stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1024)
        assert res.end(bytes(30_000))

    async with open_peer(app, kind, receive_buffer=1024) as peer:
        await peer.send_all(get("/"))
        while not peer.stats.responses:
            await trio.sleep(0)
        assert peer.stats.active_responses == 0
        await wait_all_tasks_blocked()
        peer.server.shutdown(grace=0)
        while peer.stats.open_connections:
            await trio.sleep(0)
        assert peer.server.has_cut_off
        assert peer.stats.aborts == {}
        with pytest.raises((trio.BrokenResourceError, ConnectionResetError)):
            await peer.receive_until_eof()


@pytest.mark.parametrize("cancel_on_abort", [True, False])
@pytest.mark.parametrize(
    ("graces", "seconds"),
    [
        ([None], 25),
        ([5], 5),
        ([0], 0),
        ([inf, 30], 30),
        ([30, None], 25),
        ([5, 30], 5),
        ([5, 0], 0),
    ],
)
async def test_what_takes_longer_is_cut_off(
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
    graces: list[float | None],
    seconds: float,
    cancel_on_abort: bool,
) -> None:
    told: list[str] = []
    aborted_at: list[float] = []
    caplog.set_level(logging.INFO, "trio_stream")
    app = slow_app(
        told,
        cancel_on_abort=cancel_on_abort,
        on_aborted=lambda _: aborted_at.append(trio.current_time()),
    )
    async with open_client(app, window=100) as client:
        await client.send_all(get("/slow?stalled"))
        await wait_all_tasks_blocked()
        began = trio.current_time()
        for grace in graces:
            client.server.shutdown(grace=grace)
        await trio.sleep(100)
        assert aborted_at == [began + seconds]
        assert client.stats.aborts == {AbortReason.SHUTDOWN: 1}
        assert client.stats.open_connections == 0
    # In the order of the contract.
    assert told == [
        "aborted: AbortReason.SHUTDOWN",
        "returned: SendResult(ok=False, done=True)",
        "cancelled",
    ]
    first_grace = graces[0] if graces[0] is not None else 25
    assert [r.getMessage() for r in caplog.records if r.name == "trio_stream"] == [
        f"shutting down: 1 response under way, which may take {first_grace} seconds",
        "shutting down: 1 response cut off",
    ]


@pytest.mark.parametrize("grace", [-1, nan, "5"])
async def test_a_grace_must_be_a_number(grace: float) -> None:
    server = Server(App()._router, Config())
    with pytest.raises(ValueError, match="grace must be a number of seconds, and not negative"):
        server.shutdown(grace=grace)
    assert not server.stats.shutting_down


@pytest.mark.parametrize("epoll", [False, True])
@pytest.mark.parametrize("cancel_on_abort", [True, False])
async def test_serve_returns_after_the_grace(
    epoll: bool, cancel_on_abort: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_stream")
    told: list[str] = []
    app = slow_app(told, cancel_on_abort=cancel_on_abort, grace=0.05)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            server = await start_server(nursery, app, epoll=epoll)
            stalled = await connect(server.port, receive_buffer=1024)
            lingering = await connect(server.port)
            await stalled.send_all(get("/slow?stalled"))
            await lingering.send_all(get("/", "Connection: close"))
            assert (await lingering.receive_some()).endswith(b"hello")
            assert await lingering.receive_some() == b""  # and it waits for ours
            while server.stats.active_responses != 1:
                await trio.sleep(0.001)
            server.shutdown()
    await stalled.aclose()
    await lingering.aclose()
    assert told == [
        "aborted: AbortReason.SHUTDOWN",
        "returned: SendResult(ok=False, done=True)",
        "cancelled",
    ]
    assert server.stats.open_connections == server.stats.active_responses == 0
    assert caplog.messages[-1] == "shut down"


# The lifespan...


class Spy:
    """Lifespans that tell when they are entered and left."""

    def __init__(self, app: App, *names: str) -> None:
        self.told: list[str] = []
        for name in names:
            app.lifespan(lambda name=name: self._open(name))
        app.get("/", self._answer)

    @asynccontextmanager
    async def _open(self, name: str) -> AsyncIterator[None]:
        self.told.append(f"{name} opens")
        await trio.lowlevel.checkpoint()
        yield
        self.told.append(f"{name} closes")

    async def _answer(self, res: Response, _: Request) -> None:
        self.told.append("handler")
        try:
            await res.send_chunk(b"1", 2)
            await trio.sleep(0.1)
            res.end("2")
        finally:
            self.told.append("handler ends")

    order = ("a opens", "b opens", "handler", "handler ends", "b closes", "a closes")


async def test_lifespan_with_serve() -> None:
    spy = Spy(app := App(), "a", "b")
    async with trio.open_nursery() as nursery:
        server = await start_server(nursery, app)
        assert spy.told == ["a opens", "b opens"]
        async with await connect(server.port) as stream:
            await stream.send_all(get("/"))
            await stream.receive_some()
            server.shutdown()
            assert await stream.receive_some() == b"2"
    assert tuple(spy.told) == spy.order


async def test_lifespan_with_serve_stream(autojump_clock: MockClock) -> None:
    spy = Spy(app := App(), "a", "b")
    client, stream = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.serve_stream, stream)
        await client.send_all(get("/", "Connection: close"))
        while await client.receive_some():
            pass
        await client.aclose()
    assert tuple(spy.told) == spy.order


async def test_lifespan_with_open_client(autojump_clock: MockClock) -> None:
    spy = Spy(app := App(), "a", "b")
    async with open_client(app) as client:
        assert await (await client.get("/")).read() == b"12"
    assert tuple(spy.told) == spy.order


async def test_an_error_at_the_start_ends_the_server_before_it_serves() -> None:
    app = hello_app()
    database: list[str] = []

    @app.lifespan
    @asynccontextmanager
    async def fail() -> AsyncIterator[None]:
        if not database:
            raise LookupError("no database")
        yield

    with pytest.raises(LookupError, match="no database"):
        await app.serve(port=0)
    with pytest.raises(LookupError, match="no database"):
        async with open_client(app):
            raise AssertionError("it was entered")


async def test_an_error_while_it_serves_ends_the_server(autojump_clock: MockClock) -> None:
    app = App()

    async def fail() -> None:
        await trio.sleep(5)
        raise LookupError("the database has gone")

    @app.lifespan
    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            yield

    with pytest.raises(ExceptionGroup) as raised:
        await app.serve(port=0)
    assert raised.group_contains(LookupError, match="the database has gone")


@pytest.mark.parametrize("error", [OSError, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("when", ["as it begins", "as it ends"])
def test_an_exception_in_a_lifespan_is_raised_by_run(error: type[BaseException], when: str) -> None:
    app = App()

    @app.lifespan
    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        if when == "as it begins":
            raise error("not today")
        yield
        raise error("not today")

    with pytest.raises(error, match=r"^not today$"):
        app.run(port=0, announce=Server.shutdown)


async def test_a_lifespan_that_ends_by_itself_is_an_error(autojump_clock: MockClock) -> None:
    app = App()

    @app.lifespan
    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        with trio.move_on_after(5):
            yield

    message = "^a lifespan has ended before its time, and with it the server$"
    with pytest.raises(RuntimeError, match=message):
        await app.serve(port=0)
    with pytest.raises(RuntimeError, match=message):
        await app.serve_stream(memory_stream_pair()[0])
    with pytest.raises(RuntimeError, match=message):
        async with open_client(app):
            await trio.sleep(10)
    assert trio.current_time() == 15


def test_what_makes_no_context_manager_is_no_lifespan() -> None:
    async def generator() -> AsyncIterator[None]:
        yield

    def plain_generator() -> Iterator[None]:
        yield

    async def function() -> None:
        pass

    app = App()
    for mistake in (generator, plain_generator, function, 5):
        with pytest.raises(
            TypeError, match=r"not (<function .*|5): @asynccontextmanager makes one"
        ):
            app.lifespan(mistake)  # type: ignore[type-var]


@pytest.mark.parametrize(("seconds", "ended_at"), [(0, 25), (20, 25), (24, 27), (inf, 28)])
async def test_the_end_of_a_lifespan_has_a_limit(
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
    seconds: float,
    ended_at: float,
) -> None:
    caplog.set_level(logging.WARNING, "trio_stream")
    app = slow_app([])
    ended: list[float] = []

    @app.lifespan
    @asynccontextmanager
    async def hang() -> AsyncIterator[None]:
        yield
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async with open_client(app) as client:
        server = client.server
        await client.send_all(get(f"/slow?seconds={seconds}"))
        await wait_all_tasks_blocked()
        server.shutdown()
        await trio.sleep(min(seconds, 25))
    assert ended == [ended_at]
    assert server.has_cut_off
    assert caplog.messages[-1] == (
        "shutting down: a lifespan has not ended in time, and is cancelled"
    )


@pytest.mark.parametrize(
    ("grace", "seconds", "ended_at"), [(25, 20, 20), (25, inf, 25), (1, 2, 2), (1, inf, 3)]
)
async def test_a_shutdown_while_lifespans_begin(
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
    grace: float,
    seconds: float,
    ended_at: float,
) -> None:
    caplog.set_level(logging.INFO, "trio_stream")
    spy = Spy(app := App(), "a")

    @app.lifespan
    @asynccontextmanager
    async def slow() -> AsyncIterator[None]:
        await trio.sleep(seconds)
        spy.told.append("began")
        yield

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    server = app._make_server(listeners)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server._serve, lambda _: spy.told.append("serves"))
        await wait_all_tasks_blocked()
        server.shutdown(grace=grace)
        server.shutdown()
    for listener in listeners:
        await listener.aclose()
    assert trio.current_time() == ended_at
    in_time = seconds < inf
    # What is open is cancelled, too, if another one takes too long.
    assert spy.told == ["a opens", *["began", "a closes"] * in_time]
    assert server.has_cut_off is not in_time
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    too_long = "shutting down: a lifespan has not begun in time, and is cancelled"
    assert warnings == [too_long] * (not in_time)
