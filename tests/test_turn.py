"""How long a response sends before others run."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, cast

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from tests.clients import until
from tests.harness import connect, get, pattern, start_server
from trio_stream import App, Config, _turn
from trio_stream._socket_transport import SocketTransport
from trio_stream._transport import Transport
from trio_stream._turn import Turn
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trio_stream import Request, Response

TIMEOUT = 20  # a guard against hanging, no expectation


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns do not end because this machine is busy with something else."""
    monkeypatch.setattr(_turn, "LONGEST_TURN", math.inf)


class Arrivals:
    """What a transport tells of arrivals: each at the first look at or after its offset."""

    def __init__(self, offsets: Sequence[int]) -> None:
        self._offsets = list(offsets)
        self.sent = 0

    def arrivals(self) -> object:
        self._offsets = [offset for offset in self._offsets if offset > self.sent]
        return len(self._offsets)


@pytest.mark.parametrize(
    ("arrivals", "ends"),
    [
        # The first look can't tell whether it was quiet before.
        ([], [50, 450, 850]),
        # At the next look, and once more: this may run before whoever is to receive it.
        ([200], [50, 200, 250, 650]),
        ([201, 249], [50, 250, 300, 700]),
        ([0, 50, 100, 150], [50, 100, 150, 200, 600, 1000]),
    ],
)
def test_turn_is_over_when_something_arrives(arrivals: list[int], ends: list[int]) -> None:
    transport = Arrivals(arrivals)
    turn = Turn(cast("Transport", transport))
    over = []
    for transport.sent in range(50, 1001, 50):
        if not turn.left(transport.sent, 400):
            over.append(transport.sent)
    assert over == ends


class Steps(trio.abc.Instrument):
    """How often a task ran."""

    def __init__(self, task: trio.lowlevel.Task) -> None:
        self.count = 0
        self._task = task

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task is self._task


async def offsets_of_turns(res: Response, size: int, total: int, *, is_known: bool) -> list[int]:
    """Send `total` bytes in chunks, and tell before which of them others have run."""
    steps = Steps(trio.lowlevel.current_task())
    trio.lowlevel.add_instrument(steps)
    offsets = []
    for start in range(0, total, size):
        before = steps.count
        await res.send_chunk(bytes(size), total if is_known else None)
        if steps.count > before:
            offsets.append(start)
    trio.lowlevel.remove_instrument(steps)
    return offsets


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("has_arrivals", [True, False])
async def test_chunks_of_one_that_is_alone(
    monkeypatch: pytest.MonkeyPatch, has_arrivals: bool, is_known: bool
) -> None:
    monkeypatch.setattr(Transport, "arrivals", lambda _: object() if has_arrivals else None)
    app = App(config=Config(send_budget=1000))
    offsets = []

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        offsets.extend(await offsets_of_turns(res, 300, 18_300, is_known=is_known))

    async with open_client(app, window=100_000) as client:
        assert await (await client.get("/")).read() == bytes(18_300)
    # After each 1000 bytes, which come with the fourth chunk; or after 8000.
    assert offsets == (list(range(1200, 18_300, 1200)) if has_arrivals else [1200, 9300, 17_400])


class Meanwhile(trio.abc.Instrument):
    """Has something happen before a task goes on, in the turn of others."""

    def __init__(self, task: trio.lowlevel.Task, happen: Callable[[], object]) -> None:
        self._task = task
        self._happen = happen

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._happen()


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("size", [300, 5000])  # below and above the budget
async def test_client_that_goes_in_the_turn_of_others_is_told(is_known: bool, size: int) -> None:
    results: list[object] = []
    app = App(config=Config(send_budget=1000))

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        total = 1_000_000 if is_known else None
        trio.lowlevel.add_instrument(Meanwhile(trio.lowlevel.current_task(), client.vanish))
        while not res.aborted:
            results.append(await res.send_chunk(bytes(size), total))
        assert res.get_write_offset() == (len(results) - 1) * size
        await res.send_chunk(b"x", total)
        results.append("not cancelled")

    async with open_client(app, window=1_000_000) as client:
        await client.send_all(get("/"))
        await wait_all_tasks_blocked()
    assert len(results) > 1
    assert results == [*[(True, False)] * (len(results) - 1), (False, True)]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize(
    ("has_arrivals", "expected"),
    [(True, list(range(500, 9000, 500))), (False, [500, 4500, 8500])],
)
async def test_chunks_of_one_of_two(
    monkeypatch: pytest.MonkeyPatch,
    nursery: trio.Nursery,
    has_arrivals: bool,
    expected: list[int],
    is_known: bool,
) -> None:
    """It has a half of the budget, or of eight."""
    monkeypatch.setattr(SocketTransport, "arrivals", lambda _: object() if has_arrivals else 0)
    app = App(config=Config(send_budget=1000))
    app.get("/wait", lambda res, _: res.wait_aborted())
    offsets = []

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        offsets.extend(await offsets_of_turns(res, 100, 9000, is_known=is_known))
        done.set()

    done = trio.Event()
    with trio.fail_after(TIMEOUT):
        server = await start_server(nursery, app)
        async with await connect(server.port) as other, await connect(server.port) as stream:
            await other.send_all(get("/wait"))
            await until(lambda: server.stats.active_responses == 1)
            await stream.send_all(get("/"))
            await done.wait()
    assert offsets == expected
    nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("patient")
