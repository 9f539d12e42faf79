"""Every example does what it says."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import runpy
import signal
import wave
from typing import TYPE_CHECKING, Any

import h11
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.test_main import CHECKOUT, EXAMPLES, open_download, run_python
from trio_stream import AbortReason, App, Request, Response
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

NAMES = [path.stem for path in EXAMPLES]


def run_example(name: str, run_name: str = "example") -> dict[str, Any]:
    """Run an example, and return what it defines."""
    return runpy.run_path(str(CHECKOUT / "examples" / f"{name}.py"), run_name=run_name)


# All of them...


@pytest.mark.parametrize("name", NAMES)
def test_it_can_be_run_as_a_script(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[object] = []
    monkeypatch.setattr(App, "run", lambda app, *, port: runs.append((app, port)))
    monkeypatch.setattr(trio, "run", lambda main: runs.append(main))
    example = run_example(name, "__main__")
    has_main = name in ("embedded", "resumable_download")
    assert runs == ([example["main"]] if has_main else [(example["app"], 8000)])


@pytest.mark.parametrize("name", NAMES)
async def test_what_it_says_to_try_is_answered(name: str) -> None:
    example = run_example(name)
    lines = [
        line
        for line in example["__doc__"].splitlines()
        if not re.search(r"--(data|form|upload)|UPSTREAM|song\.wav (http://127|song)", line)
        or name == "song"
    ]
    targets = re.findall(r"http://127\.0\.0\.1:8000(/[^\s\"]*)", "\n".join(lines))
    assert targets or name in ("echo", "relay", "resumable_download")
    for target in targets:
        async with open_client(example["app"]) as client:
            assert (await client.get(target)).status_code == 200


# hello...


@pytest.mark.parametrize(
    ("target", "status", "body"),
    [
        ("/", 200, "Hello, world!\n"),
        ("/hello/Ada", 200, "Hello, Ada!\n"),
        ("/hello/%C3%89mile?times=2", 200, "Hello, Émile!\nHello, Émile!\n"),
        ("/hello/Ada?times=many", 400, "times is 1, 2 or 3\n"),
    ],
)
async def test_hello(autojump_clock: MockClock, target: str, status: int, body: str) -> None:
    async with open_client(run_example("hello")["app"]) as client:
        response = await client.get(target)
        assert response.status_code == status
        assert (await response.read()).decode() == body


async def test_hello_tells_headers_and_methods(autojump_clock: MockClock) -> None:
    async with open_client(run_example("hello")["app"]) as client:
        response = await client.request("GET", "/headers", headers=[("X-One", "1"), ("X-One", "2")])
        headers = json.loads(await response.read())
        assert headers == [["Host", "memory"], ["X-One", "1"], ["X-One", "2"]]
        response = await client.request("POST", "/")
        assert response.status_code == 405
        assert response.headers["Allow"] == "GET, HEAD, OPTIONS"


# song. It reads in threads, which an autojump clock does not wait for...


async def test_song_makes_one_that_can_be_played() -> None:
    async with open_client(run_example("song")["app"], window=100_000) as client:
        body = await (await client.get("/song.wav")).read()
        assert client.stats.aborts == {}
    with wave.open(io.BytesIO(body)) as song:
        assert song.getnframes() / song.getframerate() == 120
        assert len(song.readframes(song.getnframes())) == 120 * 22_050 * 2


async def test_song_serves_the_one_of_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes(range(256)) * 1024
    (tmp_path / "song.wav").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    async with open_client(run_example("song")["app"], window=777) as client:
        response = await client.get("/song.wav")
        assert response.headers["Content-Length"] == str(len(data))
        assert await response.read() == data


async def test_song_closes_its_file_when_the_client_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    files: list[Any] = []
    open_file: Callable[..., Awaitable[Any]] = trio.open_file

    async def open_and_note(*args: object) -> object:
        files.append(await open_file(*args))
        return files[-1]

    monkeypatch.setattr(trio, "open_file", open_and_note)
    async with open_client(run_example("song")["app"], window=1000) as client:
        await client.get("/song.wav")
        assert [file.closed for file in files] == [False]
    assert [file.closed for file in files] == [True]
    assert client.stats.aborts == {AbortReason.CLIENT_CLOSED: 1}


async def test_song_that_becomes_shorter_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "song.wav"
    path.write_bytes(bytes(200_000))
    monkeypatch.chdir(tmp_path)
    async with open_client(run_example("song")["app"], window=1000) as client:
        response = await client.get("/song.wav")
        os.truncate(path, 100_000)
        received = 0
        with pytest.raises(h11.RemoteProtocolError), trio.fail_after(20):
            while True:
                received += len(await response.receive_some())
        assert received == 100_000
    assert client.stats.aborts == {AbortReason.INCOMPLETE: 1}


async def test_song_leaves_no_file_behind(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    async with run_python("-m", "trio_stream", "song", "--port", "0", env=environment) as program:
        await program.read_port()
        assert len(list(tmp_path.glob("*/song.wav"))) == 1
        program.process.terminate()
        status, log = await program.wait()
        assert status == 0
        assert "ERROR" not in log
    assert list(tmp_path.iterdir()) == []


# callbacks...

SQUARES = "".join(f"{number:6} {number**2:12}\n" for number in range(100_000)).encode()


@pytest.mark.parametrize("window", [777, 20_000, 10**7])
async def test_callbacks_send_every_byte_once(autojump_clock: MockClock, window: int) -> None:
    async with open_client(run_example("callbacks")["app"], window=window) as client:
        response = await client.get("/squares")
        assert response.headers["Content-Length"] == str(len(SQUARES))
        assert await response.read() == SQUARES
        assert client.stats.aborts == {}


async def test_callbacks_log_how_far_a_lost_client_came(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "callbacks")
    async with open_client(run_example("callbacks")["app"], window=1000) as client:
        body = await (await client.get("/squares")).receive_some()
        await wait_all_tasks_blocked()
        assert client.unread == 1000
        client.vanish()
        await wait_all_tasks_blocked()
    offset = len(body) + 1000
    assert caplog.messages == [f"the client has gone at byte {offset} of {len(SQUARES)}"]


# own_send_chunk...


@pytest.mark.parametrize("window", [7777, 100_000, 10**7])
async def test_own_send_chunk_sends_what_the_built_in_one_sends(
    autojump_clock: MockClock, window: int
) -> None:
    async with open_client(run_example("own_send_chunk")["app"], window=window) as client:
        own = await (await client.get("/own")).read()
        built_in = await (await client.get("/built-in")).read()
        assert client.stats.aborts == {}
    assert own == b"".join(b"%09d\n" % number * 10_000 for number in range(50))
    assert built_in == own


@pytest.mark.parametrize("cancel_on_abort", [True, False])
async def test_own_send_chunk_tells_that_the_client_has_gone(
    autojump_clock: MockClock, cancel_on_abort: bool
) -> None:
    sender = run_example("own_send_chunk")["ChunkSender"]
    results: list[tuple[bool, bool]] = []
    app = App(cancel_on_abort=cancel_on_abort)

    @app.get("/")
    async def send(res: Response, req: Request) -> None:
        results.append(await sender(res).send_chunk(bytes(5000), 5000))

    async with open_client(app, window=1000) as client:
        await client.get("/")
        await wait_all_tasks_blocked()
        client.vanish()
        await wait_all_tasks_blocked()
        assert client.stats.active_responses == 0
    assert results == [(False, True)]


# abort_in_nursery...


async def test_abort_in_nursery_unwinds_all_of_it(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "abort_in_nursery")
    sensors = ["humidity", "pressure", "wind"]
    async with open_client(run_example("abort_in_nursery")["app"]) as client:
        response = await client.get("/readings")
        lines = (await response.receive_some()).decode()
        assert re.fullmatch(r"( *(humidity|pressure|wind) +\d+\.\d\d\n)+", lines)
        await wait_all_tasks_blocked()
        assert sorted(caplog.messages) == [f"{name}: on" for name in sensors]
        caplog.clear()
        client.vanish()
        await wait_all_tasks_blocked()
        assert sorted(caplog.messages[:-1]) == [f"{name}: off" for name in sensors]
        assert caplog.messages[-1] == "all sensors are off; the client has gone: True"
        assert client.stats.active_responses == 0
        assert client.stats.aborts == {AbortReason.CLIENT_CLOSED: 1}


async def test_abort_in_nursery_unwinds_behind_a_client_that_takes_nothing(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "abort_in_nursery")
    async with open_client(run_example("abort_in_nursery")["app"], window=200) as client:
        await client.get("/readings")
        await trio.sleep(30)
        assert client.unread == 200
        client.vanish()
        await wait_all_tasks_blocked()
        assert caplog.messages[-1] == "all sensors are off; the client has gone: True"


async def test_abort_in_nursery_ends_when_all_is_sent(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "abort_in_nursery")
    example = run_example("abort_in_nursery")
    async with open_client(example["app"]) as client:
        body = await (await client.get("/readings")).read()
        await wait_all_tasks_blocked()
        assert caplog.messages[-1] == "all sensors are off; the client has gone: False"
        assert client.stats.aborts == {}
    assert len(body) == example["TOTAL"]
    # 3,000 lines from three sensors, each five times a second.
    assert trio.current_time() == pytest.approx(200, abs=1)


# embedded...


async def test_embedded_clock_ticks_each_second(autojump_clock: MockClock) -> None:
    async with open_client(run_example("embedded")["app"]) as client:
        body = await (await client.get("/clock")).read()
    assert re.fullmatch(rb"(\d\d:\d\d:\d\d\n){600}", body)
    assert trio.current_time() == pytest.approx(599)


async def test_embedded_program_goes_on_without_its_server() -> None:
    file = CHECKOUT / "examples" / "embedded.py"
    # It waits for its stdin when main() has returned.
    code = f"""
import functools, runpy, trio
trio.run(functools.partial(runpy.run_path({str(file)!r})["main"], port=0))
input()
"""
    async with run_python("-c", code) as program:
        port = await program.read_port()
        await program.read_until("0 requests so far, 0 under way")
        async with await open_download(port, "/clock") as stream:
            answer = b""
            while not re.search(rb"\n\d\d:\d\d:\d\d\n", answer):
                answer += await stream.receive_some()
            program.process.send_signal(signal.SIGINT)
            await program.read_until("The server is gone; the program goes on.")
            answer += b"".join([data async for data in stream])
        assert answer.count(b"\n", answer.index(b"\r\n\r\n") + 4) < 600
        assert program.process.poll() is None
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream("127.0.0.1", port)


async def test_embedded_program_ends_its_server_after_its_time(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    await run_example("embedded")["main"](port=0, duration=60, period=25)
    assert trio.current_time() == 60
    first, *reports, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"Serving on http://127\.0\.0\.1:\d+ for 60 seconds", first)
    assert reports == ["0 requests so far, 0 under way"] * 3
    assert last == "The server is gone; the program goes on."
