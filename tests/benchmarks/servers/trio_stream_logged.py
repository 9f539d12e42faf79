"""`trio_stream`, with an access log in a file."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from tests.benchmarks.servers.trio_stream_app import app
from trio_stream._log_writer import open_log

if TYPE_CHECKING:
    from trio_stream import Server


def main() -> None:
    """Serve without end; where, is printed on what was stdout at the start."""
    with tempfile.TemporaryFile() as log, open_log("combined"):

        def announce(server: Server) -> None:
            print(f"http://127.0.0.1:{server.port}", flush=True)
            os.dup2(log.fileno(), 1)

        app.run(port=0, announce=announce)


if __name__ == "__main__":
    main()
