"""The loop of the bare servers: one edge-triggered epoll, and each client's steps in turn."""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

NOTSENT_LOWAT = 128 * 1024
"""As in `trio_stream`, so that the kernel does the same work."""

MAX_COUNT = 256 * 1024
"""How much one client is sent before the others have their turns.

With 1 MiB, 64 clients cost up to twice as much; for one it makes no difference.
"""

_EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLET


class Client(Protocol):
    """What a server knows of one connection."""

    def step(self) -> bool:
        """Send or receive something.

        Returns:
          Whether there is more to do, without waiting for an event.

        Raises:
          OSError: The client has gone; or, if it is `BlockingIOError`, can't go on now.
        """


def serve(make_client: Callable[[socket.socket], Client]) -> None:
    """Serve without end: in each turn of the loop, one step of each client that is ready."""
    clients: dict[int, tuple[socket.socket, Client]] = {}
    ready: set[int] = set()
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener, select.epoll() as epoll:
        epoll.register(listener, select.EPOLLIN)
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        while True:
            for fd, _ in epoll.poll(0 if ready else -1):
                if fd == listener.fileno():
                    sock = _accept(listener)
                    clients[sock.fileno()] = sock, make_client(sock)
                    epoll.register(sock, _EVENTS)
                else:
                    ready.add(fd)
            for fd in tuple(ready):
                sock, client = clients[fd]
                try:
                    if client.step():
                        continue
                except BlockingIOError:
                    pass
                except OSError:
                    sock.close()
                    del clients[fd]
                ready.remove(fd)


def _accept(listener: socket.socket) -> socket.socket:
    sock, _ = listener.accept()
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT)
    return sock
