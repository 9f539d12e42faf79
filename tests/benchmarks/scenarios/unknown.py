"""One large body of unknown length, against the same body with its length known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tests.benchmarks.client import connect, receive_head, request, sink
from tests.benchmarks.model import Scenario, Target

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from tests.benchmarks.model import Figures, Start
    from tests.benchmarks.process import ServerProcess

COST = "CPU s/GiB"
RATIO = "of known length"

_WARM_UP = 16 * 1024 * 1024


@dataclass(frozen=True)
class Unknown(Scenario):
    """Streaming an unknown length (chunked), and a known one, in turns on one connection."""

    name: ClassVar[str] = "unknown"
    rounds: ClassVar[int] = 7
    targets = (Target("64 KiB", RATIO, 1.15),)

    total: int = 256 << 20
    turns: int = 3
    chunk_sizes: tuple[int, ...] = (64 * 1024, 16 * 1024)

    def measure(self, start: Start) -> Mapping[str, Figures]:
        rows = {}
        with start() as server, connect(server.port) as sock:
            for chunk_size in self.chunk_sizes:
                download = _Download(server, sock, chunk_size)
                download.known(min(_WARM_UP, self.total))
                download.unknown(min(_WARM_UP, self.total))
                known = unknown = 0.0
                for _ in range(self.turns):
                    known += download.known(self.total)
                    unknown += download.unknown(self.total)
                gib = self.turns * self.total / (1 << 30)
                rows[f"{chunk_size // 1024} KiB"] = {COST: unknown / gib, RATIO: unknown / known}
        return rows


class _Download:
    """Downloads the same chunks in both ways, and gives the CPU seconds."""

    def __init__(self, server: ServerProcess, sock: socket.socket, chunk_size: int) -> None:
        self._server = server
        self._sock = sock
        self._chunk_size = chunk_size
        self._buffer = bytearray(512 * 1024)

    def known(self, total: int) -> float:
        return self._measure("stream", total, total)

    def unknown(self, total: int) -> float:
        framing = len(b"%x\r\n\r\n" % self._chunk_size)  # of each chunk, which is one frame
        end = len(b"0\r\n\r\n")
        return self._measure("unknown", total, total + total // self._chunk_size * framing + end)

    def _measure(self, path: str, total: int, wire_size: int) -> float:
        before = self._server.cpu_seconds()
        self._sock.sendall(request(f"/{path}/{self._chunk_size}/{total}"))
        receive_head(self._sock)
        sink(self._sock, wire_size, self._buffer)
        return self._server.cpu_seconds() - before
