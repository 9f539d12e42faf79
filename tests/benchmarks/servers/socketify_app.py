"""socketify.

Nothing in its interface tells whether a client keeps up with `write`, so that a body of unknown
length would be queued whole: it is not offered.
"""

from __future__ import annotations

from typing import Any

from socketify import App, AppListenOptions, Request, Response

from tests.benchmarks.servers.chunk import HELLO, make_chunk

# What a coroutine or a callback answers later must be kept alive by hand: with many downloads at
# once, socketify aborts the process else.
alive: set[Response] = set()


def hello(res: Response, _req: Request) -> None:
    """Answer with 13 bytes."""
    res.end(HELLO)


def upload(res: Response, _req: Request) -> None:
    """Receive the body, and answer with 13 bytes."""
    alive.add(res)

    def receive(res: Response, _data: bytes, is_end: bool) -> None:
        if is_end:
            res.end(HELLO)
            alive.discard(res)

    res.on_aborted(alive.discard)
    res.on_data(receive)


async def stream(res: Response, req: Request) -> None:
    """Send one chunk, that all streams share, over and over."""
    size, total = int(req.get_parameter(0)), int(req.get_parameter(1))
    chunk = make_chunk(size)
    alive.add(res)
    try:
        while not res.aborted:
            ok, done = await res.send_chunk(chunk, total)
            if not ok or done:
                break
    finally:
        alive.discard(res)


def announce(options: Any) -> None:  # noqa: ANN401
    """Tell where it listens."""
    print(f"http://127.0.0.1:{options.port}", flush=True)


if __name__ == "__main__":
    app = App()
    app.get("/hello", hello)
    app.post("/upload", upload)
    app.get("/stream/:size/:total", stream)
    app.listen(AppListenOptions(port=0, host="127.0.0.1"), announce)
    app.run()
