"""Request bodies as handlers receive them: every byte, or a definite refusal, and never a hang."""

from __future__ import annotations

import threading
from contextlib import suppress
from copy import copy
from pickle import dumps, loads
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from tests.clients import open_socket_pair
from tests.harness import Peer, PlainStream, get, open_peer, pattern, without_date
from trio_stream import (
    AbortReason,
    App,
    BadRequestError,
    Config,
    FormFile,
    Request,
    Response,
    _forms,
)
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.harness import Kind

    Handler = Callable[[Response, Request], Awaitable[None]]

CHUNKED = "Transfer-Encoding: chunked"
BAD = b"HTTP/1.1 400 Bad Request"


def app_with(handler: Handler, *, config: Config | None = None, cancel: bool = True) -> App:
    app = App(config=config, cancel_on_abort=cancel)
    app.any("/", handler)
    return app


async def read_all(res: Response, req: Request) -> None:
    res.end(await req.read())


async def exchange(handler: Handler, *pieces: bytes, config: Config | None = None) -> bytes:
    """All that is sent to a client that sends these pieces, and ends its stream if need be."""
    async with open_client(app_with(handler, config=config)) as client:
        for piece in pieces:
            try:
                await client.send_all(piece)
            except trio.BrokenResourceError:
                break  # it was refused, and closed
            await wait_all_tasks_blocked()
        received = bytearray()
        with trio.move_on_after(10):
            while data := await client.receive_some():
                received += data
        return without_date(bytes(received))


def post(*lines: str, body: bytes = b"") -> bytes:
    return get("/", *lines, method="POST") + body


