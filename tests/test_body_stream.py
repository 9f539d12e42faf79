"""The body of a response as a stream, and streams as its source."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import h11
import pytest
import trio
from trio.testing import check_one_way_stream, wait_all_tasks_blocked

from tests.clients import Told
from tests.harness import decode, get, open_peer, pattern, without_date
from trio_stream import AbortReason, App, Request, Response
from trio_stream._body_stream import BodyStream
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.harness import Kind
    from trio_stream.testing import Client

    Handler = Callable[[Response, Request], Awaitable[object] | object]

CLOSE_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
TAIL = b"0\r\n\r\n"


def app_with(handler: Handler, *, cancel: bool = True) -> App:
    app = App(cancel_on_abort=cancel)
    app.any("/", handler)
    return app


async def answer(handler: Handler, *, method: str = "GET") -> bytes:
    """All that the server sends for one request with `Connection: close`, without the date."""
    async with open_client(app_with(handler), window=100_000) as client:
        await client.send_all(get("/", "Connection: close", method=method))
        received = b""
        while data := await client.receive_some():
            received += data
    return without_date(received)


# It is a stream as any other


class BodyOf(trio.abc.ReceiveStream):
    """The body that a client receives, as h11 reads it; closing it closes the connection."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._h11 = h11.Connection(h11.CLIENT)
        self._h11.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
        self._h11.send(h11.EndOfMessage())
        self._received = b""
        self._closed = False
        self._conflicts = trio.Lock()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is not None and not isinstance(max_bytes, int):
            raise TypeError("max_bytes must be an integer")
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be positive")
        if self._conflicts.locked():
            raise trio.BusyResourceError("another task is receiving")
        async with self._conflicts:
            await trio.lowlevel.checkpoint()
            while not (self._closed or self._received):
                try:
                    event = self._h11.next_event()
                except h11.RemoteProtocolError as exc:
                    raise trio.BrokenResourceError("the body was cut") from exc
                if isinstance(event, h11.Response) and event.status_code != 200:
                    raise trio.BrokenResourceError("there was no body")
                if isinstance(event, h11.Data):
                    self._received = bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    return b""
                elif event is h11.NEED_DATA:
                    try:
                        self._h11.receive_data(await self._client.receive_some())
                    except trio.BrokenResourceError:
                        assert self._closed  # nobody else closes it
            if self._closed:
                raise trio.ClosedResourceError
            data = self._received[:max_bytes]
            self._received = self._received[len(data) :]
            return data

    async def aclose(self) -> None:
        self._closed = True
        self._client.vanish()
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("cancel", [True, False], ids=["cancelled", "not cancelled"])
async def test_it_is_a_send_stream(
    autojump_clock: trio.testing.MockClock,
    nursery: trio.Nursery,
    cancel: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    streams = Told["BodyStream"]()

    async def handler(res: Response, _: Request) -> None:
        stream = res.body_stream()
        assert isinstance(stream, BodyStream)
        streams.tell(stream)
        while not stream._closed:
            await trio.sleep(1)

    async def keep_open(window: int, *, task_status: trio.TaskStatus[Client]) -> None:
        async with open_client(app_with(handler, cancel=cancel), window=window) as client:
            task_status.started(client)
            await trio.sleep_forever()

    async def make(window: int) -> tuple[trio.abc.SendStream, trio.abc.ReceiveStream]:
        client: Client = await nursery.start(keep_open, window)
        await client.send_all(get("/"))
        return await streams.next(), BodyOf(client)

    async def make_stream() -> tuple[trio.abc.SendStream, trio.abc.ReceiveStream]:
        return await make(1000)

    async def make_clogged_stream() -> tuple[trio.abc.SendStream, trio.abc.ReceiveStream]:
        sender, receiver = await make(1000)
        with trio.move_on_after(1) as scope:
            await sender.send_all(bytes(2000))
        assert scope.cancelled_caught
        return sender, receiver

    with trio.fail_after(1000):
        await check_one_way_stream(make_stream, make_clogged_stream)
    caplog.clear()  # streams that were closed by force before anything was sent
    nursery.cancel_scope.cancel()


# How it ends


async def test_closing_it_ends_the_body_and_waits_for_all_of_it() -> None:
    closed_at = Told[int]()

    async def handler(res: Response, _: Request) -> None:
        stream = res.body_stream()
        res.write(pattern(1000))
        await stream.aclose()
        closed_at.tell(client.unread)
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")
        with pytest.raises(RuntimeError, match=r"^the response is complete"):
            res.write(b"x")
        await stream.aclose()

    async with open_client(app_with(handler), window=200) as client:
        await client.send_all(get("/", "Connection: close"))
        await wait_all_tasks_blocked()
        assert closed_at.take_all() == []
        received = b""
        while data := await client.receive_some():
            received += data
        assert decode(received)[0].body == pattern(1000)
        assert len(closed_at.take_all()) == 1


async def test_closing_that_is_cancelled_while_it_waits_has_ended_the_body(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def handler(res: Response, _: Request) -> None:
        stream = res.body_stream()
        res.write(pattern(1000))
        with trio.move_on_after(1) as scope:
            await stream.aclose()
        assert scope.cancelled_caught

    async with open_client(app_with(handler), window=200) as client:
        await client.send_all(get("/", "Connection: close"))
        await trio.sleep(2)
        received = b""
        while data := await client.receive_some():
            received += data
        decoded, _ = decode(received)
        assert (decoded.body, decoded.is_whole) == (pattern(1000), True)


async def test_exact_bytes() -> None:
    async def handler(res: Response, _: Request) -> None:
        async with res.body_stream() as stream:
            await stream.send_all(b"ab")
            await stream.send_all(b"")
            await stream.wait_send_all_might_not_block()
            await stream.send_all(bytearray(b"cde"))

    assert await answer(handler) == CLOSE_HEAD + b"2\r\nab\r\n3\r\ncde\r\n" + TAIL


async def test_exact_bytes_of_a_known_length() -> None:
    async def handler(res: Response, _: Request) -> None:
        async with res.body_stream(5) as stream:
            await stream.send_all(b"ab")
            with pytest.raises(ValueError, match=r"^4 bytes at offset 2 go beyond total_size=5$"):
                await stream.send_all(b"cdef")
            await stream.send_all(b"cde")
            with pytest.raises(RuntimeError, match=r"^the response is complete"):
                await stream.send_all(b"f")

    assert await answer(handler) == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nabcde"
    )


@pytest.mark.parametrize("total_size", [None, 0])
async def test_nothing_sent_is_an_empty_body(total_size: int | None) -> None:
    async def handler(res: Response, _: Request) -> None:
        async with res.body_stream(total_size):
            pass

    assert await answer(handler) == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )


