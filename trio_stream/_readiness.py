"""Who is writable and who hung up: one watcher for all sockets of a server.

Every socket is registered once, edge-triggered, in an epoll instance that is itself waited for in
Trio's loop. So neither a request nor a parked send costs a task or a system call, and a FIN is seen
even behind request bytes that nobody has read yet: `EPOLLRDHUP` does not wait for a reader, as
`recv` would. Nobody waits for the other instance, which is only asked whether anything has arrived.
"""

from __future__ import annotations

import select
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

# Elsewhere (macOS, Windows) a socket is served like any other stream.
HAVE_EPOLL = hasattr(select, "epoll")

_ARRIVALS_AT_ONCE = 256  # of which none is looked at

# Whoever is told sends in the same turn of the scheduler, and all others wait for that: with 4000
# slow readers, small requests for 4 ms (p99), and for 300 where 32 are told. With 64 fast clients
# and chunks of 16 KiB that costs a twentieth more CPU time, and with 64 KiB a twentieth less.
_EVENTS_AT_ONCE = 8


class Watched(Protocol):
    """What the watcher tells, in its own task: neither method may raise."""

    def on_writable(self) -> None:
        """The kernel takes bytes again."""

    def on_hang_up(self, *, reset: bool) -> None:
        """The peer sent FIN or, with `reset`, nothing can be sent any more."""


class ReadinessWatcher:
    """Tells each registered descriptor when it takes bytes again and when its peer hangs up.

    A context manager: leaving it closes both epoll instances, after `run` has ended.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, Watched] = {}
        self._events = select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
        # Nobody waits for this one: it is only asked whether something has come in.
        self._arrivals = select.epoll()
        self._arrivals_seen = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._epoll.close()
        self._arrivals.close()

    def add(self, fd: int, watched: Watched) -> None:
        """Watch `fd`: what it is now is told soon, and then each change.

        Raises:
          OSError: The kernel can't watch one more descriptor.
        """
        self._epoll.register(fd, self._events)
        try:
            self.attend(fd)
        except BaseException:
            self._epoll.unregister(fd)
            raise
        self._watched[fd] = watched

    def remove(self, fd: int, watched: Watched) -> None:
        """Forget `fd`, unless it was closed and its number is somebody else's by now."""
        if self._watched.get(fd) is not watched:
            return
        del self._watched[fd]
        for epoll in (self._epoll, self._arrivals):
            with suppress(OSError):  # a closed one, which the kernel has forgotten
                epoll.unregister(fd)

    def attend(self, fd: int) -> None:
        """Let `count_arrivals` tell of what comes in at `fd`, such as a listening socket.

        Raises:
          OSError: As `add`.
        """
        self._arrivals.register(fd, select.EPOLLIN | select.EPOLLET)

    def count_arrivals(self) -> int:
        """A number that has risen if data or a connection has come in since the last call."""
        self._arrivals_seen += bool(self._arrivals.poll(0, _ARRIVALS_AT_ONCE))
        return self._arrivals_seen

    def notify_soon(self, fd: int) -> None:
        """Tell once more what `fd` is now, when Trio next looks for I/O."""
        self._epoll.modify(fd, self._events)

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            self._tell()

    # A function of its own: while `run` waits, its variables would keep the one that was told last.
    def _tell(self) -> None:
        gone = select.EPOLLERR | select.EPOLLHUP
        for fd, events in self._epoll.poll(0, _EVENTS_AT_ONCE):
            # What was told to another one in this round may have closed this one.
            watched = self._watched.get(fd)
            if watched is not None and events & (select.EPOLLRDHUP | gone):
                watched.on_hang_up(reset=bool(events & gone))
            if watched is not None and events & select.EPOLLOUT:
                watched.on_writable()
