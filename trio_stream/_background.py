"""Tasks that serve a block of code for exactly as long as it runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

StartSoon: TypeAlias = Callable[[Callable[[], Awaitable[object]]], None]


@asynccontextmanager
async def open_background() -> AsyncIterator[StartSoon]:
    """Start tasks that work until the block is over, and are then cancelled.

    They work on while the block is being cancelled: a handler may then, under a shield of its own,
    still send a last word, and needs them for that. An exception in the block comes out bare, not
    in a group, so the tasks must not raise any.
    """
    shields: set[trio.CancelScope] = set()

    async def run(shield: trio.CancelScope, async_fn: Callable[[], Awaitable[object]]) -> None:
        with shield:
            await async_fn()
        shields.discard(shield)

    def start_soon(async_fn: Callable[[], Awaitable[object]]) -> None:
        shield = trio.CancelScope(shield=True)
        shields.add(shield)
        nursery.start_soon(run, shield, async_fn)

    error: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield start_soon
        # It is raised below, outside of the nursery.
        except (Exception, SystemExit, KeyboardInterrupt) as exc:  # noqa: BLE001
            error = exc
        finally:
            for shield in shields:
                shield.cancel()
    if error is not None:
        raise error