def ok(body: bytes, *lines: str) -> bytes:
    head = ("HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *lines)
    return "".join(f"{line}\r\n" for line in (*head, "")).encode() + body


# Pieces of any size...


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_body_split_at_every_position(framing: str, autojump_clock: object) -> None:
    if framing == "length":
        first = post("Content-Length: 5", body=b"hello")
    else:
        wire = b'2;a="b;c"\r\nhe\r\n0000003\r\nllo\r\n0;end\r\nX-Sum: 5\r\nY: z\r\n\r\n'
        first = post(CHUNKED, body=wire)
    data = first + get("/", "Connection: close")
    expected = ok(b"hello") + ok(b"", "Connection: close")
    for at in range(1, len(data)):
        assert await exchange(read_all, data[:at], data[at:]) == expected
    assert await exchange(read_all, *(bytes([byte]) for byte in data)) == expected


async def test_small_pieces_of_a_large_one_are_not_copied_on() -> None:
    left: list[memoryview] = []

    async def handler(res: Response, req: Request) -> None:
        for size in (1, 2, 3):
            data = await req.body.receive_some(size)
            assert (type(data), len(data)) == (bytes, size)
            rest = req.body._received
            assert isinstance(rest, memoryview)
            left.append(rest)
        res.end(await req.body.receive_some())

    wire = post("Content-Length: 9", "Connection: close", body=b"123456789")
    assert await exchange(handler, wire) == ok(b"789", "Connection: close")
    assert left[0].obj is left[1].obj is left[2].obj


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.binary(min_size=1, max_size=300), max_size=6),
    st.lists(st.integers(1, 400), min_size=1, max_size=8),
    st.integers(1, 500),
    st.booleans(),
)
def test_any_chunking_gives_exactly_the_bytes(
    chunks: list[bytes], sizes: list[int], max_bytes: int, has_length: bool
) -> None:
    received = bytearray()

    async def handler(res: Response, req: Request) -> None:
        while data := await req.body.receive_some(max_bytes):
            assert len(data) <= max_bytes
            received.extend(data)
        assert await req.body.receive_some() == b""
        res.end("all")

    body = b"".join(chunks)
    if has_length:
        wire = post(f"Content-Length: {len(body)}", body=body)
    else:
        framed = b"".join(b"%X\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
        wire = post(CHUNKED, body=framed + b"0\r\n\r\n")
    wire += get("/", "Connection: close")
    pieces: list[bytes] = []
    while wire:
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(wire[:size])
        wire = wire[size:]

    async def main() -> bytes:
        return await exchange(handler, *pieces)

    assert trio.run(main) == ok(b"all") + ok(b"all", "Connection: close")
    assert bytes(received) == body


@pytest.mark.parametrize(
    "body",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5_0\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"4\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\nno trailer\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX : y\r\n\r\n",
        b"f" * 17 + b"\r\n",
    ],
)
async def test_malformed_chunks_are_refused(body: bytes, autojump_clock: object) -> None:
    for pieces in ([post(CHUNKED, body=body) + get("/")], [post(CHUNKED), body, get("/")]):
        received = await exchange(read_all, *pieces)
        assert received[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 431"), received
        assert received.count(b"HTTP/1.1") == 1
        assert b"Connection: close\r\n" in received


async def test_long_extension_is_refused(autojump_clock: object) -> None:
    body = b"5;" + b"x" * 40_000 + b"\r\nhello\r\n0\r\n\r\n"
    received = await exchange(read_all, post(CHUNKED), body[:30_000], body[30_000:])
    assert received.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("size", [2**31, 2**63 - 1, 2**63, 2**64 - 1])
async def test_huge_chunk_is_refused_by_whole_readers(size: int, autojump_clock: object) -> None:
    config = Config(max_body_size=1000)
    received = await exchange(
        read_all, post(CHUNKED, body=b"%x\r\n" % size), bytes(500), bytes(501), config=config
    )
    assert received.startswith(b"HTTP/1.1 413 ")


async def test_malformed_end_after_the_head_cuts_the_answer(autojump_clock: object) -> None:
    async def handler(res: Response, req: Request) -> None:
        async for data in req.body:
            await res.send_chunk(data)

    received = await exchange(handler, post(CHUNKED), b"2\r\nab\r\n", b"zz\r\n")
    assert received.endswith(b"\r\n\r\n2\r\nab\r\n")


# A ReceiveStream in every respect...


async def test_body_is_a_receive_stream(kind: Kind) -> None:
    async def handler(res: Response, req: Request) -> None:
        body: trio.abc.ReceiveStream = req.body
        for wrong, error in ((0, ValueError), (-1, ValueError), (1.5, TypeError)):
            with pytest.raises(error):
                await body.receive_some(wrong)  # type: ignore[arg-type]
        with assert_checkpoints():
            assert await body.receive_some(1) == b"h"
        with assert_checkpoints():
            assert await body.receive_some(2) == b"el"
        received = await body.receive_some(2)
        with trio.CancelScope() as scope:
            scope.cancel()
            await body.receive_some()
        assert scope.cancelled_caught
        while len(received) < 2:
            received += await body.receive_some()
        assert received == b"lo"
        with trio.move_on_after(0.01):
            await body.receive_some()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_closed, body)
            await wait_all_tasks_blocked(0.01)
            with pytest.raises(trio.BusyResourceError):
                await body.receive_some()
            await body.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await body.receive_some()
        await body.aclose()
        res.end("fine")

    async def expect_closed(body: trio.abc.ReceiveStream) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await body.receive_some()

    async with open_peer(app_with(handler), kind) as peer:
        await peer.send_all(post("Content-Length: 100000", body=b"hello"))
        received = without_date(await peer.receive_until_eof())
        assert received == ok(b"fine")


async def test_body_that_was_kept_reads_nothing_of_the_next_request(kind: Kind) -> None:
    kept: list[trio.abc.ReceiveStream] = []

    async def handler(res: Response, req: Request) -> None:
        kept.append(req.body)
        if len(kept) == 2:
            with pytest.raises(trio.ClosedResourceError):
                await kept[0].receive_some()
        res.end(await req.read())

    async with open_peer(app_with(handler), kind) as peer:
        await peer.send_all(
            post("Content-Length: 1", body=b"a")
            + post("Content-Length: 1", "Connection: close", body=b"b")
        )
        expected = ok(b"a") + ok(b"b", "Connection: close")
        assert without_date(await peer.receive_until_eof()) == expected


