"""What it costs to watch whether clients hang up."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, ClassVar

from tests.benchmarks.client import connect
from tests.benchmarks.model import Scenario, Target
from tests.benchmarks.scenarios.requests import Exchange
from tests.benchmarks.spending import PER_REQUEST, spending

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from tests.benchmarks.model import Figures, Start
    from tests.benchmarks.process import ServerProcess

_UNWATCHED, _TIMES = "unwatched", "times unwatched"
_CONNECTIONS = {"1 connection": 1, "64 connections": 64}


@dataclass(frozen=True)
class Watching(Scenario):
    """Small requests of clients that are watched for their hang-up, and of others that are not.

    The server is one process that watches every other connection. Requests on these and on those
    take turns of a few milliseconds, as what is looked for is less than what a machine drifts, and
    than two processes differ; the figures of a round are medians, too.
    """

    name: ClassVar[str] = "watching"
    rounds: ClassVar[int] = 7
    targets = tuple(Target(row, _TIMES, 1.03) for row in _CONNECTIONS)

    count: int = 256
    turns: int = 20

    def measure(self, start: Start) -> Mapping[str, Figures]:
        with start() as server:
            return {row: self._measure(server, number) for row, number in _CONNECTIONS.items()}

    def _measure(self, server: ServerProcess, connections: int) -> Figures:
        exchange = Exchange(server, "/hello", b"Hello, World!", connections)
        costs: tuple[list[float], list[float]] = ([], [])
        with ExitStack() as stack:
            kinds: tuple[list[socket.socket], list[socket.socket]] = ([], [])
            size = 0
            for number in range(2 * connections):
                sock = stack.enter_context(connect(server.port))
                kinds[number % 2].append(sock)
                size = exchange.first_answers([sock])  # so that they are accepted in this order
            times = self.count // connections or 1
            for turn in range(self.turns):
                for kind in (0, 1) if turn % 2 else (1, 0):
                    work = partial(exchange.take_turns, kinds[kind], size, times)
                    spent = spending(server, 0, work).for_requests(times * connections)
                    costs[kind].append(spent[PER_REQUEST])
        watched, unwatched = costs
        return {
            PER_REQUEST: median(watched),
            _UNWATCHED: median(unwatched),
            _TIMES: median(a / b for a, b in zip(watched, unwatched, strict=True)),
        }
