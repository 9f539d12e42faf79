"""What a handler can do with a response, and the exact bytes that come of it."""

from __future__ import annotations

import array
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import assert_checkpoints, assert_no_checkpoints, wait_all_tasks_blocked

from tests.harness import get, open_peer, pattern, without_date
from trio_stream import AbortReason, App, Config, Request, Response, SendResult
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.harness import Kind

    Handler = Callable[[Response, Request], Awaitable[None] | None]


def discard(_: object) -> None:
    """Make a plain handler of an expression."""


def app_with(handler: Handler, *, config: Config | None = None) -> App:
    app = App(config=config)
    app.any("/", handler)
    return app


async def answer(handler: Handler, method: str = "GET", *, window: int = 100_000) -> bytes:
    """All that the server sends for one request with `Connection: close`, without the date."""
    async with open_client(app_with(handler), window=window) as client:
        await client.send_all(get("/", "Connection: close", method=method))
        received = b""
        while data := await client.receive_some():
            received += data
    return without_date(received)


# Partial sends


async def test_try_end_takes_what_fits_and_resumes_at_the_offset() -> None:
    body = pattern(1000)
    responses: list[Response] = []

    def handler(res: Response, _: Request) -> None:
        with assert_no_checkpoints():
            assert res.get_write_offset() == 0
            assert res.try_end(body, 1000) == (False, False)
        responses.append(res.on_aborted(lambda _: None))

    async with open_client(app_with(handler), window=500) as client:
        await client.send_all(get("/"))
        await wait_all_tasks_blocked()
        res = responses[0]
        received = await client.receive_some()
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
        offset = 500 - (len(received) - len(without_date(received))) - len(head)
        assert res.get_write_offset() == offset
        assert without_date(received) == head + body[:offset]
        # The window has room for 500 again.
        assert res.try_end(body[offset : offset + 100], 1000) == (True, False)
        assert res.get_write_offset() == offset + 100
        assert res.try_end(body[offset + 100 :], 1000) == (False, False)
        assert res.get_write_offset() == offset + 500
        assert await client.receive_some() == body[offset : offset + 500]
        assert res.try_end(body[offset + 500 :], 1000) == SendResult(ok=True, done=True)
        assert await client.receive_some() == body[offset + 500 :]
        assert client.stats.body_bytes_sent == 1000


async def test_try_when_nothing_fits_sends_nothing_and_harms_nothing() -> None:
    responses: list[Response] = []

    def handler(res: Response, _: Request) -> None:
        responses.append(res.on_aborted(lambda _: None))

    async with open_client(app_with(handler), window=0) as client:
        await client.send_all(get("/"))
        await wait_all_tasks_blocked()
        res = responses[0]
        for _ in range(3):
            assert res.try_end(b"abc", 3) == (False, False)
            assert res.get_write_offset() == 0
            assert client.unread == 0
        client.window = 10  # less than the head
        assert res.try_end(b"abc", 3) == (False, False)
        assert (res.get_write_offset(), client.unread) == (0, 10)
        client.window = 1000
        assert res.try_end(b"abc", 3) == (True, True)
        received = without_date(await client.receive_some())
        assert received == b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"


async def test_head_and_first_bytes_leave_in_one_piece(kind: Kind) -> None:
    app = app_with(lambda res, _: discard(res.try_end(b"first", 10)))
    app.get("/whole", lambda res, _: res.end("whole"))
    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/whole"))
        received = without_date(await peer.receive_some())
        assert received == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole"
        await peer.send_all(get("/"))
        received = without_date(await peer.receive_until_eof())
        assert received == b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst"


async def test_empty_data_sends_nothing_until_the_body_is_complete() -> None:
    async with open_client(app_with(lambda res, _: calls(res))) as client:

        def calls(res: Response) -> None:
            assert res.try_end(b"", 3) == (True, False)
            assert client.unread == 0
            assert res.try_end(b"ab", 3) == (True, False)
            assert res.try_end(b"", 3) == (True, False)
            assert res.try_end(b"c", 3) == (True, True)

        response = await client.get("/")
        assert await response.read() == b"abc"


async def test_empty_send_chunk_is_a_full_checkpoint() -> None:
    async def handler(res: Response, _: Request) -> None:
        with assert_checkpoints():
            assert await res.send_chunk(b"", 1) == (True, False)
        assert await res.send_chunk(b"x", 1) == (True, True)

    assert await answer(handler) == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"
    )


