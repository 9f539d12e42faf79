"""`trio_stream`, with nobody who watches whether every other client hangs up.

With these, a send that has to wait for room waits without end: good for small answers only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import patch

from tests.benchmarks.servers.trio_stream_app import app
from trio_stream import _server
from trio_stream._readiness import ReadinessWatcher

if TYPE_CHECKING:
    from trio_stream._readiness import Watched


class HalfWatcher(ReadinessWatcher):
    """Registers the first connection, the third, the fifth, and so on; the others cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._unwatched: set[int] = set()
        self._skips = False

    def add(self, fd: int, watched: Watched) -> None:
        """Watch it, or leave it alone, in turns."""
        if self._skips:
            self._unwatched.add(fd)
        else:
            super().add(fd, watched)
        self._skips = not self._skips

    def remove(self, fd: int, watched: Watched) -> None:
        """Forget it, if it is known."""
        if fd in self._unwatched:
            self._unwatched.remove(fd)
        else:
            super().remove(fd, watched)

    def notify_soon(self, fd: int) -> None:
        """Tell what it is, if it is known."""
        if fd not in self._unwatched:
            super().notify_soon(fd)


if __name__ == "__main__":
    with patch.object(_server, "ReadinessWatcher", HalfWatcher):
        app.run(port=0)