async def test_a_task_that_outlives_its_handler_takes_nothing_of_the_next_request(
    kind: Kind,
) -> None:
    errors: list[type[Exception]] = []
    peer: Peer

    async def read(body: trio.abc.ReceiveStream) -> None:
        try:
            await body.receive_some()
        except Exception as exc:  # noqa: BLE001 (which one is what the test is about)
            errors.append(type(exc))

    async def handler(res: Response, req: Request) -> None:
        if req.method == "POST":
            nursery.start_soon(read, req.body)
            await wait_all_tasks_blocked()
            peer.send_now(b"tail" + get("/", "Connection: close"))
            await trio.lowlevel.checkpoint()  # from which both tasks come back at once
        res.end(req.method)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for _ in range(10):  # which one is first is left to chance
                async with open_peer(app_with(handler), kind) as peer:
                    await peer.send_all(post("Content-Length: 4"))
                    expected = ok(b"POST") + ok(b"GET", "Connection: close")
                    assert without_date(await peer.receive_until_eof()) == expected
    assert set(errors) <= {trio.ClosedResourceError}


@pytest.mark.parametrize("size", [70_000, 1_000_000])
async def test_large_body_and_what_was_pipelined_behind_it(kind: Kind, size: int) -> None:
    async def handler(res: Response, req: Request) -> None:
        received = bytearray()
        async for data in req.body:
            received += data
        res.end("same" if bytes(received) == pattern(size) else "other")

    async with open_peer(app_with(handler), kind) as peer:
        one = post(f"Content-Length: {size}", body=pattern(size))
        await peer.send_all(one + one)
        await peer.send_all(post(f"Content-Length: {size}", "Connection: close") + pattern(size))
        expected = ok(b"same") * 2 + ok(b"same", "Connection: close")
        assert without_date(await peer.receive_until_eof()) == expected


async def test_echo_of_both_directions_at_once(kind: Kind) -> None:
    async def handler(res: Response, req: Request) -> None:
        async for data in req.body:
            assert (await res.send_chunk(data, 1_000_000)).ok

    async with open_peer(app_with(handler), kind) as peer, trio.open_nursery() as nursery:
        request = post("Content-Length: 1000000", "Connection: close", body=pattern(1_000_000))
        nursery.start_soon(peer.send_all, request)
        received = await peer.receive_until_eof()
        assert received.partition(b"\r\n\r\n")[2] == pattern(1_000_000)


# 100 Continue...


@pytest.mark.parametrize(
    ("handler_reads", "body_came", "expected"),
    [
        (True, False, b"HTTP/1.1 100 Continue\r\n\r\n" + ok(b"hello")),
        (True, True, ok(b"hello")),
        (False, False, ok(b"", "Connection: close")),
    ],
)
async def test_continue_is_sent_when_the_body_is_waited_for(
    handler_reads: bool, body_came: bool, expected: bytes, kind: Kind
) -> None:
    async def handler(res: Response, req: Request) -> None:
        res.end(await req.read() if handler_reads else b"")

    async with open_peer(app_with(handler), kind) as peer:
        await peer.send_all(
            post("Content-Length: 5", "Expect: 100-continue", body=b"hello" if body_came else b"")
        )
        received = b""
        if handler_reads and not body_came:
            received += await peer.receive_exactly(len(b"HTTP/1.1 100 Continue\r\n\r\n"))
            await peer.send_all(b"hello")
        received += await peer.receive_exactly(len(expected) - len(received) + 37)
        data = received.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
        prefix = received[: len(received) - len(data)]
        assert prefix + without_date(data) == expected


async def test_too_large_is_said_before_continue(kind: Kind) -> None:
    async with open_peer(app_with(read_all, config=Config(max_body_size=4)), kind) as peer:
        await peer.send_all(post("Content-Length: 5", "Expect: 100-continue"))
        received = without_date(await peer.receive_until_eof())
        assert received.startswith(b"HTTP/1.1 413 ")
        assert b"Connection: close\r\n" in received


