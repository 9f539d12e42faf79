"""One large file, over and over, to clients that discard it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from tests.benchmarks.client import connect, discard, request
from tests.benchmarks.disk import provided
from tests.benchmarks.model import Scenario, Target
from tests.benchmarks.spending import PER_GIB, spending

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from tests.benchmarks.model import Figures, Start
    from tests.benchmarks.process import ServerProcess

_MANY = 64


@dataclass(frozen=True)
class Files(Scenario):
    """Sending a file from the page cache: whole to one client, or in equal files to 64 at once.

    The clients have the kernel throw away what it receives: a client that copies it has two speeds,
    and which of them a download meets decides what the server costs, more than the server does.
    What the client costs is told, too, because the kernel of a client that has room again also
    sends what waits in the server's socket: the longer that queue, the less the server seems to do.
    """

    name: ClassVar[str] = "files"
    rounds: ClassVar[int] = 15
    cost: ClassVar[str] = PER_GIB
    baseline: ClassVar[str] = "bare sendfile"
    targets = (
        Target("1 connection", PER_GIB, 1.05, is_ratio=True),
        Target("1 connection", PER_GIB, 1, is_ratio=True, to="nginx"),
        Target("1 connection", PER_GIB, 1, is_ratio=True, to="nginx, no tcp_nopush"),
        Target("1 connection", PER_GIB, 1, is_ratio=True, to="aiohttp"),
        Target("64 connections", PER_GIB, 1.2, is_ratio=True),
    )

    total: int = 1 << 30
    seconds: float = 1

    def prepared(self) -> AbstractContextManager[None]:
        return provided(self.total, self.total // _MANY)

    def measure(self, start: Start) -> Mapping[str, Figures]:
        rows = {}
        with start() as server:
            for name, connections in (("1 connection", 1), (f"{_MANY} connections", _MANY)):
                with ExitStack() as stack:
                    socks = [stack.enter_context(connect(server.port)) for _ in range(connections)]
                    rows[name] = self._measure(server, socks)
        return rows

    def _measure(self, server: ServerProcess, socks: Sequence[socket.socket]) -> Figures:
        download = partial(_download, socks, self.total // len(socks))
        download()  # warms up the server, and the page cache if need be
        return spending(server, self.seconds, download).for_bytes(self.total)


def _download(socks: Sequence[socket.socket], size: int) -> None:
    for sock in socks:
        sock.sendall(request(f"/files/{size}"))
    discard(socks, size, with_head=True)
