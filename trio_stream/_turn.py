"""How long a response sends before other tasks run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

    def is_over(self, offset: int, longest: int) -> bool:
        """Whether it is over at `offset`, where then the next one begins.

        That is after `longest` bytes, or when something has come in, which is looked for at each
        call.
        """
        before, self._arrivals = self._arrivals, self._transport.arrivals()
        was_quiet, self._is_quiet = self._is_quiet, before in (None, self._arrivals)
        # Twice, as after the first time this may run before whoever is to receive it.
        if was_quiet and self._is_quiet and offset - self._began_at < longest:
            return False
        self._began_at = offset
        return True
