"""Workers as real processes: what clients see when they die, are replaced, and are shut down."""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from tests.clients import until
from tests.test_main import Program, download, open_download, run_python
from trio_stream.__main__ import main
from trio_stream._command_line import check_options, make_parser

APP = """
import os, trio
from trio_stream import App, Config

app = App(config=Config(linger_timeout=0.2))

@app.get("/")
def pid(res, req):
    res.end(str(os.getpid()))

app.metrics()

@app.get("/slow")
async def slow(res, req):
    await res.send_chunk(f"{os.getpid()}\\n".encode())
    await trio.sleep(float(req.query["seconds"]))
    res.end("whole")
"""

WHOLE = b"5\r\nwhole\r\n0\r\n\r\n"


@pytest.fixture
def app(tmp_path: Path) -> Path:
    file = tmp_path / "served.py"
    file.write_text(APP)
    return file


class Log:
    """The lines that a program writes to its stderr."""

    def __init__(self, program: Program) -> None:
        self._stderr = program._stderr
        self._text = ""

    async def wait_for(self, what: str, count: int = 1) -> None:
        while self._text.count(what) < count:
            data = await self._stderr.receive_some()
            assert data, self._text
            self._text += data.decode()

    async def wait_end(self) -> str:
        with suppress(trio.BrokenResourceError):
            while data := await self._stderr.receive_some():
                self._text += data.decode()
        return self._text


async def worker_of(port: int) -> int:
    return int((await download(port, "/"))[1])


async def open_slow(port: int, *, seconds: float) -> tuple[int, trio.SocketStream]:
    """The worker that answers, and its answer, of which WHOLE is to come."""
    stream = await open_download(port, f"/slow?seconds={seconds}")
    answer = b""
    while not (match := re.search(rb"\r\n\r\n[0-9a-f]+\r\n(\d+)\n\r\n", answer)):
        data = await stream.receive_some()
        assert data, answer
        answer += data
    return int(match[1]), stream


def is_alive(pid: int) -> bool:
    """Whether there is a process that has not ended; one of nobody may wait for its burial."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def options(app: Path, *more: str) -> list[str]:
    return ["-m", "trio_stream", str(app), "--port", "0", *more]


async def test_death_replacement_and_shutdown(app: Path) -> None:
    async with run_python(*options(app, "--workers", "2")) as program:
        port = await program.read_port()
        log = Log(program)
        await log.wait_for(" serves", 2)

        # The death of one breaks its own connections only.
        streams: dict[int, trio.SocketStream] = {}
        while len(streams) < 2:
            pid, stream = await open_slow(port, seconds=1)
            if pid in streams:
                await stream.aclose()
            else:
                streams[pid] = stream
        (killed, broken), (survivor, whole) = streams.items()
        os.kill(killed, signal.SIGKILL)
        with suppress(trio.BrokenResourceError):
            assert await broken.receive_some() == b""
        assert b"".join([data async for data in whole]) == WHOLE
        await log.wait_for(f"worker {killed} has ended by SIGKILL: the next one starts in 0.5")
        await log.wait_for(" serves", 3)

        # All of them are replaced, and no client sees anything of it.
        before = {survivor, killed}
        workers: set[int] = set()

        async def hammer() -> None:
            while True:
                workers.add(await worker_of(port))
                await trio.sleep(0.01)  # those that start have to do something, too

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(hammer)
            program.process.send_signal(signal.SIGHUP)
            await log.wait_for(" serves", 5)
            await log.wait_for("shut down", 2)
            workers.clear()
            await until(lambda: bool(workers))
            nursery.cancel_scope.cancel()
        assert not workers & before
        await until(lambda: not is_alive(survivor))

        # What is under way at the end is still answered.
        _, last = await open_slow(port, seconds=0.3)
        program.process.terminate()
        assert b"".join([data async for data in last]) == WHOLE
        errors = await log.wait_end()
        assert await program.process.wait() == 0
    assert errors.count(" ERROR ") == 1
    assert f"trio_stream[{program.process.pid}]: SIGHUP: replacing 2 workers" in errors
    assert "has ended with status 1" not in errors
    assert errors.count("a second signal") == 1  # the supervisor's
    assert "; a second signal kills what is left\n" in errors
    for stream in (broken, whole, last):
        await stream.aclose()


async def test_no_sum_over_workers_falls(app: Path) -> None:
    async with run_python(*options(app, "--workers", "3")) as program:
        port = await program.read_port()
        log = Log(program)
        await log.wait_for(" serves", 3)
        last = 0

        async def count() -> int:
            _, text = await download(port, "/metrics")
            match = re.search(rb"^trio_stream_requests_total ([0-9.]+)", text, re.MULTILINE)
            assert match, text
            return int(float(match[1]))

        workers: set[int] = set()
        while len(workers) < 3:
            workers.add(await worker_of(port))
            last += 1
        assert await count() == last + 1
        stopped, killed, terminated = workers
        os.kill(stopped, signal.SIGSTOP)
        assert await count() == last + 2
        os.kill(stopped, signal.SIGCONT)
        assert await count() == last + 3
        os.kill(killed, signal.SIGKILL)
        os.kill(terminated, signal.SIGTERM)
        await log.wait_for(" serves", 5)
        assert await count() == last + 4
        program.process.terminate()
        assert await program.process.wait() == 0


async def test_no_worker_outlives_its_supervisor(app: Path) -> None:
    async with run_python(*options(app, "--workers", "2")) as program:
        port = await program.read_port()
        log = Log(program)
        await log.wait_for(" serves", 2)
        pid, stream = await open_slow(port, seconds=0.3)
        program.process.kill()
        assert b"".join([data async for data in stream]) == WHOLE
        await until(lambda: not is_alive(pid))
        await log.wait_end()  # nobody has its stderr any more
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream("127.0.0.1", port)
    await stream.aclose()


IMPORT_HANGS = """
import sys, time

