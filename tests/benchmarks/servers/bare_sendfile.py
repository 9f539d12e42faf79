"""The least that files can cost in Python: one edge-triggered epoll, and `os.sendfile`.

One request at a time on each connection and no HTTP beyond the path, but the socket options of
`trio_stream`, so that the kernel does the same work for both.
"""

from __future__ import annotations

import os
import select
import socket

from tests.benchmarks.disk import folder

NOTSENT_LOWAT = 128 * 1024

MAX_COUNT = 256 * 1024
"""How much one client is sent before the others have their turns.

With 1 MiB, 64 clients cost up to twice as much; for one it makes no difference.
"""

_EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLET
_HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHello, World!"


def main() -> None:
    """Serve without end: in each turn of the loop, one step of each client that is ready."""
    clients: dict[int, Client] = {}
    ready: set[int] = set()
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener, select.epoll() as epoll:
        epoll.register(listener, select.EPOLLIN)
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        while True:
            for fd, _ in epoll.poll(0 if ready else -1):
                if fd == listener.fileno():
                    sock, _ = listener.accept()
                    clients[sock.fileno()] = Client(sock)
                    epoll.register(sock, _EVENTS)
                else:
                    ready.add(fd)
            ready = {fd for fd in ready if clients[fd].step()}


class Client:
    """A connection, and the file that it is being sent."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT)
        self._sock = sock
        self._fd = sock.fileno()
        self._file = -1
        self._offset = self._size = 0

    def step(self) -> bool:
        """Send a part of the file, or take the next request.

        Returns:
          Whether there is more to do, without waiting for an event.
        """
        try:
            return self._send() if self._offset < self._size else self._receive()
        except BlockingIOError:
            return False
        except OSError:
            self._close()
            return False

    def _send(self) -> bool:
        count = min(MAX_COUNT, self._size - self._offset)
        sent = os.sendfile(self._fd, self._file, self._offset, count)
        self._offset += sent
        if self._offset == self._size:
            os.close(self._file)
            return False
        return sent == count

    def _receive(self) -> bool:
        request = self._sock.recv(4096)
        if not request:
            self._close()
            return False
        place, _, name = request.split(b" ", 2)[1].decode().rpartition("/")
        if not place:  # /hello
            self._sock.send(_HELLO)
            return False
        self._file = os.open(f"{folder()}/{name}", os.O_RDONLY)
        self._offset, self._size = 0, os.fstat(self._file).st_size
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self._size
        self._sock.send(head, socket.MSG_MORE)
        return True

    def _close(self) -> None:
        self._sock.close()
        if self._offset < self._size:
            os.close(self._file)


if __name__ == "__main__":
    main()
