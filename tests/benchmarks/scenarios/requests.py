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

COST = "CPU us/request"

_REQUEST = request("/hello")
_ANSWER = b"Hello, World!"


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
                with ExitStack() as stack:
                    socks = [stack.enter_context(connect(server.port)) for _ in range(connections)]
                    size = _first_answers(socks)
                    _exchange(socks, self.count // connections // 8, size)
                    cpu, begin = server.cpu_seconds(), time.perf_counter()
                    turns = self.count // connections
                    _exchange(socks, turns, size)
                    elapsed = time.perf_counter() - begin
                    cpu = server.cpu_seconds() - cpu
                requests = turns * connections
                name = f"{connections} connection{'s' if connections > 1 else ''}"
                rows[name] = {COST: cpu / requests * 1e6, "requests/s": requests / elapsed}
        return rows


def _first_answers(socks: Sequence[socket.socket]) -> int:
    """Check one answer on each connection; their size, which is that of all later ones, too."""
    sizes = set()
    body = bytearray(len(_ANSWER))
    for sock in socks:
        sock.sendall(_REQUEST)
        sizes.add(len(receive_head(sock)) + len(body))
        sink(sock, len(body), body)
        if body != _ANSWER:
            raise ConnectionError(f"the server answered {bytes(body)!r}")
    (size,) = sizes
    return size


def _exchange(socks: Sequence[socket.socket], turns: int, size: int) -> None:
    """One request on each connection, then the answers, and that `turns` times."""
    buffer = bytearray(size)
    for _ in range(turns):
        for sock in socks:
            sock.send(_REQUEST)
        for sock in socks:
            sink(sock, size, buffer)
