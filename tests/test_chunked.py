"""Bodies of unknown length, going out: exact bytes on the wire, exact offsets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h11
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from tests.harness import get, open_peer, pattern, without_date
from trio_stream import AbortReason, App, Config, Request, Response, SendResult, WriteResult
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.harness import Kind, Peer

    Handler = Callable[[Response, Request], Awaitable[None] | None]

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
PLAIN_HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
FRAME = 16 * 1024


def app_with(handler: Handler, *, config: Config | None = None, cancel: bool = True) -> App:
    app = App(config=config, cancel_on_abort=cancel)
    app.any("/", handler)
    return app


async def answer(
    handler: Handler, *lines: str, method: str = "GET", version: str = "1.1", window: int = 100_000
) -> bytes:
    """All that the server sends for one request with `Connection: close`, without the date."""
    async with open_client(app_with(handler), window=window) as client:
        await client.send_all(get("/", "Connection: close", *lines, method=method, version=version))
        received = bytearray()
        while data := await client.receive_some():
            received += data
        return without_date(bytes(received))


def decode(wire: bytes) -> bytes:
    """The body in a chunked response, as h11 sees it; it must be complete."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(wire)
    body = bytearray()
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Response | h11.Data), event
        if isinstance(event, h11.Data):
            body += event.data
    return bytes(body)


# Framing...


async def test_chunks_are_frames_and_the_return_ends_them(autojump_clock: object) -> None:
    async def handler(res: Response, _: Request) -> None:
        assert await res.send_chunk(b"hello") == SendResult(ok=True, done=False)
        assert res.get_write_offset() == 5
        assert await res.send_chunk(b"") == SendResult(ok=True, done=False)
        assert await res.send_chunk(memoryview(bytearray(b"0123456789abcdef"))) == (True, False)
        assert res.get_write_offset() == 21

    assert await answer(handler) == HEAD + b"5\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"


async def test_end_ends_the_chunks(autojump_clock: object) -> None:
    async def handler(res: Response, _: Request) -> None:
        await res.send_chunk(b"a")
        assert res.end("bc")
        with pytest.raises(RuntimeError, match="complete"):
            res.try_write(b"d")
        with pytest.raises(RuntimeError, match="complete"):
            res.write(b"d")
        with pytest.raises(RuntimeError, match="complete"):
            await res.send_chunk(b"d")

    assert await answer(handler) == HEAD + b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"


