"""Programs that others wrote, run for a test: found, started, and ended with their block."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from tests.clients import until

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator
    from pathlib import Path

REQUIRED = bool(os.environ.get("TRIO_STREAM_ALL_CLIENTS"))
"""Whether a program that is not installed is a failure, as in CI, and no reason to skip."""


def needs(program: str) -> pytest.MarkDecorator:
    """Skip a test where `program` is not installed."""
    missing = shutil.which(program) is None and not REQUIRED
    return pytest.mark.skipif(missing, reason=f"{program} is not installed")


async def output_of(*command: str) -> bytes:
    """What a program prints; it is killed if it takes too long."""
    with trio.fail_after(30):
        done = await trio.run_process(command, capture_stdout=True, stderr=subprocess.DEVNULL)
    stdout: bytes = done.stdout
    return stdout


@asynccontextmanager
async def nginx(
    tmp_path: Path, http: str, *, listener: socket.socket | None = None
) -> AsyncIterator[None]:
    """Run nginx for the length of the block.

    Args:
      tmp_path: Where it keeps its files.
      http: What stands in the `http` block of its configuration.
      listener: A socket for an address that it is to listen on, as it can't choose a free one.
    """
    temporary = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""  # who may use the files of the test
    config = tmp_path / "nginx.conf"
    config.write_text(f"""
        daemon off; {user} pid {tmp_path}/pid; error_log {tmp_path}/error.log;
        events {{}}
        http {{ {temporary} access_log off; {http} }}""")
    command = ["nginx", "-c", str(config), "-e", str(tmp_path / "error.log")]
    # It takes over listeners from the nginx that ran before it, by this variable.
    environment = {} if listener is None else {"NGINX": f"{listener.fileno()};"}
    async with _running(command, listener, environment):
        await until((tmp_path / "pid").exists)  # written when it listens
        yield


@asynccontextmanager
async def haproxy(tmp_path: Path, config: str, *, listener: socket.socket) -> AsyncIterator[None]:
    """Run HAProxy for the length of the block.

    Args:
      tmp_path: Where it keeps its files.
      config: Its configuration.
      listener: A socket that the configuration names by its descriptor.
    """
    path = tmp_path / "haproxy.cfg"
    path.write_text(config)
    # Connections that come before it is ready wait in the socket.
    async with _running(["haproxy", "-db", "-f", str(path)], listener, {}):
        yield


@asynccontextmanager
async def _running(
    command: list[str], listener: socket.socket | None, environment: dict[str, str]
) -> AsyncIterator[None]:
    run = partial(
        trio.run_process,
        command,
        env={**os.environ, **environment},
        pass_fds=() if listener is None else (listener.fileno(),),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield
        nursery.cancel_scope.cancel()
