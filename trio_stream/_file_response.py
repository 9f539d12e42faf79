"""The way of a file's bytes to the client: through the kernel, or read a piece ahead."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from ._background import open_background
from ._file import FilePart, FileTooShortError
from ._file_answer import answer_file
from ._outgoing import SENT, SendResult
from ._paced_part import PacedPart
from ._stats import AbortReason

if TYPE_CHECKING:
    from ._file import OpenVariant
    from ._file_answer import FileAnswer, FileOptions
    from ._response_head import ResponseHead
    from ._response_writing import WritingResponse

_READ_SIZE = 128 * 1024


async def send_file(
    response: WritingResponse, open_variant: OpenVariant, options: FileOptions
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


async def _send_piece(
    response: WritingResponse, piece: bytes | FilePart, length: int
) -> SendResult:
    if isinstance(piece, bytes):
        return await response.send_chunk(piece, length)
    start = response.get_write_offset()
    paced = PacedPart(piece, response._transport, response._config.send_budget)
    try:
        with response._transport.sending_files():
            return await response._send_all(paced, length, start)
    except io.UnsupportedOperation:
        sent = response.get_write_offset() - start
    return await _send_read(response, piece.after(sent), length)


async def _send_read(response: WritingResponse, part: FilePart, length: int) -> SendResult:
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
