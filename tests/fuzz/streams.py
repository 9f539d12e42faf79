"""The server's end of a connection to a scripted client, in memory or on a real socket."""

from __future__ import annotations

import errno
import os
import socket
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from unittest.mock import patch

import trio

from tests.clients import reset
from trio_stream import _socket_transport

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.fuzz.cases import Call, Case
    from trio_stream._readiness import ReadinessWatcher

PATIENCE = 300.0
"""After so many seconds without the end of the stream, a client that stays goes away."""


class Faults:
    """The faults of a case, each at its turn.

    Attributes:
      happened: Whether there was any.
    """

    def __init__(self, case: Case, *, is_stream: bool = True) -> None:
        self.happened = False
        self._is_stream = is_stream  # else nobody but the server closes it, nor does its end wait
        self._faults = {(fault.call, fault.index): fault.what for fault in case.faults}
        self._calls: Counter[Call] = Counter()

    def next(self, call: Call) -> str | None:
        """What becomes of the next call of this kind; `None` if it works."""
        index = self._calls[call]
        self._calls[call] += 1
        what = self._faults.get((call, index))
        self.happened = self.happened or what is not None
        return what

    async def raise_next(self, call: Call) -> str | None:
        """Let the next call fail, if it is to fail by an exception or by never returning."""
        what = self.next(call)
        if what == "closed" and self._is_stream:
            raise trio.ClosedResourceError(f"fault: {what}")
        if what in ("broken", "closed", *errno.errorcode.values()):
            raise trio.BrokenResourceError(f"fault: {what}")
        if what == "block" and (self._is_stream or call != "eof"):
            await trio.sleep_forever()
        return what


class ScriptedStream(trio.abc.HalfCloseableStream):
    """A stream in memory whose other end does what a case says.

    Attributes:
      wire: What the server has sent.
      is_closed: Whether it has closed the stream.
      misuse: What it must not do with a stream, but did.
    """

    def __init__(self, case: Case) -> None:
        self.wire = bytearray()
        self.is_closed = False
        self.misuse: str | None = None
        self.faults = Faults(case)
        self._case = case
        self._to_come = list(reversed(case.pieces))
        self._is_over = trio.Event()
        self._was_reset = False
        self._calls: set[str] = set()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        with self._only("receive_some"):
            await trio.lowlevel.checkpoint()
            what = await self.faults.raise_next("receive")
            if what == "end":
                self._to_come = []
                return b""
            if not self._to_come:
                return await self._end()
            if self._case.pause:
                await trio.sleep(self._case.pause)
            piece = self._to_come.pop()
            size = 1 if what == "one byte" else max_bytes
            if rest := piece[size:] if size else b"":
                self._to_come.append(rest)
            return piece[:size]

    async def _end(self) -> bytes:
        if self._case.ending == "reset":
            self._was_reset = True
            raise trio.BrokenResourceError("the client has gone")
        if self._case.ending == "stay":
            with trio.move_on_after(PATIENCE):
                await self._is_over.wait()
        return b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._only("send_all"):
            await trio.lowlevel.checkpoint()
            if self._is_over.is_set():
                self.misuse = "it was sent to after its end"
            what = await self.faults.raise_next("send")
            if self._was_reset:
                raise trio.BrokenResourceError("the client has gone")
            if self._case.slowness:
                await trio.sleep(self._case.slowness)
            if what == "one byte":
                self.wire += data[:1]
                await trio.sleep(1)
                self.wire += data[1:]
            else:
                self.wire += data

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def send_eof(self) -> None:
        with self._only("send_all"):
            self._is_over.set()
            await trio.lowlevel.checkpoint()
            await self.faults.raise_next("eof")

    async def aclose(self) -> None:
        self.is_closed = True
        self._is_over.set()
        await trio.lowlevel.checkpoint()
        await self.faults.raise_next("close")

    @contextmanager
    def _only(self, call: str) -> Iterator[None]:
        if self.is_closed:
            raise trio.ClosedResourceError
        if call in self._calls:
            self.misuse = f"two tasks were in {call}"
        self._calls.add(call)
        try:
            yield
        finally:
            self._calls.discard(call)


