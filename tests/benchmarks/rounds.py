"""Runs a scenario: each server in turn, round by round."""

from __future__ import annotations

import resource
import signal
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from tests.benchmarks.model import Sample
from tests.benchmarks.process import Cores, pinned, running

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.benchmarks.model import Scenario, Server


def run(scenario: Scenario, servers: Iterable[Server], rounds: int) -> Iterator[Sample]:
    """Measure `rounds` times each of the servers that offer `scenario` and are installed.

    Raises:
      TimeoutError: One took longer than the scenario allows.
    """
    _allow_many_descriptors()
    cores = Cores.of_this_process()
    servers = [s for s in servers if scenario.name in s.offers and not s.missing()]
    with scenario.prepared():
        for number in range(rounds):
            for server in servers:
                with pinned(cores.client), _time_limit(scenario.time_limit):
                    try:
                        rows = scenario.measure(partial(running, server, cores.server))
                    except Exception as exc:
                        exc.add_note(f"in round {number} of {scenario.name} on {server.name}")
                        raise
                for row, figures in rows.items():
                    yield Sample(server.name, number, row, figures)


def _allow_many_descriptors() -> None:
    """Raise the limit of this process, and so of the servers, as far as it goes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Interrupt the block after that time, wherever it is."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise TimeoutError(f"a round took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
