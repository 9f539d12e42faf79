"""The watcher of sockets, over real loopback sockets.

What must be told is waited for. That nothing else was told is looked at after `pass_round`: the
kernel hands readiness out in the order in which it came.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Literal

import pytest
import trio

from tests.clients import (
    Told,
    open_descriptors,
    open_socket_pair,
    registered_descriptors,
    reset,
    settled_descriptors,
)
from trio_stream import _readiness
from trio_stream._readiness import HAVE_EPOLL, ReadinessWatcher

if TYPE_CHECKING:
    import pathlib
    from collections.abc import AsyncIterator, Callable, Iterator

    from trio_stream._readiness import Watched

pytestmark = pytest.mark.skipif(not HAVE_EPOLL, reason="needs epoll")

Event = Literal["writable", "fin", "reset"]


class Recorder(Told[Event]):
    def on_writable(self) -> None:
        self.tell("writable")

    def on_hang_up(self, *, reset: bool) -> None:
        self.tell("reset" if reset else "fin")


class Caller:
    """Calls a function when it is told that there is room."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function

    def on_writable(self) -> None:
        self._function()

    def on_hang_up(self, *, reset: bool) -> None:
        raise AssertionError("nobody hangs up here")


@asynccontextmanager
async def running_watcher() -> AsyncIterator[ReadinessWatcher]:
    with trio.fail_after(10), ReadinessWatcher() as watcher:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watcher.run)
            yield watcher
            nursery.cancel_scope.cancel()


@contextmanager
def watched(watcher: ReadinessWatcher, fd: int, by: Watched) -> Iterator[None]:
    watcher.add(fd, by)
    try:
        yield
    finally:
        watcher.remove(fd, by)


@asynccontextmanager
async def watched_socket(
    watcher: ReadinessWatcher,
) -> AsyncIterator[tuple[trio.SocketStream, socket.SocketType, Recorder]]:
    """The client's end of a connection, the server's, and what the watcher tells of that one.

    That it is writable at first has been told.
    """
    client, server = await open_socket_pair(receive_buffer=4096)
    async with client, server:
        recorder = Recorder()
        with watched(watcher, server.socket.fileno(), recorder):
            assert await recorder.next() == "writable"
            with socket.socket(fileno=os.dup(server.socket.fileno())) as plain:
                yield client, plain, recorder


async def pass_round(watcher: ReadinessWatcher) -> None:
    """Return when the watcher has told all that the kernel knew when this was called."""
    barrier = Recorder()
    ours, theirs = socket.socketpair()
    with ours, theirs, watched(watcher, ours.fileno(), barrier):
        await barrier.next()


def fill(plain: socket.SocketType) -> int:
    size = 0
    try:
        while True:
            size += plain.send(bytes(65536))
    except BlockingIOError:
        return size


async def receive_exactly(stream: trio.SocketStream, size: int) -> None:
    while size:
        data = await stream.receive_some(size)
        assert data
        size -= len(data)


async def test_tells_what_is_now_and_then_only_changes() -> None:
    async with running_watcher() as watcher, watched_socket(watcher) as (client, server, recorder):
        await pass_round(watcher)
        server.send(b"there is still room")
        await receive_exactly(client, 19)
        await client.send_all(b"nobody reads this")
        await pass_round(watcher)
        assert recorder.take_all() == []


async def test_tells_each_time_that_a_full_socket_has_room_again() -> None:
    async with running_watcher() as watcher, watched_socket(watcher) as (client, server, recorder):
        for _ in range(3):
            size = fill(server)
            await pass_round(watcher)
            assert recorder.take_all() == []
            await receive_exactly(client, size)
            assert await recorder.next() == "writable"
            recorder.take_all()  # it may be told more often as it empties


async def test_tells_a_fin_behind_unread_bytes() -> None:
    async with running_watcher() as watcher, watched_socket(watcher) as (client, server, recorder):
        await client.send_all(bytes(1000))
        await client.send_eof()
        assert await recorder.next() == "fin"
        assert len(server.recv(2000)) == 1000


async def test_tells_a_reset_behind_unread_bytes() -> None:
    async with running_watcher() as watcher, watched_socket(watcher) as (client, _, recorder):
        await client.send_all(bytes(1000))
        await reset(client)
        assert await recorder.next() == "reset"


