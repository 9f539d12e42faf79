"""Small answers over connections that stay open."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from typing import TYPE_CHECKING, ClassVar

from tests.benchmarks.client import BROWSER_FIELDS, connect, receive_head, request, sink
from tests.benchmarks.disk import provided
from tests.benchmarks.model import Scenario, Target
from tests.benchmarks.spending import PER_REQUEST, spending

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from tests.benchmarks.model import Figures, Start
    from tests.benchmarks.process import ServerProcess

_BROWSER = ", browser"
_VARIED = ", browser, varied"
_CONNECTIONS = {"1 connection": 1, "64 connections": 64}


@dataclass(frozen=True)
class Requests(Scenario):
    """Keep-alive requests for 13 bytes, bare or as a browser's, one under way on a connection."""

    name: ClassVar[str] = "requests"
    rounds: ClassVar[int] = 7
    cost: ClassVar[str] = PER_REQUEST
    baseline: ClassVar[str] = "bare trio + h11"
    targets = tuple(
        Target(connections + head, PER_REQUEST, limit, is_ratio=True, to=to)
        for to, limit in ((None, 1), ("Hypercorn", 1 / 5), ("uvicorn + h11", 1 / 1.3))
        for head in ("", _BROWSER)
        for connections in _CONNECTIONS
    )

    count: int = 512
    seconds: float = 0.5

    def prepared(self) -> AbstractContextManager[None]:
        return provided()  # nginx has a folder for itself there

    def measure(self, start: Start) -> Mapping[str, Figures]:
        rows = {}
        with start() as server:
            for name, connections in _CONNECTIONS.items():
                plain = Exchange(server, "/hello", b"Hello, World!", connections)
                browsers = replace(plain, fields=BROWSER_FIELDS)
                exchanges = {"": plain, _BROWSER: browsers, _VARIED: replace(browsers, varied=True)}
                for head, exchange in exchanges.items():
                    rows[name + head] = exchange.measure(self.count, self.seconds)
        return rows


@dataclass(frozen=True)
class Exchange:
    """A request over and over, one under way on each of some connections.

    Attributes:
      fields: More lines of its head.
      varied: Whether one of its fields differs from that of the request before.
    """

    server: ServerProcess
    path: str
    answer: bytes
    connections: int
    fields: str = ""
    varied: bool = False

    def measure(self, count: int, seconds: float = 0) -> Figures:
        """What requests cost: `count`, and so many again until some seconds have passed."""
        with ExitStack() as stack:
            socks = [
                stack.enter_context(connect(self.server.port)) for _ in range(self.connections)
            ]
            size = self.first_answers(socks)
            turns = count // self.connections
            self.take_turns(socks, size, turns // 8)
            spent = spending(self.server, seconds, partial(self.take_turns, socks, size, turns))
        return spent.for_requests(turns * self.connections)

    def first_answers(self, socks: Sequence[socket.socket]) -> int:
        """Check one answer on each connection; their size, which is that of all later ones, too."""
        sizes = set()
        body = bytearray(len(self.answer))
        for sock in socks:
            sock.sendall(request(self.path, self.fields))
            sizes.add(len(receive_head(sock)) + len(body))
            sink(sock, len(body), body)
            if body != self.answer:
                raise ConnectionError(f"the server answered {bytes(body)!r}")
        (size,) = sizes
        return size

    def take_turns(self, socks: Sequence[socket.socket], size: int, turns: int) -> None:
        """One request on each connection, then the answers, and that `turns` times."""
        buffer = bytearray(size)
        more = ("", "X-Turn: 1\r\n") if self.varied else ("",)
        heads = [request(self.path, self.fields + turn) for turn in more]
        for data in islice(cycle(heads), turns):
            for sock in socks:
                sock.send(data)
            for sock in socks:
                sink(sock, size, buffer, is_awake=True)
