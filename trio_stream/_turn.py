"""How long a response sends before other tasks run."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from ._stats import Stats
    from ._transport import Transport


# A turn of others costs 40 us even if nobody has anything to do: what is sent has driven the code
# of the scheduler from the cache of the processor. One every 2 MiB is a fifth of what chunks of
# 1 MiB cost, and a tenth with 64 KiB; to look whether something has come in is a quarter of that.
# So while nothing does, responses may go on for so many times `Config.send_budget`, together. With
# 8 clients and chunks of 64 KiB that saves a tenth.
QUIET_BUDGETS = 8

# However little is sent in them, the turns of all end after so many seconds together. What is sent
# without a pause takes less; a handler that works for each chunk may take any time.
LONGEST_TURN = 0.01

# Each of many has the turn of one of so many: less would not be worth a turn of the scheduler.
MOST_SHARING = 8

# The same while nothing comes in. With chunks of 64 KiB that saves a sixth with 64 clients, and a
# fifth with 1000. A small request takes hardly longer, as it is looked for before that; the timer
# of another task is late by the turns of all, which are 7 ms with 64 clients as fast as can be.
_MOST_SHARING_QUIETLY = 2

# To look at the clock costs a tenth of a small chunk, so it is not done for each. A handler that
# has been quick and becomes slow keeps the others waiting for so many chunks, once.
_CHUNKS_UNLOOKED = 64


class Turn:
    """The turn of a response that could send on without end.

    Args:
      transport: Tells whether something has come in for the server.
    """

    __slots__ = ("_arrivals", "_began_at", "_is_quiet", "_transport")

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._arrivals: object = None
        self._began_at = 0
        self._is_quiet = False

    def left(self, offset: int, longest: int) -> int:
        """How many bytes it goes on for at `offset`; if it is over, 0, and the next one begins.

        It ends after `longest` bytes, or as soon as something has come in for the server, which
        each call looks for before that.
        """
        if (left := self._began_at + longest - offset) > 0:
            before, self._arrivals = self._arrivals, self._transport.arrivals()
            was_quiet, self._is_quiet = self._is_quiet, before in (None, self._arrivals)
            # Twice, as after the first time this may run before whoever is to receive it.
            if was_quiet and self._is_quiet:
                return left
        self._began_at = offset
        return 0


class SendTurn(Turn):
    """The turn of a response that is sent chunk by chunk, in equal shares with all others.

    Its time is that of its task, which may send on many responses. So the time when it ends is kept
    with the task, in `custom_sleep_data`: Trio forgets that when others run.

    Args:
      transport: As for a `Turn`.
      stats: Those of the server, which tell how many responses there are.
      send_budget: How many bytes all of them send before other tasks run.

    Attributes:
      look_at: From this offset on, a chunk may be sent only if the turn `goes_on`.
      look_below: The same for a chunk of less than so many bytes.
    """

    __slots__ = (
        *("_deadline", "_end", "_look_after", "_send_budget", "_size", "_stats"),
        *("look_at", "look_below"),
    )

    def __init__(self, transport: Transport, stats: Stats, send_budget: int) -> None:
        super().__init__(transport)
        self._stats = stats
        self._send_budget = send_budget
        self._size = self._end = 0
        self._deadline = inf
        self.look_at = self._look_after = 1
        self.look_below = 0

    def begin(self, offset: int) -> None:
        """Begin a turn at `offset`: that of the task, if it has begun one."""
        task = trio.lowlevel.current_task()
        sharing = min(self._sharing(), MOST_SHARING)
        has_begun = isinstance(task.custom_sleep_data, float)
        if not has_begun:
            task.custom_sleep_data = trio.current_time() + LONGEST_TURN / sharing
        self._deadline = task.custom_sleep_data
        self._size = max(self._send_budget // sharing, 1)
        self._end = offset + self._size
        # A task could begin any number of responses in one turn, and never look.
        self.look_at = offset if has_begun else min(offset + self._look_after, self._end)

    def goes_on(self, offset: int, size: int) -> bool:
        """Whether a chunk of `size` bytes may be sent at `offset` before others have their turn.

        Args:
          offset: Where it begins.
          size: At least 1.
        """
        if trio.lowlevel.current_task().custom_sleep_data is not self._deadline:
            # The handler has waited for something else, or sent something else.
            self.begin(offset)
        self.look_below = size
        if offset >= self._end:
            least = self._send_budget // _MOST_SHARING_QUIETLY
            longest = max(QUIET_BUDGETS * self._send_budget // self._sharing(), least)
            if not (left := self.left(offset, longest)):
                return False
            self._end = offset + min(left, max(self._size, least))
        if trio.current_time() > self._deadline:
            # The handler takes its time for each chunk, and next time this is noticed earlier.
            self._look_after = 1
            return False
        self._look_after = min(max(2 * self._look_after, size), _CHUNKS_UNLOOKED * size)
        self.look_at = min(offset + self._look_after, self._end)
        return True

    def _sharing(self) -> int:
        return self._stats.active_responses or 1  # a response that is long over may be alone
