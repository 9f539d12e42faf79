"""Conditions against the steps of RFC 9110 section 13.2.2, and fields that are malformed."""

from __future__ import annotations

import itertools
from email.utils import formatdate
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from tests.preconditions import IF_RANGE, MODIFIED, RANGES, Asked, conditions, expected
from trio_stream._conditions import Validators

if TYPE_CHECKING:
    from collections.abc import Iterable

SECOND = 1_000_000_000
MODIFIED_NS = MODIFIED * SECOND + 123_456_789
STRONG_AT = MODIFIED_NS + SECOND
NAMES = ("If-Match", "If-Unmodified-Since", "If-None-Match", "If-Modified-Since", "If-Range")


def fields(*items: tuple[str, str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(items))


def at(now_ns: int, *, modified_ns: int = MODIFIED_NS, coding: str = "") -> Validators:
    return Validators(modified_ns, 1000, coding, now_ns)


STRONG = at(STRONG_AT)
WEAK = at(STRONG_AT - 1)


@pytest.mark.parametrize(
    ("validators", "etag"),
    [
        (STRONG, f'"{MODIFIED_NS:x}-3e8"'),
        (WEAK, f'W/"{MODIFIED_NS:x}-3e8"'),
        (at(MODIFIED_NS), f'W/"{MODIFIED_NS:x}-3e8"'),
        (at(STRONG_AT, coding="gzip"), f'"{MODIFIED_NS:x}-3e8-gzip"'),
        (at(STRONG_AT, modified_ns=0), '"0-3e8"'),
        (at(STRONG_AT, modified_ns=-SECOND), '"-3b9aca00-3e8"'),
    ],
)
def test_etag(validators: Validators, etag: str) -> None:
    assert validators.etag == etag


@pytest.mark.parametrize(
    ("modified_ns", "date"),
    [
        (MODIFIED_NS, "Tue, 14 Nov 2023 22:13:20 GMT"),
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (-1, "Wed, 31 Dec 1969 23:59:59 GMT"),
        (-(2**31) * SECOND, "Fri, 13 Dec 1901 20:45:52 GMT"),
        (-(2**40) * SECOND, "Mon, 01 Jan 0001 00:00:00 GMT"),  # there is no date before it
        (STRONG_AT + 3600 * SECOND, "Tue, 14 Nov 2023 22:13:21 GMT"),  # never later than now
        (2**34 * SECOND, "Tue, 14 Nov 2023 22:13:21 GMT"),  # the latest date of ext4
    ],
)
def test_last_modified(modified_ns: int, date: str) -> None:
    assert at(STRONG_AT, modified_ns=modified_ns).last_modified == date


@pytest.mark.parametrize("validators", [STRONG, WEAK], ids=["strong", "weak"])
def test_every_combination_of_conditions(validators: Validators) -> None:
    for condition in conditions():
        asked = Asked("GET", *condition)
        headers = asked.headers(validators.etag)
        wanted = expected(asked, is_strong=validators is STRONG).status
        assert (validators.check(fields(*headers)) or 200) == wanted, asked


@pytest.mark.parametrize("validators", [STRONG, WEAK], ids=["strong", "weak"])
@pytest.mark.parametrize("if_range", IF_RANGE)
def test_if_range(validators: Validators, if_range: str) -> None:
    asked = Asked("GET", range="single", if_range=if_range)
    wanted = expected(asked, is_strong=validators is STRONG).status
    headers = asked.headers(validators.etag)
    assert dict(headers)["Range"] == RANGES["single"]
    assert validators.allow_range(fields(*headers)) == (wanted == 206)


@pytest.mark.parametrize(
    ("date", "is_valid"),
    [
        ("Tue, 14 Nov 2023 22:13:20 GMT", True),
        ("Tuesday, 14-Nov-23 22:13:20 GMT", True),
        ("Tue Nov 14 22:13:20 2023", True),
        ("Mon, 14 Nov 2023 22:13:20 GMT", True),  # nobody looks at the day of the week
        ("Tue, 14 Nov 2023 22:13:20", False),
        ("Tue, 14 Nov 2023 22:13:20 UTC", False),
        ("Tue, 14 Nov 2023 22:13:20 +0000", False),
        ("Tue, 14 Nov 2023 22:13:20 GMT,", False),
        ("14 Nov 2023 22:13:20 GMT", False),
        ("Tue, 14 Nov 23 22:13:20 GMT", False),
        ("Tue, 14 Xxx 2023 22:13:20 GMT", False),
        ("Tue, 31 Nov 2023 22:13:20 GMT", False),
        ("Tue, 14 Nov 2023 24:13:20 GMT", False),
        ("Tue, 14 Nov 2023 22:13:20 GMT, Tue, 14 Nov 2023 22:13:20 GMT", False),
        ("Tue, \u0661\u0664 Nov 2023 22:13:20 GMT", False),
        ("1700000000", False),
        ("2023-11-14T22:13:20Z", False),
    ],
)
def test_dates(date: str, is_valid: bool) -> None:
    """One that is valid here is that of the file; any other counts as if it were not there."""
    assert STRONG.check(fields(("If-Modified-Since", date))) == (304 if is_valid else None)
    assert STRONG.allow_range(fields(("If-Range", date))) == is_valid
    modified_since = at(STRONG_AT + SECOND, modified_ns=STRONG_AT)
    assert modified_since.check(fields(("If-Unmodified-Since", date))) == (
        412 if is_valid else None
    )


def test_asctime_pads_the_day_with_a_space() -> None:
    validators = at(STRONG_AT, modified_ns=784111777 * SECOND)
    for date in ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"):
        assert validators.allow_range(fields(("If-Range", date)))


@pytest.mark.parametrize("name", ["If-Unmodified-Since", "If-Modified-Since"])
def test_of_several_dates_none_counts(name: str) -> None:
    """RFC 9110 sections 13.1.3 and 13.1.4: nor if they come in a field each."""
    same, earlier = (formatdate(MODIFIED - age, usegmt=True) for age in (0, 1))
    for dates in itertools.product((same, earlier), repeat=2):
        assert STRONG.check(fields(*((name, date) for date in dates))) is None


def test_of_several_if_range_none_counts() -> None:
    """Which of them the client has parts of, nobody can tell."""
    for values in itertools.permutations((STRONG.etag, '"other"', STRONG.last_modified), 2):
        assert not STRONG.allow_range(fields(*(("If-Range", value) for value in values)))


@pytest.mark.parametrize(
    ("value", "is_listed"),
    [
        ("{etag}", True),
        ('"a","b",{etag}', True),
        (" , ,{etag}, ", True),
        ('"a,b", {etag}', True),
        ('"a\\", {etag}', True),  # there is no quoting in an entity tag
        ('"a, b" {etag}', True),
        ("{etag}-", True),
        ('"*"', False),
        ('"{etag}"', False),
        ('"', False),
        ("", False),
        ("W/", False),
        ("é", False),
    ],
)
@pytest.mark.parametrize("name", ["If-Match", "If-None-Match"])
def test_lists_of_entity_tags(name: str, value: str, is_listed: bool) -> None:
    value = value.format(etag=STRONG.etag)
    for items in ([(name, value)], [(name, '"x"'), (name, value)], [(name, value), (name, "")]):
        status = STRONG.check(fields(*items))
        if name == "If-Match":
            assert status == (None if is_listed else 412)
        else:
            assert status == (304 if is_listed else None)


def test_comparison_is_case_sensitive() -> None:
    assert STRONG.check(fields(("If-None-Match", STRONG.etag.upper()))) is None
    # An upper-case W is the only one there is: RFC 9110 section 8.8.3.
    assert STRONG.check(fields(("If-Match", "w/" + STRONG.etag))) is None


def test_coding_makes_another_version() -> None:
    coded = at(STRONG_AT, coding="gzip")
    assert coded.check(fields(("If-None-Match", STRONG.etag))) is None
    assert not coded.allow_range(fields(("If-Range", STRONG.etag)))


# Texts that are nearly right find more than any others.
TOKENS = (
    *('"', "W/", "*", ",", " ", "\t", STRONG.etag, STRONG.last_modified, '"x"', "\xff"),
    *("Tue", ", ", "14 Nov 2023", "-", ":", "22:13:20", "GMT", "0", "9999", "00 Jan 0000"),
)
texts = st.text(st.characters(max_codepoint=255), max_size=40) | st.lists(
    st.sampled_from(TOKENS), max_size=8
).map("".join)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(NAMES), texts), max_size=6))
def test_whatever_they_say_is_decided(items: Iterable[tuple[str, str]]) -> None:
    for validators in (STRONG, WEAK):
        assert validators.check(fields(*items)) in (None, 304, 412)
        assert validators.allow_range(fields(*items)) in (True, False)


names = st.sampled_from(("Sun", "Nov", "Feb", "Sunday", "dec", "gmt", "abc", "00a", "___", "012"))
digits = [st.integers(0, 10**size - 1).map(f"{{:0{size}}}".format) for size in range(1, 5)]
clocks = st.builds("{}:{}:{}".format, digits[1], digits[1], digits[1])


@settings(max_examples=200, deadline=None)
@given(
    st.builds("{}, {} {} {} {} GMT".format, names, digits[1], names, digits[3], clocks)
    | st.builds("{}, {}-{}-{} {} GMT".format, names, digits[1], names, digits[1], clocks)
    | st.builds("{} {}  {} {} {}".format, names, names, digits[0], clocks, digits[3])
)
def test_whatever_looks_like_a_date_is_decided(date: str) -> None:
    assert STRONG.check(fields(("If-Modified-Since", date))) in (None, 304)
    assert STRONG.check(fields(("If-Unmodified-Since", date))) in (None, 412)
