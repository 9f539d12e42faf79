"""What requests and chunks cost, counted and not timed: exact on any machine, however fast it is.

A number that falls is an improvement: then lower it here, so that it can't rise again unnoticed.
"""

from __future__ import annotations

import gc
import re
import socket
import sys
import tracemalloc
from array import array
from collections import Counter
from contextlib import contextmanager
from math import ceil, inf
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.harness import connect, get, open_peer, start_server
from trio_stream import AbortReason, App, Config, Response
from trio_stream._framing import ChunkedDecoder
from trio_stream._readiness import HAVE_EPOLL, ReadinessWatcher
from trio_stream._stream_transport import open_transport
from trio_stream._timeouts import TimeoutWatch
from trio_stream._transport import Transport
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trio.testing import MockClock

    from tests.harness import Kind
    from trio_stream import Request

UNREADABLE = ("Content-Length: 1", "Content-Type: text/plain;charset=x", "Connection: close")

TIMEOUT = 30  # a guard against hanging, no expectation

CHUNK = bytes(64 * 1024)

# What is sent to a socket, and what is received.
WRITES = ("write", "writev", "sendfile", "socket.send", "socket.sendmsg", "socket.sendall")
READS = ("read", "readv", "socket.recv", "socket.recv_into", "socket.recvmsg")


