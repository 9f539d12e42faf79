"""What is told to people on stdout, whether or not somebody takes it."""

from __future__ import annotations

import logging
import sys

logger = logging.getLogger("trio_stream")


def say(*lines: str) -> None:
    """Print lines at once.

    If stdout takes nothing (its disk is full, its pipe has no other end), that is logged, and from
    then on what is printed is dropped: a server serves nevertheless, and so do handlers that print.
    """
    try:
        print(*lines, sep="\n", flush=True)
    except OSError as exc:
        logger.warning("nothing can be told on stdout: %s", exc.strerror)
        # Else what it has kept fails once more, with a traceback, when the program ends.
        sys.stdout = None
