"""uvicorn: `python -m ... h11` as it is without extras, `... httptools` as fast as it gets."""

from __future__ import annotations

import socket
import sys

import uvicorn

from tests.benchmarks.servers.asgi_app import app

_LOOPS = {"h11": "asyncio", "httptools": "uvloop"}


def main(http: str) -> None:
    """Serve without end."""
    config = uvicorn.Config(
        app, http=http, loop=_LOOPS[http], log_level="warning", access_log=False
    )
    # asyncio sets TCP_NODELAY only for sockets that are TCP by name, which create_server's are not.
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(4096)
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main(sys.argv[1])
