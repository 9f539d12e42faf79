"""What a server spends on work that is repeated until some time has passed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.model import Figures
    from tests.benchmarks.process import ServerProcess

PER_GIB = "CPU s/GiB"
PER_REQUEST = "CPU us/request"


@dataclass(frozen=True)
class Spending:
    """How often the work was done, and the CPU seconds and the seconds that it took."""

    times: int
    cpu: float
    elapsed: float

    def for_bytes(self, count: int) -> Figures:
        """The figures, if the work is to transfer so many bytes."""
        gib = self.times * count / (1 << 30)
        return {PER_GIB: self.cpu / gib, "GiB/s": gib / self.elapsed}

    def for_requests(self, count: int) -> Figures:
        """The figures, if the work is so many requests."""
        requests = self.times * count
        return {PER_REQUEST: self.cpu / requests * 1e6, "requests/s": requests / self.elapsed}


def spending(server: ServerProcess, seconds: float, work: Callable[[], None]) -> Spending:
    """Have the server do the work for that many seconds, or once if it takes longer.

    So a server that needs twenty times as long as another does not need it for a round, too, and
    the fast ones are measured for as long as the slow ones.
    """
    times, elapsed = 0, 0.0
    cpu, begin = server.cpu_seconds(), time.perf_counter()
    while not times or elapsed < seconds:
        work()
        times += 1
        elapsed = time.perf_counter() - begin
    return Spending(times, server.cpu_seconds() - cpu, elapsed)
