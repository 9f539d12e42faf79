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
    """What some work took.

    Attributes:
      times: How often it was done.
      cpu: The CPU seconds of the server.
      client_cpu: Those of this process. When it reads, its kernel also sends what waits in the
        server's socket: the longer that queue, the more of the server's work is done here.
      elapsed: Seconds.
    """

    times: int
    cpu: float
    client_cpu: float
    elapsed: float

    def for_bytes(self, count: int) -> Figures:
        """The figures, if the work is to transfer so many bytes."""
        gib = self.times * count / (1 << 30)
        return {
            PER_GIB: self.cpu / gib,
            "client CPU s/GiB": self.client_cpu / gib,
            "GiB/s": gib / self.elapsed,
        }

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
    cpu, client_cpu = server.cpu_seconds(), time.process_time()
    begin = time.perf_counter()
    while not times or elapsed < seconds:
        work()
        times += 1
        elapsed = time.perf_counter() - begin
    client_cpu = time.process_time() - client_cpu
    return Spending(times, server.cpu_seconds() - cpu, client_cpu, elapsed)
