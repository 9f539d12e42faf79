"""Media types, names in any script, and codings by their weights."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_stream._media import acceptable_codings, content_disposition, content_type
from trio_stream._response_head import ResponseHead

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("page.html", "text/html; charset=utf-8"),
        ("PAGE.HTML", "text/html; charset=utf-8"),
        ("style.css", "text/css; charset=utf-8"),
        ("picture.png", "image/png"),
        ("data.json", "application/json"),
        ("song.mp3", "audio/mpeg"),
        ("archive.zip", "application/zip"),
        # What is compressed is sent as it is.
        ("data.tar.gz", "application/gzip"),
        ("data.tgz", "application/gzip"),
        ("page.html.gz", "application/gzip"),
        ("page.html.br", "application/x-brotli"),
        ("data.tar.bz2", "application/x-bzip2"),
        ("data.tar.xz", "application/x-xz"),
        ("data.tar.Z", "application/x-compress"),
        ("no suffix", "application/octet-stream"),
        ("", "application/octet-stream"),
        (".html", "application/octet-stream"),
        ("name.unheard-of", "application/octet-stream"),
        ("caf\xe9.txt", "text/plain; charset=utf-8"),
        ("\udcff.txt", "text/plain; charset=utf-8"),
        # A name is no URL, whatever it looks like.
        ("http:page.html", "text/html; charset=utf-8"),
        ("data:,x.png", "image/png"),
        ("data:text.html", "text/html; charset=utf-8"),
        ("a?b#c.png", "image/png"),
    ],
)
def test_content_type(name: str, media_type: str) -> None:
    assert content_type(name) == media_type


@pytest.mark.parametrize(
    ("filename", "parameters"),
    [
        ("song.mp3", '; filename="song.mp3"'),
        ("two words.txt", '; filename="two words.txt"'),
        ("a;b=c.txt", '; filename="a;b=c.txt"'),
        ("caf\xe9.txt", "; filename=\"caf_.txt\"; filename*=UTF-8''caf%C3%A9.txt"),
        ("\u6b4c.mp3", "; filename=\"_.mp3\"; filename*=UTF-8''%E6%AD%8C.mp3"),
        ('say "hi"', "; filename=\"say _hi_\"; filename*=UTF-8''say%20%22hi%22"),
        ("100%.txt", "; filename=\"100_.txt\"; filename*=UTF-8''100%25.txt"),
        # Only the last part of a path is a name, in the style of any system.
        ("/etc/passwd", '; filename="passwd"'),
        ("..\\..\\autoexec.bat", '; filename="autoexec.bat"'),
        ("a\r\nSet-Cookie: b", '; filename="aSet-Cookie: b"'),
        ("\x00\x7f", ""),
        ("folder/", ""),
        ("", ""),
        # A name that is no UTF-8, as the file system has it.
        ("\udcff.txt", "; filename=\"_.txt\"; filename*=UTF-8''%EF%BF%BD.txt"),
    ],
)
def test_content_disposition(filename: str, parameters: str) -> None:
    assert content_disposition(filename, download=True) == f"attachment{parameters}"
    assert content_disposition(filename, download=False) == f"inline{parameters}"


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=30) | st.text(st.characters(max_codepoint=255), max_size=30))
def test_a_name_in_any_script_arrives(filename: str) -> None:
    value = content_disposition(filename, download=True)
    head = ResponseHead()
    head.write_header("Content-Disposition", value)  # which refuses what would split the head
    assert value.isascii()
    name = re.split(r"[/\\]", re.sub(r"[\x00-\x1f\x7f]", "", filename))[-1]
    match = re.fullmatch(
        r"attachment"
        r'(?:; filename="([ !#-\[\]-~]*)"'
        r"(?:; filename\*=UTF-8''((?:[A-Za-z0-9!#$&+\-.^_`|~]|%[0-9A-F]{2})*))?)?",
        value,
    )
    assert match is not None, value
    plain, extended = match.groups()
    if extended is not None:
        assert unquote(extended, errors="strict") == name
        assert len(plain) == len(name)
    else:
        assert (plain or "") == name


@pytest.mark.parametrize(
    ("fields", "codings"),
    [
        ([], []),
        ([""], []),
        (["gzip"], ["gzip"]),
        (["GZip"], ["gzip"]),
        (["x-gzip"], ["gzip"]),  # RFC 9110 section 8.4.1.3
        (["gzip, deflate, br, zstd"], ["zstd", "br", "gzip"]),
        (["gzip", "br"], ["br", "gzip"]),
        (["*"], ["zstd", "br", "gzip"]),
        (["*;q=0"], []),
        (["identity"], []),
        (["deflate, compress"], []),
        (["gzip;q=1.0, br;q=0.5, zstd;q=0.001"], ["gzip", "br", "zstd"]),
        (["gzip;q=0.5, br;q=0.5"], ["br", "gzip"]),
        (["gzip ; q=0.5\t,\tbr;Q=1"], ["br", "gzip"]),
        (["br;q=0, *"], ["zstd", "gzip"]),
        (["*;q=0.1, gzip"], ["gzip", "zstd", "br"]),
        (["gzip;q=0, gzip"], ["gzip"]),
        (["gzip;q=0"], []),
        (["gzip;q=0.000"], []),
        (["gzip;q=1."], ["gzip"]),
        (["gzip;q=0."], []),
        # What is as it is may be preferred, or not acceptable at all.
        (["identity, gzip;q=0.5"], []),
        (["gzip;q=0.3, *;q=0.5"], ["zstd", "br"]),
        (["gzip;q=0.3, *;q=0.5, identity;q=0.1"], ["zstd", "br", "gzip"]),
        (["identity;q=0.5, gzip;q=0.5, br;q=0.4"], ["gzip"]),
        (["identity;q=0, gzip;q=0.1"], ["gzip"]),
        # Malformed elements are left out.
        (["gzip;q=2, br"], ["br"]),
        (["gzip;q=0.1234, br"], ["br"]),
        (["gzip;q=-1, br"], ["br"]),
        (["gzip;q=, br"], ["br"]),
        (["gzip;level=9, br"], ["br"]),
        (["gzip br"], []),
        (["gzip;q=1e1"], []),
        (["gzip;q=\u0661"], []),
        ([",, ,gzip,"], ["gzip"]),
    ],
)
def test_acceptable_codings(fields: Sequence[str], codings: Sequence[str]) -> None:
    assert acceptable_codings(fields) == codings


weights = st.integers(0, 1000)
accepted = st.dictionaries(
    st.sampled_from(("gzip", "br", "zstd", "identity", "*", "deflate")), weights
)


@settings(max_examples=200, deadline=None)
@given(accepted)
def test_weights_decide(wanted: dict[str, int]) -> None:
    elements = [f"{coding};q={weight / 1000}" for coding, weight in wanted.items()]
    found = acceptable_codings([",".join(elements)])
    # In the words of RFC 9110 section 12.5.3: all that have a weight; "*" is for all others.
    weight = {c: wanted.get(c, wanted.get("*", 0)) for c in ("zstd", "br", "gzip", "identity")}
    least = weight.pop("identity")
    assert set(found) == {coding for coding in weight if weight[coding] and weight[coding] >= least}
    assert [weight[coding] for coding in found] == sorted(
        (weight[coding] for coding in found), reverse=True
    )


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.text(max_size=20)
        | st.lists(st.sampled_from(["gzip", "br", "*", ";", "q=", "0.5", ",", " "])).map("".join)
    )
)
def test_whatever_it_says_is_decided(fields: list[str]) -> None:
    assert set(acceptable_codings(fields)) <= {"zstd", "br", "gzip"}
