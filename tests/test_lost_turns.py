"""What happens to a send while it lets others run, and when it does."""

from __future__ import annotations

import select
import socket

import pytest
import trio

from tests.harness import get, open_stopped_client, start_server
from trio_stream import App, Config, Request, Response
from trio_stream._readiness import HAVE_EPOLL
from trio_stream._socket_transport import SocketTransport
from trio_stream.testing import open_client


@pytest.mark.parametrize("_", range(20))  # the scheduler tosses a coin
async def test_a_chunk_is_whole_if_what_was_queued_goes_meanwhile(_: int) -> None:
    app = App(config=Config(send_budget=1))
    is_queued = trio.Event()

    @app.get("/")
    async def handler(res: Response, req: Request) -> None:
        res.write(b"a" * 100_000)
        is_queued.set()
        assert (await res.send_chunk(b"b" * 100_000)).ok

    async with open_client(app, window=1000) as client, trio.open_nursery() as nursery:

        async def make_room() -> None:
            await is_queued.wait()
            client.window = 1_000_000

        nursery.start_soon(make_room)
        response = await client.get("/")
        assert await response.read() == b"a" * 100_000 + b"b" * 100_000


@pytest.mark.parametrize("_", range(20))  # the scheduler tosses a coin
async def test_drain_ends_though_small_chunks_follow(_: int, autojump_clock: object) -> None:
    app = App()
    drained = trio.Event()

    @app.get("/")
    async def handler(res: Response, req: Request) -> None:
        async def drain() -> None:
            await res.drain()
            drained.set()

        room = trio.Event()
        res.on_writable(lambda _, __: room.set())
        res.write(bytes(600_000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain)
            await room.wait()
            for _ in range(3):
                await res.send_chunk(b"tick\n")

    async with open_client(app, window=64_000) as client:
        response = await client.get("/")
        await trio.testing.wait_all_tasks_blocked()
        client.window = 10_000_000
        with trio.fail_after(10):
            assert await response.read() == bytes(600_000) + b"tick\n" * 3
    assert drained.is_set()


@pytest.mark.parametrize("call", ["write", "try_write"])
async def test_drain_ends_with_what_another_task_sends(call: str) -> None:
    app = App()
    drained = trio.Event()
    room = trio.Event()

    @app.get("/")
    async def handler(res: Response, req: Request) -> None:
        async def drain() -> None:
            await res.drain()
            drained.set()

        if call == "write":
            res.write(bytes(70_000))  # more than is taken
        else:
            res.try_write(bytes(70_000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain)
            await room.wait()
            if call == "write":
                assert res.write(b"the rest fits")
            else:
                assert res.try_write(b"the rest fits").ok
            await drained.wait()  # although the client takes no more

    with trio.fail_after(10):
        async with open_stopped_client(app, 16 * 1024):  # less than is told
            room.set()
            await drained.wait()


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_chunks_that_are_dropped_starve_nobody(method: str, status: int) -> None:
    app = App()
    count = 0

    @app.get("/")
    async def handler(res: Response, req: Request) -> None:
        nonlocal count
        res.write_status(status)
        while count < 100_000:
            await res.send_chunk(b"tick\n")
            count += 1

    async with open_client(app) as client:
        await client.send_all(get("/", method=method))
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        assert count < 100_000


@pytest.mark.skipif(not HAVE_EPOLL, reason="needs epoll")
async def test_writable_is_told_though_a_chunk_went_before() -> None:
    app = App()
    told: list[int] = []
    total = 300_000_000
    is_over = trio.Event()

    def take_all() -> None:
        try:
            while client.recv(1 << 20):
                pass
        except BlockingIOError:
            pass

    @app.get("/")
    async def handler(res: Response, req: Request) -> None:
        while res.try_end(b"y" * 1000, total).ok:
            offset = res.get_write_offset()
            for _ in range(200):
                if offset < 1_500_000:
                    take_all()
                with trio.move_on_after(0.1):
                    await res.send_chunk(b"x" * 1000, total)
        res.on_writable(lambda _, offset: told.append(offset))
        # There is room before others run.
        assert isinstance(res._transport, SocketTransport)
        fd = res._transport._fileno()
        while not select.select((), (fd,), (), 0)[1]:
            take_all()
        assert (await res.send_chunk(b"x" * 1000, total)).ok
        with trio.move_on_after(5):
            while not told:
                await trio.lowlevel.checkpoint()
        is_over.set()
        res.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        server = await start_server(nursery, app)
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.setblocking(False)
            client.send(get("/"))
            await is_over.wait()
            nursery.cancel_scope.cancel()
    assert told
