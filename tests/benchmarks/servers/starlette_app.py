"""Starlette on uvicorn, with uvloop and httptools."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.responses import FileResponse, PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from tests.benchmarks.disk import folder

if TYPE_CHECKING:
    from starlette.requests import Request


async def hello(_request: Request) -> PlainTextResponse:
    """Answer with 13 bytes."""
    return PlainTextResponse("Hello, World!")


async def file(request: Request) -> FileResponse:
    """Send a file."""
    return FileResponse(f"{folder()}/{request.path_params['name']}")


def main() -> None:
    """Serve without end."""
    app = Starlette(
        routes=[
            Route("/hello", hello),
            Route("/files/{name}", file),
            Mount("/static", StaticFiles(directory=folder())),
        ]
    )
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", log_level="warning", access_log=False
    )
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
