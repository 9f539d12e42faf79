"""The raw bytes of heads on their way into h11, which reads them more kindly than is safe.

What a lenient reader mends, another one on the way may have read otherwise, and between the two a
request can be smuggled (RFC 9112 section 11.2). So lines are checked before h11 forgets how they
were written. Nothing here depends on how the bytes were split over reads.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ._bad_request import BadRequestError
from ._grammar import TOKEN

if TYPE_CHECKING:
    from ._config import Config

# All but control characters; a tab is white space (RFC 9110 section 5.5).
_TEXT = bytes(code for code in range(256) if code == 0x09 or (code >= 0x20 and code != 0x7F))

# RFC 9112 section 3: the method, the target and the version.
REQUEST_LINE = re.compile(
    rb"(%b) ([\x21-\x7e]+) HTTP/([0-9]\.[0-9])(?=\r\n)" % TOKEN.encode("ascii")
)

_FOLD = re.compile(rb"\n[\t ]")

# RFC 9112 section 2.2 wants "at least one" of them ignored.
_MAX_EMPTY_LINES = 8


class HeadGuard:
    """Cuts the heads of requests out of what a client sends."""

    def __init__(self, config: Config) -> None:
        self._max_head_size = config.max_head_size
        self._max_target_size = config.max_target_size
        self._checked = 0
        self._empty_lines = 0

    def take_head(self, received: bytes) -> tuple[bytes, bytes]:
        """The next head, `b""` while it is not whole, and what remains of `received`.

        A whole one is still to be checked with `check_head`.

        Raises:
          BadRequestError: 400: this will not become a head. 414, 431: a limit is passed.
        """
        if received[:1] == b"\r":  # RFC 9112 section 2.2
            while received.startswith(b"\r\n"):
                self._empty_lines += 1
                if self._empty_lines > _MAX_EMPTY_LINES:
                    raise BadRequestError("too many empty lines before a request", 400)
                received = received[2:]
        end = received.find(b"\r\n\r\n", max(self._checked - 3, 0), self._max_head_size)
        if end < 0:
            self._check_part(received)
            return b"", received
        self._checked = self._empty_lines = 0
        return received[: end + 4], received[end + 4 :]

    def _check_part(self, received: bytes) -> None:
        """Refuse as early as possible what will not become a head."""
        part = received[: self._max_head_size]
        if part.find(b"\r\n", 0, self._checked) < 0:
            if b"\r\n" in part:
                _check_request_line(part)
            elif part[:1] in (b" ", b"\t"):
                raise BadRequestError("white space before the request line", 400)
        _check_fold(part[max(self._checked - 2, 0) :])
        unchecked = part[self._checked :].removesuffix(b"\r")
        check_lines(unchecked)
        self._checked += len(unchecked)
        if len(received) > self._max_head_size:
            raise self._too_large(part)

    def _too_large(self, part: bytes) -> BadRequestError:
        size = self._max_head_size
        words = part.partition(b"\r\n")[0].split(b" ")
        if len(words) == 1:
            return BadRequestError(f"no request line in {size} bytes", 400)
        if len(words) == 2 or len(words[1]) > self._max_target_size:
            return BadRequestError(f"a request target of at least {len(words[1])} bytes", 414)
        return BadRequestError(f"a head of more than {size} bytes", 431)


def check_head(head: bytes, config: Config) -> None:
    """Refuse a whole head whose lines have not the form of lines, or are too many.

    Raises:
      BadRequestError: 400 or 431.
    """
    count = check_lines(head) - 2
    if count > config.max_header_count:
        _check_request_line(head)
        raise BadRequestError(f"{count} header fields", 431)


def _check_request_line(head: bytes) -> None:
    if not REQUEST_LINE.match(head):
        line = head.partition(b"\r\n")[0]
        raise BadRequestError(f"{line!r} is not a request line", 400)


def check_lines(data: bytes) -> int:
    """Refuse whatever could be read as another division into lines; how many lines end in `data`.

    Raises:
      BadRequestError: 400: there is a bare CR or LF, another control character or a folded line
        (RFC 9112 sections 2.2 and 5.2, RFC 9110 section 5.5).
    """
    controls = data.translate(None, _TEXT)
    lines = len(controls) // 2
    if controls != b"\r\n" * lines or data.count(b"\r\n") != lines:
        raise BadRequestError("a bare CR or LF, or another control character", 400)
    _check_fold(data)
    return lines


def _check_fold(data: bytes) -> None:
    """Refuse a line that goes on in the next one (RFC 9112 section 5.2).

    Raises:
      BadRequestError: 400.
    """
    if _FOLD.search(data):
        raise BadRequestError("a line begins with white space", 400)
