"""A `send_chunk` of one's own, on the public primitives and one `trio.Event`.

It is what `await res.send_chunk(...)` does, in the words of the callbacks: try; if something is
left, wait until the client has room or is gone; try again with what is left.

The `send_chunk` that socketify's documentation prints notes its start *after* the first try, so
where that try took a part of the chunk it sends those bytes twice; here the start comes first.

Try, with a client that is slower than the server, so that most tries take only a part:

    curl --limit-rate 1M --output own http://127.0.0.1:8000/own
    curl --limit-rate 1M --output built-in http://127.0.0.1:8000/built-in
    cmp own built-in && echo the same
"""

from collections.abc import Iterator

import trio

from trio_stream import App, Request, Response

CHUNK = 100_000
CHUNKS = 50
TOTAL = CHUNKS * CHUNK


class ChunkSender:
    """Sends one response, chunk by chunk.

    It registers its two handlers once, for the whole response: there is one `on_writable` handler,
    but those of `on_aborted` add up, so one for each chunk would pile up with the chunks.
    """

    def __init__(self, res: Response) -> None:
        self._res = res
        self._wakeup = trio.Event()
        res.on_writable(self._wake).on_aborted(self._wake)

    def _wake(self, *_: object) -> None:
        self._wakeup.set()

    async def send_chunk(self, data: bytes, total_size: int) -> tuple[bool, bool]:
        """Send all of `data`: `(True, done)`, or `(False, True)` if the client has gone."""
        await trio.lowlevel.checkpoint()  # or a client that never parks us would starve the others
        start = self._res.get_write_offset()
        while True:
            self._wakeup = trio.Event()
            rest = memoryview(data)[self._res.get_write_offset() - start :]
            ok, done = self._res.try_end(rest, total_size)
            if ok or done:
                return ok, done
            await self._wakeup.wait()


def make_chunks() -> Iterator[bytes]:
    for number in range(CHUNKS):
        yield b"%09d\n" % number * (CHUNK // 10)


app = App()


@app.get("/own")
async def own(res: Response, req: Request) -> None:
    sender = ChunkSender(res)
    for chunk in make_chunks():
        ok, done = await sender.send_chunk(chunk, TOTAL)
        if not ok or done:
            break


@app.get("/built-in")
async def built_in(res: Response, req: Request) -> None:
    for chunk in make_chunks():
        ok, done = await res.send_chunk(chunk, TOTAL)
        if not ok or done:
            break


if __name__ == "__main__":
    app.run(port=8000)
