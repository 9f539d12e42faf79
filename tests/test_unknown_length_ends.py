"""How bodies of unknown length end: whole, cut, cancelled, without a byte, with trailers."""

from __future__ import annotations

import traceback
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.clients import Told
from tests.harness import decode, get, open_peer, pattern, without_date
from trio_stream import AbortReason, App, Config, Request, Response
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


# Cancellation


@pytest.mark.parametrize("size", [1000, FRAME_SIZE, 300_000, 600_000])
async def test_cancelled_send_chunk_goes_on_at_the_offset(kind: Kind, size: int) -> None:
    cancelled = Told[int]()

    async def handler(res: Response, _: Request) -> None:
        assert res.write(b"first") is True
        data = bytearray(pattern(size))
        start = res.get_write_offset()
        while (sent := res.get_write_offset() - start) < size:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cancel_when_parked, scope)
                    await res.send_chunk(memoryview(data)[sent:])
                    nursery.cancel_scope.cancel()
            cancelled.tell(res.get_write_offset())
            await trio.sleep(0)
        data.clear()  # what was accepted of it is the response's
        await res.send_chunk(b"last")

    async def cancel_when_parked(scope: trio.CancelScope) -> None:
        await wait_all_tasks_blocked()
        scope.cancel()

    async with open_peer(app_with(handler), kind, window=400) as peer:
        await peer.send_all(get("/", "Connection: close"))
        await cancelled.next()
        decoded, rest = decode(await peer.receive_until_eof())
        assert decoded.body == b"first" + pattern(size) + b"last"
        assert (decoded.is_whole, rest) == (True, b"")


async def test_connection_is_not_used_again_after_a_cancelled_chunk() -> None:
    async def handler(res: Response, _: Request) -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(res.send_chunk, pattern(1000))
                await wait_all_tasks_blocked()
                scope.cancel()
        assert res.get_write_offset() == 1000

    async with open_client(app_with(handler), window=400) as client:
        await client.send_all(get("/"))
        await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()  # the handler itself does that, too
        received = b""
        while data := await client.receive_some():
            received += data
        assert decode(received)[0].body == pattern(1000)


async def test_cancelled_before_a_byte_was_sent_sends_none() -> None:
    async def handler(res: Response, _: Request) -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await res.send_chunk(b"abc")
        assert scope.cancelled_caught
        assert (res.get_write_offset(), client.unread) == (0, 0)
        await res.send_chunk(b"x")
        with trio.CancelScope() as scope:
            scope.cancel()
            await res.send_chunk(b"abc")
        assert scope.cancelled_caught
        assert res.get_write_offset() == 1

    async with open_client(app_with(handler)) as client:
        assert await (await client.get("/")).read() == b"x"
        assert await (await client.get("/")).read() == b"x"  # nothing was parked: it is used again


# HEAD, 204, 304: the same code, no body


