"""Connections that begin with the PROXY protocol, over real sockets."""

from __future__ import annotations

import logging
import os
import socket
import struct
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.harness import (
    client_context,
    connect,
    get,
    server_context,
    start_server,
    without_date,
)
from trio_stream import App, Config, Request, Response
from trio_stream._socket_transport import SocketTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trio.testing import MockClock

TRUSTED = ("127.0.0.1", "unix")
V1 = b"PROXY TCP4 198.51.100.7 192.0.2.1 4711 443\r\n"
V2 = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack("!H", 15) + bytes([198, 51, 100, 7, 192, 0, 2, 1])
)
V2 += struct.pack("!HH", 4711, 443) + b"\x04\0\0"
UNKNOWN = b"PROXY UNKNOWN\r\n"
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
UNSPECIFIED = b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0"
ON_UNIX_SOCKET = b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8" + bytes(216)
CLIENT = ("198.51.100.7", 4711)


def make_app(seen: list[Any], **limits: Any) -> App:  # noqa: ANN401
    fields: dict[str, Any] = {"proxy_protocol": True, "trusted_proxies": TRUSTED} | limits
    app = App(config=Config(**fields))

    @app.post("/")
    async def read(res: Response, req: Request) -> None:
        seen.append((req.client, req.scheme, await req.read(), type(res._transport)))
        res.end(b"")

    return app


@asynccontextmanager
async def serving(app: App, *, epoll: bool = True) -> AsyncIterator[int]:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            server = await start_server(nursery, app, epoll=epoll)
            yield server.port
            await wait_all_tasks_blocked()
            assert server.stats.open_connections == 0
            nursery.cancel_scope.cancel()


async def talk(stream: trio.SocketStream, *pieces: bytes) -> bytes:
    """Send pieces, each as a segment of its own, and receive until the server closes."""
    async with stream:
        for piece in pieces:
            await stream.send_all(piece)
            await wait_all_tasks_blocked()
        await stream.send_eof()
        return b"".join([data async for data in stream])


POST = get("/", "Content-Length: 4", method="POST") + b"body"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("epoll", [False, True])
@pytest.mark.parametrize(
    ("header", "client"), [(V1, CLIENT), (V2, CLIENT), (UNKNOWN, 0), (LOCAL, 0)]
)
async def test_the_client_is_who_the_proxy_says(epoll: bool, header: bytes, client: object) -> None:
    seen: list[Any] = []
    async with serving(make_app(seen, half_close="serve"), epoll=epoll) as port:
        for cut in (0, 1, 5, 6, 13, len(header) - 1, len(header), len(header) + 1):
            data = header + POST
            stream = await connect(port)
            own = stream.socket.getsockname()
            assert without_date(await talk(stream, data[:cut], data[cut:])) == OK
            told, scheme, body, transport = seen.pop()
            assert (told, scheme, body) == (client or own, "http", b"body")
            assert (transport is SocketTransport) is epoll
    assert seen == []


async def test_a_header_byte_by_byte() -> None:
    seen: list[Any] = []
    async with serving(make_app(seen, half_close="serve")) as port:
        pieces = [bytes([byte]) for byte in V2 + POST]
        assert without_date(await talk(await connect(port), *pieces)) == OK
    assert seen[0][:3] == (CLIENT, "http", b"body")


async def test_a_large_header_is_skipped() -> None:
    seen: list[Any] = []
    header = V2[:14] + struct.pack("!H", 65535) + V2[16:28].ljust(65535, b"\n")
    async with serving(make_app(seen, half_close="serve")) as port:
        stream = await connect(port)
        assert without_date(await talk(stream, header + POST)) == OK
    assert seen[0][:3] == (CLIENT, "http", b"body")


@pytest.mark.parametrize(
    ("data", "limits", "message"),
    [
        (POST, {}, "no header of the PROXY protocol"),
        (b"PROXY TCP4 x\r\n", {}, "malformed: b'PROXY TCP4 x'"),
        (b"PROXY TCP4 ", {}, "it ended before its header did"),
        (V1 + POST, {"trusted_proxies": ("192.0.2.1", "unix")}, "it is not a trusted proxy"),
    ],
)
async def test_others_are_closed(
    data: bytes, limits: dict[str, Any], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "trio_stream")
    seen: list[Any] = []
    async with serving(make_app(seen, **limits)) as port:
        stream = await connect(port)
        own = stream.socket.getsockname()
        with suppress(trio.BrokenResourceError):  # it was closed with bytes unread
            assert await talk(stream, data) == b""
    assert seen == []
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(f"{own}: closed without an answer: {message}")


