"""Small chunks leave together: in few calls, none is late, and the offset is exact at the end."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.harness import decode, get, open_peer, pattern
from trio_stream import AbortReason, App, Config, Request, Response, _response_base
from trio_stream._flusher import Flusher

if TYPE_CHECKING:
    from tests.harness import Kind
    from trio_stream._transport import Bytes

KIB = 1024
FREE = _response_base._UNCORKED_SIZE
ROOM = 4000 * KIB

# The transport takes all at once, and the handler has one turn.
ROOMY = Config(stream_buffer_size=ROOM, send_budget=ROOM)


class Calls:
    """The sizes of the calls of `send_some` of a response's transport."""

    def __init__(self, res: Response) -> None:
        self.sizes: list[int] = []
        transport = res._transport
        send_some = transport.send_some

        def note(*pieces: Bytes) -> int:
            self.sizes.append(sum(map(len, pieces)))
            return send_some(*pieces)

        transport.send_some = note  # type: ignore[method-assign]


# Flusher...


class Once:
    def __init__(self) -> None:
        self.flushed = 0

    def _flush_corked(self) -> None:
        self.flushed += 1


async def test_whoever_asks_is_flushed_in_the_next_turn() -> None:
    flusher = Flusher()
    first, second = Once(), Once()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        await wait_all_tasks_blocked()
        for turn in (1, 2):
            flusher.flush_soon(first)
            flusher.flush_soon(second)
            assert (first.flushed, second.flushed) == (turn - 1, turn - 1)
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            assert (first.flushed, second.flushed) == (turn, turn)
        await wait_all_tasks_blocked()
        assert (first.flushed, second.flushed) == (2, 2)
        nursery.cancel_scope.cancel()


async def test_nobody_is_forgotten_who_asks_before_it_runs_or_while_it_flushes() -> None:
    flusher = Flusher()
    second = Once()

    class First(Once):
        def _flush_corked(self) -> None:
            super()._flush_corked()
            flusher.flush_soon(second)

    first = First()
    flusher.flush_soon(first)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        await wait_all_tasks_blocked()
        assert (first.flushed, second.flushed) == (1, 1)
        flusher.flush_soon(second)
        await wait_all_tasks_blocked()
        assert (first.flushed, second.flushed) == (1, 2)
        nursery.cancel_scope.cancel()


# Responses...


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """How much leaves as it comes: so little that any transport takes all of it at once."""
    size = 100
    monkeypatch.setattr(_response_base, "_UNCORKED_SIZE", size)
    return size


async def send(res: Response, size: int, total: int | None, *, chunk_size: int = 64 * KIB) -> None:
    """Go on with the body of `pattern`, for `size` bytes."""
    start = res.get_write_offset()
    for at in range(start, start + size, chunk_size):
        result = await res.send_chunk(pattern(chunk_size, at), total)
        assert result == (True, at + chunk_size == total)
        assert res.get_write_offset() == at + chunk_size


def body_of(data: bytes) -> bytes:
    """Of a response that may have been cut off."""
    return decode(data)[0].body


@pytest.mark.parametrize("is_known", [True, False])
async def test_small_chunks_in_a_row_leave_four_at_a_time(is_known: bool) -> None:
    noted: list[Calls] = []
    app = App(config=ROOMY)
    size = FREE + 12 * 64 * KIB

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        noted.append(Calls(res))
        await send(res, size, size if is_known else None)

    async with open_peer(app, "memory", window=ROOM) as peer:
        await peer.send_all(get("/", "Connection: close"))
        assert body_of(await peer.receive_until_eof()) == pattern(size)
    (calls,) = noted
    if is_known:  # the last one completes the response
        assert calls.sizes[1:] == [64 * KIB] * 3 + [256 * KIB] * 2 + [192 * KIB, 64 * KIB]
    else:
        framed = [64 * KIB + len(b"10000\r\n\r\n"), 256 * KIB + len(b"40000\r\n\r\n")]
        assert calls.sizes[1:] == framed[:1] * 3 + framed[1:] * 3 + [len(b"0\r\n\r\n")]


