"""What it costs to watch whether clients hang up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tests.benchmarks.model import Target
from tests.benchmarks.scenarios.requests import Requests
from tests.benchmarks.spending import PER_REQUEST


@dataclass(frozen=True)
class Watching(Requests):
    """Small requests, beside the same server with nobody who watches whether clients hang up."""

    name: ClassVar[str] = "watching"
    baseline: ClassVar[str] = "trio_stream, unwatched"
    targets = tuple(
        Target(row, PER_REQUEST, 1.03, is_ratio=True) for row in ("1 connection", "64 connections")
    )
