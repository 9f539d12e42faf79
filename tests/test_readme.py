"""What README.md shows is run: its examples here, its two commands by CI in a fresh clone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.harness import pattern
from trio_stream import AbortReason, App, Config, Request, Response, Server
from trio_stream._command_line import make_parser
from trio_stream._listeners import DEFAULT_HOST, DEFAULT_PORT, DEFAULT_UNIX_MODE
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from trio.testing import MockClock

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def block(name: str) -> str:
    """The fenced block behind the marker `name`."""
    match = re.search(rf"<!-- {name} -->\n```\w+\n(.*?)```\n", README, re.DOTALL)
    assert match is not None, name
    return match[1]


@pytest.fixture
def namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the streaming example defines, in a folder with a song."""
    (tmp_path / "song.mp3").write_bytes(pattern(300_000))
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(compile(block("example"), "README.md", "exec"), namespace)
    return namespace


async def test_streaming_example_streams(namespace: dict[str, Any]) -> None:
    async with open_client(namespace["app"], window=1000) as client:
        response = await client.get("/song.mp3")
        assert response.headers["Content-Type"] == "audio/mpeg"
        assert await response.read() == pattern(300_000)


async def test_nursery_example_serves_and_ends(namespace: dict[str, Any]) -> None:
    body = block("nursery").replace("app.serve", "lambda **kw: app.serve(port=0, **kw)")
    code = "async def main():\n" + "".join(f"    {line}\n" for line in body.splitlines())
    printed: list[tuple[object, ...]] = []
    namespace |= {"print": lambda *values: printed.append(values)}
    exec(compile(code, "README.md", "exec"), namespace)
    await namespace["main"]()
    ((port, stats),) = printed
    assert isinstance(port, int)
    assert port > 0
    assert stats == Server(App()._router, Config()).stats


