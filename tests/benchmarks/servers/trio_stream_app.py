"""`trio_stream`, with an app for all scenarios."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from tests.benchmarks.certificate import server_context
from tests.benchmarks.disk import folder
from tests.benchmarks.servers.chunk import HELLO, make_chunk
from tests.benchmarks.servers.notes import ENDLESS, as_json, note_abort, noted
from trio_stream import App

if TYPE_CHECKING:
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


@app.get("/vanish/asleep/:id")
async def asleep(res: Response, req: Request) -> None:
    """Send nothing, and wait for something that never comes."""
    with noted(req.params["id"]):
        res.on_aborted(lambda _: note_abort(req.params["id"]))
        await trio.sleep_forever()


@app.get("/vanish/sending/:id")
async def sending(res: Response, req: Request) -> None:
    """Send without end: parked on a client that does not read, else streaming."""
    with noted(req.params["id"]):
        res.on_aborted(lambda _: note_abort(req.params["id"]))
        await send(res, make_chunk(64 * 1024), ENDLESS)


@app.get("/vanish/state")
def state(res: Response, req: Request) -> None:
    """Tell what was noted, and how many tasks there are."""
    res.end(as_json(trio.lowlevel.current_statistics().tasks_living))


if __name__ == "__main__":
    app.run(port=0, ssl_context=server_context())
