"""Ranges: which parts a field asks for, and their framing as one body."""

from __future__ import annotations

from email.parser import BytesParser
from email.policy import HTTP
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.files import Part, take_apart
from trio_stream._ranges import MAX_RANGES, content_range, find_ranges, multipart

if TYPE_CHECKING:
    from collections.abc import Sequence

HUGE = "9" * 5000  # more digits than int() takes


@pytest.mark.parametrize(
    ("header", "parts"),
    [
        ("bytes=0-0", [range(1)]),
        ("bytes=0-999", [range(1000)]),
        ("bytes=999-999", [range(999, 1000)]),
        ("bytes=5-9", [range(5, 10)]),
        ("bytes=005-09", [range(5, 10)]),
        ("bytes=990-2000", [range(990, 1000)]),
        (f"bytes=990-{HUGE}", [range(990, 1000)]),
        ("bytes=990-", [range(990, 1000)]),
        ("bytes=-1", [range(999, 1000)]),
        ("bytes=-1000", [range(1000)]),
        ("bytes=-1001", [range(1000)]),
        (f"bytes=-{HUGE}", [range(1000)]),
        ("BYTES=5-9", [range(5, 10)]),
        ("bytes= 5-9 ", [range(5, 10)]),
        ("bytes=,\t,5-9 , ,", [range(5, 10)]),
        # In the order of the field.
        ("bytes=500-509,0-9", [range(500, 510), range(10)]),
        ("bytes=0-9,\t500-509 ,-1", [range(10), range(500, 510), range(999, 1000)]),
        # What can't be had is left out, if there is anything else.
        ("bytes=1000-,5-9,-0", [range(5, 10)]),
        # Joined: they overlap, one is in the other, or touch, or nearly do.
        ("bytes=0-9,5-14", [range(15)]),
        ("bytes=5-14,0-9", [range(15)]),
        ("bytes=0-99,10-19", [range(100)]),
        ("bytes=0-9,10-19", [range(20)]),
        ("bytes=0-9,90-99", [range(100)]),
        ("bytes=0-9,91-99", [range(10), range(91, 100)]),
        ("bytes=0-0,0-0,0-0", [range(1)]),
        # The place of a joined part is that of its first one.
        ("bytes=500-509,900-909,0-9,511-511", [range(500, 512), range(900, 910), range(10)]),
        ("bytes=900-909,0-9,910-919", [range(900, 920), range(10)]),
        # 416
        ("bytes=1000-", []),
        ("bytes=1000-1000", []),
        (f"bytes={HUGE}-", []),
        ("bytes=-0", []),
        ("bytes=1000-,2000-3000,-0", []),
        # None of them means anything, or all would be too much.
        ("", None),
        ("bytes", None),
        ("bytes=", None),
        ("bytes=,", None),
        ("bytes=-", None),
        ("bytes=5", None),
        ("bytes=a-b", None),
        ("bytes=9-5", None),
        ("bytes=0-1,9-5", None),
        ("bytes=0-1,x", None),
        ("bytes=0-1;2-3", None),
        ("bytes=--5", None),
        ("bytes=5--9", None),
        ("bytes=5-9-", None),
        ("bytes=5 -9", None),
        ("bytes=5- 9", None),
        ("bytes=+5-9", None),
        ("bytes=0x5-9", None),
        ("bytes=5_0-99", None),
        ("bytes=\u0665-\u0669", None),
        ("bytes =5-9", None),
        (" bytes=5-9", None),
        ("items=5-9", None),
        ("5-9", None),
        ("bytes=5-9\n", None),
        ("bytes=0-1,bytes=5-9", None),  # two fields
        ("bytes=" + "0-0," * MAX_RANGES + "0-0", None),
    ],
)
def test_parts(header: str, parts: list[range] | None) -> None:
    assert find_ranges(header, 1000) == parts


def test_as_many_parts_as_allowed() -> None:
    parts = [range(n * 100, n * 100 + 1) for n in range(MAX_RANGES)]
    header = "bytes=" + ",".join(f"{part.start}-{part.start}" for part in parts)
    assert find_ranges(header, 100 * MAX_RANGES) == parts


@pytest.mark.parametrize(
    ("header", "parts"),
    [
        ("bytes=0-", []),
        ("bytes=0-0", []),
        ("bytes=-0", []),
        ("bytes=1-,-0", []),
        # Satisfiable (RFC 9110 section 14.1.2), but no `Content-Range` can say what with.
        ("bytes=-1", None),
        ("bytes=0-,-1", None),
    ],
)
def test_parts_of_nothing(header: str, parts: list[range] | None) -> None:
    assert find_ranges(header, 0) == parts


