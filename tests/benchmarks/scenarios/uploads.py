"""One large request body, from a client that sends as fast as it can."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tests.benchmarks.client import connect, receive_head, sink
from tests.benchmarks.model import Scenario, Target

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from tests.benchmarks.model import Figures, Start

COST = "CPU s/GiB"

_PIECE = bytes(256 * 1024)
_WARM_UP = 16 * 1024 * 1024


@dataclass(frozen=True)
class Uploads(Scenario):
    """Receiving a body of known length, piece by piece, and dropping it."""

    name: ClassVar[str] = "uploads"
    rounds: ClassVar[int] = 15
    cost: ClassVar[str] = COST
    baseline: ClassVar[str] = "bare trio + h11"
    targets = (Target("upload", COST, 1.5, is_ratio=True),)

    total: int = 512 << 20

    def measure(self, start: Start) -> Mapping[str, Figures]:
        with start() as server, connect(server.port) as sock:
            _upload(sock, min(_WARM_UP, self.total))
            cpu, begin = server.cpu_seconds(), time.perf_counter()
            _upload(sock, self.total)
            elapsed = time.perf_counter() - begin
            cpu = server.cpu_seconds() - cpu
        gib = self.total / (1 << 30)
        return {"upload": {COST: cpu / gib, "GiB/s": gib / elapsed}}


def _upload(sock: socket.socket, total: int) -> None:
    head = f"POST /upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {total}\r\n\r\n"
    sock.sendall(head.encode())
    for _ in range(total // len(_PIECE)):
        sock.sendall(_PIECE)
    receive_head(sock)
    sink(sock, len(b"Hello, World!"), bytearray(64))
