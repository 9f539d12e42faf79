"""The client's side: plain sockets, so that hardly any time goes into it.

Where it is measured what a server spends, the client never sleeps. If it did, what the server sends
would have to wake it, and that is the most expensive part of a write where the processors are
virtual ones: then a server would cost half or twice as much as the next time, depending on how
often its client happened to be asleep.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

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


def connect(port: int, *, receive_buffer: int | None = None) -> socket.socket:
    """Connect to 127.0.0.1. A socket that waits for `TIMEOUT` seconds raises `BlockingIOError`.

    Without a size for its receive buffer, the kernel has it grow with the stream, up to 32 MiB.
    """
    sock = socket.socket()
    if receive_buffer is not None:  # before the connection, to which it gives its scale
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(TIMEOUT)
    sock.connect(("127.0.0.1", port))
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


def sink(sock: socket.socket, size: int, buffer: bytearray, *, is_awake: bool = False) -> None:
    """Receive `size` bytes, a buffer full at a time, and look at none.

    Args:
      sock: The connection.
      size: How much is to come.
      buffer: For it.
      is_awake: Never sleep.
    """
    view = memoryview(buffer)
    while size:
        part = view[:size] if size < len(view) else view
        received = _receive_awake(sock, part) if is_awake else sock.recv_into(part)
        if not received:
            raise ConnectionError(f"the server closed with {size} bytes still to come")
        size -= received


def sink_chunked(sock: socket.socket, buffer: bytearray) -> int:
    """Receive a chunked body, in which nothing looks like its end, a buffer full at a time.

    It never sleeps.

    Returns:
      How many bytes came, framing included.
    """
    view = memoryview(buffer)
    size = 0
    tail = b""
    while tail != b"0\r\n\r\n":
        received = _receive_awake(sock, view)
        if not received:
            raise ConnectionError(f"the server closed after {size} bytes")
        size += received
        tail = (tail + view[max(received - 5, 0) : received])[-5:]
    return size


def discard(
    socks: Collection[socket.socket],
    size: int,
    *,
    with_head: bool = False,
    is_awake: bool = True,
) -> None:
    """Receive `size` bytes of each, in the order in which they come, without copying them.

    That is what MSG_TRUNC does on TCP (tcp(7)).

    Args:
      socks: The connections.
      size: How much comes on each.
      with_head: The head of a response comes before it.
      is_awake: Never sleep.
    """
    left = dict.fromkeys(socks, size)
    headless = set(socks) if with_head else set()
    buffer = memoryview(bytearray(_DISCARD_SIZE))
    for sock in _with_data(left, is_awake=is_awake):
        if sock in headless:
            receive_head(sock)
            headless.remove(sock)
            continue
        left[sock] -= _discard_some(sock, buffer[: left[sock]])
        if not left[sock]:
            del left[sock]


def discard_together(socks: Collection[socket.socket], total: int) -> None:
    """Receive `total` bytes of all of them together, of each what comes, as `discard` does."""
    buffer = memoryview(bytearray(_DISCARD_SIZE))
    for sock in _with_data(frozenset(socks)):
        total -= _discard_some(sock, buffer[:total])
        if not total:
            break


def _with_data(
    socks: Collection[socket.socket], *, is_awake: bool = True
) -> Iterator[socket.socket]:
    """Those of `socks` that have received something, over and over, until none is left in it."""
    by_fd = {sock.fileno(): sock for sock in socks}
    with select.epoll() as epoll:
        for fd in by_fd:
            epoll.register(fd, select.EPOLLIN)
        waiting = _Waiting()
        while socks:
            events = epoll.poll(0 if is_awake else TIMEOUT)
            if not events:
                waiting.go_on()
                continue
            waiting = _Waiting()
            for fd, _ in events:
                if (sock := by_fd[fd]) in socks:
                    yield sock


def _receive_awake(sock: socket.socket, buffer: memoryview) -> int:
    waiting = _Waiting()
    while True:
        try:
            return sock.recv_into(buffer, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            waiting.go_on()


class _Waiting:
    """Waiting without sleep."""

    def __init__(self) -> None:
        self._deadline = time.monotonic() + TIMEOUT

    def go_on(self) -> None:
        if time.monotonic() > self._deadline:
            raise BlockingIOError(f"nothing came for {TIMEOUT} s")
        os.sched_yield()  # to a server that has the same core


def _discard_some(sock: socket.socket, buffer: memoryview) -> int:
    received = sock.recv_into(buffer, 0, socket.MSG_TRUNC | socket.MSG_DONTWAIT)
    if not received:
        raise ConnectionError("the server closed with bytes still to come")
    return received


def get_json(port: int, path: str) -> dict[str, Any]:
    """The JSON object at `path`."""
    with connect(port) as sock:
        sock.sendall(request(path))
        head = receive_head(sock).lower()
        body = bytearray(int(head.partition(b"content-length:")[2].split()[0]))
        sink(sock, len(body), body)
    value: dict[str, Any] = json.loads(body)
    return value