async def test_empty_body_is_complete_at_once() -> None:
    async def handler(res: Response, _: Request) -> None:
        assert await res.send_chunk(b"", 0) == (True, True)

    assert await answer(handler) == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )


@pytest.mark.parametrize(
    "data",
    [
        b"\1\0\2\0\3\0",
        bytearray(b"\1\0\2\0\3\0"),
        memoryview(b"x\1\0\2\0\3\0x")[1:-1],
        array.array("H", [1, 2, 3]),
        memoryview(array.array("H", [1, 2, 3])),
        memoryview(b"\1\0\2\0\3\0").cast("B", (2, 3)),
    ],
    ids=lambda data: type(data).__name__,
)
async def test_any_bytes_like_object_is_sent(kind: Kind, data: bytes) -> None:
    async def chunk(res: Response, _: Request) -> None:
        assert await res.send_chunk(data, 6) == (True, True)

    app = App()
    app.get("/chunk", chunk)
    app.get("/try", lambda res, _: res.try_end(data, 6))
    app.get("/end", lambda res, _: res.end(data))
    async with open_peer(app, kind) as peer:
        for path in ("/chunk", "/try", "/end"):
            await peer.send_all(get(path))
            head = without_date(await peer.receive_head())
            assert head == b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"
            assert await peer.receive_exactly(6) == b"\1\0\2\0\3\0"


async def test_try_end_needs_a_total() -> None:
    def handler(res: Response, _: Request) -> None:
        with pytest.raises(TypeError, match="total_size must be an integer, not None"):
            res.try_end(b"x", None)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"trailers must be a mapping, not \[\('A', 'b'\)\]"):
            res.end(b"x", trailers=[("A", "b")])  # type: ignore[arg-type]
        res.end(b"sorry")

    assert (await answer(handler)).endswith(b"\r\n\r\nsorry")


async def test_empty_array_is_no_data() -> None:
    def handler(res: Response, _: Request) -> None:
        assert res.try_end(array.array("I"), 1) == (True, False)
        assert res.try_end(b"x", 1) == (True, True)

    assert (await answer(handler)).endswith(b"\r\n\r\nx")


# What is refused, and sends nothing


@pytest.mark.parametrize(
    ("data", "total_size", "error", "message"),
    [
        (b"abcd", 3, ValueError, "4 bytes at offset 0 go beyond total_size=3"),
        (b"abc", -1, ValueError, "total_size must not be negative, not -1"),
        (b"abc", 3.5, TypeError, "total_size must be an integer, not 3.5"),
        (b"abc", "3", TypeError, "total_size must be an integer, not '3'"),
        ("abc", 3, TypeError, "the body is sent as bytes, so encode what is text: 'abc'"),
        (None, 3, TypeError, "the body is sent as bytes, and this is of type 'NoneType'"),
        (
            memoryview(b"abcdef")[::2],
            3,
            TypeError,
            "the bytes of a body must be contiguous, as bytes(data) makes them",
        ),
    ],
)
async def test_wrong_arguments_raise_and_send_nothing(
    data: bytes, total_size: int, error: type[Exception], message: str
) -> None:
    async def handler(res: Response, _: Request) -> None:
        with pytest.raises(error) as try_info:
            res.try_end(data, total_size)
        with pytest.raises(error) as chunk_info:
            await res.send_chunk(data, total_size)
        assert str(try_info.value) == str(chunk_info.value) == message
        assert client.unread == 0
        assert res.end(b"sorry")  # with no total_size left behind

    async with open_client(app_with(handler)) as client:
        assert await (await client.get("/")).read() == b"sorry"


async def test_another_total_size_raises_and_sends_nothing() -> None:
    async def handler(res: Response, _: Request) -> None:
        assert await res.send_chunk(b"ab", 4) == (True, False)
        unread = client.unread
        with pytest.raises(ValueError, match=r"^total_size was 4 before, and now it is 5$"):
            await res.send_chunk(b"c", 5)
        with pytest.raises(ValueError, match=r"^total_size was 4 before, and now it is 3$"):
            res.try_end(b"c", 3)
        with pytest.raises(ValueError, match=r"^3 bytes at offset 2 go beyond total_size=4$"):
            res.try_end(b"cde", 4)
        with pytest.raises(ValueError, match=r"^end\(\) with 1 bytes makes a body of 3, not of"):
            res.end(b"c")
        assert client.unread == unread
        res.end(b"cd")

    async with open_client(app_with(handler)) as client:
        assert await (await client.get("/")).read() == b"abcd"


