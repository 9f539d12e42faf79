"""What is being sent to whom: live lines in a terminal, or lines in the log."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Protocol

import trio

from ._access_log import logger as access_logger
from ._transfer import Transfer
from ._wording import human_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._request import Request
    from ._response import Response

logger = logging.getLogger("trio_stream")

_REFRESH_INTERVAL = 0.25  # seconds


class Display(Protocol):
    """Shows transfers to the operator."""

    def update(self, under_way: Sequence[Transfer], over: Sequence[Transfer]) -> None:
        """Show what there is now.

        Args:
          under_way: Those that have begun and are not over.
          over: Those that have ended since the last call.
        """


class Transfers:
    """All transfers of a server.

    Args:
      open_display: Opens what shows them.
    """

    def __init__(
        self, open_display: Callable[[], AbstractContextManager[Display]] | None = None
    ) -> None:
        self._open_display = open_display or _open_display
        self._transfers: list[Transfer] = []

    def add(self, name: str, res: Response, req: Request) -> None:
        """Watch the answer to a request for a file or an archive, called `name`."""
        self._transfers.append(Transfer(name, res, req))

    async def show(self) -> None:
        """Show all of them until cancelled, and then how they ended."""
        with suppress(OSError), self._open_display() as display:
            await self._show_on(display)
        await self._show_on(LogDisplay())  # the terminal has gone

    async def _show_on(self, display: Display) -> None:
        try:
            while True:
                await trio.sleep(_REFRESH_INTERVAL)
                self._update(display)
        finally:
            self._update(display)

    def _update(self, display: Display) -> None:
        now = trio.current_time()
        for transfer in self._transfers:
            transfer.look(now)
        begun = [transfer for transfer in self._transfers if transfer.is_begun]
        self._transfers = [transfer for transfer in self._transfers if not transfer.is_over]
        display.update(
            [transfer for transfer in begun if not transfer.is_over],
            [transfer for transfer in begun if transfer.is_over],
        )


class LogDisplay:
    """A line in the log for the begin and the end of each; one for both if it was a short one."""

    def __init__(self) -> None:
        self._known: set[Transfer] = set()

    def update(self, under_way: Sequence[Transfer], over: Sequence[Transfer]) -> None:
        """As `Display.update`."""
        for transfer in under_way:
            if transfer not in self._known:
                self._known.add(transfer)
                size = "" if transfer.total is None else f", {human_size(transfer.total)}"
                logger.info("sending: %s to %s%s", transfer.name, transfer.client, size)
        for transfer in over:
            self._known.discard(transfer)
            logger.info("%s", transfer.summary)


def _open_display() -> AbstractContextManager[Display]:
    """The best there is: live lines need a terminal that can move its cursor, and `rich`.

    The lines of an access log would go through them, and say the same.
    """
    is_terminal = sys.stdout is not None and sys.stdout.isatty()  # `None` if it takes nothing
    has_access_log = access_logger.isEnabledFor(logging.INFO)
    if is_terminal and not has_access_log and os.environ.get("TERM") not in ("dumb", "unknown"):
        with suppress(ImportError):
            from ._live import open_live_display

            return open_live_display(sys.stdout)
    return nullcontext(LogDisplay())
