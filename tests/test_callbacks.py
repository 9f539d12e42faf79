"""The callback style of socketify and uWebSockets, on the same primitives: rule 9."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.harness import get, open_peer, pattern, without_date
from trio_stream import AbortReason, App, Request, Response, SendResult
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from tests.harness import Kind

SIZE = 500_000


async def test_plain_handler_sends_by_callbacks(kind: Kind) -> None:
    body = pattern(SIZE)
    offsets: list[int] = []
    app = App()

    @app.get("/")
    def handler(res: Response, _: Request) -> None:
        def go_on(res: Response, offset: int) -> bool:
            assert offset == res.get_write_offset()
            offsets.append(offset)
            return res.try_end(body[offset:], SIZE).ok

        if not res.try_end(body, SIZE).ok:
            res.on_writable(go_on).on_aborted(lambda _: None)

    async with open_peer(app, kind) as peer:
        for _ in range(2):  # and the connection goes on
            offsets.clear()
            await peer.send_all(get("/"))
            head = without_date(await peer.receive_head())
            assert head == b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE
            assert await peer.receive_exactly(SIZE) == body
            assert offsets == sorted(offsets)
            assert len(offsets) > 1
        assert peer.stats.aborts == {}


async def documented_send_chunk(res: Response, buffer: bytes, total_size: int) -> tuple[bool, bool]:
    """As in socketify's documentation, with an Event for its future, and the offset noted first."""
    sent = trio.Event()
    result = (False, False)
    last_offset = res.get_write_offset()

    def is_aborted(_: Response) -> None:
        nonlocal result
        result = (False, True)
        sent.set()

    def on_writable(res: Response, offset: int) -> bool:
        nonlocal result
        ok, done = res.try_end(buffer[offset - last_offset :], total_size)
        if ok:
            result = (ok, done)
            sent.set()
        return ok

    res.on_writable(on_writable)
    res.on_aborted(is_aborted)
    if res.aborted:
        return (False, True)
    ok, done = res.try_end(buffer, total_size)
    if ok:
        return (ok, done)
    await sent.wait()
    return result


async def test_documented_send_chunk_works(kind: Kind) -> None:
    body = pattern(SIZE)
    results: list[tuple[bool, bool]] = []
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        for start in range(0, SIZE, 50_000):
            chunk = body[start : start + 50_000]
            results.append(await documented_send_chunk(res, chunk, SIZE))

    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/"))
        await peer.receive_head()
        assert await peer.receive_exactly(SIZE) == body
        await wait_all_tasks_blocked()
        assert results == [(True, False)] * 9 + [(True, True)]


async def test_documented_send_chunk_is_told_of_an_abort(kind: Kind) -> None:
    results: list[tuple[bool, bool]] = []
    ended = trio.Event()
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        results.append(await documented_send_chunk(res, bytes(SIZE), SIZE))
        ended.set()

    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/"))
        await wait_all_tasks_blocked()
        await peer.reset()
        await ended.wait()
        assert results == [(False, True)]


async def test_both_send_chunks_can_be_mixed() -> None:
    body = pattern(3000)
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        assert await documented_send_chunk(res, body[:1000], 3000) == (True, False)
        assert await res.send_chunk(body[1000:2000], 3000) == (True, False)
        assert await documented_send_chunk(res, body[2000:], 3000) == (True, True)

    async with open_client(app, window=200) as client:
        assert await (await client.get("/")).read() == body


async def test_plain_handler_may_hand_its_response_to_another_task() -> None:
    send, receive = trio.open_memory_channel[Response](1)
    app = App()

    @app.get("/")
    def handler(res: Response, _: Request) -> None:
        send.send_nowait(res.on_aborted(lambda _: None))

    async def finish() -> None:
        res = await receive.receive()
        await res.send_chunk(b"from ", 17)
        res.end("another task")

    async with trio.open_nursery() as nursery, open_client(app) as client:
        nursery.start_soon(finish)
        assert await (await client.get("/")).read() == b"from another task"


