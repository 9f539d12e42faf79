"""How long it takes until a handler knows that its client has gone."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, get_args

from tests.benchmarks.client import get_json
from tests.benchmarks.model import Scenario, Target
from tests.benchmarks.probe import Delays
from tests.benchmarks.scenarios.vanish import Client, Phase, vanish

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.benchmarks.model import Figures, Start

_P99, _NEVER = "p99 ms", "never told"


@dataclass(frozen=True)
class Abort(Scenario):
    """From the close of a client to the end of its handler, that has nothing but that to end it.

    Those whose handlers are asleep, or parked as nobody reads, are all connected at once; those
    that stream come in between, read a random amount and go. Half of all reset the connection.
    """

    name: ClassVar[str] = "abort"
    rounds: ClassVar[int] = 3
    cost: ClassVar[str] = _P99
    baseline: ClassVar[str] = "aiohttp"
    targets = tuple(Target(phase, _NEVER, 0) for phase in get_args(Phase))

    clients: int = 600
    pause: float = 0.005
    seed: int = 1

    def measure(self, start: Start) -> Mapping[str, Figures]:
        rng = random.Random(self.seed)
        phases: tuple[Phase, ...] = get_args(Phase)
        clients = [
            Client(str(number), phases[number % 3], rng.choice(("close", "reset")), False)
            for number in range(self.clients)
        ]
        with start() as server:
            get_json(server.port, "/vanish/state")
            closed = vanish(server, clients, rng, self.pause)
            ended = get_json(server.port, "/vanish/state")["ended"]
        rows: dict[str, Figures] = {}
        for phase in phases:
            names = [client.name for client in clients if client.phase == phase]
            delays = [(ended[name] - closed[name]) * 1000 for name in names if name in ended]
            rows[phase] = {
                "clients": len(names),
                **({} if not delays else _percentiles(Delays(delays))),
                _NEVER: len(names) - len(delays),
            }
        return rows


def _percentiles(delays: Delays) -> Figures:
    percentiles = (("p50 ms", 50), (_P99, 99), ("max ms", 100))
    return {name: delays.percentile(percent) for name, percent in percentiles}
