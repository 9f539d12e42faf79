"""The command line: in this process where it returns, in one of its own where it serves."""

from __future__ import annotations

import errno
import io
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import wave
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING

import pytest
import trio
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tests.clients import until
from tests.harness import authority, make_client_context
from trio_stream import App, Certificates, __version__, _demo, _targets
from trio_stream.__main__ import main
from trio_stream._share import Share
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

CHECKOUT = Path(__file__).parent.parent
EXAMPLES = sorted((CHECKOUT / "examples").glob("*.py"))

# An app that doesn't serve, but says where it would.
SAYS_WHERE = """
from trio_stream import App

class Recorder(App):
    def run(self, *, host, port, announce, **others):
        print(f"{', '.join(host)} {port}")
        return 0

app = Recorder()
"""


class Program:
    """A running command."""

    def __init__(
        self,
        process: trio.Process,
        stdout: trio.abc.ReceiveStream,
        stderr: trio.abc.ReceiveStream,
    ) -> None:
        self.process = process
        self._stdout = stdout
        self._stderr = stderr
        self._output = self._log = b""

    async def read_until(self, pattern: str, *, end: str = ".*\n") -> re.Match[str]:
        """Read its stdout up to what `pattern` matches, to the end of that line."""
        while not (match := re.search(pattern + end, self._output.decode("utf-8", "ignore"))):
            data = await self._stdout.receive_some()
            assert data, f"it ended after {self._output!r}"
            self._output += data
        return match

    async def read_rest(self) -> str:
        """All of its output, which has ended."""
        with suppress(trio.BrokenResourceError):  # that is the end of a terminal
            while data := await self._stdout.receive_some():
                self._output += data
        return self._output.decode()

    async def read_port(self) -> int:
        return int((await self.read_until(r"Serving on http://127\.0\.0\.1:(\d+)"))[1])

    async def wait_logged(self, text: str) -> None:
        """Read its stderr up to where `text` is in it."""
        while text not in self._log.decode("utf-8", "ignore"):
            data = await self._stderr.receive_some()
            assert data, f"it ended after {self._log!r}"
            self._log += data

    async def wait(self) -> tuple[int, str]:
        """Its exit status, and all of its stderr."""
        status = await self.process.wait()
        return status, b"".join([self._log, *[data async for data in self._stderr]]).decode()

    async def close_terminal(self) -> None:
        await self._stdout.aclose()

    async def aclose(self) -> None:
        self.process.kill()  # does nothing if it has ended
        with trio.CancelScope(shield=True):
            await self.process.wait()
        await self._stdout.aclose()
        await self._stderr.aclose()


