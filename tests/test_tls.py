"""HTTPS: handshakes, who is told what of an end, and what a client shows of itself."""

from __future__ import annotations

import itertools
import logging
import re
import ssl
from contextlib import asynccontextmanager, suppress
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from tests.clients import open_descriptors, settled_descriptors, until
from tests.harness import (
    Peer,
    SocketPeer,
    TLSPeer,
    authority,
    client_context,
    connect,
    get,
    make_client_context,
    open_peer,
    pattern,
    server_context,
    start_server,
    without_date,
)
from tests.test_transport import CLOSED, WRITABLE, User, cancelled_after
from trio_stream import (
    AbortReason,
    App,
    Certificates,
    Config,
    Request,
    Response,
    Server,
    _tls,
    testing,
)
from trio_stream._readiness import HAVE_EPOLL
from trio_stream._routing import Router
from trio_stream._stream_transport import StreamTransport, open_transport
from trio_stream._timeouts import TimeoutWatch
from trio_stream._tls import TLSTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from trio.testing import MockClock

    from trio_stream._transport import Transport

T = TypeVar("T")

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
BODY = b"This port speaks HTTPS: use https:// in the address.\n"

needs_epoll = pytest.mark.skipif(not HAVE_EPOLL, reason="needs epoll")


class MemoryPeer(Peer):
    """A client at the other end of a memory stream."""

    def __init__(self, stream: trio.StapledStream[Any, Any]) -> None:
        self.server = Server(Router(), Config())  # which serves nobody
        self.stats = self.server.stats
        self.stream = stream

    async def send_all(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def receive_some(self, max_bytes: int = 65536) -> bytes:
        return bytes(await self.stream.receive_some(max_bytes))

    async def send_eof(self) -> None:
        await self.stream.send_stream.aclose()

    async def reset(self) -> None:
        await self.stream.aclose()


def hello_app(config: Config | None = None) -> App:
    app = App(config=config)
    app.get("/", lambda res, _: res.end("hello"))
    return app


@asynccontextmanager
async def serve_memory(app: App) -> AsyncIterator[MemoryPeer]:
    """The encrypted side of a connection in memory."""
    client, stream = memory_stream_pair()
    server = Server(app._router, app.config, ssl_context=server_context())
    async with server._running(), trio.open_nursery() as nursery:
        nursery.start_soon(server._serve_stream, stream)
        peer = MemoryPeer(client)
        peer.server = server
        yield peer


@asynccontextmanager
async def serve_tls(app: App, context: ssl.SSLContext | Certificates) -> AsyncIterator[Server]:
    async with trio.open_nursery() as nursery:
        with trio.fail_after(20):
            server = await start_server(nursery, app, ssl_context=context)
            yield server
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def connect_tls(server: Server, context: ssl.SSLContext) -> AsyncIterator[TLSPeer]:
    async with await connect(server.port) as stream:
        peer = TLSPeer(SocketPeer(stream, server), context)
        await peer.shake_hands()
        yield peer


# The handshake...


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_request_is_answered(version: ssl.TLSVersion) -> None:
    seen: list[tuple[str, object]] = []
    app = App()

    @app.get("/")
    def handler(res: Response, req: Request) -> None:
        seen.append((req.scheme, req.client_certificate))
        res.end("hello")

    context = make_client_context(lambda context: setattr(context, "maximum_version", version))
    async with serve_tls(app, server_context()) as server:
        assert server.scheme == "https"
        async with connect_tls(server, context) as peer:
            assert peer.ssl.version() == version.name.replace("_", ".").replace(
                "TLSv1.2", "TLSv1.2"
            )
            for _ in range(2):
                await peer.send_all(get("/"))
                assert without_date(await peer.receive_exactly(len(HELLO) + 37)) == HELLO
            await peer.send_all(get("/", "Connection: close"))
            assert (await peer.receive_until_eof()).endswith(b"hello")
            assert not peer.was_cut
    assert seen == [("https", None)] * 3


async def test_request_that_comes_with_the_end_of_the_handshake() -> None:
    async with serve_memory(hello_app()) as below:
        peer = TLSPeer(below, client_context())
        await peer._retry(peer.ssl.do_handshake)
        peer.ssl.write(get("/", "Connection: close"))
        await peer._flush()
        assert without_date(await peer.receive_until_eof()).endswith(b"close\r\n\r\nhello")
        assert not peer.was_cut
        await peer.send_eof()


@pytest.mark.parametrize("request_bytes", [get("/"), b"G", b"POST / HTTP/1.1\r\n" + bytes(100_000)])
async def test_http_without_tls_is_a_400_that_says_so(
    request_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "trio_stream")
    async with serve_tls(hello_app(), server_context()) as server:
        async with await connect(server.port) as stream:
            await stream.send_all(request_bytes)
            answer = await SocketPeer(stream, server).receive_until_eof()
        assert without_date(answer) == (
            b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(BODY), BODY)
        )
    (message,) = caplog.messages
    assert re.fullmatch(r"\('127\.0\.0\.1', \d+\): no TLS: .* HTTP without TLS", message)


