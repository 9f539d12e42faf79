"""The least that streaming can cost in Python: non-blocking `os.write`, and epoll when it is full.

One request at a time on each connection and no HTTP beyond the path and the length of an upload.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.benchmarks.servers.bare_loop import MAX_COUNT, serve
from tests.benchmarks.servers.chunk import HELLO, LAST_FRAME, make_chunk, make_frame

if TYPE_CHECKING:
    import socket

_buffer = bytearray(MAX_COUNT)
_HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(HELLO), HELLO)


class Client:
    """A connection, and what it is being sent."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._fd = sock.fileno()
        self._upload_left = 0
        self._sending = False
        self._piece = self._end = b""
        self._sent = self._total = 0

    def step(self) -> bool:
        """Send some pieces, or receive some of an upload, or take the next request."""
        if self._sending:
            return self._send()
        if self._upload_left:
            return self._receive_upload()
        return self._receive_request()

    def _send(self) -> bool:
        piece, fd = self._piece, self._fd
        view = memoryview(piece)
        for _ in range(MAX_COUNT // len(piece) or 1):
            if self._sent == self._total:
                os.write(fd, self._end)
                self._sending = False
                return True  # the next request may be there already
            start = self._sent % len(piece)
            accepted = os.write(fd, view[start:] if start else piece)
            self._sent += accepted
            if accepted < len(piece) - start:
                return False
        return True

    def _receive_request(self) -> bool:
        request = self._sock.recv(4096)
        if not request:
            raise ConnectionError("the client has closed")
        match request.split(b" ", 2)[1].split(b"/"):
            case [_, b"hello"]:
                os.write(self._fd, _HELLO)
                return False
            case [_, b"upload"]:
                head, _, body = request.partition(b"\r\n\r\n")
                self._upload_left = _content_length(head) - len(body)
            case [_, b"stream", size, total]:
                self._start(b"Content-Length: %b" % total, make_chunk(int(size)), b"")
                self._total = int(total)
            case [_, b"unknown", size, total]:
                self._start(b"Transfer-Encoding: chunked", make_frame(int(size)), LAST_FRAME)
                self._total = int(total) // int(size) * len(self._piece)
        return True

    def _start(self, field: bytes, piece: bytes, end: bytes) -> None:
        os.write(self._fd, b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % field)
        self._piece, self._end = piece, end
        self._sent = 0
        self._sending = True

    def _receive_upload(self) -> bool:
        received = self._sock.recv_into(_buffer)
        if not received:
            raise ConnectionError("the client has closed")
        self._upload_left -= received
        if not self._upload_left:
            os.write(self._fd, _HELLO)
        return bool(self._upload_left)


def _content_length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])


if __name__ == "__main__":
    serve(Client)
