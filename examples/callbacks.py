"""Streaming by callbacks, as in uWebSockets: `try_end`, `on_writable` and `on_aborted`.

The handler is a plain function. It sends what the client takes at once and returns; from then on,
each time the client has room again, the connection calls `go_on` for more. That is how uWebSockets
and socketify stream, and it ports as it is. A new handler is shorter with `await send_chunk`.

`/squares` is a table of 100,000 lines of 20 bytes, made 1,000 lines at a time. Try:

    curl http://127.0.0.1:8000/squares | tail -n 3
    curl --limit-rate 100k http://127.0.0.1:8000/squares

and end the second one in the middle, with Ctrl-C: the log says how far it came.
"""

import logging
from collections.abc import Iterator

from trio_stream import App, Request, Response

LINES = 100_000
LINES_PER_CHUNK = 1_000
TOTAL = LINES * len(f"{0:6} {0:12}\n")

logger = logging.getLogger("callbacks")
app = App()


def make_chunks() -> Iterator[bytes]:
    for first in range(0, LINES, LINES_PER_CHUNK):
        numbers = range(first, first + LINES_PER_CHUNK)
        yield "".join(f"{number:6} {number**2:12}\n" for number in numbers).encode()


@app.get("/squares")
def squares(res: Response, req: Request) -> None:
    chunks = make_chunks()
    # `start` is the offset at which the chunk began. It must be noted *before* the first try: that
    # try may take a part of the chunk, and the next one has to leave out just that part.
    start = res.get_write_offset()
    chunk = next(chunks)

    def go_on(res: Response, offset: int) -> bool:
        nonlocal start, chunk
        ok, done = res.try_end(chunk[offset - start :], TOTAL)
        while ok and not done:
            start = res.get_write_offset()
            chunk = next(chunks)
            ok, done = res.try_end(chunk, TOTAL)
        return ok

    def gone(res: Response) -> None:
        logger.info("the client has gone at byte %d of %d", res.get_write_offset(), TOTAL)

    res.write_header("Content-Type", "text/plain; charset=utf-8")
    res.on_writable(go_on).on_aborted(gone)
    go_on(res, start)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    app.run(port=8000)
