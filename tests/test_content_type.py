"""What `Content-Type` says: grammar, parameters, and charsets."""

from __future__ import annotations

import encodings
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_stream import BadRequestError
from trio_stream._content_type import decode_text, parse_content_type


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", ("", {})),
        ("Text/Plain", ("text/plain", {})),
        (" text/plain\t; charset=utf-8", ("text/plain", {"charset": "utf-8"})),
        ("text/plain;Charset=UTF-8;a=1", ("text/plain", {"charset": "UTF-8", "a": "1"})),
        ('x/y; a="b; c=\\"d\\\\"; e=f', ("x/y", {"a": 'b; c="d\\', "e": "f"})),
        ('x/y; a=""; b=', ("x/y", {"a": "", "b": ""})),
        ("x/y;; ; a=1 ;", ("x/y", {"a": "1"})),
        ("x/y; a=1; a=2", ("x/y", {"a": "1"})),
        # As many a client writes it.
        ("x/y; boundary=----=_Part:1/2?3", ("x/y", {"boundary": "----=_Part:1/2?3"})),
        # For mail, and not for HTTP.
        ("x/y; a*=utf-8''b; c*0=d; e(f)=g", ("x/y", {"a*": "utf-8''b", "c*0": "d", "e(f)": "g"})),
        # What is malformed ends it.
        ("x/y; a=1; b; c=2", ("x/y", {"a": "1"})),
        ("x/y; a = 1", ("x/y", {})),
        ('x/y; a=1; b="c; d=2', ("x/y", {"a": "1", "b": ""})),
        ("x/y; a=1 b; c=2", ("x/y", {"a": "1"})),
    ],
)
def test_parse(value: str, expected: tuple[str, dict[str, str]]) -> None:
    assert parse_content_type(value) == expected


names = st.text(string.ascii_lowercase + string.digits + "!#$%&'*+-.^_`|~", min_size=1)
values = st.text(st.characters(max_codepoint=0xFF))


@given(st.dictionaries(names, values))
def test_what_is_quoted_is_read(parameters: dict[str, str]) -> None:
    pairs = []
    for name, value in parameters.items():
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        pairs.append(f'; {name}="{quoted}"')
    assert parse_content_type("x/y" + "".join(pairs)) == ("x/y", parameters)


@given(st.text(st.sampled_from('a=;", \\\t*')))
def test_whatever_it_is_ends(value: str) -> None:
    parse_content_type(value)


@pytest.mark.parametrize("filling", [";", '";', " ", " ;", "a=", "\\", 'a="', "a;", '"'])
def test_time_grows_with_the_length_only(filling: str) -> None:
    # With its square, this would take minutes.
    parse_content_type('x/y; a="' + filling * 500_000)


@pytest.mark.parametrize(
    ("charset", "data"),
    [
        ("UTF-8", "ä€".encode()),
        ("utf8", "ä€".encode()),
        ("utf-16", "ä€".encode("utf-16")),
        ("UTF-16LE", "ä€".encode("utf-16-le")),
        ("utf-32", "ä€".encode("utf-32")),
        ("iso-8859-15", b"\xe4\xa4"),
        ("windows-1252", b"\xe4\x80"),
        ("GB18030", "ä€".encode("gb18030")),
    ],
)
def test_charsets(charset: str, data: bytes) -> None:
    assert decode_text(data, charset) == "ä€"


@pytest.mark.parametrize("charset", ["us-ascii", "utf-8", "utf-16", "shift_jis", "euc-kr"])
def test_what_is_not_in_a_charset_is_refused(charset: str) -> None:
    with pytest.raises(BadRequestError) as refusal:
        decode_text(b"\xff", charset)
    assert refusal.value.status == 400


@pytest.mark.parametrize(
    "charset",
    [
        *("", "klingon", "utf-7", "punycode", "idna", "base64", "rot13", "unicode_escape"),
        *("raw_unicode_escape", "undefined", "mbcs", "../utf-8", "ä", "x" * 100_000),
    ],
)
def test_unknown_charsets_are_refused_and_not_kept(charset: str) -> None:
    before = len(encodings._cache)
    with pytest.raises(BadRequestError) as refusal:
        decode_text(b"x", charset)
    assert refusal.value.status == 415
    assert len(encodings._cache) == before
