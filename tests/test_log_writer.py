"""Logs that are written by threads, to pipes that somebody reads, or nobody."""

from __future__ import annotations

import io
import json
import logging
import logging.config
import re
import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from trio_stream import App, _line_writer, _log_writer
from trio_stream._access_log import combined_line
from trio_stream._access_log import logger as access_logger
from trio_stream._line_writer import LineWriter
from trio_stream._log_writer import _LINES, AccessLogHandler, BackgroundHandler, open_log
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO
    from pathlib import Path

    import trio

    from trio_stream._log_writer import AccessLog


def record(message: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("x", logging.INFO, "", 0, message, args, None)


def read_to_end(reader: FileIO, writer: FileIO) -> bytes:
    writer.close()
    return reader.read()


@contextmanager
def lines_to(file: FileIO) -> Iterator[AccessLogHandler]:
    with closing(LineWriter(file.fileno())) as writer:
        yield AccessLogHandler(writer, combined_line)


def test_records_become_lines(pipe: tuple[FileIO, FileIO]) -> None:
    with closing(LineWriter(pipe[1].fileno())) as writer:
        BackgroundHandler(writer).handle(record("one %d", 1))
    assert read_to_end(*pipe) == b"one 1\n"


def test_a_mistake_in_a_message_is_told_as_ever(
    pipe: tuple[FileIO, FileIO], capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(LineWriter(pipe[1].fileno())) as writer:
        BackgroundHandler(writer).handle(record("%d", "no number"))
    assert "--- Logging error ---" in capsys.readouterr().err


async def answered(handler: logging.Handler, *paths: str) -> None:
    """Log answers with `handler` beside what handlers there are."""
    with _log_writer._logging(access_logger, logging.INFO, handler):
        async with open_client(App()) as client:
            for path in paths:
                response = await client.get(path)
                await response.read()


FIRST = rb'- - - \[[^]]+\] "GET /first HTTP/1\.1" 404 10 "-" "-" 0\.000000 0 done [0-9a-f]{12}-1\n'
SECOND = FIRST.replace(b"first", b"second").replace(b"-1", b"-2")


async def test_responses_become_lines(
    pipe: tuple[FileIO, FileIO], autojump_clock: trio.testing.MockClock
) -> None:
    with lines_to(pipe[1]) as handler:
        await answered(handler, "/first", "/second")
    assert re.fullmatch(FIRST + SECOND, read_to_end(*pipe))


async def test_others_may_see_records_of_responses_as_well(
    pipe: tuple[FileIO, FileIO],
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
) -> None:
    with (
        _log_writer._logging(access_logger, logging.INFO, caplog.handler),
        lines_to(pipe[1]) as handler,
    ):
        await answered(handler, "/first", "/second")
    assert re.fullmatch(FIRST + SECOND, read_to_end(*pipe))
    assert [vars(record)["target"] for record in caplog.records] == ["/first", "/second"]


async def test_a_record_of_something_else_does_not_end_the_log(
    pipe: tuple[FileIO, FileIO],
    capsys: pytest.CaptureFixture[str],
    autojump_clock: trio.testing.MockClock,
) -> None:
    with lines_to(pipe[1]) as handler:
        handler.handle(record("no response"))
        assert "KeyError" in capsys.readouterr().err
        await answered(handler, "/first", "/second")
    assert re.fullmatch(FIRST + SECOND, read_to_end(*pipe))


def test_what_is_said_in_json_is_json(pipe: tuple[FileIO, FileIO]) -> None:
    _, make_note = _LINES["json"]
    with (
        patch.object(_line_writer, "_MAX_QUEUED", -1),
        closing(LineWriter(pipe[1].fileno(), make_note)) as writer,
    ):
        writer.put("a line")
    text = "1 lines of this log were dropped: nobody read it fast enough"
    assert json.loads(read_to_end(*pipe)) == {"message": text}


@pytest.mark.parametrize("of_logger", [True, False])
async def test_filters_are_obeyed(
    pipe: tuple[FileIO, FileIO], of_logger: bool, autojump_clock: trio.testing.MockClock
) -> None:
    def is_second(record: logging.LogRecord) -> bool:
        return "/second" in record.getMessage()

    with lines_to(pipe[1]) as handler:
        filterer = access_logger if of_logger else handler
        filterer.addFilter(is_second)
        try:
            await answered(handler, "/first", "/second")
        finally:
            filterer.removeFilter(is_second)
    assert re.fullmatch(SECOND, read_to_end(*pipe))


@contextmanager
def written_to(stdout: FileIO, stderr: FileIO, access_log: AccessLog) -> Iterator[None]:
    with (
        patch.object(_log_writer, "_STDOUT", stdout.fileno()),
        patch.object(_log_writer, "_STDERR", stderr.fileno()),
        open_log(access_log),
    ):
        yield


@pytest.mark.parametrize("access_log", ["combined", "json", "off"])
def test_logs_go_where_they_belong(
    pipe: tuple[FileIO, FileIO], access_log: AccessLog, tmp_path: Path
) -> None:
    root = logging.getLogger()
    before = [(it.level, it.propagate, it.handlers.copy()) for it in (root, access_logger)]
    stdout = tmp_path / "stdout"
    with stdout.open("wb", buffering=0) as file, written_to(file, pipe[1], access_log):
        logging.getLogger("somebody").info("hello")
        logging.getLogger("somebody").debug("psst")
        assert access_logger.isEnabledFor(logging.INFO) == (access_log != "off")
        handlers = len(access_logger.handlers)
    assert handlers == (access_log != "off")
    after = [(it.level, it.propagate, it.handlers.copy()) for it in (root, access_logger)]
    assert after == before
    assert read_to_end(*pipe).endswith(b" INFO somebody: hello\n")
    assert stdout.read_bytes() == b""


def test_a_terminal_gets_lines_that_make_way_for_those_of_transfers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    with open_log("off"):
        (handler,) = [it for it in logging.getLogger().handlers if it.formatter is not None][-1:]
        assert isinstance(handler, logging.StreamHandler)
        assert handler.stream is terminal
        logging.getLogger("somebody").info("hello")
    assert terminal.getvalue().endswith(" INFO somebody: hello\n")


async def test_an_app_may_configure_logging(
    pipe: tuple[FileIO, FileIO], tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    stdout = tmp_path / "stdout"
    with stdout.open("wb", buffering=0) as file, written_to(file, pipe[1], "combined"):
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
        logging.getLogger("somebody").info("hello")
        async with open_client(App()) as client:
            await (await client.get("/first")).read()
    assert read_to_end(*pipe).endswith(b" INFO somebody: hello\n")
    assert re.fullmatch(FIRST, stdout.read_bytes())