# Whole readers...


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("", "ä".encode(), "ä"),
        ("text/plain; charset=ISO-8859-1", b"\xe4", "ä"),
        ('text/plain; Charset="utf-16"', "ä".encode("utf-16"), "ä"),
        ("text/plain", b"\xe4", 400),
        ("text/plain; charset=klingon", b"x", 415),
        ("text/plain; charset=base64", b"x", 415),
        ("text/plain; charset=punycode", b"b" * 1_000_000, 415),  # an hour, in Python's codec
        ("text/plain; charset=idna", b"b" * 1_000_000, 415),
        ("text/plain; charset=utf-7", b"+2AA-", 415),  # no Unicode: a lone surrogate
        ("text/plain; charset*=x''iso-8859-1", b"\xe4", 400),  # for mail only (RFC 2231)
    ],
)
async def test_text(content_type: str, body: bytes, expected: str | int) -> None:
    async def handler(res: Response, req: Request) -> None:
        res.end(await req.text())

    async with open_client(app_with(handler)) as client:
        headers = [("Content-Type", content_type)] if content_type else []
        response = await client.request("POST", "/", headers=headers, body=body)
        text = (await response.read()).decode()
        assert expected in (text, response.status_code)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"a": [1, null]}', 200),
        (b'\xef\xbb\xbf{"a": [1, null]}', 200),  # which may be ignored (RFC 8259 section 8.1)
        *[
            (data, 400)
            for data in (b"", b"{", b"\xff", b"[" * 99_999, b"NaN", b"[-Infinity]", b"Infinity")
        ],
        ('{"a": [1, null]}'.encode("utf-16"), 400),
    ],
)
async def test_json(body: bytes, status: int) -> None:
    async def handler(res: Response, req: Request) -> None:
        res.end(repr(await req.json()))

    async with open_client(app_with(handler)) as client:
        response = await client.request("POST", "/", body=body, headers=[("X", "y")])
        assert response.status_code == status
        if status == 200:
            assert await response.read() == b"{'a': [1, None]}"


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize(("size", "status"), [(10, 200), (11, 413)])
async def test_limit_of_whole_readers(
    framing: str, size: int, status: int, autojump_clock: object
) -> None:
    if framing == "length":
        data = post(f"Content-Length: {size}", body=bytes(size))
    else:
        data = post(CHUNKED, body=b"%x\r\n%b\r\n0\r\n\r\n" % (size, bytes(size)))
    received = await exchange(read_all, data, config=Config(max_body_size=10))
    assert received.startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize("limit", [-1, "5", 1.5])
async def test_a_limit_is_a_number_of_bytes(limit: int) -> None:
    async def handler(res: Response, req: Request) -> None:
        for read in (req.read, req.text, req.json, req.form):
            with pytest.raises(
                ValueError, match=f"must be a number of bytes, or None, not {limit!r}"
            ):
                await read(limit)
        res.end(await req.read())

    async with open_client(app_with(handler)) as client:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        response = await client.request("POST", "/", headers=headers, body=b"a=b")
        assert await response.read() == b"a=b"


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize(("limit", "status"), [(10, 200), (9, 413)])
async def test_limit_is_of_what_is_left(
    framing: str, limit: int, status: int, autojump_clock: object
) -> None:
    async def handler(res: Response, req: Request) -> None:
        begin = await req.body.receive_some(4)
        res.end(b"%b, %b" % (begin, await req.read(limit)))

    body = b"0123456789abcd"
    data = post("Content-Length: 14", body=body)
    if framing == "chunked":
        data = post(CHUNKED, body=b"e\r\n%b\r\n0\r\n\r\n" % body)
    received = await exchange(handler, data)
    assert received.startswith(b"HTTP/1.1 %d " % status)
    if status == 200:
        assert received.endswith(b"0123, 456789abcd")