class SystemCalls:
    """The system calls of this thread, by the names of the functions in C that make them."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def clear(self) -> None:
        self._counts.clear()

    def count(self, *names: str) -> int:
        """How often those with one of the names were made; without a name, all."""
        return sum(self._counts[name] for name in names) if names else self._counts.total()

    def __repr__(self) -> str:
        return repr(self._counts)

    @contextmanager
    def counted(self) -> Iterator[None]:
        before = sys.getprofile()
        sys.setprofile(self._note)
        try:
            yield
        finally:
            sys.setprofile(before)

    def _note(self, _frame: object, event: str, function: object) -> None:
        if event != "c_call":
            return
        name = getattr(function, "__qualname__", "")
        in_module = getattr(function, "__module__", "") in ("posix", "fcntl")
        if in_module or (name.startswith(("socket.", "epoll.")) and not name.endswith("fileno")):
            self._counts[name] += 1


def make_app(config: Config | None = None) -> App:
    app = App(config=config)
    app.get("/", lambda res, _: res.end(b"hello"))

    @app.get("/stream")
    async def stream(res: Response, req: Request) -> None:
        """Send so many chunks of a size, with a known length if asked."""
        size, count = int(req.query["size"]), int(req.query["count"])
        total = size * count if "total" in req.query else None
        chunk = CHUNK[:size]
        for _ in range(count):
            await res.send_chunk(chunk, total)

    @app.post("/paced")
    async def paced(res: Response, req: Request) -> None:
        """For each byte of the body, send a chunk."""
        total = len(CHUNK) * int(req.headers["Content-Length"]) if "total" in req.query else None
        async for data in req.body:
            assert len(data) == 1
            await res.send_chunk(CHUNK, total)

    return app


async def play(app: App, client: Callable[[socket.socket, SystemCalls], None]) -> SystemCalls:
    """Serve `app` while `client`, in a thread of its own, uses a connection; what that cost."""
    calls = SystemCalls()
    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as nursery:
            server = await start_server(nursery, app)
            address = "127.0.0.1", server.port
            with socket.create_connection(address) as connection, calls.counted():
                await trio.to_thread.run_sync(client, connection, calls)
            nursery.cancel_scope.cancel()
    return calls


def ask(connection: socket.socket, times: int) -> None:
    """Small requests, each after the answer to the one before."""
    request = get("/")
    for _ in range(times):
        connection.sendall(request)
        answer = b""
        while not answer.endswith(b"\r\n\r\nhello"):
            answer += connection.recv(65536)


def receive_chunks(connection: socket.socket, count: int, *, has_total: bool) -> None:
    """Ask for each chunk when the one before was received, so that none finds the socket full."""
    target = "/paced?total" if has_total else "/paced"
    connection.sendall(get(target, f"Content-Length: {count}", method="POST"))
    frame = len(CHUNK) if has_total else len(b"10000\r\n\r\n") + len(CHUNK)
    data = b""
    for _ in range(count):
        connection.sendall(b"x")
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536)
        missing = data.index(b"\r\n\r\n") + 4 + frame - len(data)
        while missing > 0:
            missing -= len(connection.recv(missing))
        data = b"\r\n\r\n"  # as if a head had come before the next one
    if not has_total:
        assert connection.recv(100) == b"0\r\n\r\n"


# System calls...

needs_epoll = pytest.mark.skipif(not HAVE_EPOLL, reason="sockets are served as streams here")


@needs_epoll
async def test_a_small_request_costs_one_write() -> None:
    def client(connection: socket.socket, calls: SystemCalls) -> None:
        ask(connection, 10)
        calls.clear()
        ask(connection, 100)

    calls = await play(make_app(), client)
    assert calls.count(*WRITES) == 100  # head and body together
    # If the server is faster than its client, it looks in vain, and waits: two calls for Trio's
    # epoll to begin and end that, and one to sleep.
    assert calls.count(*READS) <= 200 + 2
    assert calls.count() <= 600 + 6


@needs_epoll
@pytest.mark.parametrize("has_total", [True, False])
async def test_a_chunk_costs_one_write(has_total: bool) -> None:
    def client(connection: socket.socket, calls: SystemCalls) -> None:
        ask(connection, 10)
        calls.clear()
        receive_chunks(connection, 100, has_total=has_total)

    calls = await play(make_app(), client)
    assert calls.count(*WRITES) == 100 + (not has_total)  # the head goes with the first one


@needs_epoll
@pytest.mark.parametrize("total", ["&total", ""])
async def test_small_chunks_cost_no_more_than_a_write_each(total: str) -> None:
    def client(connection: socket.socket, calls: SystemCalls) -> None:
        ask(connection, 10)
        calls.clear()
        connection.sendall(get(f"/stream?size=1000&count=40{total}"))
        size = 0
        while size < 40_000:  # which fit into any socket
            size += len(connection.recv(65536))
        connection.sendall(get("/", "Connection: close"))
        while connection.recv(65536):
            pass

    calls = await play(make_app(), client)
    assert calls.count(*WRITES) <= 40 + (not total) + 1  # and the last answer
    # Sending waits for nothing, and looks at nothing. The rest is what two requests and the end of
    # the connection cost.
    assert calls.count() <= 40 + 30


@needs_epoll
async def test_what_has_been_received_is_not_waited_for() -> None:
    calls = SystemCalls()
    stream, other = (trio.SocketStream(sock) for sock in trio.socket.socketpair())
    async with stream, other, trio.open_nursery() as nursery:
        with ReadinessWatcher() as watcher:
            nursery.start_soon(watcher.run)
            async with open_transport(stream, Config(), TimeoutWatch(inf), watcher) as transport:
                await wait_all_tasks_blocked()
                await other.send_all(bytes(4000))
                with calls.counted():
                    sizes = [len(await transport.receive_some(1000)) for _ in range(4)]
                    assert sizes == 4 * [1000]
                    assert calls.count(*READS) == 4
                    # For the first one, Trio's epoll learns whom to look for, and forgets it again.
                    assert calls.count("epoll.register", "epoll.modify") == 2
                    await other.send_all(b"more")
                    assert len(await transport.receive_some(1000)) == 4
            nursery.cancel_scope.cancel()


@needs_epoll
async def test_a_full_read_may_have_been_the_last_one() -> None:
    stream, other = (trio.SocketStream(sock) for sock in trio.socket.socketpair())
    async with stream, other, trio.open_nursery() as nursery:
        with ReadinessWatcher() as watcher:
            nursery.start_soon(watcher.run)
            async with open_transport(stream, Config(), TimeoutWatch(inf), watcher) as transport:
                await other.send_all(bytes(1000))
                assert len(await transport.receive_some(1000)) == 1000
                received: list[bytes] = []

                async def receive() -> None:
                    received.append(await transport.receive_some(1000))

                nursery.start_soon(receive)
                await wait_all_tasks_blocked()  # so it waits, and does not try again and again
                assert received == []
                await other.send_all(b"more")
                await wait_all_tasks_blocked()
                assert received == [b"more"]
            nursery.cancel_scope.cancel()


# Memory...


@pytest.fixture
def no_gc() -> Iterator[None]:
    """The collector of cycles runs only when it is called."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_gc")
