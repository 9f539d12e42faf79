"""Many clients that vanish, in every phase and in every way: nothing is left of them.

All choices come from a seed, so a failure can be repeated, as far as the order of what happens on
sockets can be. With TRIO_STREAM_LARGE=1 in the environment there are 1000 clients at once.
"""

from __future__ import annotations

import gc
import os
import random
import socket
from collections import Counter
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.clients import body, open_descriptors, registered_descriptors, reset, until
from tests.harness import connect, get, start_server
from trio_stream import AbortReason, App, Config, Response
from trio_stream._connection import Connection
from trio_stream._socket_transport import SocketTransport
from trio_stream._stream_transport import StreamTransport
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from trio_stream import Request, Server

CLIENTS = 1000 if os.environ.get("TRIO_STREAM_LARGE") == "1" else 100

KINDS = (Response, Connection, SocketTransport, StreamTransport)

# A guard against hanging, no expectation.
TIMEOUT = 600 if CLIENTS == 1000 else 40


class Record:
    """What became of one response.

    Attributes:
      aborted: How often `on_aborted` was called.
      ended: How often its handler ended; a plain one has no end of its own.
    """

    def __init__(self, response: Response, *, plain: bool = False) -> None:
        self.response = response
        self.aborted = 0
        self.ended = int(plain)
        response.on_aborted(self._count)

    def _count(self, response: Response) -> None:
        assert response is self.response
        assert response.aborted
        self.aborted += 1


class Storm:
    """An app whose handlers are in every phase, and a record of each response."""

    def __init__(self, config: Config) -> None:
        self.records: list[Record] = []
        self.started: set[str] = set()
        self.app = App(config=config)
        for handler in (sleeping, listening, parked, pausing, streaming):
            self.app.get(
                f"/{handler.__name__}/:id",
                self._recording(handler),
                cancel_on_abort=handler is not listening,
            )
        for plain in (calling_back, finished):
            self.app.get(f"/{plain.__name__}/:id", self._recording_plain(plain))

    def _recording(
        self, handler: Callable[[Response], Awaitable[None]]
    ) -> Callable[[Response, Request], Awaitable[None]]:
        async def handle(res: Response, req: Request) -> None:
            record = self._add(Record(res), req)
            try:
                await handler(res)
            finally:
                record.ended += 1

        return handle

    def _recording_plain(
        self, handler: Callable[[Response], None]
    ) -> Callable[[Response, Request], None]:
        def handle(res: Response, req: Request) -> None:
            self._add(Record(res, plain=True), req)
            handler(res)

        return handle

    def _add(self, record: Record, req: Request) -> Record:
        self.records.append(record)
        self.started.add(req.target)
        return record


async def sleeping(_: Response) -> None:
    await trio.sleep_forever()


async def listening(res: Response) -> None:
    assert await res.wait_aborted() is res.abort_reason
    assert await res.send_chunk(b"x", 1) == (False, True)


async def parked(res: Response) -> None:
    size = 1_000_000
    assert await res.send_chunk(body(0, size), size) == (not res.aborted, True)


async def pausing(res: Response) -> None:
    size, done = 300_000, False
    while not done:
        ok, done = await res.send_chunk(body(res.get_write_offset(), 1000), size)
        assert ok == (not res.aborted)
        await trio.sleep(0.001)


async def streaming(res: Response) -> None:
    size, done = 300_000, False
    while not done:
        start = res.get_write_offset()
        ok, done = await res.send_chunk(body(start, min(16 * 1024, size - start)), size)
        assert ok == (not res.aborted)


def calling_back(res: Response) -> None:
    size = 500_000

    def send(res: Response, offset: int) -> bool:
        return res.try_end(body(offset, size - offset), size).ok

    res.on_writable(send)
    send(res, 0)


def finished(res: Response) -> None:
    res.end(body(0, 3000))


HANDLERS = ("sleeping", "listening", "parked", "pausing", "streaming", "calling_back", "finished")


# How clients leave


async def close(stream: trio.SocketStream) -> None:
    await stream.aclose()  # with unread bytes, the kernel makes it a reset


async def half_close(stream: trio.SocketStream) -> None:
    await stream.send_eof()
    while await stream.receive_some(65536):
        pass


async def stop_reading(stream: trio.SocketStream) -> None:
    for _ in range(100):
        await trio.lowlevel.checkpoint()
    await stream.aclose()


