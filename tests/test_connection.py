"""The cycle of requests and responses on one connection, byte by byte."""

from __future__ import annotations

from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.harness import get, open_peer, without_date
from trio_stream import App, Config, Request, Response
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from tests.harness import Kind


def app_that_echoes_the_path(config: Config | None = None) -> App:
    app = App(config=config)
    app.any("/*", lambda res, req: res.end(req.path))
    return app


def answer(body: str, *fields: str) -> bytes:
    lines = ("HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *fields, "", body)
    return "\r\n".join(lines).encode("ascii")


def refusal(status: str) -> bytes:
    body = status[4:] + "\n"
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
    ).encode("ascii")


async def test_connection_is_kept(kind: Kind) -> None:
    async with open_peer(app_that_echoes_the_path(), kind) as peer:
        for path in ("/a", "/b", "/c"):
            await peer.send_all(get(path))
            received = await peer.receive_head() + await peer.receive_exactly(2)
            assert without_date(received) == answer(path)
        assert peer.stats.requests == 3
        assert (peer.stats.open_connections, peer.stats.active_responses) == (1, 0)


async def test_pipelined_requests_are_answered_in_order(kind: Kind) -> None:
    app = app_that_echoes_the_path()

    @app.get("/slow")
    async def slow(res: Response, _: Request) -> None:
        for _turn in range(10):
            await trio.lowlevel.checkpoint()
        res.end("slow")

    async with open_peer(app, kind) as peer:
        await peer.send_all(
            get("/slow") + get("/a") + get("/slow") + get("/b", "Connection: close")
        )
        assert without_date(await peer.receive_until_eof()) == (
            answer("slow") + answer("/a") + answer("slow") + answer("/b", "Connection: close")
        )


async def test_pipelined_requests_let_other_tasks_run() -> None:
    order: list[str] = []
    app = App()

    @app.get("/")
    def handler(res: Response, _: Request) -> None:
        order.append("request")
        res.end()

    async with open_client(app) as client:

        async def other() -> None:
            for _turn in range(5):
                order.append("other")
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            await client.send_all(get("/") * 20)
            nursery.start_soon(other)
        assert order.index("request") < len(order) - 1 - order[::-1].index("other")


async def test_connection_close_is_honoured(kind: Kind) -> None:
    async with open_peer(app_that_echoes_the_path(), kind) as peer:
        await peer.send_all(get("/a", "Connection: close") + get("/b"))
        assert without_date(await peer.receive_until_eof()) == answer("/a", "Connection: close")


async def test_handler_may_close_the_connection(kind: Kind) -> None:
    app = App()

    @app.get("/")
    def handler(res: Response, _: Request) -> None:
        res.write_header("Connection", "close").end("bye")

    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/") * 2)
        assert without_date(await peer.receive_until_eof()) == (
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbye"
        )


@pytest.mark.parametrize("fields", [(), ("Connection: keep-alive",)])
async def test_http_1_0_client_is_answered_once(kind: Kind, fields: tuple[str, ...]) -> None:
    async with open_peer(app_that_echoes_the_path(), kind) as peer:
        await peer.send_all(get("/a", *fields, version="1.0") * 2)
        assert without_date(await peer.receive_until_eof()) == answer("/a", "Connection: close")


async def test_http_1_0_request_needs_no_host(kind: Kind) -> None:
    async with open_peer(app_that_echoes_the_path(), kind) as peer:
        await peer.send_all(b"GET /a HTTP/1.0\r\n\r\n")
        assert without_date(await peer.receive_until_eof()) == answer("/a", "Connection: close")


# Request bodies that nobody reads


@pytest.mark.parametrize("size", [1, 1000, 65536])
async def test_small_unread_body_is_discarded(kind: Kind, size: int) -> None:
    async with open_peer(app_that_echoes_the_path(), kind) as peer:
        await peer.send_all(get("/a", f"Content-Length: {size}", method="POST"))
        received = await peer.receive_head() + await peer.receive_exactly(2)
        await peer.send_all(bytes(size) + get("/b", "Connection: close"))
        received += await peer.receive_until_eof()
        assert without_date(received) == answer("/a") + answer("/b", "Connection: close")


