"""`trio_stream.testing` as those use it who test their own handlers."""

from __future__ import annotations

import inspect
import re
import textwrap
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

import h11
import pytest
import trio
import trio.testing
from multidict import CIMultiDictProxy

from trio_stream import AbortReason, App, Config, Request, Response, testing
from trio_stream.testing import Connect, open_client, open_clients

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio.testing import MockClock

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
BODY = bytes(range(256)) * 10
HEAD_SIZE = len(
    "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 2560\r\n\r\n"
)
WHOLE = HEAD_SIZE + len(BODY)


async def send_body(res: Response, req: Request) -> None:
    await res.send_chunk(BODY, len(BODY))


def make_app(handler: Callable[[Response, Request], object], config: Config | None = None) -> App:
    app = App(config=config)
    app.any("/*", handler)
    return app


def count_tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def test_example_in_the_documentation(autojump_clock: MockClock) -> None:
    assert testing.__doc__ is not None
    (code,) = re.findall(r"::\n\n((?:    .*\n|\n)+)\n\w", testing.__doc__)
    offsets = []

    async def song(res: Response, req: Request) -> None:
        res.on_aborted(lambda res: offsets.append(res.get_write_offset()))
        await send_body(res, req)

    app = App()
    app.get("/song.mp3", song)
    names: dict[str, Any] = {
        "AbortReason": AbortReason,
        "app": app,
        "open_client": open_client,
        "trio": trio,
    }
    exec(compile(textwrap.dedent(code), "example", "exec"), names)
    await names["test_download_is_cancelled"](autojump_clock)
    # The head has been received, and what came with it.
    assert offsets == [2 * 1000 - HEAD_SIZE]


# The window...


@pytest.mark.parametrize(
    "window",
    [0, 1, HEAD_SIZE - 1, HEAD_SIZE, HEAD_SIZE + 1, 1000, WHOLE - 1, WHOLE, WHOLE + 1, 10**9],
)
async def test_window_is_exact(window: int) -> None:
    responses: list[Response] = []

    async def handler(res: Response, req: Request) -> None:
        responses.append(res)
        await send_body(res, req)

    async with open_client(make_app(handler), window=window) as client:
        assert client.window == window
        assert client.unread == 0
        await client.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        (response,) = responses
        assert client.unread == min(window, WHOLE)
        assert response.get_write_offset() == max(0, min(window, WHOLE) - HEAD_SIZE)
        received = b""
        while window and len(received) < WHOLE:
            max_bytes = 1 + len(received) % 700
            unread = client.unread
            data = await client.receive_some(max_bytes)
            assert len(data) == min(max_bytes, unread)
            received += data
            await trio.testing.wait_all_tasks_blocked()
            assert client.unread == min(window, WHOLE - len(received))
            assert response.get_write_offset() == max(0, len(received) + client.unread - HEAD_SIZE)
        assert received[HEAD_SIZE:] == (BODY if window else b"")


@pytest.mark.parametrize("most", [0, -1])
async def test_nothing_is_no_number_of_bytes(most: int) -> None:
    async with open_client(App()) as client:
        with pytest.raises(ValueError, match=f"max_bytes must be at least 1, not {most}"):
            await client.receive_some(most)


async def test_window_of_the_default() -> None:
    async def handler(res: Response, req: Request) -> None:
        await res.send_chunk(bytes(10**6), 10**6)

    async with open_client(make_app(handler)) as client:
        assert client.window == 64 * 1024
        await client.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        assert client.unread == 64 * 1024


async def test_window_can_be_changed() -> None:
    async with open_client(make_app(send_body), window=0) as client:
        await client.send_all(GET)
        received = b""
        for window, unread in [(10, 10), (500, 500), (500, 500), (200, 500), (0, 500)]:
            client.window = window
            assert client.window == window
            await trio.testing.wait_all_tasks_blocked()
            assert client.unread == unread
        # A window that has shrunk takes nothing back, and lets nothing pass until there is room.
        client.window = 200
        for take, unread in [(100, 400), (200, 200), (1, 200), (200, 200), (50, 200)]:
            received += await client.receive_some(take)
            await trio.testing.wait_all_tasks_blocked()
            assert client.unread == unread
        client.window = 10**6
        await trio.testing.wait_all_tasks_blocked()
        received += await client.receive_some()
        assert received[HEAD_SIZE:] == BODY
        assert client.unread == 0


