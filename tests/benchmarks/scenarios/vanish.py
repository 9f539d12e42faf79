"""Clients that go away, in every way and phase.

The server notes when each handler starts, when its `on_aborted` is called and when it has ended, as
`CLOCK_MONOTONIC`, which all processes share, and tells it at `/vanish/state`.
"""

from __future__ import annotations

import random
import socket
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from tests.benchmarks.client import (
    connect,
    get_json,
    receive_head,
    request,
    reset_on_close,
    sink,
)
from tests.benchmarks.model import Scenario, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.benchmarks.model import Figures, Start
    from tests.benchmarks.process import ServerProcess

Phase = Literal["asleep", "parked", "streaming"]
Way = Literal["close", "reset", "half-close", "stop, close"]

_ALL = "all"
_WORST, _NOT_ONCE, _LEFT = "max ms", "not told once", "left behind"

# More than the server reads at once, so some stays in the socket, and the FIN behind it.
_PIPELINED = request("/hello") * 800

_PATIENCE = 5.0
"""How long the handlers may take to start, and to end, in seconds."""


@dataclass(frozen=True)
class Client:
    """One that will go.

    Attributes:
      name: The server notes its end under it.
      phase: What its handler is doing then.
      way: How it goes.
      pipelines: Whether it has sent requests that nobody has read.
    """

    name: str
    phase: Phase
    way: Way
    pipelines: bool


@dataclass(frozen=True)
class Vanish(Scenario):
    """Clients that vanish: from the client's close to the end of the handler.

    Those whose handlers are asleep or parked are all connected at once; those that stream come in
    between, read a random amount and go. At the end all that they needed must be gone, too: tasks,
    descriptors, and registrations with epoll.
    """

    name: ClassVar[str] = "vanish"
    rounds: ClassVar[int] = 3
    targets = (Target(_ALL, _WORST, 50), Target(_ALL, _NOT_ONCE, 0), Target(_ALL, _LEFT, 0))

    clients: int = 1000
    pause: float = 0.001
    seed: int = 1

    def measure(self, start: Start) -> Mapping[str, Figures]:
        rng = random.Random(self.seed)
        clients = [_make_client(rng, str(number)) for number in range(self.clients)]
        with start() as server:
            get_json(server.port, "/vanish/state")
            server.settle()
            level = _level(server)
            closed = vanish(server, clients, rng, self.pause)
            server.settle()
            left = sum(abs(now - before) for now, before in zip(_level(server), level, strict=True))
            state = get_json(server.port, "/vanish/state")
        rows: dict[str, Figures] = {}
        groups: tuple[tuple[str, Callable[[Client], bool]], ...] = (
            ("asleep", lambda c: c.phase == "asleep"),
            ("parked", lambda c: c.phase == "parked"),
            ("streaming", lambda c: c.phase == "streaming"),
            ("pipelined", lambda c: c.pipelines),
            ("half-closed", lambda c: c.way == "half-close"),
        )
        for row, belongs in groups:
            rows[row] = _figures([c for c in clients if belongs(c)], closed, state)
        rows[_ALL] = {**_figures(clients, closed, state), _LEFT: left}
        return rows


def vanish(
    server: ServerProcess, clients: Sequence[Client], rng: random.Random, pause: float
) -> Mapping[str, float]:
    """Connect and vanish, each at its time, which is returned.

    Args:
      server: What they are clients of.
      clients: Those whose handlers are asleep or parked are all connected at once.
      rng: For the order, and for what they do.
      pause: Between two of them on average, in seconds.
    """
    closed: dict[str, float] = {}
    with ExitStack() as stack:
        waiting = {}
        for client in clients:
            if client.phase != "streaming":
                waiting[client.name] = sock = stack.enter_context(connect(server.port))
                _ask(sock, client)
        _wait_for(server, "started", waiting)
        server.settle()
        for client in rng.sample(clients, len(clients)):
            sock = waiting.get(client.name) or stack.enter_context(connect(server.port))
            if client.phase == "streaming":
                _ask(sock, client)
                receive_head(sock)
                size = rng.randrange(1 << 20)
                sink(sock, size, bytearray(256 * 1024))
            if client.way == "stop, close":
                time.sleep(rng.uniform(0, 0.01))
            closed[client.name] = _leave(sock, client.way)
            time.sleep(pause * rng.expovariate(1))
        _wait_for(server, "ended", closed)
    return closed


def _make_client(rng: random.Random, name: str) -> Client:
    phases: tuple[Phase, ...] = ("asleep", "parked", "streaming")
    ways: tuple[Way, ...] = ("close", "reset", "half-close", "stop, close")
    return Client(name, rng.choice(phases), rng.choice(ways), rng.random() < 0.5)


def _ask(sock: socket.socket, client: Client) -> None:
    kind = "asleep" if client.phase == "asleep" else "sending"
    sock.sendall(request(f"/vanish/{kind}/{client.name}"))
    if client.pipelines:
        sock.sendall(_PIPELINED)


def _leave(sock: socket.socket, way: Way) -> float:
    """Go, and tell when."""
    if way == "reset":
        reset_on_close(sock)
    now = time.monotonic()
    if way == "half-close":
        sock.shutdown(socket.SHUT_WR)
    else:
        sock.close()
    return now


def _wait_for(server: ServerProcess, event: str, names: Mapping[str, object]) -> None:
    """Wait until the server has noted `event` for all, or patience has run out."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if names.keys() <= set(get_json(server.port, "/vanish/state")[event]):
            return
        time.sleep(0.05)


def _level(server: ServerProcess) -> tuple[int, int, int]:
    """What a client needs: tasks, descriptors, and registrations with epoll."""
    tasks = get_json(server.port, "/vanish/state")["tasks"]
    server.settle()
    return tasks, server.descriptors(), server.watches()


def _figures(
    clients: Sequence[Client], closed: Mapping[str, float], state: Mapping[str, Any]
) -> Figures:
    """Milliseconds from a close to the end, and how many were not told of it exactly once."""
    names = [client.name for client in clients]
    delays = sorted((state["ended"].get(name, inf) - closed[name]) * 1000 for name in names)
    told = Counter(len(state["aborted"].get(name, ())) for name in names)
    return {
        "clients": len(names),
        "p50 ms": delays[len(delays) // 2],
        "p99 ms": delays[len(delays) * 99 // 100],
        _WORST: delays[-1],
        "told": sum(times * count for times, count in told.items()),
        _NOT_ONCE: len(names) - told[1],
    }
