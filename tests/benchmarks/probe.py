"""Small requests at a steady rate, beside something else: what others have to wait meanwhile."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tests.benchmarks.client import receive_head, request, sink

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

_INTERVAL = 1 / 200
_HELLO = request("/hello")


class Probe:
    """Small requests at a steady rate, on one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.sendall(_HELLO)
        head = receive_head(sock)
        self._buffer = bytearray(len(head) + len(b"Hello, World!"))  # all answers are of that size
        sink(sock, len(self._buffer) - len(head), self._buffer)

    def delays_beside(self, work: Callable[[], None]) -> list[float]:
        """The milliseconds that each took, at least one, while work is done in a thread."""
        delays: list[float] = []
        with ThreadPoolExecutor(1) as executor:
            future = executor.submit(work)
            due = time.perf_counter()
            while not (future.done() and delays):
                if (early := due - time.perf_counter()) > 0:
                    time.sleep(early)
                    due = time.perf_counter()  # sleeping too long is not the server's fault
                self._sock.sendall(_HELLO)
                sink(self._sock, len(self._buffer), self._buffer)
                delays.append((time.perf_counter() - due) * 1000)
                due += _INTERVAL
            future.result()
        return delays


class Delays:
    """Times in milliseconds, as a distribution."""

    def __init__(self, milliseconds: Sequence[float]) -> None:
        self._sorted = sorted(milliseconds)

    def percentile(self, percent: int) -> float:
        """So much of them is not longer."""
        return self._sorted[(len(self._sorted) - 1) * percent // 100]