async def test_one_whose_server_knows_of_no_others() -> None:
    """It takes no more than one of many."""
    app = App(config=Config(send_budget=8000))
    offsets: list[int] = []

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        offsets.extend(await offsets_of_turns(res, 100, 5000, is_known=True))

    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.serve_stream, theirs)
        await ours.send_all(get("/", "Connection: close"))
        async for _ in ours:
            pass
    assert offsets == [1000, 2000, 3000, 4000]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("has_arrivals", "expected", "looks_expected"),
    [(True, list(range(128, 2048, 128)), 15), (False, [128, 640, 1152, 1664], 5)],
)
async def test_one_of_very_many(
    monkeypatch: pytest.MonkeyPatch,
    nursery: trio.Nursery,
    has_arrivals: bool,
    expected: list[int],
    looks_expected: int,
) -> None:
    """It has an eighth of the budget, or a half, and looks once only."""
    looks: list[object] = []

    def look(_: object) -> object:
        looks.append(object())
        return looks[-1] if has_arrivals else None

    monkeypatch.setattr(SocketTransport, "arrivals", look)
    app = App(config=Config(send_budget=1024))
    offsets: list[int] = []
    done = trio.Event()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        server.stats.active_responses += 63
        offsets.extend(await offsets_of_turns(res, 32, 2048, is_known=True))
        server.stats.active_responses -= 63
        done.set()

    with trio.fail_after(TIMEOUT):
        server = await start_server(nursery, app)
        async with await connect(server.port) as stream:
            await stream.send_all(get("/"))
            await done.wait()
    assert offsets == expected
    assert len(looks) == looks_expected
    nursery.cancel_scope.cancel()


async def test_small_request_beside_chunks_is_answered_at_the_next_looks(
    nursery: trio.Nursery,
) -> None:
    """And not after eight budgets only. All that is sent finds room, so that nobody parks."""
    app = App(config=Config(send_budget=1000))
    offsets: list[int] = []
    streams: list[Response] = []

    @app.get("/hello")
    def hello(res: Response, _: Request) -> None:
        offsets.extend(stream.get_write_offset() for stream in streams)
        res.end(b"hello")

    @app.get("/stream")
    async def stream(res: Response, _: Request) -> None:
        streams.append(res)
        for start in range(0, 20_000, 100):
            if start == 5000:
                os.write(quick.socket.fileno(), get("/hello"))
            await res.send_chunk(bytes(100), 20_000)

    with trio.fail_after(TIMEOUT):
        server = await start_server(nursery, app)
        async with await connect(server.port) as fast, await connect(server.port) as quick:
            await quick.send_all(get("/hello"))
            await quick.receive_some()  # the connection is known, and idle
            await fast.send_all(get("/stream"))
            assert bytes(await quick.receive_some()).endswith(b"\r\n\r\nhello")
    (offset,) = offsets
    assert 5000 <= offset <= 7200  # two looks, as this may run first after the first one
    nursery.cancel_scope.cancel()


