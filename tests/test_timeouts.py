"""One timer for all who wait for their client: at the exact time, in order, and only if stalled."""

from __future__ import annotations

from contextlib import asynccontextmanager
from math import inf
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trio_stream import AbortReason, App, Config, Request, Response
from trio_stream._timeouts import MinimumRate, TimeoutWatch
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio.testing import MockClock


class Sender:
    """Notes what it is asked and told, and when."""

    def __init__(self, name: str, log: list[tuple[float, str]]) -> None:
        self.name = name
        self.log = log
        self.progressed = False
        self.when_stalled: Callable[[], None] = lambda: None

    def has_progressed(self) -> bool:
        progressed, self.progressed = self.progressed, False
        self.log.append((trio.current_time(), f"{self.name} moves" if progressed else self.name))
        return progressed

    def on_timeout(self) -> None:
        self.log.append((trio.current_time(), f"{self.name} stalls"))
        self.when_stalled()


def make_senders(count: int) -> tuple[list[tuple[float, str]], list[Sender]]:
    log: list[tuple[float, str]] = []
    return log, [Sender("abcdefgh"[index % 8], log) for index in range(count)]


def next_deadline() -> float:
    """In seconds from now, of all tasks."""
    return trio.lowlevel.current_statistics().seconds_to_next_deadline


async def test_a_sender_stalls_after_exactly_the_timeout(autojump_clock: MockClock) -> None:
    log, (a,) = make_senders(1)
    watch = TimeoutWatch(60)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        await trio.sleep(7)
        assert a not in watch._deadlines
        watch.start(a)
        assert a in watch._deadlines
        await trio.sleep(59.999)
        assert log == []
        assert a in watch._deadlines
        await trio.sleep(1000)
        nursery.cancel_scope.cancel()
    assert log == [(67, "a"), (67, "a stalls")]
    assert a not in watch._deadlines


async def test_what_was_started_before_the_watch_runs_counts(autojump_clock: MockClock) -> None:
    log, (a, b) = make_senders(2)
    watch = TimeoutWatch(60)
    watch.start(a)
    await trio.sleep(10)
    watch.start(b)
    await trio.sleep(55)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert log == [(65, "a"), (65, "a stalls"), (70, "b"), (70, "b stalls")]


