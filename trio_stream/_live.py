"""Transfers as live lines in a terminal, each with a bar. Needs `rich`."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, ConsoleRenderable
from rich.file_proxy import FileProxy
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ._wording import human_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ._transfer import Transfer

_WIDE = 100  # columns, from which on there is room for the client

# Drawing a line takes half a millisecond, in which everybody waits.
_MOST_LINES = 20


class LiveDisplay:
    """Shows a line for each transfer under way, below all that is over.

    Nothing is on the screen while there is none, so that other output has it for itself.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None

    def update(self, under_way: Sequence[Transfer], over: Sequence[Transfer]) -> None:
        """As `Display.update`."""
        if not under_way:
            self.close()
        elif self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        if self._live is not None:
            self._live.update(self._table(under_way), refresh=True)
        for transfer in over:
            style = "green" if transfer.is_complete else "yellow"
            self._console.print(self._text(transfer.summary, style), soft_wrap=True)

    def close(self) -> None:
        """Take the lines away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _table(self, transfers: Sequence[Transfer]) -> Table:
        width, height = self._console.size
        table = Table.grid(padding=(0, 2, 0, 0), expand=True)
        is_unicode = not self._console.options.ascii_only
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis" if is_unicode else "crop")
        if width >= _WIDE:
            table.add_column(no_wrap=True, style="dim")
        table.add_column(no_wrap=True)
        for _ in ("size", "speed"):
            table.add_column(no_wrap=True, justify="right")
        table.add_column(no_wrap=True, width=len("sending"))
        shown = transfers[: min(max(height - 2, 1), _MOST_LINES)]
        for transfer in shown:
            is_waiting = transfer.state == "waiting"
            row: list[ConsoleRenderable | str] = [
                self._text(transfer.name),
                ProgressBar(
                    total=transfer.total,
                    completed=transfer.sent,
                    width=min(width // 5, 40),
                    pulse=transfer.total is None,
                ),
                transfer.size,
                f"{human_size(transfer.speed)}/s",
                self._text(transfer.state, "yellow" if is_waiting else "cyan"),
            ]
            if width >= _WIDE:
                row.insert(1, self._text(transfer.client))
            table.add_row(*row)
        if more := len(transfers) - len(shown):
            table.add_row(f"and {more:,} more")
        return table

    def _text(self, text: str, style: str = "") -> Text:
        """Text without markup, of characters that the terminal has."""
        encoding = self._console.encoding
        return Text(text.encode(encoding, "replace").decode(encoding), style)


@contextmanager
def open_live_display(file: TextIO) -> Iterator[LiveDisplay]:
    """Show transfers in a terminal for the length of the block."""
    console = Console(file=file, highlight=False)
    display = LiveDisplay(console)
    with _logging_above(console):
        try:
            yield display
        finally:
            display.close()


@contextmanager
def _logging_above(console: Console) -> Iterator[None]:
    """Have what is logged to the terminal appear above the live lines, not among them."""
    handlers = [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr
    ]
    stderr = sys.stderr
    if stderr.isatty():
        for handler in handlers:
            handler.setStream(FileProxy(console, stderr))
    try:
        yield
    finally:
        for handler in handlers:
            handler.setStream(stderr)
