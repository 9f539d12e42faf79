"""What handlers note of clients that vanish, in `CLOCK_MONOTONIC`, which all processes share."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ENDLESS = 1 << 40
"""How many bytes such a client could have."""

_started: list[str] = []
_aborted: dict[str, list[float]] = {}
_ended: dict[str, float] = {}


@contextmanager
def noted(name: str) -> Iterator[None]:
    """Note when the handler of this client starts, and when it has ended."""
    _started.append(name)
    _aborted[name] = []
    try:
        yield
    finally:
        _ended[name] = time.monotonic()


def note_abort(name: str) -> None:
    """Note that its handler is told of the end."""
    _aborted[name].append(time.monotonic())


def as_json(tasks: int = 0) -> str:
    """All that was noted, and how many tasks there are."""
    return json.dumps({"tasks": tasks, "started": _started, "aborted": _aborted, "ended": _ended})
