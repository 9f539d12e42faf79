"""Who takes too long: one timer for all that wait for the same length of time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from math import inf
from typing import TYPE_CHECKING, Protocol, TypeAlias

import trio

if TYPE_CHECKING:
    from ._background import StartSoon
    from ._config import Config


TimeLimit: TypeAlias = Callable[[], AbstractContextManager[trio.CancelScope]]
"""Cancels its block if that takes too long."""

# What comes from a client passes at most so many tasks before it reaches the one that waits for it:
# those that read a stream, decrypt, and parse.
_TURNS_TO_ARRIVE = 3

# How often in its timeout a watch looks whether others have kept the processor.
_BEATS = 8

# Times add up with the errors of floats.
_CLOCK_ERROR = 0.001


class Timed(Protocol):
    """What has a time limit. Neither method may raise."""

    def has_progressed(self) -> bool:
        """Whether it has earned the full timeout once more."""

    def on_timeout(self) -> None:
        """The timeout has passed without progress."""


class TimeoutWatch:
    """Tells those that make no progress for `timeout` seconds.

    The timeout is the same for all, so they stay in the order of their deadlines: starting
    and stopping a timer is one dictionary operation, and one sleeping task serves all of them.

    If others have kept the processor for longer than that, what has come in the meantime counts: of
    each client one piece is read before anybody is told (16 KiB of a head, 256 KiB of a body).

    Args:
      timeout: In seconds.
      beats: How often in that time it looks for `lost_time`.
    """

    def __init__(self, timeout: float, *, beats: int = 1) -> None:
        self.timeout = timeout
        self._beat = timeout / beats
        self._wakes_at = inf
        self._lost_time = 0.0
        self._deadlines: OrderedDict[Timed, float] = OrderedDict()
        self._started = trio.Event()

    def start(self, timed: Timed) -> None:
        """Give `timed` the full timeout from now on."""
        self._deadlines[timed] = trio.current_time() + self.timeout
        self._deadlines.move_to_end(timed)
        self._started.set()

    def stop(self, timed: Timed) -> None:
        """End the timer of `timed`, if there is one."""
        self._deadlines.pop(timed, None)

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            while not self._deadlines:
                self._started = trio.Event()
                await self._started.wait()
            first = next(iter(self._deadlines.values()))
            self._wakes_at = min(first, trio.current_time() + self._beat)
            await trio.sleep_until(self._wakes_at)
            for _ in range(_TURNS_TO_ARRIVE):
                await trio.lowlevel.checkpoint()
            self._lost_time = self.lost_time()
            self._wakes_at = inf
            self._tell_late()

    def lost_time(self) -> float:
        """How many seconds others have kept the processor, up to now, as far as this was at work.

        What is not longer than a beat does not count: any server is a little late.
        """
        late = trio.current_time() - self._wakes_at
        return self._lost_time + (late if late > self._beat else 0)

    # A function of its own: while `run` sleeps, its variables would keep the one that was told.
    def _tell_late(self) -> None:
        now = trio.current_time()
        while self._deadlines and next(iter(self._deadlines.values())) <= now:
            timed, _ = self._deadlines.popitem(last=False)
            if timed.has_progressed():
                self.start(timed)
            else:
                timed.on_timeout()


class Timeouts:
    """The watches of a server that tell when a request takes too long to come or to be served."""

    def __init__(self, config: Config) -> None:
        self.head = TimeoutWatch(config.head_timeout)
        self.keep_alive = TimeoutWatch(config.keep_alive_timeout)
        self.request = TimeoutWatch(config.request_timeout)
        self.rate = TimeoutWatch(config.rate_grace, beats=_BEATS)

    def run(self, start_soon: StartSoon) -> None:
        """Have each watch at work in a task of its own; one without a timeout needs none."""
        for watch in (self.head, self.keep_alive, self.request, self.rate):
            if watch.timeout < inf:
                start_soon(watch.run)


class MinimumRate:
    """Whether a client keeps to a minimum rate, in all the time that it is waited for.

    It has an allowance of time, at first and at most the timeout of `watch`: waiting spends it, and
    each byte earns the time that it may take. So a short pause does no harm, nor does any time in
    which nobody waits for the client, or that the watch has lost.

    The watch looks at it at intervals of its timeout: who takes nothing is found when the allowance
    is spent, and who is slower than the rate at most one interval later.

    Args:
      watch: Its timeout is the grace.
      rate: In bytes a second; 0 for no minimum.
      progress: How many bytes the client has sent or taken, counted from anywhere.
      on_slow: Called once, when the allowance is found to be spent. It may not raise.
    """

    def __init__(
        self,
        watch: TimeoutWatch,
        rate: float,
        progress: Callable[[], int],
        on_slow: Callable[[], None],
    ) -> None:
        self._watch = watch
        self._rate = rate
        self._progress = progress
        self.on_timeout = on_slow
        self._allowance = watch.timeout
        self._is_watched = False
        self._waiting_since: float | None = None
        self._before = 0
        self._lost_before = 0.0

    def wait(self) -> None:
        """The client is waited for from now on."""
        if not self._rate:
            return
        self._waiting_since = trio.current_time()
        self._before = self._progress()
        self._lost_before = self._watch.lost_time()
        if not self._is_watched:
            self._is_watched = True
            self._watch.start(self)

    def stop_waiting(self) -> None:
        """The client is not waited for any more, or not for the moment."""
        if self._waiting_since is not None:
            self._settle(self._waiting_since)
            self._waiting_since = None

    def close(self) -> None:
        """Stop watching for good."""
        self._watch.stop(self)

    def has_progressed(self) -> bool:
        """Whether the client has some of its allowance left."""
        if self._waiting_since is not None:
            self._settle(self._waiting_since)
        return self._allowance > _CLOCK_ERROR

    def _settle(self, since: float) -> None:
        now, count, lost = trio.current_time(), self._progress(), self._watch.lost_time()
        earned = (count - self._before) / self._rate
        spent = max(now - since - (lost - self._lost_before), 0)
        self._allowance = min(self._allowance - spent + earned, self._watch.timeout)
        self._waiting_since, self._before, self._lost_before = now, count, lost