@pytest.mark.parametrize("count", [1, 3000])
async def test_small_chunked_body_is_discarded(kind: Kind, count: int) -> None:
    async with open_peer(app_that_echoes_the_path(), kind) as peer:
        await peer.send_all(
            get("/a", "Transfer-Encoding: chunked", method="POST")
            + count * b"5\r\nhello\r\n"
            + b"0\r\n\r\n"
            + get("/b", "Connection: close")
        )
        assert without_date(await peer.receive_until_eof()) == (
            answer("/a") + answer("/b", "Connection: close")
        )


async def test_large_unread_body_closes_the_connection_after_the_answer(kind: Kind) -> None:
    async with open_peer(app_that_echoes_the_path(), kind) as peer:
        await peer.send_all(
            get("/a", "Content-Length: 65537", method="POST") + bytes(65537) + get("/b")
        )
        assert without_date(await peer.receive_until_eof()) == answer("/a", "Connection: close")


async def test_large_chunked_body_closes_the_connection(kind: Kind) -> None:
    config = Config(max_discarded_body=1000)
    async with open_peer(app_that_echoes_the_path(config), kind) as peer:
        await peer.send_all(
            get("/a", "Transfer-Encoding: chunked", method="POST")
            + b"3e9\r\n%b\r\n0\r\n\r\n" % bytes(1001)
            + get("/b")
        )
        # Nobody knew in time to say so.
        assert without_date(await peer.receive_until_eof()) == answer("/a")


async def test_client_that_waits_for_100_continue_is_closed(kind: Kind) -> None:
    async with open_peer(app_that_echoes_the_path(), kind) as peer:
        await peer.send_all(get("/a", "Content-Length: 5", "Expect: 100-continue", method="POST"))
        assert without_date(await peer.receive_until_eof()) == answer("/a", "Connection: close")


async def test_malformed_body_closes_the_connection(kind: Kind) -> None:
    async with open_peer(app_that_echoes_the_path(), kind) as peer:
        await peer.send_all(
            get("/a", "Transfer-Encoding: chunked", method="POST") + b"xyz\r\n" + get("/b")
        )
        assert without_date(await peer.receive_until_eof()) == answer("/a")


async def test_body_that_never_comes_closes_the_connection(autojump_clock: MockClock) -> None:
    async with open_client(app_that_echoes_the_path(Config(linger_timeout=3))) as client:
        await client.send_all(get("/a", "Content-Length: 5", method="POST"))
        assert without_date(await client.receive_some()) == answer("/a")
        start = trio.current_time()
        assert await client.receive_some() == b""
        assert trio.current_time() == start + 3


# Requests that are none


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", "400 Bad Request"),
        (b"GET / HTTP/1.1\r\n\r\n", "400 Bad Request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", "400 Bad Request"),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", "400 Bad Request"),
        (b"\x16\x03\x01\x00\xf4\x01\x00", "400 Bad Request"),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
            "501 Not Implemented",
        ),
        (b"GET / HTTP/1.1\r\nX: " + 40_000 * b"x", "431 Request Header Fields Too Large"),
    ],
)
async def test_malformed_request_is_refused_and_closed(
    kind: Kind, data: bytes, status: str
) -> None:
    async with open_peer(app_that_echoes_the_path(), kind) as peer:
        await peer.send_all(get("/a") + data)
        assert without_date(await peer.receive_until_eof()) == answer("/a") + refusal(status)
        await peer.send_eof()
        await wait_all_tasks_blocked()
        assert peer.stats.requests == 1
        assert peer.stats.open_connections == 0


async def test_unknown_path_and_method_are_answered_and_kept(kind: Kind) -> None:
    app = App()
    app.get("/known", lambda res, _: res.end())
    app.put("/known", lambda res, _: res.end())
    text = "Content-Type: text/plain; charset=utf-8\r\nContent-Length:"
    async with open_peer(app, kind) as peer:
        await peer.send_all(
            get("/unknown")
            + get("/known", method="DELETE")
            + get("/known", method="OPTIONS")
            + get("*", method="OPTIONS")
            + get("/unknown", "Connection: close", method="HEAD")
        )
        assert without_date(await peer.receive_until_eof()).decode() == (
            f"HTTP/1.1 404 Not Found\r\n{text} 10\r\n\r\nNot Found\n"
            "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET, HEAD, OPTIONS, PUT\r\n"
            f"{text} 19\r\n\r\nMethod Not Allowed\n"
            "HTTP/1.1 204 No Content\r\nAllow: GET, HEAD, OPTIONS, PUT\r\n\r\n"
            "HTTP/1.1 204 No Content\r\nAllow: GET, HEAD, OPTIONS, PUT\r\n\r\n"
            f"HTTP/1.1 404 Not Found\r\n{text} 10\r\nConnection: close\r\n\r\n"
        )