async def test_handler_may_answer_itself(autojump_clock: object) -> None:
    async def handler(res: Response, req: Request) -> None:
        try:
            await req.json()
        except BadRequestError as exc:
            res.write_status(422).end(f"{exc.status}: {exc}")

    received = await exchange(handler, post("Content-Length: 1", body=b"{"))
    assert received.startswith(b"HTTP/1.1 422 ")
    assert b"400: the body is not JSON: " in received


@pytest.mark.parametrize(
    ("status", "text"), [(418, b"I'm a Teapot\n"), (499, b"499\n"), (599, b"599\n")]
)
async def test_handler_may_refuse_with_any_status(
    status: int, text: bytes, autojump_clock: object
) -> None:
    async def handler(res: Response, req: Request) -> None:
        raise BadRequestError("for the log", status)

    async with open_client(app_with(handler)) as client:
        response = await client.request("POST", "/")
        assert (response.status_code, await response.read()) == (status, text)
        assert (await client.request("POST", "/")).status_code == status  # on the same connection


@pytest.mark.parametrize("status", [-1, 200, 399, 600, 404.5, "404"])
def test_refusal_has_the_status_of_an_error(status: int) -> None:
    with pytest.raises(ValueError, match=f"from 400 to 599, not {status!r}$"):
        BadRequestError("no", status)


async def test_a_limit_that_is_refused_takes_nothing(autojump_clock: object) -> None:
    async def handler(res: Response, req: Request) -> None:
        await req.body.receive_some(4)
        with pytest.raises(BadRequestError, match="larger than 9 bytes"):
            await req.read(9)
        res.end(await req.read(10))

    received = await exchange(handler, post("Content-Length: 14", body=b"0123456789abcd"))
    assert received == ok(b"456789abcd")


async def test_a_closed_body_is_not_too_large(autojump_clock: object) -> None:
    async def handler(res: Response, req: Request) -> None:
        await req.body.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await req.read(9)
        res.end("closed")

    received = await exchange(handler, post("Content-Length: 14", body=b"0123456789abcd"))
    assert received == ok(b"closed")


class TeapotError(BadRequestError):
    def __init__(self, message: str) -> None:
        super().__init__(message, 418)


@pytest.mark.parametrize("error", [BadRequestError("no", 418), TeapotError("no")])
def test_refusals_can_be_copied_and_pickled(error: BadRequestError) -> None:
    for other in (copy(error), loads(dumps(error))):
        assert type(other) is type(error)
        assert (str(other), other.args, other.status) == ("no", ("no",), 418)


async def test_refusal_in_a_nursery_is_one(autojump_clock: object) -> None:
    async def handler(res: Response, req: Request) -> None:
        async with trio.open_nursery() as outer, trio.open_nursery() as nursery:
            outer.start_soon(trio.sleep_forever)
            nursery.start_soon(req.json)

    received = await exchange(handler, post("Content-Length: 1", body=b"{"))
    assert received.startswith(BAD)


# Forms...


async def answer_form(res: Response, req: Request) -> None:
    res.end(repr(list((await req.form()).items())))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", []),
        (b"a=1&a=2&b=", [("a", "1"), ("a", "2"), ("b", "")]),
        (b"%C3%A4=+%2B", [("ä", " +")]),
        (b"a=%ff", 400),
        (b"a=\xc3\xa4", [("a", "ä")]),  # as curl sends it, and URLs are parsed by WHATWG
        (b"a=\xe4", 400),
        (b"&".join([b"a=1"] * 10) + b"&", [("a", "1")] * 10),
        (b"&".join([b"a=1"] * 11), 413),
    ],
)
async def test_urlencoded_form(body: bytes, expected: list[tuple[str, str]] | int) -> None:
    async with open_client(app_with(answer_form, config=Config(max_form_fields=10))) as client:
        headers = [("Content-Type", "application/x-www-form-urlencoded")]
        response = await client.request("POST", "/", headers=headers, body=body)
        text = (await response.read()).decode()
        assert response.status_code == (expected if isinstance(expected, int) else 200)
        if response.status_code == 200:
            assert text == repr(expected)


