"""Transports: exact partial sends, who is told what, and a close that loses nothing.

Sockets are real ones on loopback, streams are Trio's memory streams. Time is Trio's, and with a
`mock_clock` or an `autojump_clock` it passes only where a test says so, or nothing else can happen.
"""

from __future__ import annotations

import gc
import math
import os
import random
import socket
import ssl
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Literal, TypeAlias
from unittest.mock import patch

import pytest
import trio
from trio.testing import (
    assert_checkpoints,
    assert_no_checkpoints,
    lockstep_stream_pair,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

from tests.clients import Told, body, open_descriptors, open_socket_pair, reset, settled_descriptors
from tests.harness import PlainStream
from trio_stream import AbortReason, Config, _socket_transport
from trio_stream._file import FilePart, open_file
from trio_stream._readiness import HAVE_EPOLL, ReadinessWatcher
from trio_stream._socket_transport import SocketTransport, peer_address
from trio_stream._stream_transport import StreamTransport, open_transport
from trio_stream._timeouts import TimeoutWatch
from trio_stream._transport import READ_SIZE, Transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from trio.testing import MockClock

    StreamPair: TypeAlias = tuple[trio.abc.Stream, trio.abc.Stream]

needs_epoll = pytest.mark.skipif(not HAVE_EPOLL, reason="needs epoll")

WRITABLE: Literal["writable"] = "writable"
CLOSED = AbortReason.CLIENT_CLOSED
STALLED = AbortReason.STALLED


class User(Told["Literal['writable'] | AbortReason"]):
    """What a transport tells, in order."""

    def _transport_writable(self) -> None:
        self.tell(WRITABLE)

    def _transport_lost(self, reason: AbortReason) -> None:
        self.tell(reason)


class GuardedStream(PlainStream, trio.abc.HalfCloseableStream):
    """A stream that refuses `send_eof` during `send_all`, as `trio.SocketStream` does."""

    _sending = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._sending = True
        try:
            await super().send_all(data)
        finally:
            self._sending = False

    async def send_eof(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def stream_transport(
    stream: trio.abc.Stream, config: Config | None = None
) -> AsyncIterator[tuple[StreamTransport, User]]:
    """A transport over `stream`, as a server opens it, and its user."""
    config = config or Config()
    stalls = TimeoutWatch(config.stall_timeout)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stalls.run)
        async with open_transport(stream, config, stalls, None) as transport:
            assert isinstance(transport, StreamTransport)
            transport.user = user = User()
            yield transport, user
            stalls.stop(transport)
        assert len(transport._change) == 0
        nursery.cancel_scope.cancel()


async def test_what_the_kernel_keeps_is_unsent() -> None:
    """Or a cut would throw away what the client has not taken yet."""
    client, server = await open_socket_pair(receive_buffer=4096)
    size = 12_000
    async with client, stream_transport(server, Config(stream_buffer_size=size)) as (transport, _):
        assert transport.send_some(bytes(size)) == size
        with trio.fail_after(20):
            while transport._unsent:
                await trio.sleep(0)
            assert transport.unsent() > 0
            received = 0
            while received < size:
                received += len(await client.receive_some())
            while transport.unsent():
                await trio.sleep(0)


@asynccontextmanager
async def socket_transport(
    stream: trio.SocketStream, config: Config | None = None
) -> AsyncIterator[tuple[SocketTransport, User]]:
    """A transport over `stream`, as a server opens it, and its user.

    That there is room at first has been told.
    """
    config = config or Config()
    stalls = TimeoutWatch(config.stall_timeout)
    with ReadinessWatcher() as watcher:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stalls.run)
            nursery.start_soon(watcher.run)
            async with open_transport(stream, config, stalls, watcher) as transport:
                assert isinstance(transport, SocketTransport)
                transport.user = user = User()
                assert await user.next() == WRITABLE
                yield transport, user
                stalls.stop(transport)
            assert watcher._watched == {}
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def client_and_transport(
    config: Config | None = None,
) -> AsyncIterator[tuple[trio.SocketStream, SocketTransport, User]]:
    """A client with little room, and the transport to it."""
    client, server = await open_socket_pair(receive_buffer=4096)
    async with client, socket_transport(server, config) as (transport, user):
        yield client, transport, user


def fill(transport: Transport, start: int = 0) -> int:
    """Send from the offset `start` of a body on until nothing more is taken; where that was."""
    while taken := transport.send_some(body(start, 100_000)):
        start += taken
    return start


async def receive_exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        data = await stream.receive_some(size - len(received))
        assert data, f"the stream ended after {bytes(received)!r}"
        received += data
    return bytes(received)


def body_bytes(start: int, size: int) -> bytes:
    return bytes(body(start, size))


