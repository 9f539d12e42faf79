"""What Trio's streams cost alone: `receive_some`, `send_all`, and canned answers.

No HTTP beyond the end of the head, the path and the length of an upload.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from tests.benchmarks.servers.chunk import HELLO, LAST_FRAME, make_chunk, make_frame

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_MAX_BYTES = 64 * 1024
_HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(HELLO), HELLO)


async def main(serve: Callable[[trio.SocketStream], Awaitable[None]]) -> None:
    """Have `serve` serve each client, which may go away in mid-stream, without end."""

    async def serve_until_gone(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await serve(stream)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}", flush=True)
    await trio.serve_listeners(serve_until_gone, listeners)


async def serve(stream: trio.SocketStream) -> None:
    """Answer one request after the other until the client closes."""
    data = b""
    while received := await stream.receive_some(_MAX_BYTES):
        data += received
        if (end := data.find(b"\r\n\r\n")) >= 0:
            await answer(stream, data[:end], data[end + 4 :])
            data = b""


async def answer(stream: trio.SocketStream, head: bytes, body: bytes) -> None:
    """Answer the request that has this head, and this of its body."""
    match head.split(b" ", 2)[1].split(b"/"):
        case [_, b"hello"]:
            await stream.send_all(_HELLO)
        case [_, b"upload"]:
            left = content_length(head) - len(body)
            while left:
                left -= len(await stream.receive_some(_MAX_BYTES))
            await stream.send_all(_HELLO)
        case [_, b"stream", size, total]:
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\n\r\n" % total)
            chunk = make_chunk(int(size))
            for _ in range(int(total) // len(chunk)):
                await stream.send_all(chunk)
        case [_, b"unknown", size, total]:
            await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            frame = make_frame(int(size))
            for _ in range(int(total) // int(size)):
                await stream.send_all(frame)
            await stream.send_all(LAST_FRAME)


def content_length(head: bytes) -> int:
    """How many bytes follow that head."""
    return int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])


if __name__ == "__main__":
    trio.run(main, serve)
