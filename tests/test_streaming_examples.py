"""The examples that stream in both directions do what they say."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import httpx
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.clients import until
from tests.harness import connect, get, pattern, start_server, without_date
from tests.test_examples import run_example
from trio_stream import AbortReason, App, Request, Response
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from trio_stream import Server

MIB = 1 << 20


@asynccontextmanager
async def serving(*apps: App) -> AsyncIterator[list[Server]]:
    """Serve each app on a port of its own, for at most 30 seconds."""
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            yield [await start_server(nursery, app) for app in apps]
            nursery.cancel_scope.cancel()


# echo...


async def test_echo(autojump_clock: MockClock) -> None:
    async with open_client(run_example("echo")["app"]) as client:
        for size in (0, 1, 100_000):
            response = await client.request(
                "POST", "/echo", headers=[("Content-Length", str(size))], body=pattern(size)
            )
            assert response.headers["Content-Length"] == str(size)
            assert await response.read() == pattern(size)
        assert await (await client.get("/echo")).read() == b""


async def test_echo_to_a_client_that_does_not_read_stops_it() -> None:
    async with serving(run_example("echo")["app"]) as [server]:
        async with await connect(server.port, receive_buffer=4096) as client:
            await client.send_all(get("/echo", "Content-Length: 1000000000", method="POST"))
            sent = 0

            async def send_on() -> None:
                nonlocal sent
                while True:
                    await client.send_all(bytes(MIB))
                    sent += MIB

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_on)
                await until(lambda: server.stats.parks == 1)
                await wait_all_tasks_blocked(0.1)
                nursery.cancel_scope.cancel()
            assert sent < 30 * MIB
            assert server.stats.parks == 1
        await until(lambda: server.stats.active_responses == 0)
        assert server.stats.aborts == {AbortReason.CLIENT_CLOSED: 1}


# events, tokens...


async def test_clock_ticks_and_ends_with_its_client(autojump_clock: MockClock) -> None:
    async with open_client(run_example("events")["app"]) as client:
        page = await (await client.get("/")).read()
        assert b'EventSource("/clock")' in page
        response = await client.get("/clock")
        assert response.headers["Content-Type"] == "text/event-stream"
        for _ in range(3):
            lines = (await response.receive_some()).decode().split("\n")
            assert lines[0] == "event: time"
            assert lines[1].startswith("id: ")
            assert len(lines[2]) == len("data: 12:34:56")
        client.vanish()
        await wait_all_tasks_blocked()
        assert client.stats.active_responses == 0


async def test_clock_ends_when_the_server_shuts_down(autojump_clock: MockClock) -> None:
    async with open_client(run_example("events")["app"]) as client:
        response = await client.get("/clock")
        await response.receive_some()
        client.server.shutdown()
        await response.read()  # it is complete
        assert client.stats.aborts == {}


async def test_tokens_come_one_by_one(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with open_client(run_example("tokens")["app"]) as client:
        response = await client.get("/answer?question=Why")
        assert await response.receive_some() == b"Why?"
        assert await response.receive_some() == b" A"
        whole = b"Why? A" + await response.read()
        assert whole.endswith(b"cancelled.\n")
        response = await client.get("/answer")
        await response.receive_some()
        await response.receive_some()
        client.vanish()
    messages = [record.getMessage() for record in caplog.records if record.name == "tokens"]
    assert messages == [f"made {whole.count(b' ') + 1} tokens", "made 2 tokens"]


# subprocess_pipe...


def children() -> set[str]:
    """The processes that any thread of this one has started."""
    tasks = Path("/proc/self/task").iterdir()
    return {pid for task in tasks for pid in (task / "children").read_text().split()}


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")


@needs_proc
async def test_process_waits_for_its_client_and_is_killed_with_it() -> None:
    before = children()
    async with serving(run_example("subprocess_pipe")["app"]) as [server]:
        async with await connect(server.port, receive_buffer=4096) as client:
            await client.send_all(get("/count"))
            received = b""
            while len(received) < 5000:  # lines may be cut anywhere, as chunks come
                received += await client.receive_some()
            assert received.startswith(b"HTTP/1.1 200 OK\r\n")
            assert len(children() - before) == 1
            await until(lambda: server.stats.parks > 0)
        await until(lambda: server.stats.active_responses == 0)
        assert children() == before
        assert server.stats.aborts == {AbortReason.CLIENT_CLOSED: 1}


async def test_trailer_tells_how_the_process_ended() -> None:
    async with serving(run_example("subprocess_pipe")["app"]) as [server]:
        async with await connect(server.port) as client:
            await client.send_all(get("/fail", "TE: trailers", "Connection: close"))
            received = bytearray()
            async for data in client:
                received += data
        assert received.endswith(b"\r\n0\r\nExit-Status: 3\r\n\r\n")
        assert b"so far, so good" in received


# upload...

FORM = "Content-Type: multipart/form-data; boundary=b"
BEGINNING_OF_FILE = b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'


@pytest.fixture
def upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    return run_example("upload")


async def test_uploads_are_on_disk_byte_for_byte(upload: dict[str, Any], tmp_path: Path) -> None:
    files = [
        ("file", ("../../evil name.txt", pattern(3 * MIB))),
        ("other", (None, b"no file")),
        ("file", ("b.tar/../../x", b"")),
    ]
    async with serving(upload["app"]) as [server], httpx.AsyncClient(trust_env=False) as client:
        url = f"http://127.0.0.1:{server.port}"
        assert (await client.get(url)).text == upload["PAGE"]
        response = await client.post(f"{url}/upload", files=files)
    assert response.status_code == 200
    names = [line.split(":")[0] for line in response.text.splitlines()]
    assert [(tmp_path / "uploads" / name).read_bytes() for name in names] == [
        pattern(3 * MIB),
        b"",
    ]
    assert [name.partition(".")[2] for name in names] == ["txt", ""]
    assert len(list(tmp_path.rglob("*"))) == 3


async def test_broken_upload_leaves_nothing(upload: dict[str, Any], tmp_path: Path) -> None:
    async with serving(upload["app"]) as [server]:
        async with await connect(server.port) as client:
            await client.send_all(
                get(
                    "/upload",
                    "Content-Length: 100000000",
                    FORM,
                    method="POST",
                )
                + BEGINNING_OF_FILE
                + pattern(MIB)
            )
            await until(lambda: len(list(tmp_path.rglob("*"))) == 2)
        await until(lambda: server.stats.active_responses == 0)
        assert list((tmp_path / "uploads").iterdir()) == []


async def test_upload_whose_client_goes_before_it_has_a_file(
    upload: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    is_opening = trio.Event()

    async def open_file(path: Path, mode: str) -> NoReturn:
        is_opening.set()
        await trio.sleep_forever()

    monkeypatch.setattr(trio, "open_file", open_file)
    async with open_client(upload["app"]) as client:
        await client.send_all(
            get("/upload", FORM, "Content-Length: 1000", method="POST") + BEGINNING_OF_FILE
        )
        await is_opening.wait()
        client.vanish()
    assert client.stats.aborts == {AbortReason.CLIENT_CLOSED: 1}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# relay...

# httpx leaves it to the garbage collector to close the generators within its own.
quiet_httpx = pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning")


def make_upstream(sent: list[int], ended: list[str]) -> App:
    upstream = App()

    @upstream.any("/tell")
    async def tell(res: Response, req: Request) -> None:
        body = await req.read()
        res.write_header("X-Twice", "1").write_header("X-Twice", "2").write_header("X-Hop", "y")
        res.write_header("Connection", "X-Hop").write_status(201)
        res.end(json.dumps([req.method, req.target, list(req.headers.items()), len(body)]))

    @upstream.get("/endless")
    async def endless(res: Response, req: Request) -> None:
        try:
            while True:
                await res.send_chunk(bytes(65536))
                sent[0] += 65536
        finally:
            ended.append(type(sys.exc_info()[1]).__name__)

    @upstream.get("/body")
    async def body(res: Response, req: Request) -> None:
        await res.send_chunk(pattern(1_000_000), 1_000_000 if "length" in req.query else None)

    return upstream


@quiet_httpx
async def test_relay_relays() -> None:
    relay = run_example("relay")
    async with serving(make_upstream([0], []), relay["app"]) as [upstream, server]:
        relay["relay"].__globals__["UPSTREAM"] = f"http://127.0.0.1:{upstream.port}"
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{server.port}", trust_env=False
        ) as client:
            response = await client.post("/tell?a=%C3%A4", content=pattern(300_000))
            assert response.status_code == 201
            assert response.headers.get_list("X-Twice") == ["1", "2"]
            assert "X-Hop" not in response.headers
            method, target, fields, size = response.json()
            assert (method, target, size) == ("POST", "/tell?a=%C3%A4", 300_000)
            assert ["Via", "1.1 trio_stream"] in fields
            for query in ("length", ""):
                response = await client.get(f"/body?{query}")
                assert response.content == pattern(1_000_000)
                assert ("Content-Length" in response.headers) == (query == "length")
            assert (await client.get("/unknown")).status_code == 404
            assert (await client.head("/body?length")).headers["Content-Length"] == "1000000"
        relay["relay"].__globals__["UPSTREAM"] = "http://127.0.0.1:1"
        async with httpx.AsyncClient(trust_env=False) as client:
            response = await client.get(f"http://127.0.0.1:{server.port}/tell")
            assert response.status_code == 502


@quiet_httpx
async def test_relay_adds_and_changes_no_field() -> None:
    seen: list[tuple[str, str]] = []
    upstream_app = App()

    @upstream_app.get("/")
    def answer(res: Response, req: Request) -> None:
        seen.extend(req.headers.items())
        res.write_header("X-Name", "€ ä".encode())
        res.end(b"hello")

    relay = run_example("relay")
    async with serving(upstream_app, relay["app"]) as [upstream, server]:
        relay["relay"].__globals__["UPSTREAM"] = f"http://127.0.0.1:{upstream.port}"
        async with await connect(server.port) as client:
            await client.send_all(
                b"GET / HTTP/1.1\r\nHost: x\r\nX: caf\xe9\r\nConnection: close\r\n\r\n"
            )
            received = without_date(b"".join([data async for data in client]))
    host = f"127.0.0.1:{upstream.port}"
    assert sorted(seen) == [("Host", host), ("Via", "1.1 trio_stream"), ("X", "caf\xe9")]
    head = b"HTTP/1.1 200 OK\r\nX-Name: %b\r\nContent-Length: 5\r\n" % "€ ä".encode()
    assert received == head + b"Connection: close\r\n\r\nhello"


@pytest.mark.parametrize(
    ("method", "target", "status", "relayed"),
    [
        ("GET", "http://other:1/tell?a=b?c", 201, "/tell?a=b?c"),
        ("GET", "http://other/?", 404, ""),
        ("GET", "//other/tell", 404, ""),
        ("GET", "/tell?http://other/", 201, "/tell?http://other/"),
        ("CONNECT", ".other:1", 501, ""),
    ],
)
@quiet_httpx
async def test_relay_asks_no_other_server(
    method: str, target: str, status: int, relayed: str
) -> None:
    relay = run_example("relay")
    async with serving(make_upstream([0], []), relay["app"]) as [upstream, server]:
        relay["relay"].__globals__["UPSTREAM"] = f"http://127.0.0.1:{upstream.port}"
        async with await connect(server.port) as client:
            await client.send_all(get(target, "Connection: close", method=method))
            received = b"".join([data async for data in client])
    assert received.startswith(f"HTTP/1.1 {status} ".encode())
    assert f'["{method}", "{relayed}", '.encode() in received or status != 201
    assert upstream.stats.requests == (status != 501)


@quiet_httpx
async def test_relay_holds_back_and_cancels_the_other_server() -> None:
    sent = [0]
    ended: list[str] = []
    relay = run_example("relay")
    async with serving(make_upstream(sent, ended), relay["app"]) as [upstream, server]:
        relay["relay"].__globals__["UPSTREAM"] = f"http://127.0.0.1:{upstream.port}"
        async with await connect(server.port, receive_buffer=4096) as client:
            await client.send_all(get("/endless"))
            await until(lambda: upstream.stats.parks > 0 and server.stats.parks > 0)
            await wait_all_tasks_blocked(0.1)  # both servers are tasks of this test
            assert sent[0] < 30 * MIB
            assert ended == []
        await until(lambda: bool(ended))
        assert ended == ["Cancelled"]
        await until(lambda: server.stats.active_responses == 0)
