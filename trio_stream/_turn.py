"""How long a response sends before other tasks run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._transport import Transport


# A turn of others costs 40 us even if nobody has anything to do: what is sent has driven the code
# of the scheduler from the cache of the processor. One every 2 MiB is a fifth of what chunks of
# 1 MiB cost, and a tenth with 64 KiB; to look whether something has come in is a quarter of that.
_BUDGETS = 8


class Turn:
    """The turn of a response that could send on without end.

    Args:
      transport: Tells whether something has come in for the server.
      send_budget: `Config.send_budget`; the turn takes eight times as much at most.
    """

    __slots__ = ("_began_at", "_is_quiet", "_longest", "_transport")

    def __init__(self, transport: Transport, send_budget: int) -> None:
        self._transport = transport
        self._longest = _BUDGETS * send_budget
        self._began_at = 0
        self._is_quiet = False

    def is_over(self, offset: int) -> bool:
        """Whether it is over at `offset`, where then the next one begins.

        It is over when something has come in, which is looked for at each call.
        """
        was_quiet, self._is_quiet = self._is_quiet, not self._transport.has_arrivals()
        # Twice, as after the first time this may run before whoever is to receive it.
        if was_quiet and self._is_quiet and offset - self._began_at < self._longest:
            return False
        self._began_at = offset
        return True
