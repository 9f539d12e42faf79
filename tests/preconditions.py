"""What RFC 9110 section 13.2.2 says of every combination of conditions and ranges, as an oracle.

It is written from the steps of that section and knows a header field by the name that the tables
here give to its value, so that it shares nothing with what parses them.
"""

from __future__ import annotations

import itertools
from email.utils import formatdate
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

MODIFIED = 1_700_000_000  # in seconds since 1970: long over
SIZE = 1000

# What a field says, and its value: `{etag}` is the entity tag of the file, `{tag}` the same without
# a `W/`, and `""` that there is no such field.
IF_MATCH = {
    "none": "",
    "match": "{etag}",
    "other": '"other"',
    "any": "*",
    "weak": "W/{tag}",
    "list": '"other", W/"more" ,, {etag}',
    "malformed": "other",
}
IF_NONE_MATCH = IF_MATCH
DATES = {
    "none": "",
    "earlier": formatdate(MODIFIED - 1, usegmt=True),
    "same": formatdate(MODIFIED, usegmt=True),
    "later": formatdate(MODIFIED + 1, usegmt=True),
    "invalid": "yesterday",
}
RANGES = {
    "none": "",
    "single": "bytes=10-19",
    "suffix": "bytes=-10",
    "open": "bytes=990-",
    "several": "bytes=0-9,500-509,900-",
    "unsatisfiable": "bytes=1000-",
    "malformed": "bytes=a-b",
    "reversed": "bytes=19-10",
    "too many": "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 1000, 10)),
    "overlapping": "bytes=10-19,15-29",
    "adjacent": "bytes=10-19,20-29",
}
IF_RANGE = {
    "none": "",
    "match": "{etag}",
    "weak": "W/{tag}",
    "other": '"other"',
    "same date": formatdate(MODIFIED, usegmt=True),
    "other date": formatdate(MODIFIED + 1, usegmt=True),
    "invalid": "yesterday",
}
METHODS = ("GET", "HEAD")


class Asked(NamedTuple):
    """A request, by the names of the values of its fields."""

    method: str
    if_match: str = "none"
    if_unmodified_since: str = "none"
    if_none_match: str = "none"
    if_modified_since: str = "none"
    range: str = "none"
    if_range: str = "none"

    def headers(self, etag: str) -> list[tuple[str, str]]:
        values = (
            ("If-Match", IF_MATCH[self.if_match]),
            ("If-Unmodified-Since", DATES[self.if_unmodified_since]),
            ("If-None-Match", IF_NONE_MATCH[self.if_none_match]),
            ("If-Modified-Since", DATES[self.if_modified_since]),
            ("Range", RANGES[self.range]),
            ("If-Range", IF_RANGE[self.if_range]),
        )
        tag = etag.removeprefix("W/")
        return [(name, value.format(etag=etag, tag=tag)) for name, value in values if value]


class Expected(NamedTuple):
    """What answers it: the status, and the parts that a 206 has."""

    status: Literal[200, 206, 304, 412, 416]
    parts: tuple[range, ...] = ()


def conditions() -> Iterator[tuple[str, str, str, str]]:
    """All combinations of what may be said by fields but `Range` and `If-Range`."""
    return itertools.product(IF_MATCH, DATES, IF_NONE_MATCH, DATES)


def all_asked() -> Iterator[Asked]:
    """Every combination there is: some 190 000."""
    for method, condition in itertools.product(METHODS, conditions()):
        for wanted, if_range in itertools.product(RANGES, IF_RANGE):
            yield Asked(method, *condition, wanted, if_range)


def expected(asked: Asked, *, is_strong: bool = True) -> Expected:
    """What RFC 9110 section 13.2.2 says, for a file whose validators are strong or weak."""
    # 1. If-Match: a strong comparison, so that a weak tag is never listed (section 13.1.1).
    if asked.if_match != "none":
        listed = asked.if_match in ("match", "list") and is_strong
        if not (listed or asked.if_match == "any"):
            return Expected(412)
    # 2. Without it, If-Unmodified-Since; what is no date is ignored (section 13.1.4).
    elif asked.if_unmodified_since == "earlier":
        return Expected(412)
    # 3. If-None-Match: a weak comparison (section 13.1.2), and 304 for both of our methods.
    if asked.if_none_match != "none":
        if asked.if_none_match in ("match", "weak", "list", "any"):
            return Expected(304)
    # 4. Without it, If-Modified-Since; what is no date is ignored (section 13.1.3).
    elif asked.if_modified_since in ("same", "later"):
        return Expected(304)
    # 5. Range with GET, and If-Range: a strong comparison, or exactly that date (section 13.1.5).
    if asked.method == "GET" and asked.range != "none":
        applies = is_strong and asked.if_range in ("match", "same date")
        if applies or asked.if_range == "none":
            return _expected_of_range(asked.range)
    # 6. All else.
    return Expected(200)


def _expected_of_range(name: str) -> Expected:
    parts: dict[str, tuple[range, ...]] = {
        "single": (range(10, 20),),
        "suffix": (range(990, 1000),),
        "open": (range(990, 1000),),
        "several": (range(10), range(500, 510), range(900, 1000)),
        # Coalesced, as section 15.3.7.2 allows it.
        "overlapping": (range(10, 30),),
        "adjacent": (range(10, 30),),
    }
    if name == "unsatisfiable":
        return Expected(416)
    # What is malformed, or asks for too much, may be ignored (section 14.2).
    return Expected(206, parts[name]) if name in parts else Expected(200)
