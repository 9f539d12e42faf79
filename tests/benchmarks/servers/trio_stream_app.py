"""`trio_stream`, with an app for all scenarios."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from tests.benchmarks.disk import folder
from tests.benchmarks.servers.chunk import HELLO, make_chunk
from trio_stream import App

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_stream import Request, Response

app = App()
app.static("/static", folder())


@app.get("/hello")
async def hello(res: Response, req: Request) -> None:
    """Answer with 13 bytes."""
    res.end(HELLO)


@app.post("/upload")
async def upload(res: Response, req: Request) -> None:
    """Receive the body, and answer with 13 bytes."""
    async for _ in req.body:
        pass
    res.end(HELLO)


@app.get("/unknown/:chunk/:total")
async def unknown(res: Response, req: Request) -> None:
    """Do as `stream`, without telling the length."""
    chunk = make_chunk(int(req.params["chunk"]))
    for _ in range(int(req.params["total"]) // len(chunk)):
        ok, _ = await res.send_chunk(chunk)
        if not ok:
            break


@app.get("/stream/:chunk/:total")
async def stream(res: Response, req: Request) -> None:
    """Send one chunk, that all streams share, over and over."""
    await send(res, make_chunk(int(req.params["chunk"])), int(req.params["total"]))


@app.get("/own/:chunk/:total")
async def stream_own(res: Response, req: Request) -> None:
    """Do the same with a chunk for this stream alone."""
    chunk = bytes(bytearray(int(req.params["chunk"])))
    await send(res, chunk, int(req.params["total"]))


async def send(res: Response, chunk: bytes, total: int) -> None:
    """Send `chunk` until `total` is reached or the client has gone."""
    while True:
        ok, done = await res.send_chunk(chunk, total)
        if not ok or done:
            break


@app.get("/files/:name")
async def file(res: Response, req: Request) -> None:
    """Send a file."""
    await res.send_file(f"{folder()}/{req.params['name']}")


# Clients that vanish...

started: list[str] = []
aborted: dict[str, list[float]] = {}
ended: dict[str, float] = {}


@contextmanager
def noted(res: Response, req: Request) -> Iterator[None]:
    """Note when the client counts as gone, and when the handler has ended."""
    name = req.params["id"]
    started.append(name)
    aborted[name] = []
    res.on_aborted(lambda _: aborted[name].append(time.monotonic()))
    try:
        yield
    finally:
        ended[name] = time.monotonic()


@app.get("/vanish/asleep/:id")
async def asleep(res: Response, req: Request) -> None:
    """Send nothing, and wait for something that never comes."""
    with noted(res, req):
        await trio.sleep_forever()


@app.get("/vanish/sending/:id")
async def sending(res: Response, req: Request) -> None:
    """Send without end: parked on a client that does not read, else streaming."""
    with noted(res, req):
        await send(res, make_chunk(64 * 1024), 1 << 40)


@app.get("/vanish/state")
def state(res: Response, req: Request) -> None:
    """Tell what was noted, and how many tasks there are."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    value = {"tasks": tasks, "started": started, "aborted": aborted, "ended": ended}
    res.end(json.dumps(value))


if __name__ == "__main__":
    app.run(port=0)