async def test_a_cut_upload_does_not_look_whole_to_a_task_of_its_own() -> None:
    stored: list[object] = []

    async def store(body: trio.abc.ReceiveStream) -> None:
        try:
            while await body.receive_some(10):
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            stored.append("cut")
        else:
            stored.append("whole")

    async with trio.open_nursery() as background:

        async def upload(_: Response, req: Request) -> None:
            background.start_soon(store, req.body)
            await trio.sleep_forever()

        async with open_client(app_with(upload)) as client:
            await client.send_all(get("/", "Content-Length: 100000", method="POST") + bytes(5000))
            for _ in range(20):
                await trio.sleep(0)
            client.vanish()
            await wait_all_tasks_blocked()
    assert stored == ["cut"]


@pytest.mark.parametrize("other", ["read", "close"])
async def test_what_another_task_does_does_not_look_like_the_end(other: str) -> None:
    seen: list[object] = []

    async def handler(res: Response, req: Request) -> None:
        async def read() -> None:
            try:
                seen.append(await req.body.receive_some())
            except (trio.BusyResourceError, trio.ClosedResourceError) as exc:
                seen.append(type(exc))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            if other == "read":
                nursery.start_soon(read)
            else:
                await trio.sleep(0)
                nursery.start_soon(req.body.aclose)
        res.end(b"ok")

    for _ in range(20):  # as tasks run in any order
        seen.clear()
        async with open_client(app_with(handler)) as client:
            await client.send_all(get("/", "Content-Length: 10", method="POST") + b"hello")
            await wait_all_tasks_blocked()
        if other == "read":
            assert sorted(map(str, seen)) == [str(trio.BusyResourceError), "b'hello'"]
        else:
            assert seen in ([b"hello"], [trio.ClosedResourceError])


@pytest.mark.parametrize(
    ("size", "in_a_thread"), [(1000, False), (65_535, False), (65_536, True), (1024 * 1024, True)]
)
@pytest.mark.parametrize("ending", [b"%41", b"%ff"])
async def test_large_forms_are_decoded_by_a_thread(
    size: int, in_a_thread: bool, ending: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = threading.get_ident()
    threads = []

    def parse(*args: Any, **kwargs: Any) -> list[tuple[str, str]]:  # noqa: ANN401
        threads.append(threading.get_ident())
        return parse_qsl(*args, **kwargs)

    monkeypatch.setattr(_forms, "parse_qsl", parse)
    body = b"a=" + (size - 5) * b"x" + ending
    async with open_client(app_with(answer_form)) as client:
        headers = [("Content-Type", "application/x-www-form-urlencoded")]
        response = await client.request("POST", "/", headers=headers, body=body)
        text = (await response.read()).decode()
    if ending == b"%ff":
        assert response.status_code == 400
    else:
        assert text == repr([("a", (size - 5) * "x" + "A")])
    (thread,) = threads
    assert (thread != here) is in_a_thread


MULTIPART = (
    b'--b\r\nContent-Disposition: form-data; name="text"\r\n\r\n\xc3\xa4\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="../a \xc3\xa4.txt"\r\n'
    b"Content-Type: text/x\r\n\r\none\r\n-b\r\n--c\r\n"
    b'--b\r\nContent-Disposition: form-data; name="none"\r\n\r\n\r\n'
    b"--b--\r\n"
)
FORM_TYPE = "Content-Type: multipart/form-data; boundary=b"


async def test_multipart_form_split_at_every_position(autojump_clock: object) -> None:
    fields = [
        ("text", "ä"),
        ("file", FormFile("../a ä.txt", "text/x", b"one\r\n-b\r\n--c")),
        ("none", ""),
    ]
    data = post(FORM_TYPE, f"Content-Length: {len(MULTIPART)}", "Connection: close")
    for at in range(len(MULTIPART)):
        pieces = [piece for piece in (data + MULTIPART[:at], MULTIPART[at:]) if piece]
        received = await exchange(answer_form, *pieces)
        assert received == ok(repr(fields).encode(), "Connection: close")


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("multipart/form-data; boundary=b", MULTIPART[:-6], 400),
        ("multipart/form-data; boundary=b", b"", 400),
        ("multipart/form-data; boundary=other", MULTIPART, 400),
        ("multipart/form-data", MULTIPART, 400),
        ("multipart/mixed; boundary=b", MULTIPART, 415),
        ("text/plain", MULTIPART, 415),
        ("", MULTIPART, 415),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nx\r\n--b--\r\n", 400),
        ("multipart/form-data; boundary=b", MULTIPART[:-5] * 3 + b"b--\r\n", 413),
    ],
)
async def test_multipart_form_that_is_refused(content_type: str, body: bytes, status: int) -> None:
    async with open_client(app_with(answer_form, config=Config(max_form_fields=6))) as client:
        headers = [("Content-Type", content_type)] if content_type else []
        headers.append(("Content-Length", str(len(body))))
        response = await client.request("POST", "/", headers=headers, body=body)
        assert response.status_code == status


