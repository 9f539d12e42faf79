"""Sends what is held back to go together, as soon as nothing more is added to it."""

from __future__ import annotations

from typing import Protocol

import trio


class Flushable(Protocol):
    """What holds something back. The method may not raise."""

    def _flush_corked(self) -> None: ...


class Flusher:
    """Flushes in the turn of the scheduler after the one in which it was asked to."""

    def __init__(self) -> None:
        self._asked: list[Flushable] = []
        self._waiting = trio.lowlevel.ParkingLot()

    def flush_soon(self, flushable: Flushable) -> None:
        """Flush `flushable` before the server next waits for anything."""
        if not self._asked:
            self._waiting.unpark()
        self._asked.append(flushable)

    async def run(self) -> None:
        """Flush until cancelled."""
        while True:
            if not self._asked:
                await self._waiting.park()
            self._flush_asked()

    # A function of its own: while `run` is parked, its variables would keep what was flushed last.
    def _flush_asked(self) -> None:
        asked, self._asked = self._asked, []
        for flushable in asked:
            flushable._flush_corked()