async def test_a_probe_that_only_connects_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "trio_stream")
    async with serving(make_app([])) as port:
        assert await talk(await connect(port), b"") == b""
    (record,) = caplog.records
    assert record.levelname == "DEBUG"
    assert record.getMessage().endswith(
        ": gone before its PROXY header: it ended before its header began"
    )


async def test_a_header_that_does_not_come_in_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "trio_stream")
    app = make_app([], handshake_timeout=0.01)
    async with serving(app) as port, await connect(port) as stream:
        await stream.send_all(V1[:-1])
        assert await stream.receive_some() == b""
    assert "no header in time" in caplog.text


async def test_a_header_that_comes_while_the_server_is_busy(mock_clock: MockClock) -> None:
    app = make_app([], handshake_timeout=10)
    app.get("/", lambda res, _: res.end("hello"))
    async with trio.open_nursery() as nursery:
        server = await start_server(nursery, app)
        for _ in range(10):  # who runs first is left to chance
            async with await connect(server.port) as stream:
                await wait_all_tasks_blocked()
                assert os.write(stream.socket.fileno(), V1 + get("/"))
                mock_clock.jump(11)
                assert (await stream.receive_some()).endswith(b"hello")
        nursery.cancel_scope.cancel()


async def test_a_reset_in_a_header(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "trio_stream")
    async with serving(make_app([])) as port:
        stream = await connect(port)
        await stream.send_all(V1[:-1])
        await wait_all_tasks_blocked()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()
        await wait_all_tasks_blocked()
    assert "gone before its PROXY header: receiving failed" in caplog.text


async def test_a_proxy_on_a_unix_socket(tmp_path: Path) -> None:
    seen: list[Any] = []
    path = tmp_path / "socket"
    app = make_app(seen, half_close="serve")
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda **kw: app.serve(unix=path, **kw))
            for header in (V1, LOCAL):
                stream = await trio.open_unix_socket(path)
                assert without_date(await talk(stream, header + POST)) == OK
            nursery.cancel_scope.cancel()
    assert [client for client, *_ in seen] == [CLIENT, ""]


async def test_what_the_client_forwards_is_judged_by_its_address() -> None:
    seen: list[Any] = []
    forwarded = ("X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https")
    request = get("/", "Content-Length: 0", *forwarded, method="POST")
    through_proxy = V1.replace(b"198.51.100.7", b"127.0.0.1")
    async with serving(make_app(seen, half_close="serve")) as port:
        await talk(await connect(port), V1 + request)
        await talk(await connect(port), through_proxy + request)
    assert [seen_one[:2] for seen_one in seen] == [
        (CLIENT, "http"),
        (("203.0.113.9", 0), "https"),
    ]


@pytest.mark.parametrize("header", [UNKNOWN, LOCAL, UNSPECIFIED, ON_UNIX_SOCKET])
@pytest.mark.parametrize("way", ["tcp", "unix", "tls"])
async def test_a_client_that_is_not_told_is_not_believed(
    header: bytes, way: str, tmp_path: Path
) -> None:
    # HAProxy sends LOCAL and UNKNOWN for clients of its Unix sockets, too.
    seen: list[Any] = []
    forwarded = ("X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https")
    request = get("/", "Content-Length: 0", *forwarded, method="POST")
    app = make_app(seen, half_close="serve")
    where: dict[str, Any] = {"unix": tmp_path / "socket"} if way == "unix" else {"port": 0}
    if way == "tls":
        where["ssl_context"] = server_context()
    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(lambda **kw: app.serve(**where, **kw))
            if way == "unix":
                socket_stream = await trio.open_unix_socket(tmp_path / "socket")
            else:
                socket_stream = await connect(server.port)
            own = socket_stream.socket.getsockname()
            stream = socket_stream
            await stream.send_all(header)
            if way == "tls":
                stream = trio.SSLStream(stream, client_context(), server_hostname="localhost")
            async with stream:
                await stream.send_all(request)
                assert without_date(bytes(await stream.receive_some())) == OK
            nursery.cancel_scope.cancel()
    assert [seen_one[:2] for seen_one in seen] == [(own, "https" if way == "tls" else "http")]


async def test_a_server_that_ends_closes_what_waits_for_a_header() -> None:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            server = await start_server(nursery, make_app([]))
            stream = await connect(server.port)
            await stream.send_all(V2[:5])
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        async with stream:
            assert await stream.receive_some() == b""
