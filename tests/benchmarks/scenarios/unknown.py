"""One large body of unknown length, against the same body with its length known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from tests.benchmarks.client import connect, receive_head, request, sink, sink_chunked
from tests.benchmarks.model import Scenario, Target
from tests.benchmarks.scenarios.chunks import FASTEST_PEERS, SIZES, size_name
from tests.benchmarks.spending import PER_GIB, spending

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from tests.benchmarks.model import Figures, Start

RATIO = "of known length"

_WARM_UP = 4 << 20


@dataclass(frozen=True)
class Unknown(Scenario):
    """Streaming an unknown length (chunked), and a known one, in turns on one connection."""

    name: ClassVar[str] = "unknown"
    rounds: ClassVar[int] = 7
    cost: ClassVar[str] = PER_GIB
    baseline: ClassVar[str] = "bare epoll"
    targets = (
        Target("64 KiB", RATIO, 1.15),
        *(
            Target(size_name(size), PER_GIB, 1, is_ratio=True, to=peer)
            for size in SIZES
            for peer in FASTEST_PEERS
        ),
    )

    total: int = 64 << 20
    most_chunks: int = 4096
    turns: int = 2
    seconds: float = 0.25

    def measure(self, start: Start) -> Mapping[str, Figures]:
        rows = {}
        with start() as server, connect(server.port) as sock:
            for size in SIZES:
                total = min(self.total, self.most_chunks * size)
                known = partial(_download_known, sock, size)
                unknown = partial(_download_unknown, sock, size)
                for work in (known, unknown):
                    work(min(_WARM_UP, total))
                costs = {known: 0.0, unknown: 0.0}
                for _ in range(self.turns):
                    for work in costs:
                        spent = spending(server, self.seconds, partial(work, total))
                        costs[work] += spent.for_bytes(total)[PER_GIB] / self.turns
                ratio = costs[unknown] / costs[known]
                rows[size_name(size)] = {PER_GIB: costs[unknown], RATIO: ratio}
        return rows


# Both clients copy what they receive: one of them has to look for the end of the body.
_buffer = bytearray(512 * 1024)


def _download_known(sock: socket.socket, size: int, total: int) -> None:
    sock.sendall(request(f"/stream/{size}/{total}"))
    receive_head(sock)
    sink(sock, total, _buffer, is_awake=True)


def _download_unknown(sock: socket.socket, size: int, total: int) -> None:
    sock.sendall(request(f"/unknown/{size}/{total}"))
    receive_head(sock)
    received = sink_chunked(sock, _buffer)
    if received <= total:
        raise ConnectionError(f"the server sent {received} bytes of {total} and their framing")