@pytest.mark.parametrize("epoll", [True, False])
@pytest.mark.parametrize("path", ["/sync", "/async", "/chunked", "/body", "/late"])
async def test_a_request_leaves_nothing_behind(path: str, epoll: bool) -> None:
    app = App()
    blocks = array("Q", bytes(8 * 300))  # which itself allocates nothing any more
    requests = 0

    def note() -> None:
        nonlocal requests
        blocks[requests] = sys.getallocatedblocks()
        requests += 1

    def answer(res: Response, _: Request) -> None:
        note()
        res.end(b"hello")

    @app.get("/async")
    async def answer_async(res: Response, req: Request) -> None:
        note()
        await res.send_chunk(b"hello", 5)

    @app.get("/chunked")
    async def answer_in_chunks(res: Response, req: Request) -> None:
        note()
        res.on_aborted(lambda _: res.aborted)  # a cycle, if it is kept
        await res.send_chunk(b"hello")

    @app.post("/late")
    @app.post("/body")
    async def answer_a_body(res: Response, req: Request) -> None:
        note()
        res.end(await req.read())

    app.get("/sync", answer)
    body = b"hello" if path in ("/body", "/late") else b""
    length = [f"Content-Length: {len(body)}"] * bool(body)
    request = get(path, *length, method="POST" if body else "GET")
    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as nursery:
            server = await start_server(nursery, app, epoll=epoll)
            async with await connect(server.port) as stream:
                for number in range(len(blocks)):
                    if number == 10:
                        gc.collect()
                    if path == "/late":
                        await stream.send_all(request)
                        await wait_all_tasks_blocked()  # and the body is waited for
                        await stream.send_all(body)
                    else:
                        await stream.send_all(request + body)
                    answered = b""
                    while not answered.endswith((b"hello", b"hello\r\n0\r\n\r\n")):
                        answered += await stream.receive_some()
                await wait_all_tasks_blocked()
                assert gc.collect() == 0
            nursery.cancel_scope.cancel()
    # The interpreter keeps some lists and dicts for the next ones: the first requests don't count,
    # and later a few blocks more say nothing. One for each request would be a hundred.
    assert blocks[299] - blocks[199] < 50


where_nurseries_leave_no_cycle = pytest.mark.skipif(
    sys.version_info >= (3, 12),
    reason="an async context manager around a nursery, without anything of ours, leaves a cycle",
)


@pytest.mark.usefixtures("no_gc")
@where_nurseries_leave_no_cycle
@pytest.mark.parametrize("rate", [0, 1000])
async def test_a_connection_leaves_nothing_behind(kind: Kind, rate: float) -> None:
    """For the garbage collector: it knows nothing of what OpenSSL keeps for each."""

    def living() -> list[object]:
        return [value for value in gc.get_objects() if isinstance(value, Transport | Response)]

    before = list(map(id, others := living()))  # of other tests
    config = Config(min_download_rate=rate, min_upload_rate=rate)
    for ends_early in (False, True):
        async with open_peer(make_app(config), kind, window=64 * 1024) as peer:
            await peer.send_all(get(f"/stream?size={len(CHUNK)}&count=20"))
            received = b""
            while not (received.endswith(b"0\r\n\r\n") or (ends_early and received)):
                received = await peer.receive_some()
            if ends_early:
                await peer.reset()
        del peer
    await wait_all_tasks_blocked()
    assert [value for value in living() if id(value) not in before] == []
    del others


