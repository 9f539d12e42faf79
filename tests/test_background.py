"""Tasks that serve a block: while it runs, while it is cancelled, and no longer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from trio_stream._background import open_background

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock


class Helper:
    """Serves a block, and takes a second to end."""

    def __init__(self) -> None:
        self.is_asked = trio.Event()
        self.has_answered = trio.Event()
        self.ended_at: float | None = None

    async def run(self) -> None:
        try:
            with trio.move_on_after(1000):  # a guard against hanging, no expectation
                await self.is_asked.wait()
                self.has_answered.set()
                await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            self.ended_at = trio.current_time()


async def test_tasks_work_until_the_block_is_over(autojump_clock: MockClock) -> None:
    helpers = [Helper(), Helper()]
    async with open_background() as start_soon:
        start_soon(trio.lowlevel.checkpoint)  # one may end before the block
        for helper in helpers:
            await trio.sleep(10)
            start_soon(helper.run)
            helper.is_asked.set()
            await helper.has_answered.wait()
        await trio.sleep(10)
        assert [helper.ended_at for helper in helpers] == [None, None]
    assert [helper.ended_at for helper in helpers] == [31, 31]
    assert trio.current_time() == 31


async def test_tasks_work_on_while_the_block_is_cancelled(autojump_clock: MockClock) -> None:
    helper = Helper()
    with trio.CancelScope() as scope:
        async with open_background() as start_soon:
            start_soon(helper.run)
            await trio.sleep(10)
            scope.cancel()
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(5, shield=True):
                    await trio.sleep(1)
                    helper.is_asked.set()
                    await helper.has_answered.wait()
                    assert helper.ended_at is None
    assert scope.cancelled_caught
    assert helper.has_answered.is_set()
    assert helper.ended_at == trio.current_time() == 12


def make_group() -> BaseException:
    return ExceptionGroup("of the block", [ValueError()])


@pytest.mark.parametrize("make_error", [ValueError, make_group, KeyboardInterrupt, SystemExit])
async def test_exception_of_the_block_comes_out_bare(
    make_error: Callable[[], BaseException], autojump_clock: MockClock
) -> None:
    helper = Helper()
    error = make_error()
    with pytest.raises(type(error)) as info:
        async with open_background() as start_soon:
            start_soon(helper.run)
            await trio.sleep(10)
            raise error
    assert info.value is error
    assert helper.ended_at == trio.current_time() == 11
