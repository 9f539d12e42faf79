"""aiohttp, with the event loop of the standard library."""

from __future__ import annotations

import asyncio

from aiohttp import web

from tests.benchmarks.disk import folder


async def hello(_request: web.Request) -> web.Response:
    """Answer with 13 bytes."""
    return web.Response(text="Hello, World!")


async def file(request: web.Request) -> web.FileResponse:
    """Send a file."""
    return web.FileResponse(f"{folder()}/{request.match_info['name']}")


async def main() -> None:
    """Serve without end."""
    app = web.Application()
    app.add_routes(
        [
            web.get("/hello", hello),
            web.get("/files/{name}", file),
            web.static("/static", folder()),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    print(f"http://127.0.0.1:{port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
