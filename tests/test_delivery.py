"""Bodies arrive byte for byte, over real sockets, whatever the chunks and however the client reads.

Every position of a body can be told from its neighbours, so a byte that comes twice, or is missing,
fails the test with its offset. All is done with epoll and as on a platform without it.

With TRIO_STREAM_LARGE=1 in the environment the same tests send 1 GiB each. That takes a quarter of
an hour, and some of them longer than pytest lets them: add `-o faulthandler_timeout=600`.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from math import inf
from typing import TYPE_CHECKING

import h11
import pytest
import trio
from trio.testing import lockstep_stream_pair, wait_all_tasks_blocked

from tests.clients import LARGEST_CHUNK, BodyCheck, Bursts, body, download
from tests.harness import connect, get, start_server
from trio_stream import App, Config
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from trio_stream import Request, Response

LARGE = os.environ.get("TRIO_STREAM_LARGE") == "1"

# A guard against hanging, no expectation.
TIMEOUT = 600 if LARGE else 40

CHUNK_SIZES = (1, 1000, 16 * 1024, 64 * 1024, 1024 * 1024, LARGEST_CHUNK)
WAYS = ("send_chunk", "callback", "try_end_and_end", "end")
# `end` alone knows no chunks, only small bodies and large ones.
CASES = [
    (way, chunk) for way in WAYS for chunk in CHUNK_SIZES if way != "end" or chunk in (1, 1000)
]


UNKNOWN_WAYS = ("send_chunk", "try_write", "write", "stream", "all")
UNKNOWN_CASES = [
    (way, chunk)
    for way in UNKNOWN_WAYS
    for chunk in (1, 1000, 64 * 1024, 1024 * 1024)
    if way != "write" or chunk < 10**6
]


def body_size(chunk_size: int) -> int:
    """How much one client downloads: never whole chunks, and some of each size."""
    if chunk_size == 1:
        return 1_000_003 if LARGE else 10_003
    if LARGE:
        return 1024 * 1024 * 1024 + 3
    return {LARGEST_CHUNK: 20_000_003, 1024 * 1024: 2_500_003}.get(chunk_size, 1_000_003)


def unknown_size(chunk_size: int) -> int:
    """The same for a body of unknown length, which has more ways to be sent."""
    if LARGE:
        return body_size(chunk_size)
    return {1: 2_503, 1024 * 1024: 1_500_003}.get(chunk_size, 150_003)


@pytest.fixture(params=[True, False], ids=["epoll", "no-epoll"])
def epoll(request: pytest.FixtureRequest) -> bool:
    param: bool = request.param
    return param


@pytest.fixture
def app() -> App:
    """Sends `/way/chunk size/body size`."""
    return make_app()


def make_app(config: Config | None = None) -> App:
    app = App(config=config)
    app.get("/send_chunk/:chunk/:size", with_send_chunk)
    app.get("/callback/:chunk/:size", with_callbacks)
    app.get("/try_end_and_end/:chunk/:size", with_try_end_and_end)
    app.get("/end/:chunk/:size", with_end)
    app.get("/all/:seed/:size", with_all_of_them)
    app.get("/chunks/:way/:chunk/:size", of_unknown_length)
    return app


async def with_send_chunk(res: Response, req: Request) -> None:
    chunk, size = int(req.params["chunk"]), int(req.params["size"])
    for start in range(0, size, chunk):
        piece = body(start, min(chunk, size - start))
        end = start + len(piece)
        assert await res.send_chunk(piece, size) == (True, end == size)
        assert res.get_write_offset() == end


def with_callbacks(res: Response, req: Request) -> None:
    chunk, size = int(req.params["chunk"]), int(req.params["size"])

    def send(res: Response, offset: int) -> bool:
        assert offset == res.get_write_offset()
        start = offset - offset % chunk
        while True:
            piece = body(start, min(chunk, size - start))
            ok, done = res.try_end(piece[res.get_write_offset() - start :], size)
            assert ok == (res.get_write_offset() == start + len(piece))
            if done or not ok:
                return ok
            start += len(piece)

    res.on_writable(send)
    send(res, 0)


def with_try_end_and_end(res: Response, req: Request) -> None:
    chunk, size = int(req.params["chunk"]), int(req.params["size"])
    _, done = res.try_end(body(0, min(chunk, size)), size)
    if not done:
        res.end(whole_body(res.get_write_offset(), size))


def with_end(res: Response, req: Request) -> None:
    res.end(whole_body(0, int(req.params["size"])))


async def with_all_of_them(res: Response, req: Request) -> None:
    """Go on from the offset, whatever went before: a failed try, or a `send_chunk` cut short."""
    rng = random.Random(int(req.params["seed"]))
    size, done = int(req.params["size"]), False
    while not done:
        start = res.get_write_offset()
        piece = body(start, min(rng.choice(CHUNK_SIZES), size - start))
        way = rng.choice(("send_chunk", "send_chunk", "try_end", "end"))
        if way == "send_chunk":
            with trio.move_on_after(rng.choice((0, 0.0001, 0.001, 0.01, 1))):
                _, done = await res.send_chunk(piece, size)
        elif way == "try_end":
            ok, done = res.try_end(piece, size)
            if not ok:
                await until_writable(res)
        elif size - start < 100_000:
            res.end(whole_body(start, size))
            await res.drain()
            done = True
    assert res.get_write_offset() == size


async def of_unknown_length(res: Response, req: Request) -> None:
    chunk, size = int(req.params["chunk"]), int(req.params["size"])
    stream = res.body_stream()
    rng = random.Random(size)
    for start in range(0, size, chunk):
        piece = body(start, min(chunk, size - start))
        way = req.params["way"]
        if way == "all":
            way = rng.choice(UNKNOWN_WAYS[:-1] if chunk < 10**6 else UNKNOWN_WAYS[:2])
        if way == "send_chunk":
            assert await res.send_chunk(piece) == (True, False)
        elif way == "stream":
            await stream.send_all(piece)
        elif way == "try_write":
            await res.drain()  # of what was written
            while not res.try_write(piece[res.get_write_offset() - start :]).ok:
                await until_writable(res)
        elif not res.write(piece):
            await res.drain()
        assert res.get_write_offset() == start + len(piece)


async def until_writable(res: Response) -> None:
    writable = trio.Event()
    res.on_writable(lambda _res, _offset: writable.set())
    await writable.wait()


def whole_body(start: int, size: int) -> bytes:
    pieces = range(start, size, LARGEST_CHUNK)
    return b"".join(body(at, min(LARGEST_CHUNK, size - at)) for at in pieces)


@pytest.mark.parametrize(("way", "chunk"), CASES)
async def test_fast_client(
    app: App, epoll: bool, way: str, chunk: int, nursery: trio.Nursery
) -> None:
    server = await start_server(nursery, app, epoll=epoll)
    size = body_size(chunk)
    with trio.fail_after(TIMEOUT):
        await download(server.port, {f"/{way}/{chunk}/{size}": size})
    assert server.stats.body_bytes_sent == size
    assert server.stats.aborts.total() == 0


async def test_200_bursty_clients(app: App, epoll: bool, nursery: trio.Nursery) -> None:
    rng = random.Random(200)
    server = await start_server(nursery, app, epoll=epoll)
    total = 0

    async def start_client(targets: dict[str, int], seed: int) -> None:
        await download(server.port, targets, bursts=Bursts(seed), receive_buffer=4096)

    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as clients:
            for number in range(200):
                way, chunk = CASES[number % len(CASES)]
                size = rng.randint(100_000, 150_000) * (20 if LARGE else 1)
                if chunk == 1:
                    size = rng.randint(3_000, 6_000)
                clients.start_soon(start_client, {f"/{way}/{chunk}/{size}": size}, number)
                total += size
    assert server.stats.requests == 200
    assert server.stats.body_bytes_sent == total
    assert server.stats.aborts.total() == 0


async def test_ways_of_sending_mixed(app: App, epoll: bool, nursery: trio.Nursery) -> None:
    server = await start_server(nursery, app, epoll=epoll)
    size = 40_000_003 if LARGE else 400_003

    async def start_client(seed: int) -> None:
        target = {f"/all/{seed}/{size}": size}
        await download(server.port, target, bursts=Bursts(seed), receive_buffer=4096)

    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as clients:
            for seed in range(30):
                clients.start_soon(start_client, seed)
    assert server.stats.body_bytes_sent == 30 * size
    assert server.stats.aborts.total() == 0


@pytest.mark.parametrize("way", WAYS)
async def test_pipelined_answers_follow_each_other_exactly(
    app: App, epoll: bool, way: str, nursery: trio.Nursery
) -> None:
    server = await start_server(nursery, app, epoll=epoll)
    sizes = (1, 300_001, 5, 70_000, 65_536, 999)
    targets = {f"/{way}/1000/{size}": size for size in sizes}
    with trio.fail_after(TIMEOUT):
        await download(server.port, targets, bursts=Bursts(7), receive_buffer=4096)
    assert server.stats.requests == len(sizes)
    assert server.stats.body_bytes_sent == sum(sizes)


@pytest.mark.parametrize("way", WAYS)
async def test_the_least_room(epoll: bool, way: str, nursery: trio.Nursery) -> None:
    """Not even the head goes in one piece, and each turn is over after one send."""
    app = make_app(Config(notsent_lowat=1, stream_buffer_size=50, send_budget=1))
    server = await start_server(nursery, app, epoll=epoll)
    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as clients:
            for chunk in CHUNK_SIZES:
                clients.start_soon(download, server.port, {f"/{way}/{chunk}/1003": 1003})
    assert server.stats.body_bytes_sent == len(CHUNK_SIZES) * 1003
    assert server.stats.aborts.total() == 0


@pytest.mark.parametrize(("way", "chunk"), UNKNOWN_CASES)
async def test_unknown_length_to_bursty_clients(
    app: App, epoll: bool, way: str, chunk: int, nursery: trio.Nursery
) -> None:
    """One that takes all there is, and one that has little room and reads as it likes."""
    server = await start_server(nursery, app, epoll=epoll)
    size = unknown_size(chunk)

    async def start_client(bursts: Bursts | None, receive_buffer: int | None) -> None:
        target = f"/chunks/{way}/{chunk}/{size}"
        async with await connect(server.port, receive_buffer=receive_buffer) as stream:
            await stream.send_all(get(target, "Connection: close"))
            await check_chunks(stream, size, bursts)

    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as clients:
            clients.start_soon(start_client, None, None)
            clients.start_soon(start_client, Bursts(chunk), 4096 if chunk < 10**6 else 65536)
    assert server.stats.body_bytes_sent == 2 * size
    assert server.stats.aborts.total() == 0


@pytest.mark.parametrize("way", UNKNOWN_WAYS)
async def test_unknown_length_in_the_least_room(
    epoll: bool, way: str, nursery: trio.Nursery
) -> None:
    app = make_app(Config(notsent_lowat=1, stream_buffer_size=50, send_budget=1))
    server = await start_server(nursery, app, epoll=epoll)

    async def start_client(chunk: int) -> None:
        async with await connect(server.port) as stream:
            await stream.send_all(get(f"/chunks/{way}/{chunk}/1003", "Connection: close"))
            await check_chunks(stream, 1003, None)

    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as clients:
            for chunk in (1, 7, 50, 1000):
                clients.start_soon(start_client, chunk)
    assert server.stats.body_bytes_sent == 4 * 1003
    assert server.stats.aborts.total() == 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("way", [*WAYS, *(f"chunks/{way}" for way in UNKNOWN_WAYS)])
async def test_curl(app: App, epoll: bool, way: str, nursery: trio.Nursery) -> None:
    """All sizes of chunks one after the other, on one connection."""
    server = await start_server(nursery, app, epoll=epoll)
    cases = [(f"/{way}/{chunk}", body_size(chunk)) for w, chunk in CASES if w == way]
    cases += [
        (f"/{way}/{chunk}", unknown_size(chunk))
        for w, chunk in UNKNOWN_CASES
        if f"chunks/{w}" == way
    ]
    targets = {f"{path}/{size}": size for path, size in cases}
    urls = [f"http://127.0.0.1:{server.port}{target}" for target in targets]
    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as processes:
            curl: trio.Process = await processes.start(
                lambda **kw: trio.run_process(
                    ["curl", "-sSf", "--http1.1", "-w", "%{stderr}%{num_connects} ", *urls],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    **kw,
                )
            )
            assert curl.stdout is not None
            assert curl.stderr is not None
            async with curl.stdout as output:
                await check_bodies(output, list(targets.values()))
            async with curl.stderr as output:
                errors = b"".join([bytes(data) async for data in output])
            assert errors == b"1 " + b"0 " * (len(targets) - 1)
    assert server.stats.requests == len(targets)
    assert server.stats.body_bytes_sent == sum(targets.values())
    assert server.stats.aborts.total() == 0


@pytest.mark.parametrize("window", [500, 5000])
async def test_buffers_can_be_used_for_something_else_at_once(window: int) -> None:
    app = App()
    buffers = [bytearray(body(start, 1000)) for start in range(0, 3000, 1000)]

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        await res.send_chunk(buffers[0], 3000)
        buffers[0].clear()
        while not res.try_end(memoryview(buffers[1])[res.get_write_offset() - 1000 :], 3000).ok:
            await until_writable(res)
        buffers[1].clear()
        res.end(buffers[2])
        buffers[2].clear()

    async with open_client(app, window=window) as client:
        response = await client.get("/")
        assert await response.read() == body(0, 3000)
    assert buffers == [b"", b"", b""]


async def test_room_is_told_after_a_send_chunk_cut_short_at_that_moment(
    autojump_clock: trio.testing.MockClock,
) -> None:
    app = App()
    scope = trio.CancelScope()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        with scope:
            await res.send_chunk(body(0, 1000), 1000)
        with trio.fail_after(1):
            await until_writable(res)
        res.end(whole_body(res.get_write_offset(), 1000))

    async with open_client(app, window=500) as client:
        response = await client.get("/")
        await wait_all_tasks_blocked()
        scope.cancel()
        client.window = 2000  # the handler has not run since
        assert await response.read() == body(0, 1000)


async def test_room_is_told_that_came_while_send_chunk_let_others_run(
    autojump_clock: trio.testing.MockClock,
) -> None:
    app = App()

    async def make_room() -> None:
        client.window = 2000

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        assert res.try_end(body(0, 1000), 1000) == (False, False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(make_room)
            assert await res.send_chunk(b"", 1000) == (True, False)
        with trio.fail_after(1):
            await until_writable(res)
        res.end(whole_body(res.get_write_offset(), 1000))

    for _round in range(20):  # which of the two tasks runs first is left to chance
        async with open_client(app, window=500) as client:
            response = await client.get("/")
            assert await response.read() == body(0, 1000)


async def test_a_complete_answer_has_no_timer(autojump_clock: trio.testing.MockClock) -> None:
    app = App(config=Config(stall_timeout=60, keep_alive_timeout=inf))
    size = app.config.stream_buffer_size + 1000
    room = trio.Event()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        assert res.try_end(body(0, size), size) == (False, False)
        await room.wait()  # less than would be told
        assert res.try_end(whole_body(res.get_write_offset(), size), size) == (True, True)

    client, stream = lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.serve_stream, stream)
        await client.send_all(get("/"))
        received = bytearray()
        while len(received) < 16 * 1024:
            received += await client.receive_some(16 * 1024 - len(received))
        await wait_all_tasks_blocked()
        room.set()
        await trio.sleep(200)
        with trio.fail_after(10):
            while not received.endswith(body(size - 100, 100)):
                received += await client.receive_some()
        assert received[received.index(b"\r\n\r\n") + 4 :] == body(0, size)
        nursery.cancel_scope.cancel()


async def check_chunks(stream: trio.SocketStream, size: int, bursts: Bursts | None) -> None:
    """Check one answer with a chunked body, and the FIN after it."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    check = BodyCheck()
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.Data):
            check.feed(event.data)
        elif isinstance(event, h11.Response):
            assert event.status_code == 200
            assert (b"transfer-encoding", b"chunked") in list(event.headers)
        else:
            max_bytes = await bursts.next_size() if bursts else 262144
            client.receive_data(await stream.receive_some(max_bytes))
    assert check.size == size
    assert client.trailing_data[0] == b""
    assert await stream.receive_some() == b""


async def check_bodies(stream: trio.abc.ReceiveStream, sizes: list[int]) -> None:
    """Check bodies of these sizes, one after the other, to the end of `stream`."""
    check = BodyCheck()
    async for data in stream:
        while check.size + len(data) > sizes[0]:
            end = sizes[0] - check.size
            check.feed(data[:end])
            assert check.size == sizes.pop(0)
            data, check = data[end:], BodyCheck()
        check.feed(data)
    assert [check.size] == sizes
