"""What is told to people, whether or not their stream takes it."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from trio_stream._console import complain, say

if TYPE_CHECKING:
    from io import FileIO

    import pytest


def set_non_blocking(pipe: tuple[FileIO, FileIO]) -> tuple[FileIO, FileIO]:
    """So that what is not there, or does not go, fails the test, and does not hang it."""
    for end in pipe:
        os.set_blocking(end.fileno(), False)
    return pipe


def test_complaint_is_a_line_on_stderr(
    pipe: tuple[FileIO, FileIO],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reader, writer = set_non_blocking(pipe)
    with os.fdopen(writer.fileno(), "w", closefd=False) as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        complain("no such port")
        assert reader.read(8192) == b"no such port\n"  # at once
    assert capsys.readouterr().out == ""


def test_complaint_goes_nowhere_without_a_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)  # as Python has it if descriptor 2 is closed
    complain("no such port")
    assert capsys.readouterr().out == ""


def test_stderr_that_takes_nothing_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full").open("w")  # noqa: SIM115 (closing it fails)
    monkeypatch.setattr(sys, "stderr", full)
    complain("no such port")
    assert sys.stderr is None
    with suppress(OSError):
        full.close()


def test_what_nobody_reads_is_dropped_and_what_comes_later_is_said(
    pipe: tuple[FileIO, FileIO], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = set_non_blocking(pipe)
    with os.fdopen(writer.fileno(), "w", closefd=False) as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert writer.write(bytes(4096)) == 4096
        say("dropped")
        assert reader.read(8192) == bytes(4096)
        say("two", "lines")
        assert reader.read(8192) == b"two\nlines\n"
    assert caplog.messages == ["nothing can be told on stdout: nobody reads it"]
