"""One large body of known length, to one client that reads as fast as it can."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tests.benchmarks.client import connect, receive_head, request, sink
from tests.benchmarks.model import Scenario, Target

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from tests.benchmarks.model import Figures, Start

COST = "CPU s/GiB"

_WARM_UP = 16 * 1024 * 1024


@dataclass(frozen=True)
class Chunks(Scenario):
    """Streaming a known length from memory, one connection, chunk by chunk."""

    name: ClassVar[str] = "chunks"
    rounds: ClassVar[int] = 15
    cost: ClassVar[str] = COST
    baseline: ClassVar[str] = "bare epoll"
    targets = (
        Target("64 KiB", COST, 1.25, is_ratio=True),
        Target("16 KiB", COST, 1.6, is_ratio=True),
    )

    total: int = 512 << 20
    chunk_sizes: tuple[int, ...] = (64 * 1024, 16 * 1024)

    def measure(self, start: Start) -> Mapping[str, Figures]:
        rows = {}
        buffer = bytearray(512 * 1024)
        with start() as server:
            for chunk_size in self.chunk_sizes:
                with connect(server.port) as sock:
                    _download(sock, chunk_size, min(_WARM_UP, self.total), buffer)
                    cpu, begin = server.cpu_seconds(), time.perf_counter()
                    _download(sock, chunk_size, self.total, buffer)
                    elapsed = time.perf_counter() - begin
                    cpu = server.cpu_seconds() - cpu
                gib = self.total / (1 << 30)
                rows[f"{chunk_size // 1024} KiB"] = {COST: cpu / gib, "GiB/s": gib / elapsed}
        return rows


def _download(sock: socket.socket, chunk_size: int, total: int, buffer: bytearray) -> None:
    sock.sendall(request(f"/stream/{chunk_size}/{total}"))
    receive_head(sock)
    sink(sock, total, buffer)
