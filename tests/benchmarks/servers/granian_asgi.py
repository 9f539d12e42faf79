"""granian with its ASGI interface and uvloop: one worker, one thread."""

from __future__ import annotations

import socket
import threading
import time

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops


def main() -> None:
    """Serve without end."""
    # It can't choose a free port.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    server = Granian(
        "tests.benchmarks.servers.asgi_app:app",
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        loop=Loops.uvloop,
        backlog=4096,
        websockets=False,
        log_enabled=False,
    )
    threading.Thread(target=announce, args=(port,)).start()
    server.serve()


def announce(port: int) -> None:
    """Tell where it listens, once it does: it is the worker, another process, that will."""
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.01)
        else:
            break
    print(f"http://127.0.0.1:{port}", flush=True)


if __name__ == "__main__":
    main()
