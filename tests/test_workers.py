"""The supervisor: with processes that only seem to run and a clock that jumps, and with real ones.

What the real ones serve is told by test_main.py.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from subprocess import PIPE, Popen
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_stream._worker import VARIABLE, Worker, describe_worker, take_worker
from trio_stream._worker_stats import open_directory
from trio_stream._workers import Supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from trio.testing import MockClock


@dataclass(kw_only=True)
class Fate:
    """What becomes of a process, in seconds after its start."""

    grace: float | None = 25  # that it tells when it is ready; `None`: it never is
    ready_at: float = 0
    dies_at: float = inf
    status: int = 0
    stops_in: float = 0  # after SIGTERM
    error: Exception | None = None  # which there is instead of a process


class FakeProcess:
    def __init__(self, pid: int, fate: Fate, channel: int, told: list[str]) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._fate = fate
        self._channel = channel
        self._told = told
        self._started_at = trio.current_time()
        self._is_killed = False
        self._dies = trio.CancelScope(deadline=self._started_at + fate.dies_at)

    async def wait(self) -> int:
        if self._is_killed:  # while nobody waited
            self.returncode = -9
        if self.returncode is None:
            try:
                with self._dies:
                    if self._fate.grace is not None:
                        await trio.sleep_until(self._started_at + self._fate.ready_at)
                        os.write(self._channel, str(self._fate.grace).encode())
                    await trio.sleep_forever()
                self.returncode = -9 if self._is_killed else self._fate.status
            finally:
                os.close(self._channel)
        return self.returncode

    def terminate(self) -> None:
        self._told.append(f"{self.pid}: SIGTERM")
        deadline = trio.current_time() + self._fate.stops_in
        self._dies.deadline = min(self._dies.deadline, deadline)

    def send_signal(self, number: signal.Signals) -> None:
        self._told.append(f"{self.pid}: {number.name}")

    def kill(self) -> None:
        if self.returncode is None:
            self._told.append(f"{self.pid}: SIGKILL")
            self._is_killed = True
            self._dies.cancel()


class Fakes:
    """Takes the place of all processes; those that have no fate of their own just serve."""

    def __init__(self, *fates: Fate) -> None:
        self.told: list[str] = []
        self.started_at: list[float] = []
        self.announcing: list[int] = []
        self.directories: set[str | None] = set()
        self._fates = list(fates)

    async def open_process(
        self,
        command: Sequence[str],
        *,
        env: dict[str, str],
        pass_fds: Sequence[int],
        process_group: int,
        stdin: int,
    ) -> FakeProcess:
        await trio.lowlevel.checkpoint()
        assert command == ["command"]
        self.started_at.append(trio.current_time())
        pid = len(self.started_at)
        channel, *fds = pass_fds
        assert fds == [7, 8]
        described, fd_text, announces = env[VARIABLE].split(":")
        assert (int(described), fd_text) == (channel, "7,8")
        if announces == "1":
            self.announcing.append(pid)
        directory = env.get("TRIO_STREAM_STATS_DIRECTORY")
        if directory is not None:
            directory = directory.removeprefix(f"{os.getpid()}:")
        self.directories.add(directory)
        fate = self._fates.pop(0) if self._fates else Fate()
        if fate.error is not None:
            raise fate.error
        return FakeProcess(pid, fate, os.dup(channel), self.told)


@asynccontextmanager
async def supervise(
    monkeypatch: pytest.MonkeyPatch,
    fakes: Fakes,
    count: int,
    statuses: list[int],
    changes: AsyncIterator[object] | None = None,
) -> AsyncIterator[None]:
    """Run a supervisor beside the block, which must end it; its status is then in `statuses`."""
    monkeypatch.setattr(trio.lowlevel, "open_process", fakes.open_process)
    supervisor = Supervisor(["command"], [7, 8], count, changes=changes)

    async def run() -> None:
        statuses.append(await supervisor.run())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await wait_all_tasks_blocked()
        yield
    assert not any(Path(directory).exists() for directory in fakes.directories if directory)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "trio_stream")
    return caplog


# Keeping their number...


async def test_workers_run_until_a_signal(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    fakes = Fakes(Fate(ready_at=3), Fate(stops_in=20))
    statuses: list[int] = []
    async with supervise(monkeypatch, fakes, 3, statuses):
        await trio.sleep(10)
        assert fakes.started_at == [0, 3, 3]  # the first one shows that it can work
        assert fakes.announcing == [1]
        (directory,) = map(Path, filter(None, fakes.directories))
        assert directory.stat().st_mode & 0o777 == 0o700
        signal.raise_signal(signal.SIGTERM)
    assert trio.current_time() == 30
    assert sorted(fakes.told) == ["1: SIGTERM", "2: SIGTERM", "3: SIGTERM"]
    assert statuses == [0]
    assert sorted(log.messages[:3]) == [f"worker {pid} serves" for pid in (1, 2, 3)]
    assert log.messages[3] == "shutting down 3 workers; a second signal kills what is left"
    assert sorted(log.messages[4:]) == [
        f"worker {pid} has ended with status 0" for pid in (1, 2, 3)
    ]


async def test_a_worker_that_dies_is_followed_by_another_with_back_off(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    serves = Fate(dies_at=1, status=-11)
    dies = [Fate(dies_at=0, status=-11, grace=None) for _ in range(7)]
    fakes = Fakes(serves, *dies, Fate(dies_at=60, status=1), Fate(dies_at=1, status=3, grace=None))
    statuses: list[int] = []
    async with supervise(monkeypatch, fakes, 1, statuses):
        await trio.sleep(200)
        signal.raise_signal(signal.SIGINT)
    pauses = [b - a for a, b in zip(fakes.started_at, fakes.started_at[1:], strict=False)]
    assert pauses == [1.5, 1, 2, 4, 8, 16, 30, 30, 60.5, 2]
    assert statuses == [0]
    errors = [record.getMessage() for record in log.records if record.levelno == logging.ERROR]
    assert errors[0] == "worker 1 has ended by SIGSEGV: the next one starts in 0.5 seconds"
    assert errors[-2:] == [
        "worker 9 has ended with status 1: the next one starts in 0.5 seconds",
        "worker 10 has ended with status 3: the next one starts in 1 seconds",
    ]
    log.clear()


TOO_MANY = OSError(24, "Too many open files")
NO_THREAD = RuntimeError("can't start new thread")


@pytest.mark.parametrize("error", [TOO_MANY, NO_THREAD])
async def test_one_that_cannot_be_started_is_tried_again_and_the_others_stay(
    error: Exception,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    log: pytest.LogCaptureFixture,
) -> None:
    fakes = Fakes(Fate(), Fate(dies_at=1, status=1), *[Fate(error=error) for _ in range(4)])
    statuses: list[int] = []
    async with supervise(monkeypatch, fakes, 2, statuses):
        await trio.sleep(100)
        assert fakes.started_at == [0, 0, 1.5, 2.5, 4.5, 8.5, 16.5]
        assert fakes.told == []
        signal.raise_signal(signal.SIGTERM)
    assert statuses == [0]
    errors = [record.getMessage() for record in log.records if record.levelno == logging.ERROR]
    assert errors == [
        "worker 2 has ended with status 1: the next one starts in 0.5 seconds",
        *[
            f"a worker can't be started: {error}: the next one starts in {delay} seconds"
            for delay in (1, 2, 4, 8)
        ],
    ]
    log.clear()


async def test_a_supervisor_that_can_start_none_gives_up(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    fakes = Fakes(*[Fate(error=TOO_MANY) for _ in range(3)])
    statuses: list[int] = []
    async with supervise(monkeypatch, fakes, 2, statuses):
        pass
    assert fakes.started_at == [0, 0.5, 1.5]
    assert statuses == [1]
    (*_, last) = log.messages
    assert last == (
        f"a worker can't be started: {TOO_MANY}: none has come to serve in 3 tries, "
        "and no more are made"
    )
    log.clear()


async def test_a_signal_without_a_name_kills_only_a_worker(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    number = 40  # a signal of real time, on Linux
    statuses: list[int] = []
    fakes = Fakes(Fate(dies_at=0, ready_at=-1, status=-number))
    async with supervise(monkeypatch, fakes, 1, statuses):
        await trio.sleep(10)
        signal.raise_signal(signal.SIGINT)
    assert fakes.started_at == [0, 0.5]
    assert statuses == [0]
    (error,) = [record.getMessage() for record in log.records if record.levelno == logging.ERROR]
    assert error == f"worker 1 has ended by signal {number}: the next one starts in 0.5 seconds"
    log.clear()


async def test_the_others_start_when_the_first_one_has_come_up(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    fakes = Fakes(Fate(dies_at=1, status=1, grace=None), Fate(ready_at=1))
    statuses: list[int] = []
    async with supervise(monkeypatch, fakes, 2, statuses):
        await trio.sleep(10)
        assert fakes.started_at == [0, 1.5, 2.5]
        assert fakes.announcing == [1, 2]
        signal.raise_signal(signal.SIGTERM)
    assert statuses == [0]
    log.clear()


async def test_what_cannot_be_served_ends_the_supervisor(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    fakes = Fakes(Fate(dies_at=1, status=2, grace=None))
    statuses: list[int] = []
    async with supervise(monkeypatch, fakes, 2, statuses):
        pass
    assert trio.current_time() == 1
    assert statuses == [2]
    assert log.messages == []  # the worker has said why


async def test_what_never_serves_is_given_up(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    fakes = Fakes(*[Fate(dies_at=1, status=1, grace=None) for _ in range(5)])
    statuses: list[int] = []
    async with supervise(monkeypatch, fakes, 2, statuses):
        pass
    assert fakes.started_at == [0, 1.5, 3.5]
    assert trio.current_time() == 4.5
    assert statuses == [1]
    assert log.messages == [
        "worker 1 has ended with status 1: the next one starts in 0.5 seconds",
        "worker 2 has ended with status 1: the next one starts in 1 seconds",
        "worker 3 has ended with status 1: none has come to serve in 3 tries, and no more are made",
    ]
    log.clear()


async def test_what_can_be_served_no_more_is_tried_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    fakes = Fakes(Fate(), Fate(dies_at=1, status=-9), Fate(dies_at=1, status=2, grace=None))
    statuses: list[int] = []
    async with supervise(monkeypatch, fakes, 2, statuses):
        await trio.sleep(10)
        assert fakes.started_at == [0, 0, 1.5, 3.5]
        signal.raise_signal(signal.SIGTERM)
    assert statuses == [0]
    log.clear()


# Replacing them...


async def test_hang_up_replaces_them_one_by_one(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    fakes = Fakes(Fate(stops_in=10), Fate(stops_in=10), Fate(ready_at=3), Fate(ready_at=4))
    statuses: list[int] = []
    async with supervise(monkeypatch, fakes, 2, statuses):
        signal.raise_signal(signal.SIGHUP)
        await trio.sleep(1)
        assert fakes.told == []
        await trio.sleep(3)
        assert fakes.told == ["1: SIGTERM"]
        await trio.sleep(100)
        assert fakes.told == ["1: SIGTERM", "2: SIGTERM"]
        assert fakes.started_at == [0, 0, 0, 3]  # nobody waits for the end of the first
        signal.raise_signal(signal.SIGTERM)
    assert trio.current_time() == 104.1  # with the time in which an echo may come
    assert sorted(fakes.told[2:]) == ["3: SIGTERM", "4: SIGTERM"]
    assert statuses == [0]
    assert fakes.announcing == [1]
    assert "SIGHUP: replacing 2 workers" in log.messages


async def test_a_successor_that_dies_is_replaced_while_the_one_before_ends(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fakes = Fakes(Fate(stops_in=20), Fate(dies_at=3, status=7))
    statuses: list[int] = []
    async with supervise(monkeypatch, fakes, 1, statuses):
        signal.raise_signal(signal.SIGHUP)
        await trio.sleep(5)
        assert fakes.started_at == [0, 0, 3.5]
        signal.raise_signal(signal.SIGTERM)
    assert statuses == [0]
    assert caplog.messages == [
        "worker 2 has ended with status 7: the next one starts in 0.5 seconds"
    ]
    caplog.clear()


async def test_many_hang_ups_at_once_are_one(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes = Fakes(Fate(), Fate(ready_at=10))
    statuses: list[int] = []
    async with supervise(monkeypatch, fakes, 1, statuses):
        for _ in range(5):
            signal.raise_signal(signal.SIGHUP)
        await trio.sleep(50)
        assert fakes.started_at == [0, 0]
        signal.raise_signal(signal.SIGTERM)
    assert statuses == [0]


async def test_a_hang_up_ends_the_wait_for_a_successor_that_hangs(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    fakes = Fakes(Fate(), Fate(), Fate(grace=None, stops_in=inf), Fate(grace=None))
    statuses: list[int] = []
    async with supervise(monkeypatch, fakes, 2, statuses):
        signal.raise_signal(signal.SIGHUP)
        await trio.sleep(100)
        signal.raise_signal(signal.SIGHUP)
        await trio.sleep(100)
        assert fakes.told == ["3: SIGTERM", "3: SIGINT", "3: SIGKILL"]
        assert fakes.started_at == [0, 0, 0, 106]  # and the others go on
        signal.raise_signal(signal.SIGHUP)
        await trio.sleep(100)
        assert fakes.told[3:] == ["4: SIGTERM", "1: SIGTERM", "2: SIGTERM"]
        assert fakes.started_at[4:] == [200, 200]
        signal.raise_signal(signal.SIGTERM)
    assert statuses == [0]
    warnings = [record.getMessage() for record in log.records if record.levelname == "WARNING"]
    takes_long = "has not begun to serve in 30 seconds, and may go on; SIGHUP starts another"
    assert warnings == [
        f"worker 3 {takes_long} instead",
        "worker 3 has not begun to serve: another one is to be tried",
        "worker 3 has not ended in 5 seconds, and is killed",
        f"worker 4 {takes_long} instead",
        "worker 4 has not begun to serve: another one is to be tried",
    ]


async def test_a_dead_worker_is_followed_though_its_successor_hung(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    fakes = Fakes(Fate(dies_at=10, status=-9), Fate(grace=None))
    statuses: list[int] = []
    async with supervise(monkeypatch, fakes, 1, statuses):
        signal.raise_signal(signal.SIGHUP)
        await trio.sleep(20)
        assert fakes.started_at == [0, 0]
        signal.raise_signal(signal.SIGHUP)
        await trio.sleep(20)
        assert fakes.started_at == [0, 0, 20, 20]  # one in its place, which is replaced as well
        assert fakes.told == ["2: SIGTERM", "3: SIGTERM"]
        signal.raise_signal(signal.SIGTERM)
    assert statuses == [0]
    log.clear()


async def test_a_successor_that_does_not_serve_changes_nothing(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    fakes = Fakes(Fate(), Fate(), Fate(dies_at=1, status=2, grace=None))
    statuses: list[int] = []
    async with supervise(monkeypatch, fakes, 2, statuses):
        signal.raise_signal(signal.SIGHUP)
        await trio.sleep(50)
        assert fakes.started_at == [0, 0, 0]
        assert fakes.told == []
        signal.raise_signal(signal.SIGTERM)
    assert statuses == [0]
    (error,) = [record for record in log.records if record.levelno == logging.ERROR]
    message = "worker 3 has ended with status 2 before it served: the others stay"
    assert error.getMessage() == message
    log.clear()


async def test_those_stay_whose_successor_cannot_be_started(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    fakes = Fakes(Fate(), Fate(), Fate(error=TOO_MANY))
    statuses: list[int] = []
    async with supervise(monkeypatch, fakes, 2, statuses):
        signal.raise_signal(signal.SIGHUP)
        await trio.sleep(100)
        assert fakes.started_at == [0, 0, 0]
        assert fakes.told == []
        signal.raise_signal(signal.SIGHUP)
        await trio.sleep(100)
        assert fakes.started_at == [0, 0, 0, 100, 100]
        assert fakes.told == ["1: SIGTERM", "2: SIGTERM"]
        signal.raise_signal(signal.SIGTERM)
    assert statuses == [0]
    errors = [record.getMessage() for record in log.records if record.levelno == logging.ERROR]
    assert errors == [f"a worker can't be started: {TOO_MANY}: the others stay"]
    log.clear()


async def test_a_dead_one_can_be_replaced_before_its_time(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    dies = [Fate(dies_at=0, status=1, grace=None) for _ in range(4)]
    fakes = Fakes(Fate(dies_at=1), *dies)
    statuses: list[int] = []
    async with supervise(monkeypatch, fakes, 1, statuses):
        await trio.sleep(10)
        signal.raise_signal(signal.SIGHUP)
        await trio.sleep(100)
        assert fakes.started_at == [0, 1.5, 2.5, 4.5, 8.5, 10]
        signal.raise_signal(signal.SIGTERM)
    assert statuses == [0]
    log.clear()


async def test_what_killed_ones_have_left_is_removed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def make(name: str, *files: str) -> Path:
        path = tmp_path / name
        path.mkdir()
        for file in files or ("1.0123abcd",):
            (path / file).write_text("{}")
        os.utime(path, (0, 0))
        return path

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    other = make("other")
    left = make("trio-stream-a1b2c3_4", "12.0123abcd", ".12.0123abcd", "12.0123abcd.told")
    empty = tmp_path / "trio-stream-empty_12"
    empty.mkdir()
    os.utime(empty, (0, 0))
    # Of somebody else, who likes the name.
    notes = make("trio-stream-notes123", "1.0123abcd", "notes.txt")
    mine = tmp_path / "trio-stream-mine"
    mine.mkdir()
    os.utime(mine, (0, 0))
    new = make("trio-stream-new12345")
    os.utime(new)
    link = tmp_path / "trio-stream-link1234"
    link.symlink_to(other)
    fakes = Fakes()
    async with supervise(monkeypatch, fakes, 1, []):
        (own,) = map(Path, filter(None, fakes.directories))
        os.utime(own, (0, 0))
        assert not left.exists()
        assert not empty.exists()
        with open_directory():
            assert own.exists()
            assert len(list(tmp_path.glob("trio-stream-*"))) == 6
        signal.raise_signal(signal.SIGTERM)
    assert sorted(tmp_path.iterdir()) == sorted([other, new, link, notes, mine])
    assert list(other.iterdir())
    assert len(list(notes.iterdir())) == 2


async def test_they_serve_without_a_directory_to_meet_in(
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    log: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    monkeypatch.delenv("TRIO_STREAM_STATS_DIRECTORY", raising=False)
    fakes = Fakes()
    statuses: list[int] = []
    async with supervise(monkeypatch, fakes, 2, statuses):
        assert fakes.started_at == [0, 0]
        assert fakes.directories == {None}
        signal.raise_signal(signal.SIGTERM)
    assert statuses == [0]
    first = log.messages[0]
    assert first.startswith("the metrics of each worker will be its own (TMPDIR can help): ")
    log.clear()


# Their code...


async def test_a_change_of_the_code_replaces_them_at_once(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    change, changes = trio.open_memory_channel[str](0)
    fakes = Fakes(
        Fate(dies_at=1, status=2, grace=None),  # an error in the code
        Fate(dies_at=1, status=2, grace=None),  # and another one
        Fate(stops_in=100),
        Fate(dies_at=1, status=1, grace=None),
    )
    statuses: list[int] = []
    async with supervise(monkeypatch, fakes, 1, statuses, changes):
        for _ in range(4):
            await trio.sleep(100)
            await change.send("change")
        await trio.sleep(100)
        assert fakes.started_at == [0, 100, 200, 300, 400]
        # Its answers do not have their grace, but a while to clean up.
        assert fakes.told == ["3: SIGTERM", "3: SIGINT", "3: SIGKILL"]
        signal.raise_signal(signal.SIGTERM)
    assert statuses == [0]
    errors = [record.getMessage() for record in log.records if record.levelno == logging.ERROR]
    assert errors == [
        "worker 1 has ended with status 2: waiting for a change",
        "worker 2 has ended with status 2 before it served: the others stay",
        "worker 4 has ended with status 1 before it served: the others stay",
    ]
    log.clear()


@pytest.mark.parametrize("first_hangs", [False, True])
async def test_a_change_replaces_code_that_hangs(
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    log: pytest.LogCaptureFixture,
    first_hangs: bool,
) -> None:
    change, changes = trio.open_memory_channel[str](0)
    hangs = Fate(grace=None)
    fakes = Fakes(hangs if first_hangs else Fate(), hangs)
    statuses: list[int] = []
    async with supervise(monkeypatch, fakes, 1, statuses, changes):
        for _ in range(2):
            await trio.sleep(10)
            await change.send("change")
        await trio.sleep(10)
        assert fakes.started_at == [0, 10, 20]
        assert fakes.told == ["2: SIGTERM", "1: SIGTERM"]
        signal.raise_signal(signal.SIGTERM)
    assert fakes.told[2:] == ["3: SIGTERM"]
    assert statuses == [0]
    log.clear()


# The end...


@pytest.mark.parametrize(("grace", "killed_at"), [(25.0, 30), (2.0, 7), (None, 30)])
async def test_a_worker_that_does_not_end_is_killed(
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    grace: float | None,
    killed_at: float,
) -> None:
    fakes = Fakes(Fate(grace=grace, stops_in=inf))
    statuses: list[int] = []
    async with supervise(monkeypatch, fakes, 1, statuses):
        signal.raise_signal(signal.SIGTERM)
    assert trio.current_time() == killed_at
    assert fakes.told == ["1: SIGTERM", "1: SIGKILL"]
    assert statuses == [0 if grace is None else 1]


@pytest.mark.parametrize("serves", [False, True])
@pytest.mark.parametrize("end", [0, 1])
async def test_what_a_worker_has_cut_off_is_told(
    end: int, serves: bool, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A lifespan that has not begun in time is cut off, too.
    fakes = Fakes(Fate(grace=2 if serves else None, stops_in=3, status=end))
    statuses: list[int] = []
    async with supervise(monkeypatch, fakes, 1, statuses):
        signal.raise_signal(signal.SIGTERM)
    assert fakes.told == ["1: SIGTERM"]
    assert statuses == [end]


async def test_a_second_signal_kills(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes = Fakes(Fate(grace=inf, stops_in=inf))
    statuses: list[int] = []
    async with supervise(monkeypatch, fakes, 1, statuses):
        signal.raise_signal(signal.SIGTERM)
        await trio.sleep(1e6)
        signal.raise_signal(signal.SIGHUP)
        await trio.sleep(1)
        assert fakes.told == ["1: SIGTERM"]
        signal.raise_signal(signal.SIGTERM)
    assert trio.current_time() == 1e6 + 1.5
    assert fakes.told == ["1: SIGTERM", "1: SIGINT", "1: SIGKILL"]
    assert statuses == [1]


async def test_what_a_worker_has_cut_off_is_told_by_the_status(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses: list[int] = []
    async with supervise(monkeypatch, Fakes(Fate(), Fate(status=1, stops_in=3)), 2, statuses):
        signal.raise_signal(signal.SIGTERM)
    assert statuses == [1]


async def test_the_end_in_the_middle_of_a_replacement(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes = Fakes(Fate(stops_in=20), Fate(), Fate(), Fate(ready_at=50))
    statuses: list[int] = []
    async with supervise(monkeypatch, fakes, 2, statuses):
        signal.raise_signal(signal.SIGHUP)
        await trio.sleep(10)
        signal.raise_signal(signal.SIGTERM)
    assert trio.current_time() == 20
    # Another signal would have cut off what the first one is still at.
    assert sorted(fakes.told) == [f"{worker}: SIGTERM" for worker in (1, 2, 3, 4)]
    assert statuses == [0]


async def test_cancelling_it_kills_them(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes = Fakes()
    with trio.move_on_after(5):
        async with supervise(monkeypatch, fakes, 2, []):
            await trio.sleep_forever()
    assert sorted(fakes.told) == ["1: SIGKILL", "2: SIGKILL"]


# The worker's side...


@pytest.fixture
def channel() -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        os.environ[VARIABLE] = describe_worker(theirs, [7, 8], announces=True)
        theirs.detach()
        yield ours
        os.environ.pop(VARIABLE, None)


def test_a_worker_is_found_once(channel: socket.socket) -> None:
    worker = take_worker()
    assert worker is not None
    assert worker.fds == [7, 8]
    assert worker.announces
    assert take_worker() is None
    worker.tell_ready(2.5)
    assert channel.recv(10) == b"2.5"
    worker._channel.close()


@pytest.mark.parametrize("grace", [2.5, inf])
@pytest.mark.parametrize("has_read", [False, True])
async def test_a_worker_ends_with_its_supervisor(
    channel: socket.socket, has_read: bool, grace: float
) -> None:
    worker = take_worker()
    assert worker is not None
    with trio.open_signal_receiver(signal.SIGTERM) as signals, worker.watch_supervisor():
        worker.tell_ready(grace)
        if has_read:
            channel.recv(10)
        channel.close()
        with trio.fail_after(10):
            assert await anext(signals) == signal.SIGTERM
        worker.tell_ready(grace)  # nobody hears it
    assert isinstance(worker, Worker)


HANGS = """
import signal, socket, sys
from trio_stream import _worker