@pytest.mark.parametrize(
    ("sent", "alert"),
    [
        (b"\x16\x03\x01\x00\x05hello", True),
        (b"\x80\x2e\x01\x00\x02" + bytes(50), True),
        (bytes(50), False),
        (b"\x16\x03\x01", False),
        (b"", False),
    ],
    ids=["hello", "SSL 2", "zeros", "beginning", "nothing"],
)
async def test_client_that_does_not_speak_tls(
    sent: bytes, alert: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "trio_stream")
    async with serve_memory(hello_app()) as peer:
        await peer.send_all(sent)
        await peer.send_eof()
        answer = await peer.receive_until_eof()
        assert answer.startswith(b"\x15\x03") == alert
        assert len(answer) <= 7
    (message,) = caplog.messages
    assert message.startswith("None: no TLS: ")
    assert "\n" not in message


@pytest.mark.parametrize("seconds", [0, 1])
async def test_handshake_has_less_time_in_a_shutdown(
    seconds: float, autojump_clock: MockClock
) -> None:
    """Whether it has begun before the shutdown, or was accepted just before it."""
    app = hello_app(Config(handshake_timeout=7, linger_timeout=2))
    async with serve_memory(app) as peer:
        if seconds:
            await trio.sleep(seconds)
        peer.server.shutdown()
        assert await peer.receive_until_eof() == b""
        assert trio.current_time() == seconds + 2


async def test_handshakes_count_as_connections_of_their_client() -> None:
    async with serve_tls(
        hello_app(Config(max_connections_per_client=1)), server_context()
    ) as server:
        async with await connect(server.port) as silent:
            await until(lambda: bool(server._clients._counts))
            async with await connect(server.port) as other:
                # Closed at once: a handshake would cost more than an answer is worth.
                assert await other.receive_some() == b""
            await silent.send_all(b"\x16")
        await until(lambda: not server._clients._counts)
        async with connect_tls(server, client_context()) as peer:
            await peer.send_all(get("/"))
            assert await peer.receive_some()


