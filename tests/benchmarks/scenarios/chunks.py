"""One large body of known length, to one client that reads as fast as it can."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tests.benchmarks.client import connect, receive_head, request, sink
from tests.benchmarks.model import Scenario, Target

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.benchmarks.model import Figures, Start

COST = "CPU s/GiB"

_WARM_UP = 16 * 1024 * 1024


@dataclass(frozen=True)
class Chunks(Scenario):
    """Streaming a known length from memory, one connection, chunk by chunk."""

    name: ClassVar[str] = "chunks"
    cost: ClassVar[str] = COST
    baseline: ClassVar[str] = "bare epoll"
    targets = (
        Target("64 KiB", COST, 1.25, is_ratio=True),
        Target("16 KiB", COST, 1.6, is_ratio=True),
    )

    total: int = 2 << 30
    chunk_sizes: tuple[int, ...] = (64 * 1024, 16 * 1024)

    def measure(self, start: Start) -> Mapping[str, Figures]:
        rows = {}
        buffer = bytearray(512 * 1024)
        with start() as server:
            for chunk_size in self.chunk_sizes:
                with connect(server.port) as sock:
                    for total in (min(_WARM_UP, self.total), self.total):
                        cpu, now = server.cpu_seconds(), time.perf_counter()
                        sock.sendall(request(f"/stream/{chunk_size}/{total}"))
                        receive_head(sock)
                        sink(sock, total, buffer)
                cpu, now = server.cpu_seconds() - cpu, time.perf_counter() - now
                gib = self.total / (1 << 30)
                rows[f"{chunk_size // 1024} KiB"] = {COST: cpu / gib, "GiB/s": gib / now}
        return rows