@pytest.mark.parametrize("total_size", [None, 6])
async def test_body_is_dropped_for_a_head(total_size: int | None) -> None:
    async def handler(res: Response, _: Request) -> None:
        async with res.body_stream(total_size) as stream:
            await stream.send_all(b"abc")
            await stream.send_all(b"def")

    received = await answer(handler, method="HEAD")
    length = b"Content-Length: 6" if total_size else b"Transfer-Encoding: chunked"
    assert received == b"HTTP/1.1 200 OK\r\n" + length + b"\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("total_size", [None, 6])
@pytest.mark.parametrize("way", ["exception", "aclose_forcefully", "cancelled"])
async def test_cut_is_seen_though_the_handler_returns(total_size: int | None, way: str) -> None:
    async def handler(res: Response, _: Request) -> None:
        stream = res.body_stream(total_size)
        if way == "exception":
            with suppress(LookupError):
                async with stream:
                    await stream.send_all(b"abc")
                    raise LookupError
        elif way == "cancelled":
            with trio.CancelScope() as scope:
                async with stream:
                    await stream.send_all(b"abc")
                    scope.cancel()
        else:
            await stream.send_all(b"abc")
            await trio.aclose_forcefully(stream)
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"def")
        res.on_aborted(lambda res: reasons.tell(res.abort_reason))

    reasons = Told[AbortReason | None]()
    length = b"Content-Length: 6" if total_size else b"Transfer-Encoding: chunked"
    body = b"abc" if total_size else b"3\r\nabc\r\n"
    received = await answer(handler)
    assert received == b"HTTP/1.1 200 OK\r\n%b\r\nConnection: close\r\n\r\n%b" % (length, body)
    assert reasons.take_all() == [AbortReason.INCOMPLETE]