FIELD = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n'


@pytest.mark.parametrize(
    "body",
    [
        FIELD + b"--b--\r\n" + b"x" * 1000,
        b"x" * 1000 + b"\r\n" + FIELD + b"--b--\r\n",
        FIELD.replace(b'"a"', b'"%b"' % (b"n" * 1000)) + b"--b--\r\n",
        FIELD * 20 + b"--b--\r\n",
    ],
)
@pytest.mark.parametrize("says_so", [False, True])
async def test_all_of_a_form_counts(body: bytes, autojump_clock: object, *, says_so: bool) -> None:
    async def handler(res: Response, req: Request) -> None:
        res.end(f"{len(await req.form(max_bytes))}")

    framing = f"Content-Length: {len(body)}" if says_so else CHUNKED
    data = body if says_so else b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    max_bytes = len(body)
    received = await exchange(handler, post(FORM_TYPE, framing) + data)
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    max_bytes = len(body) - 1
    received = await exchange(handler, post(FORM_TYPE, framing) + data)
    assert received.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(("length", "status"), [(5, 200), (999, 400)])
async def test_a_part_that_says_it_is_larger_is_malformed_not_too_large(
    length: int, status: int, autojump_clock: object
) -> None:
    async def handler(res: Response, req: Request) -> None:
        res.end(repr([await part.read(5) async for part in req.parts()]))

    line = b"\r\nContent-Length: %d\r\n\r\nabcde" % length
    body = FIELD.replace(b"\r\n\r\n", line, 1) + b"--b--\r\n"
    received = await exchange(handler, post(FORM_TYPE, f"Content-Length: {len(body)}") + body)
    assert received.startswith(b"HTTP/1.1 %d " % status)


async def test_parts_stream_and_may_be_left(kind: Kind) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="skipped"\r\n\r\n'
        + pattern(300_000)
        + b"\r\n"
        b'--b\r\nContent-Disposition: form-data; name="begun"\r\n\r\n' + pattern(300_000) + b"\r\n"
        b'--b\r\nContent-Disposition: form-data; name="read"; filename="x"\r\nX: y\r\n\r\n'
        + pattern(300_000)
        + b"\r\n--b--\r\n"
    )

    async def handler(res: Response, req: Request) -> None:
        parts = []
        async for part in req.parts():
            if part.name == "begun":
                assert await part.body.receive_some(10) == pattern(10)
            if part.name == "read":
                assert (part.filename, part.headers["x"]) == ("x", "y")
                assert await part.read() == pattern(300_000)
                assert await part.body.receive_some() == b""
            parts.append(part)
        for part in parts[:2]:
            with pytest.raises(trio.ClosedResourceError):
                await part.body.receive_some()
        res.end(" ".join(part.name for part in parts))

    async with open_peer(app_with(handler), kind) as peer:
        await peer.send_all(
            post(FORM_TYPE, f"Content-Length: {len(body)}", "Connection: close", body=body)
        )
        expected = ok(b"skipped begun read", "Connection: close")
        assert without_date(await peer.receive_until_eof()) == expected


