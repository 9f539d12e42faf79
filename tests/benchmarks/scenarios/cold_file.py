"""A large file that is not in memory, and small requests beside it."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from tests.benchmarks.client import connect, discard, request
from tests.benchmarks.disk import drop, path, provided
from tests.benchmarks.model import Scenario, Target
from tests.benchmarks.probe import Delays, Probe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from tests.benchmarks.model import Figures, Start

_COLD, _RATIO = "cold file", "times p99"


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
            probe = Probe(sock)
            alone = Delays(probe.delays_beside(partial(time.sleep, self.quiet)))
            download = partial(_download, server.port, self.size)
            return {
                _COLD: self._measure(probe, alone, download, is_cold=True),
                "cached file": self._measure(probe, alone, download, is_cold=False),
                "another reads": self._measure(
                    probe, alone, partial(_read_elsewhere, self.size), is_cold=True
                ),
            }

    def _measure(
        self, probe: Probe, alone: Delays, work: Callable[[], None], *, is_cold: bool
    ) -> Figures:
        delays: list[float] = []
        elapsed = 0.0
        for _ in range(self.turns):
            if is_cold:
                drop(self.size)
            begin = time.perf_counter()
            delays += probe.delays_beside(work)
            elapsed += time.perf_counter() - begin
        beside = Delays(delays)
        return {
            "p50 ms alone": alone.percentile(50),
            "p50 ms": beside.percentile(50),
            "p99 ms alone": alone.percentile(99),
            "p99 ms": beside.percentile(99),
            "max ms": beside.percentile(100),
            _RATIO: beside.percentile(99) / alone.percentile(99),
            "GiB/s": self.turns * self.size / (1 << 30) / elapsed,
        }


def _download(port: int, size: int) -> None:
    with connect(port) as sock:
        sock.sendall(request(f"/files/{size}"))
        # The probe, in another thread of this process, needs the core, too.
        discard([sock], size, with_head=True, is_awake=False)


def _read_elsewhere(size: int) -> None:
    argv = ("dd", f"if={path(size)}", "of=/dev/null", "bs=256K", "status=none")
    subprocess.run(argv, check=True)