async def test_nothing_can_be_sent_after_the_end() -> None:
    async def handler(res: Response, _: Request) -> None:
        assert await res.send_chunk(b"all", 3) == (True, True)
        unread = client.unread
        for data in (b"x", b""):
            with pytest.raises(RuntimeError, match=r"^the response is complete: nothing more"):
                res.try_end(data, 3)
            with pytest.raises(RuntimeError, match=r"^the response is complete: nothing more"):
                await res.send_chunk(data, 3)
            with pytest.raises(RuntimeError, match=r"^the response is complete: nothing more"):
                res.end(data)
        with pytest.raises(RuntimeError, match=r"^the response is complete: nothing more"):
            res.end_without_body()
        assert client.unread == unread

    async with open_client(app_with(handler)) as client:
        assert await (await client.get("/")).read() == b"all"


async def test_nothing_can_be_sent_after_end_while_its_data_is_queued() -> None:
    async def handler(res: Response, _: Request) -> None:
        assert res.end(bytes(100)) is False
        with pytest.raises(RuntimeError, match=r"^the response is complete: nothing more"):
            res.try_end(b"x", 100)
        with pytest.raises(RuntimeError, match=r"^the response is complete: nothing more"):
            await res.send_chunk(b"x", 100)

    async with open_client(app_with(handler), window=10) as client:
        assert await (await client.get("/")).read() == bytes(100)


async def test_head_is_closed_once_a_byte_was_sent() -> None:
    def handler(res: Response, _: Request) -> None:
        res.try_end(b"a", 2)
        with pytest.raises(RuntimeError, match=r"^write_header\(\) came after the head"):
            res.write_header("X", "1")
        with pytest.raises(RuntimeError, match=r"^write_status\(\) came after the head"):
            res.write_status(404)
        res.end(b"b")

    assert await answer(handler) == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab"
    )


# The head


async def test_head_is_sent_as_it_was_written() -> None:
    def handler(res: Response, _: Request) -> None:
        assert res.write_status("418 Short and stout") is res
        assert res.write_header("Set-Cookie", "a=1").write_header("set-cookie", b"b=2") is res
        res.write_header("X-Count", 3).write_header("X-Empty", "")
        res.end("café")

    assert await answer(handler) == (
        b"HTTP/1.1 418 Short and stout\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nX-Count: 3\r\n"
        b"X-Empty: \r\nContent-Length: 5\r\nConnection: close\r\n\r\ncaf\xc3\xa9"
    )


@pytest.mark.parametrize("value", ["a\r\nX: b", "a\nb", "a\rb", "a\0b", " a", "a ", "\u20ac"])
async def test_value_that_could_split_the_response_is_refused(value: str) -> None:
    def handler(res: Response, _: Request) -> None:
        with pytest.raises(ValueError, match=r"^X: "):
            res.write_header("X", value)
        with pytest.raises(ValueError, match=r"can't be the name of a header field$"):
            res.write_header(value, "x")
        res.end()

    assert await answer(handler) == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )


# end, end_without_body, drain


async def test_end_queues_what_does_not_go_and_delivers_it(kind: Kind) -> None:
    body = pattern(3_000_000)
    results: list[bool] = []
    offsets: list[int] = []

    async def handler(res: Response, _: Request) -> None:
        results.append(res.end(body))
        offsets.append(res.get_write_offset())

    async with open_peer(app_with(handler), kind) as peer:
        await peer.send_all(get("/"))
        head = without_date(await peer.receive_head())
        assert head == b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n"
        assert await peer.receive_exactly(len(body)) == body
        assert results == [False]
        assert offsets[0] < len(body)
        # And the connection goes on.
        await peer.send_all(get("/", method="HEAD"))
        assert without_date(await peer.receive_head()) == head