async def test_window_holds_the_client_of_a_callback_handler() -> None:
    offsets: list[int] = []

    def handler(res: Response, req: Request) -> None:
        def go_on(res: Response, offset: int) -> bool:
            offsets.append(offset)
            return res.try_end(BODY[offset:], len(BODY)).ok

        res.on_writable(go_on)
        res.try_end(BODY, len(BODY))

    async with open_client(make_app(handler), window=HEAD_SIZE + 1000) as client:
        response = await client.get("/")
        received = b""
        while len(received) < len(BODY):
            received += await response.receive_some(700)
    assert received == BODY
    assert offsets[0] == 1000
    assert offsets == sorted(set(offsets))


# Requests and responses...


async def test_get() -> None:
    def handler(res: Response, req: Request) -> None:
        res.write_header("X-A", "1").write_header("Set-Cookie", "a").write_header("set-cookie", "b")
        res.write_status(404).end(f"{req.method} {req.target} {dict(req.headers)}")

    async with open_client(make_app(handler)) as client:
        response = await client.get("/a?b")
        assert response.status_code == 404
        assert isinstance(response.headers, CIMultiDictProxy)
        assert response.headers["x-a"] == "1"
        assert response.headers.getall("SET-COOKIE") == ["a", "b"]
        assert next(iter(response.headers)) == "Date"
        assert await response.read() == b"GET /a?b {'Host': 'memory'}"


@pytest.mark.parametrize(
    ("method", "headers", "body", "seen"),
    [
        ("GET", [], b"", []),
        ("DELETE", [("X", "1"), ("x", "2")], b"", [("X", "1"), ("x", "2")]),
        ("POST", [], b"abc", [("Content-Length", "3")]),
        ("PUT", [("X", "1")], bytes(50_000), [("X", "1"), ("Content-Length", "50000")]),
        ("PATCH", [("Content-Length", "3")], b"abc", [("Content-Length", "3")]),
    ],
)
async def test_request(
    method: str, headers: list[tuple[str, str]], body: bytes, seen: list[tuple[str, str]]
) -> None:
    requests: list[tuple[str, list[tuple[str, str]]]] = []

    def handler(res: Response, req: Request) -> None:
        requests.append((req.method, list(req.headers.items())))
        res.end("hello")

    async with open_client(make_app(handler)) as client:
        for _ in range(3):
            response = await client.request(method, "/", headers=headers, body=body)
            assert await response.read() == b"hello"
        assert client.stats.requests == 3
        assert client.stats.open_connections == 1
        assert client.stats.body_bytes_sent == 15
    assert requests == 3 * [(method, [("Host", "memory"), *seen])]


@pytest.mark.parametrize(
    "headers", [[("Host", "example.org")], [("host", "x"), ("Transfer-Encoding", "chunked")]]
)
async def test_request_with_fields_of_its_own(headers: list[tuple[str, str]]) -> None:
    seen: list[tuple[str, str]] = []

    def handler(res: Response, req: Request) -> None:
        seen.extend(req.headers.items())
        res.end_without_body()

    async with open_client(make_app(handler)) as client:
        for _ in range(2):
            response = await client.request("POST", "/", headers=headers, body=b"abc")
            assert await response.read() == b""
    assert seen == 2 * [*headers, *([] if len(headers) == 2 else [("Content-Length", "3")])]


@pytest.mark.parametrize(
    ("method", "status", "body"),
    [("GET", 200, b"hello"), ("HEAD", 200, b""), ("GET", 204, b""), ("GET", 304, b"")],
)
async def test_keep_alive(method: str, status: int, body: bytes) -> None:
    def handler(res: Response, req: Request) -> None:
        res.write_status(status).end("hello")

    async with open_client(make_app(handler)) as client:
        for number in range(10):
            response = await client.request(method, f"/{number}")
            assert response.status_code == status
            assert await response.read() == body
        assert client.stats.requests == 10


