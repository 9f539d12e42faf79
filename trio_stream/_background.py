"""Tasks that serve a block of code for exactly as long as it runs."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def open_background_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery whose tasks work until the block is over, and are then cancelled.

    They go on while the block is being cancelled: a handler may then, under a shield of its own,
    still send a last word, and needs them for that.
    """
    shield = trio.CancelScope(shield=True)

    async def host(task_status: trio.TaskStatus[trio.Nursery]) -> None:
        with shield:
            async with trio.open_nursery() as background:
                task_status.started(background)
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        background = await nursery.start(host)
        try:
            yield background
        finally:
            shield.cancel()