async def test_end_keeps_its_data_when_the_caller_changes_it() -> None:
    def handler(res: Response, _: Request) -> None:
        data = bytearray(pattern(1000))
        assert res.end(data) is False
        data[:] = bytes(1000)
        data += b"still resizable"

    async with open_client(app_with(handler), window=500) as client:
        assert await (await client.get("/")).read() == pattern(1000)


async def test_end_after_partial_tries_sends_the_rest() -> None:
    async def handler(res: Response, _: Request) -> None:
        assert res.try_end(pattern(400), 400) == (False, False)
        assert res.end(pattern(400)[res.get_write_offset() :]) is False

    async with open_client(app_with(handler), window=200) as client:
        assert await (await client.get("/")).read() == pattern(400)


async def test_drain_parks_until_all_has_gone() -> None:
    drained_at: list[int] = []

    async def handler(res: Response, _: Request) -> None:
        res.end(bytes(1000))
        with assert_checkpoints():
            await res.drain()
        drained_at.append(res.get_write_offset())
        with assert_checkpoints():
            await res.drain()

    async with open_client(app_with(handler), window=500) as client:
        response = await client.get("/")
        await wait_all_tasks_blocked()
        assert drained_at == []
        await response.read()
        await wait_all_tasks_blocked()
        assert drained_at == [1000]


async def test_drain_ends_when_the_response_is_aborted() -> None:
    seen: list[AbortReason | None] = []

    async def handler(res: Response, _: Request) -> None:
        res.end(bytes(1000))
        await res.drain()
        seen.append(res.abort_reason)

    app = App(cancel_on_abort=False)
    app.get("/", handler)
    async with open_client(app, window=100) as client:
        await client.send_all(get("/"))
        await wait_all_tasks_blocked()
        client.vanish()
        await wait_all_tasks_blocked()
        assert seen == [AbortReason.CLIENT_CLOSED]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_end_without_body(method: str) -> None:
    def handler(res: Response, _: Request) -> None:
        assert res.end_without_body() is True

    assert await answer(handler, method) == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )


async def test_end_without_body_after_a_total_size_is_refused() -> None:
    def handler(res: Response, _: Request) -> None:
        res.try_end(b"", 5)
        with pytest.raises(ValueError, match=r"^end\(\) with 0 bytes makes a body of 0, not of"):
            res.end_without_body()
        res.end(b"12345")

    assert (await answer(handler)).endswith(b"\r\n\r\n12345")


# HEAD, 204, 304: the same code, no body


@pytest.mark.parametrize(
    ("method", "status", "head"),
    [
        ("HEAD", 200, b"HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 1000000\r\n"),
        ("GET", 204, b"HTTP/1.1 204 No Content\r\nX: 1\r\n"),
        ("GET", 304, b"HTTP/1.1 304 Not Modified\r\nX: 1\r\nContent-Length: 1000000\r\n"),
    ],
)
@pytest.mark.parametrize("way", ["try_end", "send_chunk", "empty chunk", "end"])
@pytest.mark.parametrize("window", [1, 100_000])
async def test_body_is_dropped_where_there_is_none(
    method: str, status: int, head: bytes, way: str, window: int
) -> None:
    async def handler(res: Response, _: Request) -> None:
        res.write_status(status).write_header("X", "1")
        # The offset counts, or a loop that goes on from there would never end.
        if way == "try_end":
            for offset in (1000, 2000):
                assert res.try_end(bytes(1000), 1_000_000) == (True, True)
                assert res.get_write_offset() == offset
        elif way == "send_chunk":
            for offset in (1000, 2000):
                assert await res.send_chunk(bytes(1000), 1_000_000) == (True, True)
                assert res.get_write_offset() == offset
        elif way == "empty chunk":
            assert await res.send_chunk(b"", 1_000_000) == (True, True)
            assert res.get_write_offset() == 0
        else:
            assert res.end(bytes(1_000_000)) is (window > 1)
            assert res.get_write_offset() == 1_000_000

    assert await answer(handler, method, window=window) == head + b"Connection: close\r\n\r\n"


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_a_body_ends_at_its_total_where_there_is_none(method: str) -> None:
    """As it does where there is one."""

    async def handler(res: Response, _: Request) -> None:
        res.try_end(b"12345", 10)
        for call in (lambda: res.try_end(b"123456", 10), lambda: res.end(b"123456")):
            with pytest.raises(ValueError, match="6 bytes"):
                call()
        with pytest.raises(ValueError, match="total_size was 10 before, and now it is 11"):
            res.try_end(b"1", 11)
        assert res.end(b"12345")
        assert res.get_write_offset() == 10
        for call in (lambda: res.try_end(b"1", 10), lambda: res.end(b"")):
            with pytest.raises(RuntimeError, match="the response is complete"):
                call()

    body = b"1234512345" if method == "GET" else b""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\n"
    assert await answer(handler, method) == head + body


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("total_size", [300, None])
async def test_a_stream_counts_where_there_is_no_body(method: str, total_size: int | None) -> None:
    async def handler(res: Response, _: Request) -> None:
        stream = res.body_stream(total_size)
        for offset in (100, 200, 300):
            await stream.send_all(bytes(100))
            assert res.get_write_offset() == offset

    received = await answer(handler, method)
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.count(b"\0") == (300 if method == "GET" else 0)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_no_chunk_follows_an_empty_one_where_there_is_no_body(method: str) -> None:
    results: list[SendResult] = []

    async def handler(res: Response, _: Request) -> None:
        if method == "GET":
            res.write_status(304)
        for chunk in (b"", b"first", b"", b"second", b""):
            results.append(await res.send_chunk(chunk))

    head = await answer(handler, method)
    assert head.count(b"\r\n\r\n") == 1
    assert head.endswith(b"\r\n\r\n")
    assert results == [(True, False), *[(True, True)] * 4]


