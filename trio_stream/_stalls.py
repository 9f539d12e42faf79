"""Which clients take nothing: one timer for all the blocked responses of a server."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

import trio


class Stallable(Protocol):
    """A sender that is waiting for its client. Neither method may raise."""

    def has_progressed(self) -> bool:
        """Whether the client took a byte since the last call, or since the timer started."""

    def on_stall(self) -> None:
        """The client took nothing for the whole timeout."""


class StallWatch:
    """Tells the senders whose client takes no byte for `timeout` seconds.

    The timeout is the same for all, so the senders stay in the order of their deadlines: starting
    and stopping a timer is one dictionary operation, and one sleeping task serves all of them.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._deadlines: OrderedDict[Stallable, float] = OrderedDict()
        self._started = trio.Event()

    def start(self, sender: Stallable) -> None:
        """Give `sender` the full timeout from now on."""
        self._deadlines[sender] = trio.current_time() + self._timeout
        self._deadlines.move_to_end(sender)
        self._started.set()

    def stop(self, sender: Stallable) -> None:
        """End the timer of `sender`, if there is one."""
        self._deadlines.pop(sender, None)

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            if not self._deadlines:
                self._started = trio.Event()
                await self._started.wait()
            elif (deadline := next(iter(self._deadlines.values()))) > trio.current_time():
                await trio.sleep_until(deadline)
            else:
                sender, _ = self._deadlines.popitem(last=False)
                if sender.has_progressed():
                    self.start(sender)
                else:
                    sender.on_stall()