def _let_fail(stream: trio.SocketStream, faults: Faults) -> None:
    """Let the calls of a socket fail; those that send do in `failing_os`.

    `trio.SocketStream` can't be derived from, and a server asks whether it has one.
    """
    receive_some, send_eof, aclose = stream.receive_some, stream.send_eof, stream.aclose

    async def faulty_receive_some(max_bytes: int | None = None) -> bytes | bytearray:
        what = await faults.raise_next("receive")
        if what == "end":
            return b""
        return await receive_some(1 if what == "one byte" else max_bytes)

    async def faulty_send_eof() -> None:
        await faults.raise_next("eof")
        await send_eof()

    async def faulty_aclose() -> None:
        await aclose()
        await faults.raise_next("close")

    vars(stream).update(
        receive_some=faulty_receive_some, send_eof=faulty_send_eof, aclose=faulty_aclose
    )


class _FailingOs:
    """The part of `os` that sends, for one socket; all else is the real thing."""

    def __init__(self, fd: int, faults: Faults, watcher: ReadinessWatcher) -> None:
        self._faults = faults
        self._fd = fd
        self._watcher = watcher

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    def write(self, fd: int, data: bytes) -> int:
        most = self._most("send")
        return os.write(fd, data if most is None else data[:most])

    def writev(self, fd: int, pieces: Sequence[bytes]) -> int:
        most = self._most("send")
        return os.writev(fd, pieces) if most is None else os.write(fd, pieces[0][:most])

    def sendfile(self, fd: int, file: int, offset: int, count: int) -> int:
        what = self._most("sendfile")
        return os.sendfile(fd, file, offset, count if what is None else what)

    def _most(self, call: Call) -> int | None:
        """How much is sent by the next call, if it sends; `None` for what goes."""
        what = self._faults.next(call)
        if what is None:
            return None
        if what in ("again", "one byte", "block"):
            # What did not go though there is room makes no edge of its own.
            self._watcher.notify_soon(self._fd)
            if what == "one byte":
                return 1
            raise BlockingIOError(errno.EAGAIN, "fault")
        name = {"broken": "ECONNRESET", "closed": "EBADF"}.get(what, what)
        raise OSError(getattr(errno, name), "fault")


@contextmanager
def failing_os(fd: int, faults: Faults, watcher: ReadinessWatcher) -> Iterator[None]:
    """Let the calls that send to `fd` fail, for the length of the block."""
    with patch.object(_socket_transport, "os", _FailingOs(fd, faults, watcher)):
        yield


def open_pair(faults: Faults) -> tuple[trio.SocketStream, trio.SocketStream]:
    """The client's end of a connection with little room, and the server's, which fails."""
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    client, server = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in ends)
    _let_fail(server, faults)
    return client, server


async def be_client(stream: trio.SocketStream, case: Case, wire: bytearray) -> None:
    """Do what the case says; what comes is added to `wire`."""
    gone = (trio.BrokenResourceError, trio.ClosedResourceError)
    async with stream:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send, stream, case)
            with suppress(*gone), trio.move_on_after(PATIENCE):
                await _receive(stream, case, wire)
            nursery.cancel_scope.cancel()
        with suppress(*gone):
            await stream.send_eof()
            await _receive(stream, case, wire)


async def _send(stream: trio.SocketStream, case: Case) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        for piece in case.pieces:
            await trio.sleep(case.pause)
            await stream.send_all(piece)
        if case.ending == "fin":
            await stream.send_eof()
        elif case.ending == "reset":
            await reset(stream)


async def _receive(stream: trio.SocketStream, case: Case, wire: bytearray) -> None:
    size = 300 if case.slowness else 65536
    while data := await stream.receive_some(size):
        wire += data
        if case.slowness:
            await trio.sleep(case.slowness)
