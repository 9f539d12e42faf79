"""A part of a file, read ahead: for what the kernel can't send."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ._file import FileTooShortError

if TYPE_CHECKING:
    from ._file import FilePart

_READ_SIZE = 128 * 1024


class ReadPart:
    """A part of a file, piece by piece: one is read while the one before is sent.

    `read_ahead` must run meanwhile.
    """

    def __init__(self, part: FilePart) -> None:
        self._part = part
        self._piece = memoryview(b"")
        self._end = 0  # of the piece in the part
        self._pieces, self._received = trio.open_memory_channel[bytes](0)
        self._failure: Exception = EOFError("nothing is left")

    def __len__(self) -> int:
        return len(self._part)

    async def next(self, sent: int) -> memoryview:
        """What has been read of what comes after the first `sent` bytes.

        Waits for the disk if it has to. That is not cancelled, as a read can't be.

        Raises:
          OSError: The file can't be read.
          FileTooShortError: It ends before the part.
        """
        if sent == self._end:
            try:
                with trio.CancelScope(shield=True):
                    self._piece = memoryview(await self._received.receive())
            except trio.EndOfChannel:
                raise self._failure from None
            self._end += len(self._piece)
        return self._piece[sent - self._end :]

    async def read_ahead(self) -> None:
        """Read the part, as fast as it is sent."""
        rest = self._part
        async with self._pieces:
            try:
                while rest:
                    data = await _read(rest.first(_READ_SIZE))
                    await self._pieces.send(data)
                    rest = rest.after(len(data))
            except (OSError, FileTooShortError) as exc:
                self._failure = exc


async def _read(part: FilePart) -> bytes:
    data = part.file.read_cached(part.start, len(part))
    if data is None:
        data = await trio.to_thread.run_sync(part.file.read, part.start, len(part))
    if not data:
        raise FileTooShortError(part)
    return data
