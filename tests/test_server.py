"""Serving: listeners, shutdown, statistics, and the ways in."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from tests.harness import connect, get, open_peer, pattern, start_server, without_date
from trio_stream import AbortReason, App, Config, Request, Response, Server, Stats, _server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness import Kind

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def hello_app(config: Config | None = None) -> App:
    app = App(config=config)
    app.get("/", lambda res, _: res.end("hello"))
    return app


async def ask(port: int, request: bytes = get("/")) -> bytes:
    async with await connect(port) as stream:
        await stream.send_all(request)
        return without_date(bytes(await stream.receive_some()))


async def test_server_is_bound_when_start_returns() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(lambda **kw: hello_app().serve(port=0, **kw))
        assert isinstance(server, Server)
        assert server.addresses == [("127.0.0.1", server.port)]
        assert await ask(server.port) == HELLO
        nursery.cancel_scope.cancel()
    with pytest.raises(OSError, match="refused"):
        await connect(server.port)


async def test_all_interfaces_are_served() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(lambda **kw: hello_app().serve(host=None, port=0, **kw))
        assert await ask(server.port) == HELLO
        nursery.cancel_scope.cancel()


async def test_port_in_use_is_an_os_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            await hello_app().serve(port=taken.getsockname()[1])


async def test_statistics_are_kept(kind: Kind) -> None:
    asleep = trio.Event()
    app = hello_app()

    @app.get("/sleep")
    async def sleep(res: Response, _: Request) -> None:
        await res.send_chunk(bytes(100), 200)
        asleep.set()
        await trio.sleep_forever()

    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/") + get("/sleep"))
        await asleep.wait()
        assert peer.stats == Stats(
            open_connections=1,
            active_responses=1,
            connections=1,
            requests=2,
            responses=Counter({200: 1}),
            body_bytes_sent=105,
        )
        await peer.reset()
        await wait_all_tasks_blocked()
        aborts = Counter({AbortReason.CLIENT_CLOSED: 1})
        assert peer.stats == Stats(
            connections=1,
            requests=2,
            responses=Counter({200: 2}),
            body_bytes_sent=105,
            aborts=aborts,
        )


# Any stream


async def test_serve_stream_serves_one_connection_and_closes_it() -> None:
    client, stream = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hello_app().serve_stream, stream)
        await client.send_all(get("/"))
        assert without_date(bytes(await client.receive_some())) == HELLO
        await client.send_eof()
        assert await client.receive_some() == b""
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()


@pytest.mark.parametrize("have_epoll", [False, True])
async def test_serve_stream_takes_a_socket(
    have_epoll: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_server, "HAVE_EPOLL", have_epoll)
    left, right = socket.socketpair()
    client = trio.SocketStream(trio.socket.from_stdlib_socket(left))
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(right))
    async with trio.open_nursery() as nursery, client:
        nursery.start_soon(hello_app().serve_stream, stream)
        await client.send_all(get("/"))
        assert without_date(bytes(await client.receive_some())) == HELLO


async def test_error_of_a_stream_ends_its_connection_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class BadStream(trio.abc.Stream):
        async def send_all(self, _data: bytes | bytearray | memoryview) -> None:
            raise ValueError("no stream of ours")

        async def wait_send_all_might_not_block(self) -> None:
            raise ValueError("no stream of ours")

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            raise ValueError("no stream of ours")

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    await hello_app().serve_stream(BadStream())
    (record,) = caplog.records
    assert record.getMessage() == "a connection ended by an error of the server"
    caplog.clear()


# Shutdown


@pytest.mark.parametrize("epoll", [False, True])
async def test_shutdown_closes_idle_connections_and_finishes_the_others(epoll: bool) -> None:
    go_on = trio.Event()
    started = trio.Event()
    app = hello_app(Config(linger_timeout=0.01))

    @app.get("/slow")
    async def slow(res: Response, _: Request) -> None:
        started.set()
        await go_on.wait()
        await res.send_chunk(pattern(1_000_000), 1_000_000)

    async with trio.open_nursery() as nursery:
        server = await start_server(nursery, app, epoll=epoll)
        idle = await connect(server.port)
        await idle.send_all(get("/"))
        assert without_date(bytes(await idle.receive_some())) == HELLO
        fresh = await connect(server.port)
        busy = await connect(server.port)
        await busy.send_all(get("/slow"))
        await started.wait()
        server.shutdown()
        assert await idle.receive_some() == b""
        assert await fresh.receive_some() == b""
        with pytest.raises(OSError, match="refused"):
            await connect(server.port)
        go_on.set()
        received = bytearray()
        while data := await busy.receive_some():
            received += data
        assert without_date(bytes(received)) == (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\nConnection: close\r\n\r\n"
            + pattern(1_000_000)
        )
        for stream in (idle, fresh, busy):
            await stream.aclose()
        # And then serve() returns, which ends the nursery.
    assert server.stats.open_connections == 0
    assert server.stats.aborts == {}


async def test_repr_tells_where_it_serves() -> None:
    async with trio.open_nursery() as nursery:
        server = await start_server(nursery, hello_app())
        assert repr(server) == f"<Server on [('127.0.0.1', {server.port})], 0 connections>"
        nursery.cancel_scope.cancel()


# From a script

SCRIPT = """
import sys, trio
from trio_stream import App, Config

app = App(config=Config(shutdown_grace={grace}))

@app.get("/")
async def handler(res, req):
    print("asleep", flush=True)
    try:
        await trio.sleep_forever()
    finally:
        print("unwound:", res.abort_reason.name, flush=True)

sys.exit(app.run(host={host!r}, port=0))
"""


@contextmanager
def run_script(
    tmp_path: Path, *, host: str = "127.0.0.1", grace: float = 25
) -> Iterator[tuple[subprocess.Popen[str], socket.socket]]:
    """Run SCRIPT, with a client whose handler is asleep."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(host=host, grace=grace))
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            name = f"[{host}]" if ":" in host else host
            assert line.startswith(f"Serving on http://{name}:")
            address = (host, int(line.rpartition(":")[2]))
            with socket.create_connection(address, timeout=20) as client:
                client.sendall(get("/"))
                assert process.stdout.readline() == "asleep\n"
                yield process, client
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_run_ends_by_a_signal_when_the_last_client_has_gone(
    number: signal.Signals, host: str, tmp_path: Path
) -> None:
    with run_script(tmp_path, host=host) as (process, client):
        process.send_signal(number)
        while True:  # until it does not listen any more
            try:
                socket.create_connection(client.getpeername()[:2]).close()
            except OSError:
                break
        client.close()
        assert process.communicate(timeout=20) == ("unwound: CLIENT_CLOSED\n", "")
        assert process.returncode == 0


def test_run_tells_by_its_status_what_the_grace_has_cut_off(tmp_path: Path) -> None:
    with run_script(tmp_path, grace=0.01) as (process, client):
        process.terminate()
        assert client.recv(1) == b""
        output = ("unwound: SHUTDOWN\n", "shutting down: 1 response cut off\n")
        assert process.communicate(timeout=20) == output
        assert process.returncode == 1


def test_run_ends_at_once_by_a_second_signal(tmp_path: Path) -> None:
    with run_script(tmp_path) as (process, client):
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)  # of the same number, the kernel would keep only one
        assert client.recv(1) == b""
        output = ("unwound: SHUTDOWN\n", "shutting down: 1 response cut off\n")
        assert process.communicate(timeout=20) == output
        assert process.returncode == 1
