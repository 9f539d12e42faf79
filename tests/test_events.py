"""Server-sent events: exact bytes, whole events only, and a block that ends with its client."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from tests.clients import Told
from tests.harness import decode, get, open_peer, without_date
from trio_stream import AbortReason, App, Config, Request, Response
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.harness import Kind
    from trio_stream._events import EventStream

    Handler = Callable[[Response, Request], Awaitable[object] | object]

FIELDS = b"Content-Type: text/event-stream\r\nCache-Control: no-store\r\nX-Accel-Buffering: no\r\n"
TAIL = b"0\r\n\r\n"


def app_with(handler: Handler, *, config: Config | None = None, cancel: bool = True) -> App:
    app = App(config=config, cancel_on_abort=cancel)
    app.any("/", handler)
    return app


async def answer(handler: Handler, method: str = "GET", version: str = "1.1") -> bytes:
    """All that the server sends for one request with `Connection: close`, without the date."""
    async with open_client(app_with(handler), window=100_000) as client:
        await client.send_all(get("/", "Connection: close", method=method, version=version))
        received = b""
        while data := await client.receive_some():
            received += data
    return without_date(received)


async def test_fields_of_the_handler_stay_as_they_are() -> None:
    async def handler(res: Response, _: Request) -> None:
        res.write_header("content-type", "text/event-stream; charset=utf-8")
        res.write_header("Cache-Control", "no-cache")
        async with res.events():
            pass

    assert (await answer(handler)).split(b"\r\n")[1:4] == [
        b"content-type: text/event-stream; charset=utf-8",
        b"Cache-Control: no-cache",
        b"X-Accel-Buffering: no",
    ]


async def events_of(send: Callable[[EventStream], Awaitable[object]]) -> bytes:
    """The body that comes of a block in which `send` is called."""

    async def handler(res: Response, _: Request) -> None:
        async with res.events() as events:
            await send(events)

    return decode(await answer(handler))[0].body


# Exact bytes


async def test_each_event_is_a_frame_and_the_block_ends_the_body() -> None:
    async def handler(res: Response, _: Request) -> None:
        res.write_header("X", "1")
        async with res.events() as events:
            await events.send("first")
            await events.send("second", event="reading", id=7, retry=1500)
            await events.comment("hello")
        with pytest.raises(RuntimeError, match=r"^the response is complete"):
            await events.send("late")

    assert await answer(handler) == (
        b"HTTP/1.1 200 OK\r\nX: 1\r\n" + FIELDS + b"Transfer-Encoding: chunked\r\n"
        b"Connection: close\r\n\r\n"
        b"d\r\ndata: first\n\n\r\n"
        b"2f\r\nevent: reading\nid: 7\nretry: 1500\ndata: second\n\n\r\n"
        b"9\r\n: hello\n\n\r\n" + TAIL
    )


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        ("", b"data: \n\n"),
        ("a", b"data: a\n\n"),
        (" a ", b"data:  a \n\n"),
        ("a\nb", b"data: a\ndata: b\n\n"),
        ("a\r\nb", b"data: a\ndata: b\n\n"),
        ("a\rb", b"data: a\ndata: b\n\n"),
        ("a\n\rb", b"data: a\ndata: \ndata: b\n\n"),
        ("a\r\n\r\nb", b"data: a\ndata: \ndata: b\n\n"),
        ("a\n", b"data: a\ndata: \n\n"),
        ("\n", b"data: \ndata: \n\n"),
        ("a\n\nevent: b", b"data: a\ndata: \ndata: event: b\n\n"),
        ("a\x0b\x0c\x1c\x85\u2028b", "data: a\x0b\x0c\x1c\x85\u2028b\n\n".encode()),
        ("é\0€", b"data: \xc3\xa9\0\xe2\x82\xac\n\n"),
    ],
)
async def test_data_of_any_lines(data: str, lines: bytes) -> None:
    assert await events_of(lambda events: events.send(data)) == lines


async def test_events_without_data() -> None:
    async def send(events: EventStream) -> None:
        await events.send(event="ping")
        await events.send(id="")
        await events.send(id=0)
        await events.send(retry=0)
        await events.send(event="", data="")

    assert await events_of(send) == (
        b"event: ping\n\nid: \n\nid: 0\n\nretry: 0\n\nevent: \ndata: \n\n"
    )


async def test_comments_of_any_lines() -> None:
    async def send(events: EventStream) -> None:
        await events.comment("")
        await events.comment("a\r\nb\rc\nd")

    assert await events_of(send) == b": \n\n: a\n: b\n: c\n: d\n\n"


async def test_what_would_break_an_event_is_refused() -> None:
    async def send(events: EventStream) -> None:
        for text in ("a\nb", "a\rb", "a\r\n", "\n"):
            with pytest.raises(ValueError, match=r"^the event of an event is one line, unlike "):
                await events.send("x", event=text)
            with pytest.raises(ValueError, match=r"^the id of an event is one line, unlike "):
                await events.send("x", id=text)
        with pytest.raises(ValueError, match=r"^the id of an event can't contain a NUL"):
            await events.send("x", id="a\0b")
        with pytest.raises(ValueError, match=r"^retry must be a number of milliseconds, not -1$"):
            await events.send("x", retry=-1)
        with pytest.raises(TypeError, match=r"^retry must be an integer number of .*, not 1\.5$"):
            await events.send("x", retry=1.5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"^the data of an event is text, not b'x'$"):
            await events.send(b"x")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"^the event of an event is text, not 5$"):
            await events.send("x", event=5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"^the comment of an event is text, not None$"):
            await events.comment(None)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"^an event needs data, a type, an id or a retry"):
            await events.send()
        await events.send("ok")

    assert await events_of(send) == b"data: ok\n\n"


@pytest.mark.parametrize("keep_alive", [0, -1, math.nan])
async def test_keep_alive_must_be_a_time(keep_alive: float) -> None:
    async def handler(res: Response, _: Request) -> None:
        with pytest.raises(ValueError, match=r"^keep_alive must be more than 0 seconds, not "):
            async with res.events(keep_alive=keep_alive):
                pass
        res.end("ok")

    assert await answer(handler) == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    )


async def test_comments_do_not_pile_up_for_a_client_that_stalls(autojump_clock: object) -> None:
    async def handler(res: Response, _: Request) -> None:
        async with res.events(keep_alive=1):
            await trio.sleep_forever()

    app = App(config=Config(stall_timeout=math.inf))
    app.get("/", handler)
    async with open_client(app, window=300) as client:
        await client.send_all(get("/"))
        await trio.sleep(1000)
        client.window = 10_000
        await wait_all_tasks_blocked()
        received = await client.receive_some()
    comments = received.partition(b"\r\n\r\n")[2]
    assert len(received) < 300 + 2 * len(b"3\r\n:\n\n\r\n")
    assert comments == b"3\r\n:\n\n\r\n" * (len(comments) // 8)
    assert len(comments) >= 16


async def test_nothing_begins_in_a_cancelled_scope() -> None:
    async def handler(res: Response, _: Request) -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with res.events():
                pass
        assert scope.cancelled_caught
        res.end(b"nothing")

    assert (await answer(handler)).endswith(b"\r\n\r\nnothing")


async def test_send_is_a_checkpoint() -> None:
    async def send(events: EventStream) -> None:
        with assert_checkpoints():
            await events.send("a")
        with assert_checkpoints():
            await events.comment("b")

    assert await events_of(send) == b"data: a\n\n: b\n\n"


# Without a body, and without chunks


async def test_head_leaves_at_once(kind: Kind) -> None:
    async def handler(res: Response, _: Request) -> None:
        async with res.events():
            await trio.sleep_forever()

    async with open_peer(app_with(handler), kind) as peer:
        await peer.send_all(get("/"))
        expected = b"HTTP/1.1 200 OK\r\n" + FIELDS + b"Transfer-Encoding: chunked\r\n\r\n"
        assert without_date(await peer.receive_head()) == expected


@pytest.mark.parametrize("way", ["send", "sleep"])
async def test_block_ends_at_once_for_a_head(way: str) -> None:
    sent = Told[str]()

    async def handler(res: Response, _: Request) -> None:
        async with res.events() as events:
            if way == "sleep":
                await trio.sleep_forever()
            await events.send("x")
            sent.tell("x")
        sent.tell("end")

    assert await answer(handler, "HEAD") == (
        b"HTTP/1.1 200 OK\r\n" + FIELDS + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    assert sent.take_all() == ["end"]


async def test_events_for_http_1_0_end_with_the_connection() -> None:
    async def handler(res: Response, _: Request) -> None:
        async with res.events() as events:
            await events.send("a")
            await events.send("b")

    assert await answer(handler, version="1.0") == (
        b"HTTP/1.1 200 OK\r\n" + FIELDS + b"Connection: close\r\n\r\ndata: a\n\ndata: b\n\n"
    )


# Keep-alive


async def test_comment_is_sent_when_nothing_was_for_a_while(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def handler(res: Response, _: Request) -> None:
        async with res.events(keep_alive=10) as events:
            await trio.sleep(29)  # two comments
            await events.send("a")
            await trio.sleep(9)
            await events.send("b")
            await trio.sleep(9)
            await events.send("c")
            await trio.sleep(11)  # one

    body = decode(await answer(handler))[0].body
    assert body == b":\n\n:\n\ndata: a\n\ndata: b\n\ndata: c\n\n:\n\n"


async def test_no_comment_is_sent_if_none_is_wanted(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(res: Response, _: Request) -> None:
        async with res.events(keep_alive=math.inf) as events:
            await trio.sleep(1_000_000)
            await events.send("a")

    assert decode(await answer(handler))[0].body == b"data: a\n\n"


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_no_comment_comes_within_an_event(
    autojump_clock: trio.testing.MockClock, version: str
) -> None:
    text = "x" * 600_000  # more than a frame, even of a chunk that is not copied

    async def handler(res: Response, _: Request) -> None:
        async with res.events(keep_alive=10) as events:
            await events.send(text)
            await events.send("y")

    app = app_with(handler, config=Config(stall_timeout=1000))
    async with open_client(app, window=10_000) as client:
        await client.send_all(get("/", "Connection: close", version=version))
        received = b""
        while data := await client.receive_some(150_000):
            received += data
            await trio.sleep(25)
        body = received.partition(b"\r\n\r\n")[2] if version == "1.0" else decode(received)[0].body
        assert body == b"data: " + text.encode() + b"\n\ndata: y\n\n"


async def test_no_comment_comes_within_a_chunk(autojump_clock: trio.testing.MockClock) -> None:
    data = b"".join(b"data: %06d\n\n" % number for number in range(60_000))
    go_on = trio.Event()

    async def handler(res: Response, _: Request) -> None:
        async with res.events(keep_alive=15):
            await go_on.wait()
            await res.send_chunk(data)

    async with open_client(app_with(handler), window=1000) as client:
        response = await client.get("/")
        await wait_all_tasks_blocked()
        client.window = len(b"40000\r\n") + 256 * 1024 + len(b"\r\n")  # for a frame, to the byte
        go_on.set()
        await trio.sleep(16)
        client.window = 10_000_000
        assert (await response.read()).removesuffix(b":\n\n") == data


async def test_nothing_is_kept_of_what_did_not_begin_for_a_client_that_stopped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def handler(res: Response, _: Request) -> None:
        async with res.events(keep_alive=10) as events:
            await trio.sleep(35)
            with trio.move_on_after(3):
                await events.send("lost")  # nothing of it was accepted
            with trio.move_on_after(3):
                await events.send("lost, too")
            await events.send("x")

    app = app_with(handler, config=Config(stall_timeout=1000))
    async with open_client(app, window=0) as client:
        await client.send_all(get("/", "Connection: close"))
        await trio.sleep(50)
        client.window = 10_000
        received = b""
        while data := await client.receive_some():
            received += data
        assert decode(received)[0].body == b"data: x\n\n"


# An event is sent whole, or not at all


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("room", range(24))
async def test_cancelled_event_does_not_corrupt_the_next_ones(
    autojump_clock: trio.testing.MockClock, room: int, version: str
) -> None:
    async def handler(res: Response, _: Request) -> None:
        async with res.events(keep_alive=math.inf) as events:
            await go_on.wait()
            for text in ("first", "second", "third"):
                with trio.move_on_after(5):
                    await events.send(text)
            await events.send("last")

    go_on = trio.Event()
    app = app_with(handler, config=Config(stall_timeout=1000))
    async with open_client(app, window=1000) as client:
        await client.send_all(get("/", "Connection: close", version=version))
        await wait_all_tasks_blocked()
        head = await client.receive_some()
        client.window = room
        go_on.set()
        await trio.sleep(100)
        client.window = 1000
        received = b""
        while data := await client.receive_some(1):
            received += data
        body = received if version == "1.0" else decode(head + received)[0].body
        frames = (b"data: first\n\n", b"d\r\ndata: first\n\n\r\n")[version == "1.1"]
        # What could be sent at once was whole, or the rest of it was kept; the others were not
        # begun.
        expected = b"data: first\n\n" if room > 0 else b""
        if room > len(frames):
            expected += b"data: second\n\n"
        assert body == expected + b"data: last\n\n"


async def test_two_tasks_can_not_send_at_once() -> None:
    checked = trio.Event()

    async def handler(res: Response, _: Request) -> None:
        async with res.events() as events, trio.open_nursery() as nursery:
            nursery.start_soon(events.send, "x" * 1000)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await events.send("y")
            with pytest.raises(trio.BusyResourceError):
                await events.comment("y")
            checked.set()

    async with open_client(app_with(handler), window=300) as client:
        await client.send_all(get("/", "Connection: close"))
        await checked.wait()
        received = b""
        while data := await client.receive_some():
            received += data
        assert decode(received)[0].body == b"data: " + b"x" * 1000 + b"\n\n"


# The client goes, or the handler fails


@pytest.mark.parametrize("way", ["asleep", "parked", "sending"])
@pytest.mark.parametrize("cancel", [True, False], ids=["cancelled", "not cancelled"])
async def test_block_ends_when_the_client_goes(kind: Kind, way: str, cancel: bool) -> None:
    told = Told[object]()

    async def handler(res: Response, _: Request) -> None:
        try:
            async with res.events() as events:
                told.tell("started")
                if way == "asleep":
                    await trio.sleep_forever()
                for _round in itertools.count():
                    await events.send("x" * (1_000_000 if way == "parked" else 10))
        finally:
            told.tell(res.abort_reason)
        told.tell("went on")
        await trio.lowlevel.checkpoint_if_cancelled()
        told.tell("and was not cancelled")

    async with open_peer(app_with(handler, cancel=cancel), kind) as peer:
        await peer.send_all(get("/"))
        await peer.receive_head()
        assert await told.next() == "started"
        await peer.reset()
        assert await told.next() is AbortReason.CLIENT_CLOSED
        if not cancel:
            assert await told.next() == "went on"
            assert await told.next() == "and was not cancelled"
        assert peer.stats.aborts == {AbortReason.CLIENT_CLOSED: 1}


@pytest.mark.parametrize("group", [False, True])
async def test_error_in_the_block_cuts_the_body(
    group: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise LookupError("a bug")

    async def handler(res: Response, _: Request) -> None:
        with pytest.raises(ExceptionGroup if group else LookupError) as info:
            async with res.events() as events:
                await events.send("a")
                if group:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(fail)
                await fail()
        raise info.value

    decoded, _ = decode(await answer(handler))
    assert (decoded.body, decoded.is_whole) == (b"data: a\n\n", False)
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)  # alone, and so not in a group
    caplog.clear()


async def test_last_event_id_is_what_the_client_says() -> None:
    async def handler(res: Response, req: Request) -> None:
        seen.append(req.last_event_id)
        async with res.events() as events:
            await events.send("x", id="é")

    seen: list[str | None] = []
    lines = (b"", b"Last-Event-ID: 7\r\n", b"last-event-id: \xc3\xa9\r\n", b"Last-Event-ID: \r\n")
    async with open_client(app_with(handler)) as client:
        for line in (*lines, b"Last-Event-ID: \xff\r\n"):
            await client.send_all(get("/")[:-2] + line + b"\r\n")
            received = b""
            while not received.endswith(TAIL):
                received += await client.receive_some()
            assert decode(received)[0].body == b"id: \xc3\xa9\ndata: x\n\n"
    assert seen == [None, "7", "é", "", "\ufffd"]