@asynccontextmanager
async def run_python(
    *args: str, env: dict[str, str] | None = None, cwd: Path = CHECKOUT
) -> AsyncIterator[Program]:
    """Run Python, usually in the checkout, beside the block, which has a bounded time."""
    process = await trio.lowlevel.open_process(
        [sys.executable, *args], cwd=cwd, env=env, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    program = Program(process, process.stdout, process.stderr)
    try:
        with trio.fail_after(30):
            yield program
    finally:
        await process.stdin.aclose()
        await program.aclose()


async def run_and_wait(*args: str) -> tuple[int, str]:
    """`run_python`, to its end: its exit status, and its stderr."""
    async with run_python(*args) as program:
        return await program.wait()


@asynccontextmanager
async def run_in_terminal(*args: str) -> AsyncIterator[Program]:
    """As `run_python`, in a terminal of 100 columns that has all of its output."""
    master, terminal = os.openpty()
    termios.tcsetwinsize(master, (24, 100))
    environment = {**os.environ, "TERM": "xterm"}
    try:
        process = await trio.lowlevel.open_process(
            [sys.executable, *args],
            cwd=CHECKOUT,
            env=environment,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
    finally:
        os.close(terminal)
    output = trio.lowlevel.FdStream(master)
    program = Program(process, output, output)
    try:
        with trio.fail_after(30):
            yield program
    finally:
        await program.aclose()


async def open_download(port: int, path: str) -> trio.SocketStream:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    await stream.send_all(request.encode())
    return stream


async def download(port: int, path: str) -> tuple[str, bytes]:
    """The head and the body of the answer."""
    async with await open_download(port, path) as stream:
        answer = b"".join([data async for data in stream])
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.decode(), body


@pytest.fixture
def fresh_imports() -> Iterator[None]:
    """Forget after the test what `main` has made importable, and what was imported from there."""
    path, modules = sys.path.copy(), set(sys.modules)
    yield
    added = set(sys.path) - set(path)
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if any(Path(file).is_relative_to(directory) for directory in added):
            del sys.modules[name]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_imports: None) -> Path:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# The demo...


@pytest.fixture(scope="module")
def song() -> bytes:
    file = io.BytesIO()
    _demo.write_song(file)
    return file.getvalue()


async def test_the_demo_serves_its_song_to_the_last_byte(song: bytes) -> None:
    async with run_python("-m", "trio_stream", "--port", "0") as program:
        await program.read_until("curl .*/song.wav")
        head, body = await download(await program.read_port(), "/song.wav")
    assert "Content-Type: audio/wav" in head
    assert f"Content-Length: {len(body)}" in head
    assert body == song


def test_the_song_can_be_played(song: bytes) -> None:
    with wave.open(io.BytesIO(song)) as file:
        seconds = file.getnframes() / file.getframerate()
        samples = memoryview(file.readframes(file.getnframes())).cast("h")
    assert len(song) >= 5 * 2**20
    assert seconds == pytest.approx(122.88)
    assert 20_000 < max(samples) < 2**15 - 1  # audible, and not clipped


async def test_the_demo_serves_the_part_that_a_player_seeks() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(data := bytes(range(250)) * 4)
        file.flush()
        async with open_client(_demo.make_app(file), window=100) as client:
            asked = [("Range", "bytes=100-199")]
            answer = await client.request("GET", "/song.wav", headers=asked)
            assert answer.status_code == 206
            assert answer.headers["Content-Type"] == "audio/wav"
            assert answer.headers["Content-Range"] == "bytes 100-199/1000"
            assert await answer.read() == data[100:200]


async def test_the_demo_page_plays_the_song_and_needs_nothing_else(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_client(_demo.make_app(io.BytesIO())) as client:
        page = await client.get("/")
        html = (await page.read()).decode()
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert re.findall(r'(?:src|href)="([^"]*)"', html) == ["data:,", "/song.wav", "/song.wav"]
    assert "prefers-color-scheme: dark" in html


# Serving and ending...


async def test_signals_end_it_in_the_middle_of_a_download() -> None:
    async with (
        run_python("-m", "trio_stream", "own_send_chunk", "--port", "0") as program,
        await open_download(await program.read_port(), "/built-in") as stream,
    ):
        await stream.receive_some()
        program.process.send_signal(signal.SIGINT)
        # Two that come at once may reach different threads, and so change places.
        await program.wait_logged("1 response under way")
        program.process.send_signal(signal.SIGTERM)
        status, log = await program.wait()
    assert status == 1
    assert re.sub(r"(?m)^\S+ \S+ ", "", log).splitlines() == [
        "INFO trio_stream: SIGINT: a second signal ends it at once",
        "INFO trio_stream: shutting down: 1 response under way, which may take 25 seconds",
        "WARNING trio_stream: shutting down: 1 response cut off",
    ]


async def test_a_hang_up_is_a_shutdown(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    options = ("-m", "trio_stream", "own_send_chunk", "--unix", str(path))
    async with run_python(*options) as program:
        await until(lambda: is_listening(path))
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(b"GET /built-in HTTP/1.0\r\n\r\n")
            await stream.receive_some()
            for _ in range(2):
                program.process.send_signal(signal.SIGHUP)
                await until(lambda: not is_listening(path))
            assert program.process.poll() is None  # the answer has its grace
            program.process.terminate()
            status, log = await program.wait()
    assert status == 1
    assert "INFO trio_stream: shutting down: 1 response under way" in log
    assert not path.exists()


# As a shell starts it in a terminal, whose end takes that of its session with it.
CONTROLLED = """
import fcntl, sys, termios
from trio_stream.__main__ import main

fcntl.ioctl(0, termios.TIOCSCTTY, 0)
sys.exit(main({args!r}))
"""


@pytest.mark.parametrize("options", ["", "--workers 2", "--reload", "--certfile {path}"])
async def test_the_end_of_its_terminal_is_a_shutdown(tmp_path: Path, options: str) -> None:
    path = tmp_path / "certificate.pem"
    certificate = authority().issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(path)
    args = ["hello", "--port", "0", *options.format(path=path).split()]
    async with run_in_terminal("-c", CONTROLLED.format(args=args)) as program:
        await program.read_until(r"Serving on https?://")
        await program.close_terminal()
        # 120 is the interpreter's: it could not flush what was logged last.
        assert await program.process.wait() in (0, 120)


async def test_a_hang_up_that_is_ignored_is_none(tmp_path: Path) -> None:
    code = (
        "import signal, sys\n"
        "from trio_stream.__main__ import main\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "sys.exit(main(['hello', '--port', '0']))"
    )
    async with run_python("-c", code) as program:
        port = await program.read_port()
        program.process.send_signal(signal.SIGHUP)
        head, _ = await download(port, "/")
        assert head.startswith("HTTP/1.1 200 ")
        program.process.terminate()
        assert (await program.wait())[0] == 0


async def test_a_lifespan_that_does_not_end_is_ended_by_a_second_signal(tmp_path: Path) -> None:
    file = tmp_path / "hangs.py"
    file.write_text(
        "from contextlib import asynccontextmanager\n"
        "import trio\n"
        "from trio_stream import App\n"
        "app = App()\n"
        "@app.lifespan\n"
        "@asynccontextmanager\n"
        "async def hang():\n"
        "    yield\n"
        "    print('at the end', flush=True)\n"
        "    await trio.sleep_forever()\n"
    )
    async with run_python("-m", "trio_stream", str(file), "--port", "0") as program:
        await program.read_port()
        program.process.terminate()
        await program.read_until("at the end")
        program.process.terminate()
        status, log = await program.wait()
    assert status == 1
    assert "Traceback" not in log
    assert "a second signal" not in log


def test_an_interrupt_before_it_serves_is_no_error(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("early.py").write_text("raise KeyboardInterrupt")
    assert main(["early.py"]) == 0
    assert capsys.readouterr() == ("", "")


def test_an_interrupt_that_breaks_something_off_is_told_by_the_status(directory: Path) -> None:
    Path("late.py").write_text(
        "from contextlib import asynccontextmanager\n"
        "from trio_stream import App\n"
        "app = App()\n"
        "@app.lifespan\n"
        "@asynccontextmanager\n"
        "async def lifespan():\n"
        "    raise KeyboardInterrupt\n"
        "    yield\n"
    )
    assert main(["late.py", "--port", "0"]) == 1


def test_without_room_there_is_no_demo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write_song(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_demo, "write_song", write_song)
    assert main(["--port", "0"]) == 2
    error = "trio-stream: no temporary file for the demo: No space left on device\n"
    assert capsys.readouterr().err.endswith(error)


async def test_what_the_server_logs_goes_to_stderr(tmp_path: Path) -> None:
    file = tmp_path / "silent.py"
    file.write_text("from trio_stream import App\napp = App()\napp.get('/', lambda res, req: None)")
    async with run_python("-m", "trio_stream", str(file), "--port", "0") as it:
        head, _ = await download(await it.read_port(), "/")
        it.process.terminate()
        status, log = await it.wait()
    assert head.startswith("HTTP/1.1 500 ")
    assert status == 0
    assert re.fullmatch(
        r"\S+ \S+ ERROR trio_stream: GET /: the handler returned .*\n(.* INFO .*\n)+", log
    )


# TLS...


@pytest.fixture
def pem(directory: Path) -> Path:
    """The current directory, with certificates and keys in it."""
    for name in ("a", "b"):
        leaf = authority().issue_cert(f"{name}.example")
        leaf.private_key_and_cert_chain_pem.write_to_path(f"{name}.pem")
        leaf.private_key_pem.write_to_path(f"{name}.key")
    authority().cert_pem.write_to_path("ca.pem")
    key = load_pem_private_key(Path("a.key").read_bytes(), None)
    Path("a.secret").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"s3cret"))
    )
    Path("password").write_text("s3cret\nwhat follows is no part of it\n")
    Path("app.py").write_text("from trio_stream import App\napp = App()")
    return directory


@pytest.mark.parametrize(
    "options",
    [
        "--certfile a.pem",
        "--certfile a.pem --certfile b.pem --ca-certs ca.pem",
        "--certfile a.pem --keyfile a.key --certfile b.pem --keyfile b.key",
        "--certfile a.pem --keyfile a.secret --keyfile-password env:OUR_PASSWORD",
        "--certfile a.pem --keyfile a.secret --keyfile-password file:password",
    ],
)
@pytest.mark.usefixtures("pem")
def test_certificates_are_loaded(options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setenv("OUR_PASSWORD", "s3cret")

    def run(app: App, *, ssl_context: object, **_: object) -> int:
        seen.append(ssl_context)
        return 0

    monkeypatch.setattr(App, "run", run)
    assert main(["app.py", *options.split()]) == 0
    assert [type(source) for source in seen] == [Certificates]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--keyfile a.key", "--keyfile needs a --certfile"),
        ("--keyfile-password env:X", "--keyfile-password needs a --certfile"),
        ("--ca-certs ca.pem", "--ca-certs needs a --certfile"),
        ("--certfile a.pem --certfile b.pem --keyfile a.key", "there are 2 and 1"),
        ("--certfile none.pem", "can't read 'none.pem': No such file"),
        ("--certfile a.pem --keyfile none.key", "can't read 'none.key': No such file"),
        ("--certfile a.pem --ca-certs .", "can't read '.': Is a directory"),
        ("--certfile app.py", "'app.py' and the key in 'app.py' are not a certificate and its key"),
        ("--certfile a.pem --keyfile b.key", "are not a certificate and its key in PEM: "),
        ("--certfile a.pem --ca-certs app.py", "'app.py' has no certificates in PEM"),
        (
            "--certfile a.pem --keyfile a.secret",
            "'a.secret' is encrypted: a password is needed; --keyfile-password says where it is",
        ),
        ("--certfile a.pem --keyfile a.secret --keyfile-password env:HOME", "password is wrong"),
        ("--certfile a.pem --keyfile-password s3cret", "env:NAME or file:PATH, and not the"),
        ("--certfile a.pem --keyfile-password env:NONE", "no environment variable 'NONE'"),
        ("--certfile a.pem --keyfile-password file:none", "can't read 'none': No such file"),
    ],
)
@pytest.mark.usefixtures("pem")
def test_certificates_that_cannot_be_loaded(
    options: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["app.py", *options.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


async def test_https_and_certificates_that_are_loaded_again(pem: Path) -> None:
    async def shown_name() -> str:
        stream = trio.SSLStream(
            await trio.open_tcp_stream("127.0.0.1", port), context, server_hostname="a.example"
        )
        async with stream:
            await stream.do_handshake()
            return str(stream.getpeercert()["subjectAltName"][0][1])

    context = make_client_context(lambda context: setattr(context, "check_hostname", False))
    certfile = str(pem / "a.pem")
    async with run_python("-m", "trio_stream", "--port", "0", "--certfile", certfile) as program:
        await program.read_until("curl .* https://127.0.0.1:[0-9]+/song.wav")
        port = int((await program.read_until(r"Serving on https://127\.0\.0\.1:(\d+)"))[1])
        assert await shown_name() == "a.example"
        Path(certfile).write_bytes(Path("b.pem").read_bytes())
        program.process.send_signal(signal.SIGHUP)
        while await shown_name() == "a.example":
            await trio.sleep(0.01)
        Path(certfile).write_bytes(b"")
        program.process.send_signal(signal.SIGHUP)
        await program.wait_logged("the certificates stay as they are")
        assert await shown_name() == "b.example"
        program.process.terminate()
        status, log = await program.wait()
    assert status == 0
    assert "INFO trio_stream: the certificates were loaded again\n" in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("access_log", "output"),
    [
        (
            "combined",
            r'Serving .*\n127\.0\.0\.1 - - \[.*"GET / HTTP/1\.1" 404 10 "-" "-" .* 0 done \w+-1\n',
        ),
        ("json", r'\{"time": .*, "status": 404, .*\}\n'),  # and nothing that is no JSON
        ("off", r"Serving on http://127\.0\.0\.1:\d+\n"),
    ],
)
async def test_the_access_log_goes_to_stdout(tmp_path: Path, access_log: str, output: str) -> None:
    file = tmp_path / "empty.py"
    file.write_text("from trio_stream import App\napp = App()")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ("--port", str(port), "--access-log", access_log)
    async with run_python("-m", "trio_stream", str(file), *options) as it:
        await until(lambda: is_serving(port))
        await download(port, "/")
        it.process.terminate()
        status, errors = await it.wait()
        assert status == 0
        lines = [line.partition(" INFO trio_stream: ")[2] for line in errors.splitlines()]
        assert lines[-1] == "shut down"
        assert (f"Serving on http://127.0.0.1:{port}" in lines) == (access_log == "json")
        assert re.fullmatch(output, await it.read_rest())


@pytest.mark.parametrize("closed", ["1>&-", "0<&- 1>&- 2>&-"])
def test_streams_that_are_closed_harm_nobody(closed: str, tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from trio_stream._log_writer import open_log\n"
        "with open_log('combined'):\n"
        "    fd = os.open(os.devnull, os.O_RDONLY)\n"
        "    assert fd > 2\n"
        "    assert os.fstat(0), os.fstat(1)\n"
        "    open(sys.argv[1], 'w').write('well')"
    )
    result = tmp_path / "result"
    command = shlex.join([sys.executable, "-c", code, str(result)])
    subprocess.run(["bash", "-c", f"{command} {closed}"], cwd=CHECKOUT, check=True, timeout=30)
    assert result.read_text() == "well"


def is_serving(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def is_listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


async def check_serves(path: Path) -> None:
    """Wait for a server on a Unix socket, and have it answer: it then waits for signals, too."""
    await until(lambda: is_listening(path))
    async with await trio.open_unix_socket(path) as stream:
        await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("target", [[], ["hello"]])
async def test_it_serves_though_stdout_takes_nothing(
    tmp_path: Path, workers: str, target: list[str]
) -> None:
    path = tmp_path / "socket"
    code = (
        "import os, sys\n"
        "from trio_stream.__main__ import main\n"
        "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    options = (*target, "--unix", str(path), "--workers", workers)
    async with run_python("-c", code, *options) as program:
        await check_serves(path)
        program.process.terminate()
        status, log = await program.wait()
    assert status == 0
    assert log.count("nothing can be told on stdout: No space left on device\n") == 1
    assert "Traceback" not in log
    assert "Exception ignored" not in log


async def test_nobody_waits_for_a_stdout_that_nobody_reads(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    code = (
        "import os, sys\n"
        "from trio_stream.__main__ import main\n"
        "os.set_blocking(1, False)\n"
        "try:\n"
        "    while os.write(1, bytes(1000)):\n"
        "        pass\n"
        "except BlockingIOError:\n"
        "    os.set_blocking(1, True)\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    async with run_python("-c", code, "hello", "--unix", str(path)) as program:
        await check_serves(path)
        program.process.terminate()
        status, log = await program.wait()
    assert status == 0
    assert log.count("nothing can be told on stdout: nobody reads it\n") == 1


@pytest.mark.parametrize(
    ("streams", "status"),
    [("2>&-", 2), ("2>/dev/full", 2), (">/dev/full 2>/dev/full", 2)],
)
def test_a_usage_error_that_nobody_takes_is_one(streams: str, status: int) -> None:
    command = shlex.join([sys.executable, "-m", "trio_stream", "--port", "x"])
    done = subprocess.run(
        ["bash", "-c", f"{command} {streams}"], cwd=CHECKOUT, check=False, timeout=30, stdout=PIPE
    )
    assert (done.returncode, done.stdout) == (status, b"")


def test_a_list_that_nobody_takes_is_no_traceback() -> None:
    command = shlex.join([sys.executable, "-m", "trio_stream", "--list"])
    done = subprocess.run(
        ["bash", "-c", f"{command} > /dev/full"],
        cwd=CHECKOUT,
        check=False,
        timeout=30,
        stderr=PIPE,
    )
    assert done.stderr == b"nothing can be told on stdout: No space left on device\n"
    assert done.returncode == 0


# Targets...


@pytest.mark.parametrize(
    "target",
    ["package.module:app", "package.module", "package/module.py", "package/module.py:app"],
)
def test_a_target_is_found(
    directory: Path, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    Path("package").mkdir()
    Path("package/module.py").write_text(SAYS_WHERE)
    assert main([target]) == 0
    assert main([target, "--host", "::1", "--port", "0"]) == 0
    assert capsys.readouterr() == ("127.0.0.1 8000\n::1 0\n", "")


@pytest.mark.usefixtures("fresh_imports")
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_found_and_listed(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs: list[tuple[list[str], int]] = []

    def run(_app: App, *, host: list[str], port: int, **options: object) -> int:
        runs.append((host, port))
        return 0

    monkeypatch.chdir(CHECKOUT)
    monkeypatch.setattr(App, "run", run)
    assert main([path.stem, "--port", "0"]) == 0
    assert runs == [(["127.0.0.1"], 0)]
    assert main(["--list"]) == 0
    first_line = path.read_text().splitlines()[0].strip('"')
    listed = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert [path.stem, first_line] in listed


def test_another_attribute_is_found(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("server.py").write_text(SAYS_WHERE.replace("app = ", "other = "))
    assert main(["server:other"]) == main(["server.py:other"]) == 0
    assert capsys.readouterr() == ("127.0.0.1 8000\n" * 2, "")


def test_a_file_imports_what_lies_beside_it(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("deep").mkdir()
    Path("deep/beside_it.py").write_text(SAYS_WHERE)
    Path("deep/server.py").write_text("from beside_it import app as app")
    assert main(["deep/server.py"]) == 0
    assert capsys.readouterr() == ("127.0.0.1 8000\n", "")


def test_a_file_does_not_take_the_place_of_a_module_that_is_in_use(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("socket.py").write_text(SAYS_WHERE)
    assert main(["socket.py"]) == 0
    assert sys.modules["socket"] is socket


# Files and folders...


@pytest.fixture
def shared(directory: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is shared, without serving it, in a directory with all sorts of things."""
    for folder in ("photos", "bundle", "mod", "song", "examples", "pack.age", "folder.py"):
        Path(folder).mkdir()
    for file in ("bundle/__init__.py", "pack/__init__.py", "mod.py"):
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).write_text("raise AssertionError('it was imported')")
    for file in ("a:b", "photos/app.py:app", "report.pdf", "no_module", "pack/age.txt"):
        Path(file).write_text("text")
    names: list[str] = []

    def run(share: Share, **options: object) -> int:
        names.append(share.name)
        return 0

    monkeypatch.setattr(Share, "run", run)
    return names


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("photos", "photos"),
        ("photos/", "photos"),
        ("report.pdf", "report.pdf"),
        ("no_module", "no_module"),
        ("a:b", "a:b"),
        ("folder.py", "folder.py"),
        ("photos/app.py:app", "app.py:app"),
        ("pack/age.txt", "age.txt"),
        ("pack.age", "pack.age"),
        ("./song", "song"),
        ("./mod", "mod"),
        ("./bundle", "bundle"),
    ],
)
def test_a_file_or_a_folder_is_shared(
    shared: list[str], capsys: pytest.CaptureFixture[str], target: str, name: str
) -> None:
    assert main([target]) == 0
    assert shared == [name]
    assert capsys.readouterr() == ("", "")


def test_the_current_directory_is_shared(directory: Path, shared: list[str]) -> None:
    assert main(["."]) == main([str(directory)]) == 0
    assert shared == [directory.name] * 2


def test_a_module_that_runs_is_no_file(
    shared: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("__main__").write_text("text")
    monkeypatch.setattr("__main__.__spec__", None)  # as when a script is run
    assert main(["__main__"]) == 2
    assert shared == []
    assert main(["./__main__"]) == 0
    assert shared == ["__main__"]


def test_what_cannot_be_looked_at_is_not_there(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "x" * 300
    assert main([f"./{name}"]) == 2
    assert "there is no file, folder, module or example './xxx" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["secret/app.py", "secret/app.py:app", "./secret/file"])
def test_what_may_not_be_looked_at_is_a_usage_error(
    directory: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    target: str,
) -> None:
    def deny(path: Path, **_: object) -> object:  # who is root may look at everything
        if "secret" in path.parts:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path)

    stat = Path.stat
    monkeypatch.setattr(Path, "stat", deny)
    assert main([target]) == 2
    message = capsys.readouterr().err
    assert message.startswith("trio-stream: ")
    assert message.count("\n") == 1


@pytest.mark.parametrize("target", ["nothing", "nothing.py", "./nothing"])
def test_a_current_directory_that_is_gone_is_a_usage_error(
    directory: Path, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    gone = directory / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    try:
        assert main([target]) == 2
    finally:
        os.chdir(directory)
    assert capsys.readouterr().err.startswith("trio-stream: there is no file")


@pytest.mark.parametrize("target", ["mod", "bundle"])
def test_an_example_or_a_module_comes_first(
    shared: list[str], capsys: pytest.CaptureFixture[str], target: str
) -> None:
    assert main([target]) == 2
    assert shared == []
    assert "it was imported" in capsys.readouterr().err


def test_an_example_comes_before_a_folder(shared: list[str]) -> None:
    app = _targets.find_app("song")
    assert not isinstance(app, Share)
    assert shared == []


def test_scripts_in_a_directory_called_examples_are_none(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("examples").mkdir()
    Path("examples/own.py").write_text("raise AssertionError('it was imported')")
    assert main(["own"]) == 2
    assert "there is no file, folder, module or example 'own'" in capsys.readouterr().err


def test_a_module_without_an_app_may_be_a_folder_to_share(
    shared: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bundle/__init__.py").write_text("")
    assert main(["bundle"]) == 2
    assert "; to share what has that name, say './bundle'" in capsys.readouterr().err


async def test_a_folder_is_served_and_the_log_tells_what_is_sent(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    async with run_python("-m", "trio_stream", str(tmp_path), "--port", "0") as program:
        port = await program.read_port()
        head, page = await download(port, "/")
        assert head.startswith("HTTP/1.1 200 ")
        assert b'href="./notes.txt"' in page
        head, body = await download(port, "/notes.txt")
        assert body == b"notes"
        program.process.send_signal(signal.SIGINT)
        status, log = await program.wait()
    assert status == 0
    assert "INFO trio_stream: sent: notes.txt to 127.0.0.1, 5 bytes\n" in log


async def test_a_terminal_shows_what_is_being_sent(tmp_path: Path) -> None:
    with (tmp_path / "film.webm").open("wb") as file:
        file.truncate(50_000_000)
    async with run_in_terminal("-m", "trio_stream", str(tmp_path), "--port", "0") as program:
        port = await program.read_port()
        async with await open_download(port, "/film.webm"):
            await program.read_until(r"film\.webm .*B of 50 MB .*/s .*sending", end="")
        await program.read_until(r"stopped by the client: film\.webm to 127.0.0.1, after .* MB")
        async with await open_download(port, "/film.webm?download"):
            await program.read_until(r"after (?s:.*)film\.webm .*/s .*sending", end="")
            program.process.send_signal(signal.SIGINT)
            program.process.send_signal(signal.SIGTERM)
            await program.read_until(r"stopped by the server: film\.webm to 127.0.0.1, after .* MB")
        assert await program.process.wait() == 1
        output = await program.read_rest()
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l")  # the cursor is there again


async def test_it_works_without_the_libraries_of_the_extra(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    program_text = (
        "import sys\n"
        "for name in ('rich', 'segno', 'zipstream'): sys.modules[name] = None\n"
        "from trio_stream.__main__ import main\n"
        "sys.exit(main())"
    )
    async with run_in_terminal("-c", program_text, str(tmp_path), "--port", "0") as program:
        port = await program.read_port()
        _, page = await download(port, "/?zip")
        assert b"notes.txt" in page
        assert b"?zip" not in page
        _, body = await download(port, "/notes.txt")
        assert body == b"notes"
        await program.read_until("INFO trio_stream: sent: notes.txt to 127.0.0.1, 5 bytes")


# What can't be done...

FILES = {
    "no_syntax.py": "import trio\n\ndef f(:\n",
    "no_import.py": "\nimport trio_stream.nothing\n",
    "raises.py": "\n\nraise ValueError('two\\nlines')\n",
    "says_no_more.py": "assert False",
    "misuses.py": "import os\nfrom trio_stream import Config\n\nlimit = Config(send_budget=0)\n",
    "asks.py": "import os\nURL = os.environ['DATABASE_URL of nobody']\n",
    "exits.py": "import sys\nsys.exit('not today')\n",
    "runs.py": "from trio_stream import App\n\napp = App()\napp.run(port=0)\n",
    "empty.py": "",
    "named.py": "from trio_stream import App\nserver = App()\napp = 'text'\n",
    "forbidden.py": SAYS_WHERE.replace(
        "print(", "raise PermissionError(13, 'Not for you', (host[0], port)) #"
    ),
}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("no_syntax.py", "can't import 'no_syntax.py': SyntaxError: invalid syntax; see line 3 of"),
        ("no_syntax:app", "can't import 'no_syntax': SyntaxError: invalid syntax; see line 3 of"),
        ("no_import:app", "can't import 'no_import': ModuleNotFoundError: No module named"),
        ("no_import.py", "see line 2 of {directory}/no_import.py"),
        ("raises.py", "ValueError: two lines; see line 3 of {directory}/raises.py"),
        # Where a library raises for a mistake, the line that calls it is meant.
        ("runs.py", 'app.run() needs an `if __name__ == "__main__":` before it; see line 4 of'),
        ("misuses.py", "not 0; see line 4 of {directory}/misuses.py"),
        ("asks:app", "KeyError: 'DATABASE_URL of nobody'; see line 2 of {directory}/asks.py"),
        ("says_no_more:app", "can't import 'says_no_more': AssertionError; see line 1 of"),
        ("exits:app", "can't import 'exits': SystemExit: not today; see line 2 of"),
        ("nothing.py", "there is no file 'nothing.py'; --list shows the examples"),
        ("nothing", "there is no file, folder, module or example 'nothing'; --list shows the"),
        ("no.thing:app", "there is no file, folder, module or example 'no.thing'"),
        ("empty.thing:app", "there is no file, folder, module or example 'empty.thing'"),
        (":app", "there is no file, folder, module or example ''"),
        ("..up:app", "there is no file, folder, module or example '..up'"),
        ("empty:app", "'empty' has no attribute 'app'; it needs an `app = App()`"),
        ("named.py:nothing", "'named.py' has no attribute 'nothing'; name one of its apps: server"),
        ("named.py", "'app' in 'named.py' is a str, not an App; name one of its apps: server"),
        ("--port 65536", "'65536' is not a port (0 to 65535)"),
        ("--port -1", "'-1' is not a port"),
        ("--port http", "'http' is not a port"),
        ("fifo", "can't share 'fifo': not a regular file"),
        ("closed/file", "there is no file, folder, module or example 'closed/file'"),
        ("--hast", "unrecognized arguments: --hast; --help shows what there is"),
        ("forbidden.py --port 80", "can't serve on '127.0.0.1', port 80: Not for you; choose ano"),
        # Reserved for documentation, so no machine has it: RFC 5737.
        ("hello --host 192.0.2.1", "can't serve on '192.0.2.1', port 8000: "),
        ("hello --host a..b", "can't serve on 'a..b', port 8000: "),
        ("hello --host a..b --host b --port 7", "can't serve on 'a..b', port 7: "),
        ("hello --host 127.0.0.1:0 --host 192.0.2.1:9", "can't serve on '192.0.2.1', port 9: "),
        ("--host a:65536", "65536 is not a port (0 to 65535): 'a:65536'"),
        ("--unix-mode 888", "'888' is not an octal mode such as 660"),
        ("--unix-mode 7777", "'7777' is not an octal mode"),
        ("--fd x", "'x' is not a descriptor number such as 3"),
        ("--fd -1", "argument --fd: "),
        ("--unix a --port 0", "--unix and --fd can't be combined with --host and --port: choose"),
        ("--qr --unix a", "--qr is for an address that a phone can use, unlike --unix"),
        ("--unix-mode 600", "--unix-mode needs a --unix"),
        ("--fd 3 --host ::1", "--unix and --fd can't be combined with --host and --port: choose"),
        (
            "hello --unix empty.py",
            "'empty.py': there is a file that is not a socket; remove it, or",
        ),
        ("hello --unix no/file", "'no/file': No such file or directory; choose another --unix, in"),
        ("hello --fd 9998 --fd 9999", "can't serve on descriptor 9998: Bad file descriptor; --fd"),
        ("hello --fd 9998 --unix socket", "can't serve on descriptor 9998: Bad file descriptor; -"),
        ("hello --unix=", "argument --unix: the path is empty; --help shows what there is"),
        ("hello --host=", "argument --host/--bind: the host is empty; * is for all; --help shows"),
        (f"hello --unix {'x' * 200}", "xxx': AF_UNIX path too long; choose another --unix"),
    ],
)
def test_a_usage_error_is_one_line(
    directory: Path, capsys: pytest.CaptureFixture[str], args: str, message: str
) -> None:
    for name, text in FILES.items():
        Path(name).write_text(text)
    Path("examples").symlink_to(CHECKOUT / "examples")
    os.mkfifo("fifo")
    assert main(args.split()) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("trio-stream: ")
    assert message.format(directory=directory) in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_port_in_use_is_a_usage_error(workers: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        options = ("--port", port, "--workers", workers)
        async with run_python("-m", "trio_stream", "hello", *options) as program:
            status, errors = await program.wait()
    assert status == 2
    assert re.fullmatch(
        rf"trio-stream: can't serve on '127.0.0.1', port {port}: .*; end the program .*\n",
        errors,
    )


def test_what_fails_when_it_is_bound_is_not_about_the_address(directory: Path) -> None:
    Path("offline.py").write_text(
        "from contextlib import asynccontextmanager\n"
        "from trio_stream import App\n"
        "app = App()\n"
        "@app.lifespan\n"
        "@asynccontextmanager\n"
        "async def connect():\n"
        "    raise ConnectionRefusedError('no database')\n"
        "    yield\n"
    )
    with pytest.raises(ConnectionRefusedError, match="no database"):
        main(["offline.py", "--port", "0"])


@pytest.mark.parametrize(
    ("args", "where"),
    [
        ("", {"host": ["127.0.0.1"], "port": 8000}),
        ("--port 0", {"port": 0}),
        ("--host ::1 --bind a:7 --port 80", {"host": ["::1", "a:7"], "port": 80}),
        ("--fd 3 --fd 4", {"fds": [3, 4], "unix": None}),
        ("--unix a --fd 5", {"unix": "a", "unix_mode": 0o660, "fds": [5]}),
        ("--unix a --unix-mode 0600", {"unix": "a", "unix_mode": 0o600}),
    ],
)
def test_options_say_where_it_serves(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: str,
    where: dict[str, object],
) -> None:
    given: dict[str, object] = {}

    def run(_app: App, **options: object) -> int:
        given.update(options)
        return 0

    monkeypatch.setattr(App, "run", run)
    assert main(args.split()) == 0
    assert given.items() >= where.items()
    assert capsys.readouterr().out == ""  # nothing is said before it serves


async def test_it_serves_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with run_python("-m", "trio_stream", "--unix", str(path)) as program:
        await program.read_until(
            f"curl .* --unix-socket {path} http://localhost/song.wav(?s:.*)Serving on unix:{path}"
        )
        async with await trio.open_unix_socket(path):
            status, errors = await run_and_wait("-m", "trio_stream", "--unix", str(path))
        program.process.send_signal(signal.SIGTERM)
        assert (await program.wait())[0] == 0
    assert status == 2
    assert "Address already in use; end the server that uses it, or choose another" in errors
    assert not path.exists()


# As a program that systemd starts, or another one.
STARTED_WITH_SOCKETS = """
import os, socket, sys
from trio_stream.__main__ import main

given = socket.create_server(("127.0.0.1", 0))
os.dup2(given.fileno(), {fd})
os.environ |= {env!r} | {{"LISTEN_PID": str(os.getpid())}}
sys.exit(main({args!r}))
"""


@pytest.mark.parametrize(
    ("env", "args", "fd"),
    [
        ({"LISTEN_FDS": "1"}, ["hello"], 3),
        ({"LISTEN_FDS": "1"}, ["hello", "--fd", "3"], 3),
        ({}, ["hello", "--fd", "3"], 3),
        ({}, ["--fd", "3"], 3),
        ({}, ["hello", "--fd", "0"], 0),
        ({}, ["hello", "--fd", "0", "--workers", "2"], 0),
    ],
)
async def test_it_serves_sockets_that_were_opened_for_it(
    env: dict[str, str], args: list[str], fd: int
) -> None:
    code = STARTED_WITH_SOCKETS.format(env=env, args=args, fd=fd)
    async with run_python("-c", code) as program:
        head, _ = await download(await program.read_port(), "/")
        program.process.send_signal(signal.SIGTERM)
        status, _ = await program.wait()
        output = await program.read_rest()
    assert head.startswith("HTTP/1.1 200 ")
    assert status == 0
    assert output.count("Serving on") == 1


async def test_sockets_of_systemd_are_instead_of_an_address() -> None:
    args = ["hello", "--port", "0"]
    code = STARTED_WITH_SOCKETS.format(env={"LISTEN_FDS": "1"}, args=args, fd=3)
    status, log = await run_and_wait("-c", code)
    assert status == 2
    assert "--host and --port can't be combined with the sockets that systemd passes" in log


def test_a_qr_code_needs_a_library(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trio_stream._command_line.HAVE_QR", False)
    assert main(["--qr"]) == 2
    message = "trio-stream: --qr needs a library: pip install 'trio-stream[share]'\n"
    assert capsys.readouterr() == ("", message)


# What it tells...


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr() == (f"trio-stream {__version__}\n", "")


def test_list_shows_the_examples_of_the_checkout(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trio_stream._targets.CHECKOUT", directory)
    Path("pyproject.toml").touch()
    Path("examples").mkdir()
    Path("examples/aa.py").write_text('"""First line.\n\nSecond."""\nraise ValueError')
    Path("examples/bb.py").write_text("def f(:")
    Path("examples/cc.py").write_text("")
    Path("examples/_dd.py").write_text('"""Not an example."""')
    assert main(["--list"]) == 0
    lines = [line.split(None, 1) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["aa", "First line."],
        ["bb", "(can't be read: invalid syntax, line 1)"],
        ["cc"],
    ]


def test_list_says_so_if_there_are_none(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trio_stream._targets.CHECKOUT", directory)
    assert main(["--list"]) == 0
    assert capsys.readouterr().out.startswith("There are no examples here")
