"""Small answers over connections that stay open."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tests.benchmarks.client import connect, receive_head, request, sink
from tests.benchmarks.model import Scenario, Target

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

    from tests.benchmarks.model import Figures, Start
    from tests.benchmarks.process import ServerProcess

COST = "CPU us/request"


@dataclass(frozen=True)
class Requests(Scenario):
    """Keep-alive requests for 13 bytes, one under way on each connection."""

    name: ClassVar[str] = "requests"
    rounds: ClassVar[int] = 15
    cost: ClassVar[str] = COST
    baseline: ClassVar[str] = "bare trio + h11"
    targets = (
        Target("1 connection", COST, 1.6, is_ratio=True),
        Target("16 connections", COST, 1.6, is_ratio=True),
    )

    count: int = 2000
    connections: tuple[int, ...] = (1, 16)

    def measure(self, start: Start) -> Mapping[str, Figures]:
        rows = {}
        with start() as server:
            for connections in self.connections:
                name = f"{connections} connection{'s' if connections > 1 else ''}"
                exchange = Exchange(server, "/hello", b"Hello, World!", connections)
                rows[name] = exchange.measure(self.count)
        return rows


@dataclass(frozen=True)
class Exchange:
    """The same request over and over, one under way on each of some connections."""

    server: ServerProcess
    path: str
    answer: bytes
    connections: int

    def measure(self, count: int) -> Figures:
        """What `count` requests cost, after some to warm up."""
        with ExitStack() as stack:
            socks = [
                stack.enter_context(connect(self.server.port)) for _ in range(self.connections)
            ]
            size = self._first_answers(socks)
            turns = count // self.connections
            self._take_turns(socks, turns // 8, size)
            cpu, begin = self.server.cpu_seconds(), time.perf_counter()
            self._take_turns(socks, turns, size)
            elapsed = time.perf_counter() - begin
            cpu = self.server.cpu_seconds() - cpu
        requests = turns * self.connections
        return {COST: cpu / requests * 1e6, "requests/s": requests / elapsed}

    def _first_answers(self, socks: Sequence[socket.socket]) -> int:
        """Check one answer on each connection; their size, which is that of all later ones, too."""
        sizes = set()
        body = bytearray(len(self.answer))
        for sock in socks:
            sock.sendall(request(self.path))
            sizes.add(len(receive_head(sock)) + len(body))
            sink(sock, len(body), body)
            if body != self.answer:
                raise ConnectionError(f"the server answered {bytes(body)!r}")
        (size,) = sizes
        return size

    def _take_turns(self, socks: Sequence[socket.socket], turns: int, size: int) -> None:
        """One request on each connection, then the answers, and that `turns` times."""
        buffer = bytearray(size)
        data = request(self.path)
        for _ in range(turns):
            for sock in socks:
                sock.send(data)
            for sock in socks:
                sink(sock, size, buffer)
