"""What is shown of transfers: in the log, in a terminal, or not at all."""

from __future__ import annotations

import errno
import io
import logging
import re
import sys
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING

import pytest
import trio
from rich.console import Console

from trio_stream import App, Request, Response, _progress
from trio_stream._live import LiveDisplay, open_live_display
from trio_stream._progress import LogDisplay, Transfers
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from trio.testing import MockClock

    from trio_stream._transfer import Transfer

LOOK = 0.25  # seconds from one to the next


class Recorder:
    """A display that remembers what it is shown."""

    def __init__(self) -> None:
        self.looks: list[list[tuple[str, str, float]]] = []
        self.over: list[str] = []

    def update(self, under_way: Sequence[Transfer], over: Sequence[Transfer]) -> None:
        assert all(transfer.is_begun and not transfer.is_over for transfer in under_way)
        assert all(transfer.is_begun and transfer.is_over for transfer in over)
        self.looks.append([(it.state, it.size, round(it.speed)) for it in under_way])
        self.over += [transfer.summary for transfer in over]

    @contextmanager
    def open(self) -> Iterator[Recorder]:
        yield self

    def now(self) -> tuple[str, str, float]:
        """State, size and speed of the only transfer under way."""
        (only,) = self.looks[-1]
        return only


@pytest.fixture
def display() -> Recorder:
    return Recorder()


@pytest.fixture
def app(nursery: trio.Nursery, display: Recorder) -> App:
    """Answers with 10 kB called `film`, and with what each ending needs; it is shown by `display`.

    To receive the head, a client empties its window, so that the transport takes another one.
    """
    app = App()
    transfers = Transfers(display.open)
    nursery.start_soon(transfers.show)

    def route(path: str) -> Callable[[Callable[[Response], object]], None]:
        def register(handler: Callable[[Response], object]) -> None:
            async def handle(res: Response, req: Request) -> None:
                transfers.add("film", res, req)
                await handler(res)  # type: ignore[misc]

            app.get(path, handle)

        return register

    @route("/film")
    async def film(res: Response) -> None:
        for _ in range(10):
            if not (await res.send_chunk(bytes(1000), 10_000)).ok:
                break

    @route("/part")
    async def part(res: Response) -> None:
        await res.write_status(206).send_chunk(bytes(2000), 2000)

    @route("/archive")
    async def archive(res: Response) -> None:
        await res.send_chunk(bytes(1000))
        await trio.sleep(5)

    @route("/cancelled")
    async def cancelled(res: Response) -> None:
        await res.send_chunk(bytes(1000), 2000)
        res.cancel_scope.cancel()
        await trio.sleep(inf)

    @route("/raises")
    async def raises(res: Response) -> None:
        await res.send_chunk(bytes(1000), 2000)
        raise ValueError

    @route("/incomplete")
    async def incomplete(res: Response) -> None:
        await res.send_chunk(bytes(1000), 2000)

    @route("/unknown")
    async def unknown(res: Response) -> None:
        res.write_status(404).end("no")

    @route("/known")
    async def known(res: Response) -> None:
        res.write_status(304).end_without_body()

    @route("/fails")
    async def fails(res: Response) -> None:
        raise ValueError

    return app


# What it does...


async def test_it_is_sent_and_the_client_waited_for(
    autojump_clock: MockClock, app: App, display: Recorder
) -> None:
    await trio.sleep(LOOK / 2)  # so that the looks come in between
    async with open_client(app, window=2000) as client:
        response = await client.get("/film")
        await trio.sleep(1)
        assert display.now()[:2] == ("sending", "3.9 kB of 10 kB")
        await trio.sleep(LOOK)
        assert display.now()[:2] == ("waiting", "3.9 kB of 10 kB")
        client.window = 5000
        await trio.sleep(LOOK)
        assert display.now()[:2] == ("sending", "6.9 kB of 10 kB")
        await trio.sleep(1)
        assert display.now()[:2] == ("waiting", "6.9 kB of 10 kB")
        assert display.over == []
        await response.read()
        await trio.sleep(LOOK)
        assert display.looks[-1] == []
        assert display.over == ["sent: film to ?, 10 kB in 3 s, 3.8 kB/s"]
        await trio.sleep(1)
    assert len(display.over) == 1


