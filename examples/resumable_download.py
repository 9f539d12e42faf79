"""A download that survives its connection: it goes on where it broke off, with httpx.

`download` is all that a client needs: it asks for the rest by `Range`, and by `If-Range` for the
same version of the file. If that has changed in between, it gets all of the new one instead, and
starts over. Needs httpx: pip install httpx. Download something:

    python examples/resumable_download.py http://127.0.0.1:8000/song.wav song.wav

Without arguments it serves a file whose connections break off, and downloads that.
"""

import atexit
import os
import random
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import trio
from trio_util import periodic

from trio_stream import App, Config, Request, Response

SIZE = 5_000_000

app = App(config=Config(send_budget=64 * 1024))  # so little that it can be broken off in between
source = tempfile.TemporaryFile()  # noqa: SIM115 (it is open as long as it is served)
atexit.register(source.close)
source.write(random.Random(1).randbytes(SIZE))
source.flush()
os.utime(source.fileno(), (0, 0))  # one that was changed just now would have a weak ETag


@app.get("/file.bin")
async def serve_and_break(res: Response, req: Request) -> None:
    """A server in trouble: sooner or later, the connection breaks off."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(break_off, res)
        await res.send_file(source, content_type="application/octet-stream")
        nursery.cancel_scope.cancel()


async def break_off(res: Response) -> None:
    limit = random.randrange(SIZE // 10, SIZE // 2)
    async for _ in periodic(0.0001):
        if res.get_write_offset() > limit:
            res.cancel_scope.cancel()


async def download(
    url: str, path: Path, *, tries: int = 100, log: Callable[[str], object] = print
) -> None:
    """Download a file, whatever happens on the way.

    Raises:
      httpx.HTTPError: It did not arrive with so many tries, or the server refuses.
    """
    async with (
        httpx.AsyncClient(trust_env=False) as client,
        await trio.open_file(path, "wb") as file,
    ):
        size, etag = 0, ""
        while True:
            try:
                async with client.stream("GET", url, headers=rest_of(size, etag)) as got:
                    if got.status_code == 416:  # there was no more to come
                        break
                    got.raise_for_status()
                    if got.status_code != 206:  # all of it, from the start
                        size = await file.seek(0)
                        await file.truncate()
                    etag = got.headers.get("ETag", "")
                    async for data in got.aiter_raw():
                        size += await file.write(data)
                break
            except httpx.HTTPError as exc:
                tries -= 1
                refused = isinstance(exc, httpx.HTTPStatusError) and got.status_code < 500
                if refused or not tries:
                    raise
                log(f"{type(exc).__name__} after {size:,} bytes")


def rest_of(offset: int, etag: str) -> dict[str, str]:
    """What asks for the rest of a version. A weak tag is no promise that the bytes are the same."""
    if not offset or not etag or etag.startswith("W/"):
        return {}
    return {"Range": f"bytes={offset}-", "If-Range": etag}


async def main() -> None:
    if len(sys.argv) == 3:
        await download(sys.argv[1], Path(sys.argv[2]))
        return
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(app.serve, port=0))
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "file.bin")
            await download(f"http://127.0.0.1:{server.port}/file.bin", path)
            print("It arrived", "as it is" if same_as_source(path) else "BROKEN")
        nursery.cancel_scope.cancel()


def same_as_source(path: Path) -> bool:
    source.seek(0)
    return path.read_bytes() == source.read()


if __name__ == "__main__":
    trio.run(main)
