from __future__ import annotations

import logging
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.harness import connect, get
from trio_stream import AbortReason, App, Request, Response, Server
from trio_stream._listeners import ListenOptions, open_listeners
from trio_stream._signals import serve_until_signal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio.testing import MockClock


class Run:
    """A server that obeys signals, with one client whose handler is asleep."""

    server: Server

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.aborts: list[AbortReason | None] = []


@asynccontextmanager
async def run(reload: Callable[[], object] | None = None) -> AsyncIterator[Run]:
    """Yield what is told of a server; at the end it must have ended by itself."""
    app = App()
    run = Run()
    is_asleep = trio.Event()

    @app.get("/")
    async def handler(res: Response, req: Request) -> None:
        is_asleep.set()
        try:
            await trio.sleep_forever()
        finally:
            run.aborts.append(res.abort_reason)

    async def serve(task_status: trio.TaskStatus[Server]) -> None:
        async with open_listeners(ListenOptions(host="127.0.0.1", port=0)) as listeners:
            server = app._make_server(listeners)
            status = await serve_until_signal(server, task_status.started, reload=reload)
        run.statuses.append(status)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            run.server = await nursery.start(serve)
            async with await connect(run.server.port) as client:
                await client.send_all(get("/"))
                await is_asleep.wait()
                yield run


async def hear(number: signal.Signals, clock: MockClock | None = None) -> None:
    """Send a signal to this process, a second after any before it, and have it obeyed."""
    if clock is not None:
        clock.jump(1)
    signal.raise_signal(number)
    await wait_all_tasks_blocked()


@pytest.fixture(autouse=True)
def handlers_are_restored() -> object:
    caught = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in caught]
    yield
    assert [signal.getsignal(number) for number in caught] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_the_first_signal_is_a_shutdown(
    number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with run() as told:
        await hear(number)
        assert told.server.stats.shutting_down
        assert told.statuses == []  # the response has its grace
    assert told.statuses == [0]
    assert told.aborts == [AbortReason.CLIENT_CLOSED]
    tells_of_a_second = "SIGINT: a second signal ends it at once" in caplog.messages
    assert tells_of_a_second is (number == signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_second_signal_ends_it_at_once(
    number: signal.Signals, mock_clock: MockClock
) -> None:
    async with run() as told:
        await hear(number, mock_clock)
        await hear(number, mock_clock)
        assert told.aborts == [AbortReason.SHUTDOWN]
        mock_clock.jump(0.09)
        await hear(number)
        assert told.statuses == []  # the last one was an echo
        mock_clock.jump(0.1)
    assert told.statuses == [1]


async def test_a_terminal_may_hang_up_more_than_once() -> None:
    async with run() as told:
        for _ in range(3):
            await hear(signal.SIGHUP)
        assert told.statuses == []
    assert told.statuses == [0]


async def test_two_signals_at_once_are_one(mock_clock: MockClock) -> None:
    """As timeout(1) sends them: to its child, and to the group of both."""
    async with run() as told:
        await hear(signal.SIGTERM, mock_clock)
        mock_clock.jump(0.09)
        await hear(signal.SIGTERM)
        assert told.statuses == []
        mock_clock.jump(0.01)
        await hear(signal.SIGTERM)
        assert told.aborts == [AbortReason.SHUTDOWN]
        mock_clock.jump(0.1)
    assert told.statuses == [1]


async def test_an_echo_does_not_hit_what_comes_after_the_server() -> None:
    """Which ends at once, as nothing is under way."""
    app = App()
    async with open_listeners(ListenOptions(host="127.0.0.1", port=0)) as listeners:
        server = app._make_server(listeners)

        def send_two(_: object) -> None:
            nursery.start_soon(hear, signal.SIGTERM)
            nursery.start_soon(echo)

        async def echo() -> None:
            while not server.stats.shutting_down:
                await trio.sleep(0)
            await trio.sleep(0.05)  # shorter than any person is
            signal.raise_signal(signal.SIGTERM)

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                assert await serve_until_signal(server, send_two) == 0


async def test_two_different_signals_are_two() -> None:
    async with run() as told:
        await hear(signal.SIGTERM)
        await hear(signal.SIGINT)
        assert told.aborts == [AbortReason.SHUTDOWN]
    assert told.statuses == [1]


async def test_a_signal_after_another_shutdown_is_the_first_one(mock_clock: MockClock) -> None:
    async with run() as told:
        told.server.shutdown()
        await hear(signal.SIGTERM, mock_clock)
        assert told.aborts == []
        await hear(signal.SIGTERM, mock_clock)
        assert told.aborts == [AbortReason.SHUTDOWN]
        mock_clock.jump(0.1)
    assert told.statuses == [1]


async def test_a_hang_up_has_another_use_where_there_is_one() -> None:
    reloads = []
    async with run(lambda: reloads.append(True)) as told:
        await hear(signal.SIGHUP)
        assert len(reloads) == 1
        assert not told.server.stats.shutting_down
        await hear(signal.SIGTERM)
        await hear(signal.SIGHUP)
        assert len(reloads) == 2  # also while it shuts down
        assert told.statuses == []
    assert told.statuses == [0]


async def test_a_hang_up_that_is_ignored_is_none() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        async with run() as told:
            await hear(signal.SIGHUP)
            assert not told.server.stats.shutting_down
            await hear(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before)