async def test_its_speed_is_that_of_the_last_seconds(
    autojump_clock: MockClock, app: App, display: Recorder
) -> None:
    await trio.sleep(LOOK / 2)  # so that the looks come in between
    async with open_client(app, window=2000) as client:
        response = await client.get("/film")
        await trio.sleep(30)
        assert display.now() == ("waiting", "3.9 kB of 10 kB", 0)
        for _ in range(16):
            await response.receive_some(100)
            await trio.sleep(LOOK)
        assert display.now()[::2] == ("sending", 400)
        await trio.sleep(10)
        assert display.now()[::2] == ("waiting", 0)


async def test_what_has_no_length_has_no_total(
    autojump_clock: MockClock, app: App, display: Recorder
) -> None:
    await trio.sleep(LOOK / 2)
    async with open_client(app) as client:
        response = await client.get("/archive")
        await trio.sleep(1)
        assert display.now()[:2] == ("sending", "1.0 kB")
        # Nobody waits for the client: it has all that there is.
        await trio.sleep(2)
        assert display.now()[0] == "sending"
        await response.read()
        await trio.sleep(LOOK)
    assert display.over == ["sent: film to ?, 1.0 kB in 5 s, 195 bytes/s"]


@pytest.mark.parametrize(
    ("target", "what"), [("/film", "film to ?, 10 kB"), ("/part", "part of film to ?, 2.0 kB")]
)
async def test_what_is_over_soon_is_told_at_once(
    autojump_clock: MockClock, app: App, display: Recorder, target: str, what: str
) -> None:
    async with open_client(app) as client:
        await (await client.get(target)).read()
        await trio.sleep(LOOK)
    assert not any(display.looks)
    assert display.over == [f"sent: {what}"]