def spec(bounds: tuple[int | None, int | None]) -> str:
    return "-".join("" if bound is None else str(bound) for bound in bounds)


def asked_for(bounds: tuple[int | None, int | None], size: int) -> set[int]:
    """The positions that one element asks for, as RFC 9110 section 14.1.2 puts it."""
    first, last = bounds
    if first is None:
        assert last is not None
        return set(range(size)[-last:]) if last else set()
    return {position for position in range(size)[first:] if last is None or position <= last}


positions = st.integers(0, 1200)
bounds = (
    st.tuples(positions, st.none())
    | st.tuples(st.none(), positions)
    | st.tuples(positions, positions).map(lambda pair: (min(pair), max(pair)))
)


@settings(max_examples=300, deadline=None)
@given(st.lists(bounds, min_size=1, max_size=12), st.integers(1, 1100))
def test_parts_are_all_that_was_asked_for(
    wanted: Sequence[tuple[int | None, int | None]], size: int
) -> None:
    parts = find_ranges("bytes=" + ",".join(map(spec, wanted)), size)
    assert parts is not None
    asked = set[int]().union(*(asked_for(each, size) for each in wanted))
    sent = [position for part in parts for position in part]
    assert set(sent) >= asked
    assert len(sent) == len(set(sent))
    assert all(part and 0 <= part.start < part.stop <= size for part in parts)
    # Nothing else but short gaps: each part begins and ends with what was asked for.
    for part in parts:
        assert {part[0], part[-1]} <= asked
        alone = sorted(set(part) - asked)
        assert all(any(n in asked for n in range(at, at + 81)) for at in alone)
    # Two that are near to each other would be one.
    for one in parts:
        for other in parts:
            assert one is other or one.start - other.stop > 80 or other.start - one.stop > 80


tokens = st.sampled_from(("bytes", "=", "-", ",", " ", "\t", "0", "5", "999", HUGE, "x", "\xff"))


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=30) | st.lists(tokens, max_size=12).map("".join),
    st.sampled_from(("", "bytes=")),
    st.sampled_from((0, 1, 1000, 2**62)),
)
def test_whatever_it_says_is_decided(text: str, prefix: str, size: int) -> None:
    parts = find_ranges(prefix + text, size)
    assert parts is None or all(0 <= part.start < part.stop <= size for part in parts)


@pytest.mark.parametrize(
    ("part", "size", "value"),
    [
        (range(1), 1, "bytes 0-0/1"),
        (range(10, 20), 1000, "bytes 10-19/1000"),
        (range(0), 1000, "bytes */1000"),
        (range(0), 0, "bytes */0"),
    ],
)
def test_content_range(part: range, size: int, value: str) -> None:
    assert content_range(part, size) == value


def test_multipart() -> None:
    content_type, pieces = multipart([range(10, 20), range(5)], 1000, "text/plain")
    boundary = content_type.removeprefix("multipart/byteranges; boundary=")
    assert len(boundary) == 32
    head = f"--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes "
    assert pieces == [
        f"{head}10-19/1000\r\n\r\n".encode(),
        range(10, 20),
        f"\r\n{head}0-4/1000\r\n\r\n".encode(),
        range(5),
        f"\r\n--{boundary}--\r\n".encode(),
    ]
    data = bytes(range(20))
    body = b"".join(p if isinstance(p, bytes) else data[p.start : p.stop] for p in pieces)
    assert take_apart(content_type, body) == parsed_as_mail(content_type, body)
    assert take_apart(content_type, body) == [
        Part("text/plain", "bytes 10-19/1000", data[10:20]),
        Part("text/plain", "bytes 0-4/1000", data[:5]),
    ]


def parsed_as_mail(content_type: str, body: bytes) -> list[Part]:
    """As the standard library reads it."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    parts = []
    for part in BytesParser(policy=HTTP).parsebytes(head + body).iter_parts():
        data = part.get_payload(decode=True)
        assert isinstance(data, bytes)
        parts.append(Part(part["Content-Type"], part["Content-Range"], data))
    return parts


def test_boundaries_differ() -> None:
    """Who could guess one could have a file that looks like two parts."""
    assert len({multipart([range(1)], 2, "a/b")[0] for _ in range(100)}) == 100