async def test_end_mends_a_cut() -> None:
    async def handler(res: Response, _: Request) -> None:
        stream = res.body_stream()
        await stream.send_all(b"abc")
        await trio.aclose_forcefully(stream)
        await res.send_chunk(b"de")
        res.end(b"f")

    expected = CLOSE_HEAD + b"3\r\nabc\r\n2\r\nde\r\n1\r\nf\r\n" + TAIL
    assert await answer(handler) == expected


async def test_closing_cuts_off_a_send_of_another_task() -> None:
    async def send(stream: trio.abc.SendStream) -> None:
        with pytest.raises(trio.ClosedResourceError, match=r"^another task has closed the stream"):
            await stream.send_all(pattern(1000))
        told.tell("cut off")

    async def handler(res: Response, _: Request) -> None:
        stream = res.body_stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, stream)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await stream.send_all(b"x")
            with pytest.raises(trio.BusyResourceError):
                await stream.wait_send_all_might_not_block()
            await stream.aclose()
        told.tell("closed")

    told = Told[str]()
    async with open_client(app_with(handler), window=200) as client:
        await client.send_all(get("/"))
        await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()  # as the handler does
        assert told.take_all() == ["cut off", "closed"]
        received = b""
        while data := await client.receive_some():
            received += data
        # The frame had begun, and its end is not that of the body.
        decoded, _ = decode(received)
        assert not decoded.is_whole
        assert decoded.body == pattern(1000)[: len(decoded.body)]
        assert client.stats.aborts == {AbortReason.INCOMPLETE: 1}


@pytest.mark.parametrize("total_size", [None, 10_000_000])
async def test_client_that_leaves_is_a_broken_stream_and_no_error(
    kind: Kind, total_size: int | None
) -> None:
    told = Told[str]()

    async def handler(res: Response, _: Request) -> None:
        stream = res.body_stream(total_size)
        try:
            await stream.send_all(pattern(10_000_000))
        except trio.BrokenResourceError as exc:
            told.tell(str(exc))
            with pytest.raises(trio.BrokenResourceError):
                await stream.wait_send_all_might_not_block()
            with pytest.raises(trio.BrokenResourceError):
                await stream.send_all(b"x")
            await stream.aclose()
            raise

    async with open_peer(app_with(handler, cancel=False), kind) as peer:
        await peer.send_all(get("/"))
        await peer.receive_head()
        await peer.reset()
        assert await told.next() == "sending failed: the client has gone"
        assert peer.stats.aborts == {AbortReason.CLIENT_CLOSED: 1}


# send_from


class Source:
    """Gives `count` pieces; and notes whether it was closed."""

    def __init__(self, count: int, *, then: str = "end") -> None:
        self.pieces = iter([pattern(1000, start) for start in range(0, count * 1000, 1000)])
        self.then = then
        self.closed = 0

    def __aiter__(self) -> Source:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        for piece in self.pieces:
            return piece
        if self.then == "fail":
            raise LookupError("a bug")
        if self.then == "wait":
            await trio.sleep_forever()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed += 1
        await trio.lowlevel.cancel_shielded_checkpoint()


@pytest.mark.parametrize("total_size", [None, 50_000])
async def test_send_from_sends_all_and_closes(kind: Kind, total_size: int | None) -> None:
    source = Source(50)
    results = Told[object]()

    async def handler(res: Response, _: Request) -> None:
        results.tell(await res.send_from(source, total_size))
        assert source.closed == 1

    async with open_peer(app_with(handler), kind) as peer:
        await peer.send_all(get("/", "Connection: close"))
        decoded, _ = decode(await peer.receive_until_eof())
        assert (decoded.body, decoded.is_whole) == (pattern(50_000), True)
        assert await results.next() == (True, total_size is not None)


