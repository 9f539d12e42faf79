"""Conditional requests (RFC 9110 section 13): what a client knows, held against what there is."""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

# RFC 9110 section 8.8.3.
_ENTITY_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')

# RFC 9110 section 5.6.7: the form of today, and the two that are obsolete.
_HTTP_DATE = re.compile(
    r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT"
    r"|\w{6,9}, \d\d-\w{3}-\d\d \d\d:\d\d:\d\d GMT"
    r"|\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}",
    re.ASCII,
)

_SECOND = 1_000_000_000  # in nanoseconds
_FIRST_SECOND = -62_135_596_800  # of the year 1, before which there are no dates


class Validators:
    """What tells one version of a file from another: `ETag` and `Last-Modified`.

    The entity tag is made of the time of the last modification, in nanoseconds, of the size and,
    for a precompressed file, of its coding. It is strong if that time is over for a second: until
    then, a further change might get the same time (RFC 9110 section 8.8.1), and the tag is weak.

    Args:
      modified_ns: When the file was last modified, in nanoseconds since 1970.
      size: In bytes.
      coding: That of its content: `"gzip"`; `""` if there is none.
      now_ns: The time of the clock, in nanoseconds since 1970.

    Attributes:
      etag: As in the header field.
      last_modified: As in the header field.
    """

    def __init__(self, modified_ns: int, size: int, coding: str, now_ns: int) -> None:
        self._is_strong = now_ns - modified_ns >= _SECOND
        # A date in the future would make no sense to a cache: RFC 9110 section 8.8.2.1.
        self._modified = max(min(modified_ns, now_ns) // _SECOND, _FIRST_SECOND)
        suffix = f"-{coding}" if coding else ""
        self.etag = f'{"" if self._is_strong else "W/"}"{modified_ns:x}-{size:x}{suffix}"'
        self.last_modified = formatdate(self._modified, usegmt=True)

    def check(self, fields: CIMultiDictProxy[str]) -> int | None:
        """The status that answers a GET or HEAD instead of the file, if there is one.

        In the order of RFC 9110 section 13.2.2.

        Returns:
          412, 304, or `None`: the conditions hold.
        """
        if "If-Match" in fields:
            if not self._is_listed(fields, "If-Match", is_weak=False):
                return 412
        elif (date := _date(fields, "If-Unmodified-Since")) is not None and self._modified > date:
            return 412
        if "If-None-Match" in fields:
            if self._is_listed(fields, "If-None-Match", is_weak=True):
                return 304
        elif (date := _date(fields, "If-Modified-Since")) is not None and self._modified <= date:
            return 304
        return None

    def allow_range(self, fields: CIMultiDictProxy[str]) -> bool:
        """Whether `If-Range`, if it is there, names this version (RFC 9110 section 13.1.5)."""
        if "If-Range" not in fields:
            return True
        value = ",".join(fields.getall("If-Range"))
        if _ENTITY_TAG.fullmatch(value):
            return self._is_strong and value == self.etag
        return self._is_strong and _date(fields, "If-Range") == self._modified

    def _is_listed(self, fields: CIMultiDictProxy[str], name: str, *, is_weak: bool) -> bool:
        for value in fields.getall(name):
            if value == "*":
                return True
            for tag in _ENTITY_TAG.findall(value):
                if is_weak and tag.removeprefix("W/") == self.etag.removeprefix("W/"):
                    return True
                if tag == self.etag and self._is_strong:
                    return True
        return False


def _date(fields: CIMultiDictProxy[str], name: str) -> int | None:
    """The date in a field, in seconds since 1970; `None` if there is none that is valid.

    Nor is it if there is more than one: RFC 9110 sections 13.1.3 and 13.1.4.
    """
    if not _HTTP_DATE.fullmatch(value := ",".join(fields.getall(name, ()))):
        return None
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return int(date.replace(tzinfo=UTC).timestamp())
