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

if TYPE_CHECKING:
    import h11
    from typing_extensions import Buffer

    from ._file import OpenVariant
    from ._file_answer import FileAnswer, FileOptions
    from ._head import ResponseHead
    from ._transport import Transport

# A file's turn is over when something has come in for the server, which is looked for so many
# times in a budget; else after so many budgets. What is not copied is cheap, but each turn of
# others gives a client that is alone the time to run dry and fall asleep, and waking it is dear:
# one every 2 MiB costs 17 % more. Without looking, a small request beside a file takes 2 to 14 ms,
# and not 0.5.
_LOOKS = 2
_LONGEST_TURN = 8

# How far ahead is looked for what is in the cache, and how much is read from the disk if it is not.
_LOOK_SIZE = 4 * 1024 * 1024
_WARM_SIZE = 1024 * 1024

_READ_SIZE = 128 * 1024


class FileSender(Protocol):
    """What a file needs of a response."""

    _head: ResponseHead
    _send_budget: int
    _transport: Transport

    @property
    def _request_head(self) -> h11.Request | None: ...

    def _replace_head(self, head: ResponseHead) -> None: ...

    def get_write_offset(self) -> int: ...

    async def send_chunk(self, data: Buffer, total_size: int) -> SendResult: ...

    async def _send_all(self, view: FilePart, total_size: int, start: int) -> SendResult: ...

    def _begin_turn(self) -> None: ...

    def _end_turn(self) -> None: ...

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


async def wait_cached(part: FilePart) -> FilePart:
    """The beginning of a part that can be read at once; waits for the disk if there is none.

    It must be sent before the next `await`: the cache may be needed for something else.

    Raises:
      io.UnsupportedOperation: As `FilePart.cached_size`.
    """
    if size := part.first(_LOOK_SIZE).cached_size():
        return part.first(size)
    part = part.first(_WARM_SIZE)
    await trio.to_thread.run_sync(part.warm)
    return part


async def _send_piece(response: FileSender, piece: bytes | FilePart, length: int) -> SendResult:
    if isinstance(piece, FilePart):
        return await _send_part(response, piece, length)
    return await response.send_chunk(piece, length)


async def _send_part(response: FileSender, part: FilePart, length: int) -> SendResult:
    start = response.get_write_offset()
    sent = 0
    turn_began_at = 0
    is_quiet = False
    try:
        with response._transport.sending_files():
            while True:
                rest = part.after(sent).first(max(response._send_budget // _LOOKS, 1))
                result = await response._send_all(rest, length, start + sent)
                sent = response.get_write_offset() - start
                if not result.ok or sent == len(part):
                    return result
                is_long = sent - turn_began_at >= _LONGEST_TURN * response._send_budget
                was_quiet, is_quiet = is_quiet, not response._transport.has_arrivals()
                # Twice, as after the first time this may run before whoever is to receive it.
                if is_long or not (was_quiet and is_quiet):
                    turn_began_at = sent
                    response._end_turn()
                else:
                    response._begin_turn()
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
