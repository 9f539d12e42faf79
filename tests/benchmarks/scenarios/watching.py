"""What it costs to watch whether clients hang up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tests.benchmarks.model import Target
from tests.benchmarks.scenarios.requests import COST, Requests


@dataclass(frozen=True)
class Watching(Requests):
    """Small requests, beside the same server with nobody who watches whether clients hang up."""

    name: ClassVar[str] = "watching"
    baseline: ClassVar[str] = "trio_stream, unwatched"
    targets = (
        Target("1 connection", COST, 1.03, is_ratio=True),
        Target("16 connections", COST, 1.03, is_ratio=True),
    )