# The client goes...


async def by_stream(req: Request) -> object:
    return [data async for data in req.body]


async def by_read(req: Request) -> object:
    return await req.read()


async def by_form(req: Request) -> object:
    return await req.form()


@pytest.mark.parametrize("read", [by_stream, by_read, by_form])
@pytest.mark.parametrize("cancel", [True, False])
@pytest.mark.parametrize("how", ["eof", "reset"])
async def test_client_that_goes_in_mid_body(
    read: Callable[[Request], Awaitable[object]], cancel: bool, how: str, kind: Kind
) -> None:
    raised: list[str] = []

    async def handler(res: Response, req: Request) -> None:
        try:
            await read(req)
        except BaseException as exc:
            raised.append(type(exc).__name__)
            assert res.aborted
            raise

    async with open_peer(app_with(handler, cancel=cancel), kind) as peer:
        await peer.send_all(post(FORM_TYPE, "Content-Length: 100000", body=MULTIPART[:70]))
        await wait_all_tasks_blocked(0.01)
        await (peer.send_eof() if how == "eof" else peer.reset())
        with trio.fail_after(10):
            while not raised or peer.stats.active_responses:
                await trio.sleep(0.001)
        assert peer.stats.aborts == {AbortReason.CLIENT_CLOSED: 1}
    assert raised == ["Cancelled" if cancel else "ClientGoneError"]


async def test_early_end_of_a_client_that_still_reads_is_a_400(kind: Kind) -> None:
    for lines, body in (("Content-Length: 100", b"abc"), (CHUNKED, b"5\r\nabc")):
        app = app_with(read_all, config=Config(half_close="serve"))
        async with open_peer(app, kind) as peer:
            await peer.send_all(post(lines, body=body))
            await peer.send_eof()
            assert (await peer.receive_until_eof()).startswith(BAD)


async def test_unread_upload_does_not_hide_the_answer(kind: Kind) -> None:
    async def handler(res: Response, req: Request) -> None:
        assert len(await req.body.receive_some(10)) == 10
        res.write_status(403).end(pattern(100_000))

    async with open_peer(app_with(handler), kind) as peer, trio.open_nursery() as nursery:

        async def send() -> None:
            with suppress(trio.BrokenResourceError):  # it may be told to stop
                await peer.send_all(post("Content-Length: 3000000", body=bytes(3_000_000)))

        nursery.start_soon(send)
        received = await peer.receive_until_eof()
        assert received.startswith(b"HTTP/1.1 403 ")
        assert received.partition(b"\r\n\r\n")[2] == pattern(100_000)


async def test_unread_upload_does_not_hide_the_answer_where_closing_resets() -> None:
    async def handler(res: Response, req: Request) -> None:
        res.write_status(403).end("no")

    app = app_with(handler)
    client, server = await open_socket_pair()
    with trio.fail_after(20):
        async with client, trio.open_nursery() as nursery:
            nursery.start_soon(app.serve_stream, PlainStream(server))
            await client.send_all(post("Content-Length: 9000000", body=bytes(9_000_000)))
            received = bytearray()
            while not received.endswith(b"\r\n\r\nno"):
                data = await client.receive_some()
                assert data
                received += data
            assert received.startswith(b"HTTP/1.1 403 ")
            await client.aclose()


async def test_multipart_without_its_library_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_forms, "multipart", None)
    async with open_client(app_with(answer_form)) as client:
        headers = [("Content-Type", "multipart/form-data; boundary=b")]
        response = await client.request("POST", "/", headers=headers, body=MULTIPART)
        assert response.status_code == 500
    assert "pip install 'trio-stream[forms]'" in caplog.text
    caplog.clear()