@pytest.mark.parametrize("kind_of_chunk", ["large", "changeable"])
async def test_what_can_not_be_kept_cheaply_leaves_at_once(kind_of_chunk: str) -> None:
    app = App(config=ROOMY)
    chunk: bytes | bytearray = bytes(128 * KIB) if kind_of_chunk == "large" else bytearray(KIB)
    size = FREE + 20 * len(chunk)
    noted: list[Calls] = []

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        noted.append(Calls(res))
        await send(res, FREE, size)
        for _number in range(20):
            await res.send_chunk(chunk, size)

    async with open_peer(app, "memory", window=ROOM) as peer:
        await peer.send_all(get("/", "Connection: close"))
        await peer.receive_until_eof()
    assert noted[0].sizes[4:] == [len(chunk)] * 20


async def test_a_lone_chunk_waits_for_nothing(kind: Kind, small: int) -> None:
    app = App(config=ROOMY)
    corked: list[bool] = []
    go_on, wait = trio.open_memory_channel[None](0)

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        await send(res, small, None, chunk_size=small // 4)
        for _number in range(3):
            await wait.receive()
            await send(res, 10, None, chunk_size=10)
            corked.append(res._outgoing.corked_size > 0)
        await trio.sleep_forever()

    async with open_peer(app, kind, window=ROOM) as peer:
        with trio.fail_after(10):
            await peer.send_all(get("/"))
            await peer.receive_head()
            await peer.receive_exactly(small + 4 * len(b"19\r\n\r\n"))
            for number in range(3):
                await go_on.send(None)
                chunk = pattern(10, small + number * 10)
                assert await peer.receive_exactly(15) == b"a\r\n" + chunk + b"\r\n"
    # The first one could have been one of many. After it that is known better.
    assert corked == [True, False, False]


async def test_after_a_pause_of_the_client_chunks_leave_as_they_come() -> None:
    app = App(config=Config(send_budget=ROOM))
    corked: list[bool] = []

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        await send(res, FREE, None, chunk_size=KIB)
        while not res._parks:
            await send(res, KIB, None, chunk_size=KIB)
        for _number in range(10):
            await send(res, KIB, None, chunk_size=KIB)
            corked.append(res._outgoing.corked_size > 0)

    async with open_peer(app, "memory", window=FREE + 160 * KIB) as peer:
        await peer.send_all(get("/", "Connection: close"))
        await wait_all_tasks_blocked()
        body = body_of(await peer.receive_until_eof())
    assert body == pattern(len(body))
    assert corked == [False] * 10


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_transport_that_takes_a_whole_chunk_has_room_again(
    autojump_clock: trio.testing.MockClock, is_known: bool
) -> None:
    """Even if it does not tell: then chunks would leave one by one from there on."""
    app = App(config=ROOMY)
    size = FREE + 13 * 64 * KIB
    total = size if is_known else None
    noted: list[Calls] = []

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        await send(res, 64 * KIB, total)
        with (
            patch.object(res._transport, "send_some", return_value=0),
            trio.move_on_after(1) as scope,
        ):
            await res.send_chunk(pattern(64 * KIB, 64 * KIB), total)
        assert scope.cancelled_caught
        res._transport._time_send(0, 64 * KIB)  # as that would have done
        noted.append(Calls(res))
        await send(res, 64 * KIB, total)
        assert not res._transport._is_timed
        await send(res, size - 2 * 64 * KIB, total)

    async with open_peer(app, "memory", window=ROOM) as peer:
        await peer.send_all(get("/", "Connection: close"))
        assert body_of(await peer.receive_until_eof()) == pattern(size)
    (calls,) = noted
    if is_known:
        assert calls.sizes == [64 * KIB] * 4 + [256 * KIB] * 2 + [192 * KIB, 64 * KIB]
    else:
        framed = [64 * KIB + len(b"10000\r\n\r\n"), 256 * KIB + len(b"40000\r\n\r\n")]
        assert calls.sizes == framed[:1] * 4 + framed[1:] * 3 + [len(b"0\r\n\r\n")]


async def test_a_chunk_that_goes_in_part_is_not_tried_again_before_there_is_room(
    autojump_clock: trio.testing.MockClock,
) -> None:
    app = App(config=ROOMY)
    size = 3 * 64 * KIB
    offsets: list[int] = []

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        await send(res, 64 * KIB, size)
        send_some = res._transport.send_some

        def send_half(*pieces: Bytes) -> int:
            offsets.append(res.get_write_offset())
            return send_some(*pieces[:-1], pieces[-1][: 32 * KIB])

        with patch.object(res._transport, "send_some", send_half), trio.move_on_after(1):
            await res.send_chunk(pattern(64 * KIB, 64 * KIB), size)
        start = res.get_write_offset()
        await res.send_chunk(pattern(size - start, start), size)

    async with open_peer(app, "memory", window=ROOM) as peer:
        await peer.send_all(get("/", "Connection: close"))
        assert body_of(await peer.receive_until_eof()) == pattern(size)
    assert offsets == [64 * KIB]


@pytest.mark.parametrize("how", ["return", "raise", "drain", "try_end", "end"])
async def test_what_is_corked_is_sent_whatever_comes_next(
    kind: Kind, small: int, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(config=ROOMY)
    size = small + 100
    offsets: list[int] = []

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        res.on_aborted(lambda res: offsets.append(res.get_write_offset()))
        await send(res, small, size, chunk_size=small // 4)
        await send(res, 90, size, chunk_size=30)
        assert res._outgoing.corked_size
        if how == "raise":
            raise RuntimeError
        if how == "drain":
            await res.drain()
            assert res._outgoing.is_flushed
        elif how == "try_end":
            assert res.try_end(pattern(10, small + 90), size) == (True, True)
        elif how == "end":
            res.end(pattern(10, small + 90))

    async with open_peer(app, kind, window=ROOM) as peer:
        await peer.send_all(get("/", "Connection: close"))
        body = body_of(await peer.receive_until_eof())
    is_complete = how in ("try_end", "end")
    assert body == pattern(size if is_complete else offsets[0])
    assert offsets == ([] if is_complete else [size - 10])
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == (how == "raise")
    caplog.clear()


@pytest.mark.parametrize("chunks", [1, 4])
@pytest.mark.parametrize("is_known", [True, False])
async def test_what_the_client_will_not_get_is_taken_off_the_offset(
    chunks: int, is_known: bool
) -> None:
    app = App(config=ROOMY, cancel_on_abort=False)
    size = FREE + 4 * 64 * KIB + 1 if is_known else None
    told: list[object] = []

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        res.on_aborted(lambda res: told.append(res.get_write_offset()))
        await send(res, FREE, size)
        with patch.object(res._transport, "send_some", side_effect=trio.BrokenResourceError):
            for _number in range(chunks):
                told.append(await res.send_chunk(pattern(64 * KIB), size))
            await trio.testing.wait_all_tasks_blocked()
        told.append((res.abort_reason, res._stats.body_bytes_sent))

    async with open_peer(app, "memory", window=ROOM) as peer:
        await peer.send_all(get("/"))
        await peer.receive_until_eof()
    accepted, gone = [(True, False)], [(False, True)]
    results = [*accepted * 3, FREE, *gone] if chunks == 4 else [*accepted, FREE]
    assert told == [*results, (AbortReason.CLIENT_CLOSED, FREE)]


async def test_a_blocked_cork_parks_the_next_chunk(autojump_clock: trio.testing.MockClock) -> None:
    app = App(config=Config(send_budget=ROOM))
    size = FREE + 7 * 64 * KIB
    noted: list[object] = []

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        await send(res, FREE, size)
        for number in range(1, 7):
            with trio.move_on_after(1) as scope:
                await res.send_chunk(pattern(64 * KIB, FREE + (number - 1) * 64 * KIB), size)
            if scope.cancelled_caught:
                noted.append((number, res.get_write_offset() - FREE))
                break
        await trio.sleep_forever()

    async with open_peer(app, "memory", window=FREE + 160 * KIB) as peer:
        await peer.send_all(get("/"))
        await trio.sleep(2)
        assert noted == [(5, 4 * 64 * KIB)]
        # What counts arrives, though nobody sends any more.
        await peer.receive_head()
        assert await peer.receive_exactly(FREE + 256 * KIB) == pattern(FREE + 256 * KIB)