async def test_body_by_pieces() -> None:
    async with open_client(make_app(send_body), window=HEAD_SIZE + 100) as client:
        response = await client.get("/")
        received = await response.receive_some()
        assert received == BODY[: len(received)]
        while data := await response.receive_some(7):
            # What has come with the head is all handed out at once.
            assert len(data) <= 7 or received == b""
            received += data
        assert received == BODY
        assert await (await client.get("/")).read() == BODY


async def test_the_end_of_the_body_stays_the_end(autojump_clock: MockClock) -> None:
    async with open_client(make_app(send_body)) as client:
        response = await client.get("/")
        assert await response.read() == BODY
        with trio.fail_after(10):
            assert await response.receive_some() == b""
            assert await response.read() == b""


async def test_truncated_body() -> None:
    async def handler(res: Response, req: Request) -> None:
        await res.send_chunk(b"hello", 10)

    async with open_client(make_app(handler)) as client:
        response = await client.get("/")
        assert await response.receive_some() == b"hello"
        with pytest.raises(h11.RemoteProtocolError):
            await response.receive_some()
    async with open_client(make_app(handler)) as client:
        response = await client.get("/")
        with pytest.raises(h11.RemoteProtocolError):
            await response.read()
        assert client.stats.aborts == {AbortReason.INCOMPLETE: 1}


async def test_no_response_at_all() -> None:
    def handler(res: Response, req: Request) -> None:
        res.cancel_scope.cancel()
        res.on_aborted(lambda res: None)  # it is still to answer

    async with open_client(make_app(handler)) as client:
        with pytest.raises(h11.RemoteProtocolError):
            await client.get("/")


# The connection...