@pytest.mark.parametrize("target", ["/unknown", "/known", "/fails", "HEAD /film", "HEAD /archive"])
async def test_what_sends_nothing_of_it_is_not_shown(
    autojump_clock: MockClock,
    app: App,
    display: Recorder,
    target: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_client(app) as client:
        response = await client.request("GET" if target[0] == "/" else "HEAD", target.split()[-1])
        await response.read()
        await trio.sleep(10)
    assert len(display.looks) >= 40
    assert not any(display.looks)
    assert display.over == []
    assert len(caplog.records) == (target == "/fails")
    caplog.clear()


# How it ends...


@pytest.mark.parametrize(
    ("target", "summary"),
    [
        ("/cancelled", "stopped by the server: film to ?, after 1.0 kB of 2.0 kB"),
        ("/raises", "failed: film to ?, after 1.0 kB of 2.0 kB"),
        ("/incomplete", "failed: film to ?, after 1.0 kB of 2.0 kB"),
    ],
)
async def test_it_tells_how_the_server_ends_it(
    autojump_clock: MockClock,
    app: App,
    display: Recorder,
    target: str,
    summary: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_client(app) as client:
        await client.get(target)
        await trio.sleep(LOOK)
    assert display.over == [summary]
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == (target == "/raises")
    caplog.clear()


async def test_it_tells_that_the_client_goes(
    autojump_clock: MockClock, app: App, display: Recorder
) -> None:
    async with open_client(app, window=2000) as client:
        await client.get("/film")
        await trio.testing.wait_all_tasks_blocked()
        client.vanish()
        await trio.sleep(LOOK)
    assert display.over == ["stopped by the client: film to ?, after 3.9 kB of 10 kB"]


async def test_it_tells_that_the_client_stalls(
    autojump_clock: MockClock, app: App, display: Recorder
) -> None:
    async with open_client(app, window=2000) as client:
        await client.get("/film")
        await trio.sleep(61)
    assert display.over == [
        "given up, as the client took nothing more: film to ?, after 3.9 kB of 10 kB"
    ]


async def test_what_ends_with_the_display_is_told(autojump_clock: MockClock) -> None:
    display = Recorder()
    transfers = Transfers(display.open)
    app = App()

    @app.get("/")
    async def film(res: Response, req: Request) -> None:
        transfers.add("film", res, req)
        await res.send_chunk(bytes(1000), 2000)
        await trio.sleep(inf)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(transfers.show)
        async with open_client(app) as client:
            await client.get("/")
        nursery.cancel_scope.cancel()
    assert display.over == ["stopped by the client: film to ?, after 1.0 kB of 2.0 kB"]


async def test_after_the_terminal_the_log_has_the_rest(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Gone(Recorder):
        def update(self, under_way: Sequence[Transfer], over: Sequence[Transfer]) -> None:
            if under_way:
                raise OSError(errno.EIO, "Input/output error")

    caplog.set_level(logging.INFO, "trio_stream")
    transfers = Transfers(Gone().open)
    app = App()

    @app.get("/")
    async def film(res: Response, req: Request) -> None:
        transfers.add("film", res, req)
        await res.send_chunk(bytes(5000), 5000)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(transfers.show)
        async with open_client(app, window=1000) as client:
            for _ in range(3):
                response = await client.get("/")
                await trio.sleep(2 * LOOK)
                await response.read()
                await trio.sleep(2 * LOOK)
            assert transfers._transfers == []
        nursery.cancel_scope.cancel()
    messages = [r.getMessage() for r in caplog.records if r.name == "trio_stream"]
    assert len(messages) == 6
    assert [it for it in messages if it.startswith("sending")] == 3 * ["sending: film to ?, 5.0 kB"]


# The log...


async def test_the_log_has_the_begin_and_the_end(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "trio_stream")
    app = App()
    transfers = Transfers()

    @app.get("/:name")
    async def send(res: Response, req: Request) -> None:
        transfers.add(req.params["name"], res, req)
        if req.params["name"].startswith("zip"):
            await res.send_chunk(bytes(5000))
        else:
            await res.send_chunk(bytes(5000), 5000)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(transfers.show)
        for target, window in (
            ("/long", 1000),
            ("/zip", 1000),
            ("/short", 10_000),
            ("/%1b%5b2J%0d%0aroot:%20%25s%20%5bred%5d%c2%9b%e2%80%ae", 10_000),
        ):
            async with open_client(app, window=window) as client:
                response = await client.get(target)
                await trio.sleep(3)
                await response.read()
                await trio.sleep(LOOK)
        nursery.cancel_scope.cancel()
    assert [r.getMessage() for r in caplog.records if r.name == "trio_stream"] == [
        "sending: long to ?, 5.0 kB",
        "sent: long to ?, 5.0 kB in 3 s, 1.5 kB/s",
        "sending: zip to ?",
        "sent: zip to ?, 5.0 kB in 3 s, 1.5 kB/s",
        "sent: short to ?, 5.0 kB",
        "sent: \ufffd[2J\ufffd\ufffdroot: %s [red]\ufffd\ufffd to ?, 5.0 kB",
    ]


@pytest.mark.parametrize(
    ("is_terminal", "term", "has_rich", "has_access_log", "is_live"),
    [
        (True, "xterm", True, False, True),
        (False, "xterm", True, False, False),
        (True, "dumb", True, False, False),
        (True, "xterm", False, False, False),
        (True, "xterm", True, True, False),
    ],
)
def test_live_lines_need_a_terminal_for_themselves_and_a_library(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    is_terminal: bool,
    term: str,
    has_rich: bool,
    has_access_log: bool,
    is_live: bool,
) -> None:
    caplog.set_level(logging.INFO if has_access_log else logging.WARNING, "trio_stream.access")

    class Output(io.StringIO):
        def isatty(self) -> bool:
            return is_terminal

    monkeypatch.setattr(sys, "stdout", Output())
    monkeypatch.setenv("TERM", term)
    if not has_rich:
        monkeypatch.setitem(sys.modules, "rich.console", None)
        monkeypatch.delitem(sys.modules, "trio_stream._live")
    with _progress._open_display() as display:
        assert isinstance(display, LiveDisplay if is_live else LogDisplay)


def test_without_a_stdout_there_are_no_live_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with _progress._open_display() as display:
        assert isinstance(display, LogDisplay)


# A terminal...


class Terminal(io.StringIO):
    """What a terminal is sent."""

    encoding = "utf-8"

    def take(self) -> str:
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


def make_console(terminal: Terminal, width: int = 120) -> Console:
    return Console(
        file=terminal, force_terminal=True, width=width, height=10, color_system=None, _environ={}
    )


class Fake:
    """A transfer in any state."""

    name = "film"
    client = "192.0.2.7"
    sent = 2500
    total: int | None = 10_000
    size = "2.5 kB of 10 kB"
    speed = 1000.0
    state = "sending"
    summary = "sent: film"
    is_complete = True

    def __init__(self, **attributes: object) -> None:
        vars(self).update(attributes)


def show(display: LiveDisplay, under_way: Sequence[Fake] = (), over: Sequence[Fake] = ()) -> None:
    display.update(under_way, over)  # type: ignore[arg-type]


CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in CONTROLS.sub("", text).splitlines() if line.strip()]


def test_each_has_a_line_with_a_bar(terminal: Terminal) -> None:
    display = LiveDisplay(make_console(terminal))
    show(display, [Fake(), Fake(name="zip", total=None, size="2.5 kB", state="waiting")])
    first, second = lines(terminal.take())
    assert re.fullmatch(
        r"film +192\.0\.2\.7  ━{5,6}[╸╺]?━* *  2\.5 kB of 10 kB  1\.0 kB/s  sending", first
    )
    assert re.fullmatch(r"zip +192\.0\.2\.7  ━+ +2\.5 kB  1\.0 kB/s  waiting", second)
    assert len(first) == len(second) <= 120


def test_a_narrow_terminal_has_no_room_for_the_client(terminal: Terminal) -> None:
    display = LiveDisplay(make_console(terminal, width=60))
    show(display, [Fake(name="a name that is much too long for this")])
    (line,) = lines(terminal.take())
    assert line.startswith("a n")
    assert "…" in line
    assert "192.0.2.7" not in line
    assert line.endswith("sending")


@pytest.mark.parametrize(("height", "most"), [(10, 8), (3, 1), (100, 20)])
def test_too_many_have_a_line_together(terminal: Terminal, height: int, most: int) -> None:
    console = make_console(terminal)
    console.height = height
    display = LiveDisplay(console)
    show(display, [Fake(name=str(number)) for number in range(5000)])
    shown = lines(terminal.take())
    assert [line.split()[0] for line in shown] == [*map(str, range(most)), "and"]
    assert shown[-1].strip() == f"and {5000 - most:,} more"


def test_what_is_over_stays_above_the_lines(terminal: Terminal) -> None:
    display = LiveDisplay(make_console(terminal))
    show(display)
    assert terminal.take() == ""
    show(display, [Fake()])
    terminal.take()
    show(display, [Fake(name="other")], [Fake()])
    over, other = lines(terminal.take())[-2:]
    assert over == "sent: film"
    assert other.startswith("other ")
    show(display, [], [Fake(summary="sent: other")])
    assert lines(terminal.take())[-1] == "sent: other"
    display.close()
    show(display)
    display.close()
    assert terminal.take() == ""


def test_the_cursor_comes_back(terminal: Terminal) -> None:
    display = LiveDisplay(make_console(terminal))
    show(display, [Fake()])
    assert "\x1b[?25l" in terminal.take()
    display.close()
    assert "\x1b[?25h" in terminal.take()


def test_names_are_no_markup(terminal: Terminal) -> None:
    display = LiveDisplay(make_console(terminal))
    name = "[bold]x[/] [link=http://x]:smile: 1.5"
    show(display, [Fake(name=name)], [Fake(summary=name)])
    text = terminal.take()
    assert {name, f"{name} "} <= {line[: len(name) + 1] for line in lines(text)}
    assert "\x1b]" not in text


def test_names_are_written_as_the_terminal_can(terminal: Terminal) -> None:
    terminal.encoding = "ascii"
    display = LiveDisplay(make_console(terminal, width=60))
    show(display, [Fake(name="café, and a lot more than fits")], [Fake(summary="東京")])
    text = terminal.take()
    assert text.isascii()
    assert {"??", "caf?,"} == {line.split()[0] for line in lines(text)}


def test_a_long_line_is_left_to_the_terminal(terminal: Terminal) -> None:
    display = LiveDisplay(make_console(terminal, width=60))
    show(display, [], [Fake(summary="x" * 100)])
    assert terminal.take() == "x" * 100 + "\n"


def test_the_log_appears_above_the_lines(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Terminal, "isatty", lambda self: True)
    monkeypatch.setenv("TERM", "xterm")
    errors = Terminal()
    monkeypatch.setattr(sys, "stderr", errors)
    handler = logging.StreamHandler()
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        with open_live_display(terminal) as display:
            show(display, [Fake()])
            terminal.take()
            root.error("[red]%s", "trouble")
            above, line = lines(terminal.take())[-2:]
        root.error("after")
    finally:
        root.removeHandler(handler)
    assert above == "[red]trouble"
    assert line.startswith("film ")
    assert errors.take() == "after\n"
