"""The configurations in examples/deploy, with the proxies of Debian in front of a server.

Each is skipped where its program is not installed, unless TRIO_STREAM_ALL_CLIENTS is set, as CI
does.
"""

from __future__ import annotations

import dataclasses
import json
import re
import socket
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import trio

from tests.clients import until
from tests.harness import connect, get
from tests.proxies import haproxy, needs, nginx
from tests.test_main import download, run_python
from trio_stream import AbortReason, App, Config, Request, Response, Server
from trio_stream._command_line import make_parser
from trio_stream._targets import import_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FOLDER = Path(__file__).parent.parent / "examples/deploy"
SOCKET = "/run/trio-stream/http.sock"
MIB = 1 << 20
TIMEOUT = 20  # a guard against hanging, no expectation

PROXIES = [
    pytest.param("nginx", marks=needs("nginx")),
    pytest.param("haproxy", marks=needs("haproxy")),
]


class Deployed(NamedTuple):
    """A server behind a proxy, which listens on `port` of 127.0.0.1."""

    server: Server
    port: int


@asynccontextmanager
async def behind(proxy: str, app: App, tmp_path: Path) -> AsyncIterator[Deployed]:
    """Serve `app` behind a proxy that is configured as in the example, but for where it listens."""
    unix = tmp_path / "http.sock"
    with trio.fail_after(TIMEOUT), socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        async with trio.open_nursery() as nursery:
            server = await nursery.start(lambda **kw: app.serve(unix=unix, **kw))
            async with run_proxy(proxy, listener, unix, tmp_path):
                yield Deployed(server, port)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def run_proxy(
    proxy: str, listener: socket.socket, unix: Path, tmp_path: Path
) -> AsyncIterator[None]:
    port = listener.getsockname()[1]
    if proxy == "nginx":
        config = replace((FOLDER / "nginx.conf").read_text(), SOCKET, str(unix))
        config = replace(config, "listen 80;", f"listen 127.0.0.1:{port};")
        http = re.search(r"^http \{\n(.*)^\}\n\Z", config, re.MULTILINE | re.DOTALL)
        assert http is not None
        async with nginx(tmp_path, http[1], listener=listener):
            yield
    else:
        config = replace((FOLDER / "haproxy.cfg").read_text(), SOCKET, str(unix))
        config = replace(config, "maxconn 20000", "maxconn 100")
        config = replace(config, "bind :80", f"bind fd@{listener.fileno()}")
        async with haproxy(tmp_path, config, listener=listener):
            yield