_worker.MARGIN = 0.1
signal.signal(signal.SIGTERM, lambda *_: print("SIGTERM", flush=True))  # noted, as Trio does it
worker = _worker.take_worker()
with worker.watch_supervisor():
    worker.tell_ready(0.1)
    while True:
        pass
"""


def test_a_worker_that_hangs_does_not_outlive_its_supervisor(channel: socket.socket) -> None:
    theirs = int(os.environ[VARIABLE].partition(":")[0])
    os.set_inheritable(theirs, True)
    with Popen([sys.executable, "-c", HANGS], pass_fds=(theirs,), stdout=PIPE) as process:
        try:
            os.close(theirs)
            assert channel.recv(10) == b"0.1"
            channel.close()
            assert process.communicate(timeout=20)[0] == b"SIGTERM\n"
            assert process.returncode == -signal.SIGKILL
        finally:
            process.kill()


async def test_a_supervisor_may_outlive_its_worker(channel: socket.socket) -> None:
    worker = take_worker()
    assert worker is not None
    threads = threading.active_count()
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        with worker.watch_supervisor():
            assert threading.active_count() == threads + 1
        assert threading.active_count() == threads
        channel.close()
        await wait_all_tasks_blocked(0.01)
        with trio.move_on_after(0) as scope:
            await anext(signals)
        assert scope.cancelled_caught