async def test_tells_a_reset_after_a_fin() -> None:
    async with running_watcher() as watcher, watched_socket(watcher) as (client, _, recorder):
        await client.send_eof()
        assert await recorder.next() == "fin"
        recorder.take_all()
        await reset(client)
        assert await recorder.next() == "reset"


async def test_tells_room_after_a_fin() -> None:
    async with running_watcher() as watcher, watched_socket(watcher) as (client, server, recorder):
        size = fill(server)
        await client.send_eof()
        assert await recorder.next() == "fin"
        await pass_round(watcher)
        assert recorder.take_all() == []
        await receive_exactly(client, size)
        while await recorder.next() != "writable":
            pass


async def test_notify_soon_tells_room_again_but_not_at_once() -> None:
    async with running_watcher() as watcher, watched_socket(watcher) as (_, _, recorder):
        watcher.notify_soon(server_fd(watcher))
        assert recorder.take_all() == []
        assert await recorder.next() == "writable"
        await pass_round(watcher)
        assert recorder.take_all() == []


async def test_notify_soon_tells_nothing_of_a_full_socket() -> None:
    async with running_watcher() as watcher, watched_socket(watcher) as (_, server, recorder):
        fill(server)
        watcher.notify_soon(server_fd(watcher))
        await pass_round(watcher)
        assert recorder.take_all() == []


async def test_notify_soon_tells_a_fin_again() -> None:
    async with running_watcher() as watcher, watched_socket(watcher) as (client, _, recorder):
        await client.send_eof()
        assert await recorder.next() == "fin"
        await pass_round(watcher)
        recorder.take_all()
        watcher.notify_soon(server_fd(watcher))
        assert recorder.take_all() == []
        assert await recorder.next() == "fin"


async def test_notify_soon_tells_a_reset_again() -> None:
    async with running_watcher() as watcher, watched_socket(watcher) as (client, _, recorder):
        await reset(client)
        assert await recorder.next() == "reset"
        await pass_round(watcher)
        recorder.take_all()
        watcher.notify_soon(server_fd(watcher))
        assert await recorder.next() == "reset"


def server_fd(watcher: ReadinessWatcher) -> int:
    (fd,) = watcher._watched
    return fd


async def test_what_is_removed_is_not_told_any_more() -> None:
    async with running_watcher() as watcher:
        client, server = await open_socket_pair()
        async with client, server:
            recorder = Recorder()
            with watched(watcher, server.socket.fileno(), recorder):
                assert await recorder.next() == "writable"
                assert registered_descriptors(watcher) == 1
            assert registered_descriptors(watcher) == 0
            await client.send_eof()
            await pass_round(watcher)
            assert recorder.take_all() == []


async def test_what_another_one_removes_in_the_same_round_is_not_told() -> None:
    async with running_watcher() as watcher:
        ours, theirs = socket.socketpair()
        told = Told[int]()

        def remove_other(fd: int, other: int) -> None:
            told.tell(fd)
            watcher.remove(other, callers[other])

        with ours, theirs:
            one, two = ours.fileno(), theirs.fileno()
            # Both are ready now, and the watcher has not run since.
            callers = {
                one: Caller(lambda: remove_other(one, two)),
                two: Caller(lambda: remove_other(two, one)),
            }
            for fd, caller in callers.items():
                watcher.add(fd, caller)
            left = await told.next()
            await pass_round(watcher)
            assert told.take_all() == []
            assert list(watcher._watched) == [left]
            watcher.remove(left, callers[left])


async def test_a_descriptor_used_again_is_told_to_its_new_owner() -> None:
    async with running_watcher() as watcher:
        old, new = Recorder(), Recorder()
        closed, theirs = socket.socketpair()
        with theirs:
            fd = closed.fileno()
            watcher.add(fd, old)  # it is ready, but not told yet
            watcher.remove(fd, old)
            closed.close()
            again, theirs_again = socket.socketpair()
            with again, theirs_again, watched(watcher, fd, new):
                assert again.fileno() == fd
                assert await new.next() == "writable"
        await pass_round(watcher)
        assert old.take_all() == []
        assert new.take_all() == []


