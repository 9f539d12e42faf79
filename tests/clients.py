"""Clients over real sockets, and a body that gives every misplaced byte away."""

from __future__ import annotations

import functools
import gc
import math
import random
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

from tests.harness import connect, without_date

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_stream._readiness import ReadinessWatcher

T = TypeVar("T")

# The body repeats after this many bytes. It is prime, so that no chunk, buffer or page size divides
# it: what is sent twice, left out or swapped does not fit where it arrives.
BODY_PERIOD = 1_048_583

LARGEST_CHUNK = 16 * 1024 * 1024


@functools.cache
def _endless_body() -> memoryview:
    counters = b"".join(n.to_bytes(4, "big") for n in range(BODY_PERIOD // 4 + 1))[:BODY_PERIOD]
    return memoryview(counters * (LARGEST_CHUNK // BODY_PERIOD + 2))


def body(start: int, size: int) -> memoryview:
    """`size` bytes, at most `LARGEST_CHUNK`, of an endless body, from the offset `start` on."""
    assert size <= LARGEST_CHUNK
    begin = start % BODY_PERIOD
    return _endless_body()[begin : begin + size]


class BodyCheck:
    """Compares a body with `body`, piece by piece as it arrives.

    Attributes:
      size: How much has arrived.
    """

    def __init__(self) -> None:
        self.size = 0

    def feed(self, data: bytes | bytearray) -> None:
        expected = bytes(body(self.size, len(data)))
        if data != expected:
            wrong = next(i for i, (x, y) in enumerate(zip(data, expected, strict=True)) if x != y)
            at, shown = self.size + wrong, bytes(data[wrong : wrong + 8])
            raise AssertionError(f"at offset {at}: {shown!r}, not {expected[wrong : wrong + 8]!r}")
        self.size += len(data)


class Bursts:
    """Reads as a busy client does: 1 byte to 64 KiB at a time, and now and then not for a while."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    async def next_size(self) -> int:
        for _ in range(self._rng.choice((0, 0, 0, 0, 5))):
            await trio.lowlevel.checkpoint()
        return self._rng.choice((1, *(self._rng.randint(1, most) for most in (4096, 65536, 65536))))


class Answers:
    """Checks the answers on one connection, which hold the `body` of some size each."""

    def __init__(self, stream: trio.SocketStream, bursts: Bursts | None = None) -> None:
        self._stream = stream
        self._bursts = bursts
        self._received = bytearray()

    async def check_next(self, size: int, *, last: bool) -> None:
        """Check the next answer to its last byte; the `last` one says so, and ends with a FIN."""
        while (end := self._received.find(b"\r\n\r\n") + 4) < 4:
            self._received += await self._receive()
        head = without_date(bytes(self._received[:end]))
        del self._received[:end]
        connection = b"Connection: close\r\n" if last else b""
        assert head == b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n" % (size, connection)
        check = BodyCheck()
        check.feed(self._received[:size])
        del self._received[:size]
        while check.size < size:
            data = await self._receive()
            missing = size - check.size
            check.feed(data[:missing])
            self._received += data[missing:]
        if last:
            assert bytes(self._received) == b""
            assert await self._stream.receive_some() == b""

    async def _receive(self) -> bytes:
        max_bytes = await self._bursts.next_size() if self._bursts else 262144
        data = await self._stream.receive_some(max_bytes)
        assert data, "the server closed in the middle of an answer"
        return bytes(data)


async def download(
    port: int,
    targets: dict[str, int],
    *,
    bursts: Bursts | None = None,
    receive_buffer: int | None = None,
) -> None:
    """GET `targets`, whose answers have these sizes, pipelined on a connection of its own."""
    *_, last = targets
    async with await connect(port, receive_buffer=receive_buffer) as stream:
        for target in targets:
            close = "Connection: close\r\n" if target == last else ""
            await stream.send_all(f"GET {target} HTTP/1.1\r\nHost: x\r\n{close}\r\n".encode())
        answers = Answers(stream, bursts)
        for target, size in targets.items():
            await answers.check_next(size, last=target == last)


class Told(Generic[T]):
    """What a callback was told: each once, in order."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[T](math.inf)

    def tell(self, what: T) -> None:
        self._send.send_nowait(what)

    async def next(self) -> T:
        """The oldest that was not taken yet; waits for one."""
        return await self._receive.receive()

    def take_all(self) -> list[T]:
        """All that were not taken yet."""
        taken = []
        with suppress(trio.WouldBlock):
            while True:
                taken.append(self._receive.receive_nowait())
        return taken


async def open_socket_pair(
    *, receive_buffer: int | None = None
) -> tuple[trio.SocketStream, trio.SocketStream]:
    """A TCP connection: the client's end, and the server's."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await connect(listener.socket.getsockname()[1], receive_buffer=receive_buffer)
        return client, await listener.accept()


async def reset(stream: trio.SocketStream) -> None:
    """Close `stream` with a RST instead of a FIN."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await stream.aclose()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what no event tells, such as the other side of a socket having been served."""
    while not condition():
        await trio.sleep(0.001)


def open_descriptors() -> set[tuple[str, str]]:
    """Each open descriptor of this process, with what it refers to."""
    descriptors = set()
    for path in list(Path("/proc/self/fd").iterdir()):
        with suppress(FileNotFoundError):  # it was the one that the directory was read by
            descriptors.add((path.name, str(path.readlink())))
    return descriptors


def settled_descriptors() -> set[tuple[str, str]]:
    """The same, without those of the garbage of other tests, which could go at any time."""
    gc.collect()
    return open_descriptors()


def registered_descriptors(watcher: ReadinessWatcher) -> int:
    """How many descriptors the kernel watches for `watcher`."""
    return Path(f"/proc/self/fdinfo/{watcher._epoll.fileno()}").read_text().count("tfd:")
