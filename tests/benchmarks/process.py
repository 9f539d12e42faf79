"""A server as a process of its own: started, pinned to a core, looked at from outside, ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.benchmarks.model import Server

ROOT = Path(__file__).parents[2]

_START_TIMEOUT = 20.0
_URL = re.compile(rb"https?://127\.0\.0\.1:([0-9]+)\S*\n?")


@dataclass(frozen=True)
class Cores:
    """Who runs where. With one core for both, figures still come out, with more noise."""

    server: int
    client: int

    @classmethod
    def of_this_process(cls) -> Self:
        """The first and the last of those that this process may use."""
        cores = sorted(os.sched_getaffinity(0))
        return cls(server=cores[0], client=cores[-1])


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Run the block, and the processes started in it, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def running(server: Server, core: int) -> Iterator[ServerProcess]:
    """Run `server` for the length of the block.

    Raises:
      RuntimeError: It did not start, or it printed something after its start, as a server in
        trouble does.
    """
    with tempfile.TemporaryFile() as output:
        with pinned(core):
            process = subprocess.Popen(
                server.argv,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            port, said = _wait_for_port(server, process, output)
            yield ServerProcess(process.pid, port)
            if complaint := _read(output)[said:].strip():
                raise RuntimeError(f"{server.name} printed:\n{complaint.decode()}")
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
            # Its workers, too, which may go on without it.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class ServerProcess:
    """A running server. What it costs is that of its process and its descendants.

    Attributes:
      port: On 127.0.0.1.
    """

    def __init__(self, pid: int, port: int) -> None:
        self.port = port
        self._pid = pid

    def cpu_seconds(self) -> float:
        """User and system time so far, of all threads, to the nanosecond if it is idle."""
        # While a process runs, others see its clock as it was at the last tick (up to 10 ms ago).
        time.sleep(0.01)
        # clock_getcpuclockid(3), which Python does not have for other processes.
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in self._family())

    def rss_kib(self) -> float:
        """Resident memory now."""
        return sum(
            int(line.split()[1])
            for pid in self._family()
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if line.startswith("VmRSS:")
        )

    def descriptors(self) -> int:
        """How many file descriptors are open."""
        return sum(1 for pid in self._family() for _ in Path(f"/proc/{pid}/fd").iterdir())

    def watches(self) -> int:
        """How many descriptors are registered with its epoll instances."""
        return sum(
            path.read_text().count("tfd:")
            for pid in self._family()
            for path in Path(f"/proc/{pid}/fdinfo").iterdir()
        )

    def settle(self, quiet: float = 0.05, timeout: float = 20) -> None:
        """Wait until it does nothing any more: less than a hundredth of the time for `quiet` s.

        Raises:
          TimeoutError: It goes on working.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            before = self.cpu_seconds()
            time.sleep(quiet)
            if self.cpu_seconds() - before < quiet / 100:
                return
        raise TimeoutError(f"the server is still busy after {timeout} s")

    def _family(self) -> Iterator[int]:
        pids = [self._pid]
        while pids:
            pid = pids.pop()
            yield pid
            for task in Path(f"/proc/{pid}/task").iterdir():
                pids += map(int, (task / "children").read_text().split())


def _wait_for_port(
    server: Server, process: subprocess.Popen[bytes], output: IO[bytes]
) -> tuple[int, int]:
    """The port, and how much output there is up to the line that tells it."""
    deadline = time.monotonic() + _START_TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        if match := _URL.search(_read(output)):
            return int(match[1]), match.end()
        time.sleep(0.005)
    raise RuntimeError(f"{server.name} did not start; it printed:\n{_read(output).decode()}")


def _read(output: IO[bytes]) -> bytes:
    """All that was written, without moving the position, which the process shares."""
    return os.pread(output.fileno(), 1 << 20, 0)
