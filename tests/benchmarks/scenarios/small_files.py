"""Small files over connections that stay open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tests.benchmarks.disk import content, provided
from tests.benchmarks.model import Scenario
from tests.benchmarks.scenarios.requests import Exchange
from tests.benchmarks.spending import PER_REQUEST

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from tests.benchmarks.model import Figures, Start

_CONNECTIONS = 16


@dataclass(frozen=True)
class SmallFiles(Scenario):
    """Keep-alive requests for a file of 4 KiB, one under way on each of 16 connections."""

    name: ClassVar[str] = "small_files"
    rounds: ClassVar[int] = 7
    cost: ClassVar[str] = PER_REQUEST
    baseline: ClassVar[str] = "bare sendfile"

    size: int = 4096
    count: int = 2000

    def prepared(self) -> AbstractContextManager[None]:
        return provided(self.size)

    def measure(self, start: Start) -> Mapping[str, Figures]:
        rows = {}
        with start() as server:
            for name, place in (("one file", "files"), ("a folder", "static")):
                path = f"/{place}/{self.size}"
                exchange = Exchange(server, path, content(self.size), _CONNECTIONS)
                rows[name] = exchange.measure(self.count)
        return rows
