"""Fixtures that most tests share."""

from __future__ import annotations

import fcntl
import gc
import logging
import os
import signal
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from tests.harness import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO

    from tests.harness import Kind


def pytest_collection_finish() -> None:
    """Leave out what lives as long as the session when garbage is collected, as many tests do."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def bytecode_of_programs() -> Iterator[None]:
    """Has the programs that tests start compile a module once, not each of them again.

    Where Python must not write bytecode beside the modules, as in many containers, they share what
    is removed at the end.
    """
    with TemporaryDirectory(prefix="bytecode-") as folder, pytest.MonkeyPatch.context() as patch:
        if os.environ.get("PYTHONDONTWRITEBYTECODE"):
            patch.delenv("PYTHONDONTWRITEBYTECODE")
            patch.setenv("PYTHONPYCACHEPREFIX", folder)
        yield


@pytest.fixture(scope="session", autouse=True)
def hang_up_is_not_ignored() -> None:
    """By this process, nor by the programs that it starts: under nohup it would be."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Runs a test once for each way in which the server is reached."""
    param: Kind = request.param
    return param


@pytest.fixture
def pipe() -> Iterator[tuple[FileIO, FileIO]]:
    """A small pipe: what reads, and what writes."""
    read_fd, write_fd = os.pipe()
    with os.fdopen(read_fd, "rb", 0) as reader, os.fdopen(write_fd, "wb", 0) as writer:
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        yield reader, writer


@pytest.fixture(autouse=True)
def no_unexpected_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fails a test in which the server logged an error: a failed assertion in a handler, for one.

    A test that wants the error looks at `caplog.records`, and then calls `caplog.clear()`.
    """
    yield
    records = caplog.get_records("call")  # by now, `caplog.records` are those of the teardown
    errors = [record for record in records if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in errors if record.name == "trio_stream"] == []
