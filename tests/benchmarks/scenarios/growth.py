"""The same load from ever more connections."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tests.benchmarks.client import (
    connect,
    discard,
    discard_together,
    receive_head,
    request,
    reset_on_close,
)
from tests.benchmarks.model import Scenario, Target
from tests.benchmarks.scenarios.requests import Exchange
from tests.benchmarks.servers.notes import ENDLESS
from tests.benchmarks.spending import PER_GIB, PER_REQUEST, Spending

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping, Sequence

    from tests.benchmarks.model import Figures, Start
    from tests.benchmarks.process import ServerProcess

_TIMES = "times the first"
_CHUNK_SIZE = 64 * 1024

# Of a client, doubled by the kernel. If it grew as it may, to 32 MiB, so much would be under way
# that the kernel ran short of memory for TCP, and with 1000 clients that alone would be measured.
_RECEIVE_BUFFER = 64 * 1024


@dataclass(frozen=True)
class Growth(Scenario):
    """Streams in chunks of 64 KiB, and small requests, on 1 to 4000 connections.

    All connections stream at once, without end; what is counted begins when each has received its
    first part, so that it is free of what requests cost, and of what a server does while it does
    not know its client: the first MiB cost `trio_stream` 1.4 times as much. The clients discard
    what they receive.
    """

    name: ClassVar[str] = "growth"
    rounds: ClassVar[int] = 5
    cost: ClassVar[str] = PER_GIB
    baseline: ClassVar[str] = "trio_stream"

    connections: tuple[int, ...] = (1, 10, 100, 1000, 4000)
    total: int = 1 << 30
    # Of each stream, as in `chunks`: it is parked when that begins, and when it ends. With 1000
    # streams of 4 MiB, that was a tenth of what they cost.
    least: int = 16 << 20
    first_part: int = 1 << 20
    requests: int = 4000

    @property
    def drawn(self) -> tuple[str, ...]:
        return PER_GIB, PER_REQUEST

    @property
    def targets(self) -> tuple[Target, ...]:
        """Of as many as 1000, if there are such."""
        many = max(connections for connections in self.connections if connections <= 1000)
        return (Target(_row(many), _TIMES, 1.3),)

    @property
    def time_limit(self) -> float:
        """There are several measurements in a round."""
        return 300

    def measure(self, start: Start) -> Mapping[str, Figures]:
        rows: dict[str, Figures] = {}
        first_cost = None
        for connections in self.connections:
            with start() as server:
                exchange = Exchange(server, "/hello", b"Hello, World!", connections)
                requests = exchange.measure(max(self.requests, 2 * connections))
                stream = self._stream(server, connections)
            first_cost = first_cost or stream[PER_GIB]
            rows[_row(connections)] = {
                PER_GIB: stream[PER_GIB],
                _TIMES: stream[PER_GIB] / first_cost,
                **requests,
            }
        return rows

    def _stream(self, server: ServerProcess, connections: int) -> Figures:
        with streams(server.port, connections) as socks:
            discard(socks, self.first_part)
            return measure_streams(server, socks, max(self.total, connections * self.least))


def _row(connections: int) -> str:
    return f"{connections} connection{'s' if connections > 1 else ''}"


@contextmanager
def streams(port: int, connections: int) -> Iterator[Sequence[socket.socket]]:
    """So many streams without end, that have begun, and are reset at the end of the block."""
    with ExitStack() as stack:
        socks = [
            stack.enter_context(connect(port, receive_buffer=_RECEIVE_BUFFER))
            for _ in range(connections)
        ]
        for sock in socks:
            reset_on_close(sock)
            sock.sendall(request(f"/stream/{_CHUNK_SIZE}/{ENDLESS}"))
        for sock in socks:
            receive_head(sock)
        yield socks


def measure_streams(server: ServerProcess, socks: Sequence[socket.socket], total: int) -> Figures:
    """What the next `total` bytes of them together cost, from full buffers to full buffers."""
    server.settle()
    cpu, client_cpu = server.cpu_seconds(), time.process_time()
    begin = time.perf_counter()
    discard_together(socks, total)
    elapsed = time.perf_counter() - begin
    client_cpu = time.process_time() - client_cpu
    server.settle()
    return Spending(1, server.cpu_seconds() - cpu, client_cpu, elapsed).for_bytes(total)
