"""What requests cost with Trio and h11 alone, in the manner of h11's own example for Trio.

`receive_some` and h11's parser, then an event for the head, the body and the end, each sent with
`send_all` as it comes. No routes, timeouts, limits or errors, and nobody watches the client.
"""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache

import h11
import trio

BODY = b"Hello, World!"


async def main() -> None:
    """Serve without end."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}", flush=True)
    await trio.serve_listeners(serve, listeners)


async def serve(stream: trio.SocketStream) -> None:
    """Drop the body of each request and answer with `BODY`, until the client closes."""
    connection = h11.Connection(h11.SERVER)
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(64 * 1024))
        elif isinstance(event, h11.EndOfMessage):
            await answer(stream, connection)
            connection.start_next_cycle()
        elif isinstance(event, h11.ConnectionClosed):
            return


async def answer(stream: trio.SocketStream, connection: h11.Connection) -> None:
    """Send the response, event by event."""
    fields = [
        (b"Date", http_date(int(time.time()))),
        (b"Content-Length", b"%d" % len(BODY)),
    ]
    for event in (
        h11.Response(status_code=200, reason=b"OK", headers=fields),
        h11.Data(data=BODY),
        h11.EndOfMessage(),
    ):
        if data := connection.send(event):
            await stream.send_all(data)


@lru_cache(maxsize=1)
def http_date(second: int) -> bytes:
    """The value of a Date header, formatted once for all responses of a second."""
    return formatdate(second, usegmt=True).encode("ascii")


if __name__ == "__main__":
    trio.run(main)
