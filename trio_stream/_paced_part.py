"""A part of a file, in pieces that the kernel can send without waiting for the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ._turn import QUIET_BUDGETS, Turn

if TYPE_CHECKING:
    from ._file import FilePart
    from ._transport import Transport

# How much is read from the disk at once.
_WARM_SIZE = 1024 * 1024


class PacedPart:
    """A part of a file, piece by piece as it can be sent without waiting, with turns for others."""

    def __init__(self, part: FilePart, transport: Transport, send_budget: int) -> None:
        self._part = part
        self._step = send_budget
        self._turn = Turn(transport)
        self._longest_turn = QUIET_BUDGETS * send_budget
        self._look_at = self._step

    def __len__(self) -> int:
        return len(self._part)

    async def next(self, sent: int) -> FilePart:
        """The piece after the first `sent` bytes, which must be sent before the next `await`.

        Waits for the disk if it has to; otherwise others run only when a turn is over. It is not
        cancelled.

        Raises:
          io.UnsupportedOperation: As `FilePart.cached_size`.
        """
        if sent >= self._look_at:
            self._look_at = sent + self._step
            if not self._turn.left(sent, self._longest_turn):
                await trio.lowlevel.cancel_shielded_checkpoint()
        # The cache may be needed for something else as soon as others run.
        part = self._part.after(sent).first(self._look_at - sent)
        if size := part.cached_size():
            return part if size == len(part) else part.first(size)
        part = part.first(_WARM_SIZE)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(part.warm)
        return part
