"""Clients that ask for much and read nothing."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tests.benchmarks.client import connect, receive_head, request, sink
from tests.benchmarks.model import Scenario, Target
from tests.benchmarks.servers.notes import ENDLESS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.benchmarks.model import Figures, Start
    from tests.benchmarks.process import ServerProcess

_CHUNK_SIZE = 64 * 1024
_SHARED, _OWN, _STREAM = "one chunk for all", "a chunk each", "one long stream"
_PER_CLIENT, _GROWTH = "RSS KiB/client", "then grows KiB"


@dataclass(frozen=True)
class Stalled(Scenario):
    """Memory of clients that stop reading: RSS of the server, without the kernel's buffers.

    First over a long stream to one client, that pauses after its first part; then by clients that
    all wait for the same chunk object, and so hold nothing of their own, or for one of 64 KiB each.
    """

    name: ClassVar[str] = "stalled"
    rounds: ClassVar[int] = 3
    targets = (
        Target(_SHARED, _PER_CLIENT, 20),
        Target(_OWN, _PER_CLIENT, 64 + 20),
        Target(_SHARED, _GROWTH, 256),
        Target(_STREAM, _GROWTH, 256),
    )

    clients: int = 1000
    hold: float = 5
    first_part: int = 100 << 20
    total: int = 1 << 30

    def measure(self, start: Start) -> Mapping[str, Figures]:
        rows = {}
        with start() as server:
            rows[_STREAM] = self._measure_stream(server)
            rows[_SHARED] = self._measure_clients(server, f"/stream/{_CHUNK_SIZE}/{ENDLESS}")
        with start() as server:  # the memory that the others have left would be used again
            rows[_OWN] = self._measure_clients(server, f"/own/{_CHUNK_SIZE}/{ENDLESS}")
        return rows

    def _measure_clients(self, server: ServerProcess, path: str) -> Figures:
        with ExitStack() as stack:
            # The first one pays for what Python loads and allocates once.
            _stall(stack.enter_context(connect(server.port)), path)
            server.settle()
            before = server.rss_kib()
            for _ in range(self.clients):
                _stall(stack.enter_context(connect(server.port)), path)
            server.settle()
            after = server.rss_kib()
            time.sleep(self.hold)
            later = server.rss_kib()
        return {
            "clients": self.clients,
            "RSS KiB before": before,
            "RSS KiB after": after,
            _PER_CLIENT: (after - before) / self.clients,
            _GROWTH: later - after,
        }

    def _measure_stream(self, server: ServerProcess) -> Figures:
        buffer = bytearray(512 * 1024)
        with connect(server.port) as sock:
            sock.sendall(request(f"/stream/{_CHUNK_SIZE}/{self.total}"))
            receive_head(sock)
            sink(sock, self.first_part, buffer)
            server.settle()
            after = server.rss_kib()
            sink(sock, self.total - self.first_part, buffer)
            server.settle()
            later = server.rss_kib()
        return {"clients": 1, "RSS KiB after": after, _GROWTH: later - after}


def _stall(sock: socket.socket, path: str) -> None:
    """Ask, wait until the answer comes, and leave it there."""
    sock.sendall(request(path))
    sock.recv(1, socket.MSG_PEEK)
