"""Logs on stdout and stderr, by threads."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from ._access_log import Outcome, OutcomeHandler, combined_line, json_line, json_note
from ._access_log import logger as access_logger
from ._line_writer import LineWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger("trio_stream")

AccessLog: TypeAlias = Literal["combined", "json", "off"]

LineMaker: TypeAlias = Callable[[float, Outcome], str]
NoteMaker: TypeAlias = Callable[[str], str]

_LINES: Mapping[str, tuple[LineMaker, NoteMaker]] = {
    "combined": (combined_line, str),
    "json": (json_line, json_note),
}

_STDOUT, _STDERR = 1, 2

_ERROR_FORMAT = "%(asctime)s %(levelname)s %(name)s{}: %(message)s"


@contextmanager
def open_log(
    access_log: AccessLog, level: str = "info", *, show_process: bool = False
) -> Iterator[None]:
    """Log to stderr, and responses to stdout, for the length of the block.

    A process that is forked in it needs its own. Streams that were closed when the program started
    take what is written to them, and nobody gets it: their numbers must not become those of others.

    Args:
      access_log: How the lines about responses look, or `"off"`.
      level: The lowest one that is logged to stderr, such as `"info"`.
      show_process: Whether a line on stderr tells which process it is of.
    """
    for fd in (0, _STDOUT, _STDERR):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    with ExitStack() as stack:
        process = "[%(process)d]" if show_process else ""
        # Lines about transfers in a terminal make way for those of a handler of streams.
        is_terminal = sys.stderr is not None and sys.stderr.isatty()
        errors: logging.Handler = logging.StreamHandler()
        if not is_terminal:
            errors = BackgroundHandler(stack.enter_context(closing(LineWriter(_STDERR))))
        errors.setFormatter(logging.Formatter(_ERROR_FORMAT.format(process)))
        stack.enter_context(_logging(logging.getLogger(), level.upper(), errors))
        if access_log == "off":
            stack.enter_context(_logging(access_logger, logging.WARNING))
        else:
            make_line, make_note = _LINES[access_log]
            writer = stack.enter_context(closing(LineWriter(_STDOUT, make_note, _tell_loss)))
            lines = AccessLogHandler(writer, make_line)
            stack.enter_context(_logging(access_logger, logging.INFO, lines))
        yield


def _tell_loss(why: str) -> None:
    logger.warning("lines of the access log are being lost: %s", why)


@contextmanager
def _logging(
    logger: logging.Logger, level: int | str, handler: logging.Handler | None = None
) -> Iterator[None]:
    before = logger.level, logger.propagate
    logger.setLevel(level)
    if handler is not None:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        logger.setLevel(before[0])
        logger.propagate = before[1]
        if handler is not None:
            logger.removeHandler(handler)
            handler.close()


class BackgroundHandler(logging.Handler):
    """Hands lines to a `LineWriter`, which outlives it.

    `logging.config.dictConfig` closes all handlers that there are, and leaves them where they are:
    those of the standard library go on then.
    """

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the line for `record`."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 (of whoever logged it, and it is custom to say so)
            self.handleError(record)
        else:
            self._writer.put(line)


class AccessLogHandler(BackgroundHandler, OutcomeHandler):
    """The same for an access log.

    If there are other handlers or filters, outcomes come as records, like anything else.
    """

    def __init__(self, writer: LineWriter, make_line: LineMaker) -> None:
        super().__init__(writer)
        self._make_line = make_line

    def take(self, created: float, outcome: Outcome) -> None:
        """Queue the line for an outcome."""
        self._writer.put(self._make_line(created, outcome))

    def format(self, record: logging.LogRecord) -> str:
        """The line for a record of an outcome."""
        facts = vars(record)
        outcome = {name: facts[name] for name in Outcome.__annotations__}
        return self._make_line(record.created, cast("Outcome", outcome))
