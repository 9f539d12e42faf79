"""Answers with files, without any connection: which of them, its fields, and its bytes."""

from __future__ import annotations

import errno
import itertools
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clients import body, open_descriptors, settled_descriptors
from tests.files import MODIFIED_NS, Answered, ask, make_file, sent_parts, take_apart
from tests.harness import pattern
from tests.preconditions import (
    IF_RANGE,
    METHODS,
    MODIFIED,
    RANGES,
    SIZE,
    Asked,
    Expected,
    all_asked,
    conditions,
    expected,
)
from trio_stream import App, Request, Response
from trio_stream._file import FileTooShortError, OpenFile, open_file, open_variants
from trio_stream._file_answer import FileOptions, answer_file
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trio_stream._file import OpenVariant

DATA = pattern(SIZE)
LARGE = os.environ.get("TRIO_STREAM_LARGE") == "1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_file(tmp_path / "file.bin", DATA, modified_ns=MODIFIED * 10**9 + 5)


# Conditions and ranges...


def check(answered: Answered, asked: Asked, want: Expected, etag: str) -> None:
    """Check all that an answer consists of."""
    status, fields, length, content = answered
    assert status == want.status, asked
    whole = {
        "Content-Type": "application/octet-stream",
        "ETag": etag,
        "Last-Modified": "Tue, 14 Nov 2023 22:13:20 GMT",
        "Accept-Ranges": "bytes",
    }
    if status == 304:
        assert (fields, length, content) == ({"ETag": etag}, 0, b""), asked
        return
    if status in (412, 416):
        text = {412: b"Precondition Failed\n", 416: b"Range Not Satisfiable\n"}[status]
        assert length == len(text), asked
        assert content == (b"" if asked.method == "HEAD" else text), asked
        unsatisfied = {"Content-Range": "bytes */1000"} if status == 416 else {}
        assert fields == unsatisfied | {"Content-Type": "text/plain; charset=utf-8"}, asked
        return
    if status == 200:
        assert (fields, length) == (whole, SIZE), asked
        assert content == (b"" if asked.method == "HEAD" else DATA), asked
        return
    assert length == len(content), asked
    ranges = [f"bytes {part[0]}-{part[-1]}/1000" for part in want.parts]
    expected_parts = list(
        zip(ranges, (DATA[part.start : part.stop] for part in want.parts), strict=True)
    )
    assert sent_parts(answered) == expected_parts, asked
    if len(ranges) == 1:
        assert fields == whole | {"Content-Range": ranges[0]}, asked
    else:
        assert fields == whole | {"Content-Type": fields["Content-Type"]}, asked
        types = [part.content_type for part in take_apart(fields["Content-Type"], content)]
        assert types == ["application/octet-stream"] * len(ranges), asked


def some_asked() -> Iterator[Asked]:
    """Each combination of conditions, each of ranges, and every so many-th of all.

    The step has no divisor in common with how many values a field has, so any few of them come
    together. With TRIO_STREAM_LARGE=1 in the environment it is all of them.
    """
    if LARGE:
        yield from all_asked()
        return
    for method, condition in itertools.product(METHODS, conditions()):
        yield Asked(method, *condition)
    for method, wanted, if_range in itertools.product(METHODS, RANGES, IF_RANGE):
        yield Asked(method, range=wanted, if_range=if_range)
        yield Asked(method, if_none_match="other", range=wanted, if_range=if_range)
    yield from itertools.islice(all_asked(), 0, None, 13)


def test_every_combination_of_conditions_and_ranges(path: Path) -> None:
    with open_file(path) as file:
        shared = OpenFile(file.fd, file.name, os.fstat(file.fd), is_owned=False)
        etag = ask(path).fields["ETag"]
        assert etag[0] == '"'
        for asked in some_asked():
            answered = ask(lambda _: shared, asked.headers(etag), method=asked.method)
            check(answered, asked, expected(asked), etag)


def test_weak_validators_name_no_range(path: Path) -> None:
    os.utime(path, (time.time() + 3600,) * 2)  # so that they stay weak
    etag = ask(path).fields["ETag"]
    assert etag.startswith('W/"')
    for wanted, if_range, if_match in itertools.product(
        RANGES, ("none", "match", "weak", "other", "invalid"), ("none", "match", "weak", "any")
    ):
        asked = Asked("GET", if_match=if_match, range=wanted, if_range=if_range)
        want = expected(asked, is_strong=False)
        answered = ask(path, asked.headers(etag))
        assert answered.status == want.status, asked
        if answered.status == 206:
            assert len(sent_parts(answered)) == len(want.parts)


