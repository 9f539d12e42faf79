"""`trio_stream`, with nobody who watches whether clients hang up.

What is left sees the end of a client only where it reads, and a send that has to wait for room
waits without end: good for nothing but small answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import patch

from tests.benchmarks.servers.trio_stream_app import app
from trio_stream import _server
from trio_stream._readiness import ReadinessWatcher

if TYPE_CHECKING:
    from trio_stream._readiness import Watched


class NoWatcher(ReadinessWatcher):
    """Registers no connection, so that none costs anything."""

    def add(self, fd: int, watched: Watched) -> None:
        """Leave it alone."""

    def remove(self, fd: int) -> None:
        """Leave it alone."""

    def notify_soon(self, fd: int) -> None:
        """Tell nothing."""


if __name__ == "__main__":
    with patch.object(_server, "ReadinessWatcher", NoWatcher):
        app.run(port=0)