@pytest.mark.parametrize("sent", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00"])
async def test_handshake_has_its_time(
    sent: bytes, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "trio_stream")
    async with serve_memory(hello_app(Config(handshake_timeout=7))) as peer:
        start = trio.current_time()
        await peer.send_all(sent)
        assert await peer.receive_until_eof() == b""
        assert trio.current_time() == start + 7
    assert caplog.messages == ["None: no TLS handshake in time"]


async def test_client_that_vanishes_in_its_handshake(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "trio_stream")
    async with serve_tls(hello_app(), server_context()) as server:
        peer = SocketPeer(await connect(server.port), server)
        await peer.send_all(b"\x16\x03\x01")
        await wait_all_tasks_blocked()
        await peer.reset()
        async with connect_tls(server, client_context()) as other:
            await other.send_all(get("/"))
            assert await other.receive_some()
    messages = [r.getMessage() for r in caplog.records if r.name == "trio_stream"]
    assert [message.partition(": ")[2][:15] for message in messages] == ["gone before TLS"]


async def test_handshakes_do_not_wait_for_each_other() -> None:
    before = settled_descriptors()
    async with serve_tls(hello_app(), server_context()) as server:
        silent = [await connect(server.port) for _ in range(5)]
        async with connect_tls(server, client_context()) as peer:
            await peer.send_all(get("/"))
            assert await peer.receive_some()
        for stream in silent[:2]:
            await stream.aclose()
    for stream in silent:
        await stream.aclose()
    assert open_descriptors() == before


def test_context_for_clients_is_refused() -> None:
    context = client_context()
    with pytest.raises(ValueError, match="must be one for servers"):
        trio.run(lambda: hello_app().serve(port=0, ssl_context=context))


def test_what_is_no_context_is_refused() -> None:
    with pytest.raises(TypeError, match="must be Certificates, or an ssl"):
        hello_app().run(ssl_context="cert.pem")  # type: ignore[arg-type]


# Who the client is...


@pytest.mark.parametrize("wrapped", [False, True])
async def test_client_certificate_is_seen(wrapped: bool, tmp_path: Path) -> None:
    seen: list[object] = []
    app = App()

    @app.get("/")
    def handler(res: Response, req: Request) -> None:
        seen.append(req.client_certificate)
        res.end("hello")

    authority().cert_pem.write_to_path(tmp_path / "ca.pem")
    authority().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        tmp_path / "both.pem"
    )
    certificates = Certificates((tmp_path / "both.pem", None), ca_certs=tmp_path / "ca.pem")
    person = authority().issue_cert("me@example.org", common_name="me")
    context = make_client_context(person.configure_cert)
    if wrapped:  # by the user
        client, stream = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            tls = trio.SSLStream(stream, certificates.context, server_side=True)
            nursery.start_soon(app.serve_stream, tls)
            peer = TLSPeer(MemoryPeer(client), context)
            await peer.shake_hands()
            await peer.send_all(get("/", "Connection: close"))
            assert (await peer.receive_until_eof()).endswith(b"hello")
    else:
        async with (
            serve_tls(app, certificates) as server,
            connect_tls(server, context) as peer,
        ):
            await peer.send_all(get("/"))
            assert (await peer.receive_some()).endswith(b"hello")
    (certificate,) = seen
    assert isinstance(certificate, dict)
    assert certificate["subject"][-1] == (("commonName", "me"),)
    assert certificate["subjectAltName"] == (("email", "me@example.org"),)


@needs_epoll
async def test_client_without_the_certificate_that_is_asked_for(tmp_path: Path) -> None:
    authority().cert_pem.write_to_path(tmp_path / "ca.pem")
    authority().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        tmp_path / "both.pem"
    )
    certificates = Certificates((tmp_path / "both.pem", None), ca_certs=tmp_path / "ca.pem")
    async with serve_tls(hello_app(), certificates) as server:
        # In TLS 1.3 the client's side of the handshake is over before the server has looked.
        async with connect_tls(server, client_context()) as peer:
            await peer.send_all(get("/"))
            with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
                await peer.receive_some()
        assert server.stats.requests == 0


# How it ends...


def make_sleeper(config: Config | None = None) -> tuple[App, trio.Event, trio.Event]:
    """An app whose handler sleeps until it is aborted; and events for when it does and is."""
    asleep, ended = trio.Event(), trio.Event()
    app = App(config=config)

    @app.any("/")
    async def handler(res: Response, _: Request) -> None:
        res.on_aborted(lambda _: ended.set())
        asleep.set()
        await trio.sleep_forever()

    return app, asleep, ended


@pytest.mark.parametrize("unread", [0, 10_000])
async def test_close_notify_alone_is_an_end(unread: int) -> None:
    app, asleep, ended = make_sleeper()

    async with open_peer(app, "tls") as peer:
        assert isinstance(peer, TLSPeer)
        await peer.send_all(get("/", f"Content-Length: {unread}", method="POST") + bytes(unread))
        await asleep.wait()
        await peer.send_close_notify()
        with trio.fail_after(20):
            await ended.wait()
        await peer.receive_until_eof()
        assert peer.stats.aborts[AbortReason.CLIENT_CLOSED] == 1