async def test_combinations_on_one_connection(path: Path) -> None:
    """The framing of each is right: a client that keeps the connection reads the next."""
    app = App()

    @app.get("/")
    async def handler(res: Response, req: Request) -> None:
        await res.send_file(path)

    etag = ask(path).fields["ETag"]
    async with open_client(app) as client:
        for asked in itertools.islice(all_asked(), 0, None, 709):
            response = await client.request(asked.method, "/", headers=asked.headers(etag))
            fields = dict(response.headers)
            length = int(fields.pop("Content-Length", "0"))
            del fields["Date"]
            answered = Answered(response.status_code, fields, length, await response.read())
            check(answered, asked, expected(asked), etag)
        assert client.stats.open_connections == 1


# What an answer says of the file...


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("status", [200, 201, 404, 503])
def test_only_200_has_versions_and_parts(path: Path, method: str, status: int) -> None:
    headers = [("Range", "bytes=0-9"), ("If-None-Match", "*"), ("If-Match", '"other"')]
    answered = ask(path, headers, method=method, status=status)
    if status == 200 and method != "POST":
        assert answered.status == 412
        return
    assert answered == Answered(
        status,
        {"Content-Type": "application/octet-stream"},
        SIZE,
        b"" if method == "HEAD" else DATA,
    )


OPTIONS: dict[str, tuple[FileOptions, dict[str, str]]] = {
    "content_type": (FileOptions(content_type="a/b"), {"Content-Type": "a/b"}),
    "filename": (
        FileOptions(filename="x.txt"),
        {"Content-Disposition": 'inline; filename="x.txt"'},
    ),
    "download": (
        FileOptions(download=True),
        {"Content-Disposition": 'attachment; filename="file.bin"'},
    ),
    "download as": (
        FileOptions(download=True, filename="x.txt"),
        {"Content-Disposition": 'attachment; filename="x.txt"'},
    ),
    "download without a name": (
        FileOptions(download=True, filename=""),
        {"Content-Disposition": "attachment"},
    ),
    "cache_control": (FileOptions(cache_control="no-cache"), {"Cache-Control": "no-cache"}),
    "precompressed": (FileOptions(precompressed=True), {"Vary": "Accept-Encoding"}),
}


@pytest.mark.parametrize(("options", "fields"), OPTIONS.values(), ids=OPTIONS)
def test_options(path: Path, options: FileOptions, fields: dict[str, str]) -> None:
    plain = ask(path)
    assert ask(path, options=options) == plain._replace(fields=plain.fields | fields)
    answered = ask(path, [("Range", "bytes=0-4")], options=options)
    assert answered.fields == plain.fields | fields | {"Content-Range": "bytes 0-4/1000"}
    # RFC 9110 section 15.4.5: no more than that is to be kept up to date.
    answered = ask(path, [("If-None-Match", "*")], options=options)
    kept = {n: v for n, v in fields.items() if n in ("Cache-Control", "Vary")}
    assert answered.fields == {"ETag": plain.fields["ETag"]} | kept


@pytest.mark.parametrize("method", METHODS)
def test_empty_file(path: Path, method: str) -> None:
    make_file(path, b"")
    for header in ("", "bytes=-5"):
        answered = ask(path, [("Range", header)], method=method)
        assert (answered.status, answered.length, answered.body) == (200, 0, b"")
        assert answered.fields["Accept-Ranges"] == "bytes"
    answered = ask(path, [("Range", "bytes=0-")], method=method)
    assert answered.status == (416 if method == "GET" else 200)
    if method == "GET":
        assert answered.fields["Content-Range"] == "bytes */0"


def test_more_parts_than_bytes_are_sent_as_a_whole(path: Path) -> None:
    """The frames of two parts, which are that far apart, are larger than the rest of the file."""
    make_file(path, DATA[:200])
    answered = ask(path, [("Range", "bytes=0-9,190-199")])
    assert (answered.status, answered.length, answered.body) == (200, 200, DATA[:200])


def test_without_a_request(path: Path) -> None:
    answer = answer_file(open_variants(path), FileOptions(), None, 200)
    with answer.file:
        assert (answer.status, answer.length, answer.pieces) == (200, SIZE, [DATA])


# Siblings...

CODED = {"": b"plain" * 30, ".gz": b"gz" * 30, ".br": b"br" * 20, ".zst": b"zst" * 10}


@pytest.fixture
def variants(tmp_path: Path) -> Path:
    for suffix, data in CODED.items():
        make_file(tmp_path / f"page.html{suffix}", data)
    return tmp_path / "page.html"


