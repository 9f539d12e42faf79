"""What is told to people on stdout and stderr, whether or not somebody takes it."""

from __future__ import annotations

import logging
import select
import sys
from contextlib import suppress

logger = logging.getLogger("trio_stream")


def say(*lines: str) -> None:
    """Print lines at once, and don't wait for somebody to read them.

    If stdout takes nothing, that is logged, and they are dropped: a server serves nevertheless. If
    it never will again (its disk is full, its pipe has no other end), what handlers print from then
    on is dropped as well.
    """
    if not _has_room():
        logger.warning("nothing can be told on stdout: nobody reads it")
        return
    try:
        print(*lines, sep="\n", flush=True)
    except OSError as exc:
        logger.warning("nothing can be told on stdout: %s", exc.strerror)
        # Else what it has kept fails once more, with a traceback, when the program ends.
        sys.stdout = None


def complain(line: str) -> None:
    """Print a line on stderr, if it takes one."""
    if sys.stderr is not None:
        try:
            print(line, file=sys.stderr, flush=True)
        except OSError:
            sys.stderr = None  # as stdout above


def _has_room() -> bool:
    """Whether stdout takes some lines now; always, where nobody can tell."""
    if sys.platform != "win32" and sys.stdout is not None:
        with suppress(OSError, ValueError):  # it has no descriptor, or was closed
            return bool(select.select((), (sys.stdout.fileno(),), (), 0)[1])
    return True
