"""`trio_stream` with short timeouts, for `scenarios/storm.py`."""

from __future__ import annotations

import gc
import hashlib
import json
import sys
from typing import TYPE_CHECKING

import trio

from tests.clients import body
from trio_stream import App, Config, Server

if TYPE_CHECKING:
    from trio_stream import Request, Response

_CHUNK = 64 * 1024

app = App(
    config=Config(
        stall_timeout=10,
        head_timeout=5,
        keep_alive_timeout=10,
        rate_grace=5,
        linger_timeout=2,
    )
)
servers: list[Server] = []


@app.get("/hello")
def hello(res: Response, req: Request) -> None:
    """Answer with 13 bytes."""
    res.end(b"Hello, World!")


@app.get("/storm/known/:start/:size")
async def known(res: Response, req: Request) -> None:
    """Send a part of the body that has no end."""
    start, size = int(req.params["start"]), int(req.params["size"])
    for offset in range(0, size, _CHUNK):
        piece = body(start + offset, min(_CHUNK, size - offset))
        ok, done = await res.send_chunk(piece, size)
        if not ok or done:
            break


@app.get("/storm/chunked/:start/:size")
async def chunked(res: Response, req: Request) -> None:
    """Do the same without telling the length."""
    start, size = int(req.params["start"]), int(req.params["size"])
    for offset in range(0, size, _CHUNK):
        piece = body(start + offset, min(_CHUNK, size - offset))
        if not (await res.send_chunk(piece)).ok:
            break


@app.post("/storm/upload")
async def upload(res: Response, req: Request) -> None:
    """Answer with the hash of what is received."""
    digest = hashlib.sha256()
    async for data in req.body:
        digest.update(data)
    res.end(digest.hexdigest())


@app.get("/storm/state")
def state(res: Response, req: Request) -> None:
    """Tell what there is of clients, this one included, and how responses ended early."""
    gc.collect()
    stats = servers[0].stats
    value = {
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "connections": stats.open_connections,
        "responses": stats.active_responses,
        "requests": stats.requests,
        "blocks": sys.getallocatedblocks(),
        "aborts": {reason.name: count for reason, count in stats.aborts.items()},
    }
    res.end(json.dumps(value))


def announce(server: Server) -> None:
    """Tell where it listens."""
    servers.append(server)
    print(f"http://127.0.0.1:{server.port}", flush=True)


if __name__ == "__main__":
    app.run(port=0, announce=announce)
