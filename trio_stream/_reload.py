"""Changes of the code of an app that is being developed."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import trio

try:
    import watchfiles
except ImportError:
    HAVE_WATCHFILES = False
else:
    HAVE_WATCHFILES = True

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

logger = logging.getLogger("trio_stream")

# How long after it has failed the code is watched again, in seconds.
_DELAY = 1.0


async def watch_code() -> AsyncGenerator[object, None]:
    """Yields whenever a Python file below the current directory has changed.

    While they can't be watched, that is logged, and tried again and again: by looking at all of
    them, as inotify gives up on a directory whose name is not UTF-8.
    """
    stop = threading.Event()
    failure = ""
    try:
        while True:
            try:
                changes = watchfiles.watch(
                    ".",
                    watch_filter=watchfiles.PythonFilter(),
                    stop_event=stop,
                    force_polling=bool(failure) or None,
                    ignore_permission_denied=True,
                )
                while change := await trio.to_thread.run_sync(
                    next, changes, None, abandon_on_cancel=True
                ):
                    yield change
            # Whatever it can't cope with, such as a name that is not UTF-8, is a RuntimeError.
            except (OSError, RuntimeError) as exc:
                if str(exc) != failure:
                    failure = str(exc)
                    logger.warning("the code can't be watched for the moment: %s", failure)
            await trio.sleep(_DELAY)
    finally:
        stop.set()