@needs_epoll
async def test_end_behind_many_unread_bytes_is_seen_while_the_handler_sleeps() -> None:
    app, asleep, ended = make_sleeper(Config(stream_buffer_size=1000))

    async with open_peer(app, "tls") as peer:
        size = 60_000  # more than is read ahead, and less than the kernel takes
        await peer.send_all(get("/", f"Content-Length: {size}", method="POST") + bytes(size))
        await asleep.wait()
        await peer.send_eof()
        with trio.fail_after(20):
            await ended.wait()
        assert peer.stats.aborts[AbortReason.CLIENT_CLOSED] == 1


@needs_epoll
async def test_reset_after_an_end_is_seen_while_the_handler_sleeps() -> None:
    app, asleep, ended = make_sleeper(Config(half_close="serve"))

    async with open_peer(app, "tls") as peer:
        await peer.send_all(get("/"))
        await asleep.wait()
        await peer.send_eof()
        await wait_all_tasks_blocked()
        assert not ended.is_set()
        await peer.reset()
        with trio.fail_after(20):
            await ended.wait()


@pytest.mark.parametrize("half_close", ["serve", "abort"])
async def test_answer_to_a_client_that_ends_without_close_notify(half_close: str) -> None:
    app = App(config=Config(half_close=half_close))  # type: ignore[arg-type]
    app.get("/", lambda res, _: res.end(pattern(50_000)))
    async with open_peer(app, "tls") as peer:
        assert isinstance(peer, TLSPeer)
        await peer.send_all(get("/"))
        await peer.below.send_eof()
        answer = await peer.receive_until_eof()
    if half_close == "serve":
        assert answer.endswith(pattern(50_000))
        assert not peer.was_cut


