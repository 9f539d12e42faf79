"""Many clients that download a large file slowly."""

from __future__ import annotations

import struct
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from resource import getpagesize
from socket import SOL_SOCKET
from typing import TYPE_CHECKING, ClassVar

from tests.benchmarks.client import connect, receive_head, request, sink
from tests.benchmarks.disk import provided
from tests.benchmarks.model import Scenario

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from tests.benchmarks.model import Figures, Start

_PER_CLIENT, _CPU = "RSS KiB/client", "CPU s"

_PIECE = 32 * 1024
_SO_MEMINFO = 55  # Python has no name for it


@dataclass(frozen=True)
class SlowFiles(Scenario):
    """Memory and time for 1000 clients that read 128 KiB of a file each second.

    The kernel's memory is what it charges to the server's sockets. Where a file is sent without
    a copy, these are pages of the file that are in memory anyway. So what the whole machine has
    less is told, too, which counts all that others use and free meanwhile.
    """

    name: ClassVar[str] = "slow_files"
    rounds: ClassVar[int] = 3

    clients: int = 1000
    size: int = 64 << 20
    turns: int = 20
    pause: float = 0.25

    @property
    def drawn(self) -> tuple[str, ...]:
        return _PER_CLIENT, _CPU

    def prepared(self) -> AbstractContextManager[None]:
        return provided(self.size)

    def measure(self, start: Start) -> Mapping[str, Figures]:
        buffer = bytearray(_PIECE)
        with start() as server, ExitStack() as stack:
            # The first one pays for what Python loads and allocates once.
            first = stack.enter_context(connect(server.port))
            self._ask(first)
            server.settle()
            rss, available, cpu = server.rss_kib(), _available_kib(), server.cpu_seconds()
            kernel = _charged_kib([first])
            socks = [stack.enter_context(connect(server.port)) for _ in range(self.clients)]
            for sock in socks:
                self._ask(sock)
            for _ in range(self.turns):
                time.sleep(self.pause)
                for sock in socks:
                    sink(sock, _PIECE, buffer)
            server.settle()
            available -= _available_kib()
            rss = server.rss_kib() - rss
            kernel = _charged_kib([first, *socks]) - kernel
            cpu = server.cpu_seconds() - cpu
        return {
            f"{self.clients} clients": {
                _PER_CLIENT: rss / self.clients,
                "kernel KiB/client": kernel / self.clients,
                "machine KiB/client": available / self.clients,
                _CPU: cpu,
            }
        }

    def _ask(self, sock: socket.socket) -> None:
        sock.sendall(request(f"/files/{self.size}"))
        receive_head(sock)


def _charged_kib(clients: Sequence[socket.socket]) -> float:
    """What the kernel charges to all TCP sockets but the client's."""
    line = next(s for s in Path("/proc/net/sockstat").read_text().splitlines() if s[:4] == "TCP:")
    total = int(line.split()[-1]) * getpagesize() // 1024
    return total - sum(map(_client_kib, clients))


def _client_kib(sock: socket.socket) -> float:
    """What it charges to this one: received, queued to send, and reserved (sock_diag(7))."""
    received, _, _, _, reserved, queued = struct.unpack_from(
        "6I", sock.getsockopt(SOL_SOCKET, _SO_MEMINFO, 64)
    )
    return float(received + reserved + queued) / 1024


def _available_kib() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
