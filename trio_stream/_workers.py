"""Several processes that serve the same sockets, and the supervisor that keeps them running."""

from __future__ import annotations

import logging
import os
import signal
import socket
from contextlib import ExitStack
from functools import partial
from operator import is_not, ne
from subprocess import DEVNULL
from typing import TYPE_CHECKING

import trio
from trio_util import AsyncValue, run_and_cancelling, wait_any

from ._config import Config
from ._signals import Terminal, open_signals
from ._wording import count
from ._worker import MARGIN, VARIABLE, describe_worker
from ._worker_stats import open_directory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

logger = logging.getLogger("trio_stream")

# A worker that dies is followed by another one at once, as far as people can tell. One that dies
# again and again takes the time of those that serve only twice a minute.
_FIRST_DELAY = 0.5
_LONGEST_DELAY = 30.0
_LONG_LIFE = 60.0  # after which a death is no longer a part of a series

# When people are told that one takes long to start.
_LONG_START = 30.0

# How often a first worker is tried. What it needs may come up a moment later, such as a database;
# what is missing for longer, whoever has started the supervisor had better know.
_TRIES = 3

# What responses have when the code has changed. Pages that listen to events would keep the old code
# for a whole grace.
_HURRIED_GRACE = 1.0

# Seconds in which a worker that is to end at once can still do so by itself.
_LAST_MOMENT = 0.5

# Exit statuses: none could begin; or can't do what the command line asks, now or ever.
_FAILURE = 1
_USAGE_ERROR = 2


class _CannotStartError(Exception):
    """There are too many descriptors, processes or threads, or the program is being replaced."""