async def receive_until_eof(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([bytes(data) async for data in stream])


async def cancelled_after(ticks: int, function: Callable[[], Awaitable[object]]) -> bool:
    """Call `function`, and cancel it after some scheduler ticks; whether that came in time."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def cancel() -> None:
                for _ in range(ticks):
                    await trio.lowlevel.cancel_shielded_checkpoint()
                scope.cancel()

            nursery.start_soon(cancel)
            await function()
            nursery.cancel_scope.cancel()
    return scope.cancelled_caught


# A socket: partial sends


@needs_epoll
async def test_socket_takes_what_goes_and_says_exactly_how_much() -> None:
    async with client_and_transport() as (client, transport, _):
        with assert_no_checkpoints():
            taken = transport.send_some(body(0, 10_000_000))
            assert 0 < taken < 10_000_000
            taken = fill(transport, taken)
            assert transport.send_some(body(taken, 1)) == 0
        assert await receive_exactly(client, taken) == body_bytes(0, taken)
        transport.send_some(b"end")
        assert await receive_exactly(client, 3) == b"end"


@needs_epoll
async def test_socket_takes_a_head_and_what_follows_it() -> None:
    rng = random.Random(5)
    async with client_and_transport() as (client, transport, _):
        taken, blocked = 0, False
        while not blocked:
            head_size, size = (rng.choice((0, 1, 100, 10_000, 100_000)) for _ in range(2))
            head, data = body(taken, head_size), body(taken + head_size, size)
            now = transport.send_some(head, data)
            blocked = now < head_size + size
            taken += now
        assert transport.send_some(b"head", b"data") == 0
        assert await receive_exactly(client, taken) == body_bytes(0, taken)


@needs_epoll
async def test_socket_tells_when_there_is_room_again() -> None:
    async with client_and_transport() as (client, transport, user):
        sent = received = 0
        for _ in range(3):
            sent = fill(transport, sent)
            await wait_all_tasks_blocked()
            assert user.take_all() == []
            await receive_exactly(client, sent - received)
            received = sent
            assert await user.next() == WRITABLE
            assert transport.send_some(body(sent, 1)) == 1
            sent += 1
            user.take_all()


@needs_epoll
async def test_socket_sends_nothing_after_a_reset() -> None:
    async with client_and_transport() as (client, transport, user):
        await client.send_all(b"unread")
        await reset(client)
        assert await user.next() == CLOSED
        assert transport.hung_up
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError):
                transport.send_some(b"data")
            with pytest.raises(trio.BrokenResourceError):
                transport.send_some(b"head", b"data")


@needs_epoll
async def test_socket_limits_what_the_kernel_keeps() -> None:
    async with client_and_transport(Config(notsent_lowat=5000)) as (_, transport, _):
        assert kept_by_the_kernel(transport) == 5000


def kept_by_the_kernel(transport: SocketTransport) -> int:
    return transport._stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)


@needs_epoll
async def test_the_kernel_keeps_more_for_a_client_that_keeps_up(mock_clock: MockClock) -> None:
    async with client_and_transport(Config(notsent_lowat=5000)) as (_, transport, _):

        def wait_for_room(seconds: float) -> int:
            fill(transport)
            mock_clock.jump(seconds)
            transport.on_writable()
            return kept_by_the_kernel(transport)

        assert wait_for_room(0.05) == 5000
        assert wait_for_room(0.001) == 8 * 5000
        assert wait_for_room(0.05) == 8 * 5000
        mock_clock.jump(1)
        transport.on_writable()  # nobody has waited
        assert kept_by_the_kernel(transport) == 8 * 5000
        assert wait_for_room(0.2) == 5000
        with transport.sending_files():
            assert wait_for_room(0.001) == wait_for_room(0.2) == 32 * 5000
        assert kept_by_the_kernel(transport) == 5000


@needs_epoll
async def test_a_socket_that_somebody_has_closed_is_told_of_room() -> None:
    async with client_and_transport() as (_, transport, user):
        fill(transport)
        with patch.object(transport._stream, "setsockopt", side_effect=OSError):
            transport.on_writable()  # in the task of the watcher, where nothing may raise
        assert user.take_all() == [WRITABLE]


@needs_epoll
async def test_a_socket_that_somebody_has_closed_hides_nothing_that_ends_a_file() -> None:
    async with client_and_transport() as (_, transport, _):
        with (
            patch.object(transport._stream, "setsockopt") as setsockopt,
            pytest.raises(KeyError),
            transport.sending_files(),
        ):
            setsockopt.side_effect = OSError
            raise KeyError


@needs_epoll
async def test_the_kernel_keeps_no_more_than_it_can() -> None:
    async with client_and_transport(Config(notsent_lowat=2**31 - 1)) as (_, transport, _):
        with transport.sending_files():
            assert kept_by_the_kernel(transport) == 2**31 - 1


@needs_epoll
async def test_files_go_in_full_segments_and_nothing_else_does(tmp_path: Path) -> None:
    """And what is none leaves at the end of the block, at the latest."""
    (tmp_path / "file").write_bytes(body_bytes(0, 1000))
    async with client_and_transport() as (client, transport, _):
        with open_file(tmp_path / "file") as file, transport.sending_files():
            assert transport.send_file(FilePart(file, 0, 1000)) == 1000
            assert transport.unsent() == 1000
            assert segments_are_filled(transport)
        assert not segments_are_filled(transport)
        assert await receive_exactly(client, 1000) == body_bytes(0, 1000)


def segments_are_filled(transport: SocketTransport) -> bool:
    return transport._stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK) != 0


@needs_epoll
async def test_unix_socket() -> None:
    ours, theirs = socket.socketpair()
    client = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    server = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
    with ReadinessWatcher() as watcher:
        async with client, trio.open_nursery() as nursery:
            nursery.start_soon(watcher.run)
            async with open_transport(server, Config(), TimeoutWatch(60), watcher) as transport:
                transport.user = user = User()
                assert await user.next() == WRITABLE
                sent = fill(transport)
                assert await receive_exactly(client, sent) == body_bytes(0, sent)
                assert await user.next() == WRITABLE
                await client.send_all(b"unread")
                await client.send_eof()
                while await user.next() != CLOSED:
                    pass
                assert await transport.receive_some() == b"unread"
            nursery.cancel_scope.cancel()


# A socket: the peer hangs up


@needs_epoll
async def test_socket_tells_a_fin_behind_unread_bytes() -> None:
    async with client_and_transport() as (client, transport, user):
        await client.send_all(b"unread")
        await client.send_eof()
        assert await user.next() == CLOSED
        assert transport.hung_up
        assert await transport.receive_some() == b"unread"
        assert await transport.receive_some() == b""
        assert transport.send_some(b"still read") == 10
        assert await receive_exactly(client, 10) == b"still read"


@needs_epoll
async def test_socket_goes_on_after_a_fin_that_is_served() -> None:
    async with client_and_transport(Config(half_close="serve")) as (client, transport, user):
        sent = fill(transport)
        await client.send_eof()
        await wait_all_tasks_blocked()
        assert user.take_all() == []
        assert not transport.hung_up
        assert await receive_exactly(client, sent) == body_bytes(0, sent)
        assert await user.next() == WRITABLE
        user.take_all()
        await reset(client)
        while (told := await user.next()) == WRITABLE:
            pass
        assert told == CLOSED
        assert transport.hung_up


@needs_epoll
@pytest.mark.parametrize("leave", [trio.SocketStream.send_eof, reset])
async def test_socket_tells_again_what_is_so_when_asked_but_not_at_once(
    leave: Callable[[trio.SocketStream], Awaitable[None]],
) -> None:
    async with client_and_transport() as (client, transport, user):
        transport.notify_soon()
        assert user.take_all() == []
        assert await user.next() == WRITABLE
        await leave(client)
        assert await user.next() == CLOSED
        await wait_all_tasks_blocked()
        user.take_all()
        transport.notify_soon()
        assert user.take_all() == []
        assert await user.next() == CLOSED


@needs_epoll
async def test_socket_without_a_user_remembers_a_hang_up() -> None:
    async with client_and_transport() as (client, transport, user):
        transport.user = None
        await client.send_eof()
        await wait_all_tasks_blocked()
        assert transport.hung_up
        transport.user = user
        transport.notify_soon()
        assert await user.next() == CLOSED


# A socket: clients that take nothing


@needs_epoll
async def test_socket_is_reset_when_its_client_takes_nothing(mock_clock: MockClock) -> None:
    client, server = await open_socket_pair(receive_buffer=4096)
    async with client:
        async with socket_transport(server, Config(stall_timeout=60)) as (transport, user):
            fill(transport)
            mock_clock.jump(59)
            await wait_all_tasks_blocked()
            assert user.take_all() == []
            assert transport.send_some(b"x") == 0  # this gives it no more time
            mock_clock.jump(2)
            assert await user.next() == STALLED
            assert transport.hung_up
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            await receive_until_eof(client)


@needs_epoll
async def test_socket_whose_client_takes_a_little_is_kept(mock_clock: MockClock) -> None:
    async with client_and_transport(Config(stall_timeout=60)) as (client, transport, user):
        fill(transport)
        for _ in range(3):
            await receive_exactly(client, 8000)  # not enough to be told of room
            mock_clock.jump(61)
            await wait_all_tasks_blocked()
            assert user.take_all() == []
        mock_clock.jump(61)
        assert await user.next() == STALLED


@needs_epoll
async def test_socket_has_all_the_time_when_it_waits_for_nothing(mock_clock: MockClock) -> None:
    async with client_and_transport(Config(stall_timeout=60)) as (client, transport, user):
        await receive_exactly(client, fill(transport))
        assert await user.next() == WRITABLE
        transport.send_some(b"taken by the kernel, not by the client")
        for _ in range(3):
            mock_clock.jump(61)
            await wait_all_tasks_blocked()
        assert STALLED not in user.take_all()
        assert not transport.hung_up


@needs_epoll
@pytest.mark.parametrize("is_awaited", [True, False])
async def test_socket_that_took_the_rest_and_nothing_more(
    mock_clock: MockClock, is_awaited: bool
) -> None:
    async with client_and_transport(Config(stall_timeout=60)) as (client, transport, user):
        fill(transport)
        while not transport.send_some(b"x"):
            await receive_exactly(client, 4000)
        await wait_all_tasks_blocked()
        assert user.take_all() == []  # there is too little room to be told
        mock_clock.jump(61)
        await wait_all_tasks_blocked()
        assert user.take_all() == []  # as it took something before
        assert transport.send_some(b"y")  # which is nothing that the client has taken
        if not is_awaited:
            transport.stop_waiting()
        for _ in range(3):
            mock_clock.jump(61)
            await wait_all_tasks_blocked()
        assert user.take_all() == ([STALLED] if is_awaited else [])
        assert transport.hung_up == is_awaited


@needs_epoll
async def test_socket_that_is_hung_up_does_not_stall_as_well(mock_clock: MockClock) -> None:
    async with client_and_transport(Config(stall_timeout=60)) as (client, transport, user):
        fill(transport)
        await client.send_eof()
        assert await user.next() == CLOSED
        mock_clock.jump(100)
        await wait_all_tasks_blocked()
        assert user.take_all() == []


@needs_epoll
async def test_socket_whose_client_takes_less_than_the_minimum_rate_is_reset(
    mock_clock: MockClock,
) -> None:
    rates = TimeoutWatch(5)
    async with (
        client_and_transport(Config(stall_timeout=60)) as (client, transport, user),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(rates.run)
        transport.require_rate(rates, 1000)
        fill(transport)
        for _ in range(3):
            await receive_exactly(client, 12_000)  # not enough to be told of room
            mock_clock.jump(5)
            await wait_all_tasks_blocked()
            assert user.take_all() == []
        mock_clock.jump(5.001)
        assert await user.next() == STALLED
        assert transport.hung_up
        nursery.cancel_scope.cancel()


@needs_epoll
async def test_files_count_for_the_minimum_rate(mock_clock: MockClock, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    rates = TimeoutWatch(5)
    async with client_and_transport(Config(stall_timeout=60)) as (client, transport, _):
        transport.require_rate(rates, 10)
        with open_file(path) as file:
            fill(transport)
            mock_clock.jump(2)
            while not (sent := transport.send_file(FilePart(file, 0, 100))):
                await receive_exactly(client, 4000)
        assert sent == 100
        assert transport._pace is not None
        assert transport._pace.has_progressed()
        assert transport._pace._allowance == 5  # 4000 bytes, less the 100
        transport.stop_waiting()
        mock_clock.jump(100)
        assert transport._pace.has_progressed()
        transport.stop_timers()
        assert not rates._deadlines


@needs_epoll
async def test_no_file_is_sent_after_a_reset(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    async with client_and_transport() as (client, transport, user):
        await reset(client)
        assert await user.next() == CLOSED
        with open_file(path) as file:
            for _ in range(2):
                with pytest.raises(trio.BrokenResourceError):
                    transport.send_file(FilePart(file, 0, 100))


# A socket: its end


@needs_epoll
async def test_socket_is_closed_with_a_fin() -> None:
    client, server = await open_socket_pair()
    async with client:
        async with socket_transport(server) as (transport, _):
            transport.send_some(b"answer")
        assert await receive_until_eof(client) == b"answer"


@needs_epoll
async def test_reset_throws_away_what_the_client_has_not_taken() -> None:
    client, server = await open_socket_pair(receive_buffer=4096)
    async with client:
        async with socket_transport(server) as (transport, _):
            sent = fill(transport)
            transport.reset()
        received = bytearray()
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            async for data in client:
                received += data
        assert len(received) < sent


@needs_epoll
@pytest.mark.parametrize("fin_first", [False, True])
async def test_finish_delivers_the_answer_in_spite_of_unread_bytes(fin_first: bool) -> None:
    client, server = await open_socket_pair(receive_buffer=4096)
    async with (
        client,
        trio.open_nursery() as nursery,
        socket_transport(server) as (transport, user),
    ):
        await client.send_all(bytes(100_000))
        if fin_first:
            await client.send_eof()
            assert await user.next() == CLOSED
        sent = fill(transport)

        async def receive() -> None:
            assert await receive_until_eof(client) == body_bytes(0, sent)
            await client.send_eof()

        nursery.start_soon(receive)
        await transport.finish()


@needs_epoll
@pytest.mark.parametrize("sends_on", [False, True])
async def test_finish_waits_for_the_client_but_not_forever(
    sends_on: bool, mock_clock: MockClock
) -> None:
    async with client_and_transport(Config(linger_timeout=2)) as (client, transport, _):
        finished = trio.Event()

        async def finish() -> None:
            await transport.finish()
            finished.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(finish)
            assert await receive_until_eof(client) == b""
            await wait_all_tasks_blocked()
            mock_clock.jump(1.9)
            if sends_on:
                await client.send_all(b"more")
            await wait_all_tasks_blocked()
            assert not finished.is_set()
            mock_clock.jump(0.2)
            await finished.wait()


@needs_epoll
async def test_finish_ends_when_the_client_resets() -> None:
    async with (
        client_and_transport(Config(linger_timeout=math.inf)) as (client, transport, _),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(transport.finish)
        assert await receive_until_eof(client) == b""
        await reset(client)


@needs_epoll
async def test_finish_after_a_reset_does_nothing() -> None:
    async with client_and_transport(Config(linger_timeout=math.inf)) as (client, transport, user):
        await reset(client)
        assert await user.next() == CLOSED
        await transport.finish()


@needs_epoll
@pytest.mark.parametrize("ticks", range(5))
@pytest.mark.parametrize("name", ["finish", "receive_some"])
async def test_cancelled_socket_leaves_nothing(name: str, ticks: int) -> None:
    before = settled_descriptors()
    client, server = await open_socket_pair()
    async with client:
        async with socket_transport(server) as (transport, _):
            with assert_checkpoints():
                assert await cancelled_after(ticks, getattr(transport, name))
        assert await receive_until_eof(client) == b""
    gc.collect()
    assert open_descriptors() == before


@needs_epoll
@pytest.mark.parametrize("ticks", range(5))
async def test_cancelled_receive_loses_nothing(ticks: int) -> None:
    async with client_and_transport() as (client, transport, _):
        assert await cancelled_after(ticks, transport.receive_some)
        await client.send_all(b"for the next one")
        assert await transport.receive_some() == b"for the next one"


@needs_epoll
async def test_receiving_goes_on_when_it_was_woken_for_nothing() -> None:
    reads: list[int] = []

    def read(fd: int, size: int) -> bytes:
        reads.append(size)
        if len(reads) == 1:
            raise BlockingIOError
        return os.read(fd, size)

    async with client_and_transport() as (client, transport, _):
        await client.send_all(b"data")
        with patch.object(_socket_transport, "os", SimpleNamespace(read=read)):
            assert await transport.receive_some(7) == b"data"
    assert reads == [7, 7]


# Any stream: partial sends


async def test_stream_takes_what_its_buffer_holds(autojump_clock: MockClock) -> None:
    client, server = lockstep_stream_pair()
    async with stream_transport(server, Config(stream_buffer_size=1000)) as (transport, _):
        with assert_no_checkpoints():
            assert transport.send_some(body(0, 300), body(300, 1000)) == 1000
            assert transport.unsent() == 1000
            assert transport.send_some(b"data") == 0
            assert transport.send_some(b"head", b"data") == 0
        await wait_all_tasks_blocked()
        assert transport.send_some(b"x") == 0  # what is being sent counts until it has gone
        assert await receive_exactly(client, 1000) == body_bytes(0, 1000)
        await wait_all_tasks_blocked()
        assert transport.unsent() == 0
        assert transport.send_some(body(1000, 2000)) == 1000
        assert await receive_exactly(client, 1000) == body_bytes(1000, 1000)


async def test_stream_delivers_what_it_took_in_any_rhythm(autojump_clock: MockClock) -> None:
    rng = random.Random(11)
    client, server = lockstep_stream_pair()
    async with stream_transport(server, Config(stream_buffer_size=5000)) as (transport, _):
        sent = received = 0
        for _ in range(1000):
            await wait_all_tasks_blocked()
            if rng.random() < 0.5 or received == sent:
                head_size, size = (rng.choice((0, 1, 50, 6000)) for _ in range(2))
                room = 5000 - transport.unsent()
                taken = transport.send_some(body(sent, head_size), body(sent + head_size, size))
                assert taken == min(head_size + size, room)
                sent += taken
            else:
                data = await client.receive_some(rng.choice((1, 100, 9000)))
                assert bytes(data) == body_bytes(received, len(data))
                received += len(data)
        assert await receive_exactly(client, sent - received) == body_bytes(
            received, sent - received
        )


async def test_stream_tells_once_when_half_of_its_buffer_is_free(
    autojump_clock: MockClock,
) -> None:
    client, server = lockstep_stream_pair()
    size = 4 * 16 * 1024
    async with stream_transport(server, Config(stream_buffer_size=size)) as (transport, user):
        assert transport.send_some(body(0, size + 1)) == size
        await receive_exactly(client, size // 2 - 1)
        await wait_all_tasks_blocked()
        assert user.take_all() == []
        await receive_exactly(client, 1)
        await wait_all_tasks_blocked()
        assert user.take_all() == [WRITABLE]
        assert transport.unsent() == size // 2
        await receive_exactly(client, size // 2)
        await wait_all_tasks_blocked()
        assert user.take_all() == []


async def test_stream_that_never_was_full_tells_nothing(autojump_clock: MockClock) -> None:
    client, server = lockstep_stream_pair()
    async with stream_transport(server, Config(stream_buffer_size=1000)) as (transport, user):
        for _ in range(3):
            assert transport.send_some(body(0, 1000)) == 1000
            await receive_exactly(client, 1000)
            await wait_all_tasks_blocked()
        assert user.take_all() == []


@pytest.mark.parametrize("then", [b"", b"fits"])
async def test_stream_tells_of_room_after_a_failed_send_and_one_that_went(
    then: bytes, autojump_clock: MockClock
) -> None:
    client, server = lockstep_stream_pair()
    size = 4 * 16 * 1024
    async with stream_transport(server, Config(stream_buffer_size=size)) as (transport, user):
        assert transport.send_some(body(0, size + 1)) == size
        await receive_exactly(client, 16 * 1024)
        await wait_all_tasks_blocked()
        assert transport.send_some(then) == len(then)
        await receive_exactly(client, 3 * 16 * 1024)
        await wait_all_tasks_blocked()
        assert user.take_all() == [WRITABLE]
        await trio.sleep(1000)
        assert user.take_all() == []  # in particular not that it has stalled
        assert not transport.hung_up


# Any stream: the peer hangs up


@pytest.mark.parametrize("pair", [memory_stream_pair, lockstep_stream_pair])
async def test_stream_tells_an_eof_while_nobody_reads(
    pair: Callable[[], StreamPair], autojump_clock: MockClock
) -> None:
    client, server = pair()
    async with stream_transport(server) as (transport, user):
        await client.send_all(b"unread")
        await client.aclose()
        assert await user.next() == CLOSED
        assert transport.hung_up
        assert await transport.receive_some() == b"unread"
        assert await transport.receive_some() == b""
        assert await transport.receive_some() == b""


async def test_stream_goes_on_after_an_eof_that_is_served(autojump_clock: MockClock) -> None:
    client, server = lockstep_stream_pair()
    config = Config(half_close="serve", stream_buffer_size=1000)
    async with stream_transport(server, config) as (transport, user):
        assert transport.send_some(body(0, 2000)) == 1000
        await client.send_eof()
        await wait_all_tasks_blocked()
        assert user.take_all() == []
        assert not transport.hung_up
        assert await receive_exactly(client, 1000) == body_bytes(0, 1000)
        assert await user.next() == WRITABLE
        transport.send_some(b"x")
        await client.aclose()
        assert await user.next() == CLOSED
        assert transport.hung_up


async def test_stream_reads_ahead_no_more_than_it_may(autojump_clock: MockClock) -> None:
    client, server = lockstep_stream_pair()
    async with stream_transport(server, Config(stream_buffer_size=1000)) as (transport, _):
        sent = 0

        async def send() -> None:
            nonlocal sent
            while True:
                await client.send_all(body(sent, 300))
                sent += 300

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            assert sent == 1200  # it stops reading at 1000
            received = await transport.receive_some()
            assert received == body_bytes(0, 1200)
            await wait_all_tasks_blocked()
            assert sent == 2400
            nursery.cancel_scope.cancel()


async def test_stream_reads_large_pieces_whole(autojump_clock: MockClock) -> None:
    client, server = lockstep_stream_pair()
    async with (
        stream_transport(server, Config(stream_buffer_size=1)) as (transport, _),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(client.send_all, body(0, 3 * READ_SIZE))
        for number in range(3):
            await wait_all_tasks_blocked()
            assert await transport.receive_some() == body_bytes(number * READ_SIZE, READ_SIZE)


@pytest.mark.parametrize("pair", [memory_stream_pair, lockstep_stream_pair])
async def test_stream_that_breaks_while_sending(
    pair: Callable[[], StreamPair], autojump_clock: MockClock
) -> None:
    client, server = pair()
    async with stream_transport(server, Config(half_close="serve")) as (transport, user):
        await client.send_all(b"unread")
        await wait_all_tasks_blocked()
        await client.aclose()
        transport.send_some(body(0, 100_000))
        while await user.next() != CLOSED:
            pass
        assert transport.hung_up
        with pytest.raises(trio.BrokenResourceError):
            transport.send_some(b"x")
        assert await transport.receive_some() == b"unread"
        with pytest.raises(trio.BrokenResourceError):
            await transport.receive_some()


@needs_epoll
async def test_stream_that_is_reset_while_nobody_reads() -> None:
    client, server = await open_socket_pair()
    config = Config(half_close="serve")
    async with client, stream_transport(server, config) as (transport, user):
        await reset(client)
        assert await user.next() == CLOSED
        with pytest.raises(trio.BrokenResourceError):
            transport.send_some(b"x")
        with pytest.raises(trio.BrokenResourceError):
            await transport.receive_some()


async def test_stream_tells_again_what_is_so_when_asked_but_not_at_once(
    autojump_clock: MockClock,
) -> None:
    client, server = lockstep_stream_pair()
    async with stream_transport(server, Config(stream_buffer_size=1000)) as (transport, user):
        transport.notify_soon()
        assert user.take_all() == []
        await wait_all_tasks_blocked()
        assert user.take_all() == [WRITABLE]
        transport.send_some(body(0, 1000))
        transport.notify_soon()
        await wait_all_tasks_blocked()
        assert user.take_all() == []
        await client.send_eof()
        assert await user.next() == CLOSED
        transport.notify_soon()
        assert user.take_all() == []
        assert await user.next() == CLOSED


async def test_stream_whose_client_takes_nothing(autojump_clock: MockClock) -> None:
    _, server = lockstep_stream_pair()
    config = Config(stream_buffer_size=1000, stall_timeout=60)
    async with stream_transport(server, config) as (transport, user):
        start = trio.current_time()
        transport.send_some(body(0, 2000))
        await trio.sleep(30)
        assert transport.send_some(b"x") == 0
        assert await user.next() == STALLED
        assert trio.current_time() == start + 60
        assert transport.hung_up
        assert transport.unsent() == 0
        assert user.take_all() == []


async def test_stream_whose_client_takes_a_little_is_kept(autojump_clock: MockClock) -> None:
    client, server = lockstep_stream_pair()
    config = Config(stream_buffer_size=4 * 16 * 1024, stall_timeout=60)
    async with stream_transport(server, config) as (transport, user):
        start = trio.current_time()
        transport.send_some(body(0, 100_000))
        await trio.sleep(59)
        await receive_exactly(client, 16 * 1024)
        assert await user.next() == STALLED
        assert trio.current_time() == start + 120


async def test_stream_that_is_hung_up_does_not_stall_as_well(autojump_clock: MockClock) -> None:
    client, server = lockstep_stream_pair()
    config = Config(stream_buffer_size=1000, stall_timeout=60)
    async with stream_transport(server, config) as (transport, user):
        transport.send_some(body(0, 2000))
        await client.send_eof()
        assert await user.next() == CLOSED
        await trio.sleep(100)
        assert user.take_all() == []


# Any stream: its end


@pytest.mark.parametrize("half_closeable", [True, False])
async def test_send_eof_sends_the_rest_first(
    half_closeable: bool, autojump_clock: MockClock
) -> None:
    client, server = lockstep_stream_pair()
    stream = server if half_closeable else PlainStream(server)
    async with stream_transport(stream) as (transport, _), trio.open_nursery() as nursery:
        assert transport.send_some(body(0, 50_000)) == 50_000
        nursery.start_soon(transport.send_eof)
        assert await receive_until_eof(client) == body_bytes(0, 50_000)


async def test_send_eof_gives_up_a_client_that_takes_nothing(autojump_clock: MockClock) -> None:
    _, server = lockstep_stream_pair()
    async with stream_transport(server, Config(stall_timeout=60)) as (transport, _):
        transport.send_some(body(0, 50_000))
        start = trio.current_time()
        with pytest.raises(trio.BrokenResourceError, match="stopped reading"):
            await transport.send_eof()
        assert trio.current_time() == start + 60


async def test_send_eof_has_patience_with_a_slow_client(autojump_clock: MockClock) -> None:
    client, server = lockstep_stream_pair()
    async with stream_transport(server, Config(stall_timeout=60)) as (transport, _):
        transport.send_some(body(0, 50_000))
        start = trio.current_time()

        async def receive() -> None:
            for number in range(3):
                await trio.sleep(50)
                expected = body_bytes(number * 16 * 1024, 16 * 1024)
                assert await receive_exactly(client, 16 * 1024) == expected

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            with pytest.raises(trio.BrokenResourceError, match="stopped reading"):
                await transport.send_eof()
        assert trio.current_time() == start + 150 + 60


async def test_send_eof_is_not_put_off_by_bytes_of_the_client(autojump_clock: MockClock) -> None:
    client, server = lockstep_stream_pair()
    async with stream_transport(server, Config(stall_timeout=60)) as (transport, _):
        transport.send_some(body(0, 50_000))
        start = trio.current_time()

        async def send() -> None:
            for _ in range(2):
                await trio.sleep(20)
                await client.send_all(b"more")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            with pytest.raises(trio.BrokenResourceError, match="stopped reading"):
                await transport.send_eof()
        assert trio.current_time() == start + 60


async def test_finish_ends_when_the_client_stalls(autojump_clock: MockClock) -> None:
    client, server = lockstep_stream_pair()
    stream, config = GuardedStream(server), Config(stall_timeout=60, linger_timeout=2)
    async with stream_transport(stream, config) as (transport, user):
        assert transport.send_some(body(0, 100_000)) == 65536
        await trio.sleep(30)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.finish)
            assert await user.next() == STALLED
            await client.send_all(b"alive, but not reading")


async def test_send_eof_when_the_client_has_gone(autojump_clock: MockClock) -> None:
    client, server = lockstep_stream_pair()
    async with stream_transport(server) as (transport, user):
        transport.send_some(body(0, 50_000))
        await client.aclose()
        assert await user.next() == CLOSED
        await transport.finish()


@pytest.mark.parametrize("half_closeable", [True, False])
async def test_finish_sends_all_and_reads_what_comes(
    half_closeable: bool, autojump_clock: MockClock
) -> None:
    client, server = lockstep_stream_pair()
    stream = server if half_closeable else PlainStream(server)
    async with stream_transport(stream) as (transport, _), trio.open_nursery() as nursery:
        transport.send_some(body(0, 50_000))
        nursery.start_soon(transport.finish)
        await wait_all_tasks_blocked()
        await client.send_all(b"unread")
        await wait_all_tasks_blocked()
        assert await receive_until_eof(client) == body_bytes(0, 50_000)
        await client.aclose()


async def test_finish_of_a_stream_waits_for_the_client_but_not_forever(
    autojump_clock: MockClock,
) -> None:
    client, server = memory_stream_pair()
    async with stream_transport(server, Config(linger_timeout=2)) as (transport, _):
        start = trio.current_time()
        await transport.finish()
        assert trio.current_time() == start + 2
        assert await receive_until_eof(client) == b""


async def test_reset_of_a_stream_drops_what_is_unsent() -> None:
    client, server = lockstep_stream_pair()
    async with stream_transport(server) as (transport, _):
        transport.send_some(body(0, 50_000))
        transport.reset()
        assert transport.unsent() == 0
    assert await receive_until_eof(client) == b""


@pytest.mark.parametrize("layers", [0, 1])
async def test_reset_of_a_stream_over_a_socket_resets_it(layers: int) -> None:
    client, server = await open_socket_pair()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    stream = trio.SSLStream(server, context, server_side=True) if layers else server
    async with client:
        async with stream_transport(stream) as (transport, _):
            transport.reset()
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            await receive_until_eof(client)


@pytest.mark.parametrize("ticks", range(6))
@pytest.mark.parametrize("unsent", [0, 50_000])
@pytest.mark.parametrize("half_closeable", [True, False])
@pytest.mark.parametrize("name", ["finish", "send_eof", "receive_some"])
async def test_cancelled_stream_leaves_nothing(
    name: str, half_closeable: bool, unsent: int, ticks: int, autojump_clock: MockClock
) -> None:
    client, server = lockstep_stream_pair()
    tasks = trio.lowlevel.current_statistics().tasks_living
    stream = server if half_closeable else PlainStream(server)
    async with stream_transport(stream) as (transport, _):
        transport.send_some(body(0, unsent))
        await wait_all_tasks_blocked()
        parked = len(transport._change)
        await cancelled_after(ticks, getattr(transport, name))
        await wait_all_tasks_blocked()
        assert len(transport._change) <= parked
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    with pytest.raises(trio.ClosedResourceError):
        await server.send_all(b"x")
    # What was being sent is still on its way in such a stream.
    received = await receive_until_eof(client)
    assert received == body_bytes(0, min(unsent, READ_SIZE))


@pytest.mark.parametrize("ticks", range(5))
async def test_cancelled_receive_of_a_stream_loses_nothing(
    ticks: int, autojump_clock: MockClock
) -> None:
    client, server = memory_stream_pair()
    async with stream_transport(server) as (transport, _):
        assert await cancelled_after(ticks, transport.receive_some)
        await client.send_all(b"for the next one")
        assert await transport.receive_some() == b"for the next one"


# Opening and closing


@needs_epoll
async def test_only_a_socket_is_watched() -> None:
    with ReadinessWatcher() as watcher:
        for pair, kind in (
            (await open_socket_pair(), SocketTransport),
            (memory_stream_pair(), StreamTransport),
        ):
            client, server = pair
            async with (
                client,
                open_transport(server, Config(), TimeoutWatch(60), watcher) as transport,
            ):
                assert type(transport) is kind
                assert len(watcher._watched) == (kind is SocketTransport)


async def test_a_transport_opened_by_a_cancelled_task_closes_its_stream() -> None:
    client, server = memory_stream_pair()
    with trio.CancelScope() as scope:
        scope.cancel()
        async with open_transport(server, Config(), TimeoutWatch(60), None):
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert await receive_until_eof(client) == b""


@needs_epoll
async def test_a_stream_is_closed_when_it_cannot_be_watched() -> None:
    class FullWatcher(ReadinessWatcher):
        def add(self, fd: int, watched: object) -> None:
            raise OSError("no space left")

    before = settled_descriptors()
    client, server = await open_socket_pair()
    async with client:
        with FullWatcher() as watcher, pytest.raises(OSError, match="no space left"):
            async with open_transport(server, Config(), TimeoutWatch(60), watcher):
                raise AssertionError("it can't be watched")
        assert await receive_until_eof(client) == b""
    assert open_descriptors() == before


@pytest.mark.parametrize("watch", [pytest.param(True, marks=needs_epoll), False])
async def test_a_stream_is_closed_when_the_block_raises(watch: bool) -> None:
    before = settled_descriptors()
    client, server = await open_socket_pair()
    async with client:
        watcher = ReadinessWatcher() if watch else None
        with pytest.RaisesGroup(LookupError, allow_unwrapped=True, flatten_subgroups=True):
            async with open_transport(server, Config(), TimeoutWatch(60), watcher):
                raise LookupError
        if watcher is not None:
            assert watcher._watched == {}
            watcher.__exit__(None, None, None)
        assert await receive_until_eof(client) == b""
    assert open_descriptors() == before


@pytest.mark.parametrize("watch", [pytest.param(True, marks=needs_epoll), False])
async def test_a_transport_knows_its_client(watch: bool) -> None:
    client, server = await open_socket_pair()
    address = client.socket.getsockname()
    watcher = ReadinessWatcher() if watch else None
    async with (
        client,
        open_transport(server, Config(), TimeoutWatch(60), watcher, client=address) as transport,
    ):
        assert transport.client == address
        assert transport.scheme == "http"
    if watcher is not None:
        watcher.__exit__(None, None, None)


async def test_a_transport_knows_that_there_is_tls() -> None:
    client, server = await open_socket_pair()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    stream = trio.SSLStream(server, context, server_side=True)
    async with client, open_transport(stream, Config(), TimeoutWatch(60), None) as transport:
        assert transport.scheme == "https"


async def test_the_address_of_a_client() -> None:
    client, server = await open_socket_pair()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    async with client, server:
        assert peer_address(server) == client.socket.getsockname()
        stream = trio.SSLStream(server, context, server_side=True)
        assert peer_address(stream) == client.socket.getsockname()
    assert peer_address(memory_stream_pair()[1]) is None


async def test_a_client_that_has_gone_has_no_address() -> None:
    client, server = await open_socket_pair()
    await reset(client)
    async with server:
        assert peer_address(server) is None


class UnendingStream(PlainStream, trio.abc.HalfCloseableStream):
    """A stream whose end does not go through, as that of TLS to a client with a full window."""

    async def send_eof(self) -> None:
        await trio.sleep_forever()


async def test_send_eof_gives_up_a_client_that_does_not_take_the_end(
    autojump_clock: MockClock,
) -> None:
    server, _ = memory_stream_pair()
    stream = UnendingStream(server)
    async with stream_transport(stream, Config(stall_timeout=60)) as (transport, _):
        start = trio.current_time()
        with pytest.raises(trio.BrokenResourceError, match="stopped reading"):
            await transport.send_eof()
        assert trio.current_time() == start + 60


class ClosedStream(PlainStream, trio.abc.HalfCloseableStream):
    """A stream that somebody else closes just before its end."""

    async def send_eof(self) -> None:
        await self.aclose()
        raise trio.ClosedResourceError


async def test_finishing_a_stream_that_somebody_closes_harms_nothing() -> None:
    server, _ = memory_stream_pair()
    async with stream_transport(ClosedStream(server)) as (transport, _):
        with pytest.raises(trio.BrokenResourceError, match="closed"):
            await transport.send_eof()
        await transport.finish()
