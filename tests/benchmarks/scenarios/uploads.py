"""One large request body, from a client that sends as fast as it can."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from tests.benchmarks.client import connect, receive_head, sink
from tests.benchmarks.model import Scenario, Target
from tests.benchmarks.spending import PER_GIB, spending

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from tests.benchmarks.model import Figures, Start

_PIECE = bytes(256 * 1024)
_WARM_UP = 16 << 20


@dataclass(frozen=True)
class Uploads(Scenario):
    """Receiving a body of known length, piece by piece, and dropping it."""

    name: ClassVar[str] = "uploads"
    rounds: ClassVar[int] = 15
    cost: ClassVar[str] = PER_GIB
    baseline: ClassVar[str] = "bare trio + h11"
    targets = (Target("upload", PER_GIB, 1.5, is_ratio=True),)

    total: int = 256 << 20
    seconds: float = 1

    def measure(self, start: Start) -> Mapping[str, Figures]:
        with start() as server, connect(server.port) as sock:
            _upload(sock, min(_WARM_UP, self.total))
            spent = spending(server, self.seconds, partial(_upload, sock, self.total))
        return {"upload": spent.for_bytes(self.total)}


def _upload(sock: socket.socket, total: int) -> None:
    head = f"POST /upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {total}\r\n\r\n"
    sock.sendall(head.encode())
    for _ in range(total // len(_PIECE)):
        sock.sendall(_PIECE)
    receive_head(sock)
    sink(sock, len(b"Hello, World!"), bytearray(64))