async def vanish(port: int, number: int, storm: Storm, handlers: Sequence[str]) -> None:
    """Be a client that comes, asks, perhaps reads something, and leaves."""
    rng = random.Random(number)
    target = f"/{rng.choice(handlers)}/{number}"
    request = get(target)
    behind = rng.choice(
        (
            b"",
            b"",
            get(f"/{rng.choice(handlers)}/{number}-behind"),
            get(f"/finished/{number}-behind") * 300,
        )
    )
    leave = rng.choice((close, reset, half_close, stop_reading))
    phase = rng.choice(("in the head", "at once", "started", "reading", "reading"))
    with suppress(trio.BrokenResourceError):  # the server has closed first
        async with await connect(port, receive_buffer=16384) as stream:
            if phase == "in the head":
                await stream.send_all(request[: rng.randrange(len(request))])
            else:
                await stream.send_all(request + behind)
            if phase == "started":
                await until(lambda: target in storm.started)
            elif phase == "reading":
                wanted = rng.choice((1, 3000, 50_000, 400_000))
                with trio.move_on_after(rng.uniform(0, 0.5)):
                    while wanted > 0 and (data := await stream.receive_some(wanted)):
                        wanted -= len(data)
            await leave(stream)


# What is left of them


@dataclass
class Leftovers:
    """What there is of connections in this process."""

    objects: Counter[str]
    tasks: int
    descriptors: set[tuple[str, str]]

    @classmethod
    def now(cls, *kinds: type[object]) -> Leftovers:
        gc.collect()
        return cls(
            Counter(type(thing).__name__ for thing in gc.get_objects() if type(thing) in kinds),
            trio.lowlevel.current_statistics().tasks_living,
            open_descriptors(),
        )


def check_server_is_idle(server: Server) -> None:
    assert server.stats.open_connections == 0
    assert server.stats.active_responses == 0
    assert server._connections == set()
    assert dict(server._stalls._deadlines) == {}
    if server._watcher is not None:
        assert server._watcher._watched == {}
        assert registered_descriptors(server._watcher) == 0


def check_responses(storm: Storm, server: Server) -> Counter[AbortReason]:
    """Check that each response is over, in one way, and was counted; why they ended early."""
    reasons: Counter[AbortReason] = Counter()
    for record in storm.records:
        reason = record.response.abort_reason
        assert record.ended == 1, record.response
        assert record.aborted == (reason is not None), record.response
        assert record.response._complete == (reason is None), record.response
        reasons.update(() if reason is None else (reason,))
    assert server.stats.requests == len(storm.records)
    assert server.stats.aborts == reasons
    return reasons


@pytest.fixture(params=[True, False], ids=["epoll", "no-epoll"])
def epoll(request: pytest.FixtureRequest) -> bool:
    param: bool = request.param
    return param


@asynccontextmanager
async def stormy_server(storm: Storm, *, epoll: bool) -> AsyncIterator[Server]:
    """A server; nothing must be left of its connections at the end of the block, nor of itself."""
    before = Leftovers.now(*KINDS)
    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as nursery:
            server = await start_server(nursery, storm.app, epoll=epoll)
            idle = Leftovers.now(Response, Connection)
            yield server
            await until(lambda: server.stats.open_connections == 0)
            await wait_all_tasks_blocked()
            check_server_is_idle(server)
            storm.records.clear()
            assert Leftovers.now(Response, Connection) == idle
            nursery.cancel_scope.cancel()
    assert Leftovers.now(*KINDS) == before


@pytest.mark.parametrize("half_close_means", ["abort", "serve"])
async def test_nothing_is_left_of_clients_that_vanish(
    half_close_means: Literal["abort", "serve"], epoll: bool
) -> None:
    handlers: tuple[str, ...] = HANDLERS
    if half_close_means == "serve":  # a handler that sends nothing is not told of a FIN
        handlers = ("parked", "pausing", "streaming", "calling_back", "finished")
    storm = Storm(Config(half_close=half_close_means))
    async with stormy_server(storm, epoll=epoll) as server:
        async with trio.open_nursery() as clients:
            for number in range(CLIENTS):
                clients.start_soon(vanish, server.port, number, storm, handlers)
        await until(lambda: server.stats.open_connections == 0)
        reasons = check_responses(storm, server)
        assert set(reasons) == {AbortReason.CLIENT_CLOSED}
        assert CLIENTS / 4 < reasons.total() < len(storm.records)


