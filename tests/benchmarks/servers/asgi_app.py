"""A plain ASGI app, for Hypercorn, uvicorn and granian."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from tests.benchmarks.servers.chunk import HELLO, make_chunk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    Message: TypeAlias = dict[str, Any]
    Receive: TypeAlias = Callable[[], Awaitable[Message]]
    Send: TypeAlias = Callable[[Message], Awaitable[None]]


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Answer one request, or follow the server's life."""
    if scope["type"] == "lifespan":
        await live(receive, send)
        return
    match scope["path"].split("/"):
        case [_, "hello"]:
            await hello(send)
        case [_, "upload"]:
            while (await receive()).get("more_body", False):
                pass
            await hello(send)
        case [_, "stream", size, total]:
            await stream(send, int(size), int(total), [(b"content-length", total.encode())])
        case [_, "unknown", size, total]:
            await stream(send, int(size), int(total), [])


async def live(receive: Receive, send: Send) -> None:
    """Have nothing to do at the start and at the end."""
    while True:
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            break


async def hello(send: Send) -> None:
    """Answer with 13 bytes."""
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(HELLO))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": HELLO})


async def stream(send: Send, size: int, total: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Send one chunk, that all streams share, over and over; `send` waits for slow clients."""
    chunk = make_chunk(size)
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(total // size):
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body"})
