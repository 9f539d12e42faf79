"""A stream that somebody closes while it is served: its number is soon that of another one."""

from __future__ import annotations

import logging
import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.harness import get, pattern
from trio_stream import AbortReason, App, Config, Request, Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from trio.testing import MockClock

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs descriptors")

ENDLESS = 1 << 40


@pytest.fixture(autouse=True)
def _nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


class Served:
    """A stream that is served, and its client."""

    def __init__(self, stream: trio.SocketStream, client: trio.SocketStream) -> None:
        self.stream = stream
        self.client = client
        self._fd = stream.socket.fileno()

    @asynccontextmanager
    async def closed_and_reused(self) -> AsyncIterator[Callable[[], bytes]]:
        """Close it, and have its number name another connection for the length of the block.

        What it gives tells what was sent there.
        """
        await self.stream.aclose()
        near, far = socket.socketpair()
        with near, far:
            far.setblocking(False)
            if near.fileno() == self._fd:
                yield lambda: received(far)
                return
            os.dup2(near.fileno(), self._fd)
            with socket.socket(fileno=self._fd):
                yield lambda: received(far)


def received(sock: socket.socket) -> bytes:
    try:
        return sock.recv(1000)
    except BlockingIOError:
        return b""


@asynccontextmanager
async def serving(app: App) -> AsyncIterator[Served]:
    left, right = trio.socket.socketpair()
    async with trio.SocketStream(left) as stream, trio.SocketStream(right) as client:
        with trio.fail_after(100):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(app.serve_stream, stream)
                yield Served(stream, client)


async def test_while_it_waits_for_a_request() -> None:
    async with serving(App()) as served:
        await wait_all_tasks_blocked()
        await served.stream.aclose()


async def test_before_the_handler_sends() -> None:
    app = App()
    results: list[object] = []

    @app.get("/")
    async def handler(res: Response, req: Request) -> None:
        res.on_aborted(lambda res: results.append(res.abort_reason))
        async with served.closed_and_reused() as sent_to_another:
            results.append(await res.send_chunk(b"for one client only", 1000))
            assert sent_to_another() == b""

    async with serving(app) as served:
        await served.client.send_all(get("/"))
    assert results == [AbortReason.CLIENT_CLOSED, (False, True)]


async def test_while_the_handler_is_parked(autojump_clock: MockClock) -> None:
    app = App()
    results: list[object] = []
    handler_is_over = trio.Event()

    @app.get("/")
    async def handler(res: Response, req: Request) -> None:
        res.on_aborted(lambda res: results.append(res.abort_reason))
        results.append(await res.send_chunk(pattern(10_000_000), ENDLESS))
        results.append(trio.current_time() - began_at)
        handler_is_over.set()

    began_at = trio.current_time()
    async with serving(app) as served:
        await served.client.send_all(get("/"))
        await wait_all_tasks_blocked()
        async with served.closed_and_reused() as sent_to_another:
            await handler_is_over.wait()
            assert sent_to_another() == b""
    assert results == [AbortReason.STALLED, (False, True), Config().stall_timeout]


async def test_before_a_file_is_sent(tmp_path: Path) -> None:
    app = App()
    results: list[object] = []
    path = tmp_path / "file"
    path.write_bytes(bytes(100_000))

    @app.get("/")
    async def handler(res: Response, req: Request) -> None:
        async with served.closed_and_reused() as sent_to_another:
            results.append(await res.send_file(path))
            assert sent_to_another() == b""

    async with serving(app) as served:
        await served.client.send_all(get("/"))
    assert results == [(False, True)]


async def test_while_the_handler_reads_the_body() -> None:
    app = App()
    results: list[object] = []

    @app.post("/")
    async def handler(res: Response, req: Request) -> None:
        res.on_aborted(lambda res: results.append(res.abort_reason))
        await req.read()

    async with serving(app) as served:
        await served.client.send_all(get("/", "Content-Length: 5", method="POST"))
        await wait_all_tasks_blocked()
        async with served.closed_and_reused() as sent_to_another:
            await wait_all_tasks_blocked()
            assert sent_to_another() == b""
    assert results == [AbortReason.CLIENT_CLOSED]


async def test_when_a_request_has_come_that_was_not_received_yet() -> None:
    near, far = socket.socketpair()

    class Closing(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            if task.name.endswith("serve_stream"):
                trio.lowlevel.remove_instrument(self)
                served.stream.socket.close()
                os.dup2(near.fileno(), served._fd)

    with near, far:
        far.send(get("/of-somebody-else"))
        near.setblocking(False)
        far.setblocking(False)
        async with serving(App()) as served:
            await wait_all_tasks_blocked()
            trio.lowlevel.add_instrument(Closing())
            await served.client.send_all(get("/"))
        os.close(served._fd)
        assert received(near) == get("/of-somebody-else")
        assert received(far) == b""


@pytest.mark.parametrize("half_close", ["abort", "serve"])
async def test_after_the_answer(half_close: Literal["abort", "serve"]) -> None:
    app = App(config=Config(half_close=half_close))

    @app.get("/")
    async def handler(res: Response, req: Request) -> None:
        await served.client.send_eof()
        res.end(b"all of it")
        await served.stream.aclose()

    async with serving(app) as served:
        await served.client.send_all(get("/"))
        answer = b"".join([bytes(data) async for data in served.client])
    assert answer.endswith(b"\r\n\r\nall of it")
