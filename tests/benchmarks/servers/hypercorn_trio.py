"""Hypercorn with its Trio worker."""

from __future__ import annotations

from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve as serve_app

from tests.benchmarks.servers.asgi_app import app


async def serve(asgi_app: Any) -> None:  # noqa: ANN401
    """Serve without end."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.loglevel = "WARNING"
    config.backlog = 4096
    config.keep_alive_max_requests = 1 << 40
    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(serve_app, asgi_app, config)
        print(url, flush=True)


if __name__ == "__main__":
    trio.run(serve, app)