async def test_connect_is_answered_without_a_body_and_closed(kind: Kind) -> None:
    app = App()
    app.connect("/:authority", lambda res, req: res.end(req.params["authority"]))
    async with open_peer(app, kind) as peer:
        await peer.send_all(get("example.org:443", method="CONNECT") + b"tunnel")
        received = without_date(await peer.receive_until_eof())
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")
        assert received.endswith(b"\r\n\r\n")


async def test_connect_of_an_app_without_tunnels_is_refused(kind: Kind) -> None:
    async with open_peer(app_that_echoes_the_path(), kind) as peer:
        await peer.send_all(
            get("example.org:443", method="CONNECT") + get("/what-was-meant-for-the-tunnel")
        )
        received = without_date(await peer.receive_until_eof())
        assert received == (
            b"HTTP/1.1 501 Not Implemented\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"Content-Length: 16\r\nConnection: close\r\n\r\nNot Implemented\n"
        )


async def test_upgrade_that_nobody_speaks_is_ignored(kind: Kind) -> None:
    async with open_peer(app_that_echoes_the_path(), kind) as peer:
        await peer.send_all(
            get("/a", "Connection: upgrade", "Upgrade: websocket") + get("/b", "Connection: close")
        )
        assert without_date(await peer.receive_until_eof()) == (
            answer("/a") + answer("/b", "Connection: close")
        )


# Clients that come and go


@pytest.mark.parametrize("data", [b"", b"GET", b"GET / HTTP/1.1\r\nHost: x\r\n", b"\r"])
@pytest.mark.parametrize("how", ["FIN", "RST"])
async def test_client_that_leaves_before_its_request_is_complete(
    kind: Kind, data: bytes, how: str
) -> None:
    app = app_that_echoes_the_path()
    async with open_peer(app, kind) as peer:
        await peer.send_all(data)
        await wait_all_tasks_blocked()
        if how == "FIN":
            await peer.send_eof()
            await peer.receive_until_eof()
        else:
            await peer.reset()
        await wait_all_tasks_blocked()
        assert peer.stats.requests == 0
        assert peer.stats.open_connections == 0
        assert peer.stats.aborts == {}


async def test_client_that_goes_between_two_requests_leaves_nothing_behind(kind: Kind) -> None:
    async with open_peer(app_that_echoes_the_path(), kind) as peer:
        await peer.send_all(get("/a"))
        await peer.receive_head()
        await peer.receive_exactly(2)
        await peer.reset()
        await wait_all_tasks_blocked()
        assert peer.stats.open_connections == 0
        assert peer.stats.aborts == {}


# Context variables...

user = ContextVar("user", default="nobody")


def app_that_knows_its_user() -> App:
    app = App()

    @app.get("/:name")
    async def answer(res: Response, req: Request) -> None:
        before = user.get()
        user.set(req.params["name"])
        await trio.sleep(0)
        res.end(f"{before}, now {user.get()}")

    return app


async def test_context_variables_are_not_for_the_next_request(kind: Kind) -> None:
    token = user.set("somebody")  # what a server begins with, its handlers do as well
    try:
        async with open_peer(app_that_knows_its_user(), kind) as peer:
            for requests in (1, 3):
                await peer.send_all(get("/alice") * requests)
                for _ in range(requests):
                    await peer.receive_head()
                    assert await peer.receive_exactly(19) == b"somebody, now alice"
    finally:
        user.reset(token)


async def test_serving_a_stream_leaves_the_context_of_its_task() -> None:
    app = app_that_knows_its_user()

    @app.lifespan
    @asynccontextmanager
    async def know_the_user() -> AsyncIterator[None]:
        token = user.set("bob")
        yield
        user.reset(token)

    async def talk() -> None:
        async with ours:
            await ours.send_all(get("/alice") + get("/carol", "Connection: close"))
            received = b"".join([data async for data in ours])
        assert received.count(b"\r\n\r\nbob, now ") == 2

    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk)
        token = user.set("dave")
        await app.serve_stream(theirs)
        assert user.get() == "dave"
        user.reset(token)
