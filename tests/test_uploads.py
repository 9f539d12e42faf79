"""Uploads of a size that would show if they were kept: constant memory, and refusals in time."""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from tests.clients import BodyCheck, body
from tests.harness import connect, get
from trio_stream import App, Request, Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

if sys.platform != "linux":
    pytest.skip("the memory of a process is read from /proc", allow_module_level=True)

MIB = 1 << 20
SIZE = 1024 * MIB if os.environ.get("TRIO_STREAM_LARGE") else 32 * MIB
CHUNK = 64 * 1024

app = App()


@app.post("/hash")
async def hash_body(res: Response, req: Request) -> None:
    digest = hashlib.sha256()
    async for data in req.body:
        digest.update(data)
    res.end(digest.hexdigest())


@app.post("/echo")
async def echo(res: Response, req: Request) -> None:
    await res.send_from(req.body)


@app.post("/read")
async def read(res: Response, req: Request) -> None:
    res.end(str(len(await req.read())))


class Process:
    """A server as a process of its own."""

    def __init__(self, pid: int, port: int) -> None:
        self.port = port
        self._pid = pid

    def peak_kib(self) -> int:
        """The most memory that it has had resident so far."""
        status = Path(f"/proc/{self._pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)


@asynccontextmanager
async def server_process() -> AsyncIterator[Process]:
    code = "from tests.test_uploads import app; app.run(port=0)"
    process = await trio.lowlevel.open_process([sys.executable, "-c", code], stdout=-1)
    assert process.stdout is not None
    try:
        with trio.fail_after(600):
            line = b""
            while not line.endswith(b"\n"):
                line += await process.stdout.receive_some()
            yield Process(process.pid, int(line.rpartition(b":")[2]))
    finally:
        process.kill()
        with trio.CancelScope(shield=True):  # it has been killed: this takes no time
            await process.wait()
            await process.stdout.aclose()


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def send_body(stream: trio.SocketStream, *, is_chunked: bool) -> str:
    digest = hashlib.sha256()
    for start in range(0, SIZE, CHUNK):
        data = bytes(body(start, CHUNK))
        digest.update(data)
        await stream.send_all(chunked(data) if is_chunked else data)
    if is_chunked:
        await stream.send_all(b"0\r\n\r\n")
    return digest.hexdigest()


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_upload_takes_no_memory(is_chunked: bool) -> None:
    framing = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {SIZE}"
    async with server_process() as server, await connect(server.port) as stream:
        before = server.peak_kib()
        await stream.send_all(get("/hash", framing, "Connection: close", method="POST"))
        digest = await send_body(stream, is_chunked=is_chunked)
        answer = bytearray()
        async for data in stream:
            answer += data
        assert answer.endswith(f"\r\n\r\n{digest}".encode())
        growth = server.peak_kib() - before
        print(f"upload of {SIZE // MIB} MiB, chunked {is_chunked}: {growth} KiB")
        assert growth < 10_000


async def test_echo_takes_no_memory() -> None:
    async with server_process() as server, await connect(server.port) as stream:
        before = server.peak_kib()
        request = get("/echo", f"Content-Length: {SIZE}", "Connection: close", method="POST")
        check = BodyCheck()
        async with trio.open_nursery() as nursery:
            await stream.send_all(request)
            nursery.start_soon(lambda: send_body(stream, is_chunked=False))
            buffer = bytearray()
            at_head = True
            while check.size < SIZE:
                data = await stream.receive_some(MIB)
                assert data
                buffer += data
                if at_head and (end := buffer.find(b"\r\n\r\n") + 4) > 3:
                    del buffer[:end]
                    at_head = False
                while not at_head and (end := buffer.find(b"\r\n", 0, 20) + 2) > 1:
                    size = int(buffer[: end - 2], 16)
                    if len(buffer) < end + size + 2:
                        break
                    check.feed(buffer[end : end + size])
                    del buffer[: end + size + 2]
        growth = server.peak_kib() - before
        print(f"echo of {SIZE // MIB} MiB: {growth} KiB")
        assert growth < 10_000


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_4_gib_are_refused_without_being_read(is_chunked: bool) -> None:
    framing = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {4 << 30}"
    async with server_process() as server, await connect(server.port) as stream:
        await stream.send_all(get("/read", framing, method="POST"))
        sent = 0

        async def send_on() -> None:
            nonlocal sent
            piece = chunked(bytes(CHUNK)) if is_chunked else bytes(CHUNK)
            with suppress(trio.BrokenResourceError):
                while True:
                    await stream.send_all(piece)
                    sent += len(piece)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_on)
            answer = b""
            while b"\r\n\r\n" not in answer:
                data = await stream.receive_some()
                assert data
                answer += data
            nursery.cancel_scope.cancel()
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"Connection: close\r\n" in answer
        print(f"of 4 GiB, chunked {is_chunked}: {sent} bytes sent")
        # To the limit if nobody tells the length, and what buffers take until the client hears.
        assert sent < 64 * MIB