async def test_raw_bytes() -> None:
    async with open_client(make_app(send_body)) as client:
        for byte in GET:
            await client.send_all(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
            assert client.unread == (WHOLE if byte == GET[-1] and client.stats.requests else 0)
        received = await client.receive_some(10)
        assert received == b"HTTP/1.1 2"
        received += await client.receive_some()
        assert len(received) == WHOLE
        assert received.endswith(b"\r\n\r\n" + BODY)


async def test_methods_are_checkpoints(autojump_clock: MockClock) -> None:
    async with open_client(make_app(send_body)) as client:
        with trio.testing.assert_checkpoints():
            await client.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        with trio.testing.assert_checkpoints():
            await client.receive_some()
        for call in (client.receive_some, lambda: client.send_all(b"x"), lambda: client.get("/")):
            with trio.CancelScope() as scope:
                scope.cancel()
                await call()
            assert scope.cancelled_caught
        with trio.move_on_after(5) as scope:
            await client.receive_some()
        assert scope.cancelled_caught
        with trio.testing.assert_no_checkpoints():
            client.send_eof()
            client.vanish()


async def test_responses_are_read_to_their_end() -> None:
    async with open_client(make_app(send_body)) as client:
        response = await client.get("/")
        with pytest.raises(RuntimeError, match=r"^read the last response to its end before the "):
            await client.get("/")
        assert await response.read() == BODY
        assert await (await client.get("/")).read() == BODY


async def test_server_closes(autojump_clock: MockClock) -> None:
    async def handler(res: Response, req: Request) -> None:
        await send_body(res, req)
        await trio.sleep(1)

    async with open_client(make_app(handler)) as client:
        response = await client.request("GET", "/", headers=[("Connection", "close")])
        assert await response.read() == BODY
        for _ in range(2):
            assert await client.receive_some() == b""
        # The server has only ended its stream, and waits for the client to do so, too.
        assert trio.current_time() == 1
        await trio.testing.wait_all_tasks_blocked()
        assert client.stats.open_connections == 1
        with pytest.raises(h11.LocalProtocolError):
            await client.get("/")
        client.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        assert client.stats.open_connections == 0


async def test_sending_to_a_server_that_has_closed(autojump_clock: MockClock) -> None:
    async with open_client(make_app(send_body)) as client:
        await client.send_all(GET.replace(b"1.1", b"1.0"))
        await trio.sleep(100)
        assert client.stats.open_connections == 0
        with pytest.raises(trio.BrokenResourceError):
            await client.send_all(GET)


async def test_server_resets(autojump_clock: MockClock) -> None:
    async with open_client(make_app(send_body, Config(stall_timeout=5)), window=1000) as client:
        response = await client.get("/")
        await trio.sleep(6)
        assert client.stats.aborts == {AbortReason.STALLED: 1}
        with pytest.raises(trio.BrokenResourceError):
            await response.read()
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await client.send_all(b"x")


@pytest.mark.parametrize("half_close", ["abort", "serve"])
async def test_send_eof(half_close: Literal["abort", "serve"], autojump_clock: MockClock) -> None:
    ends: list[str] = []

    async def handler(res: Response, req: Request) -> None:
        try:
            await trio.sleep(10)
        except trio.Cancelled:
            ends.append("cancelled")
            raise
        await send_body(res, req)
        ends.append("sent")

    async with open_client(make_app(handler, Config(half_close=half_close))) as client:
        await client.send_all(GET)
        await trio.sleep(1)
        client.send_eof()
        client.send_eof()
        with pytest.raises(trio.ClosedResourceError):
            await client.send_all(b"x")
        received = b""
        while data := await client.receive_some():
            received += data
    assert ends == ["cancelled" if half_close == "abort" else "sent"]
    assert received[HEAD_SIZE:] == (b"" if half_close == "abort" else BODY)


async def test_send_eof_between_two_requests(autojump_clock: MockClock) -> None:
    async with open_client(make_app(send_body)) as client:
        await (await client.get("/")).read()
        client.send_eof()
        assert await client.receive_some() == b""
        await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() == 0
        assert client.stats.open_connections == 0
        assert client.stats.aborts == {}


@pytest.mark.parametrize("half_close", ["abort", "serve"])
async def test_vanish(half_close: Literal["abort", "serve"]) -> None:
    reasons: list[AbortReason | None] = []

    async def handler(res: Response, req: Request) -> None:
        res.on_aborted(lambda res: reasons.append(res.abort_reason))
        await send_body(res, req)

    app = make_app(handler, Config(half_close=half_close))
    async with open_client(app, window=1000) as client:
        await client.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        assert client.unread == 1000
        client.vanish()
        assert reasons == [AbortReason.CLIENT_CLOSED]
        client.vanish()
        client.send_eof()
        assert client.unread == 0
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()
        with pytest.raises(trio.ClosedResourceError):
            await client.send_all(b"x")
        await trio.testing.wait_all_tasks_blocked()
        assert client.stats.open_connections == 0
        assert client.stats.aborts == {AbortReason.CLIENT_CLOSED: 1}
    assert len(reasons) == 1


@pytest.mark.parametrize("cancel_on_abort", [True, False])
async def test_vanish_while_receiving(autojump_clock: MockClock, *, cancel_on_abort: bool) -> None:
    async def get() -> None:
        with pytest.raises(trio.BrokenResourceError):
            await client.get("/")

    app = App(cancel_on_abort=cancel_on_abort)
    app.get("/", lambda res, req: trio.sleep(100))
    async with open_client(app) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(get)
            await trio.testing.wait_all_tasks_blocked()
            client.vanish()
        assert trio.current_time() == 0


async def test_request_that_is_served_after_the_client_has_vanished() -> None:
    seen: list[str] = []

    def handler(res: Response, req: Request) -> None:
        if req.target == "/1":
            res.end("first")
            client.vanish()  # after this response, and before the next
        else:
            res.on_aborted(lambda res: seen.append(f"aborted: {res.abort_reason}"))
            seen.append(f"{res.aborted} {res.end('second')}")

    async with open_client(make_app(handler)) as client:
        await client.send_all(GET.replace(b"/ ", b"/1 ") + GET)
        await trio.testing.wait_all_tasks_blocked()
        assert client.stats.requests == 2
        assert client.stats.aborts == {AbortReason.CLIENT_CLOSED: 1}
    assert seen == [f"aborted: {AbortReason.CLIENT_CLOSED}", "False False"]


async def test_handler_that_is_called_after_the_client_has_vanished(
    autojump_clock: MockClock,
) -> None:
    ends: list[tuple[float, AbortReason | None]] = []

    async def handler(res: Response, req: Request) -> None:
        if req.target == "/1":
            res.end("first")
            client.vanish()  # after this response, and before the next
        else:
            res.on_aborted(lambda res: ends.append((trio.current_time(), res.abort_reason)))
            await trio.sleep(10)

    async with open_client(make_app(handler)) as client:
        await client.send_all(GET.replace(b"/ ", b"/1 ") + GET)
        await trio.sleep(1000)
        assert client.stats.open_connections == 0
    assert ends == [(0, AbortReason.CLIENT_CLOSED)]


async def test_on_writable_that_is_registered_late() -> None:
    offsets: list[int] = []

    async def handler(res: Response, req: Request) -> None:
        res.try_end(BODY, len(BODY))
        await event.wait()
        res.on_writable(lambda res, offset: offsets.append(offset))
        await trio.sleep_forever()

    event = trio.Event()
    async with open_client(make_app(handler), window=HEAD_SIZE + 1000) as client:
        await client.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        await client.receive_some()
        event.set()
        await trio.testing.wait_all_tasks_blocked()
    assert offsets == [1000]


# The block...


class OddError(Exception):
    pass


@pytest.mark.parametrize(
    "error", [OddError("odd"), ExceptionGroup("odd", [OddError("odd")]), trio.TooSlowError()]
)
async def test_exception_in_the_block_comes_out_bare(error: Exception) -> None:
    tasks = count_tasks()
    with pytest.raises(type(error)) as raised:
        async with open_client(make_app(send_body), window=10) as client:
            await client.send_all(GET)
            await trio.testing.wait_all_tasks_blocked()
            raise error
    assert raised.value is error
    assert client.stats.open_connections == 0
    assert count_tasks() == tasks


async def test_failing_and_skipping_come_out_bare() -> None:
    for outcome in (pytest.fail, pytest.skip):
        with pytest.raises(outcome.Exception):
            async with open_client(make_app(send_body)):
                outcome("odd")


async def test_exception_in_a_block_that_is_cancelled() -> None:
    with pytest.raises(OddError), trio.CancelScope() as scope:
        async with open_client(make_app(send_body)):
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            finally:
                raise OddError


@pytest.mark.parametrize("in_nursery", [False, True])
def test_what_ends_the_server_comes_out(*, in_nursery: bool) -> None:
    class OddExit(BaseException):  # as of `pytest.fail` in a handler
        pass

    def handler(res: Response, req: Request) -> None:
        raise OddExit

    async def main() -> None:
        async with open_client(make_app(handler)) as client:
            if in_nursery:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(client.get, "/")
            else:
                await client.get("/")

    with pytest.raises(BaseException) as error:
        trio.run(main)
    assert isinstance(error.value, OddExit) or error.group_contains(OddExit)
    assert not error.group_contains(trio.Cancelled)


@pytest.mark.parametrize("request_first", [True, False])
async def test_cancellation(autojump_clock: MockClock, *, request_first: bool) -> None:
    tasks = count_tasks()
    with trio.move_on_after(5) as scope:
        async with open_client(make_app(send_body), window=10) as client:
            if request_first:
                await client.send_all(GET)
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() == 5
    assert count_tasks() == tasks
    assert client.stats.open_connections == client.stats.active_responses == 0
    assert client.stats.aborts.total() == request_first


async def sleep(res: Response, req: Request) -> None:
    await trio.sleep_forever()


def promise(res: Response, req: Request) -> None:
    res.on_aborted(lambda res: None)


async def catch(res: Response, req: Request) -> None:
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(1)


@pytest.mark.parametrize("handler", [sleep, promise, catch, send_body])
@pytest.mark.parametrize("data", [b"", GET[:10], GET, GET + GET])
async def test_nothing_is_left_after_the_block(
    handler: Callable[[Response, Request], object], data: bytes, autojump_clock: MockClock
) -> None:
    tasks = count_tasks()
    async with open_client(make_app(handler), window=100) as client:
        if data:
            await client.send_all(data)
        await trio.testing.wait_all_tasks_blocked()
        assert client.stats.open_connections == 1
        assert client.stats.active_responses == (data >= GET)
    assert count_tasks() == tasks
    assert client.stats.open_connections == client.stats.active_responses == 0
    aborts = client.stats.aborts
    assert aborts == ({AbortReason.CLIENT_CLOSED: 1} if data >= GET else {})


async def test_handler_that_outlives_its_client_is_cancelled_with_the_block(
    autojump_clock: MockClock,
) -> None:
    app = App(cancel_on_abort=False)
    app.get("/", lambda res, req: trio.sleep(1000))
    tasks = count_tasks()
    async with open_client(app) as client:
        await client.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        client.vanish()
        await trio.sleep(10)
        assert client.stats.active_responses == 1
    assert trio.current_time() == 10
    assert client.stats.active_responses == 0
    assert count_tasks() == tasks


async def test_two_clients_at_once() -> None:
    seen: list[str] = []

    async def handler(res: Response, req: Request) -> None:
        seen.append(req.target)
        await send_body(res, req)

    app = make_app(handler)
    async with open_client(app, window=100) as first, open_client(app) as second:
        blocked = await first.get("/1")
        assert await (await second.get("/2")).read() == BODY
        assert (first.stats.requests, second.stats.requests) == (1, 1)
        assert await blocked.read() == BODY
    assert seen == ["/1", "/2"]


def test_everything_public_is_documented() -> None:
    for cls in (testing.Client, testing.ClientResponse):
        for name, member in vars(cls).items():
            if not name.startswith("_"):
                assert inspect.getdoc(member), f"{cls.__name__}.{name}"


async def test_many_clients_of_one_server() -> None:
    app = App(config=Config(trusted_proxies=("192.0.2.1",)))
    joined: list[Response] = []
    begun = 0

    @app.lifespan
    @asynccontextmanager
    async def count() -> AsyncIterator[None]:
        nonlocal begun
        begun += 1
        yield

    @app.get("/join")
    async def join(res: Response, req: Request) -> None:
        await res.send_chunk(f"hello, {req.client}\n".encode())
        joined.append(res)
        await res.wait_aborted()

    @app.post("/tell")
    async def tell(res: Response, req: Request) -> None:
        text = await req.read()
        for member in joined:
            await member.send_chunk(text)
        res.end()

    async with open_clients(app) as connect:
        alice, bob, carol = connect(), connect(address=("192.0.2.1", 7)), connect(window=300)
        first = await alice.get("/join")
        assert await first.receive_some() == b"hello, None\n"
        forwarded = [("X-Forwarded-For", "198.51.100.1")]
        second = await bob.request("GET", "/join", headers=forwarded)
        assert await second.receive_some() == b"hello, ('198.51.100.1', 0)\n"
        await (await carol.request("POST", "/tell", body=b"news")).read()
        assert await first.receive_some() == await second.receive_some() == b"news"
        assert alice.server is bob.server
        assert alice.stats.open_connections == 3
    assert begun == 1
    assert alice.stats.aborts == {AbortReason.CLIENT_CLOSED: 2}


async def test_handlers_have_the_context_of_the_server() -> None:
    name = ContextVar("name", default="nobody")
    app = App()
    app.get("/", lambda res, _: res.end(name.get()))
    told: list[bytes] = []

    async def visit(connect: Connect) -> None:
        name.set("the client")
        told.append(await (await connect().get("/")).read())

    name.set("the server")
    async with open_clients(app) as connect, trio.open_nursery() as nursery:
        nursery.start_soon(visit, connect)
    assert told == [b"the server"]