@pytest.mark.parametrize(
    ("method", "status", "head"),
    [
        ("HEAD", 200, CLOSE_HEAD),
        ("GET", 204, b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"),
        ("GET", 304, b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n"),
        ("CONNECT", 200, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"),
    ],
)
@pytest.mark.parametrize("way", ["send_chunk", "try_write", "write", "trailers"])
@pytest.mark.parametrize("window", [1, 100_000])
async def test_body_is_dropped_where_there_is_none(
    method: str, status: int, head: bytes, way: str, window: int
) -> None:
    async def handler(res: Response, _: Request) -> None:
        res.write_status(status)
        for offset in (100_000, 200_000):
            if way == "send_chunk":
                assert await res.send_chunk(bytes(100_000)) == (True, True)
            elif way == "try_write":
                assert res.try_write(bytes(100_000)) == (True, 100_000)
            elif way == "write":
                assert res.write(bytes(100_000)) is (window > 1)
            assert res.get_write_offset() == (0 if way == "trailers" else offset)
        if way == "trailers":
            assert res.end(bytes(1000), trailers={"X": "1"}) is (window > 1)
        assert client.unread == (min(window, len(head) + 37))

    app = app_with(handler)
    app.connect("/:authority", handler)
    async with open_client(app, window=window) as client:
        target = "x:1" if method == "CONNECT" else "/"
        await client.send_all(get(target, "Connection: close", "TE: trailers", method=method))
        await wait_all_tasks_blocked()
        received = b""
        while data := await client.receive_some():
            received += data
    assert without_date(received) == head


async def test_connection_goes_on_after_a_head() -> None:
    async def handler(res: Response, req: Request) -> None:
        _, done = await res.send_chunk(b"abc")
        assert done == (req.method == "HEAD")

    async with open_client(app_with(handler)) as client:
        for method in ("HEAD", "GET", "HEAD", "GET"):
            response = await client.request(method, "/")
            assert response.headers["Transfer-Encoding"] == "chunked"
            assert await response.read() == (b"abc" if method == "GET" else b"")


# HTTP/1.0


async def test_body_for_http_1_0_ends_with_the_connection(kind: Kind) -> None:
    async def handler(res: Response, _: Request) -> None:
        assert await res.send_chunk(pattern(300_000)) == (True, False)
        assert res.get_write_offset() == 300_000
        assert res.write(pattern(1000, 300_000)) in (True, False)
        await res.drain()
        start = res.get_write_offset()
        while not res.try_write(pattern(9000, 301_000)[res.get_write_offset() - start :]).ok:
            await until_writable(res)
        res.end(trailers={"X": "1"})

    async with open_peer(app_with(handler), kind) as peer:
        await peer.send_all(get("/", "Connection: keep-alive", "TE: trailers", version="1.0"))
        received = without_date(await peer.receive_until_eof())
        head, _, body = received.partition(b"\r\n\r\n")
        assert head == b"HTTP/1.1 200 OK\r\nConnection: close"
        assert body == pattern(310_000)


@pytest.mark.parametrize("data", [b"", b"abc"])
async def test_cut_body_for_http_1_0_is_a_reset(
    kind: Kind, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(res: Response, _: Request) -> None:
        res.write(data)
        await go_on.wait()
        raise LookupError("a bug")

    go_on = trio.Event()
    async with open_peer(app_with(handler), kind) as peer:
        await peer.send_all(get("/", version="1.0"))
        head = without_date(await peer.receive_head())
        assert head == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
        assert await peer.receive_exactly(len(data)) == data
        go_on.set()
        with pytest.raises(trio.BrokenResourceError):
            await peer.receive_some()
        assert peer.stats.aborts == {AbortReason.HANDLER_ERROR: 1}
    caplog.clear()


async def test_cancelled_handler_resets_a_body_for_http_1_0(kind: Kind) -> None:
    async def handler(res: Response, _: Request) -> None:
        await res.send_chunk(b"abc")
        await go_on.wait()
        res.cancel_scope.cancel()
        await trio.sleep_forever()

    go_on = trio.Event()
    async with open_peer(app_with(handler), kind) as peer:
        await peer.send_all(get("/", version="1.0"))
        await peer.receive_head()
        assert await peer.receive_exactly(3) == b"abc"
        go_on.set()
        with pytest.raises(trio.BrokenResourceError):
            await peer.receive_some()
        assert peer.stats.aborts == {AbortReason.CANCELLED: 1}


async def test_a_client_that_resets_a_body_for_http_1_0_is_not_waited_for(kind: Kind) -> None:
    app = App(config=Config(linger_timeout=3600))
    app.get("/", lambda res, _: res.send_chunk(pattern(300_000)))
    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/", version="1.0"))
        await peer.receive_head()
        await peer.reset()
        with trio.fail_after(20):
            while peer.stats.open_connections:
                await trio.sleep(0.001)
    assert peer.stats.aborts == {AbortReason.CLIENT_CLOSED: 1}


@pytest.mark.parametrize("with_request", [True, False])
async def test_what_was_accepted_for_http_1_0_arrives_before_the_cut(
    kind: Kind, with_request: bool
) -> None:
    offsets: list[int] = []
    received = bytearray()

    async def handler(res: Response, _: Request) -> None:
        try:
            await res.send_chunk(pattern(3_000_000))
            await trio.sleep_forever()
        finally:
            offsets.append(res.get_write_offset())

    async with open_peer(app_with(handler), kind) as peer:
        if with_request:
            peer.send_last_now(get("/", version="1.0"))
        else:
            await peer.send_all(get("/", version="1.0"))
            await wait_all_tasks_blocked()
            await peer.send_eof()
        with suppress(trio.BrokenResourceError):
            while data := await peer.receive_some():
                received += data
        assert peer.stats.aborts == {AbortReason.CLIENT_CLOSED: 1}
    (offset,) = offsets
    assert offset > 0
    assert bytes(received).partition(b"\r\n\r\n")[2] == pattern(offset)


# Trailers


@pytest.mark.parametrize("te", ["trailers", "gzip;q=0.5 , Trailers", "trailers,deflate"])
async def test_trailers_are_for_clients_that_keep_them(te: str) -> None:
    async def handler(res: Response, _: Request) -> None:
        await res.send_chunk(b"abc")
        assert res.end("de", trailers={"Digest": "a=b", "X-Count": 5, "X-Raw": b"\xff"}) is True

    body = b"3\r\nabc\r\n2\r\nde\r\n0\r\n"
    trailers = b"Digest: a=b\r\nX-Count: 5\r\nX-Raw: \xff\r\n\r\n"
    assert await answer(handler, f"TE: {te}") == CLOSE_HEAD + body + trailers
    assert await answer(handler) == CLOSE_HEAD + body + b"\r\n"
    assert await answer(handler, "TE: gzip") == CLOSE_HEAD + body + b"\r\n"


async def test_end_alone_with_trailers_is_chunked() -> None:
    def handler(res: Response, _: Request) -> None:
        res.end("abc", trailers={"X": "1"})

    received = await answer(handler, "TE: trailers")
    assert received == CLOSE_HEAD + b"3\r\nabc\r\n0\r\nX: 1\r\n\r\n"


async def test_trailers_wait_for_what_is_queued() -> None:
    async def handler(res: Response, _: Request) -> None:
        res.write(pattern(5000))
        assert res.end(pattern(5000, 5000), trailers={"X": "1"}) is False

    async with open_client(app_with(handler), window=100) as client:
        await client.send_all(get("/", "Connection: close", "TE: trailers"))
        received = b""
        while data := await client.receive_some(7):
            received += data
    decoded, _ = decode(received)
    assert (decoded.body, decoded.trailers) == (pattern(10_000), [(b"X", b"1")])


@pytest.mark.parametrize(
    "name",
    [
        "Content-Length",
        "transfer-encoding",
        "TRAILER",
        "Host",
        "Set-Cookie",
        "Content-Type",
        "Date",
    ],
)
async def test_field_that_comes_too_late_is_refused(name: str) -> None:
    async def handler(res: Response, _: Request) -> None:
        await res.send_chunk(b"ab")
        with pytest.raises(
            ValueError, match=rf"^{name} has a meaning only before the body: it can"
        ):
            res.end(b"cd", trailers={"X": "1", name: "1"})
        assert res.get_write_offset() == 2
        res.end(b"cd", trailers={})

    received = await answer(handler, "TE: trailers")
    assert received == CLOSE_HEAD + b"2\r\nab\r\n2\r\ncd\r\n" + TAIL


# One after the other


@pytest.mark.parametrize("way", ["send_chunk", "write", "end"])
async def test_pipelined_answers_follow_each_other_exactly(kind: Kind, way: str) -> None:
    async def handler(res: Response, req: Request) -> None:
        size = int(req.params["size"])
        if way == "send_chunk":
            await res.send_chunk(pattern(size, size))
        elif way == "write":
            res.write(pattern(size, size))
        else:
            res.end(pattern(size, size), trailers={"X-Size": size})

    app = App()
    app.get("/:size", handler)
    sizes = (1, 300_001, 5, 70_000, 16_384, 999)
    async with open_peer(app, kind) as peer:
        lines = ["TE: trailers"] * 6
        requests = [get(f"/{size}", "TE: trailers") for size in sizes[:-1]]
        await peer.send_all(b"".join(requests) + get(f"/{sizes[-1]}", *lines, "Connection: close"))
        rest = await peer.receive_until_eof()
        for size in sizes:
            decoded, rest = decode(rest)
            assert (decoded.body, decoded.is_whole) == (pattern(size, size), True)
            assert decoded.trailers == ([(b"X-Size", b"%d" % size)] if way == "end" else [])
        assert rest == b""
        assert peer.stats.body_bytes_sent == sum(sizes)


# The client goes, or the handler fails


@pytest.mark.parametrize("way", ["parked", "queued", "asleep", "draining"])
@pytest.mark.parametrize("cancel", [True, False], ids=["cancelled", "not cancelled"])
async def test_abort_is_told_in_each_phase(kind: Kind, way: str, cancel: bool) -> None:
    told = Told[object]()
    data = pattern(1_000_000)

    async def handler(res: Response, _: Request) -> None:
        res.on_aborted(lambda res: told.tell(res.abort_reason))
        await res.send_chunk(b"x")
        ready.set()
        try:
            if way == "parked":
                told.tell(await res.send_chunk(data * 10))
            elif way == "queued":
                assert res.write(data) is False
                told.tell(await res.send_chunk(data))
            elif way == "asleep":
                await res.wait_aborted()
                told.tell(await res.send_chunk(data))
            else:
                assert res.write(data) is False
                await res.drain()
                told.tell(await res.send_chunk(data))
            offset = res.get_write_offset()
            assert 0 < offset < 10_000_000
            assert res.try_write(data) == (False, 0)
            assert res.write(data) is res.end(data, trailers={"X": "1"}) is False
            assert res.get_write_offset() == offset
            await res.send_chunk(data)  # it was told once: now it is cancelled
            assert not cancel
        except trio.Cancelled:
            told.tell("cancelled")
            raise

    ready = trio.Event()
    config = Config(max_queued_bytes=1_000_000)
    async with open_peer(app_with(handler, config=config, cancel=cancel), kind) as peer:
        await peer.send_all(get("/"))
        await ready.wait()
        await wait_all_tasks_blocked()
        await peer.reset()
        assert await told.next() is AbortReason.CLIENT_CLOSED
        assert await told.next() == (False, True)
        if cancel:
            assert await told.next() == "cancelled"
        assert peer.stats.aborts == {AbortReason.CLIENT_CLOSED: 1}


@pytest.mark.parametrize("way", ["send_chunk", "try_write", "write"])
async def test_error_after_the_head_leaves_out_the_end(
    kind: Kind, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(res: Response, _: Request) -> None:
        if way == "send_chunk":
            await res.send_chunk(b"abc")
        else:
            getattr(res, way)(b"abc")
        raise LookupError("a bug")

    async with open_peer(app_with(handler), kind) as peer:
        await peer.send_all(get("/"))
        assert without_date(await peer.receive_until_eof()) == HEAD + b"3\r\nabc\r\n"
        assert peer.stats.aborts == {AbortReason.HANDLER_ERROR: 1}
    (record,) = caplog.records
    assert record.getMessage().startswith("GET /: the handler raised an exception (request ")
    caplog.clear()


async def test_client_that_leaves_is_no_error_of_a_handler_in_a_nursery(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    left = trio.Event()

    async def handler(res: Response, _: Request) -> None:
        stream = res.body_stream()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, pattern(10_000_000))
                nursery.start_soon(trio.sleep_forever)
        finally:
            left.set()

    for cancel in (True, False):
        left = trio.Event()
        async with open_peer(app_with(handler, cancel=cancel), kind) as peer:
            await peer.send_all(get("/"))
            await peer.receive_head()
            await peer.reset()
            await left.wait()
            assert peer.stats.aborts == {AbortReason.CLIENT_CLOSED: 1}
        assert [record for record in caplog.records if record.levelname != "DEBUG"] == []


@pytest.mark.parametrize("cancel", [True, False], ids=["cancelled", "not cancelled"])
async def test_error_beside_a_client_that_leaves_is_logged(
    cancel: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail_when_aborted(res: Response) -> None:
        with trio.CancelScope(shield=True):
            await res.wait_aborted()
        raise LookupError("a bug")

    async def handler(res: Response, _: Request) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_aborted, res)
            nursery.start_soon(res.body_stream().send_all, pattern(1000))

    async with open_client(app_with(handler, cancel=cancel), window=100) as client:
        await client.send_all(get("/"))
        await wait_all_tasks_blocked()
        client.vanish()
        await wait_all_tasks_blocked()
        assert client.stats.aborts == {AbortReason.CLIENT_CLOSED: 1}
    (record,) = caplog.records
    assert record.getMessage().startswith("GET /: the handler raised an exception (request ")
    assert record.exc_info is not None
    assert "a bug" in "".join(traceback.format_exception(record.exc_info[1]))
    assert "ClientGoneError" not in "".join(traceback.format_exception(record.exc_info[1]))
    caplog.clear()


# Memory


async def test_response_to_a_client_that_stops_keeps_one_chunk_and_no_more() -> None:
    responses: list[Response] = []

    async def handler(res: Response, _: Request) -> None:
        responses.append(res)
        while True:
            with trio.move_on_after(1):
                await res.send_chunk(bytes(64 * 1024))

    async with open_client(app_with(handler), window=1000) as client:
        await client.send_all(get("/"))
        await wait_all_tasks_blocked()
        (res,) = responses
        for _round in range(50):
            res._transport.on_writable()  # for nothing, as on TLS
            await wait_all_tasks_blocked()
        outgoing = res._outgoing
        assert res.get_write_offset() == 64 * 1024
        assert sum(map(len, outgoing._unsent)) + len(outgoing.queued) < 64 * 1024