async def test_head_of_an_empty_not_modified_claims_no_length() -> None:
    def handler(res: Response, _: Request) -> None:
        res.write_status(304).end_without_body()

    assert await answer(handler) == b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n"


# send_chunk


async def test_send_chunk_sends_all_over_a_tiny_window(kind: Kind) -> None:
    body = pattern(400_000)
    results: list[tuple[SendResult, int]] = []

    async def handler(res: Response, _: Request) -> None:
        for start in range(0, len(body), 150_000):
            result = await res.send_chunk(body[start : start + 150_000], len(body))
            results.append((result, res.get_write_offset()))

    async with open_peer(app_with(handler), kind) as peer:
        await peer.send_all(get("/"))
        await peer.receive_head()
        assert await peer.receive_exactly(len(body)) == body
        await wait_all_tasks_blocked()
        assert results == [
            ((True, False), 150_000),
            ((True, False), 300_000),
            ((True, True), 400_000),
        ]
        assert peer.stats.parks > 0
        assert peer.stats.body_bytes_sent == len(body)


async def test_send_chunk_yields_after_its_budget_and_not_before() -> None:
    yielded: list[bool] = []

    class StepCounter(trio.abc.Instrument):
        steps = 0

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.steps += task in self_tasks

    async def handler(res: Response, _: Request) -> None:
        self_tasks.append(trio.lowlevel.current_task())
        for _chunk in range(10):
            before = counter.steps
            await res.send_chunk(bytes(300), 3000)
            yielded.append(counter.steps > before)

    self_tasks: list[trio.lowlevel.Task] = []
    counter = StepCounter()
    trio.lowlevel.add_instrument(counter)
    config = Config(send_budget=1000)
    async with open_client(app_with(handler, config=config)) as client:
        await (await client.get("/")).read()
    # 300, 600, 900, 1200 bytes: the fifth call comes after 1000 bytes, and so does the ninth.
    assert [index for index, value in enumerate(yielded) if value] == [4, 8]


async def test_user_handlers_stay_in_place_during_send_chunk() -> None:
    offsets: list[int] = []
    aborted: list[Response] = []
    calls_before: list[int] = []

    async def handler(res: Response, _: Request) -> None:
        res.on_writable(lambda _, offset: offsets.append(offset)).on_aborted(aborted.append)
        assert await res.send_chunk(bytes(1000), 3000) == (True, False)
        assert offsets  # it was parked, and so was told
        assert res.try_end(bytes(2000), 3000) == (False, False)
        calls_before.append(len(offsets))
        await trio.sleep_forever()

    async with open_client(app_with(handler), window=300) as client:
        await client.send_all(get("/"))
        while not calls_before:
            await client.receive_some(10)
        await client.receive_some(10)
        await client.receive_some(10)
        assert [len(offsets)] == [calls_before[0] + 1]  # once, for the failed try_end
        assert aborted == []
        client.vanish()
        await wait_all_tasks_blocked()
        assert [res.abort_reason for res in aborted] == [AbortReason.CLIENT_CLOSED]


