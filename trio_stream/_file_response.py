"""The way of a file's bytes to the client: through the kernel, or read a piece ahead."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import trio

from ._background import open_background
from ._file import FilePart, FileTooShortError
from ._file_answer import answer_file
from ._outgoing import SENT, SendResult
from ._stats import AbortReason
from ._turn import QUIET_BUDGETS, Turn

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ._file import OpenVariant
    from ._file_answer import FileAnswer, FileOptions
    from ._head import ResponseHead
    from ._request_head import RequestHead
    from ._transport import Transport

# How much is read from the disk at once.
_WARM_SIZE = 1024 * 1024

_READ_SIZE = 128 * 1024


class FileSender(Protocol):
    """What a file needs of a response."""

    _head: ResponseHead
    _send_budget: int
    _transport: Transport

    @property
    def _request_head(self) -> RequestHead | None: ...

    def _replace_head(self, head: ResponseHead) -> None: ...

    def get_write_offset(self) -> int: ...

    async def send_chunk(self, data: Buffer, total_size: int) -> SendResult: ...

    async def _send_all(self, view: PacedPart, total_size: int, start: int) -> SendResult: ...

    def _abort(self, reason: AbortReason) -> None: ...


async def send_file(
    response: FileSender, open_variant: OpenVariant, options: FileOptions
) -> SendResult:
    """As `Response.send_file`."""
    if (content_type := response._head.get_header("Content-Type")) is not None:
        options = replace(options, content_type=content_type)
    answer = await trio.to_thread.run_sync(
        answer_file, open_variant, options, response._request_head, response._head.status
    )
    with answer.file:
        # All of it or, if a value can't be sent, nothing: the handler may still answer otherwise.
        response._replace_head(_answer_head(response._head, answer))
        result = SENT
        pieces = answer.pieces or [b""]
        try:
            while pieces and result is SENT:
                # Whoever downloads slowly need not hold what has gone: the first piece is 64 KiB.
                result = await _send_piece(response, pieces.pop(0), answer.length)
        except FileTooShortError:
            response._abort(AbortReason.INCOMPLETE)
            raise
        return result


def _answer_head(written: ResponseHead, answer: FileAnswer) -> ResponseHead:
    """What was written before, and what the answer has to say beside it."""
    head = written.copy()
    if answer.status != head.status:
        head.write_status(answer.status)
    if "Content-Type" in answer.fields:
        head.remove_header("Content-Type")  # it was taken from there, as far as it still fits
    if answer.status in (412, 416):
        head.remove_header("Content-Encoding")  # that of the file, and this is a short text
    for name, value in answer.fields.items():
        if name == "Vary" or head.get_header(name) is None:
            head.write_header(name, value)
    return head


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

        Waits for the disk if it has to; otherwise it is a checkpoint only when a turn is over.

        Raises:
          io.UnsupportedOperation: As `FilePart.cached_size`.
        """
        if sent >= self._look_at:
            self._look_at = sent + self._step
            if self._turn.is_over(sent, self._longest_turn):
                await trio.lowlevel.checkpoint()
        # The cache may be needed for something else as soon as others run.
        part = self._part.after(sent).first(self._look_at - sent)
        if size := part.cached_size():
            return part if size == len(part) else part.first(size)
        part = part.first(_WARM_SIZE)
        await trio.to_thread.run_sync(part.warm)
        return part


async def _send_piece(response: FileSender, piece: bytes | FilePart, length: int) -> SendResult:
    if isinstance(piece, FilePart):
        return await _send_part(response, piece, length)
    return await response.send_chunk(piece, length)


async def _send_part(response: FileSender, part: FilePart, length: int) -> SendResult:
    start = response.get_write_offset()
    paced = PacedPart(part, response._transport, response._send_budget)
    try:
        with response._transport.sending_files():
            return await response._send_all(paced, length, start)
    except io.UnsupportedOperation:
        sent = response.get_write_offset() - start
    return await _send_read(response, part.after(sent), length)


async def _send_read(response: FileSender, part: FilePart, length: int) -> SendResult:
    """Read a part and send it: one piece is read while the one before is sent."""
    failures: list[OSError | FileTooShortError] = []
    pieces, received = trio.open_memory_channel[bytes](0)

    async def read() -> None:
        rest = part
        async with pieces:
            try:
                while rest:
                    data = await _read(rest.first(_READ_SIZE))
                    await pieces.send(data)
                    rest = rest.after(len(data))
            except (OSError, FileTooShortError) as exc:
                failures.append(exc)

    result = SENT
    async with received, open_background() as start_soon:
        start_soon(read)
        async for data in received:
            result = await response.send_chunk(data, length)
            if not result.ok:
                break
    if failures:
        raise failures[0]
    return result


async def _read(part: FilePart) -> bytes:
    data = part.file.read_cached(part.start, len(part))
    if data is None:
        data = await trio.to_thread.run_sync(part.file.read, part.start, len(part))
    if not data:
        raise FileTooShortError(part)
    return data
