"""Accepting connections: all that are there, none that there is no room for, through any shortage.

`trio.serve_listeners` takes one connection in each turn of the scheduler, so that in a burst the
last one waits for as many turns as there are connections.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

logger = logging.getLogger("trio_stream")

# Accepted in one turn, at about 50 us each until they wait for their clients: those connected
# already shall not wait longer than for a fast response.
_CONNECTIONS_AT_ONCE = 32

# The system has run out of descriptors or memory: that passes, but nothing tells when.
_SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
_SHORTAGE_DELAY = 0.1

# What accept(2) says of one connection, which has gone, and not of the listener: Linux reports the
# errors that are pending on the new socket, and a firewall's verdict.
_ERRORS_OF_ONE = {
    getattr(errno, name)
    for name in (
        *("ECONNABORTED", "ECONNRESET", "EPROTO", "EPERM", "ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN"),
        *("ENONET", "EHOSTUNREACH", "EOPNOTSUPP", "ENETUNREACH", "ETIMEDOUT"),
    )
    if hasattr(errno, name)
}


async def accept_connections(
    listener: trio.SocketListener,
    serve: Callable[[trio.SocketStream, object], Awaitable[object]],
    nursery: trio.Nursery,
    room: trio.CapacityLimiter,
) -> None:
    """Accept until cancelled, and close the listener at the end.

    While the system has no descriptor or no memory for another connection, none is accepted; that
    is logged once, and the connections that there are go on.

    Args:
      listener: Where to accept.
      serve: Called for each connection with the client's address, in a task of its own; it closes
        the stream. (A socket does not tell the address any more if it was reset meanwhile.)
      nursery: Where these tasks run.
      room: Each connection has one of its tokens. When there is none left, new connections wait in
        the kernel's backlog. Other listeners may share it.

    Raises:
      OSError: The listener is broken.
      trio.ClosedResourceError: It was closed.
    """

    async def serve_one(stream: trio.SocketStream, client: object) -> None:
        try:
            await serve(stream, client)
        finally:
            room.release_on_behalf_of(stream)

    shortage: OSError | None = None
    # Trio's socket accepts only with a turn of the scheduler; this is the same descriptor.
    plain = socket.socket(fileno=listener.socket.fileno())
    plain.setblocking(False)  # whatever `socket.setdefaulttimeout` says
    try:
        async with listener:
            while True:
                await _wait_for_room(room)
                await trio.lowlevel.wait_readable(listener.socket)
                count = min(room.available_tokens, _CONNECTIONS_AT_ONCE)
                try:
                    while count > 0 and (accepted := _accept(plain)) is not None:
                        count -= 1
                        room.acquire_on_behalf_of_nowait(accepted[0])
                        nursery.start_soon(serve_one, *accepted)
                except OSError as exc:
                    if exc.errno not in _SHORTAGES:
                        raise
                    if shortage is None:
                        logger.error("no connection can be accepted for the moment: %s", exc)
                    shortage = exc
                    await trio.sleep(_SHORTAGE_DELAY)
                else:
                    if shortage is not None:
                        logger.warning("connections can be accepted again")
                    shortage = None
    finally:
        plain.detach()


async def _wait_for_room(room: trio.CapacityLimiter) -> None:
    if room.available_tokens <= 0:
        async with room:
            pass


def _accept(listener: socket.socket) -> tuple[trio.SocketStream, object] | None:
    """The next connection, and whose it is; `None` if there is none, or if it has gone.

    Raises:
      OSError: None can be accepted, now or ever.
    """
    try:
        sock, client = listener.accept()
    except BlockingIOError:
        return None
    except OSError as exc:
        if exc.errno in _ERRORS_OF_ONE:
            return None
        raise
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock)), client


class ClientCounts:
    """How many connections each client address has, up to a limit.

    Only what has an address is counted: no Unix socket, and no stream without a socket.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._counts: Counter[object] = Counter()

    @contextmanager
    def counted(self, client: object) -> Iterator[bool]:
        """Count one connection for the length of the block; whether it is within the limit.

        Args:
          client: As `socket.getpeername` gives it; `None` if there is no address.
        """
        if not isinstance(client, tuple):
            yield True
            return
        host = client[0]
        self._counts[host] += 1
        try:
            yield self._counts[host] <= self._limit
        finally:
            self._counts[host] -= 1
            if not self._counts[host]:
                del self._counts[host]