async def test_testing_example_passes(
    namespace: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    exec(compile(block("testing"), "README.md", "exec"), namespace)
    await namespace["test_song_ends_with_its_client"]()


async def test_route_examples_answer(namespace: dict[str, Any]) -> None:
    exec(compile(block("routes"), "README.md", "exec"), namespace)
    async with open_client(namespace["app"]) as client:
        assert await (await client.get("/users/7")).read() == b"7, no\n"
        assert await (await client.get("/users/%2Fx?verbose=yes")).read() == b"/x, yes\n"
        response = await client.get("/users/")
        assert (response.status_code, await response.read()) == (404, b"Not Found\n")
        response = await client.request("PUT", "/archive/a/b")
        assert await response.read() == b"PUT a/b\n"
        response = await client.request("POST", "/users/7")
        assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")


def test_table_of_requests_is_that_of_their_attributes() -> None:
    section = README.partition("## Routes and requests\n")[2].partition("\n## ")[0]
    told = re.findall(r"`(\w+)`", "".join(re.findall(r"^\|(.*?)\|", section, re.MULTILINE)))
    body = {"body", "content_type", "read", "text", "json", "form", "parts"}
    names = {name for name in dir(Request) if not name.startswith("_")}
    names |= {"method", "target", "raw_path", "params", "client_certificate", "id"}
    assert sorted(told) == sorted(names - body)


async def test_callback_example_sends(namespace: dict[str, Any]) -> None:
    exec(compile(block("callbacks"), "README.md", "exec"), namespace)
    async with open_client(namespace["app"]) as client:
        assert await (await client.get("/callbacks")).read() == bytes(10_000_000)


async def test_examples_of_unknown_length_tick(
    namespace: dict[str, Any], autojump_clock: MockClock
) -> None:
    exec(compile(block("unknown"), "README.md", "exec"), namespace)
    async with open_client(namespace["app"]) as client:
        response = await client.get("/ticks")
        assert await response.read() == b"tick 0\ntick 1\ntick 2\n"
        assert trio.current_time() == pytest.approx(3)
        response = await client.get("/clock")
        assert response.headers["Content-Type"] == "text/event-stream"
        events = b"".join(b"id: %d\ndata: tick %d\n\n" % (n, n) for n in range(3))
        assert await response.read() == events


async def test_receiving_examples_receive(namespace: dict[str, Any]) -> None:
    exec(compile(block("receiving"), "README.md", "exec"), namespace)
    async with open_client(namespace["app"]) as client:
        response = await client.request("POST", "/echo", body=pattern(50_000))
        assert await response.read() == pattern(50_000)
        response = await client.request("POST", "/sum", body=b"[1, 2, 3]")
        assert await response.read() == b"6"
        response = await client.request("POST", "/sum", body=b"[1, 2, ")
        assert (response.status_code, await response.read()) == (400, b"Bad Request\n")
        response = await client.request(
            "POST",
            "/upload",
            headers=[("Content-Type", "multipart/form-data; boundary=limit")],
            body=b"--limit\r\n"
            b'Content-Disposition: form-data; name="a"; filename="b.txt"\r\n\r\n'
            b"hello\r\n--limit--\r\n",
        )
        assert await response.read() == b"a: b.txt, 5 bytes\n"


async def test_file_examples_send_files(namespace: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "a.txt").write_text("hello")
    (tmp_path / "report.pdf").write_bytes(pattern(100_000))
    namespace["reports"] = {"may": tmp_path / "report.pdf"}
    exec(compile(block("files"), "README.md", "exec"), namespace)
    async with open_client(namespace["app"]) as client:
        assert b'href="./a.txt"' in await (await client.get("/static/")).read()
        assert await (await client.get("/static/a.txt")).read() == b"hello"
        response = await client.get("/reports/may")
        assert response.headers["Cache-Control"] == "private"
        assert response.headers["Content-Disposition"].startswith("attachment; ")
        assert await response.read() == pattern(100_000)


async def test_progress_example_goes_on(
    namespace: dict[str, Any], autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(compile(block("progress"), "README.md", "exec"), namespace)
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        await namespace["send_patiently"](res, pattern(1000), 1000)

    async with open_client(app, window=400) as client:
        response = await client.get("/")
        received = b""
        while len(received) < 1000:
            await trio.sleep(12)
            received += await response.receive_some()
        assert received == pattern(1000)
    assert capsys.readouterr().out.count("five seconds, and not through yet\n") > 2
    async with open_client(app) as client:
        for _ in range(2):  # the handler has returned
            response = await client.request("HEAD", "/")
            assert response.headers["Content-Length"] == "1000"
            assert await response.read() == b""


def test_commands_need_only_python_and_pip() -> None:
    setup = "python3 -m venv .venv && .venv/bin/pip install -q -e"
    assert block("run") == f"{setup} . && .venv/bin/python -m trio_stream\n"
    assert block("test") == f"{setup} '.[test]' && .venv/bin/python -m pytest -q\n"


def test_table_of_limits_is_that_of_config() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (\S+) \| (seconds|bytes|bytes/s)? ?\| ", README, re.MULTILINE
    )
    table = {name: default.strip('`"') for name, default, _ in rows}
    defaults = {name: getattr(Config(), name) for name in Config.__slots__}
    assert table == {
        name: f"{value:.10g}" if type(value) in (int, float) else str(value)
        for name, value in defaults.items()
    }


def test_table_of_calls_is_that_of_the_response() -> None:
    section = README.partition("\n## Sending\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE)
    calls = [call for cell in cells for call in re.findall(r"(\w+)\(", cell)]
    attributes = ["abort_reason", "aborted", "cancel_scope"]
    assert sorted(calls + attributes) == [name for name in dir(Response) if name[0] != "_"]
    assert all(f" res.{name} " in README for name in attributes)  # "When the client goes"


def test_table_of_abort_reasons_is_complete() -> None:
    reasons = re.findall(r"^\| `([A-Z_]+)` \|", README, re.MULTILINE)
    assert reasons == [reason.name for reason in AbortReason]


def test_table_of_options_is_that_of_the_command_line() -> None:
    parser = make_parser()
    rows = re.findall(r"^\| (`--[^|]+) \| ([^|]*) ?\| \S", README, re.MULTILINE)
    told = {name for names, _ in rows for name in re.findall(r"--[\w-]+", names)}
    options = {name for action in parser._actions for name in action.option_strings}
    assert told == options - {"-h", "--help", "--list", "--version"}
    defaults = {names.split("`")[1]: default.strip() for names, default in rows}
    assert defaults["--host"] == DEFAULT_HOST
    assert defaults["--port"] == str(DEFAULT_PORT)
    assert defaults["--unix-mode"] == f"{DEFAULT_UNIX_MODE:o}"
    assert defaults["--access-log"] == parser.get_default("access_log")


async def test_lifespan_example() -> None:
    names: dict[str, Any] = {}
    exec(block("lifespan"), names)
    async with open_client(names["app"]) as client:
        assert names["helpers"][0].child_tasks == set()
        for path in ("/livez", "/readyz"):
            response = await client.get(path)
            assert response.status_code == 200
            await response.read()
