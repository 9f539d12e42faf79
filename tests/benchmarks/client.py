"""The client's side: plain blocking sockets, so that hardly any time goes into it."""

from __future__ import annotations

import json
import select
import socket
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

TIMEOUT = 10
"""How long a send or a receive may take, in seconds."""

BROWSER_FIELDS = (
    "Connection: keep-alive\r\n"
    'sec-ch-ua: "Chromium";v="142", "Not_A Brand";v="99"\r\n'
    "sec-ch-ua-mobile: ?0\r\n"
    'sec-ch-ua-platform: "Linux"\r\n'
    "Upgrade-Insecure-Requests: 1\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/142.0.0.0 Safari/537.36\r\n"
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
    "\r\n"
    "Sec-Fetch-Site: none\r\n"
    "Sec-Fetch-Mode: navigate\r\n"
    "Sec-Fetch-User: ?1\r\n"
    "Sec-Fetch-Dest: document\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd\r\n"
    "Accept-Language: en-US,en;q=0.9\r\n"
    "Cookie: session=2f6c1d0b9a8e47f5b3c6d1e0f9a8b7c6; theme=dark\r\n"
)
"""What a browser adds to the head of a request: 14 lines, about 800 bytes."""

_DISCARD_SIZE = 512 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def connect(port: int) -> socket.socket:
    """Connect to 127.0.0.1. A socket that waits for `TIMEOUT` seconds raises `BlockingIOError`."""
    sock = socket.create_connection(("127.0.0.1", port), TIMEOUT)
    # The kernel's timeouts, unlike Python's, need no poll() beside each call.
    sock.settimeout(None)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", TIMEOUT, 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def reset_on_close(sock: socket.socket) -> None:
    """Have `close` send RST instead of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def request(path: str, fields: str = "") -> bytes:
    """The bytes of a GET request, with further lines of its head."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}\r\n".encode()


def receive_head(sock: socket.socket) -> bytes:
    """Receive the head of a response, and nothing of its body."""
    head = b""
    while b"\r\n\r\n" not in head:
        peeked = sock.recv(4096, socket.MSG_PEEK)
        if not peeked:
            raise ConnectionError(f"the server closed after {head!r}")
        end = (head + peeked).find(b"\r\n\r\n")
        head += sock.recv(len(peeked) if end < 0 else end + 4 - len(head))
    if not head.startswith(b"HTTP/1.1 200 "):
        raise ConnectionError(f"the server answered {head!r}")
    return head


def sink(sock: socket.socket, size: int, buffer: bytearray) -> None:
    """Receive `size` bytes, a buffer full at a time, and look at none."""
    view = memoryview(buffer)
    while size:
        received = sock.recv_into(view[:size] if size < len(view) else view)
        if not received:
            raise ConnectionError(f"the server closed with {size} bytes still to come")
        size -= received


def sink_chunked(sock: socket.socket, buffer: bytearray) -> int:
    """Receive a chunked body, in which nothing looks like its end, a buffer full at a time.

    Returns:
      How many bytes came, framing included.
    """
    view = memoryview(buffer)
    size = 0
    tail = b""
    while tail != b"0\r\n\r\n":
        received = sock.recv_into(view)
        if not received:
            raise ConnectionError(f"the server closed after {size} bytes")
        size += received
        tail = (tail + view[max(received - 5, 0) : received])[-5:]
    return size


def discard(socks: Collection[socket.socket], size: int, gulp: int = 1) -> None:
    """Receive `size` bytes of each, in the order in which they come, without copying them.

    That is what MSG_TRUNC does on TCP (tcp(7)).

    Args:
      socks: The connections.
      size: How much comes on each.
      gulp: Wake up for no less, if the receive buffers hold so much. That is cheaper, also for the
        server, in whose system calls the kernel wakes the client.
    """
    by_fd = {sock.fileno(): sock for sock in socks}
    left = dict.fromkeys(by_fd, size)
    buffer = memoryview(bytearray(_DISCARD_SIZE))
    with select.epoll() as epoll:
        for fd, sock in by_fd.items():
            _set_gulp(sock, min(gulp, size))
            epoll.register(fd, select.EPOLLIN)
        while left:
            events = epoll.poll(TIMEOUT)
            if not events:
                raise BlockingIOError(f"nothing came for {TIMEOUT} s")
            for fd, _ in events:
                sock = by_fd[fd]
                received = sock.recv_into(
                    buffer[: left[fd]], 0, socket.MSG_TRUNC | socket.MSG_DONTWAIT
                )
                if not received:
                    raise ConnectionError(f"the server closed with {left[fd]} bytes still to come")
                left[fd] -= received
                if not left[fd]:
                    del left[fd]
                    _set_gulp(sock, 1)
                elif left[fd] < gulp:
                    _set_gulp(sock, left[fd])


def _set_gulp(sock: socket.socket, gulp: int) -> None:
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) != gulp:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, gulp)


def get_json(port: int, path: str) -> dict[str, Any]:
    """The JSON object at `path`."""
    with connect(port) as sock:
        sock.sendall(request(path))
        head = receive_head(sock).lower()
        body = bytearray(int(head.partition(b"content-length:")[2].split()[0]))
        sink(sock, len(body), body)
    value: dict[str, Any] = json.loads(body)
    return value
