"""quart-trio, on Hypercorn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from quart import request
from quart_trio import QuartTrio

from tests.benchmarks.servers.chunk import HELLO, make_chunk
from tests.benchmarks.servers.hypercorn_trio import serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

app = QuartTrio(__name__)
app.config["MAX_CONTENT_LENGTH"] = None


@app.get("/hello")
async def hello() -> bytes:
    """Answer with 13 bytes."""
    return HELLO


@app.post("/upload")
async def upload() -> bytes:
    """Receive the body, and answer with 13 bytes."""
    async for _ in request.body:
        pass
    return HELLO


@app.get("/stream/<int:size>/<int:total>")
async def stream(size: int, total: int) -> tuple[AsyncIterator[bytes], dict[str, str]]:
    """Send one chunk, that all streams share, over and over."""
    return pieces(size, total), {"Content-Length": str(total)}


@app.get("/unknown/<int:size>/<int:total>")
async def unknown(size: int, total: int) -> AsyncIterator[bytes]:
    """Do the same without telling the length."""
    return pieces(size, total)


async def pieces(size: int, total: int) -> AsyncIterator[bytes]:
    """Each is sent before the next one is asked for."""
    chunk = make_chunk(size)
    for _ in range(total // size):
        yield chunk


if __name__ == "__main__":
    trio.run(serve, app)