@pytest.mark.parametrize("how", ["raise", "return"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_body_that_is_cut_does_not_look_whole(
    version: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        await res.send_chunk(b"some", None if how == "raise" else 100)
        if how == "raise":
            raise LookupError

    async with open_peer(app, "tls") as peer:
        assert isinstance(peer, TLSPeer)
        await peer.send_all(get("/", version=version))
        if how == "raise" and version == "1.0":  # where the end of the stream is that of the body
            with pytest.raises(trio.BrokenResourceError):
                await peer.receive_until_eof()
        else:
            answer = await peer.receive_until_eof()
            assert b"\r\n0\r\n" not in answer
    caplog.clear()


async def test_what_is_no_tls_after_the_handshake_ends_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app, asleep, ended = make_sleeper()

    async with open_peer(app, "tls") as peer:
        assert isinstance(peer, TLSPeer)
        await peer.send_all(get("/"))
        await asleep.wait()
        await peer.below.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
        with trio.fail_after(20):
            await ended.wait()
        with pytest.raises(ssl.SSLError, match="ALERT"):
            await peer.receive_until_eof()
        assert peer.stats.aborts[AbortReason.CLIENT_CLOSED] == 1


@pytest.mark.parametrize("size", [10, 1_000_000])
async def test_a_send_that_fails_without_a_hang_up_is_told(
    size: int, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons: list[AbortReason | None] = []
    app = App(cancel_on_abort=False)

    def fail(*_: object) -> int:
        monkeypatch.undo()  # once: only who has been told knows of it
        raise trio.BrokenResourceError

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        res.on_aborted(lambda res: reasons.append(res.abort_reason))
        monkeypatch.setattr(StreamTransport, "send_some", fail)
        await res.send_chunk(bytes(size), 2_000_000)
        await res.wait_aborted()

    with trio.fail_after(10):
        async with serve_memory(app) as below:
            peer = TLSPeer(below, client_context())
            await peer.shake_hands()
            await peer.send_all(get("/"))
            with suppress(trio.BrokenResourceError, ssl.SSLError):
                await peer.receive_some()
    assert reasons == [AbortReason.CLIENT_CLOSED]


# The transport alone...


@asynccontextmanager
async def open_transports(config: Config) -> AsyncIterator[tuple[TLSTransport, TLSPeer]]:
    """A transport after its handshake, over a memory stream that takes 16 KiB at a time."""
    client, stream = memory_stream_pair()
    stalls = TimeoutWatch(config.stall_timeout)
    taken = trio.Event()
    async with (
        trio.open_nursery() as nursery,
        open_transport(stream, config, stalls, None) as below,
    ):
        tls = TLSTransport(below, server_context(), config, stalls)
        peer = TLSPeer(MemoryPeer(client), client_context())
        nursery.start_soon(stalls.run)
        nursery.start_soon(tls.shake_hands)
        await peer.shake_hands()
        await wait_all_tasks_blocked()
        tls.start(lambda function: nursery.start_soon(function))

        async def block() -> None:
            await taken.wait()

        stream.send_stream.send_all_hook = block
        yield tls, peer
        stalls.stop(below)
        nursery.cancel_scope.cancel()


async def test_stall_wakes_who_waits_for_a_request(autojump_clock: MockClock) -> None:
    async with open_transports(Config(stall_timeout=60)) as (tls, _):
        start = trio.current_time()
        while tls.send_some(bytes(30_000)):
            pass
        before = tls.unsent()
        assert before > 64 * 1024
        with pytest.raises(trio.BrokenResourceError):
            await tls.receive_some()
        assert trio.current_time() == start + 60
        assert tls.hung_up
        with pytest.raises(trio.BrokenResourceError):
            tls.send_some(b"x")
        with pytest.raises(trio.BrokenResourceError):
            await tls.send_eof()


async def test_end_waits_for_a_client_that_takes_nothing(autojump_clock: MockClock) -> None:
    async with open_transports(Config(stall_timeout=60)) as (tls, _):
        start = trio.current_time()
        while tls.send_some(bytes(30_000)):
            pass
        await tls.finish()
        assert trio.current_time() == start + 60


async def test_nothing_is_sent_after_the_end(autojump_clock: MockClock) -> None:
    async with open_transports(Config()) as (tls, peer):
        await peer.send_all(b"unread")
        await wait_all_tasks_blocked()
        tls._below.send_eof = trio.lowlevel.checkpoint  # type: ignore[method-assign]
        await tls.send_eof()
        with pytest.raises(trio.BrokenResourceError, match="sending failed"):
            tls.send_some(b"x")


async def test_what_went_before_the_connection_broke_is_counted(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_transports(Config()) as (tls, _):
        sent: list[int] = []

        def send_some(*pieces: bytes) -> int:
            if sent:
                raise trio.BrokenResourceError
            sent.append(sum(map(len, pieces)))
            return sent[-1]

        monkeypatch.setattr(tls._below, "send_some", send_some)
        accepted = tls.send_some(bytes(300_000))
        assert 32 * 1024 <= accepted < 300_000
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError):
                tls.send_some(b"x")


RECORD = 5 + 16 * 1024 + 17  # its header, the content, its type and the tag (RFC 8446 section 5.2)


async def test_a_client_that_keeps_up_gets_more_at_once_than_one_that_does_not(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_transports(Config()) as (tls, _):
        sent: list[int] = []
        room = 10_000_000

        def send_some(*pieces: bytes) -> int:
            nonlocal room
            taken = min(sum(map(len, pieces)), room)
            room -= taken
            sent.append(taken)
            return taken

        def take_all() -> list[int]:
            taken = sent.copy()
            sent.clear()
            return taken

        monkeypatch.setattr(tls._below, "send_some", send_some)
        tls._flush()  # what is left of the handshake
        sent.clear()
        assert tls.send_some(bytes(64 * 1024)) == 64 * 1024
        assert take_all() == [2 * RECORD, 2 * RECORD]  # nothing is known of it yet
        assert tls.send_some(bytes(512 * 1024)) == 512 * 1024
        assert take_all() == [16 * RECORD, 16 * RECORD]
        room = 100_000
        assert tls.send_some(bytes(512 * 1024)) == 256 * 1024  # all that is encrypted
        assert take_all() == [100_000]
        room = 16 * RECORD - 100_000
        assert tls.send_some(bytes(64 * 1024)) == 32 * 1024
        assert take_all() == [16 * RECORD - 100_000, 0]
        room = 10_000_000
        assert tls.send_some(bytes(64 * 1024)) == 64 * 1024
        assert take_all() == [2 * RECORD, 2 * RECORD, 2 * RECORD]
        assert tls.send_some(bytes(64 * 1024)) == 64 * 1024
        assert take_all() == [4 * RECORD]


async def test_a_large_piece_leaves_turns_to_others(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_transports(Config()) as (tls, _):
        user = User()
        tls.user = user
        monkeypatch.setattr(tls._below, "send_some", lambda *pieces: sum(map(len, pieces)))
        data = bytes(3 << 20)
        accepted = tls.send_some(data)
        assert accepted == 1 << 20
        assert user.take_all() == []
        await wait_all_tasks_blocked()
        assert user.take_all() == [WRITABLE]
        assert tls.send_some(data[: 1 << 20]) == 1 << 20
        await wait_all_tasks_blocked()
        assert user.take_all() == []


@needs_epoll
async def test_half_a_record_is_a_request_that_has_begun() -> None:
    app = App()

    @app.get("/")
    def hello(res: Response, _: Request) -> None:
        res.end(b"hello")

    async with trio.open_nursery() as nursery:
        server = await start_server(nursery, app, ssl_context=server_context())
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        arrived, encrypted = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client_context().wrap_bio(arrived, encrypted, server_hostname="localhost")

        async def take(call: Callable[[], T]) -> T:
            while True:
                try:
                    return call()
                except ssl.SSLWantReadError:
                    if encrypted.pending:
                        await stream.send_all(encrypted.read())
                    arrived.write(await stream.receive_some())

        async with stream:
            await take(tls.do_handshake)
            await stream.send_all(encrypted.read())
            await until(lambda: bool(server._connections))
            (connection,) = server._connections

            def looks_idle(expected: bool) -> bool:
                return connection._is_idle is expected

            for ahead, begun in itertools.product((0, 1), (0, 1, 5, 30)):
                data = []
                for _ in range(ahead + 1):
                    tls.write(get("/"))
                    data.append(encrypted.read())
                *whole, last = data
                await stream.send_all(b"".join(whole) + last[:begun])
                for _ in whole:
                    assert without_date(await take(tls.read)) == HELLO
                await until(partial(looks_idle, not begun))
                await stream.send_all(last[begun:])
                assert without_date(await take(tls.read)) == HELLO
                await until(partial(looks_idle, True))
        nursery.cancel_scope.cancel()


@given(st.lists(st.integers(0, 600)), st.lists(st.integers(0, 3000)))
def test_records_are_followed_however_they_are_cut(lengths: list[int], cuts: list[int]) -> None:
    ends = {0}
    data = b""
    for length in lengths:
        data += b"\x17\x03\x03" + length.to_bytes(2, "big") + bytes(length)
        ends.add(len(data))
    tls = TLSTransport(
        cast(
            "Transport", SimpleNamespace(client=None, trusted_proxies=(), has_unread=lambda: False)
        ),
        server_context(),
        Config(),
        TimeoutWatch(60),
    )
    steps = sorted({min(cut, len(data)) for cut in cuts})
    for start, end in itertools.pairwise([0, *steps, len(data)]):
        tls._follow_records(data[start:end])
        assert tls.has_unread() is (end not in ends)


async def test_small_pieces_share_records(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_transports(Config()) as (tls, _):
        sent: list[int] = []

        def send_some(*pieces: bytes) -> int:
            sent.append(sum(map(len, pieces)))
            return sent[-1]

        monkeypatch.setattr(tls._below, "send_some", send_some)
        tls._flush()  # what is left of the handshake
        sent.clear()
        assert tls.send_some(*(bytes(1024) for _ in range(32))) == 32 * 1024
        assert sent == [2 * RECORD]
        assert tls.send_some(b"head", bytes(16 * 1024 + 1)) == 16 * 1024 + 5
        assert sent[1:] == [RECORD + 5 + 5 + 17]


async def test_user_is_told_again_when_asked_but_not_at_once(autojump_clock: MockClock) -> None:
    async with open_transports(Config()) as (tls, peer):
        tls.user = user = User()
        tls.notify_soon()
        assert user.take_all() == []
        await wait_all_tasks_blocked()
        assert user.take_all() == [WRITABLE]
        while tls.send_some(bytes(30_000)):
            pass
        tls.notify_soon()
        await wait_all_tasks_blocked()
        assert user.take_all() == []
        await peer.send_close_notify()
        assert await user.next() == CLOSED
        tls.notify_soon()
        assert await user.next() == CLOSED
        assert await tls.receive_some() == b""


async def test_what_is_read_ahead_has_a_bound(autojump_clock: MockClock) -> None:
    async with open_transports(Config(stream_buffer_size=1000)) as (tls, peer):
        for start in range(0, 100_000, 10_000):
            await peer.send_all(pattern(10_000, start))
        await peer.send_eof()
        await wait_all_tasks_blocked()
        assert 1000 <= len(tls._received) <= 1000 + 32 * 1024
        received = bytearray()
        while data := await tls.receive_some(3000):
            assert len(data) <= 3000
            received += data
        assert received == pattern(100_000)


@pytest.mark.parametrize("ticks", range(6))
@pytest.mark.parametrize("name", ["finish", "send_eof", "receive_some"])
async def test_cancelled_call_leaves_nothing(
    name: str, ticks: int, autojump_clock: MockClock
) -> None:
    async with open_transports(Config()) as (tls, peer):
        tls.send_some(bytes(300_000))
        await wait_all_tasks_blocked()
        await cancelled_after(ticks, getattr(tls, name))
        await wait_all_tasks_blocked()
        assert len(tls._change) == 0
        if name == "receive_some":
            await peer.send_all(b"for the next one")
            assert await tls.receive_some() == b"for the next one"


async def test_tickets_wait_for_the_first_answer(autojump_clock: MockClock) -> None:
    async with serve_memory(hello_app()) as below:
        peer = TLSPeer(below, client_context())
        await peer.shake_hands()
        with trio.move_on_after(5):
            raise AssertionError(await below.receive_some())
        await peer.send_all(get("/"))
        assert (await peer.receive_some()).endswith(b"hello")
        await peer.send_eof()


async def test_tickets_do_not_fill_a_small_buffer(autojump_clock: MockClock) -> None:
    """The handler would never run, as what is kept back waits for its answer."""
    async with serve_memory(hello_app(Config(stream_buffer_size=1))) as below:
        peer = TLSPeer(below, client_context())
        await peer.shake_hands()
        await peer.send_all(get("/"))
        received = b""
        with trio.fail_after(5):
            while not received.endswith(b"hello"):
                received += await peer.receive_some()
        await peer.send_eof()


# Who is timed...


class LateTransport(testing._MemoryTransport):
    """Takes bytes while there is any room, and tells of room at half: as a kernel does."""

    def check_room(self) -> None:
        if len(self.to_client) <= self.window // 2:
            super().check_room()


async def test_nobody_is_timed_once_the_response_is_complete(autojump_clock: MockClock) -> None:
    """What is encrypted of it may have gone before there was room to be told of."""
    app = App(config=Config(keep_alive_timeout=10_000))
    goes_on = trio.Event()
    responses: list[Response] = []

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        responses.append(res)
        await res.send_chunk(bytes(3000), 3100)
        await goes_on.wait()
        await res.send_chunk(bytes(100), 3100)

    server = app._make_server()
    async with server._running(), trio.open_nursery() as nursery:
        below = LateTransport(app.config, server._stalls, nursery, 1 << 20)
        nursery.start_soon(
            _tls.serve_tls,
            *(below, server_context(), app.config, server._stalls),
            *(server._handshake_limit, server._serve_transport),
        )
        arrived, leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = client_context().wrap_bio(arrived, leaving, server_hostname="localhost")

        async def do(step: Callable[[], object]) -> None:
            while True:
                try:
                    step()
                except ssl.SSLWantReadError:
                    below.send_to_server(leaving.read())
                    arrived.write(await below.receive_from_server(None))
                else:
                    below.send_to_server(leaving.read())
                    return

        await do(client.do_handshake)
        below.window = 3500
        await do(lambda: client.write(get("/")))
        await wait_all_tasks_blocked()
        assert len(below.to_client) == below.window  # and the end of a record waits
        assert server._stalls._deadlines
        for _ in range(1500):  # less than half
            await below.receive_from_server(1)
        goes_on.set()
        await wait_all_tasks_blocked()
        assert responses[0]._complete
        assert not server._stalls._deadlines
        await trio.sleep(3 * app.config.stall_timeout)
        assert not below._was_reset
        nursery.cancel_scope.cancel()