def replace(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


def config_for(proxy: str) -> Config:
    return Config(trusted_proxies=("unix",), proxy_protocol=proxy == "haproxy")


@pytest.mark.parametrize("proxy", PROXIES)
async def test_chunk_arrives_when_it_is_sent(proxy: str, tmp_path: Path) -> None:
    app = App(config=config_for(proxy))
    go_on = trio.Event()

    @app.get("/")
    async def answer(res: Response, _: Request) -> None:
        await res.send_chunk(b"first")
        await go_on.wait()
        await res.send_chunk(b"second")

    async with (
        behind(proxy, app, tmp_path) as deployed,
        await connect(deployed.port) as client,
    ):
        await client.send_all(get("/"))
        received = b""
        while not received.endswith(b"\r\n5\r\nfirst\r\n"):
            received += await client.receive_some()
        go_on.set()
        while not received.endswith(b"\r\n0\r\n\r\n"):
            received += await client.receive_some()
        assert received.endswith(b"\r\n5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n")


@pytest.mark.parametrize("proxy", PROXIES)
async def test_upload_arrives_while_it_is_sent(proxy: str, tmp_path: Path) -> None:
    app = App(config=config_for(proxy))
    arrived = trio.Event()

    @app.post("/")
    async def answer(res: Response, req: Request) -> None:
        body = b""
        async for data in req.body:
            body += data
            arrived.set()
        res.end(body)

    async with (
        behind(proxy, app, tmp_path) as deployed,
        await connect(deployed.port) as client,
    ):
        head = get("/", "Content-Length: 10", "Connection: close", method="POST")
        await client.send_all(head + b"first")
        await arrived.wait()
        await client.send_all(b"other")
        received = b""
        while data := await client.receive_some():
            received += data
        assert received.endswith(b"\r\n\r\nfirstother")


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("body_has_begun", [False, True])
async def test_client_that_goes_ends_its_handler(
    proxy: str, body_has_begun: bool, tmp_path: Path
) -> None:
    app = App(config=config_for(proxy))
    called = trio.Event()
    ended = trio.Event()

    @app.get("/")
    async def answer(res: Response, _: Request) -> None:
        try:
            if body_has_begun:
                await res.send_chunk(b"first")
            called.set()
            await trio.sleep_forever()
        finally:
            ended.set()

    async with behind(proxy, app, tmp_path) as deployed:
        async with await connect(deployed.port) as client:
            await client.send_all(get("/"))
            await called.wait()
            if body_has_begun:
                assert await client.receive_some()
        await ended.wait()
        await until(lambda: deployed.server.stats.open_connections == 0)
        assert deployed.server.stats.aborts == {AbortReason.CLIENT_CLOSED: 1}


@pytest.mark.parametrize("proxy", PROXIES)
async def test_slow_client_holds_the_handler_up(proxy: str, tmp_path: Path) -> None:
    # The server itself tells when the proxy has taken nothing for a while.
    app = App(config=dataclasses.replace(config_for(proxy), stall_timeout=0.2))

    @app.get("/")
    async def answer(res: Response, _: Request) -> None:
        while (await res.send_chunk(bytes(64 * 1024))).ok:
            pass

    async with (
        behind(proxy, app, tmp_path) as deployed,
        await connect(deployed.port, receive_buffer=4096) as client,
    ):
        stats = deployed.server.stats
        await client.send_all(get("/"))
        await until(lambda: bool(stats.aborts) or stats.body_bytes_sent >= 30 * MIB)
        assert stats.aborts == {AbortReason.STALLED: 1}
        assert stats.body_bytes_sent < 30 * MIB


@pytest.mark.parametrize("proxy", PROXIES)
async def test_handler_knows_its_client(proxy: str, tmp_path: Path) -> None:
    app = App(config=config_for(proxy))
    clients: list[str] = []

    @app.get("/")
    def answer(res: Response, req: Request) -> None:
        assert isinstance(req.client, tuple)
        clients.append(req.client[0])
        res.end(b"ok")

    async with behind(proxy, app, tmp_path) as deployed:
        for _ in range(2):
            async with await connect(deployed.port) as client:
                # What a client says itself is not believed.
                await client.send_all(
                    get("/", "X-Forwarded-For: 192.0.2.1", "Forwarded: for=192.0.2.2")
                )
                assert (await client.receive_some()).endswith(b"\r\n\r\nok")
    assert clients == ["127.0.0.1", "127.0.0.1"]


@pytest.mark.parametrize("proxy", PROXIES)
async def test_metrics_and_probes_are_not_for_everybody(proxy: str, tmp_path: Path) -> None:
    app = App(config=config_for(proxy))
    app.metrics()
    app.health()
    app.get("/", lambda res, _: res.end("Hello"))
    async with behind(proxy, app, tmp_path) as deployed:
        for host, status in (("127.0.0.1", 200), ("127.0.0.2", 403)):
            for path in ("/metrics", "/livez", "/readyz", "/%6detrics", "/ready%7a"):
                answer = await ask_from(host, deployed.port, path)
                assert answer.startswith(b"HTTP/1.1 %d " % status), (host, path)
            assert (await ask_from(host, deployed.port, "/")).startswith(b"HTTP/1.1 200 ")


async def ask_from(host: str, port: int, path: str) -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", port, local_address=host) as client:
        await client.send_all(get(path, "Connection: close"))
        return b"".join([data async for data in client])


@needs("nginx")
async def test_workers_behind_nginx(tmp_path: Path) -> None:
    unix = tmp_path / "http.sock"
    app = str(FOLDER / "app.py")
    command = ("-m", "trio_stream", "--workers", "2", "--unix", str(unix), app)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        async with run_python(*command) as program, run_proxy("nginx", listener, unix, tmp_path):
            workers = set[str]()
            while len(workers) < 2:  # as soon as both serve
                _, metrics = await download(port, "/metrics")
                workers = set(re.findall(rb'trio_stream_active_responses{worker="(\d+)"}', metrics))
                await trio.sleep(0.01)  # they have something to do until then
            head, body = await download(port, "/")
            assert head.startswith("HTTP/1.1 200 OK\r\n")
            assert body == b"Hello, 127.0.0.1!\n"
            for probe in ("/livez", "/readyz"):
                head, _ = await download(port, probe)
                assert head.startswith("HTTP/1.1 200 OK\r\n")
            _, metrics = await download(port, "/metrics")
            # What both count is summed, and this request is one of them.
            (requests,) = re.findall(rb"^trio_stream_requests_total (\S+)", metrics, re.MULTILINE)
            assert float(requests) >= 5
            program.process.terminate()
            status, _ = await program.wait()
            assert status == 0


def test_grace_periods_fit_together() -> None:
    """What ends the server gives it more time than it takes, in each of the files."""
    grace = Config().shutdown_grace
    unit = (FOLDER / "trio-stream.service").read_text()
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert int(stop) > grace + 5  # after which the supervisor kills its workers
    manifests = (FOLDER / "kubernetes.yaml").read_text()
    (period,) = re.findall(r"terminationGracePeriodSeconds: (\d+)$", manifests, re.MULTILINE)
    (pause,) = re.findall(r'command: \[sleep, "(\d+)"\]', manifests)
    assert int(period) > int(pause) + grace


@pytest.mark.parametrize("name", ["trio-stream.service", "Dockerfile"])
def test_command_line_is_one(name: str) -> None:
    text = (FOLDER / name).read_text()
    match = re.search(r"trio-stream (--.*)$", text, re.MULTILINE)
    words = (
        match[1].split()
        if match
        else json.loads("[" + re.findall(r"^ENTRYPOINT \[(.*)\]$", text, re.MULTILINE)[0] + "]")[1:]
    )
    options = make_parser().parse_args(words)
    assert options.access_log == "json"


def test_app_has_what_the_manifests_ask_for() -> None:
    manifests = (FOLDER / "kubernetes.yaml").read_text()
    paths = set(re.findall(r"path: (/\w+)", manifests))
    assert paths == {"/livez", "/readyz", "/metrics"}
    app = import_file(FOLDER / "app.py").app
    for path in paths:
        assert app._router.find("GET", path)[0].handler.__module__ == "trio_stream._metrics"
