"""The least that files can cost in Python: one edge-triggered epoll, and `os.sendfile`.

One request at a time on each connection and no HTTP beyond the path.
"""

from __future__ import annotations

import os
import socket

from tests.benchmarks.disk import folder
from tests.benchmarks.servers.bare_loop import MAX_COUNT, serve

_HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHello, World!"


class Client:
    """A connection, and the file that it is being sent."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._fd = sock.fileno()
        self._file = -1
        self._offset = self._size = 0

    def step(self) -> bool:
        """Send a part of the file, or take the next request."""
        try:
            return self._send() if self._offset < self._size else self._receive()
        except BlockingIOError:
            raise
        except OSError:
            if self._offset < self._size:
                os.close(self._file)
            raise

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
            raise ConnectionError("the client has closed")
        place, _, name = request.split(b" ", 2)[1].decode().rpartition("/")
        if not place:  # /hello
            self._sock.send(_HELLO)
            return False
        self._file = os.open(f"{folder()}/{name}", os.O_RDONLY)
        self._offset, self._size = 0, os.fstat(self._file).st_size
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self._size
        self._sock.send(head, socket.MSG_MORE)
        return True


if __name__ == "__main__":
    serve(Client)