async def test_senders_stall_in_the_order_in_which_they_were_started(
    autojump_clock: MockClock,
) -> None:
    log, (a, b, c, d) = make_senders(4)
    watch = TimeoutWatch(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        watch.start(b)
        watch.start(a)
        await trio.sleep(1)
        watch.start(d)
        await trio.sleep(1)
        watch.start(c)
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    stalls = [(time, what) for time, what in log if what.endswith("stalls")]
    assert stalls == [(10, "b stalls"), (10, "a stalls"), (11, "d stalls"), (12, "c stalls")]


async def test_starting_again_gives_the_full_timeout(autojump_clock: MockClock) -> None:
    log, (a, b) = make_senders(2)
    watch = TimeoutWatch(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        watch.start(a)
        await trio.sleep(2)
        watch.start(b)
        await trio.sleep(7)
        watch.start(a)  # now behind b
        watch.start(a)
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    assert log == [(12, "b"), (12, "b stalls"), (19, "a"), (19, "a stalls")]


async def test_what_was_stopped_does_not_stall(autojump_clock: MockClock) -> None:
    log, (a, b, c) = make_senders(3)
    watch = TimeoutWatch(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        watch.stop(a)  # there is nothing to stop
        for sender in (a, b, c):
            watch.start(sender)
        await trio.sleep(9)
        watch.stop(a)
        watch.stop(a)
        assert (a in watch._deadlines, b in watch._deadlines, c in watch._deadlines) == (
            False,
            True,
            True,
        )
        await trio.sleep(1.5)
        assert log == [(10, "b"), (10, "b stalls"), (10, "c"), (10, "c stalls")]
        watch.start(a)
        watch.stop(a)
        await trio.sleep(2)
        watch.start(a)
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    assert log[4:] == [(22.5, "a"), (22.5, "a stalls")]


async def test_progress_gives_the_full_timeout_once_more(autojump_clock: MockClock) -> None:
    log, (a, b) = make_senders(2)
    watch = TimeoutWatch(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        watch.start(a)
        watch.start(b)
        await trio.sleep(1)
        a.progressed = True
        await trio.sleep(14)
        assert a in watch._deadlines
        a.progressed = True
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    # Progress is not looked at while it is made, so the end is found within twice the timeout.
    assert log == [
        (10, "a moves"),
        (10, "b"),
        (10, "b stalls"),
        (20, "a moves"),
        (30, "a"),
        (30, "a stalls"),
    ]


async def test_a_sender_may_start_and_stop_others_when_it_stalls(
    autojump_clock: MockClock,
) -> None:
    log, (a, b, c) = make_senders(3)
    watch = TimeoutWatch(10)
    a.when_stalled = lambda: watch.stop(b)

    def start_again() -> None:
        c.when_stalled = lambda: None
        watch.start(c)
        watch.start(b)

    c.when_stalled = start_again
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        for sender in (a, b, c):
            watch.start(sender)
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    assert log == [
        *[(10, "a"), (10, "a stalls"), (10, "c"), (10, "c stalls")],
        *[(20, "c"), (20, "c stalls"), (20, "b"), (20, "b stalls")],
    ]


async def test_many_senders(autojump_clock: MockClock) -> None:
    log, senders = make_senders(10_000)
    watch = TimeoutWatch(60)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        await trio.testing.wait_all_tasks_blocked()
        tasks = trio.lowlevel.current_statistics().tasks_living
        for start in range(0, 10_000, 100):
            for sender in senders[start : start + 100]:
                watch.start(sender)
            await trio.sleep(1)
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        await trio.sleep(0.5)
        for sender in senders[1::2]:
            watch.stop(sender)
        await trio.sleep(1000)
        nursery.cancel_scope.cancel()
    assert log == [
        (60 + index // 100, text)
        for index, sender in enumerate(senders)
        # The first forty batches had stalled before half of the others were stopped.
        if index % 2 == 0 or index < 41 * 100
        for text in (sender.name, f"{sender.name} stalls")
    ]


async def test_the_timer_is_idle_when_nobody_is_blocked(autojump_clock: MockClock) -> None:
    _, (a, b) = make_senders(2)
    watch = TimeoutWatch(60)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        await trio.testing.wait_all_tasks_blocked()
        assert next_deadline() == inf
        watch.start(a)
        watch.start(b)
        await trio.testing.wait_all_tasks_blocked()
        assert next_deadline() == 60
        watch.stop(a)
        watch.stop(b)
        await trio.sleep(60)
        await trio.testing.wait_all_tasks_blocked()
        assert next_deadline() == inf
        watch.start(a)  # it wakes up again
        await trio.testing.wait_all_tasks_blocked()
        assert next_deadline() == 60
        await trio.sleep(60)
        await trio.testing.wait_all_tasks_blocked()
        assert a not in watch._deadlines
        assert next_deadline() == inf
        nursery.cancel_scope.cancel()


async def test_without_a_timeout_nobody_stalls(autojump_clock: MockClock) -> None:
    log, (a, b) = make_senders(2)
    watch = TimeoutWatch(inf)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        watch.start(a)
        watch.start(b)
        await trio.testing.wait_all_tasks_blocked()
        assert next_deadline() == inf
        await trio.sleep(1e9)
        watch.stop(a)
        assert (a in watch._deadlines, b in watch._deadlines) == (False, True)
        await trio.sleep(1e9)
        nursery.cancel_scope.cancel()
    assert log == []


# A minimum rate: 100 bytes a second, with a grace of 5 seconds...


class Client:
    """One that has sent `count` bytes; notes when it is found to be too slow."""

    def __init__(self, watch: TimeoutWatch, rate: float) -> None:
        self.count = 12_345  # from anywhere
        self.too_slow_at: list[float] = []
        self.pace = MinimumRate(watch, rate, lambda: self.count, self._on_slow)

    def _on_slow(self) -> None:
        self.too_slow_at.append(trio.current_time())


@asynccontextmanager
async def watched_client(rate: float = 100, beats: int = 1) -> AsyncIterator[Client]:
    watch = TimeoutWatch(5, beats=beats)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        yield Client(watch, rate)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("each_second", "found_at"),
    [
        (0, [5]),  # when the allowance is spent
        (1, [10]),  # at the next look, though it was spent soon after the first
        (49, [10]),
        (51, [15]),
        (80, [25]),
        (99, [500]),
        (100, []),
        (5000, []),
    ],
)
async def test_client_is_too_slow_when_its_allowance_is_found_spent(
    each_second: int, found_at: list[float], autojump_clock: MockClock
) -> None:
    async with watched_client() as client:
        client.pace.wait()
        await trio.sleep(0.5)  # so that nothing comes at the time of a look
        for _ in range(1000):
            client.count += each_second
            await trio.sleep(1)
        assert client.too_slow_at == found_at


async def test_client_is_found_too_slow_once(autojump_clock: MockClock) -> None:
    async with watched_client() as client:
        await trio.sleep(2)
        client.pace.wait()
        await trio.sleep(10)
        client.pace.stop_waiting()
        client.pace.wait()
        await trio.sleep(10)
        assert client.too_slow_at == [7]


async def test_burst_earns_no_more_than_the_grace(autojump_clock: MockClock) -> None:
    async with watched_client() as client:
        client.pace.wait()
        client.count += 1_000_000
        await trio.sleep(100)
        assert client.too_slow_at == [10]


async def test_time_in_which_nobody_waits_neither_costs_nor_earns(
    autojump_clock: MockClock,
) -> None:
    async with watched_client() as client:
        client.pace.wait()
        await trio.sleep(4)
        client.pace.stop_waiting()
        client.pace.stop_waiting()  # there is nothing to stop
        client.count += 1_000_000
        await trio.sleep(100)
        client.pace.wait()
        await trio.sleep(100)
        assert client.too_slow_at == [105]


async def test_slowness_is_found_while_nobody_waits(autojump_clock: MockClock) -> None:
    async with watched_client() as client:
        client.pace.wait()
        await trio.sleep(4)
        client.pace.stop_waiting()
        await trio.sleep(2)
        client.pace.wait()
        await trio.sleep(1)
        client.pace.stop_waiting()
        await trio.sleep(100)
        assert client.too_slow_at == [10]


async def pass_time(clock: MockClock, step: float, steps: int) -> None:
    for _ in range(steps):
        clock.jump(step)
        await trio.testing.wait_all_tasks_blocked()


async def test_being_a_little_late_is_no_excuse(mock_clock: MockClock) -> None:
    """As the watch of any server is, each time that it wakes."""
    async with watched_client(beats=8) as client:
        client.pace.wait()
        await trio.testing.wait_all_tasks_blocked()
        await pass_time(mock_clock, 0.7, 8)
        assert client.too_slow_at == [pytest.approx(5.6)]


async def test_lost_time_counts_for_those_who_are_waited_for(mock_clock: MockClock) -> None:
    async with watched_client(beats=8) as client:
        client.pace.wait()
        await trio.testing.wait_all_tasks_blocked()
        await pass_time(mock_clock, 1000, 2)
        assert client.too_slow_at == []
        await pass_time(mock_clock, 0.5, 20)
        assert client.too_slow_at == [2005]  # a beat of each 1000 seconds is its own


async def test_lost_time_in_which_nobody_waits_earns_nothing(mock_clock: MockClock) -> None:
    """Its handler may be what keeps the processor."""
    async with watched_client(beats=8) as client:
        for _ in range(6):
            client.pace.wait()
            await trio.testing.wait_all_tasks_blocked()
            await pass_time(mock_clock, 0.5, 4)
            client.pace.stop_waiting()
            mock_clock.jump(3)
        assert client.too_slow_at == [pytest.approx(15)]


async def test_rate_of_0_is_none(autojump_clock: MockClock) -> None:
    async with watched_client(rate=0) as client:
        client.pace.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert next_deadline() == inf
        await trio.sleep(1000)
        client.pace.stop_waiting()
        assert client.too_slow_at == []


async def test_closed_rate_is_not_looked_at(autojump_clock: MockClock) -> None:
    async with watched_client() as client:
        client.pace.wait()
        await trio.sleep(4)
        client.pace.close()
        await trio.sleep(1000)
        assert client.too_slow_at == []


# As a response sees it: no byte taken is a stall, one is progress.


@pytest.mark.parametrize(
    ("taken_at", "stalled_at"),
    [([], 60), ([0], 60), ([10], 70), ([59], 119), ([59, 118, 177, 236], 296)],
)
async def test_a_client_that_takes_nothing_is_aborted(
    taken_at: list[float], stalled_at: float, autojump_clock: MockClock
) -> None:
    ends: list[tuple[float, AbortReason | None]] = []

    def note_end(res: Response) -> None:
        ends.append((trio.current_time() - start, res.abort_reason))

    app = App()

    @app.get("/")
    async def handler(res: Response, req: Request) -> None:
        res.on_aborted(note_end)
        await res.send_chunk(bytes(100_000), 100_000)

    async with open_client(app, window=1000) as client:
        await client.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        for time in taken_at:
            await trio.sleep_until(start + time)
            assert len(await client.receive_some(1)) == 1
        await trio.sleep(1000)
    assert ends == [(stalled_at, AbortReason.STALLED)]


@pytest.mark.parametrize("timeout", [0.25, 5, inf])
async def test_the_timeout_is_that_of_the_config(timeout: float, autojump_clock: MockClock) -> None:
    app = App(config=Config(stall_timeout=timeout))

    @app.get("/")
    async def handler(res: Response, req: Request) -> None:
        await res.send_chunk(bytes(100_000), 100_000)

    async with open_client(app, window=1000) as client:
        await client.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        if timeout < inf:
            await trio.sleep(timeout - 0.001)
            assert client.stats.aborts == {}
            await trio.sleep(0.002)
            assert client.stats.aborts == {AbortReason.STALLED: 1}
        else:
            await trio.sleep(1e6)
            assert client.stats.aborts == {}


async def test_a_handler_that_sends_nothing_does_not_stall(autojump_clock: MockClock) -> None:
    app = App()

    @app.get("/")
    async def handler(res: Response, req: Request) -> None:
        await res.send_chunk(bytes(800), 1000)
        await trio.sleep(1000)
        await res.send_chunk(bytes(200), 1000)

    async with open_client(app) as client:
        response = await client.get("/")
        assert len(await response.read()) == 1000
        assert client.stats.aborts == {}