async def test_plain_handler_without_callbacks_is_incomplete(kind: Kind) -> None:
    results: list[SendResult] = []
    app = App()
    app.get("/", lambda res, _: results.append(res.try_end(b"abc", 10)))
    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/"))
        received = without_date(await peer.receive_until_eof())
        assert received == b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
        assert results == [(True, False)]
        assert peer.stats.aborts == {AbortReason.INCOMPLETE: 1}


async def test_error_in_on_writable_aborts(caplog: pytest.LogCaptureFixture) -> None:
    reasons: list[AbortReason | None] = []
    app = App()

    @app.get("/")
    def handler(res: Response, _: Request) -> None:
        def fail(res: Response, _: int) -> None:
            res.try_end(b"x", 5)

        res.on_aborted(lambda res: reasons.append(res.abort_reason)).on_writable(fail)
        res.try_end(bytes(1000), 1000)

    async with open_client(app, window=500) as client:
        await client.send_all(get("/"))
        await wait_all_tasks_blocked()
        while await client.receive_some():
            pass
        assert reasons == [AbortReason.HANDLER_ERROR]
    (record,) = caplog.records
    assert record.getMessage().startswith("the on_writable handler of <Response 200, ")
    caplog.clear()


async def test_writability_that_came_before_the_handler_is_told(kind: Kind) -> None:
    body = pattern(SIZE)
    app = App()
    tried = trio.Event()
    go_on = trio.Event()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        assert res.try_end(body, SIZE) == (False, False)
        tried.set()
        await go_on.wait()
        done = trio.Event()

        def send_on(res: Response, offset: int) -> None:
            if res.try_end(body[offset:], SIZE).done:
                done.set()

        res.on_writable(send_on)
        await done.wait()

    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/"))
        await tried.wait()
        await peer.receive_head()
        first = await peer.receive_exactly(1000)
        await wait_all_tasks_blocked(0.01)
        go_on.set()
        assert first + await peer.receive_exactly(SIZE - 1000) == body


async def test_last_on_writable_handler_counts() -> None:
    log: list[str] = []
    app = App()

    @app.get("/")
    def handler(res: Response, _: Request) -> None:
        res.on_writable(lambda _res, _offset: log.append("first"))

        def second(res: Response, offset: int) -> None:
            log.append("second")
            res.try_end(pattern(1000)[offset:], 1000)

        res.on_writable(second)
        res.try_end(pattern(1000), 1000)

    async with open_client(app, window=600) as client:
        assert await (await client.get("/")).read() == pattern(1000)
        assert log == ["second"]


@pytest.mark.parametrize("cancel_on_abort", [True, False])
async def test_send_chunk_after_a_failed_try_finds_that_the_client_has_gone(
    autojump_clock: trio.testing.MockClock, cancel_on_abort: bool
) -> None:
    """Nobody has told: there is nothing that it could wait for."""
    app = App()
    noted: list[object] = []

    @app.get("/", cancel_on_abort=cancel_on_abort)
    async def handler(res: Response, _: Request) -> None:
        await res.send_chunk(bytes(500), SIZE)
        assert not res.try_end(bytes(900), SIZE).ok
        client._transport.reset()
        with trio.move_on_after(100):
            noted.append(await res.send_chunk(bytes(100), SIZE))
        noted.append(trio.current_time())

    async with open_client(app, window=1000) as client:
        await client.send_all(get("/"))
        await trio.sleep(1)
    assert noted == [(False, True), 0]


async def test_send_chunk_after_a_failed_try_returns_when_all_of_it_is_taken(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It does not wait for the call that the try has armed, which may send on then."""
    app = App()
    noted: list[object] = []

    def on_writable(res: Response, _: int) -> None:
        noted.append(res.try_end(bytes(10), SIZE))

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        await res.send_chunk(bytes(500), SIZE)
        noted.append(res.try_end(bytes(900), SIZE))
        await trio.sleep(2)
        res.on_writable(on_writable)
        noted.append(await res.send_chunk(bytes(100), SIZE))
        await trio.sleep_forever()

    async with open_client(app, window=1000) as client:
        await client.send_all(get("/"))
        await trio.sleep(1)
        await client.receive_some()
        await trio.sleep(2)
    assert noted == [(False, False), (True, False), (True, False)]
