"""One client interface over the four ways in which the server is reached.

`memory` is `trio_stream.testing`, `socket` a loopback connection watched by epoll, `stream` the
same without epoll, as on macOS and Windows, and `tls` one with epoll and TLS. All have little room,
so that back-pressure comes early.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import struct
import sys
from abc import ABC, abstractmethod
from array import array
from contextlib import asynccontextmanager, suppress
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar
from unittest.mock import patch

import h11
import trio
import trustme
from trio.testing import lockstep_stream_pair, wait_all_tasks_blocked

from trio_stream import App, Server, Stats, _server, _socket_transport
from trio_stream._readiness import HAVE_EPOLL
from trio_stream.testing import Client, open_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio_stream import Certificates

T = TypeVar("T")

Kind = Literal["memory", "socket", "stream", "tls"]
KINDS: tuple[Kind, ...] = ("memory", "socket", "stream", "tls")
KINDS_OF_FILES: tuple[Kind, ...] = ("memory", "socket", "stream")  # for TLS they are read, too


def get(target: str, *lines: str, method: str = "GET", version: str = "1.1") -> bytes:
    """The bytes of a request without a body, with further header lines."""
    head = (f"{method} {target} HTTP/{version}", "Host: x", *lines)
    return "".join(f"{line}\r\n" for line in (*head, "")).encode("ascii")


def without_date(data: bytes) -> bytes:
    """`data` with each `Date` field taken out; it must be there, and well-formed."""
    date = rb"Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n"
    plain, count = re.subn(date, b"", data)
    assert count == data.count(b"HTTP/1.1 "), data
    return plain


@lru_cache(maxsize=20)
def pattern(size: int, start: int = 0) -> bytes:
    """`size` bytes of a body in which every position can be told from its neighbours."""
    numbers = array("I", range(start // 4, (start + size) // 4 + 1))
    assert numbers.itemsize == 4
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers.tobytes()[start % 4 :][:size]


class Peer(ABC):
    """A raw client."""

    server: Server
    stats: Stats

    @abstractmethod
    async def send_all(self, data: bytes) -> None: ...

    def send_now(self, data: bytes) -> None:
        """Send a few bytes without letting others run."""
        raise NotImplementedError

    def send_last_now(self, data: bytes) -> None:
        """The same, and the end of the stream with them."""
        raise NotImplementedError

    @abstractmethod
    async def receive_some(self, max_bytes: int = 65536) -> bytes: ...

    @abstractmethod
    async def send_eof(self) -> None: ...

    @abstractmethod
    async def reset(self) -> None: ...

    async def receive_until_eof(self) -> bytes:
        received = bytearray()
        while data := await self.receive_some():
            received += data
        return bytes(received)

    async def receive_exactly(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            data = await self.receive_some(size - len(received))
            assert data, f"the server closed after {bytes(received)!r}"
            received += data
        return bytes(received)

    async def receive_head(self) -> bytes:
        received = b""
        while not received.endswith(b"\r\n\r\n"):
            data = await self.receive_some(1)
            assert data, f"the server closed after {received!r}"
            received += data
        return received


class MemoryPeer(Peer):
    def __init__(self, client: Client) -> None:
        self._client = client
        self.server = client.server
        self.stats = client.stats

    async def send_all(self, data: bytes) -> None:
        await self._client.send_all(data)

    def send_now(self, data: bytes) -> None:
        self._client._transport.send_to_server(data)

    def send_last_now(self, data: bytes) -> None:
        self.send_now(data)
        self._client.send_eof()

    async def receive_some(self, max_bytes: int = 65536) -> bytes:
        return await self._client.receive_some(max_bytes)

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self._client.send_eof()

    async def reset(self) -> None:
        await trio.lowlevel.checkpoint()
        self._client.vanish()


class SocketPeer(Peer):
    def __init__(self, stream: trio.SocketStream, server: Server) -> None:
        self._stream = stream
        self.server = server
        self.stats = server.stats

    async def send_all(self, data: bytes) -> None:
        await self._stream.send_all(data)

    def send_now(self, data: bytes) -> None:
        assert os.write(self._stream.socket.fileno(), data) == len(data)

    def send_last_now(self, data: bytes) -> None:
        self.send_now(data)
        self._stream.socket.shutdown(socket.SHUT_WR)

    async def receive_some(self, max_bytes: int = 65536) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def reset(self) -> None:
        self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self._stream.aclose()


class TLSPeer(Peer):
    """A client that ends its stream with close_notify, and can then still receive.

    Attributes:
      below: What it sends and receives, encrypted.
      ssl: The connection, as `ssl` sees it.
      was_cut: Whether the server has ended its stream without close_notify.
    """

    def __init__(self, below: Peer, context: ssl.SSLContext) -> None:
        self.below = below
        self.was_cut = False
        self.server = below.server
        self.stats = below.stats
        self._arrived = ssl.MemoryBIO()
        self._encrypted = ssl.MemoryBIO()
        self.ssl = context.wrap_bio(self._arrived, self._encrypted, server_hostname="localhost")

    async def _retry(self, function: Callable[..., T], *args: object) -> T:
        while True:
            try:
                return function(*args)
            except ssl.SSLWantReadError:
                await self._flush()
                if data := await self.below.receive_some():
                    self._arrived.write(data)
                else:
                    self._arrived.write_eof()

    async def _flush(self) -> None:
        if data := self._encrypted.read():
            await self.below.send_all(data)

    async def shake_hands(self) -> None:
        await self._retry(self.ssl.do_handshake)
        await self._flush()

    async def send_all(self, data: bytes) -> None:
        self.ssl.write(data)
        await self._flush()

    def send_now(self, data: bytes) -> None:
        self.ssl.write(data)
        self.below.send_now(self._encrypted.read())

    def send_last_now(self, data: bytes) -> None:
        self.ssl.write(data)
        with suppress(ssl.SSLError):
            self.ssl.unwrap()
        self.below.send_last_now(self._encrypted.read())

    async def receive_some(self, max_bytes: int = 65536) -> bytes:
        try:
            return await self._retry(self.ssl.read, max_bytes)
        except ssl.SSLZeroReturnError:  # close_notify, after ours
            return b""
        except ssl.SSLEOFError:
            self.was_cut = True
            return b""

    async def send_close_notify(self) -> None:
        with suppress(ssl.SSLError):
            self.ssl.unwrap()
        await self._flush()

    async def send_eof(self) -> None:
        await self.send_close_notify()
        await self.below.send_eof()

    async def reset(self) -> None:
        await self.below.reset()


class PlainStream(trio.abc.Stream):
    """A stream without `send_eof`, as TLS is one."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


