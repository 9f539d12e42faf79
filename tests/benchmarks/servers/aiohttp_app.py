"""aiohttp, with the event loop of the standard library."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiohttp import web

from tests.benchmarks.disk import folder
from tests.benchmarks.servers.chunk import HELLO, make_chunk


async def hello(_request: web.Request) -> web.Response:
    """Answer with 13 bytes."""
    return web.Response(body=HELLO, content_type="text/plain")


async def upload(request: web.Request) -> web.Response:
    """Receive the body, and answer with 13 bytes."""
    async for _ in request.content.iter_any():
        pass
    return await hello(request)


async def stream(request: web.Request) -> web.StreamResponse:
    """Send one chunk, that all streams share, over and over."""
    response = web.StreamResponse()
    response.content_length = int(request.match_info["total"])
    return await send(response, request)


async def unknown(request: web.Request) -> web.StreamResponse:
    """Do the same without telling the length."""
    return await send(web.StreamResponse(), request)


async def send(response: web.StreamResponse, request: web.Request) -> web.StreamResponse:
    """Send all chunks; `write` waits for slow clients."""
    size, total = (int(request.match_info[name]) for name in ("size", "total"))
    chunk = make_chunk(size)
    with suppress(ConnectionError):  # not only ConnectionResetError; it would be logged
        await response.prepare(request)
        for _ in range(total // size):
            await response.write(chunk)
        await response.write_eof()
    return response


async def file(request: web.Request) -> web.FileResponse:
    """Send a file."""
    return web.FileResponse(f"{folder()}/{request.match_info['name']}")


async def main() -> None:
    """Serve without end."""
    app = web.Application()
    app.add_routes(
        [
            web.get("/hello", hello),
            web.post("/upload", upload),
            web.get("/stream/{size}/{total}", stream),
            web.get("/unknown/{size}/{total}", unknown),
            web.get("/files/{name}", file),
            web.static("/static", folder()),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    port = runner.addresses[0][1]
    print(f"http://127.0.0.1:{port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