async def test_nothing_but_empty_chunks_is_no_answer(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(res: Response, _: Request) -> None:
        assert await res.send_chunk(b"") == (True, False)

    assert (await answer(handler)).startswith(b"HTTP/1.1 500 ")
    assert "without an answer" in caplog.records[0].getMessage()
    caplog.clear()


async def test_connection_is_reused_after_chunks(kind: Kind) -> None:
    async def handler(res: Response, _: Request) -> None:
        await res.send_chunk(b"ab")

    async with open_peer(app_with(handler), kind) as peer:
        await peer.send_all(get("/") + get("/", "Connection: close"))
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
        body = b"2\r\nab\r\n0\r\n\r\n"
        expected = head + b"\r\n" + body + head + b"Connection: close\r\n\r\n" + body
        assert without_date(await peer.receive_until_eof()) == expected


async def test_http_1_0_gets_the_bytes_and_the_end_of_the_connection(kind: Kind) -> None:
    async def handler(res: Response, _: Request) -> None:
        await res.send_chunk(b"ab")
        assert res.get_write_offset() == 2
        assert res.try_write(b"cd") == (True, 2)
        res.write("ef")

    async with open_peer(app_with(handler), kind) as peer:
        await peer.send_all(get("/", version="1.0"))
        assert without_date(await peer.receive_until_eof()) == PLAIN_HEAD + b"abcdef"


async def test_cut_of_a_body_that_ends_with_the_connection_is_a_reset(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(res: Response, _: Request) -> None:
        await res.send_chunk(b"ab")
        raise ZeroDivisionError

    async with open_peer(app_with(handler), kind) as peer:
        await peer.send_all(get("/", version="1.0"))
        with pytest.raises(trio.BrokenResourceError):
            await peer.receive_until_eof()
    caplog.clear()


async def test_what_was_sent_before_such_a_cut_is_received(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    """The whole answer to the request before, too."""
    whole = pattern(200_000)
    app = App()
    app.get("/whole", lambda res, _: res.end(whole))

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        await res.send_chunk(b"ab")
        raise ZeroDivisionError

    received = b""
    async with open_peer(app, kind, window=50_000) as peer:
        await peer.send_all(get("/whole") + get("/", version="1.0"))
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BrokenResourceError):
            while data := await peer.receive_some(10_000):
                received += data
    head, _, rest = received.partition(whole)
    assert without_date(head) == b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n"
    assert without_date(rest) == PLAIN_HEAD + b"ab"
    caplog.clear()


async def test_what_a_shutdown_cuts_is_reset_too(kind: Kind) -> None:
    async def handler(res: Response, _: Request) -> None:
        await res.send_chunk(b"ab")
        await trio.sleep_forever()

    received = b""
    async with open_peer(app_with(handler), kind) as peer:
        await peer.send_all(get("/", version="1.0"))
        while not received.endswith(b"ab"):
            received += await peer.receive_some()
        peer.server._cut_off()
        with pytest.raises(trio.BrokenResourceError):
            await peer.receive_until_eof()


async def test_a_cut_does_not_wait_long_for_a_client_that_takes_nothing(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(res: Response, _: Request) -> None:
        res.write(bytes(1000))
        raise ZeroDivisionError

    app = app_with(handler, config=Config(linger_timeout=3))
    async with open_client(app, window=100) as client:
        await client.send_all(get("/", version="1.0"))
        await trio.sleep(2.9)
        assert client.server.stats.open_connections == 1
        await trio.sleep(0.2)
        assert client.server.stats.open_connections == 0
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()
    caplog.clear()


async def test_error_after_the_head_leaves_out_the_end(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(res: Response, _: Request) -> None:
        await res.send_chunk(b"ab")
        raise ZeroDivisionError

    async with open_peer(app_with(handler), kind) as peer:
        await peer.send_all(get("/", "Connection: close"))
        assert without_date(await peer.receive_until_eof()) == HEAD + b"2\r\nab\r\n"
        assert peer.stats.aborts == {AbortReason.HANDLER_ERROR: 1}
    caplog.clear()


# HEAD and other answers without a body...


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("status", [200, 204, 304])
async def test_without_a_body_nothing_follows_the_head(
    method: str, status: int, autojump_clock: object
) -> None:
    if (method, status) == ("GET", 200):
        return
    seen = []

    async def handler(res: Response, _: Request) -> None:
        res.write_status(status)
        seen.append(await res.send_chunk(b"abc"))
        seen.append(await res.send_chunk(b"abc"))
        assert res.try_write(b"abcd") == (True, 4)
        assert res.write("abc")
        assert res.get_write_offset() == 13

    received = await answer(handler, method=method)
    assert received.endswith(b"\r\n\r\n")
    assert received.count(b"\r\n\r\n") == 1
    assert (b"Transfer-Encoding: chunked" in received) == (status == 200)
    assert seen == [SendResult(ok=True, done=True)] * 2


async def test_head_of_an_endless_body_ends_with_its_client(autojump_clock: object) -> None:
    async def handler(res: Response, _: Request) -> None:
        while True:
            await res.send_chunk(b"tick")
            await trio.sleep(1)

    async with open_client(app_with(handler)) as client:
        response = await client.request("HEAD", "/")
        assert response.status_code == 200
        client.vanish()
        await wait_all_tasks_blocked()
        assert client.stats.aborts == {AbortReason.CLIENT_CLOSED: 1}
        assert client.stats.active_responses == 0


# try_write...


async def test_try_write_takes_whole_frames_and_keeps_the_rest_of_one(
    autojump_clock: object,
) -> None:
    data = pattern(3 * FRAME)
    results: list[tuple[WriteResult, int]] = []

    def handler(res: Response, _: Request) -> None:
        def go_on(res: Response, offset: int) -> bool:
            assert offset == res.get_write_offset()
            results.append((res.try_write(data[offset:]), res.get_write_offset()))
            return results[-1][0].ok

        res.on_writable(go_on)
        go_on(res, 0)
        res.on_aborted(lambda _: None)

    async with open_client(app_with(handler), window=20_000) as client:
        await client.send_all(get("/", "Connection: close"))
        await wait_all_tasks_blocked()
        assert client.unread == 20_000
        # The head and one frame went, and the beginning of the second frame: all of that counts.
        assert results == [(WriteResult(ok=False, accepted=2 * FRAME), 2 * FRAME)]
        received = await client.receive_some()
        await wait_all_tasks_blocked()
        assert results[1:] == [(WriteResult(ok=True, accepted=FRAME), 3 * FRAME)]
        client.window = 10**6
        await wait_all_tasks_blocked()
        received += await client.receive_some()
    frames = b"".join(b"4000\r\n%b\r\n" % data[i * FRAME :][:FRAME] for i in range(3))
    assert without_date(received) == HEAD + frames


@pytest.mark.parametrize("window", [7, 100, 5000, 40_000])
async def test_try_write_resumed_by_the_offset_loses_and_repeats_nothing(
    kind: Kind, window: int
) -> None:
    data = pattern(150_000)

    async def handler(res: Response, _: Request) -> None:
        writable = trio.Event()

        def wake(res: Response, offset: int) -> bool:
            writable.set()
            return True

        res.on_writable(wake)
        start = res.get_write_offset()
        while not res.try_write(data[res.get_write_offset() - start :]).ok:
            await writable.wait()
            writable = trio.Event()
        res.end()

    async with open_peer(app_with(handler), kind, window=window) as peer:
        await peer.send_all(get("/", "Connection: close"))
        assert decode(await peer.receive_until_eof()) == data


def test_try_write_after_an_abort_accepts_nothing() -> None:
    seen = []

    async def handler(res: Response, _: Request) -> None:
        await res.send_chunk(b"x")
        with trio.CancelScope(shield=True):
            await res.wait_aborted()
        seen.append((res.try_write(b"abc"), res.write("abc"), res.end(), res.get_write_offset()))

    async def main() -> None:
        async with open_client(app_with(handler)) as client:
            await client.send_all(get("/"))
            await wait_all_tasks_blocked()
            client.vanish()
            await wait_all_tasks_blocked()

    trio.run(main)
    assert seen == [(WriteResult(ok=False, accepted=0), False, False, 1)]


# send_chunk...


@pytest.mark.parametrize("size", [1, 1000, FRAME, FRAME + 1, 65536, 300_000, 1_000_000])
async def test_chunks_arrive_byte_for_byte(kind: Kind, size: int) -> None:
    total = max(3 * size, 5)

    async def handler(res: Response, _: Request) -> None:
        for start in range(0, total, size):
            assert (await res.send_chunk(pattern(min(size, total - start), start))).ok
            assert res.get_write_offset() == min(start + size, total)

    async with open_peer(app_with(handler), kind) as peer:
        await peer.send_all(get("/", "Connection: close"))
        assert decode(await peer.receive_until_eof()) == pattern(total)


async def test_cancelled_chunk_can_be_resumed_and_closes_the_connection(
    autojump_clock: object,
) -> None:
    data = bytearray(pattern(100_000))
    offsets = []

    async def handler(res: Response, _: Request) -> None:
        while (sent := res.get_write_offset()) < 100_000:
            own = bytearray(data[sent:])
            with trio.move_on_after(5):
                await res.send_chunk(own)
            own[:] = bytes(len(own))  # it is the caller's again
            offsets.append(res.get_write_offset())

    async with open_client(app_with(handler), window=1000) as client:
        await client.send_all(get("/"))
        await trio.sleep(6)
        assert offsets[0] == 100_000  # one frame of this chunk, whose beginning went
        client.window = 10**6
        received = bytearray()
        while piece := await client.receive_some():
            received += piece
    assert decode(bytes(received)) == bytes(data)


async def test_client_that_goes_while_a_chunk_is_parked(kind: Kind) -> None:
    results: list[SendResult] = []
    offsets = []

    async def handler(res: Response, _: Request) -> None:
        while True:
            results.append(await res.send_chunk(bytes(100_000)))
            offsets.append(res.get_write_offset())

    async with open_peer(app_with(handler), kind) as peer:
        await peer.send_all(get("/"))
        await peer.receive_head()
        await peer.reset()
        with trio.fail_after(10):
            while peer.stats.active_responses:
                await trio.sleep(0.001)
        assert peer.stats.aborts == {AbortReason.CLIENT_CLOSED: 1}
    assert results[-1] == SendResult(ok=False, done=True)
    assert offsets == sorted(offsets)


# write...


async def test_write_queues_up_to_its_limit_and_loses_nothing(autojump_clock: object) -> None:
    async def handler(res: Response, _: Request) -> None:
        assert res.write("head goes with this")
        assert not res.write(bytes(5000))
        assert not res.write("x" * 3000)
        with pytest.raises(BufferError, match="max_queued_bytes=10000"):
            res.write(bytes(9000))
        await res.drain()
        assert res.write(b"y")
        with pytest.raises(BufferError, match="max_queued_bytes=10000"):
            res.write(bytes(10_001))
        res.end("end")

    app = app_with(handler, config=Config(max_queued_bytes=10_000))
    async with open_client(app, window=1000) as client:
        await client.send_all(get("/", "Connection: close"))
        received = bytearray()
        while data := await client.receive_some():
            received += data
    expected = b"head goes with this" + bytes(5000) + b"x" * 3000 + b"yend"
    assert decode(bytes(received)) == expected


async def test_chunk_waits_for_what_was_written_before(kind: Kind) -> None:
    async def handler(res: Response, _: Request) -> None:
        res.write(pattern(50_000))
        assert await res.send_chunk(pattern(50_000, 50_000)) == (True, False)
        assert res.get_write_offset() == 100_000
        res.write(pattern(10, 100_000))

    async with open_peer(app_with(handler), kind) as peer:
        await peer.send_all(get("/", "Connection: close"))
        assert decode(await peer.receive_until_eof()) == pattern(100_010)


async def test_write_is_told_of_room(autojump_clock: object) -> None:
    offsets = []

    def handler(res: Response, _: Request) -> None:
        def go_on(res: Response, offset: int) -> bool:
            offsets.append(offset)
            return res.end("!")

        assert not res.write(bytes(3000))
        res.on_writable(go_on)

    assert decode(await answer(handler, window=1000)) == bytes(3000) + b"!"
    assert offsets == [3000]


# Trailers...


async def test_trailers_for_a_client_that_keeps_them(autojump_clock: object) -> None:
    async def handler(res: Response, _: Request) -> None:
        await res.send_chunk(b"a")
        res.end(b"b", trailers={"X-Sum": 5, "Server-Timing": "total;dur=1"})

    body = b"1\r\na\r\n1\r\nb\r\n0\r\n"
    trailers = b"X-Sum: 5\r\nServer-Timing: total;dur=1\r\n"
    for te in ("trailers", "gzip, Trailers", "trailers;q=1"):
        expected = trailers if te != "trailers;q=1" else b""
        assert await answer(handler, f"TE: {te}") == HEAD + body + expected + b"\r\n"
    assert await answer(handler) == HEAD + body + b"\r\n"
    assert await answer(handler, "TE: trailers", version="1.0") == PLAIN_HEAD + b"ab"


@pytest.mark.parametrize(
    ("trailers", "error"),
    [
        ({"Content-Length": 5}, ValueError),
        ({"transfer-encoding": "x"}, ValueError),
        ({"Set-Cookie": "a=b"}, ValueError),
        ({"X": "a\r\nb"}, ValueError),
        ({"X Y": "a"}, ValueError),
        ({"X": 1.5}, TypeError),
    ],
)
async def test_trailer_that_can_not_be(
    trailers: dict[str, str], error: type[Exception], autojump_clock: object
) -> None:
    async def handler(res: Response, _: Request) -> None:
        await res.send_chunk(b"a")
        with pytest.raises(error):
            res.end(b"b", trailers=trailers)

    assert await answer(handler, "TE: trailers") == HEAD + b"1\r\na\r\n0\r\n\r\n"


async def test_trailers_need_an_unknown_length(autojump_clock: object) -> None:
    async def handler(res: Response, _: Request) -> None:
        await res.send_chunk(b"a", 2)
        with pytest.raises(ValueError, match="known length"):
            res.end(b"b", trailers={"X": "y"})
        res.end(b"b")

    assert (await answer(handler, "TE: trailers")).endswith(
        b"Content-Length: 2\r\nConnection: close\r\n\r\nab"
    )


# Two lengths do not mix...


async def test_length_can_not_come_later(autojump_clock: object) -> None:
    async def handler(res: Response, _: Request) -> None:
        await res.send_chunk(b"a")
        with pytest.raises(ValueError, match="total_size=5 came after the head"):
            await res.send_chunk(b"b", 5)
        with pytest.raises(ValueError, match="total_size=5 came after the head"):
            res.try_end(b"b", 5)

    assert await answer(handler) == HEAD + b"1\r\na\r\n0\r\n\r\n"


async def test_length_can_not_be_forgotten(autojump_clock: object) -> None:
    async def handler(res: Response, _: Request) -> None:
        await res.send_chunk(b"a", 3)
        for method, call in (("try_write", res.try_write), ("write", res.write)):
            with pytest.raises(ValueError, match=rf"{method}\(\) .* after total_size=3"):
                call(b"b")
        with pytest.raises(ValueError, match=r"send_chunk\(\) .* after total_size=3"):
            await res.send_chunk(b"b")
        await res.send_chunk(b"bc", 3)

    assert (await answer(handler)).endswith(b"\r\n\r\nabc")


async def test_two_tasks_may_not_send(autojump_clock: object) -> None:
    async def handler(res: Response, _: Request) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(res.send_chunk, bytes(5000))
            await wait_all_tasks_blocked()
            for call in (res.try_write, res.write, res.end):
                with pytest.raises(trio.BusyResourceError):
                    call(b"x")
            with pytest.raises(trio.BusyResourceError):
                await res.send_chunk(b"x")

    async def read(peer: Peer) -> bytes:
        await wait_all_tasks_blocked()
        return await peer.receive_until_eof()

    async with open_peer(app_with(handler), "memory", window=1000) as peer:
        await peer.send_all(get("/", "Connection: close"))
        assert decode(await read(peer)) == bytes(5000)


# Anything goes...

Step = tuple[str, int]
steps = st.lists(
    st.tuples(st.sampled_from(["send_chunk", "try_write", "write"]), st.integers(0, 50_000)),
    max_size=8,
)


@settings(deadline=None, max_examples=25)
@given(steps, st.integers(100, 60_000), st.integers(500, 20_000))
def test_any_mix_of_calls_arrives_as_it_was_accepted(
    steps: list[Step], window: int, read_size: int
) -> None:
    accepted = bytearray()

    async def handler(res: Response, _: Request) -> None:
        for call, size in steps:
            data = pattern(size, len(accepted))
            if call == "send_chunk":
                assert await res.send_chunk(data) == (True, False)
                accepted.extend(data)
                assert res.get_write_offset() == len(accepted)
            elif call == "write":
                res.write(data)
                accepted.extend(data)
            else:
                accepted.extend(data[: res.try_write(data).accepted])
            assert res.get_write_offset() <= len(accepted)
        res.end()

    async def main() -> bytes:
        async with open_client(app_with(handler), window=window) as client:
            await client.send_all(get("/", "Connection: close"))
            received = bytearray()
            while data := await client.receive_some(read_size):
                received += data
            return bytes(received)

    wire = trio.run(main)
    if any(size or call == "write" for call, size in steps):
        assert wire.partition(b"\r\n\r\n")[0].count(b"Transfer-Encoding: chunked") <= 1
    assert decode(wire) == bytes(accepted)