class _Process:
    """A worker, seen from the supervisor."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.started_at = trio.current_time()
        self.grace = Config().shutdown_grace  # until it tells its own
        self.is_ready = False
        self._is_told = False  # to shut down
        self.settled = trio.Event()  # it is ready, or ended
        self.ended = trio.Event()

    def __str__(self) -> str:
        return f"worker {self.process.pid}"

    @property
    def how_it_ended(self) -> str:
        status = self.process.returncode or 0
        if status >= 0:
            return f"with status {status}"
        try:
            return f"by {signal.Signals(-status).name}"
        except ValueError:  # most signals of real time have no name: signal(7)
            return f"by signal {-status}"

    async def receive_readiness(self, channel: socket.socket, has_served: trio.Event) -> None:
        """Wait until it says that it serves, for all to know; its death is not told here."""
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(channel))
        async with run_and_cancelling(self._tell_that_it_takes_long):
            grace = await stream.receive_some(64)
        if grace:
            self.grace = float(grace)
            self.is_ready = True
            self.settled.set()
            has_served.set()
            logger.info("%s serves", self)

    async def _tell_that_it_takes_long(self) -> None:
        await trio.sleep(_LONG_START)
        logger.warning(
            "%s has not begun to serve in %g seconds, and may go on; SIGHUP starts another instead",
            self,
            _LONG_START,
        )

    async def stop(self, *, hurry: bool = False) -> None:
        """Let it shut down, but not for longer than its grace, and wait for its end."""
        if self.ended.is_set():
            return
        if not self._is_told:  # a second signal would end it at once
            self.process.terminate()
        self._is_told = True
        if hurry:
            with trio.move_on_after(_HURRIED_GRACE):
                await self.ended.wait()
                return
            self.process.send_signal(signal.SIGINT)
        limit = MARGIN if hurry else self.grace + MARGIN
        with trio.move_on_after(limit):
            await self.ended.wait()
            return
        logger.warning("%s has not ended in %g seconds, and is killed", self, limit)
        self.process.kill()
        await self.ended.wait()


class _Slot:
    """One of so many workers: the process that is it now. The lock is held to start another."""

    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.worker: AsyncValue[_Process | None] = AsyncValue(None)


class Supervisor:
    """Keeps a number of workers running until a signal ends it.

    SIGTERM and SIGINT are passed on, and waited for; after a second one they are killed. SIGHUP
    replaces the workers one by one, each only when its successor serves. Another SIGHUP begins
    anew, so that none waits for a successor that hangs. One that tells that the terminal was closed
    is an end.

    A worker that dies is followed by another one, with back-off. If several have died and none has
    ever served, no more are tried.

    Args:
      command: Starts a worker, which calls `take_worker`.
      fds: Descriptors of listening sockets.
      workers: How many there are.
      changes: Yields whenever the code of the workers has changed: then they are replaced. What
        can't be imported waits for the next change.
    """

    def __init__(
        self,
        command: Sequence[str],
        fds: Sequence[int],
        workers: int,
        *,
        changes: AsyncIterator[object] | None = None,
    ) -> None:
        self._command = command
        self._fds = fds
        self._changes = changes
        self._generation = AsyncValue(0)  # rises when all are to be replaced
        self._slots = [_Slot() for _ in range(workers)]
        self._living: set[_Process] = set()
        self._has_served = trio.Event()  # one of them
        self._is_ending = False
        self._status = 0
        self._stats_environment: Mapping[str, str] = {}

    async def run(self) -> int:
        """Run until a signal ends it; returns an exit status.

        That is 1 if a worker has cut something off at the end, or if none has begun to serve in
        several tries; and 2 if none ever could.
        """
        terminal = Terminal()
        with open_directory() as self._stats_environment:
            async with (
                open_signals(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals,
                trio.open_nursery() as self._processes,
            ):
                async with trio.open_nursery() as self._keepers:
                    self._keepers.start_soon(self._keep_all)
                    self._keepers.start_soon(self._replace_all)
                    if self._changes is not None:
                        self._keepers.start_soon(self._watch, self._changes)
                    async for number in signals:
                        if number != signal.SIGHUP or terminal.is_gone:
                            break
                        logger.info("SIGHUP: replacing %s", count(len(self._slots), "worker"))
                        self._generation.value += 1
                    self._keepers.cancel_scope.cancel()
                self._is_ending = True
                if self._living:
                    living = count(len(self._living), "worker")
                    logger.info("shutting down %s; a second signal kills what is left", living)
                async with (
                    run_and_cancelling(self._kill_by_signal, signals),
                    trio.open_nursery() as nursery,
                ):
                    for worker in self._living:
                        nursery.start_soon(worker.stop)
        return self._status

    async def _kill_by_signal(self, signals: AsyncIterator[int]) -> None:
        """Kill at the second signal, after a moment to cut off what is left as a server does.

        The kernel would end bodies that end with their connections as if they were whole.
        """
        await _next_end(signals)
        for worker in self._living:
            worker.process.send_signal(signal.SIGINT)  # another SIGTERM could be an echo
        with trio.move_on_after(_LAST_MOMENT):
            await _next_end(signals)
        for worker in self._living:
            worker.process.kill()

    async def _watch(self, changes: AsyncIterator[object]) -> None:
        async for _ in changes:
            logger.info("the code has changed: replacing %s", count(len(self._slots), "worker"))
            self._generation.value += 1

    # Keeping their number...

    async def _keep_all(self) -> None:
        # The first one shows whether it can work at all, and says so once for all.
        first, *others = self._slots
        self._keepers.start_soon(self._keep, first)
        await self._has_served.wait()
        for slot in others:
            self._keepers.start_soon(self._keep, slot)

    async def _keep(self, slot: _Slot) -> None:
        delay = _FIRST_DELAY
        tries = 0
        worker: _Process | None = None
        while True:
            tries += 1
            started_at = trio.current_time()
            try:
                async with slot.lock:
                    if slot.worker.value is worker:  # else it was replaced
                        slot.worker.value = await self._start()
                worker = slot.worker.value
                assert worker is not None
                started_at = worker.started_at
                await wait_any(
                    worker.ended.wait, partial(slot.worker.wait_value, partial(is_not, worker))
                )
                failure = f"{worker} has ended {worker.how_it_ended}"
                waits_for_change = not worker.is_ready and self._changes is not None
                is_useless = worker.process.returncode == _USAGE_ERROR
            except _CannotStartError as exc:
                failure = str(exc)
                waits_for_change = is_useless = False
            if slot.worker.value is not worker:
                continue
            if waits_for_change:
                logger.error("%s: waiting for a change", failure)
                await slot.worker.wait_transition()
            elif is_useless and not self._has_served.is_set():
                self._give_up(_USAGE_ERROR)  # it has said why
            elif tries == _TRIES and not self._has_served.is_set():
                logger.error(
                    "%s: none has come to serve in %d tries, and no more are made", failure, tries
                )
                self._give_up(_FAILURE)
            else:
                if trio.current_time() - started_at >= _LONG_LIFE:
                    delay = _FIRST_DELAY
                logger.error("%s: the next one starts in %g seconds", failure, delay)
                await trio.sleep(delay)
                delay = min(2 * delay, _LONGEST_DELAY)

    def _give_up(self, status: int) -> None:
        self._status = status
        self._keepers.cancel_scope.cancel()

    async def _replace_all(self) -> None:
        generation = 0
        while True:
            generation = await self._generation.wait_value(partial(ne, generation))
            for slot in self._slots:
                if not await self._replace(slot, generation):
                    break

    async def _replace(self, slot: _Slot, generation: int) -> bool:
        """Put another one in the place of a worker, unless the next generation is asked for first.

        Returns:
          Whether it serves.
        """
        async with slot.lock:
            try:
                worker = await self._start()
            except _CannotStartError as exc:
                logger.error("%s: the others stay", exc)
                return False
            await wait_any(
                worker.settled.wait, partial(self._generation.wait_value, partial(ne, generation))
            )
            if not worker.is_ready:
                if not worker.ended.is_set():
                    logger.warning("%s has not begun to serve: another one is to be tried", worker)
                    await worker.stop(hurry=True)
                    return False
                logger.error(
                    "%s has ended %s before it served: the others stay",
                    worker,
                    worker.how_it_ended,
                )
                return False
            before, slot.worker.value = slot.worker.value, worker
        if before is not None:  # while its responses end, the next one is replaced
            self._keepers.start_soon(partial(before.stop, hurry=self._changes is not None))
        return True

    # Processes...

    async def _start(self) -> _Process:
        """Start a worker.

        Raises:
          _CannotStartError: The system can't do that now.
        """
        worker: _Process = await self._processes.start(self._run_process)
        return worker

    async def _open_process(self) -> tuple[trio.Process, socket.socket]:
        """Start a process, and the channel that its end is seen by.

        Raises:
          _CannotStartError: As `_start`.
        """
        try:
            ours, theirs = socket.socketpair()
            with ExitStack() as stack, theirs:
                stack.enter_context(ours)
                text = describe_worker(theirs, self._fds, announces=not self._has_served.is_set())
                process = await trio.lowlevel.open_process(
                    self._command,
                    env={**os.environ, **self._stats_environment, VARIABLE: text},
                    pass_fds=(theirs.fileno(), *self._fds),
                    process_group=0,  # Ctrl-C is for the supervisor, which passes it on once
                    stdin=None if 0 in self._fds else DEVNULL,
                )
                stack.pop_all()
        # RuntimeError is the threading module's word for a limit: Trio has a thread start it.
        except (OSError, RuntimeError) as exc:
            raise _CannotStartError(f"a worker can't be started: {exc}") from exc
        return process, ours

    async def _run_process(self, task_status: trio.TaskStatus[_Process]) -> None:
        process, ours = await self._open_process()
        with ours:
            worker = _Process(process)
            self._living.add(worker)
            task_status.started(worker)
            try:
                async with run_and_cancelling(worker.receive_readiness, ours, self._has_served):
                    await process.wait()
            finally:
                process.kill()  # does nothing if it has ended
                with trio.CancelScope(shield=True):
                    await process.wait()
                self._living.remove(worker)
                worker.settled.set()
                worker.ended.set()
        if self._is_ending:
            logger.info("%s has ended %s", worker, worker.how_it_ended)
            # Of one that did not serve yet, a signal has cut nothing off.
            status = process.returncode or 0
            if status > 0 or (worker.is_ready and status):
                self._status = _FAILURE


async def _next_end(signals: AsyncIterator[int]) -> None:
    while await anext(signals) == signal.SIGHUP:
        pass