async def test_a_descriptor_closed_by_somebody_else_is_forgotten() -> None:
    async with running_watcher() as watcher:
        old, new = Recorder(), Recorder()
        closed, theirs = socket.socketpair()
        with theirs:
            fd = closed.fileno()
            watcher.add(fd, old)
            closed.close()
            watcher.remove(fd, old)
            assert watcher._watched == {}
            again, theirs_again = socket.socketpair()
            with again, theirs_again:
                watcher.add(fd, old)
                again.close()
                third, theirs_at_last = socket.socketpair()
                with third, theirs_at_last, watched(watcher, fd, new):
                    assert third.fileno() == fd
                    watcher.remove(fd, old)  # it is not his any more
                    assert await new.next() == "writable"
                    theirs_at_last.close()
                    assert await new.next() == "reset"


async def test_what_epoll_refuses_is_not_kept(tmp_path: pathlib.Path) -> None:
    async with running_watcher() as watcher:
        with (tmp_path / "file").open("wb") as file, pytest.raises(PermissionError):
            watcher.add(file.fileno(), Recorder())
        assert watcher._watched == {}


async def test_leaving_closes_epoll() -> None:
    before = settled_descriptors()
    async with running_watcher() as watcher:
        assert len(open_descriptors() - before) == 2
        await pass_round(watcher)
    assert open_descriptors() == before


async def test_leaving_by_an_exception_closes_epoll() -> None:
    before = settled_descriptors()
    with pytest.raises(LookupError), ReadinessWatcher():
        assert len(open_descriptors() - before) == 2
        raise LookupError
    assert open_descriptors() == before


async def test_a_cancelled_run_loses_nothing() -> None:
    with ReadinessWatcher() as watcher:
        ours, theirs = socket.socketpair()
        with ours, theirs, watched(watcher, ours.fileno(), recorder := Recorder()):
            with trio.CancelScope() as scope:
                scope.cancel()
                await watcher.run()
            assert recorder.take_all() == []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watcher.run)
                assert await recorder.next() == "writable"
                nursery.cancel_scope.cancel()


async def test_others_have_turns_while_many_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_readiness, "_EVENTS_AT_ONCE", 2)
    turn = 0
    told: list[int] = []
    with ExitStack() as stack:
        async with running_watcher() as watcher:
            for _ in range(9):
                ours, theirs = socket.socketpair()
                stack.enter_context(ours)
                stack.enter_context(theirs)
                watcher.add(ours.fileno(), Caller(lambda: told.append(turn)))
            while len(told) < 9:
                turn += 1
                await trio.lowlevel.checkpoint()
    # Trio shuffles the tasks of a turn: the watcher may have two between two of the other one's.
    assert max(Counter(told).values()) <= 4


def look_for_arrivals(watcher: ReadinessWatcher) -> Callable[[], bool]:
    """Tells whether something has come in since it was called last."""
    seen = 0

    def arrived() -> bool:
        nonlocal seen
        before, seen = seen, watcher.count_arrivals()
        return seen > before

    return arrived


async def test_arrivals_are_told_once() -> None:
    async with running_watcher() as watcher:
        arrived = look_for_arrivals(watcher)
        assert not arrived()
        ours, theirs = socket.socketpair()
        with ours, theirs, watched(watcher, ours.fileno(), Recorder()):
            assert not arrived()
            theirs.send(b"a")
            assert arrived()
            assert not arrived()  # though nobody has received it
            theirs.send(b"b")
            assert ours.recv(10) == b"ab"
            assert not arrived()  # somebody has
            theirs.send(b"c")
        assert not arrived()


async def test_each_of_several_sees_an_arrival() -> None:
    async with running_watcher() as watcher:
        one, other = look_for_arrivals(watcher), look_for_arrivals(watcher)
        ours, theirs = socket.socketpair()
        with ours, theirs, watched(watcher, ours.fileno(), Recorder()):
            theirs.send(b"a")
            assert [one(), one(), other(), other()] == [True, False, True, False]


async def test_connections_that_nobody_has_accepted_are_arrivals() -> None:
    async with running_watcher() as watcher:
        arrived = look_for_arrivals(watcher)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            watcher.attend(listener.fileno())
            assert not arrived()
            with socket.create_connection(listener.getsockname()):
                assert arrived()
                assert not arrived()


async def test_what_can_not_be_attended_to_is_not_watched() -> None:
    async with running_watcher() as watcher:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            watcher.attend(ours.fileno())
            with pytest.raises(FileExistsError):
                watcher.add(ours.fileno(), Recorder())
            assert watcher._watched == {}
            assert registered_descriptors(watcher) == 0
