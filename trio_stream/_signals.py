"""What signals do to a server that has the process for itself."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from math import inf
from typing import TYPE_CHECKING, Self

import trio

from ._background import open_background

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ._server import Server

logger = logging.getLogger("trio_stream")

_HANGUP = getattr(signal, "SIGHUP", None)  # where there are terminals

# Seconds. No person sends a second one so fast.
_ECHO_TIME = 0.1


class Terminal:
    """The terminal that controls this process, if there is one.

    Closing it sends SIGHUP, as somebody may do by hand: `is_gone` tells the two apart. It must be
    made before SIGHUP is caught: under nohup, where SIGHUP is ignored, the terminal does not count.
    """

    def __init__(self) -> None:
        counts = _HANGUP is not None and signal.getsignal(_HANGUP) is not signal.SIG_IGN
        self._was_there = counts and _has_terminal()

    @property
    def is_gone(self) -> bool:
        """Whether it was closed."""
        return self._was_there and not _has_terminal()


def _has_terminal() -> bool:
    try:
        fd = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    os.close(fd)
    return True


class DebouncedSignals:
    """Signals, without those that a process gets twice at once.

    Some programs signal the process that they run, and then its group, to which it belongs:
    timeout(1) does, and whoever passes on the Ctrl-C of a terminal.

    Made by `open_signals`.
    """

    def __init__(self, signals: AsyncIterator[int]) -> None:
        self._signals = signals
        self._ends_at: dict[int, float] = {}

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> int:
        while True:
            number = await anext(self._signals)
            now = trio.current_time()
            if number == _HANGUP or now >= self._ends_at.get(number, -inf):
                self._ends_at[number] = now + _ECHO_TIME
                return number

    async def _wait_quiet(self) -> None:
        """Let the time pass in which an echo may come: nothing else would catch it."""
        quiet_at = max(self._ends_at.values(), default=-inf)
        with trio.CancelScope(deadline=quiet_at, shield=True):
            async for _ in self:
                pass


@asynccontextmanager
async def open_signals(*numbers: int) -> AsyncIterator[DebouncedSignals]:
    """Catch signals in the block, and then for as long as an echo of the last one may come."""
    with trio.open_signal_receiver(*numbers) as receiver:
        signals = DebouncedSignals(receiver)
        try:
            yield signals
        finally:
            await signals._wait_quiet()


async def serve_until_signal(
    server: Server,
    started: Callable[[Server], object],
    *,
    reload: Callable[[], object] | None = None,
) -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP, as `App.run` tells.

    Args:
      server: What serves.
      started: Called as soon as connections are accepted.
      reload: What SIGHUP does instead, unless it tells that the terminal was closed.

    Returns:
      The exit status: 1 if the end has cut something off, else 0.
    """
    terminal = Terminal()
    caught = [signal.SIGINT, signal.SIGTERM]
    # Under nohup it is ignored, and stays so.
    if _HANGUP is not None and (reload or signal.getsignal(_HANGUP) is signal.SIG_DFL):
        caught.append(_HANGUP)
    async with AsyncExitStack() as stack:
        signals = await stack.enter_async_context(open_signals(*caught))

        async def handle_signals() -> None:
            is_ending = False
            async for number in signals:
                if number == _HANGUP and reload is not None and not terminal.is_gone:
                    reload()
                elif not is_ending:
                    if number == signal.SIGINT:  # of a person, who can send another one as easily
                        logger.info("SIGINT: a second signal ends it at once")
                    server.shutdown()
                    is_ending = True
                elif number != _HANGUP:  # a terminal that is closed may say so more than once
                    break
            server._cut_off()
            everything.cancel()
            await stack.aclose()  # from now on a signal does what it does to any program

        with trio.CancelScope() as everything:
            async with open_background() as start_soon:
                start_soon(handle_signals)
                await server._serve(started)
    return 1 if server.has_cut_off or everything.cancelled_caught else 0
