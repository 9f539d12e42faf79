"""Thousands of clients at once, good and bad ones, for as long as wanted.

::

    python -m tests.benchmarks storm --rounds 1 --clients 2000 --seconds 600
"""

from __future__ import annotations

import hashlib
import random
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import trio

from tests.benchmarks.client import connect, get_json, receive_head, request, sink
from tests.benchmarks.model import Scenario, Target
from tests.clients import body, reset

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tests.benchmarks.model import Figures, Start
    from tests.benchmarks.process import ServerProcess

_Behaviour: TypeAlias = "Callable[[_Client], Awaitable[None]]"

_WRONG, _CUT, _LEFT, _P99, _KEPT = "wrong", "cut", "left behind", "p99 ms", "not ended in time"
_BLOCKS = "blocks, times fresh"

_SIZES = (13, 1000, 20_000, 100_000, 400_000)
_STARTS = 16
_PROBE_INTERVAL = 0.1
_GONE_IN = 30.0
"""How long the server may take to notice that all have gone, in seconds."""


@dataclass(frozen=True)
class Storm(Scenario):
    """Good clients beside slow, stalled, hostile and vanishing ones.

    Good clients check the hash of all that they receive: `wrong` answers, and those that were `cut`
    or never came. Bad ones count if the server has `not ended` them in time: a head that comes
    byte by byte, a body that stops, an answer that nobody reads, garbage. A probe asks for 13 bytes
    on a new connection ten times a second, from a process of its own. All that is left of them at
    the end is counted, and the blocks of memory that Python has in use are compared with those of
    the fresh server. Its RSS does not return to that level, as malloc and Python keep free memory:
    it is compared with that after a short storm of as many clients, which comes before it all.

    Attributes:
      clients: How many at once.
      seconds: How long new ones come.
      patience: How long, in seconds, a bad one waits to be ended; more than the server's timeouts.
      seed: Of all choices.
    """

    name: ClassVar[str] = "storm"
    rounds: ClassVar[int] = 1
    only_when_named: ClassVar[bool] = True
    targets = (
        Target("good", _WRONG, 0),
        Target("good", _CUT, 0),
        Target("bad", _KEPT, 0),
        Target("probe", _P99, 500),
        Target("server", _LEFT, 0),
        Target("server", _BLOCKS, 1.05),
    )

    clients: int = 200
    seconds: float = 20
    patience: float = 30
    seed: int = 1

    @property
    def time_limit(self) -> float:
        """Its length, and time to come and to go."""
        return self.seconds + 2 * self.patience + 120

    def measure(self, start: Start) -> Mapping[str, Figures]:
        with start() as server:
            blocks = _blocks(server)
            fresh = server.rss_kib()
            first = replace(self, seconds=min(self.seconds, 5), patience=min(self.patience, 2))
            trio.run(_Storm(server.port, first).blow)
            self._wait_until_gone(server)
            level, rss = _level(server), server.rss_kib()
            storm = _Storm(server.port, self)
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                probing = pool.submit(probe, server.port, self.seconds)
                watch = trio.run(storm.blow, server)
                delays = sorted(probing.result())
            self._wait_until_gone(server)
            left = sum(abs(a - b) for a, b in zip(_level(server), level, strict=True))
            after = server.rss_kib()
            blocks_after = _blocks(server)
        return {
            **{b.__name__.replace("_", " "): _figures(c) for b, c in storm.counts.items()},
            "good": _figures(sum((storm.counts[b] for b in set(_GOOD)), Counter())),
            "bad": _figures(sum((storm.counts[b] for b in set(_BAD)), Counter())),
            "probe": {
                "requests": len(delays),
                "p50 ms": delays[len(delays) // 2],
                _P99: delays[len(delays) * 99 // 100],
                "max ms": delays[-1],
            },
            "server": {
                "RSS MiB fresh": fresh / 1024,
                "RSS MiB before": rss / 1024,
                "RSS MiB at most": max(watch) / 1024,
                "RSS MiB after": after / 1024,
                "blocks fresh": blocks,
                _BLOCKS: blocks_after / blocks,
                _LEFT: left,
            },
        }

    def _wait_until_gone(self, server: ServerProcess) -> None:
        deadline = time.monotonic() + _GONE_IN
        while get_json(server.port, "/storm/state")["connections"] > 1:
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        server.settle()


class _Storm:
    """Clients that come and go, always as many at once.

    Attributes:
      counts: What became of those of each behaviour.
    """

    def __init__(self, port: int, scale: Storm) -> None:
        self.counts: dict[_Behaviour, Counter[str]] = {b: Counter() for b in _BEHAVIOURS}
        self._port = port
        self._scale = scale

    async def blow(self, server: ServerProcess | None = None) -> list[float]:
        """Let them come for the time given; the server's memory meanwhile."""
        memory: list[float] = []
        async with trio.open_nursery() as nursery:
            scale = self._scale
            deadline = trio.current_time() + scale.seconds
            nursery.cancel_scope.deadline = deadline + 2 * scale.patience
            for number in range(scale.clients):
                rng = random.Random(f"{scale.seed} {number}")
                nursery.start_soon(self._keep_coming, rng, deadline)
            while server is not None and trio.current_time() < deadline:
                memory.append(server.rss_kib())
                await trio.sleep(1)
        return memory

    async def _keep_coming(self, rng: random.Random, deadline: float) -> None:
        # Not all at the same moment.
        await trio.sleep(rng.uniform(0, min(5, self._scale.seconds / 2)))
        while trio.current_time() < deadline:
            behave = rng.choice(_BEHAVIOURS)
            counts = self.counts[behave]
            counts["clients"] += 1
            try:
                async with await trio.open_tcp_stream("127.0.0.1", self._port) as stream:
                    await behave(_Client(stream, counts, rng, self._scale.patience))
            except (trio.BrokenResourceError, OSError, _CutError):
                counts[_CUT] += behave in _GOOD


class _CutError(Exception):
    """The server has ended the stream before the end of an answer."""


class _Client:
    """One connection to the server.

    Attributes:
      stream: To it.
      counts: Where to note what happens.
      rng: For all choices.
      patience: How long it waits to be ended.
      pace: The most bytes that are read at once, and the seconds after that.
    """

    def __init__(
        self,
        stream: trio.SocketStream,
        counts: Counter[str],
        rng: random.Random,
        patience: float,
    ) -> None:
        self.stream = stream
        self.counts = counts
        self.rng = rng
        self.patience = patience
        self.pace: tuple[int, float] = (65536, 0)
        self._received = bytearray()

    def choose(self, *sizes: int) -> tuple[str, str]:
        """A path, and the hash of what it must give."""
        start, size = self.rng.randrange(_STARTS) * 4099, self.rng.choice(sizes or _SIZES)
        return f"/storm/{self.rng.choice(('known', 'chunked'))}/{start}/{size}", _hash(start, size)

    async def check_next(self, expected: str) -> None:
        """Receive the next answer, and compare its hash."""
        head = (await self._until(b"\r\n\r\n")).lower()
        digest = hashlib.sha256()
        if b"transfer-encoding: chunked" in head:
            while size := int(await self._until(b"\r\n"), 16):
                await self._exactly(size, digest.update)
                await self._until(b"\r\n")
            await self._until(b"\r\n")
        else:
            await self._exactly(
                int(head.partition(b"content-length:")[2].split()[0]), digest.update
            )
        self.counts["requests"] += 1
        if not head.startswith(b"http/1.1 200 ") or digest.hexdigest() != expected:
            self.counts[_WRONG] += 1

    async def wait_for_end(self) -> None:
        """Wait for the server to end the connection, which it must do in time."""
        with trio.move_on_after(self.patience) as scope, suppress(trio.BrokenResourceError):
            while await self.stream.receive_some(65536):
                pass
        self.counts[_KEPT] += scope.cancelled_caught

    async def _until(self, end: bytes) -> bytes:
        while (at := self._received.find(end)) < 0:
            await self._receive()
        taken = bytes(self._received[:at])
        del self._received[: at + len(end)]
        return taken

    async def _exactly(self, size: int, take: Callable[[bytes], None]) -> None:
        while size:
            if not self._received:
                await self._receive()
            data = bytes(self._received[:size])
            del self._received[:size]
            size -= len(data)
            take(data)

    async def _receive(self) -> None:
        most, pause = self.pace
        data = await self.stream.receive_some(most)
        if not data:
            raise _CutError
        self.counts["bytes"] += len(data)
        self._received += data
        await trio.sleep(pause)


# Good clients...


async def read_fast(client: _Client) -> None:
    path, expected = client.choose(100_000, 400_000)
    await client.stream.send_all(request(path))
    await client.check_next(expected)


async def read_slowly(client: _Client) -> None:
    # On loopback, a client tells of room when it has taken 64 KiB: slower would be stalled.
    client.pace = (client.rng.choice((8000, 16_000, 32_000)), client.rng.uniform(0.05, 0.2))
    path, expected = client.choose(20_000, 100_000, 400_000)
    await client.stream.send_all(request(path))
    await client.check_next(expected)


async def keep_alive(client: _Client) -> None:
    for _ in range(client.rng.randint(3, 10)):
        path, expected = client.choose()
        await client.stream.send_all(request(path))
        await client.check_next(expected)
        await trio.sleep(client.rng.uniform(0, 4))


async def pipeline(client: _Client) -> None:
    asked = [client.choose(13, 1000, 20_000) for _ in range(client.rng.randint(2, 20))]
    await client.stream.send_all(b"".join(request(path) for path, _ in asked))
    for _, expected in asked:
        await client.check_next(expected)
        await trio.sleep(client.rng.uniform(0, 0.3))


async def upload(client: _Client) -> None:
    start, size = client.rng.randrange(_STARTS) * 4099, client.rng.choice(_SIZES)
    data = bytes(body(start, size))
    head = f"POST /storm/upload HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
    await client.stream.send_all(head.encode())
    step = max(size // client.rng.choice((1, 3, 10)), 1)
    for offset in range(0, size, step):
        await client.stream.send_all(data[offset : offset + step])
        await trio.sleep(client.rng.uniform(0, 0.5))
    await client.check_next(hashlib.sha256(_hash(start, size).encode()).hexdigest())


# Bad ones...


async def send_head_slowly(client: _Client) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_trickle, client.stream, request("/hello")[:-2] + b"X: y\r\n" * 1000)
        await client.wait_for_end()
        nursery.cancel_scope.cancel()


async def _trickle(stream: trio.SocketStream, data: bytes) -> None:
    with suppress(trio.BrokenResourceError):
        for byte in data:
            await stream.send_all(bytes([byte]))
            await trio.sleep(0.5)


async def stop_body(client: _Client) -> None:
    head = b"POST /storm/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
    await client.stream.send_all(head + b"x" * client.rng.randrange(50_000))
    await client.wait_for_end()


async def stop_reading(client: _Client) -> None:
    await client.stream.send_all(request("/storm/known/0/16000000"))
    await client.stream.receive_some(client.rng.randint(1, 100_000))
    await trio.sleep(client.patience / 2)
    await client.wait_for_end()


async def send_garbage(client: _Client) -> None:
    await client.stream.send_all(client.rng.randbytes(client.rng.randint(1, 3000)))
    await client.wait_for_end()


async def vanish(client: _Client) -> None:
    path, _ = client.choose(400_000)
    await client.stream.send_all(request(path) * client.rng.choice((1, 1, 100)))
    await trio.sleep(client.rng.uniform(0, 3))
    with trio.move_on_after(1):
        await client.stream.receive_some(client.rng.randint(1, 100_000))
    if client.rng.random() < 0.8:
        await reset(client.stream)


async def half_close(client: _Client) -> None:
    path, _ = client.choose(400_000)
    await client.stream.send_all(request(path))
    await trio.sleep(client.rng.uniform(0, 2))
    await client.stream.send_eof()
    await client.wait_for_end()


_GOOD = (read_fast, read_slowly, read_slowly, keep_alive, keep_alive, keep_alive, pipeline, upload)
_BAD = (
    *(send_head_slowly, send_head_slowly, stop_body, stop_reading, send_garbage, vanish),
    half_close,
)
_BEHAVIOURS = (*_GOOD, *_BAD)


def probe(port: int, seconds: float) -> list[float]:
    """Ask for 13 bytes ten times a second: the milliseconds that each took."""
    delays = []
    begin = time.monotonic()
    for number in range(max(round(seconds / _PROBE_INTERVAL), 1)):
        time.sleep(max(begin + number * _PROBE_INTERVAL - time.monotonic(), 0))
        start = time.monotonic()
        with connect(port) as sock:
            sock.sendall(request("/hello"))
            receive_head(sock)
            sink(sock, 13, bytearray(13))
        delays.append((time.monotonic() - start) * 1000)
    return delays


def _figures(counts: Counter[str]) -> Figures:
    figures = {name: counts[name] for name in ("clients", "requests", _WRONG, _CUT, _KEPT)}
    return {**figures, "MiB": round(counts["bytes"] / (1 << 20))}


@lru_cache
def _hash(start: int, size: int) -> str:
    return hashlib.sha256(body(start, size)).hexdigest()


def _blocks(server: ServerProcess) -> int:
    """How many blocks of memory are in use, garbage not counted."""
    return int(get_json(server.port, "/storm/state")["blocks"])


def _level(server: ServerProcess) -> tuple[int, ...]:
    """What clients need: connections, responses, tasks, descriptors, registrations with epoll."""
    state = get_json(server.port, "/storm/state")
    server.settle()
    counts = (state["connections"], state["responses"], state["tasks"])
    return (*counts, server.descriptors(), server.watches())
