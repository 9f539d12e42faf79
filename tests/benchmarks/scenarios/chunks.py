"""Large bodies of known length, to clients that read as fast as they can."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from tests.benchmarks.client import connect, discard, request
from tests.benchmarks.model import Scenario, Target
from tests.benchmarks.spending import PER_GIB, spending

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

    from tests.benchmarks.model import Figures, Start

SIZES = tuple(size * 1024 for size in (4, 16, 64, 1024))
"""Of the chunks."""

FASTEST_PEERS = ("uvicorn + httptools", "aiohttp")

_MANY = 64
_WARM_UP = 16 << 20


def size_name(size: int) -> str:
    """A row of the table."""
    return f"{size // 1024} KiB" if size < 1 << 20 else f"{size >> 20} MiB"


def many_name(size: int) -> str:
    """Another row, of as many connections as there are beside one."""
    return f"{size_name(size)}, {_MANY} connections"


@dataclass(frozen=True)
class Chunks(Scenario):
    """Streaming a known length from memory, chunk by chunk, on 1 and on 64 connections.

    The clients have the kernel throw away what it receives, as in `files`.
    """

    name: ClassVar[str] = "chunks"
    rounds: ClassVar[int] = 7
    cost: ClassVar[str] = PER_GIB
    baseline: ClassVar[str] = "bare epoll"
    targets = (
        Target("4 KiB", PER_GIB, 1, is_ratio=True),
        Target("16 KiB", PER_GIB, 1, is_ratio=True),
        Target("64 KiB", PER_GIB, 1.1, is_ratio=True),
        *(
            Target(size_name(size), PER_GIB, 1, is_ratio=True, to=peer)
            for size in SIZES
            for peer in FASTEST_PEERS
        ),
        *(Target(many_name(size), PER_GIB, 1.15, is_ratio=True) for size in SIZES),
    )

    total: int = 256 << 20
    most_chunks: int = 16384
    # Of each stream: in chunks of 1 MiB, requests for 4 MiB were a fifth of what they cost.
    least: int = 16 << 20
    seconds: float = 0.5

    def measure(self, start: Start) -> Mapping[str, Figures]:
        rows = {}
        with start() as server:
            for connections, name in ((1, size_name), (_MANY, many_name)):
                with ExitStack() as stack:
                    socks = [stack.enter_context(connect(server.port)) for _ in range(connections)]
                    for size in SIZES:
                        chunks = min(self.total // size, self.most_chunks) // connections
                        chunks = max(chunks, self.least // size, 1)
                        _download(socks, size, min(chunks, _WARM_UP // size // connections or 1))
                        work = partial(_download, socks, size, chunks)
                        spent = spending(server, self.seconds, work)
                        rows[name(size)] = spent.for_bytes(connections * chunks * size)
        return rows


def _download(socks: Sequence[socket.socket], size: int, chunks: int) -> None:
    data = request(f"/stream/{size}/{chunks * size}")
    for sock in socks:
        sock.sendall(data)
    discard(socks, chunks * size, with_head=True)
