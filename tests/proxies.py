"""Programs that others wrote, run for a test: found, started, and ended with their block."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from tests.clients import until

if TYPE_CHECKING:
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
async def nginx(tmp_path: Path, http: str) -> AsyncIterator[None]:
    """Run nginx for the length of the block.

    Args:
      tmp_path: Where it keeps its files.
      http: What stands in the `http` block of its configuration.
    """
    temporary = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = tmp_path / "nginx.conf"
    config.write_text(f"""
        daemon off; master_process off; pid {tmp_path}/pid; error_log {tmp_path}/error.log;
        events {{}}
        http {{ {temporary} access_log off; {http} }}""")
    command = ["nginx", "-c", str(config), "-e", str(tmp_path / "error.log")]
    async with _running(command):
        await until((tmp_path / "pid").exists)  # written when it listens
        yield


@asynccontextmanager
async def haproxy(tmp_path: Path, config: str, listens_at: Path) -> AsyncIterator[None]:
    """Run HAProxy for the length of the block.

    Args:
      tmp_path: Where it keeps its files.
      config: Its configuration.
      listens_at: The Unix socket that it makes.
    """
    path = tmp_path / "haproxy.cfg"
    path.write_text(config)
    async with _running(["haproxy", "-db", "-f", str(path)]):
        await until(listens_at.exists)
        yield


@asynccontextmanager
async def _running(command: list[str]) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.run_process, command)
        yield
        nursery.cancel_scope.cancel()