# Two tasks


async def test_two_senders_at_once_are_busy(kind: Kind) -> None:
    checked = trio.Event()

    async def handler(res: Response, _: Request) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(res.send_chunk, bytes(3_000_000), 3_000_001)
            await wait_all_tasks_blocked()
            offset = res.get_write_offset()
            with pytest.raises(trio.BusyResourceError, match=r"^another task is sending"):
                res.try_end(b"x", 3_000_001)
            with pytest.raises(trio.BusyResourceError, match=r"^another task is sending"):
                await res.send_chunk(b"x", 3_000_001)
            with pytest.raises(trio.BusyResourceError, match=r"^another task is sending"):
                res.end(b"x")
            assert res.try_end(b"", 3_000_001) == (True, False)
            assert res.get_write_offset() == offset
            checked.set()
        assert await res.send_chunk(b"x", 3_000_001) == (True, True)

    async with open_peer(app_with(handler), kind) as peer:
        await peer.send_all(get("/"))
        await checked.wait()
        await peer.receive_head()
        assert await peer.receive_exactly(3_000_001) == bytes(3_000_000) + b"x"


@pytest.mark.parametrize("_", range(10))  # the scheduler tosses a coin
@pytest.mark.parametrize("total", [1000, None])
async def test_what_another_task_sends_is_not_taken_for_what_was_cancelled(
    _: int, total: int | None
) -> None:
    """Others run before a cancelled call ends, and find the response busy."""
    accepted: list[int] = []

    async def handler(res: Response, req: Request) -> None:
        await res.send_chunk(bytes(10), total)

        async def send_cancelled() -> None:
            start = res.get_write_offset()
            with trio.CancelScope() as scope:
                scope.cancel()
                await res.send_chunk(bytes(100), total)
            accepted.append(res.get_write_offset() - start)

        async def send() -> None:
            with suppress(trio.BusyResourceError):
                await res.send_chunk(bytes(7), total)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_cancelled)
            nursery.start_soon(send)

    async with open_client(app_with(handler), window=10_000) as client:
        await client.send_all(get("/"))
        await wait_all_tasks_blocked()
    assert accepted == [0]


@pytest.mark.parametrize("total", [0, 5])
async def test_nobody_ends_a_response_on_which_another_one_is_sending(total: int) -> None:
    async def handler(res: Response, _: Request) -> None:
        async def send() -> None:
            assert await res.send_chunk(b"", 10) == (True, False)
            assert await res.send_chunk(bytes(10), 10) == (True, True)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while not res._sending:
                await trio.lowlevel.checkpoint()
            with pytest.raises(trio.BusyResourceError):
                res.try_end(b"", total)

    async with open_client(app_with(handler)) as client:
        assert await (await client.get("/")).read() == bytes(10)


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_loop_that_does_not_look_at_done_can_answer_head(
    is_known: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule 10: the same handler code."""
    results: list[SendResult] = []

    async def handler(res: Response, _: Request) -> None:
        for _round in range(3):
            results.append(await res.send_chunk(b"abc", 9 if is_known else None))

    async with open_client(app_with(handler)) as client:
        for _ in range(2):
            results.clear()
            response = await client.request("HEAD", "/")
            assert response.status_code == 200
            assert await response.read() == b""
            await wait_all_tasks_blocked()
            assert results == 3 * [(True, True)]
    assert caplog.messages == []


def test_repr_tells_how_far_it_is() -> None:
    shown: list[str] = []

    async def handler(res: Response, _: Request) -> None:
        shown.append(repr(res))
        await res.send_chunk(b"ab", 4)
        shown.append(repr(res))
        if len(shown) == 2:
            res.end("cd")
            shown.append(repr(res))

    async def main() -> None:
        async with open_client(app_with(handler)) as client:
            await (await client.get("/")).read()

    trio.run(main)
    assert shown == [
        "<Response 200, 0 of ? bytes, open>",
        "<Response 200, 2 of 4 bytes, open>",
        "<Response 200, 4 of 4 bytes, complete>",
    ]