async def test_nothing_is_left_of_clients_that_stall(epoll: bool) -> None:
    async def stall(number: int) -> None:
        rng = random.Random(number)
        async with await connect(server.port, receive_buffer=4096) as stream:
            target = f"/{rng.choice(('parked', 'pausing', 'calling_back'))}/{number}"
            await stream.send_all(get(target) + get("/finished/behind") * rng.choice((0, 1, 100)))
            await stream.receive_some(rng.choice((1, 3000)))
            await until(lambda: server.stats.open_connections == 0)
            with pytest.raises(trio.BrokenResourceError, match="reset"):
                while await stream.receive_some(65536):
                    pass

    storm = Storm(Config(stall_timeout=0.2))
    async with stormy_server(storm, epoll=epoll) as server:
        async with trio.open_nursery() as clients:
            for number in range(CLIENTS // 5):
                clients.start_soon(stall, number)
        assert check_responses(storm, server) == {AbortReason.STALLED: CLIENTS // 5}


async def test_nothing_is_left_of_a_server_cancelled_in_a_storm(epoll: bool) -> None:
    before = Leftovers.now(*KINDS)
    storm = Storm(Config())
    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as clients:
            async with trio.open_nursery() as nursery:
                server = await start_server(nursery, storm.app, epoll=epoll)
                for number in range(CLIENTS):
                    clients.start_soon(vanish, server.port, number, storm, HANDLERS)
                await until(lambda: len(storm.records) >= CLIENTS // 2)
                nursery.cancel_scope.cancel()
            assert server.stats.open_connections == 0
            assert server.stats.active_responses == 0
            reasons = check_responses(storm, server)
            assert set(reasons) == {AbortReason.CLIENT_CLOSED, AbortReason.CANCELLED}
            clients.cancel_scope.cancel()
    storm.records.clear()
    assert Leftovers.now(*KINDS) == before


async def test_a_client_that_vanishes_while_send_chunk_lets_others_run() -> None:
    app = App(config=Config(send_budget=1))
    results: list[tuple[bool, bool]] = []

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        while not res.aborted:
            results.append(await res.send_chunk(b"x", 1_000_000))

    async with open_client(app, window=2_000_000) as client:
        await client.get("/")
        client.vanish()  # the handler waits for its turn, not for room
        await wait_all_tasks_blocked()
        assert client.stats.aborts == {AbortReason.CLIENT_CLOSED: 1}
    assert set(results[:-1]) == {(True, False)}
    assert results[-1] == (False, True)


async def test_responses_that_outlive_their_connection_touch_nothing(
    epoll: bool, nursery: trio.Nursery
) -> None:
    app = App()
    kept: list[Response] = []
    fds: list[int] = []

    @app.get("/:size")
    async def handler(res: Response, req: Request) -> None:
        kept.append(res)
        if isinstance(res._transport, SocketTransport):
            fds.append(res._transport._fileno())
        await res.send_chunk(body(0, 1000), int(req.params["size"]))
        if not res._complete:
            await trio.sleep_forever()

    with trio.fail_after(TIMEOUT):
        server = await start_server(nursery, app, epoll=epoll)
        idle = open_descriptors()
        async with await connect(server.port) as stream:
            await stream.send_all(get("/1000") + get("/3000"))
            await until(lambda: len(kept) == 2)
        await until(lambda: open_descriptors() == idle)

        # The lowest numbers are the next ones to be used again.
        with ExitStack() as stack:
            sockets = [stack.enter_context(end) for _ in range(3) for end in socket.socketpair()]
            complete, aborted = kept
            if isinstance(aborted._transport, SocketTransport):
                assert aborted._transport._fileno() == -1
                assert fds[-1] in {end.fileno() for end in sockets}
            told: list[Response] = []
            for _ in range(2):
                for data in (b"x", b""):
                    assert await aborted.send_chunk(data, 3000) == (False, True)
                    assert aborted.try_end(data, 3000) == (False, True)
                    assert aborted.end(data) is False
                    with pytest.raises(RuntimeError, match="complete"):
                        await complete.send_chunk(data, 1000)
                    with pytest.raises(RuntimeError, match="complete"):
                        complete.try_end(data, 1000)
            for res in kept:
                res.on_writable(lambda res, _offset: told.append(res)).on_aborted(told.append)
                await res.drain()
            assert told == [aborted]
            assert await aborted.wait_aborted() is AbortReason.CLIENT_CLOSED
            assert [res.get_write_offset() for res in kept] == [1000, 1000]
            for end in sockets:
                end.setblocking(False)
                with pytest.raises(BlockingIOError):
                    end.recv(1)