@pytest.mark.parametrize(
    ("accept", "suffix"),
    [
        ([], ""),
        (["gzip"], ".gz"),
        (["gzip, br"], ".br"),
        (["gzip, br, zstd"], ".zst"),
        (["gzip", "br"], ".br"),
        (["gzip;q=1, br;q=0.9, zstd;q=0.9"], ".gz"),
        (["gzip;q=0.1, br;q=0.9"], ".br"),
        (["*"], ".zst"),
        (["*, zstd;q=0"], ".br"),
        (["gzip;q=0"], ""),
        (["identity, gzip;q=0.9"], ""),
        (["deflate"], ""),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_precompressed(variants: Path, accept: list[str], suffix: str, method: str) -> None:
    headers = [("Accept-Encoding", value) for value in accept]
    answered = ask(variants, headers, method=method, options=FileOptions(precompressed=True))
    coding = {"": None, ".gz": "gzip", ".br": "br", ".zst": "zstd"}[suffix]
    tag = f"{MODIFIED_NS:x}-{len(CODED[suffix]):x}{f'-{coding}' if coding else ''}"
    fields = {
        "Content-Type": "text/html; charset=utf-8",
        "Vary": "Accept-Encoding",
        "ETag": f'"{tag}"',
        "Last-Modified": "Tue, 14 Nov 2023 22:13:20 GMT",
        "Accept-Ranges": "bytes",
    } | ({"Content-Encoding": coding} if coding else {})
    body_sent = b"" if method == "HEAD" else CODED[suffix]
    assert answered == Answered(200, fields, len(CODED[suffix]), body_sent)
    # Of one version the next request is about the same.
    conditional = [*headers, ("If-None-Match", f'"{tag}"')]
    answered = ask(variants, conditional, method=method, options=FileOptions(precompressed=True))
    assert answered.status == 304
    assert answered.fields == {"ETag": f'"{tag}"', "Vary": "Accept-Encoding"}
    if method == "GET":
        ranged = [*headers, ("Range", "bytes=2-4"), ("If-Range", f'"{tag}"')]
        answered = ask(variants, ranged, options=FileOptions(precompressed=True))
        assert sent_parts(answered) == [(f"bytes 2-4/{len(CODED[suffix])}", CODED[suffix][2:5])]


def test_a_range_of_one_coding_is_not_continued_with_another(variants: Path) -> None:
    options = FileOptions(precompressed=True)
    etag = ask(variants, options=options).fields["ETag"]
    headers = [("Accept-Encoding", "gzip"), ("Range", "bytes=2-4"), ("If-Range", etag)]
    answered = ask(variants, headers, options=options)
    assert (answered.status, answered.body) == (200, CODED[".gz"])


@pytest.mark.parametrize("thing", ["missing", "folder", "FIFO"])
def test_a_sibling_that_can_not_be_had_is_passed_over(variants: Path, thing: str) -> None:
    sibling = variants.with_name("page.html.br")
    sibling.unlink()
    if thing == "folder":
        sibling.mkdir()
    elif thing == "FIFO":
        os.mkfifo(sibling)
    headers = [("Accept-Encoding", "br, gzip")]
    answered = ask(variants, headers, options=FileOptions(precompressed=True))
    assert answered.fields["Content-Encoding"] == "gzip"
    assert answered.body == CODED[".gz"]


def test_siblings_alone_are_no_file(variants: Path) -> None:
    variants.unlink()
    with pytest.raises(FileNotFoundError):
        ask(variants, [("Accept-Encoding", "gzip")], options=FileOptions(precompressed=True))


def test_siblings_are_left_alone_unless_asked_for(variants: Path) -> None:
    answered = ask(variants, [("Accept-Encoding", "gzip")])
    assert answered.body == CODED[""]
    assert not answered.fields.keys() & {"Vary", "Content-Encoding"}
    answered = ask(variants.with_name("page.html.gz"), options=FileOptions(precompressed=True))
    assert answered.fields["Content-Type"] == "application/gzip"
    assert "Content-Encoding" not in answered.fields


# What goes wrong...


@contextmanager
def no_descriptor_left_open() -> Iterator[None]:
    before = settled_descriptors()
    yield
    assert open_descriptors() == before


def test_descriptors_are_closed(variants: Path) -> None:
    options = FileOptions(precompressed=True)
    with no_descriptor_left_open():
        for headers in ([], [("Accept-Encoding", "gzip")], [("If-None-Match", "*")]):
            ask(variants, headers, options=options)


def test_file_that_is_cut_before_it_is_read(path: Path) -> None:
    def cut_and_open(suffix: str) -> OpenFile:
        file = open_file(f"{path}{suffix}")
        os.truncate(path, 20)
        return file

    with no_descriptor_left_open():
        with pytest.raises(FileTooShortError, match="now it ends before byte 20"):
            ask(cut_and_open, [("Range", "bytes=20-29")])
        # What is there is sent; the rest will be missed when its turn comes.
        make_file(path, DATA)
        answer = answer_file(cut_and_open, FileOptions(), None, 200)
        with answer.file:
            first, rest = answer.pieces
            assert (first, len(rest)) == (DATA[:20], SIZE - 20)


def test_file_that_can_not_be_read(path: Path) -> None:
    class Broken(OpenFile):
        def read(self, offset: int, size: int) -> bytes:
            raise OSError(errno.EIO, "broken disk")

    def open_broken(_: str) -> OpenFile:
        fd = os.open(path, os.O_RDONLY)
        return Broken(fd, "name", os.fstat(fd), is_owned=True)

    with no_descriptor_left_open():
        with pytest.raises(OSError, match="broken disk"):
            ask(open_broken)
        assert ask(open_broken, method="HEAD").length == SIZE


def test_text_that_no_field_can_hold(path: Path) -> None:
    with no_descriptor_left_open(), pytest.raises(ValueError, match="latin-1"):
        ask(
            path,
            [("Range", "bytes=0-0,500-500")],
            options=FileOptions(content_type="text/\u6b4c"),
        )


# Any ranges of any file...

FIRST_READ = 64 * 1024
SIZES = (0, 1, 1000, FIRST_READ - 1, FIRST_READ, FIRST_READ + 1, 3 * 1024 * 1024)


@pytest.fixture(scope="module")
def sized(tmp_path_factory: pytest.TempPathFactory) -> dict[int, OpenVariant]:
    """Files of these sizes."""
    folder = tmp_path_factory.mktemp("sizes")
    paths = [make_file(folder / str(size), bytes(body(0, size))) for size in SIZES]
    return dict(zip(SIZES, map(open_variants, paths), strict=True))


positions = st.integers(0, 4 * 1024 * 1024) | st.sampled_from(
    [size + near for size in SIZES for near in (-1, 0, 1) if size + near >= 0]
)
lengths = st.integers(1, 3000) | positions.filter(bool)
specs = (
    st.builds(lambda at, length: f"{at}-{at + length - 1}", positions, lengths)
    | positions.map("{}-".format)
    | positions.map("-{}".format)
)


@settings(max_examples=150, deadline=None)
@given(size=st.sampled_from(SIZES), wanted=st.lists(specs, min_size=1, max_size=6))
def test_any_ranges(sized: dict[int, OpenVariant], size: int, wanted: list[str]) -> None:
    answered = ask(sized[size], [("Range", f"bytes={','.join(wanted)}")])
    whole = body(0, size)
    assert answered.status in (200, 206, 416)
    assert answered.length == len(answered.body)
    if answered.status == 200:
        assert answered.body == whole
    elif answered.status == 206:
        sent = set[tuple[int, int]]()
        for content_range, data in sent_parts(answered):
            first, last = map(int, content_range.removeprefix("bytes ").split("/")[0].split("-"))
            assert content_range == f"bytes {first}-{last}/{size}"
            assert data == whole[first : last + 1]
            assert len(data) == last + 1 - first
            sent.add((first, last))
        for spec in wanted:  # each is in one of the parts, as far as there is any of it
            start, end = bounds(spec, size)
            assert start > end or any(first <= start and end <= last for first, last in sent)
    else:
        assert all(start > end for start, end in (bounds(spec, size) for spec in wanted))


def bounds(spec: str, size: int) -> tuple[int, int]:
    """The first and the last position that an element of `Range` means."""
    first, last = spec.split("-")
    if not first:
        return max(size - int(last), 0), size - 1
    return int(first), min(int(last or size), size - 1)


NAMES = ("Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "Accept-Encoding")
values = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=30).map(str.strip)


@settings(max_examples=150, deadline=None)
@given(headers=st.lists(st.tuples(st.sampled_from(NAMES), values), max_size=6))
def test_whatever_a_client_says_is_answered(
    sized: dict[int, OpenVariant], headers: list[tuple[str, str]]
) -> None:
    printable = [(name, value) for name, value in headers if value.isprintable()]
    answered = ask(sized[1000], printable, options=FileOptions(precompressed=True))
    assert answered.status in (200, 206, 304, 412, 416)
    assert answered.length == len(answered.body)