class Work(trio.abc.Clock):
    """Time that passes by the work of handlers, and by nothing else."""

    def __init__(self) -> None:
        self.now = 0.0

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        return self.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return 0 if deadline <= self.now else 1


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize(
    ("work", "at_first", "then"),
    [
        (lambda _: 0.002, 8, 8),  # the clock is looked at before the second, third, fifth and ninth
        (lambda _: 0.02, 2, 1),  # and not before the first of all
        (lambda number: 0.0 if number < 500 else 0.02, 64, 1),
    ],
)
def test_handler_that_works_for_its_chunks_lets_others_run(
    work: Callable[[int], float], at_first: int, then: int, is_known: bool
) -> None:
    clock = Work()
    app = App()
    turns: list[int] = []

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        steps = Steps(trio.lowlevel.current_task())
        trio.lowlevel.add_instrument(steps)
        for number in range(1000):
            before = steps.count
            await res.send_chunk(bytes(100), 100_000 if is_known else None)
            if steps.count > before or not turns:
                turns.append(0)
            turns[-1] += work(number) > 0
            clock.now += work(number)
        trio.lowlevel.remove_instrument(steps)

    async def main() -> None:
        async with open_client(app, window=200_000) as client:
            assert await (await client.get("/")).read() == bytes(100_000)

    trio.run(main, clock=clock)
    busy = [count for count in turns if count]
    assert then <= busy[0] <= at_first
    assert set(busy[1:-1]) == {then}


def test_small_chunks_after_large_ones_let_others_run() -> None:
    clock = Work()
    app = App()
    longest = 0.0

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        nonlocal longest
        steps = Steps(trio.lowlevel.current_task())
        trio.lowlevel.add_instrument(steps)
        for _number in range(300):
            await res.send_chunk(bytes(16384))
        began_at, seen = clock.now, steps.count
        for _number in range(3000):
            clock.now += 0.001
            await res.send_chunk(bytes(10))
            if steps.count > seen:
                longest = max(longest, clock.now - began_at)
                began_at, seen = clock.now, steps.count
        trio.lowlevel.remove_instrument(steps)

    async def main() -> None:
        async with open_client(app, window=10_000_000) as client:
            assert len(await (await client.get("/")).read()) == 300 * 16384 + 30_000

    trio.run(main, clock=clock)
    assert 0.01 <= longest <= 0.08  # 64 chunks, and what is due after them


@pytest.mark.parametrize("work", [0.0, 0.001])
def test_task_that_sends_on_many_responses_has_one_turn_for_all(work: float) -> None:
    clock = Work()
    app = App()
    members: list[Response] = []
    turns: list[int] = []

    @app.get("/join")
    async def join(res: Response, _: Request) -> None:
        members.append(res)
        await res.wait_aborted()

    @app.get("/tell")
    async def tell(res: Response, _: Request) -> None:
        steps = Steps(trio.lowlevel.current_task())
        for _round in range(3):
            clock.now += 1
            await trio.sleep(0)
            trio.lowlevel.add_instrument(steps)
            before = steps.count
            for member in members:
                await member.send_chunk(bytes(100))
                clock.now += work
            turns.append(steps.count - before)
            trio.lowlevel.remove_instrument(steps)
        res.end()

    async def main() -> None:
        server = app._make_server()
        async with server._running(), trio.open_nursery() as nursery:
            for path in ["/join"] * 20 + ["/tell"]:
                ours, theirs = memory_stream_pair()
                nursery.start_soon(server._serve_stream, theirs)
                await ours.send_all(get(path))
                await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    trio.run(main, clock=clock)
    # With 21 responses, a turn takes an eighth of 10 ms: two sends that work, or some more.
    assert all(5 <= count <= 10 if work else count == 0 for count in turns)


@pytest.mark.parametrize("total_size", [10_440 + 1, None])
async def test_chunk_that_goes_in_part_after_an_empty_one_and_a_wait_is_sent_once(
    total_size: int | None, autojump_clock: MockClock
) -> None:
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        await res.send_chunk(bytes(100), total_size)
        await res.send_chunk(bytes(100), total_size)
        await res.send_chunk(b"", total_size)
        await trio.sleep(1)
        assert await res.send_chunk(pattern(10_240), total_size) == (True, False)
        assert res.get_write_offset() == 10_440
        await res.send_chunk(b"!", total_size)

    async with open_client(app, window=1000) as client:
        body = await (await client.get("/")).read()
    assert body == bytes(200) + pattern(10_240) + b"!"


async def test_handler_that_waits_between_its_chunks_has_a_turn_for_each(
    autojump_clock: MockClock,
) -> None:
    app = App(config=Config(send_budget=250))
    turns = []

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        steps = Steps(trio.lowlevel.current_task())
        trio.lowlevel.add_instrument(steps)
        for number in range(100):
            await trio.sleep(1 if number % 2 else 0)
            before = steps.count
            await res.send_chunk(bytes(100), 10_000)
            turns.append(steps.count - before)
        trio.lowlevel.remove_instrument(steps)

    async with open_client(app, window=20_000) as client:
        assert await (await client.get("/")).read() == bytes(10_000)
    assert turns[:-1] == [0] * 99
