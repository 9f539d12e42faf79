"""nginx with one worker, set up for files as its documentation recommends, or with less.

Arguments:
  `no-nopush`: Files need not leave in full segments, as by default.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.disk import folder
from tests.benchmarks.model import find_program

_CONFIG = """
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events {{
    worker_connections 4096;
}}
http {{
    sendfile on;
    tcp_nopush {nopush};
    access_log off;
    keepalive_requests 1000000;
    client_body_temp_path client_body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        listen 127.0.0.1:{port};
        location = /hello {{
            return 200 "Hello, World!";
        }}
        location /files/ {{
            alias {folder}/;
        }}
        location /static/ {{
            alias {folder}/;
        }}
    }}
}}
"""


def main() -> None:
    """Become nginx."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.set_inheritable(True)
    port = listener.getsockname()[1]
    home = Path(tempfile.mkdtemp(prefix="nginx-", dir=folder()))
    config = home / "nginx.conf"
    nopush = "off" if "no-nopush" in sys.argv else "on"
    config.write_text(_CONFIG.format(port=port, folder=folder(), nopush=nopush))
    print(f"http://127.0.0.1:{port}", flush=True)
    # nginx can't choose a free port, but takes over listeners from the nginx that runs before it,
    # by this variable. It tells of that in the log that it has before it reads `error_log`.
    argv = ["nginx", "-p", str(home), "-c", str(config), "-e", str(home / "start.log")]
    program = find_program("nginx")
    assert program is not None
    os.execve(program, argv, {**os.environ, "NGINX": f"{listener.fileno()};"})


if __name__ == "__main__":
    main()