@pytest.mark.usefixtures("no_gc")
@where_nurseries_leave_no_cycle
@pytest.mark.parametrize("epoll", [True, False])
async def test_a_running_server_keeps_nothing_of_a_connection(
    nursery: trio.Nursery, epoll: bool
) -> None:
    def living() -> list[object]:
        return [value for value in gc.get_objects() if isinstance(value, Transport | Response)]

    before = list(map(id, others := living()))  # of other tests
    app = make_app(Config(stall_timeout=0.05))
    server = await start_server(nursery, app, epoll=epoll)
    with trio.fail_after(TIMEOUT):
        for number, takes_all in enumerate((True, False), start=1):
            async with await connect(server.port, receive_buffer=4096) as stream:
                await stream.send_all(get("/stream?size=16384&count=2000", "Connection: close"))
                while takes_all and await stream.receive_some():
                    pass
                while server.stats.connections < number or server.stats.open_connections:
                    await trio.sleep(0.001)
            await wait_all_tasks_blocked()
            assert [value for value in living() if id(value) not in before] == []
    assert server.stats.aborts == {AbortReason.STALLED: 1}
    nursery.cancel_scope.cancel()
    del others


@pytest.mark.usefixtures("no_gc")
@where_nurseries_leave_no_cycle
@pytest.mark.parametrize(
    "data",
    [
        b"FOO\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        get("/paced", "Transfer-Encoding: gzip", method="POST"),
        get("/paced", "Transfer-Encoding: chunked", method="POST") + b"no size\r\n",
        get("/text", *UNREADABLE, method="POST") + b"x",
    ],
)
async def test_a_bad_request_leaves_nothing_behind(kind: Kind, data: bytes) -> None:
    types = Transport | Response | ChunkedDecoder

    def living() -> list[object]:
        return [value for value in gc.get_objects() if isinstance(value, types)]

    app = make_app()

    @app.post("/text")
    async def text(_res: Response, req: Request) -> None:
        await req.text()

    before = list(map(id, others := living()))  # of other tests
    async with open_peer(app, kind) as peer:
        await peer.send_all(data)
        assert re.match(rb"HTTP/1.1 (4..|501) ", await peer.receive_until_eof())
        await peer.send_eof()
    del peer
    await wait_all_tasks_blocked()
    assert [value for value in living() if id(value) not in before] == []
    del others


async def test_the_memory_of_a_stream_does_not_grow_with_its_length(kind: Kind) -> None:
    async def peak(count: int) -> int:
        async with open_peer(make_app(), kind, window=256 * 1024) as peer:
            await peer.send_all(get(f"/stream?size={len(CHUNK)}&count={count}"))
            tracemalloc.start()
            try:
                while not (await peer.receive_some()).endswith(b"0\r\n\r\n"):
                    pass
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

    with trio.fail_after(TIMEOUT):
        short = await peak(6)
        assert await peak(36) < short + len(CHUNK)


# The scheduler...


class Steps(trio.abc.Instrument):
    """How often each task ran."""

    def __init__(self) -> None:
        self.counts: Counter[trio.lowlevel.Task] = Counter()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.counts[task] += 1


@pytest.mark.parametrize("total", ["&total", ""])
@pytest.mark.parametrize("budget", [1, 64 * 1024, 1024 * 1024])
async def test_a_chunk_costs_a_turn_of_the_scheduler_for_each_budget(
    autojump_clock: MockClock, budget: int, total: str
) -> None:
    count = 64
    size = count * len(CHUNK)
    steps = Steps()
    async with open_client(make_app(Config(send_budget=budget)), window=2 * size) as client:
        await client.send_all(get(f"/stream?size={len(CHUNK)}&count={count}{total}"))
        trio.lowlevel.add_instrument(steps)
        try:
            await wait_all_tasks_blocked()
        finally:
            trio.lowlevel.remove_instrument(steps)
    ((_, most), *_) = steps.counts.most_common()
    turns = ceil(size / max(budget, len(CHUNK)))
    # And those in which the request is received, and the next one waited for.
    assert turns - 1 <= most <= turns + 4
