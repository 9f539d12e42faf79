"""Range requests (RFC 9110 section 14): which bytes of a file a client wants, and their framing."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# RFC 9110 sections 14.1.1 and 14.1.2. Empty elements of a list are ignored: section 5.6.1.2.
_RANGES = re.compile(r"bytes=[\t ,]*([\d-][\d\t ,-]*)", re.IGNORECASE | re.ASCII)
_RANGE = re.compile(r"(\d*)-(\d*)", re.ASCII)

MAX_RANGES = 50
"""A request for more parts than this gets the whole: no client has a use for them, and each costs a
seek (RFC 9110 section 17.15)."""

# What a part costs beside its bytes: parts that are nearer to each other are sent as one (RFC 9110
# section 15.3.7.2).
_GAP = 80

_MAX_DIGITS = 18  # of a position; no file is that large, and int() refuses 5000 digits


def find_ranges(header: str, size: int) -> list[range] | None:
    """The parts of a file of `size` bytes that a `Range` field asks for, in its order.

    Parts that overlap, or nearly touch, are joined.

    Returns:
      `[]` if there are none: 416. `None` if the field means nothing or too much, and the whole is
      to be sent (RFC 9110 section 14.2).
    """
    if (match := _RANGES.fullmatch(header)) is None:
        return None
    found: list[range] = []
    elements = [element.strip("\t ") for element in match[1].split(",")]
    for element in elements:
        if not element:
            continue
        if (bounds := _RANGE.fullmatch(element)) is None or element == "-":
            return None
        part = _part(bounds[1], bounds[2], size)
        if part is None:
            return None
        if part:
            found.append(part)
    if len(elements) > MAX_RANGES:
        return None
    return _joined(found)


def content_range(part: range, size: int) -> str:
    """The value of `Content-Range` for a part; for an empty one, that there is none of that."""
    return f"bytes {part.start}-{part.stop - 1}/{size}" if part else f"bytes */{size}"


def multipart(
    parts: Sequence[range], size: int, content_type: str
) -> tuple[str, list[bytes | range]]:
    """Several parts as one body (RFC 9110 section 14.6).

    Returns:
      The `Content-Type` of the body, and its pieces: bytes to send as they are, and parts of the
      file.
    """
    boundary = secrets.token_hex(16)  # so long that it does not come up in any file
    pieces: list[bytes | range] = []
    for part in parts:
        head = (
            f"--{boundary}\r\n"
            f"Content-Type: {content_type}\r\n"
            f"Content-Range: {content_range(part, size)}\r\n\r\n"
        )
        pieces += [f"\r\n{head}".encode("latin-1") if pieces else head.encode("latin-1"), part]
    pieces.append(f"\r\n--{boundary}--\r\n".encode("ascii"))
    return f"multipart/byteranges; boundary={boundary}", pieces


def _part(first: str, last: str, size: int) -> range | None:
    """What one element of `Range` asks for; `None` if it means nothing."""
    if not first:
        length = _position(last)
        # Of an empty file, the last bytes are none: that can only be said by sending all of it.
        return range(max(size - length, 0), size) if size or not length else None
    start = _position(first)
    if not last:
        return range(start, size)
    end = _position(last)
    return None if end < start else range(start, min(end + 1, size))


def _position(digits: str) -> int:
    return int(digits) if len(digits) <= _MAX_DIGITS else 10**_MAX_DIGITS


def _joined(parts: Sequence[range]) -> list[range]:
    """The parts without overlaps and small gaps, each in the place of its first one."""
    joined: list[tuple[int, range]] = []
    for index, part in sorted(enumerate(parts), key=lambda item: item[1].start):
        place, before = joined[-1] if joined else (0, range(0))
        if joined and part.start <= before.stop + _GAP:
            joined[-1] = min(place, index), range(before.start, max(before.stop, part.stop))
        else:
            joined.append((index, part))
    return [part for _, part in sorted(joined, key=lambda item: item[0])]