async def connect(port: int, *, receive_buffer: int | None = None) -> trio.SocketStream:
    """Connect to 127.0.0.1, if asked with a receive buffer set before, as TCP's window needs it."""
    client = trio.socket.socket()
    try:
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await client.connect(("127.0.0.1", port))
        return trio.SocketStream(client)
    except BaseException:
        client.close()
        raise


@asynccontextmanager
async def open_peer(
    app: App, kind: Kind, *, window: int = 2000, receive_buffer: int = 8192
) -> AsyncIterator[Peer]:
    """Serve `app` and connect one client for the length of the block.

    The client's receive window is `window` in memory. On a socket it is what the kernel makes of
    `receive_buffer`: at 1024 its smallest, about 2 KiB, with which a large body takes its time. And
    the server's kernel keeps no more for a client that keeps up, which depends on the moment.
    """
    if kind == "memory":
        async with open_client(app, window=window) as client:
            yield MemoryPeer(client)
        return
    error: Exception | None = None
    with patch.object(_socket_transport, "_QUICK", -1):
        async with trio.open_nursery() as nursery:
            ssl_context = server_context() if kind == "tls" else None
            server = await start_server(
                nursery, app, epoll=kind != "stream", ssl_context=ssl_context
            )
            async with await connect(server.port, receive_buffer=receive_buffer) as stream:
                try:
                    peer = SocketPeer(stream, server)
                    if kind == "tls":
                        tls_peer = TLSPeer(peer, client_context())
                        await tls_peer.shake_hands()
                        yield tls_peer
                    else:
                        yield peer
                except Exception as exc:  # noqa: BLE001 (it is raised below, outside of the nursery)
                    error = exc
            nursery.cancel_scope.cancel()
    if error is not None:
        raise error


async def start_server(
    nursery: trio.Nursery,
    app: App,
    *,
    epoll: bool = True,
    ssl_context: ssl.SSLContext | Certificates | None = None,
) -> Server:
    """`nursery.start(app.serve, port=0)`, if asked as on a platform without epoll."""
    serve = partial(app.serve, port=0, ssl_context=ssl_context)
    with patch.object(_server, "HAVE_EPOLL", epoll and HAVE_EPOLL):
        server: Server = await nursery.start(serve)
    return server


@lru_cache
def authority() -> trustme.CA:
    return trustme.CA()


@lru_cache
def server_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority().issue_cert("localhost").configure_cert(context)
    return context


@lru_cache
def client_context() -> ssl.SSLContext:
    return make_client_context(lambda _: None)


def make_client_context(change: Callable[[ssl.SSLContext], object]) -> ssl.SSLContext:
    """One that trusts `authority`, and is changed."""
    context = ssl.create_default_context()
    authority().configure_trust(context)
    change(context)
    return context


@asynccontextmanager
async def open_stopped_client(app: App, taken: int) -> AsyncIterator[tuple[trio.abc.Stream, bytes]]:
    """Serve `app` over a plain stream to a client that has taken so much of `/`, and no more.

    Yields:
      The client's end, and what it has taken.
    """
    client, stream = lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.serve_stream, stream)
        await client.send_all(get("/"))
        received = b""
        while len(received) < taken:
            received += await client.receive_some(taken - len(received))
        await wait_all_tasks_blocked()
        yield client, received
        nursery.cancel_scope.cancel()


class Decoded(NamedTuple):
    """A response as h11 reads it.

    Attributes:
      chunks: The sizes in the framing of its body; empty if it is not chunked.
      is_whole: Whether its end was received.
    """

    status: int
    fields: list[tuple[bytes, bytes]]
    body: bytes
    chunks: list[int]
    trailers: list[tuple[bytes, bytes]]
    is_whole: bool


def decode(data: bytes, *, method: str = "GET", at_eof: bool = False) -> tuple[Decoded, bytes]:
    """The first response in `data`, and what follows it."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    if at_eof:
        client.receive_data(b"")
    head = client.next_event()
    assert isinstance(head, h11.Response), head
    body = bytearray()
    chunks: list[int] = []
    trailers: list[tuple[bytes, bytes]] = []
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
        if event.chunk_start or not chunks:
            chunks.append(0)
        chunks[-1] += len(event.data)
    is_whole = isinstance(event, h11.EndOfMessage)
    if isinstance(event, h11.EndOfMessage):
        trailers = list(event.headers.raw_items())
    is_chunked = (b"transfer-encoding", b"chunked") in list(head.headers)
    fields = [(name, value) for name, value in head.headers.raw_items() if name != b"Date"]
    decoded = Decoded(
        head.status_code, fields, bytes(body), chunks if is_chunked else [], trailers, is_whole
    )
    return decoded, client.trailing_data[0]
