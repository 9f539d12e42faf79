"""What happens when the client goes, the handler fails, or somebody cancels: rules 4 to 9."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import assert_checkpoints, lockstep_stream_pair, wait_all_tasks_blocked

from tests.harness import decode, get, open_peer, open_stopped_client, pattern, without_date
from trio_stream import AbortReason, App, Config, Request, Response
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    from tests.harness import Kind, Peer

    Handler = Callable[[Response, Request], Awaitable[None] | None]

# More than any of the kinds of transport takes at once from a client that does not read.
LARGE = 1_000_000


class Log:
    """What happened, in order."""

    def __init__(self) -> None:
        self.entries: list[object] = []
        self._change = trio.Event()

    def add(self, entry: object) -> None:
        self.entries.append(entry)
        self._change.set()
        self._change = trio.Event()

    async def wait_for(self, entry: object) -> None:
        while entry not in self.entries:
            await self._change.wait()


async def leave(peer: Peer, how: str) -> None:
    await (peer.send_eof() if how == "FIN" else peer.reset())


# In every phase a handler can be in


@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("pipelined", [False, True])
async def test_sleeping_handler_is_cancelled(kind: Kind, how: str, pipelined: bool) -> None:
    log = Log()
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        res.on_aborted(lambda res: log.add(("aborted", res.aborted, res.abort_reason)))
        log.add("asleep")
        try:
            await trio.sleep_forever()
        finally:
            log.add("unwound")

    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/"))
        await log.wait_for("asleep")
        if pipelined:  # bytes that nobody reads must not hide the end
            await peer.send_all(get("/") * 100)
        await leave(peer, how)
        await log.wait_for("unwound")
        assert log.entries == ["asleep", ("aborted", True, AbortReason.CLIENT_CLOSED), "unwound"]
        assert peer.stats.aborts == {AbortReason.CLIENT_CLOSED: 1}


@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("pipelined", [False, True])
async def test_parked_send_chunk_returns(kind: Kind, how: str, pipelined: bool) -> None:
    log = Log()
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        log.add("sending")
        log.add(await res.send_chunk(bytes(LARGE), LARGE))
        assert res.aborted
        assert 0 < res.get_write_offset() < LARGE
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            log.add("cancelled")
            raise

    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/"))
        await log.wait_for("sending")
        await wait_all_tasks_blocked()
        if pipelined:
            await peer.send_all(get("/") * 100)
        await leave(peer, how)
        await log.wait_for("cancelled")
        assert log.entries == ["sending", (False, True), "cancelled"]


@pytest.mark.parametrize("how", ["FIN", "RST"])
async def test_computing_handler_is_told_at_its_next_await(kind: Kind, how: str) -> None:
    log = Log()
    app = App()
    ready = trio.Event()
    go_on = trio.Event()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        await res.send_chunk(b"first", 1000)
        ready.set()
        with trio.CancelScope(shield=True):  # as good as computing: it takes no notice
            await go_on.wait()
        log.add(res.aborted)
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
        finally:
            log.add("ended")

    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/"))
        await ready.wait()
        await leave(peer, how)
        await wait_all_tasks_blocked()
        go_on.set()
        await log.wait_for("ended")
        assert log.entries == [True, "ended"]


async def test_handler_between_two_chunks_is_told_by_the_next_one(kind: Kind) -> None:
    log = Log()
    app = App()
    ready = trio.Event()
    go_on = trio.Event()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        assert await res.send_chunk(b"first", 1000) == (True, False)
        ready.set()
        with trio.CancelScope(shield=True):
            await go_on.wait()
        log.add(await res.send_chunk(b"second", 1000))
        log.add(res.get_write_offset())
        log.add(res.try_end(b"second", 1000))
        log.add(res.end(b"second"))
        try:
            await res.send_chunk(b"second", 1000)
        finally:
            log.add("cancelled by the second send_chunk")

    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/"))
        await ready.wait()
        await peer.reset()
        await wait_all_tasks_blocked()
        go_on.set()
        await log.wait_for("cancelled by the second send_chunk")
        assert log.entries[:-1] == [(False, True), 5, (False, True), False]


async def test_client_that_leaves_while_its_body_is_unread(kind: Kind) -> None:
    log = Log()
    app = App()

    @app.post("/")
    async def handler(res: Response, _: Request) -> None:
        res.on_aborted(lambda res: log.add(res.abort_reason))
        await trio.sleep_forever()

    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/", "Content-Length: 1000", method="POST") + bytes(500))
        await wait_all_tasks_blocked()
        await peer.send_eof()
        await log.wait_for(AbortReason.CLIENT_CLOSED)


# The order


async def test_abort_happens_in_the_order_of_the_contract() -> None:
    log: list[str] = []
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        def first(res: Response) -> None:
            log.append(f"first: aborted={res.aborted} cancelled={res.cancel_scope.cancel_called}")

        def second(res: Response) -> None:
            log.append(f"second: reason={res.abort_reason and res.abort_reason.name}")

        async def wait() -> None:
            log.append(f"wait_aborted: {(await res.wait_aborted()).name}")

        async def sleep() -> None:
            try:
                await trio.sleep_forever()
            finally:
                log.append("cancelled")

        res.on_aborted(first).on_aborted(second).on_aborted(first)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            nursery.start_soon(sleep)
            log.append(f"send_chunk: {tuple(await res.send_chunk(bytes(100), 100))}")

    async with open_client(app, window=10) as client:
        await client.send_all(get("/"))
        await wait_all_tasks_blocked()
        client.vanish()
        # Without yielding, as far as that goes.
        assert log == ["first: aborted=True cancelled=False", "second: reason=CLIENT_CLOSED"]
        await wait_all_tasks_blocked()
        assert sorted(log[2:]) == [
            "cancelled",
            "send_chunk: (False, True)",
            "wait_aborted: CLIENT_CLOSED",
        ]


async def test_loop_of_the_contract_ends_by_its_own_break() -> None:
    log: list[object] = []
    app = App()

    @app.get("/")
    async def song(res: Response, _: Request) -> None:
        try:
            while not res.aborted:
                ok, done = await res.send_chunk(bytes(100), 100_000)
                if not ok or done:
                    log.append((ok, done))
                    break
            log.append("after the loop")
        except trio.Cancelled:
            log.append("cancelled")
            raise

    async with open_client(app, window=250) as client:
        await client.send_all(get("/"))
        await wait_all_tasks_blocked()
        client.vanish()
        await wait_all_tasks_blocked()
        assert log == [(False, True), "after the loop"]


@pytest.mark.parametrize("per_route", [False, True])
async def test_without_cancel_on_abort_the_handler_goes_on(kind: Kind, per_route: bool) -> None:
    log = Log()
    app = App(cancel_on_abort=per_route)

    @app.get("/", cancel_on_abort=False if per_route else None)
    async def handler(res: Response, _: Request) -> None:
        log.add("started")
        log.add(await res.wait_aborted())
        await trio.lowlevel.checkpoint()
        assert res.aborted
        assert not res.cancel_scope.cancel_called
        for _chunk in range(3):
            with assert_checkpoints() if _chunk else trio.CancelScope():
                assert await res.send_chunk(b"x", 1) == (False, True)
        log.add("ended")

    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/"))
        await log.wait_for("started")
        await peer.send_eof()
        await log.wait_for("ended")
        assert log.entries == ["started", AbortReason.CLIENT_CLOSED, "ended"]


async def test_route_can_ask_for_cancel_on_abort_against_the_app() -> None:
    ended = trio.Event()
    app = App(cancel_on_abort=False)

    @app.get("/", cancel_on_abort=True)
    async def handler(_res: Response, _: Request) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with open_client(app) as client:
        await client.send_all(get("/"))
        await wait_all_tasks_blocked()
        client.vanish()
        await ended.wait()


# A FIN, half-close


async def test_early_fin_still_gets_an_answer_that_does_not_wait(kind: Kind) -> None:
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        assert await res.send_chunk(b"hel", 5) == (True, False)
        assert await res.send_chunk(b"lo", 5) == (True, True)

    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/") * 2)
        await peer.send_eof()
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
        assert without_date(await peer.receive_until_eof()) == answer * 2
        assert peer.stats.aborts == {}


async def test_early_fin_aborts_a_handler_that_waits(kind: Kind) -> None:
    log = Log()
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        res.on_aborted(lambda res: log.add(res.abort_reason))
        await trio.sleep_forever()

    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/"))
        await peer.send_eof()
        assert await peer.receive_until_eof() == b""
        assert log.entries == [AbortReason.CLIENT_CLOSED]


async def test_half_closed_client_is_served_where_that_is_asked_for(kind: Kind) -> None:
    app = App(config=Config(half_close="serve"))
    aborted: list[Response] = []

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        res.on_aborted(aborted.append)
        for _turn in range(3):
            await trio.lowlevel.checkpoint()
        assert await res.send_chunk(pattern(1_000_000), 1_000_000) == (True, True)

    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/"))
        await peer.send_eof()
        received = without_date(await peer.receive_until_eof())
        assert received == (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + pattern(1_000_000)
        )
        assert aborted == []


async def test_reset_aborts_also_where_half_close_is_served(kind: Kind) -> None:
    log = Log()
    app = App(config=Config(half_close="serve"))

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        res.on_aborted(lambda res: log.add(res.abort_reason))
        log.add("asleep")
        await trio.sleep_forever()

    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/"))
        await log.wait_for("asleep")
        await peer.reset()
        await log.wait_for(AbortReason.CLIENT_CLOSED)


# A client that takes nothing


async def test_stalled_client_is_aborted(kind: Kind, mock_clock: MockClock) -> None:
    log = Log()
    app = App(config=Config(stall_timeout=60))

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        res.on_aborted(lambda res: log.add(res.abort_reason))
        log.add(await res.send_chunk(bytes(LARGE), LARGE))

    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/"))
        await peer.receive_some(1)
        await wait_all_tasks_blocked(0.05)
        mock_clock.jump(59.9)
        await wait_all_tasks_blocked(0.05)
        assert log.entries == []
        mock_clock.jump(0.1)
        await wait_all_tasks_blocked(0.05)
        if kind != "memory":  # the kernel may have taken some more bytes after the park
            mock_clock.jump(60)
        await log.wait_for((False, True))
        assert log.entries == [AbortReason.STALLED, (False, True)]
        with pytest.raises(trio.BrokenResourceError):
            await peer.receive_until_eof()


async def test_client_that_takes_a_byte_in_time_is_not_stalled(autojump_clock: MockClock) -> None:
    app = App(config=Config(stall_timeout=10))

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        await res.send_chunk(bytes(100), 100)

    async with open_client(app, window=1) as client:
        await client.send_all(get("/"))
        for _ in range(100):
            await trio.sleep(9.9)
            assert len(await client.receive_some()) == 1
        assert client.stats.aborts == {}
        await trio.sleep(9.9)
        assert client.stats.aborts == {}
        await trio.sleep(0.2)
        assert client.stats.aborts == {AbortReason.STALLED: 1}


@pytest.mark.parametrize("taken", [16 * 1024, 60_000])
@pytest.mark.parametrize("call", ["try_write", "on_writable", "drain", "wait"])
async def test_client_that_takes_no_more_stalls_though_there_is_room(
    autojump_clock: MockClock, call: str, taken: int
) -> None:
    kept: list[Response] = []
    go_on = trio.Event()
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        kept.append(res)
        writable = trio.Event()
        res.on_writable(lambda _, __: writable.set())
        if call == "drain":
            res.write(bytes(70_000))  # more than is taken
        else:
            assert not res.try_write(bytes(70_000)).ok
        await go_on.wait()
        if call == "drain":
            await res.drain()
            await trio.sleep_forever()
        assert res.try_write(b"a little").ok  # which may fit before anybody is told of room
        if call == "on_writable":
            await writable.wait()
        elif call == "wait":
            await res.body_stream().wait_send_all_might_not_block()
        await trio.sleep_forever()

    async with open_stopped_client(app, taken):
        go_on.set()
        await trio.sleep(1000)
        if taken == 16 * 1024:  # less than is told
            assert kept[0].abort_reason is AbortReason.STALLED
        else:
            assert kept[0].abort_reason is None


async def test_end_that_fits_is_the_end_before_there_is_room(autojump_clock: MockClock) -> None:
    kept: list[Response] = []
    go_on = trio.Event()
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        kept.append(res)
        res.write(bytes(70_000))  # more than is taken
        await go_on.wait()
        res.end()

    async with open_stopped_client(app, 16 * 1024) as (client, received):  # less than is told
        assert "open" in repr(kept[0])
        go_on.set()
        await wait_all_tasks_blocked()
        assert "complete" in repr(kept[0])
        await trio.sleep(60)  # what was taken for it is delivered, however long that takes
        while not received.endswith(b"0\r\n\r\n"):
            received += await client.receive_some()
        assert decode(received)[0].body == bytes(70_000)
        await client.aclose()


async def test_queued_end_stalls_too(autojump_clock: MockClock) -> None:
    app = App(config=Config(stall_timeout=10))
    app.get("/", lambda res, _: res.end(bytes(1000)))
    async with open_client(app, window=500) as client:
        await client.send_all(get("/"))
        await trio.sleep(10.1)
        assert client.stats.aborts == {AbortReason.STALLED: 1}


async def test_slow_handler_is_no_stalled_client(autojump_clock: MockClock) -> None:
    app = App(config=Config(stall_timeout=10))

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        for _chunk in range(10):
            assert await res.send_chunk(bytes(100), 1000) == (True, _chunk == 9)
            await trio.sleep(100)

    async with open_client(app, window=150) as client:
        assert await (await client.get("/")).read() == bytes(1000)


# Cancellation


async def test_cancelled_send_chunk_leaves_an_exact_offset_and_closes(kind: Kind) -> None:
    offsets: list[int] = []
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(res.send_chunk, pattern(LARGE), LARGE)
                await wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
        offsets.append(res.get_write_offset())

    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/") * 2)
        await wait_all_tasks_blocked()
        while not offsets:
            await trio.lowlevel.checkpoint()
        head = without_date(await peer.receive_head())
        assert head == b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE
        assert await peer.receive_until_eof() == pattern(offsets[0])
        assert peer.stats.aborts == {AbortReason.INCOMPLETE: 1}


async def test_cancelled_send_can_be_resumed_but_the_connection_is_not_reused(kind: Kind) -> None:
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        body = pattern(LARGE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(res.send_chunk, body, LARGE)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        rest = memoryview(body)[res.get_write_offset() :]
        assert await res.send_chunk(rest, LARGE) == (True, True)

    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/") * 2)
        await wait_all_tasks_blocked(0.01)
        await peer.receive_head()
        assert await peer.receive_until_eof() == pattern(LARGE)


async def test_every_async_method_checks_for_cancellation() -> None:
    checked: list[str] = []
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        unread = client.unread
        for name, method in (
            ("send_chunk", lambda: res.send_chunk(b"x", 1)),
            ("empty send_chunk", lambda: res.send_chunk(b"", 1)),
            ("drain", res.drain),
            ("wait_aborted", res.wait_aborted),
            ("wait_shutdown", res.wait_shutdown),
        ):
            with trio.CancelScope() as scope:
                scope.cancel()
                await method()
            if scope.cancelled_caught:
                checked.append(name)
        assert (client.unread, res.get_write_offset()) == (unread, 0)
        res.end()

    async with open_client(app) as client:
        await (await client.get("/")).read()
        assert checked == [
            *("send_chunk", "empty send_chunk", "drain", "wait_aborted", "wait_shutdown")
        ]


async def test_server_that_is_cancelled_aborts_its_responses(kind: Kind) -> None:
    log = Log()
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        res.on_aborted(lambda res: log.add(res.abort_reason))
        log.add("asleep")
        await trio.sleep_forever()

    with trio.CancelScope() as scope:
        async with open_peer(app, kind) as peer:
            await peer.send_all(get("/"))
            await log.wait_for("asleep")
            scope.cancel()
            await trio.sleep_forever()
    # The client goes in the same tick.
    assert log.entries[0] == "asleep"
    assert log.entries[1:] in ([AbortReason.CANCELLED], [AbortReason.CLIENT_CLOSED])


async def test_last_word_under_a_shield_is_sent_while_the_server_is_cancelled(kind: Kind) -> None:
    body = pattern(LARGE)
    asleep = trio.Event()
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        asleep.set()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                assert await res.send_chunk(body, LARGE) == (True, True)

    with trio.CancelScope() as scope:
        async with open_peer(app, kind) as peer:
            await peer.send_all(get("/"))
            await asleep.wait()
            with trio.CancelScope(shield=True):
                scope.cancel()
                await peer.receive_head()
                assert await peer.receive_exactly(LARGE) == body


async def test_handler_that_cancels_its_own_scope(kind: Kind) -> None:
    log = Log()
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        res.on_aborted(lambda res: log.add(res.abort_reason))
        await res.send_chunk(b"abc", 10)
        res.cancel_scope.cancel()
        await trio.sleep_forever()

    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/"))
        received = without_date(await peer.receive_until_eof())
        assert received == b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
        assert log.entries == [AbortReason.CANCELLED]


async def test_deadline_of_one_request_is_not_that_of_the_next(autojump_clock: MockClock) -> None:
    app = App()

    @app.get("/deadline")
    async def deadline(res: Response, _: Request) -> None:
        res.cancel_scope.deadline = trio.current_time() + 10
        res.end("in time")

    @app.get("/slow")
    async def slow(res: Response, _: Request) -> None:
        await trio.sleep(100)
        res.end("slow")

    async with open_client(app) as client:
        assert await (await client.get("/deadline")).read() == b"in time"
        assert await (await client.get("/slow")).read() == b"slow"


# Handlers that fail or return early


async def test_early_return_cuts_the_body_visibly(kind: Kind) -> None:
    log = Log()
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        res.on_aborted(lambda res: log.add(res.abort_reason))
        await res.send_chunk(b"abc", 10)

    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/") * 2)
        received = without_date(await peer.receive_until_eof())
        assert received == b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
        assert log.entries == [AbortReason.INCOMPLETE]
        assert peer.stats.aborts == {AbortReason.INCOMPLETE: 1}


async def test_return_while_another_task_sends_cuts_the_body_visibly(
    kind: Kind, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """Though the length is not known: its end would be in the middle of a chunk."""
    results: list[object] = []
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        async def send() -> None:
            results.append(await res.send_chunk(pattern(LARGE)))

        nursery.start_soon(send)
        while not res.get_write_offset():
            await trio.lowlevel.checkpoint()

    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/"))
        while not peer.stats.aborts:
            await trio.sleep(0)
        assert peer.stats.aborts == {AbortReason.INCOMPLETE: 1}
        decoded, _ = decode(await peer.receive_until_eof())
        assert not decoded.is_whole
        assert decoded.body == pattern(LARGE)[: len(decoded.body)]
        while not results:
            await trio.sleep(0)
    assert results == [(False, True)]
    (record,) = caplog.records
    assert "the handler returned before the body was complete" in record.getMessage()
    caplog.clear()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_return_while_another_task_only_lets_others_run_cuts_nothing(
    method: str, nursery: trio.Nursery
) -> None:
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        sends_last = trio.Event()

        async def send() -> None:
            for number in range(3):
                if number == 2:
                    sends_last.set()
                with suppress(RuntimeError):  # if it has been ended
                    await res.send_chunk(b"" if number == 2 else pattern(10))

        nursery.start_soon(send)
        await sends_last.wait()

    async with open_client(app) as client:
        for _ in range(2):
            response = await client.request(method, "/")
            assert await response.read() == (2 * pattern(10) if method == "GET" else b"")
        assert client.stats.aborts == {}


async def test_error_after_the_head_cuts_the_body(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    log = Log()
    app = App()

    @app.get("/path")
    async def handler(res: Response, _: Request) -> None:
        res.on_aborted(lambda res: log.add(res.abort_reason))
        await res.send_chunk(b"abc", 10)
        raise ValueError("oops")

    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/path?q") * 2)
        received = without_date(await peer.receive_until_eof())
        assert received == b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
        assert log.entries == [AbortReason.HANDLER_ERROR]
    (record,) = caplog.records
    assert record.name == "trio_stream"
    assert record.getMessage().startswith("GET /path?q: the handler raised an exception (request ")
    assert record.exc_info is not None
    assert repr(record.exc_info[1]) == "ValueError('oops')"
    caplog.clear()


ANSWER_500 = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: 22\r\n\r\nInternal Server Error\n"
)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_error_before_the_head_is_a_500(
    kind: Kind, asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    aborted: list[Response] = []

    def plain(res: Response, _: Request) -> None:
        res.on_aborted(aborted.append).write_status(201).write_header("X-Lost", "1")
        res.try_end(b"", 5)
        raise ValueError("secret")

    async def handler(res: Response, req: Request) -> None:
        plain(res, req)

    app = App()
    app.get("/", handler if asynchronous else plain)
    async with open_peer(app, kind) as peer:
        for _ in range(2):  # and the connection goes on
            await peer.send_all(get("/"))
            head = await peer.receive_head()
            body = await peer.receive_exactly(22)
            assert without_date(head + body) == ANSWER_500
        assert aborted == []
    assert len(caplog.records) == 2
    caplog.clear()


async def test_return_without_an_answer_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    app.get("/plain", lambda _res, _req: None)

    @app.get("/async")
    async def handler(_res: Response, _: Request) -> None:
        await trio.lowlevel.checkpoint()

    async with open_client(app) as client:
        for path in ("/plain", "/async"):
            response = await client.get(path)
            assert (response.status_code, await response.read()) == (500, ANSWER_500[-22:])
    for path, record, number in zip(("/plain", "/async"), caplog.records, (1, 2), strict=True):
        assert re.fullmatch(
            f"GET {path}: the handler returned without an answer; an empty one is "
            rf"end_without_body\(\) \(request [0-9a-f]{{12}}-{number}\)",
            record.getMessage(),
        )
    caplog.clear()


async def test_error_beside_a_cancellation_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    @app.get("/")
    async def handler(_res: Response, _: Request) -> None:
        async def fail_when_cancelled() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("while unwinding")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled)
            nursery.start_soon(trio.sleep_forever)

    async with open_client(app) as client:
        await client.send_all(get("/"))
        await wait_all_tasks_blocked()
        client.vanish()
        await wait_all_tasks_blocked()
        assert client.stats.aborts == {AbortReason.CLIENT_CLOSED: 1}
        assert client.stats.open_connections == 0
    (record,) = caplog.records
    assert record.getMessage().startswith("GET /: the handler raised an exception (request ")
    caplog.clear()


async def test_on_aborted_is_not_called_for_a_complete_response(kind: Kind) -> None:
    aborted: list[Response] = []
    over = trio.Event()
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        res.on_aborted(aborted.append)
        res.end("done")
        res.on_aborted(aborted.append)
        await trio.sleep(0)
        with trio.CancelScope(shield=True):
            await over.wait()  # the client goes while the handler tidies up
        await trio.lowlevel.checkpoint()  # and does not cancel it

    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/"))
        await peer.receive_head()
        await peer.receive_exactly(4)
        await peer.reset()
        await wait_all_tasks_blocked()
        over.set()
        await wait_all_tasks_blocked()
        assert aborted == []
        assert peer.stats.aborts == {}


async def test_on_aborted_after_the_abort_is_called_at_once() -> None:
    log: list[object] = []
    app = App(cancel_on_abort=False)

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        await res.wait_aborted()
        res.on_aborted(lambda res: log.append(res.abort_reason))
        log.append("registered")

    async with open_client(app) as client:
        await client.send_all(get("/"))
        await wait_all_tasks_blocked()
        client.vanish()
        await wait_all_tasks_blocked()
        assert log == [AbortReason.CLIENT_CLOSED, "registered"]


async def test_on_aborted_counts_once_whenever_it_is_registered_again() -> None:
    log: list[str] = []
    app = App(cancel_on_abort=False)

    def told(res: Response) -> None:
        log.append("told")
        res.on_aborted(told).on_aborted(also_told)

    def also_told(_: Response) -> None:
        log.append("also told")

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        res.on_aborted(told)
        await res.wait_aborted()
        res.on_aborted(told).on_aborted(also_told)
        log.append("registered")

    async with open_client(app) as client:
        await client.send_all(get("/"))
        await wait_all_tasks_blocked()
        client.vanish()
        await wait_all_tasks_blocked()
        assert log == ["told", "also told", "registered"]


@pytest.mark.parametrize("size", [100, 1000, 100_000, 400_000])
@pytest.mark.parametrize("total_size", [None, 1_000_000], ids=["chunked", "known length"])
async def test_offset_of_an_aborted_response_is_what_left(
    size: int,
    total_size: int | None,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    offsets: list[int] = []
    app = App()

    @app.get("/")
    async def handler(res: Response, req: Request) -> None:
        res.on_aborted(lambda res: offsets.append(res.get_write_offset()))
        with trio.move_on_after(1):
            for _ in range(400_000 // size):
                await res.send_chunk(pattern(size), total_size)
        raise LookupError

    async with open_client(app, window=300_000) as client:
        await client.send_all(get("/"))
        await trio.sleep(2)
        received = b""
        while data := await client.receive_some():
            received += data
        decoded, _ = decode(received)
        assert offsets == [len(decoded.body)]
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)
    caplog.clear()


async def test_error_in_on_aborted_is_logged_and_the_others_are_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log: list[str] = []
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        res.on_aborted(lambda _: 1 / 0).on_aborted(lambda _: log.append("second"))
        try:
            await trio.sleep_forever()
        finally:
            log.append("cancelled")

    async with open_client(app) as client:
        await client.send_all(get("/"))
        await wait_all_tasks_blocked()
        client.vanish()
        await wait_all_tasks_blocked()
        assert log == ["second", "cancelled"]
    assert [record.getMessage() for record in caplog.records] == [
        "an on_aborted handler of <Response 200, 0 of ? bytes, aborted: CLIENT_CLOSED> raised"
    ]
    caplog.clear()


async def test_asynchronous_callbacks_are_refused() -> None:
    app = App()

    async def callback(*_: object) -> None:
        await trio.sleep(0)

    @app.get("/")
    def handler(res: Response, _: Request) -> None:
        with pytest.raises(TypeError, match=r"^on_aborted\(\) needs a plain function"):
            res.on_aborted(callback)
        with pytest.raises(TypeError, match=r"^on_writable\(\) needs a plain function"):
            res.on_writable(callback)
        with pytest.raises(TypeError, match=r"^on_aborted\(\) needs a callable, not None"):
            res.on_aborted(None)  # type: ignore[arg-type]
        res.end()

    async with open_client(app) as client:
        assert (await client.get("/")).status_code == 200


# What was complete before...


@pytest.mark.parametrize("rest", [get("/sleep")[:9], get("/sleep")])
async def test_an_answer_before_the_abort_is_delivered(kind: Kind, rest: bytes) -> None:
    app = App()
    app.get("/", lambda res, _: res.end(pattern(30_000)))

    @app.get("/sleep")
    async def sleep(res: Response, req: Request) -> None:
        await trio.sleep_forever()

    with trio.fail_after(10):
        async with open_peer(app, kind, window=50_000) as peer:
            await peer.send_all(get("/") + rest)
            await peer.send_eof()
            while peer.stats.active_responses or not peer.stats.responses[200]:
                await trio.sleep(0.001)
            answer, _ = decode(await peer.receive_until_eof())
    assert answer.is_whole
    assert answer.body == pattern(30_000)


async def test_an_answer_that_fills_the_buffer_is_delivered(autojump_clock: MockClock) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 30000\r\n\r\n" + pattern(30_000)
    date = b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
    app = App(config=Config(stream_buffer_size=len(answer + date)))
    app.get("/", lambda res, _: res.end(pattern(30_000)))
    client, server = lockstep_stream_pair()  # which takes nothing that nobody receives
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.serve_stream, server)
        await client.send_all(get("/") + get("/")[:9])
        await client.send_eof()
        await wait_all_tasks_blocked()  # there is no room for a 400
        received = b"".join([bytes(data) async for data in client])
    assert without_date(received) == answer


async def test_handler_that_returns_too_early_is_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App()

    @app.get("/")
    async def handler(res: Response, req: Request) -> None:
        await res.send_chunk(b"abc", 10)

    async with open_client(app) as client:
        await client.send_all(get("/"))
        while await client.receive_some():
            pass
        assert client.stats.aborts == {AbortReason.INCOMPLETE: 1}
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(
        "GET /: the handler returned before the body was complete: "
        "<Response 200, 3 of 10 bytes, aborted: INCOMPLETE> (request "
    )


async def test_what_a_handler_sets_of_its_scope_is_not_for_the_next_request() -> None:
    app = App()

    @app.get("/")
    def handler(res: Response, req: Request) -> None:
        assert not res.cancel_scope.shield
        res.cancel_scope.shield = True
        res.end(b"hello")

    with trio.move_on_after(0.05) as scope:
        async with open_client(app) as client:
            for _ in range(2):
                assert await (await client.get("/")).read() == b"hello"
            await trio.sleep_forever()
    assert scope.cancelled_caught
