"""Where the body of a request ends (RFC 9112 sections 6 and 7).

h11 reads bodies as well, but forgives in the framing of chunks what must not be forgiven, and has
no hook for it. So bodies do not go through it.
"""

from __future__ import annotations

import re

from ._bad_request import BadRequestError
from ._grammar import TOKEN
from ._guard import check_lines

_TOKEN = TOKEN.encode("ascii")
_QUOTED = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'

# 16 digits are enough for any size that anybody means.
_SIZE_DIGITS = 16

# RFC 9112 section 7.1.1. White space is read where the grammar allows it to be bad, before ";" and
# around "=", and nowhere else.
_CHUNK_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,%d})(?:[\t ]*;[\t ]*%b(?:[\t ]*=[\t ]*(?:%b|%b))?)*"
    % (_SIZE_DIGITS, _TOKEN, _TOKEN, _QUOTED)
)

# So many chunks are decoded at a time, in about a millisecond, whatever their size: some clients
# send a few bytes in each.
_CHUNKS_AT_ONCE = 512

# From the end of the last chunk's line (RFC 9112 section 7.1.2).
_TRAILERS = re.compile(rb"(?:\r\n%b:[^\r\n]*)*\r\n\r\n" % _TOKEN)


class LengthDecoder:
    """A body of known length.

    Attributes:
      length: In bytes.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self._missing = length

    @property
    def is_over(self) -> bool:
        """Whether all of it was decoded."""
        return self._missing == 0

    def decode(self, received: bytes) -> tuple[bytes, bytes]:
        """What `received` has of the body, and what remains of `received`."""
        data = received[: self._missing]
        self._missing -= len(data)
        return data, received[len(data) :]


class ChunkedDecoder:
    """A body in chunks.

    Attributes:
      length: 0, as nothing is known of it.
      is_over: Whether all of it was decoded, with its trailers.
    """

    length = 0

    def __init__(self, allowance: int) -> None:
        """Take up to `allowance` bytes of extensions and trailers, over the whole body."""
        self.is_over = False
        self._allowance = allowance
        self._missing = 0
        # Functions of the class: a method would refer to the decoder, and so be a cycle.
        self._read_next = ChunkedDecoder._read_line

    def decode(self, received: bytes) -> tuple[bytes, bytes]:
        """What `received` has of the body, or some of it, and what remains of `received`.

        Only if that is nothing, more must be received. Trailers are dropped: none of them may
        change what the head said (RFC 9110 section 6.5.1).

        Raises:
          BadRequestError: 400: that is no framing. 431: there is more beside the data than allowed.
        """
        pieces: list[bytes] = []
        at = 0
        while not self.is_over and len(pieces) < _CHUNKS_AT_ONCE:
            if self._missing:
                piece = received[at : at + self._missing]
                if not piece:
                    break
                pieces.append(piece)
                self._missing -= len(piece)
                at += len(piece)
            elif (position := self._read_next(self, received, at)) is None:
                break
            else:
                at = position
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), received[at:]

    # Each reads one part of the framing: where the next one begins, or `None` if this is not whole.

    def _read_line(self, received: bytes, start: int) -> int | None:
        end = received.find(b"\r\n", start)
        line = received[start:].removesuffix(b"\r") if end < 0 else received[start:end]
        limit = self._allowance + _SIZE_DIGITS
        if b"\n" in line[:limit]:
            raise BadRequestError("a bare LF in the size of a chunk", 400)
        if len(line) > limit:
            raise BadRequestError(f"{len(line)} bytes for the size of a chunk", 431)
        if end < 0:
            return None
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            raise BadRequestError(f"{line!r} is not the size of a chunk", 400)
        self._allowance -= max(len(line) - _SIZE_DIGITS, 0)
        self._missing = int(match[1], 16)
        if self._missing:
            self._read_next = ChunkedDecoder._read_line_end
            return end + 2
        self._read_next = ChunkedDecoder._read_trailers
        return end  # its CRLF is that before the first trailer

    def _read_line_end(self, received: bytes, start: int) -> int | None:
        end = received[start : start + 2]
        if end == b"\r\n":
            self._read_next = ChunkedDecoder._read_line
            return start + 2
        if not b"\r\n".startswith(end):
            raise BadRequestError(f"{end!r} behind the data of a chunk", 400)
        return None

    def _read_trailers(self, received: bytes, start: int) -> int | None:
        limit = start + self._allowance + 4
        end = received.find(b"\r\n\r\n", start, limit)
        if end < 0:
            check_lines(received[start:limit].removesuffix(b"\r"))
            if len(received) > limit:
                raise BadRequestError(f"more than {self._allowance} bytes of trailers", 431)
            return None
        section = received[start : end + 4]
        check_lines(section)
        if not _TRAILERS.fullmatch(section):
            raise BadRequestError(f"{section!r} are no trailers", 400)
        self.is_over = True
        return end + 4
