"""Bodies whose length nobody knows before they end: chunked, or up to the end of the connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import assert_checkpoints, lockstep_stream_pair, wait_all_tasks_blocked

from tests.clients import Told
from tests.harness import decode, get, open_peer, pattern, without_date
from trio_stream import App, Config, Request, Response, WriteResult
from trio_stream._outgoing import FRAME_SIZE
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.harness import Kind

    Handler = Callable[[Response, Request], Awaitable[object] | object]

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CLOSE_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
TAIL = b"0\r\n\r\n"


def app_with(handler: Handler, *, config: Config | None = None, cancel: bool = True) -> App:
    app = App(config=config, cancel_on_abort=cancel)
    app.any("/", handler)
    return app


async def answer(handler: Handler, *lines: str, method: str = "GET", version: str = "1.1") -> bytes:
    """All that the server sends for one request with `Connection: close`, without the date."""
    async with open_client(app_with(handler), window=100_000) as client:
        await client.send_all(get("/", "Connection: close", *lines, method=method, version=version))
        received = b""
        while data := await client.receive_some():
            received += data
    return without_date(received)


async def until_writable(res: Response) -> None:
    writable = trio.Event()
    res.on_writable(lambda _res, _offset: writable.set())
    await writable.wait()


# The bytes on the wire


async def test_each_chunk_is_a_frame() -> None:
    async def handler(res: Response, _: Request) -> None:
        assert await res.send_chunk(b"0123456789") == (True, False)
        assert await res.send_chunk(bytearray(b"ab")) == (True, False)
        assert res.try_write(memoryview(b"c")) == WriteResult(ok=True, accepted=1)
        assert res.write("dé") is True
        assert res.get_write_offset() == 16
        assert res.end("end") is True
        assert res.get_write_offset() == 19

    assert await answer(handler) == (
        CLOSE_HEAD
        + b"a\r\n0123456789\r\n2\r\nab\r\n1\r\nc\r\n3\r\nd\xc3\xa9\r\n3\r\nend\r\n"
        + TAIL
    )


@pytest.mark.parametrize("way", ["send_chunk", "try_write", "write"])
async def test_return_of_the_handler_ends_the_body(way: str) -> None:
    async def handler(res: Response, _: Request) -> None:
        if way == "send_chunk":
            await res.send_chunk(b"abc")
        else:
            assert getattr(res, way)(b"abc")

    assert await answer(handler) == CLOSE_HEAD + b"3\r\nabc\r\n" + TAIL


async def test_return_of_a_plain_handler_ends_the_body() -> None:
    assert await answer(lambda res, _: res.write("abc")) == CLOSE_HEAD + b"3\r\nabc\r\n" + TAIL


async def test_head_and_first_chunk_leave_in_one_piece_and_each_later_one(kind: Kind) -> None:
    go_on = trio.Event()

    async def handler(res: Response, _: Request) -> None:
        await res.send_chunk(b"first")
        await go_on.wait()
        await res.send_chunk(b"second")

    async with open_peer(app_with(handler), kind) as peer:
        await peer.send_all(get("/"))
        assert without_date(await peer.receive_some()) == HEAD + b"5\r\nfirst\r\n"
        go_on.set()
        assert await peer.receive_exactly(16) == b"6\r\nsecond\r\n" + TAIL


@pytest.mark.parametrize("way", ["try_write", "write"])
async def test_empty_data_sends_the_head_and_never_the_end(way: str) -> None:
    async def handler(res: Response, _: Request) -> None:
        assert getattr(res, way)(b"") in (True, (True, 0))
        assert without_date(await client.receive_some()) == HEAD
        assert getattr(res, way)(b"") in (True, (True, 0))
        assert await res.send_chunk(b"") == (True, False)
        with assert_checkpoints(), trio.fail_after(1):
            await res.drain()
        assert client.unread == 0
        assert await res.send_chunk(b"abc") == (True, False)
        assert getattr(res, way)(b"") in (True, (True, 0))

    async with open_client(app_with(handler)) as client:
        await client.send_all(get("/"))
        await wait_all_tasks_blocked()
        assert await client.receive_some() == b"3\r\nabc\r\n" + TAIL


async def test_empty_chunk_is_a_full_checkpoint_and_leaves_the_head_open() -> None:
    async def handler(res: Response, _: Request) -> None:
        with assert_checkpoints():
            assert await res.send_chunk(b"") == (True, False)
        assert client.unread == 0
        res.write_status(201)
        assert await res.send_chunk(b"x", 1) == (True, True)

    async with open_client(app_with(handler)) as client:
        response = await client.get("/")
        assert (response.status_code, await response.read()) == (201, b"x")


@pytest.mark.parametrize("way", ["try_write", "write"])
async def test_empty_data_is_an_answer(way: str) -> None:
    assert await answer(lambda res, _: getattr(res, way)(b"")) == CLOSE_HEAD + TAIL


# Large data over little room


@pytest.mark.parametrize("way", ["send_chunk", "accepted", "offset", "on_writable", "write"])
async def test_all_arrives_over_a_tiny_window(kind: Kind, way: str) -> None:
    size = 700_003
    data = pattern(size)
    ends = Told[int]()

    async def handler(res: Response, _: Request) -> None:
        if way == "send_chunk":
            for start in range(0, size, 150_000):
                piece = data[start : start + 150_000]
                assert await res.send_chunk(piece) == (True, False)
                assert res.get_write_offset() == start + len(piece)
        elif way == "accepted":
            rest = data
            while rest:
                ok, accepted = res.try_write(rest)
                assert ok == (accepted == len(rest))
                rest = rest[accepted:]
                if not ok:
                    await until_writable(res)
        elif way == "offset":
            start = res.get_write_offset()
            while not res.try_write(data[res.get_write_offset() - start :]).ok:
                await until_writable(res)
        elif way == "on_writable":
            whole = trio.Event()

            def go_on(res: Response, offset: int) -> bool:
                assert offset == res.get_write_offset()
                ok, accepted = res.try_write(data[offset:])
                assert res.get_write_offset() == offset + accepted
                if ok:
                    whole.set()
                return ok

            res.on_writable(go_on)
            go_on(res, 0)
            await whole.wait()
        else:
            for start in range(0, size, 50_000):
                if not res.write(data[start : start + 50_000]):
                    await res.drain()
                assert res.get_write_offset() == min(start + 50_000, size)
        ends.tell(res.get_write_offset())

    async with open_peer(app_with(handler), kind) as peer:
        await peer.send_all(get("/", "Connection: close"))
        decoded, rest = decode(await peer.receive_until_eof())
        assert (decoded.body, decoded.is_whole, rest) == (data, True, b"")
        assert await ends.next() == size
        assert peer.stats.body_bytes_sent == size
        assert peer.stats.aborts.total() == 0


async def test_offset_is_exact_while_the_client_takes_byte_by_byte() -> None:
    size = 2 * FRAME_SIZE + 5
    data = pattern(size)
    responses: list[Response] = []
    head = len(HEAD) + len("Date: Mon, 23 Nov 2026 02:14:45 GMT\r\n")

    def handler(res: Response, _: Request) -> None:
        responses.append(res.on_aborted(lambda _: None))

    async with open_client(app_with(handler), window=0) as client:
        await client.send_all(get("/"))
        await wait_all_tasks_blocked()
        res = responses[0]
        for window in range(head + 1):
            client.window = window
            assert res.try_write(data) == (False, 0)
            assert (res.get_write_offset(), client.unread) == (0, window)
        for window in (head + 1, head + 6, head + FRAME_SIZE + 7, head + FRAME_SIZE + 8):
            client.window = window
            offset = res.get_write_offset()
            result = res.try_write(data[offset:])
            assert result == (False, FRAME_SIZE if window == head + 1 else 0)
            assert (res.get_write_offset(), client.unread) == (FRAME_SIZE, window)
        client.window = head + FRAME_SIZE + 9  # a byte of the second frame
        assert res.try_write(data[FRAME_SIZE:]) == (False, FRAME_SIZE)
        client.window = 100_000
        assert res.try_write(data[2 * FRAME_SIZE :]) == (True, 5)
        assert res.end() is True
        decoded, rest = decode(await client.receive_some())
        assert (decoded.body, decoded.chunks) == (data, [FRAME_SIZE, FRAME_SIZE, 5])
        assert (decoded.is_whole, rest) == (True, b"")


async def test_try_write_keeps_one_frame_and_no_more() -> None:
    responses: list[Response] = []

    def handler(res: Response, _: Request) -> None:
        responses.append(res.on_aborted(lambda _: None))

    async with open_client(app_with(handler), window=500) as client:
        await client.send_all(get("/"))
        await wait_all_tasks_blocked()
        res = responses[0]
        data = pattern(1_000_000)
        for _ in range(10):
            res.try_write(data[res.get_write_offset() :])
            assert res.get_write_offset() == FRAME_SIZE
            assert sum(map(len, res._outgoing._unsent)) < FRAME_SIZE + 8


# write, and its queue


async def test_write_queues_up_to_its_limit_and_loses_nothing() -> None:
    async def handler(res: Response, _: Request) -> None:
        # The first one is a frame that has begun: what the transport has not taken is kept, too.
        assert res.write(pattern(500)) is False
        assert res.get_write_offset() == 500
        assert res.write(pattern(600, 500)) is False
        assert res.write(pattern(400, 1100)) is False
        message = r"^1 bytes after 1000 that wait for the client are more than max_queued_bytes="
        with pytest.raises(BufferError, match=message):
            res.write(b"x")
        assert res.write(b"") is False
        assert res.get_write_offset() == 500
        with assert_checkpoints():
            await res.drain()
        assert res.get_write_offset() == 1500
        with pytest.raises(BufferError, match=r"^1001 bytes after 0 that wait"):
            res.write(bytes(1001))
        res.write(pattern(100, 1500))

    config = Config(max_queued_bytes=1000)
    async with open_client(app_with(handler, config=config), window=200) as client:
        response = await client.get("/")
        assert await response.read() == pattern(1600)


async def test_nothing_is_written_of_what_is_refused() -> None:
    async def handler(res: Response, _: Request) -> None:
        with pytest.raises(BufferError):
            res.write(bytes(1001))
        assert client.unread == 0
        res.write_status(201).end("ok")  # the head has not been sent

    config = Config(max_queued_bytes=1000)
    async with open_client(app_with(handler, config=config), window=200) as client:
        response = await client.get("/")
        assert (response.status_code, await response.read()) == (201, b"ok")


async def test_send_chunk_after_write_comes_after_it(kind: Kind) -> None:
    async def handler(res: Response, _: Request) -> None:
        assert res.write(pattern(800_000)) is False
        assert res.try_write(b"not now") == (False, 0)
        start = res.get_write_offset()
        assert start < 800_000
        assert await res.send_chunk(pattern(300_000, 800_000)) == (True, False)
        assert res.get_write_offset() == 1_100_000
        assert res.write(pattern(500_000, 1_100_000)) is False
        assert await res.send_chunk(b"") == (True, False)
        assert res.get_write_offset() == 1_600_000

    async with open_peer(app_with(handler), kind) as peer:
        await peer.send_all(get("/", "Connection: close"))
        decoded, _ = decode(await peer.receive_until_eof())
        assert decoded.body == pattern(1_600_000)
        assert decoded.is_whole


async def test_end_queues_and_delivers_after_what_was_queued(kind: Kind) -> None:
    results = Told[bool]()

    def handler(res: Response, _: Request) -> None:
        results.tell(res.write(pattern(300_000)))
        results.tell(res.end(pattern(500_000, 300_000)))

    async with open_peer(app_with(handler), kind) as peer:
        for _round in range(2):  # on one connection
            await peer.send_all(get("/"))
            received = await peer.receive_head()
            while not received.endswith(b"\r\n" + TAIL):
                received += await peer.receive_some()
            assert decode(received)[0].body == pattern(800_000)
        assert results.take_all() == [False] * 4


async def test_buffers_can_be_used_for_something_else_at_once() -> None:
    buffers = [bytearray(pattern(1000, start)) for start in range(0, 4000, 1000)]

    async def handler(res: Response, _: Request) -> None:
        await res.send_chunk(buffers[0])
        buffers[0].clear()
        res.write(buffers[1])
        buffers[1].clear()
        await res.drain()
        while not res.try_write(memoryview(buffers[2])[res.get_write_offset() - 2000 :]).ok:
            await until_writable(res)
        buffers[2].clear()
        res.end(buffers[3])
        buffers[3].clear()

    async with open_client(app_with(handler), window=300) as client:
        assert await (await client.get("/")).read() == pattern(4000)
    assert buffers == [b""] * 4


# on_writable


async def test_on_writable_is_told_when_what_was_queued_has_gone() -> None:
    offsets = Told[int]()

    def handler(res: Response, _: Request) -> None:
        res.on_writable(lambda _, offset: offsets.tell(offset))
        assert res.write(pattern(1000)) is False
        assert res.write(pattern(1000, 1000)) is False
        res.on_aborted(lambda _: None)  # the response is not over with this handler

    app = app_with(handler)
    async with open_client(app, window=300) as client:
        response = await client.get("/")
        received = b""
        while len(received) < 2000:
            assert offsets.take_all() == []
            received += await response.receive_some(100)
            if client._transport.to_client.endswith(b"\r\n"):
                break
        assert offsets.take_all() == [2000]


async def test_write_between_leaves_a_failed_try_armed() -> None:
    calls = Told[int]()

    def handler(res: Response, _: Request) -> None:
        responses.append(res.on_writable(lambda _, offset: calls.tell(offset)))

    responses: list[Response] = []
    async with open_client(app_with(handler), window=300) as client:
        await client.send_all(get("/"))
        await wait_all_tasks_blocked()
        res = responses[0]
        assert res.try_write(pattern(1000)) == (True, 1000)
        assert res.try_write(b"more") == (False, 0)
        # There is room, but the transport has not told yet, as on a socket.
        client._transport.window = 10_000
        assert res.write(b"x") is True
        assert calls.take_all() == []
        client.window = 10_000
        assert calls.take_all() == [1001]
        res.end()


async def test_end_goes_after_a_handler_was_registered_too_late() -> None:
    responses: list[Response] = []

    def handler(res: Response, _: Request) -> None:
        responses.append(res.on_aborted(lambda _: None))

    async with open_client(app_with(handler), window=300) as client:
        await client.send_all(get("/"))
        await wait_all_tasks_blocked()
        res = responses[0]
        assert res.try_write(pattern(1000)) == (True, 1000)
        assert res.try_write(b"more") == (False, 0)
        received = bytearray()
        while not res._outgoing.is_flushed:
            received += await client.receive_some()
        # There was room, and nobody to tell; then it was filled, to the byte.
        free = client.window - client.unread
        assert res.try_write(bytes(free - 6)) == (True, free - 6)
        assert client.unread == client.window
        res.on_writable(lambda _res, _offset: None)
        await wait_all_tasks_blocked()
        assert res.end() is False
        while not received.endswith(TAIL):
            with trio.fail_after(1):
                received += await client.receive_some()


# What is refused, and sends nothing


async def test_unknown_length_after_a_known_one_is_refused() -> None:
    async def handler(res: Response, _: Request) -> None:
        assert res.try_end(b"ab", 4) == (True, False)
        for data in (b"c", b""):
            for method in (res.try_write, res.write):
                with pytest.raises(ValueError, match=r"\(\) without a total_size came after total"):
                    method(data)
            with pytest.raises(ValueError, match=r"^send_chunk\(\) without a total_size came"):
                await res.send_chunk(data)
        with pytest.raises(ValueError, match=r"^trailers can't follow a body of known length"):
            res.end(b"cd", trailers={"X": "1"})
        assert res.get_write_offset() == 2
        assert await res.send_chunk(b"cd", 4) == (True, True)

    async with open_client(app_with(handler)) as client:
        assert await (await client.get("/")).read() == b"abcd"


@pytest.mark.parametrize("way", ["send_chunk", "try_write", "write"])
async def test_known_length_after_an_unknown_one_is_refused(way: str) -> None:
    async def handler(res: Response, _: Request) -> None:
        if way == "send_chunk":
            await res.send_chunk(b"ab")
        else:
            getattr(res, way)(b"ab")
        message = r"^total_size=4 came after the head was sent without a length$"
        for data in (b"cd", b""):
            with pytest.raises(ValueError, match=message):
                res.try_end(data, 4)
            with pytest.raises(ValueError, match=message):
                await res.send_chunk(data, 4)
        assert res.get_write_offset() == 2
        assert await res.send_chunk(b"cd") == (True, False)

    async with open_client(app_with(handler)) as client:
        assert await (await client.get("/")).read() == b"abcd"


@pytest.mark.parametrize("window", [100, 100_000])
async def test_nothing_can_be_sent_after_the_end(window: int) -> None:
    async def handler(res: Response, _: Request) -> None:
        assert res.write(pattern(1000)) is res.end() is (window > 1000)
        message = r"^the response is complete: nothing more can be sent on it$"
        for data in (b"x", b""):
            with pytest.raises(RuntimeError, match=message):
                res.try_write(data)
            with pytest.raises(RuntimeError, match=message):
                res.write(data)
            with pytest.raises(RuntimeError, match=message), trio.fail_after(1):
                await res.send_chunk(data)
            with pytest.raises(RuntimeError, match=message):
                res.end(data)
        refused.set()

    refused = trio.Event()
    async with open_client(app_with(handler), window=window) as client:
        await client.send_all(get("/"))
        await refused.wait()  # and nothing has been read
        received = b""
        while not received.endswith(TAIL):
            received += await client.receive_some()
        assert decode(received)[0].body == pattern(1000)


@pytest.mark.parametrize("data", [None, 3, "text", memoryview(b"abcdef")[::2]])
async def test_wrong_data_raises_and_sends_nothing(data: bytes) -> None:
    async def handler(res: Response, _: Request) -> None:
        with pytest.raises(TypeError):
            res.try_write(data)
        with pytest.raises(TypeError):
            await res.send_chunk(data)
        assert client.unread == 0
        res.end("ok")

    async with open_client(app_with(handler)) as client:
        response = await client.get("/")
        assert response.headers["Content-Length"] == "2"


async def test_two_senders_at_once_are_busy(kind: Kind) -> None:
    async def handler(res: Response, _: Request) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(res.send_chunk, pattern(3_000_000))
            await wait_all_tasks_blocked()
            offset = res.get_write_offset()
            for data in (b"x", b""):
                for method in (res.try_write, res.write, res.end, res.send_chunk):
                    with pytest.raises(trio.BusyResourceError, match=r"^another task is sending"):
                        result = method(data)
                        if method == res.send_chunk:
                            await result  # type: ignore[misc]
            assert res.get_write_offset() == offset
            checked.set()

    checked = trio.Event()
    async with open_peer(app_with(handler), kind) as peer:
        await peer.send_all(get("/", "Connection: close"))
        await checked.wait()  # nothing is read until then
        decoded, _ = decode(await peer.receive_until_eof())
        assert (decoded.body, decoded.is_whole) == (pattern(3_000_000), True)


async def test_room_is_told_of_a_buffer_that_was_full_when_the_handler_was_registered() -> None:
    responses = Told[Response]()
    offsets = Told[int]()
    size = 1000

    def handler(res: Response, _: Request) -> None:
        responses.tell(res.on_aborted(lambda _: None))

    app = app_with(handler, config=Config(stream_buffer_size=size))
    client, stream = lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.serve_stream, stream)
        await client.send_all(get("/"))
        res = await responses.next()
        assert res.try_write(pattern(5000)) == (True, 5000)
        assert res.try_write(b"more") == (False, 0)
        received = bytearray()
        while not (res._outgoing.is_flushed and res._transport.unsent() == 0):
            received += await client.receive_some()
            await wait_all_tasks_blocked()
        # There was room, and nobody to tell. Now there is none, though all has gone.
        assert res.try_write(bytes(size - 7)) == (True, size - 7)
        assert res._transport.unsent() == size
        res.on_writable(lambda _, offset: offsets.tell(offset))
        await wait_all_tasks_blocked()
        assert offsets.take_all() == []
        received += await client.receive_some()
        await wait_all_tasks_blocked()
        assert offsets.take_all() == [5000 + size - 7]
        res.end()
        while not received.endswith(TAIL):
            received += await client.receive_some()
        assert decode(bytes(received))[0].body == pattern(5000) + bytes(size - 7)
        nursery.cancel_scope.cancel()