print("hangs", file=sys.stderr)
time.sleep(1000)
"""

LIFESPAN_HANGS = """
import contextlib, sys, trio
from trio_stream import App, Config

app = App(config=Config(shutdown_grace=0.1))

@app.lifespan
@contextlib.asynccontextmanager
async def hang():
    print("hangs", file=sys.stderr)
    await trio.sleep(1000)
    yield
"""


@pytest.mark.parametrize("text", [IMPORT_HANGS, LIFESPAN_HANGS], ids=["import", "lifespan"])
async def test_no_worker_that_hangs_as_it_starts_outlives_its_supervisor(
    app: Path, text: str
) -> None:
    app.write_text(text)
    async with run_python(*options(app, "--workers", "2")) as program:
        log = Log(program)
        await log.wait_for("hangs")
        program.process.kill()
        with trio.fail_after(20):
            await log.wait_end()  # nobody has its stderr any more


async def test_what_cannot_be_imported_is_told_once(app: Path) -> None:
    app.write_text("import nothing_of_that_name")
    async with run_python(*options(app, "--workers", "3")) as program:
        status, errors = await program.wait()
    assert status == 2
    assert errors.startswith("trio-stream: can't import ")
    assert errors.count("\n") == 1


async def test_a_lifespan_that_fails_is_tried_a_few_times(app: Path) -> None:
    app.write_text(
        "from trio_stream import App\napp = App()\n"
        "@app.lifespan\ndef connect():\n    raise ConnectionRefusedError('no database')"
    )
    # With a shorter back-off, whose length test_workers checks on a clock that jumps.
    code = (
        "import sys\n"
        "from trio_stream import _workers\n"
        "from trio_stream.__main__ import main\n"
        "_workers._FIRST_DELAY = 0.01\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    async with run_python("-c", code, *options(app, "--workers", "2")[2:]) as program:
        status, errors = await program.wait()
    assert status == 1
    assert errors.count("ConnectionRefusedError: no database") == 3
    assert errors.splitlines()[-1].endswith(
        "has ended with status 1: none has come to serve in 3 tries, and no more are made"
    )


async def test_a_change_of_the_code_is_served(app: Path, tmp_path: Path) -> None:
    code = app.read_text()
    app.write_text("import nothing_of_that_name")
    async with run_python(*options(app, "--reload"), cwd=tmp_path) as program:
        log = Log(program)
        await log.wait_for("waiting for a change")

        async def change(code: str, what: str) -> None:
            """Change the code until that is noticed: nobody tells when watching has begun."""
            async with trio.open_nursery() as nursery:

                async def wait() -> None:
                    await log.wait_for(what)
                    nursery.cancel_scope.cancel()

                nursery.start_soon(wait)
                for seconds in (2**n for n in range(10)):  # in the end, long enough to start
                    app.write_text(code)
                    await trio.sleep(seconds / 2)

        await change(code, " serves")
        port = await program.read_port()
        before = await worker_of(port)
        await change("1 / 0", "ZeroDivisionError")
        assert await worker_of(port) == before
        await change(code.replace("str(os.getpid())", "'new'"), "shut down")
        assert (await download(port, "/"))[1] == b"new"
        program.process.terminate()
        await log.wait_end()
        assert await program.process.wait() == 0


# The command line...


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--workers 0", "'0' is not a number of processes from 1 to 1000"),
        ("--workers many", "'many' is not a number of processes"),
        ("--reload", "--reload needs a library: pip install 'trio-stream[reload]'"),
    ],
)
def test_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], args: str, message: str
) -> None:
    monkeypatch.setattr("trio_stream._command_line.HAVE_WATCHFILES", False)
    assert main(args.split()) == 2
    assert message in capsys.readouterr().err


def test_workers_need_posix(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trio_stream._command_line.IS_POSIX", False)
    assert main(["--workers", "2"]) == 2
    assert "--workers and --reload need a POSIX system" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "args", "count"),
    [(None, "", 1), ("", "", 1), ("3", "", 3), ("3", "--workers 2", 2), ("x", "--workers 2", 2)],
)
def test_the_number_of_workers(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, args: str, count: int
) -> None:
    if variable is None:
        monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    else:
        monkeypatch.setenv("WEB_CONCURRENCY", variable)
    options = make_parser().parse_args(args.split())
    check_options(options)
    assert options.workers == count


def test_a_wrong_number_in_the_environment_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "x")
    assert main([]) == 2
    message = (
        "trio-stream: the environment variable WEB_CONCURRENCY: 'x' is not a number of processes"
    )
    errors = capsys.readouterr().err
    assert errors.startswith(message)
    assert errors.count("\n") == 1
