"""Thousands of clients that read slowly, in a process of their own, and a probe beside them."""

from __future__ import annotations

import os
import socket
import struct
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, ClassVar

from tests.benchmarks.client import connect, receive_head, request
from tests.benchmarks.model import Scenario, Target
from tests.benchmarks.probe import Delays, Probe
from tests.benchmarks.servers.chunk import make_chunk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from multiprocessing.connection import Connection

    from tests.benchmarks.model import Figures, Start
    from tests.benchmarks.process import ServerProcess

_PER_CLIENT, _CPU, _P99, _WRONG = "RSS KiB/client", "CPU s", "p99 ms", "wrong"

_CHUNK_SIZE = 64 * 1024

_PEERS = ("Hypercorn", "uvicorn + h11", "uvicorn + httptools", "granian", "aiohttp")


@dataclass(frozen=True)
class Readers(Scenario):
    """Slow readers, of whom each takes 1 MiB in 10 seconds, and a probe beside them.

    First a quarter of them, then all. They wait for the same chunk object, so that what the server
    keeps for each is what it has beyond a chunk: the most in samples of its RSS. Every byte is
    compared; a reader is `wrong` that received something else, not all, or more. When all have
    begun, a probe asks for 13 bytes, 200 times a second, on one connection.

    Attributes:
      clients: How many.
      seconds: How long each takes, if the server keeps up.
      total: What each reads, in bytes.
      bites: How often it reads.
      patience: How long the server may be late, in seconds.
    """

    name: ClassVar[str] = "readers"
    rounds: ClassVar[int] = 3
    cost: ClassVar[str] = _P99
    baseline: ClassVar[str] = "uvicorn + httptools"

    clients: int = 4000
    seconds: float = 10
    total: int = 1 << 20
    bites: int = 20
    patience: float = 100

    @property
    def drawn(self) -> tuple[str, ...]:
        return _PER_CLIENT, _CPU, _P99

    @property
    def targets(self) -> tuple[Target, ...]:
        """All of them at once; the probe beside that of each peer."""
        row = _row(self.clients)
        return (
            Target(row, _PER_CLIENT, 16),
            Target(row, _WRONG, 0),
            *(Target(row, _P99, 1, is_ratio=True, to=peer) for peer in _PEERS),
        )

    @property
    def time_limit(self) -> float:
        """Some servers are late."""
        return 2 * (self.seconds + self.patience)

    def measure(self, start: Start) -> Mapping[str, Figures]:
        rows = {}
        with _readers(self) as readers:
            for clients in (self.clients // 4, self.clients):
                with start() as server:
                    rows[_row(clients)] = self._measure(server, readers, clients)
        return rows

    def _measure(self, server: ServerProcess, readers: Connection, clients: int) -> Figures:
        with _reading(readers, server.port, 1):
            readers.recv()  # it pays for what Python loads and allocates once
            readers.recv()
        server.settle()
        rss, cpu = server.rss_kib(), server.cpu_seconds()
        with _reading(readers, server.port, clients):
            readers.recv()
            samples = [server.rss_kib()]

            def watch() -> None:
                while not readers.poll(min(1, self.seconds / 4)):
                    samples.append(server.rss_kib())

            with connect(server.port) as sock:
                _wait_at_most(sock, self.patience)
                begin = time.perf_counter()
                probe = Probe(sock)
                first_delay = (time.perf_counter() - begin) * 1000
                delays = Delays([first_delay, *probe.delays_beside(watch)])
            wrong, elapsed = readers.recv()
            cpu = server.cpu_seconds() - cpu
        return {
            _PER_CLIENT: (max(samples) - rss) / clients,
            _CPU: cpu,
            "seconds": elapsed,
            "p50 ms": delays.percentile(50),
            _P99: delays.percentile(99),
            "max ms": delays.percentile(100),
            _WRONG: wrong,
        }


def _row(clients: int) -> str:
    return f"{clients} readers"


@contextmanager
def _readers(scenario: Readers) -> Iterator[Connection]:
    """A process for `_reading`: one for all, as it takes longer to start than to read."""
    spawn = get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_read_as_told, args=(scenario, theirs))
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        process.kill()
        process.join()
        ours.close()


@contextmanager
def _reading(readers: Connection, port: int, clients: int) -> Iterator[None]:
    """Have so many read, which say when they have begun and what came, and leave with the block."""
    readers.send((port, clients))
    yield
    readers.send("leave")


def _read_as_told(scenario: Readers, orders: Connection) -> None:
    os.nice(10)  # the probe has the same core
    while True:
        port, clients = orders.recv()
        with ExitStack() as stack:
            readers = [_Reader(port, scenario.total) for _ in range(clients)]
            for reader in readers:
                stack.callback(reader.close)
            _read_slowly(readers, scenario, orders)
            orders.recv()


def _read_slowly(readers: Sequence[_Reader], scenario: Readers, report: Connection) -> None:
    for reader in readers:
        reader.ask()
    for reader in readers:
        reader.begin()
    report.send("begun")
    begin = time.monotonic()
    for bite in range(scenario.bites):
        for number, reader in enumerate(readers):
            due = begin + (bite + number / len(readers)) / scenario.bites * scenario.seconds
            if (early := due - time.monotonic()) > 0.001:
                time.sleep(early)
            reader.read_up_to(scenario.total * (bite + 1) // scenario.bites)
    deadline = begin + scenario.seconds + scenario.patience
    late = [reader for reader in readers if reader.reads_on]
    while late and time.monotonic() < deadline:
        time.sleep(0.01)
        for reader in late:
            reader.read_up_to(scenario.total)
        late = [reader for reader in late if reader.reads_on]
    elapsed = time.monotonic() - begin
    report.send((sum(not reader.is_right() for reader in readers), elapsed))


class _Reader:
    """One of them. It compares what it receives.

    Attributes:
      reads_on: Whether something is still to come.
    """

    def __init__(self, port: int, total: int) -> None:
        self.reads_on = True
        self._sock = connect(port)
        self._total = total
        self._received = 0
        # What comes from any place within the chunk on.
        self._expected = make_chunk(_CHUNK_SIZE) * 2

    def close(self) -> None:
        self._sock.close()

    def ask(self) -> None:
        self._sock.sendall(request(f"/stream/{_CHUNK_SIZE}/{self._total}"))

    def begin(self) -> None:
        receive_head(self._sock)
        self._sock.setblocking(False)

    def read_up_to(self, size: int) -> None:
        """Read what there is, but no more than `size` bytes since the beginning."""
        while self.reads_on and self._received < size:
            try:
                data = self._sock.recv(min(size - self._received, _CHUNK_SIZE))
            except BlockingIOError:
                return
            except ConnectionError:
                data = b""
            is_right = data and self._expected.startswith(data, self._received % _CHUNK_SIZE)
            self._received += len(data)
            self.reads_on = bool(is_right) and self._received < self._total

    def is_right(self) -> bool:
        """Whether all came as it should, and nothing behind it."""
        try:
            return self._received == self._total and not self._sock.recv(1)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False


def _wait_at_most(sock: socket.socket, seconds: float) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(seconds), 0))
