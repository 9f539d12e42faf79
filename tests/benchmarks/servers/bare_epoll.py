"""The least that streaming can cost in Python: non-blocking `os.write`, and epoll when it is full.

One connection at a time and no HTTP beyond the path, but the socket options of `trio_stream`, so
that the kernel does the same work for both.
"""

from __future__ import annotations

import os
import select
import socket
from functools import lru_cache

NOTSENT_LOWAT = 128 * 1024


def main() -> None:
    """Serve one client after the other, without end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        while True:
            client, _ = listener.accept()
            with client:
                serve(client)


def serve(client: socket.socket) -> None:
    """Answer requests for `/stream/CHUNK/TOTAL` until the client closes."""
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT)
    while request := client.recv(4096):
        _, _, chunk_size, total = request.split(b" ", 2)[1].split(b"/")
        client.setblocking(False)
        stream(client.fileno(), make_chunk(int(chunk_size)), int(total))
        client.setblocking(True)


def stream(fd: int, chunk: bytes, total: int) -> None:
    """Send the head, and then `chunk` over and over."""
    os.write(fd, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
    view = memoryview(chunk)
    with select.epoll() as epoll:
        epoll.register(fd, select.EPOLLOUT | select.EPOLLET)
        sent = 0
        while sent < total:
            start = sent % len(chunk)
            try:
                accepted = os.write(fd, view[start:] if start else chunk)
            except BlockingIOError:
                accepted = 0
            sent += accepted
            if accepted < len(chunk) - start:
                epoll.poll()


@lru_cache
def make_chunk(size: int) -> bytes:
    """A chunk to send, the same object each time."""
    return bytes(range(256)) * (size // 256)


if __name__ == "__main__":
    main()
