"""Accepting: what is there, what there is room for, and what the system has enough for."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import socket
import struct
from math import inf
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.harness import connect, get, start_server, without_date
from trio_stream import App, Request, Response, _accept
from trio_stream._accept import ClientCounts, accept_connections

if TYPE_CHECKING:
    from collections.abc import Callable

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

CONNECTION = object()


class FakeListener:
    """Gives and raises what a test says, in the place of a listening socket."""

    def __init__(self, *results: object) -> None:
        self.results = list(results)
        self.accepted_at: list[float] = []

    def accept(self) -> tuple[socket.socket, object]:
        result = self.results.pop(0) if self.results else BlockingIOError()
        if isinstance(result, BaseException):
            raise result
        self.accepted_at.append(trio.current_time())
        left, right = socket.socketpair()
        right.close()
        return left, None


@pytest.fixture
def listen(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeListener]:
    """Has `accept_connections` accept from a `FakeListener`, which is always readable."""

    def make(*results: object) -> FakeListener:
        fake = FakeListener(*results)

        async def wait_readable(_: object) -> None:
            await trio.lowlevel.checkpoint()
            if not fake.results:
                await trio.sleep_forever()

        monkeypatch.setattr(socket.socket, "accept", lambda _: fake.accept())
        monkeypatch.setattr(trio.lowlevel, "wait_readable", wait_readable)
        return fake

    return make


def shortages(count: int) -> list[OSError]:
    numbers = [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS]
    return [OSError(number, os.strerror(number)) for number in (numbers * count)[:count]]


async def serve_nothing(stream: trio.SocketStream, _: object) -> None:
    await stream.aclose()


async def accept_for(seconds: float, room: float = inf) -> None:
    listener = trio.SocketListener(await open_socket())
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(seconds):
            await accept_connections(listener, serve_nothing, nursery, trio.CapacityLimiter(room))
    assert listener.socket.fileno() == -1


async def open_socket() -> trio.socket.SocketType:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    return listener.socket


# What the system says


async def test_shortage_is_waited_for(
    listen: Callable[..., FakeListener],
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake = listen(CONNECTION, *shortages(20), CONNECTION, *shortages(1), CONNECTION)
    await accept_for(10)
    assert fake.accepted_at == pytest.approx([0, 2, 2.1])
    # The second time it had not been over, as far as is known.
    assert [record.getMessage() for record in caplog.records] == [
        "no connection can be accepted for the moment: [Errno 24] Too many open files",
        "connections can be accepted again",
    ]
    caplog.clear()


async def test_each_shortage_is_logged(
    listen: Callable[..., FakeListener],
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    over = BlockingIOError()
    fake = listen(*shortages(1), CONNECTION, over, *shortages(2), CONNECTION)
    await accept_for(10)
    assert fake.accepted_at == pytest.approx([0.1, 0.3])
    assert len(caplog.records) == 4
    caplog.clear()


@pytest.mark.parametrize(
    "number", [errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EHOSTUNREACH]
)
async def test_connection_that_has_gone_is_passed_over(
    number: int,
    listen: Callable[..., FakeListener],
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake = listen(OSError(number, "gone"), CONNECTION, OSError(number, "gone"), CONNECTION)
    await accept_for(10)
    assert fake.accepted_at == [0, 0]
    assert caplog.records == []


@pytest.mark.parametrize("number", [errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EFAULT])
async def test_broken_listener_raises(
    number: int, listen: Callable[..., FakeListener], autojump_clock: MockClock
) -> None:
    listen(CONNECTION, OSError(number, "broken"))
    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="broken")):
        await accept_for(10)


async def test_others_get_their_turn_in_a_burst(
    listen: Callable[..., FakeListener], autojump_clock: MockClock
) -> None:
    fake = listen(*[CONNECTION] * 100)
    counts = []

    async def look() -> None:
        while len(fake.accepted_at) < 100:
            await trio.lowlevel.checkpoint()
            counts.append(len(fake.accepted_at))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await accept_for(10)
    # The others may come first in one round and last in the next.
    assert all(after - before <= 64 for before, after in itertools.pairwise(counts))
    assert set(counts) <= {0, 32, 64, 96, 100}


async def test_room_is_never_exceeded(
    listen: Callable[..., FakeListener], autojump_clock: MockClock
) -> None:
    fake = listen(*[CONNECTION] * 10)
    room = trio.CapacityLimiter(3)
    most = 0

    async def serve(stream: trio.SocketStream, _: object) -> None:
        nonlocal most
        most = max(most, int(room.borrowed_tokens))
        await trio.sleep(1)
        await stream.aclose()

    listener = trio.SocketListener(await open_socket())
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(10):
            await accept_connections(listener, serve, nursery, room)
    assert fake.accepted_at == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    assert most == 3
    assert room.borrowed_tokens == 0


# Real sockets


def hello_app() -> App:
    app = App()
    app.get("/", lambda res, _: res.end("hello"))
    return app


async def ask(stream: trio.SocketStream) -> bytes:
    await stream.send_all(get("/"))
    return without_date(bytes(await stream.receive_some()))


async def test_burst_is_served() -> None:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            server = await start_server(nursery, hello_app())
            streams = [await connect(server.port) for _ in range(50)]
            for stream in streams:
                assert await ask(stream) == HELLO
            for stream in streams:
                await stream.aclose()
            nursery.cancel_scope.cancel()


async def test_a_default_timeout_of_sockets_is_not_for_the_server() -> None:
    socket.setdefaulttimeout(0.05)  # as programs do for urllib and the like
    try:
        await test_burst_is_served()
    finally:
        socket.setdefaulttimeout(None)


@pytest.mark.parametrize("epoll", [True, False])
async def test_a_client_that_was_reset_before_it_was_accepted_has_an_address(
    epoll: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients: list[object] = []
    app = App()

    @app.get("/")
    def handler(res: Response, req: Request) -> None:
        clients.append(req.client)
        res.end()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            server = await start_server(nursery, app, epoll=epoll)
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                address = client.getsockname()
                client.sendall(get("/"))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            while not clients:  # nothing was accepted before, as nobody else has run
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    assert clients == [address]


async def test_connections_go_on_while_there_are_no_descriptors(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_accept, "_SHORTAGE_DELAY", 0.01)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            server = await start_server(nursery, hello_app())
            old = await connect(server.port)
            assert await ask(old) == HELLO
            new = socket.socket()
            new.setblocking(False)
            waiting = trio.SocketStream(trio.socket.from_stdlib_socket(new))
            # So that the next descriptor is not to be had.
            resource.setrlimit(resource.RLIMIT_NOFILE, (new.fileno() + 1, hard))
            try:
                spare = []
                with pytest.raises(OSError, match="Too many open files"):
                    while True:  # those below, if there are any
                        spare.append(os.dup(0))
                await waiting.socket.connect(("127.0.0.1", server.port))
                while not caplog.records:
                    assert await ask(old) == HELLO
                assert await ask(old) == HELLO
                assert server.stats.open_connections == 1
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for descriptor in spare:
                    os.close(descriptor)
            assert await ask(waiting) == HELLO
            assert [record.getMessage() for record in caplog.records] == [
                "no connection can be accepted for the moment: [Errno 24] Too many open files",
                "connections can be accepted again",
            ]
            caplog.clear()
            await old.aclose()
            await waiting.aclose()
            nursery.cancel_scope.cancel()


async def test_listeners_share_their_room_fairly() -> None:
    room = trio.CapacityLimiter(1)
    served = []
    go_on = trio.Semaphore(0)

    async def serve(stream: trio.SocketStream, _: object) -> None:
        served.append(stream.socket.getsockname())
        await go_on.acquire()
        await stream.aclose()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            listeners = [trio.SocketListener(await open_socket()) for _ in range(2)]
            addresses = [listener.socket.getsockname() for listener in listeners]
            for listener in listeners:
                nursery.start_soon(accept_connections, listener, serve, nursery, room)
            streams = [await connect(address[1]) for address in addresses * 2]
            while len(served) < 4:
                await wait_all_tasks_blocked(0.01)
                assert room.borrowed_tokens == 1
                go_on.release()
            for stream in streams:
                await stream.aclose()
            go_on.release()
            nursery.cancel_scope.cancel()
    assert sorted(served) == sorted(addresses * 2)


async def test_listener_that_somebody_closes_raises() -> None:
    with trio.fail_after(10):
        listener = trio.SocketListener(await open_socket())
        with pytest.RaisesGroup(trio.ClosedResourceError):
            async with trio.open_nursery() as nursery:
                room = trio.CapacityLimiter(inf)
                nursery.start_soon(accept_connections, listener, serve_nothing, nursery, room)
                await wait_all_tasks_blocked()
                await listener.aclose()


async def test_listener_that_does_not_listen_any_more_raises() -> None:
    with trio.fail_after(10):
        listener = trio.SocketListener(await open_socket())
        with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="Invalid argument")):
            async with trio.open_nursery() as nursery:
                room = trio.CapacityLimiter(inf)
                nursery.start_soon(accept_connections, listener, serve_nothing, nursery, room)
                await wait_all_tasks_blocked()
                listener.socket.shutdown(socket.SHUT_RDWR)


# Who has how many


def test_clients_are_counted_by_their_address() -> None:
    counts = ClientCounts(2)
    with (
        counts.counted(("127.0.0.1", 1)) as a,
        counts.counted(("::1", 1, 0, 0)) as b,
        counts.counted(("127.0.0.1", 2)) as c,
    ):
        assert (a, b, c) == (True, True, True)
        with counts.counted(("127.0.0.1", 3)) as d, counts.counted(("127.0.0.1", 4)) as e:
            assert (d, e) == (False, False)
        with counts.counted(("::1", 2, 0, 0)) as f:
            assert f
    with counts.counted(("127.0.0.1", 5)) as g:
        assert g
    assert not counts._counts  # nothing is kept of clients that have gone


@pytest.mark.parametrize("client", [None, "", "/run/socket", b"\0abstract"])
def test_clients_without_an_address_are_not_counted(client: object) -> None:
    counts = ClientCounts(1)
    with counts.counted(client) as a, counts.counted(client) as b:
        assert (a, b) == (True, True)
    assert not counts._counts