async def test_send_from_generators_streams_and_more() -> None:
    closed = Told[str]()

    async def generate() -> AsyncIterator[bytes]:
        try:
            yield b"ab"
            yield b""
            yield b"cd"
        finally:
            closed.tell("generator")

    class Plain:  # it has no aclose
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"ij"

    async def handler(res: Response, _: Request) -> None:
        sender, receiver = trio.testing.memory_stream_one_way_pair()
        await sender.send_all(b"efgh")
        await sender.aclose()
        assert await res.send_from(generate()) == (True, False)
        assert await res.send_from(receiver) == (True, False)
        with pytest.raises(trio.ClosedResourceError):
            await receiver.receive_some()
        assert await res.send_from(Plain()) == (True, False)
        await res.send_chunk(b"k")

    expected = b"2\r\nab\r\n2\r\ncd\r\n4\r\nefgh\r\n2\r\nij\r\n1\r\nk\r\n"
    assert await answer(handler) == CLOSE_HEAD + expected + TAIL
    assert closed.take_all() == ["generator"]


@pytest.mark.parametrize("total_size", [None, 0])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_send_from_an_empty_source_is_an_answer(total_size: int | None, method: str) -> None:
    async def handler(res: Response, _: Request) -> None:
        result = await res.send_from(Source(0), total_size)
        assert result.ok
        assert result.done == (total_size == 0)

    head = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    if total_size is None:
        head = CLOSE_HEAD + (TAIL if method == "GET" else b"")
    assert await answer(handler, method=method) == head


@pytest.mark.parametrize("total_size", [None, 2000])
async def test_send_from_stops_at_once_for_a_head(total_size: int | None) -> None:
    source = Source(1, then="wait")

    async def handler(res: Response, _: Request) -> None:
        assert await res.send_from(source, total_size) == (True, True)

    assert (await answer(handler, method="HEAD")).endswith(b"Connection: close\r\n\r\n")
    assert source.closed == 1


async def test_send_from_closes_a_source_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    source = Source(1, then="fail")

    async def handler(res: Response, _: Request) -> None:
        await res.send_from(source)

    assert await answer(handler) == CLOSE_HEAD + b"3e8\r\n" + pattern(1000) + b"\r\n"
    assert source.closed == 1
    caplog.clear()


async def test_send_from_closes_a_source_whose_data_goes_beyond() -> None:
    source = Source(3)

    async def handler(res: Response, _: Request) -> None:
        with pytest.raises(ValueError, match=r"^1000 bytes at offset 1000 go beyond total_size=15"):
            await res.send_from(source, 1500)
        res.end(bytes(500))

    assert (await answer(handler)).endswith(pattern(1000) + bytes(500))
    assert source.closed == 1


@pytest.mark.parametrize("then", ["wait", "end"])
async def test_send_from_closes_its_source_when_it_is_cancelled(then: str) -> None:
    source = Source(1 if then == "wait" else 50, then=then)

    async def handler(res: Response, _: Request) -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(res.send_from, source)
                await wait_all_tasks_blocked()
                scope.cancel()
        assert source.closed == 1
        offset.tell(res.get_write_offset())

    offset = Told[int]()
    async with open_client(app_with(handler), window=1500) as client:
        await client.send_all(get("/"))
        assert await offset.next() == (1000 if then == "wait" else 2000)


@pytest.mark.parametrize("cancel", [True, False], ids=["cancelled", "not cancelled"])
@pytest.mark.parametrize("then", ["wait", "end"])
async def test_send_from_closes_its_source_when_the_client_goes(
    kind: Kind, then: str, cancel: bool
) -> None:
    source = Source(1 if then == "wait" else 10_000, then=then)
    told = Told[object]()

    async def handler(res: Response, _: Request) -> None:
        try:
            told.tell(await res.send_from(source))
        except trio.Cancelled:
            told.tell("cancelled")
            raise
        finally:
            assert source.closed == 1

    async with open_peer(app_with(handler, cancel=cancel), kind) as peer:
        await peer.send_all(get("/"))
        await peer.receive_head()
        await wait_all_tasks_blocked()
        await peer.reset()
        assert await told.next() == ("cancelled" if cancel else (False, True))
        assert peer.stats.aborts == {AbortReason.CLIENT_CLOSED: 1}
