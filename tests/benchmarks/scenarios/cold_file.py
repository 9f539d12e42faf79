"""A large file that is not in memory, and small requests beside it."""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from tests.benchmarks.client import connect, discard, receive_head, request, sink
from tests.benchmarks.disk import drop, path, provided
from tests.benchmarks.model import Scenario, Target

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from tests.benchmarks.model import Figures, Start

_COLD, _RATIO = "cold file", "times p99"

_INTERVAL = 1 / 200
_HELLO = request("/hello")


@dataclass(frozen=True)
class ColdFile(Scenario):
    """What small requests, 200 a second, take while a file is sent that is on the disk only.

    The file is dropped from the page cache before each download. For comparison, the same is done
    without; and, without any download, another process reads the file: what that does to requests,
    the disk and the kernel do, and no server can help it. The time of a request begins when it is
    due, so one that could not be sent before the last was answered has waited, too.
    """

    name: ClassVar[str] = "cold_file"
    rounds: ClassVar[int] = 7
    targets = (Target(_COLD, _RATIO, 3),)

    size: int = 1 << 30
    turns: int = 3
    quiet: float = 3

    def prepared(self) -> AbstractContextManager[None]:
        return provided(self.size)

    def measure(self, start: Start) -> Mapping[str, Figures]:
        with start() as server, connect(server.port) as sock:
            probe = _Probe(sock)
            alone = _Delays(probe.delays_beside(partial(time.sleep, self.quiet)))
            download = partial(_download, server.port, self.size)
            return {
                _COLD: self._measure(probe, alone, download, is_cold=True),
                "cached file": self._measure(probe, alone, download, is_cold=False),
                "another reads": self._measure(
                    probe, alone, partial(_read_elsewhere, self.size), is_cold=True
                ),
            }

    def _measure(
        self, probe: _Probe, alone: _Delays, work: Callable[[], None], *, is_cold: bool
    ) -> Figures:
        delays: list[float] = []
        elapsed = 0.0
        for _ in range(self.turns):
            if is_cold:
                drop(self.size)
            begin = time.perf_counter()
            delays += probe.delays_beside(work)
            elapsed += time.perf_counter() - begin
        beside = _Delays(delays)
        return {
            "p50 ms alone": alone.percentile(50),
            "p50 ms": beside.percentile(50),
            "p99 ms alone": alone.percentile(99),
            "p99 ms": beside.percentile(99),
            "max ms": beside.percentile(100),
            _RATIO: beside.percentile(99) / alone.percentile(99),
            "GiB/s": self.turns * self.size / (1 << 30) / elapsed,
        }


class _Probe:
    """Small requests at a steady rate, on one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.sendall(_HELLO)
        head = receive_head(sock)
        self._buffer = bytearray(len(head) + len(b"Hello, World!"))  # all answers are of that size
        sink(sock, len(self._buffer) - len(head), self._buffer)

    def delays_beside(self, work: Callable[[], None]) -> list[float]:
        """The milliseconds that each took, while something else is done in a thread."""
        delays = []
        with ThreadPoolExecutor(1) as executor:
            future = executor.submit(work)
            due = time.perf_counter()
            while not future.done():
                if (early := due - time.perf_counter()) > 0:
                    time.sleep(early)
                    due = time.perf_counter()  # sleeping too long is not the server's fault
                self._sock.sendall(_HELLO)
                sink(self._sock, len(self._buffer), self._buffer)
                delays.append((time.perf_counter() - due) * 1000)
                due += _INTERVAL
            future.result()
        return delays


class _Delays:
    """Times in milliseconds, as a distribution."""

    def __init__(self, milliseconds: Sequence[float]) -> None:
        self._sorted = sorted(milliseconds)

    def percentile(self, percent: int) -> float:
        """So much of them is not longer."""
        return self._sorted[(len(self._sorted) - 1) * percent // 100]


def _download(port: int, size: int) -> None:
    with connect(port) as sock:
        sock.sendall(request(f"/files/{size}"))
        receive_head(sock)
        discard([sock], size)


def _read_elsewhere(size: int) -> None:
    argv = ("dd", f"if={path(size)}", "of=/dev/null", "bs=256K", "status=none")
    subprocess.run(argv, check=True)
