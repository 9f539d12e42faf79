"""What requests cost with Trio and h11 alone, in the manner of h11's own example for Trio.

`receive_some` and h11's parser, then an event for the head, each piece of the body, and the end,
each sent with `send_all` as it comes. No timeouts, limits or errors, and nobody watches the client.
"""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache
from itertools import repeat
from typing import TYPE_CHECKING

import h11
import trio

from tests.benchmarks.servers.bare_trio import main
from tests.benchmarks.servers.chunk import HELLO, make_chunk

if TYPE_CHECKING:
    from collections.abc import Iterable


async def serve(stream: trio.SocketStream) -> None:
    """Answer one request after the other, whose bodies are dropped, until the client closes."""
    connection = h11.Connection(h11.SERVER)
    target = b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(64 * 1024))
        elif isinstance(event, h11.Request):
            target = event.target
        elif isinstance(event, h11.EndOfMessage):
            await answer(stream, connection, target)
            connection.start_next_cycle()
        elif isinstance(event, h11.ConnectionClosed):
            return


async def answer(stream: trio.SocketStream, connection: h11.Connection, target: bytes) -> None:
    """Answer as the target says."""
    match target.split(b"/"):
        case [_, b"stream", size, total]:
            pieces = repeat(make_chunk(int(size)), int(total) // int(size))
            await send(stream, connection, pieces, [(b"Content-Length", total)])
        case [_, b"unknown", size, total]:
            pieces = repeat(make_chunk(int(size)), int(total) // int(size))
            await send(stream, connection, pieces, [])
        case _:
            await send(stream, connection, [HELLO], [(b"Content-Length", b"%d" % len(HELLO))])


async def send(
    stream: trio.SocketStream,
    connection: h11.Connection,
    pieces: Iterable[bytes],
    fields: list[tuple[bytes, bytes]],
) -> None:
    """Send the response, event by event."""
    fields = [(b"Date", http_date(int(time.time()))), *fields]
    await stream.send_all(
        connection.send(h11.Response(status_code=200, reason=b"OK", headers=fields))
    )
    for piece in pieces:
        await stream.send_all(connection.send(h11.Data(data=piece)))
    if data := connection.send(h11.EndOfMessage()):
        await stream.send_all(data)


@lru_cache(maxsize=1)
def http_date(second: int) -> bytes:
    """The value of a Date header, formatted once for all responses of a second."""
    return formatdate(second, usegmt=True).encode("ascii")


if __name__ == "__main__":
    trio.run(main, serve)
