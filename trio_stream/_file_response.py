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
from ._read_part import ReadPart
from ._stats import AbortReason

if TYPE_CHECKING:
    from ._file import OpenVariant
    from ._file_answer import FileAnswer, FileOptions
    from ._response_head import ResponseHead
    from ._response_writing import WritingResponse


async def send_file(
    response: WritingResponse, open_variant: OpenVariant, options: FileOptions
) -> SendResult:
    """As `Response.send_file`."""
    if (content_type := response._head.get_header("Content-Type")) is not None:
        options = replace(options, content_type=content_type)
    answer = await trio.to_thread.run_sync(
        answer_file, open_variant, options, response._request_head, response._head.status
    )
    written = response._head
    with answer.file:
        response._replace_head(_answer_head(written, answer))
        result = SENT
        pieces = answer.pieces or [b""]
        try:
            while pieces and result is SENT:
                # Whoever downloads slowly need not hold what has gone: the first piece is 64 KiB.
                result = await _send_piece(response, pieces.pop(0), answer.length)
        except FileTooShortError:
            response._abort(AbortReason.INCOMPLETE)
            raise
        finally:
            if not response._head_started:  # cancelled, say: the handler may answer otherwise
                response._replace_head(written)
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
    read_part = ReadPart(part)
    async with open_background() as start_soon:
        start_soon(read_part.read_ahead)
        return await response._send_all(read_part, length, response.get_write_offset())
