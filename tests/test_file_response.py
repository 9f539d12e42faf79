"""Files on the wire: byte for byte, whoever goes, and whatever becomes of the file."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import logging
import os
import random
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.clients import Bursts, body, open_descriptors, settled_descriptors, until
from tests.files import MODIFIED_NS, Answered, make_file, sent_parts
from tests.harness import (
    KINDS_OF_FILES,
    connect,
    decode,
    get,
    open_peer,
    start_server,
    without_date,
)
from tests.test_file import cool_down
from trio_stream import AbortReason, App, Config, Request, Response
from trio_stream._file import FilePart, OpenFile, open_file, open_variants
from trio_stream._file_answer import FileOptions
from trio_stream._file_response import send_file
from trio_stream._paced_part import PacedPart
from trio_stream._read_part import _READ_SIZE as READ_SIZE
from trio_stream._read_part import ReadPart
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.harness import Kind, Peer
    from trio_stream._file import OpenVariant
    from trio_stream._response_sending import Pieces

# Over the part that is sent at a time (with what is read before it), and not in whole pages.
SIZE = 2 * 1024 * 1024 + 150_005
TIMEOUT = 20  # a guard against hanging, no expectation

ETAG = f'"{MODIFIED_NS:x}-5"'
HEAD_LINES = (
    "Content-Type: text/plain; charset=utf-8\r\n"
    f"ETag: {ETAG}\r\n"
    "Last-Modified: Tue, 14 Nov 2023 22:13:20 GMT\r\n"
    "Accept-Ranges: bytes\r\n"
)


@pytest.fixture(params=KINDS_OF_FILES)
def kind(request: pytest.FixtureRequest) -> Kind:
    param: Kind = request.param
    return param


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return make_file(tmp_path / "small.txt", b"hello")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that no test changes."""
    return make_file(tmp_path_factory.mktemp("files") / "large.bin", bytes(body(0, SIZE)))


def make_app(file: Path, *, config: Config | None = None) -> App:
    app = App(config=config)

    @app.get("/file")
    async def handler(res: Response, _: Request) -> None:
        assert await res.send_file(file) in ((True, True), (False, True))

    @app.get("/next")
    def following(res: Response, _: Request) -> None:
        res.end("next")

    return app


NEXT = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnext"


async def exchange(app: App, kind: Kind, *requests: bytes) -> bytes:
    """All that comes back for some requests, sent at once, and one for `/next`."""
    async with open_peer(app, kind) as peer:
        with trio.fail_after(TIMEOUT):
            await peer.send_all(b"".join(requests) + get("/next", "Connection: close"))
            received = without_date(await peer.receive_until_eof())
    assert received.endswith(NEXT)
    return received.removesuffix(NEXT)


# To the byte...


@pytest.mark.parametrize(
    ("request_lines", "answer"),
    [
        ((), f"200 OK\r\n{HEAD_LINES}Content-Length: 5\r\n\r\nhello"),
        (
            ("Range: bytes=1-3",),
            (
                f"206 Partial Content\r\n{HEAD_LINES}Content-Range: bytes 1-3/5\r\n"
                "Content-Length: 3\r\n\r\nell"
            ),
        ),
        ((f"If-None-Match: {ETAG}",), f"304 Not Modified\r\nETag: {ETAG}\r\n\r\n"),
        (
            ("If-Match: x",),
            (
                "412 Precondition Failed\r\nContent-Type: text/plain; charset=utf-8\r\n"
                "Content-Length: 20\r\n\r\nPrecondition Failed\n"
            ),
        ),
        (
            ("Range: bytes=5-",),
            (
                "416 Range Not Satisfiable\r\nContent-Range: bytes */5\r\n"
                "Content-Type: text/plain; charset=utf-8\r\n"
                "Content-Length: 22\r\n\r\nRange Not Satisfiable\n"
            ),
        ),
    ],
)
async def test_exact_bytes(
    kind: Kind, small: Path, request_lines: tuple[str, ...], answer: str
) -> None:
    asked = get("/file", *request_lines)
    assert await exchange(make_app(small), kind, asked, asked) == 2 * f"HTTP/1.1 {answer}".encode()


async def test_head_has_the_fields_of_get_and_no_body(kind: Kind, small: Path) -> None:
    asked = get("/file", "Range: bytes=1-3", method="HEAD")
    received = await exchange(make_app(small), kind, asked, asked)
    assert received == 2 * f"HTTP/1.1 200 OK\r\n{HEAD_LINES}Content-Length: 5\r\n\r\n".encode()


async def test_empty_file(kind: Kind, small: Path) -> None:
    make_file(small, b"")
    lines = HEAD_LINES.replace('-5"', '-0"')
    expected = f"HTTP/1.1 200 OK\r\n{lines}Content-Length: 0\r\n\r\n".encode()
    received = await exchange(make_app(small), kind, get("/file"), get("/file", method="HEAD"))
    assert received == 2 * expected


async def test_http_1_0(kind: Kind, small: Path) -> None:
    async with open_peer(make_app(small), kind) as peer:
        await peer.send_all(get("/file", version="1.0"))
        head = f"HTTP/1.1 200 OK\r\n{HEAD_LINES}Content-Length: 5\r\nConnection: close\r\n\r\n"
        assert without_date(await peer.receive_until_eof()) == f"{head}hello".encode()


RANGES = (
    ((0, SIZE),),
    ((0, 1),),
    ((SIZE - 1, SIZE),),
    ((64 * 1024 - 1, 2 * 1024 * 1024 + 140_000),),
    ((2_000_000, 2_200_000), (5, 100), (65_000, 200_000)),
)


@pytest.mark.parametrize("spans", RANGES)
async def test_large_file_and_parts_of_it(
    kind: Kind, large: Path, spans: tuple[tuple[int, int], ...]
) -> None:
    header = ",".join(f"{start}-{stop - 1}" for start, stop in spans)
    async with open_peer(make_app(large), kind, window=50_000) as peer:
        with trio.fail_after(TIMEOUT):
            await peer.send_all(get("/file", f"Range: bytes={header}") + get("/next"))
            received = bytearray()
            while not received.endswith(b"\r\n\r\nnext"):
                received += await peer.receive_some()
    answer, rest = decode(bytes(received))
    assert answer.status == 206
    assert answer.is_whole
    assert decode(rest)[0].body == b"next"
    pieces = [bytes(body(start, stop - start)) for start, stop in spans]
    if len(pieces) == 1:
        assert answer.body == pieces[0]
    else:
        at = 0
        for piece in pieces:  # in this order, with less than a kilobyte of framing before each
            found = answer.body.index(piece, at)
            assert found - at < 1000
            at = found + len(piece)


async def fetch(app: App, kind: Kind, request: bytes) -> bytes:
    """What is answered by a server that closes then, to a client with much room."""
    received = bytearray()
    if kind == "memory":
        async with open_client(app, window=SIZE) as client:
            await client.send_all(request)
            while data := await client.receive_some():
                received += data
        return bytes(received)
    async with trio.open_nursery() as nursery:
        server = await start_server(nursery, app, epoll=kind == "socket")
        async with await connect(server.port) as stream:
            await stream.send_all(request)
            while data := await stream.receive_some(1024 * 1024):
                received += data
        nursery.cancel_scope.cancel()
    return bytes(received)


@settings(max_examples=15, deadline=None)
@given(
    cuts=st.lists(st.integers(0, SIZE - 1), min_size=2, max_size=8, unique=True).filter(
        lambda cuts: len(cuts) % 2 == 0
    ),
    suffix=st.none() | st.integers(1, SIZE),
)
@pytest.mark.parametrize("kind", KINDS_OF_FILES)
def test_any_ranges(kind: Kind, large: Path, cuts: list[int], suffix: int | None) -> None:
    edges = sorted(cuts)
    specs = [f"{first}-{last}" for first, last in zip(edges[::2], edges[1::2], strict=True)]
    if suffix is not None:
        specs.append(f"-{suffix}")
    request = get("/file", f"Range: bytes={','.join(specs)}", "Connection: close")

    async def main() -> bytes:
        with trio.fail_after(TIMEOUT):
            return await fetch(make_app(large), kind, request)

    answer, rest = decode(trio.run(main))
    assert rest == b""
    assert answer.is_whole
    fields = {name.decode(): value.decode() for name, value in answer.fields}
    if answer.status == 200:  # with its frames, it would have been longer
        assert answer.body == body(0, SIZE)
        return
    for content_range, data in sent_parts(Answered(206, fields, 0, answer.body)):
        first, last = map(int, content_range.removeprefix("bytes ").split("/")[0].split("-"))
        assert data == body(first, last + 1 - first)


# What the handler says of it...


async def test_fields_that_were_written_before_are_kept(kind: Kind, small: Path) -> None:
    app = make_app(small)

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        res.write_header("content-type", "a/b").write_header("ETag", '"mine"')
        res.write_header("Vary", "Cookie").write_header("X", "y")
        await res.send_file(small, content_type="c/d", cache_control="no-cache", precompressed=True)

    assert await exchange(app, kind, get("/")) == (
        b"HTTP/1.1 200 OK\r\n"
        b'ETag: "mine"\r\nVary: Cookie\r\nX: y\r\nContent-Type: a/b\r\nVary: Accept-Encoding\r\n'
        b"Cache-Control: no-cache\r\nLast-Modified: Tue, 14 Nov 2023 22:13:20 GMT\r\n"
        b"Accept-Ranges: bytes\r\nContent-Length: 5\r\n\r\nhello"
    )


async def test_content_type_that_was_written_before_is_that_of_each_part(large: Path) -> None:
    """Else nobody could take the parts apart."""
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        res.write_header("Content-Type", "audio/mpeg")
        await res.send_file(large)

    async with open_client(app) as client:
        ranges = [("Range", "bytes=0-9,1000-1009")]
        response = await client.request("GET", "/", headers=ranges)
        (content_type,) = response.headers.getall("Content-Type")
        assert content_type.startswith("multipart/byteranges; boundary=")
        data = await response.read()
        assert data.count(b"\r\nContent-Type: audio/mpeg\r\n") == 2


@pytest.mark.parametrize(
    ("field", "status"), [(("If-Match", "x"), 412), (("Range", "bytes=5-"), 416)]
)
async def test_content_type_that_was_written_before_is_not_that_of_a_refusal(
    small: Path, field: tuple[str, str], status: int
) -> None:
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        res.write_header("Content-Type", "audio/mpeg").write_header("Content-Encoding", "gzip")
        await res.send_file(small)

    async with open_client(app) as client:
        response = await client.request("GET", "/", headers=[field])
        assert response.status_code == status
        assert "Content-Encoding" not in response.headers
        assert response.headers.getall("Content-Type") == ["text/plain; charset=utf-8"]


async def test_another_status_has_no_versions_and_parts(kind: Kind, small: Path) -> None:
    app = make_app(small)

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        res.write_status("404 Gone Fishing")
        assert await res.send_file(small) == (True, True)

    asked = get("/", "Range: bytes=1-2", "If-None-Match: *", "If-Match: x")
    assert await exchange(app, kind, asked) == (
        b"HTTP/1.1 404 Gone Fishing\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 5\r\n\r\nhello"
    )


async def test_the_answer_to_a_post(kind: Kind, small: Path) -> None:
    app = make_app(small)

    @app.post("/")
    async def handler(res: Response, _: Request) -> None:
        await res.send_file(small, download=True, filename="caf\xe9")

    asked = get("/", "Range: bytes=1-2", "If-None-Match: *", "Content-Length: 0", method="POST")
    assert await exchange(app, kind, asked) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Disposition: "
        b"attachment; filename=\"caf_\"; filename*=UTF-8''caf%C3%A9\r\n"
        b"Content-Length: 5\r\n\r\nhello"
    )


# Open files...


async def test_open_file_stays_as_it_is(kind: Kind, large: Path) -> None:
    app = make_app(large)
    with large.open("rb") as file:
        file.seek(7)

        @app.get("/")
        async def handler(res: Response, _: Request) -> None:
            await res.send_file(file)

        asked = get("/", "Range: bytes=100-99999")
        answer, _ = decode(await exchange(app, kind, asked))
        assert answer.status == 206
        assert answer.body == body(100, 99_900)
        assert file.tell() == 7
        assert file.read(3) == body(7, 3)


async def test_unnamed_and_trio_files(tmp_path: Path) -> None:
    path = make_file(tmp_path / "name.txt", b"12345")
    with tempfile.TemporaryFile() as unnamed:
        unnamed.write(b"123")  # which is not on the disk yet
        async with await trio.open_file(path, "rb") as named:
            app = App()
            app.get("/unnamed", lambda res, _: res.send_file(unnamed))
            app.get("/named", lambda res, _: res.send_file(named))
            async with open_client(app) as client:
                response = await client.get("/unnamed")
                assert await response.read() == b""
                unnamed.flush()
                response = await client.get("/unnamed")
                assert await response.read() == b"123"
                assert response.headers["Content-Type"] == "application/octet-stream"
                response = await client.get("/named")
                assert await response.read() == b"12345"
                assert response.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("epoll", [True, False])
async def test_one_open_file_for_many_at_once(
    large: Path, epoll: bool, nursery: trio.Nursery
) -> None:
    app = App()
    with large.open("rb") as file:

        @app.get("/:start")
        async def handler(res: Response, req: Request) -> None:
            await res.send_file(file)

        server = await start_server(nursery, app, epoll=epoll)

        async def start_client(number: int) -> None:
            start = number * 100_000
            async with await connect(server.port, receive_buffer=4096) as stream:
                await stream.send_all(
                    get("/0", f"Range: bytes={start}-{start + 300_000}", "Connection: close")
                )
                bursts = Bursts(number)
                received = bytearray()
                while data := await stream.receive_some(await bursts.next_size()):
                    received += data
            answer, _ = decode(bytes(received))
            assert answer.is_whole
            assert answer.body == body(start, 300_001)

        with trio.fail_after(TIMEOUT):
            async with trio.open_nursery() as clients:
                for number in range(15):
                    clients.start_soon(start_client, number)
        assert server.stats.body_bytes_sent == 15 * 300_001
        assert server.stats.aborts.total() == 0
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("epoll", [True, False])
async def test_many_downloads_at_once(large: Path, epoll: bool, nursery: trio.Nursery) -> None:
    server = await start_server(nursery, make_app(large), epoll=epoll)
    before = settled_descriptors()
    digest = hashlib.sha256(body(0, SIZE)).digest()

    async def start_client() -> None:
        async with await connect(server.port) as stream:
            await stream.send_all(get("/file", "Connection: close"))
            received = bytearray()
            while data := await stream.receive_some(1024 * 1024):
                received += data
        head, _, data = bytes(received).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert hashlib.sha256(data).digest() == digest

    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as clients:
            for _ in range(20):
                clients.start_soon(start_client)
        await until(lambda: open_descriptors() == before)
    assert server.stats.body_bytes_sent == 20 * SIZE
    nursery.cancel_scope.cancel()


# What can't be sent...


def make_things(folder: Path) -> dict[str, object]:
    os.mkfifo(folder / "fifo")
    return {
        "missing": folder / "missing",
        "folder": folder,
        "fifo": folder / "fifo",
        "type": 7,
        "name": make_file(folder / "small", b"hello"),
    }


@pytest.mark.parametrize(
    ("thing", "error"),
    [
        ("missing", FileNotFoundError),
        ("folder", IsADirectoryError),
        ("fifo", OSError),
        ("type", TypeError),
    ],
)
async def test_nothing_is_sent_of_what_is_no_file(
    kind: Kind,
    thing: str,
    error: type[Exception],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = make_things(tmp_path)[thing]
    app = make_app(tmp_path)
    raised: list[Exception] = []

    @app.get("/caught")
    async def catch(res: Response, _: Request) -> None:
        try:
            await res.send_file(file, cache_control="no-cache")  # type: ignore[arg-type]
        except error as exc:
            raised.append(exc)
            res.write_status(404).end("none")

    @app.get("/raised")
    async def let_pass(res: Response, _: Request) -> None:
        await res.send_file(file)  # type: ignore[arg-type]

    received = await exchange(app, kind, get("/caught"), get("/raised"))
    assert received == (
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone"
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 22\r\n\r\nInternal Server Error\n"
    )
    (record,) = caplog.records
    assert record.getMessage().startswith("GET /raised: the handler raised an exception (request ")
    assert record.exc_info is not None
    assert [type(record.exc_info[1])] == [type(exc) for exc in raised]
    caplog.clear()


async def test_file_that_is_open_for_writing_only(small: Path) -> None:
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        with small.open("ab") as file, pytest.raises(OSError, match="Bad file descriptor"):
            await res.send_file(file)
        res.end("nothing was sent")

    async with open_client(app) as client:
        response = await client.get("/")
        assert await response.read() == b"nothing was sent"


@pytest.mark.parametrize(
    "options",
    [
        {"content_type": "a\r\nb"},
        {"content_type": "text/\u6b4c"},
        {"cache_control": "a\nb"},
        {"filename": "x", "cache_control": "\u6b4c"},
    ],
)
async def test_text_that_no_field_can_hold(small: Path, options: dict[str, str]) -> None:
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        before = settled_descriptors()
        with pytest.raises(ValueError, match=r"can't be|ISO-8859-1"):
            await res.send_file(small, **options)  # type: ignore[arg-type]
        assert open_descriptors() == before
        res.end("nothing was sent")

    async with open_client(app) as client:
        response = await client.request("GET", "/", headers=[("Range", "bytes=1-2")])
        assert await response.read() == b"nothing was sent"
        assert response.status_code == 200
        assert response.headers.keys() == {"Date", "Content-Length"}


async def test_after_the_head(small: Path) -> None:
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        await res.send_chunk(b"12", 5)
        with pytest.raises(RuntimeError, match=r"send_file\(\) came after the head"):
            await res.send_file(small)
        await res.send_chunk(b"345", 5)
        with pytest.raises(RuntimeError, match=r"send_file\(\) came after the head"):
            await res.send_file(small)

    async with open_client(app) as client:
        response = await client.get("/")
        assert await response.read() == b"12345"


async def test_head_that_somebody_else_sends_meanwhile(small: Path) -> None:
    """While a thread opens the file."""
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        before = settled_descriptors()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(res.send_chunk, b"12345", 5)
            with pytest.raises(RuntimeError, match="came after the head"):
                await res.send_file(small)
        assert open_descriptors() == before

    async with open_client(app) as client:
        response = await client.get("/")
        assert await response.read() == b"12345"


async def test_two_at_once_on_one_response(large: Path) -> None:
    app = App()
    errors: list[Exception] = []

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        async def send() -> None:
            try:
                await res.send_file(large)
            except (RuntimeError, trio.BusyResourceError) as exc:
                errors.append(exc)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(send)

    async with open_client(app) as client:
        response = await client.get("/")
        assert await response.read() == body(0, SIZE)
    assert len(errors) == 1


# A file that changes while it is sent...


class Download:
    """A response with a file, of which the client has not received anything yet.

    Attributes:
      peer: The client.
      response: The one that is parked.
      errors: What `send_file` has raised.
      offset: That of the response when `send_file` was over.
    """

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.responses: list[Response] = []
        self.errors: list[BaseException] = []
        self.scope = trio.CancelScope()
        self.over = trio.Event()
        self.offset = -1

    @property
    def response(self) -> Response:
        return self.responses[0]

    async def receive_body(self) -> bytes:
        """What comes of the body until the connection ends."""
        head = await self.peer.receive_head()
        assert head.startswith((b"HTTP/1.1 200 OK", b"HTTP/1.1 206"))
        return await self.peer.receive_until_eof()


@contextlib.asynccontextmanager
async def parked_download(
    kind: Kind,
    open_variant: OpenVariant,
    *lines: str,
    config: Config | None = None,
    after: Callable[[Response], object] | None = None,
) -> AsyncIterator[Download]:
    """Have a file sent until the client, which does not read, has no more room."""
    app = App(config=config)
    downloads: list[Download] = []

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        (download,) = downloads
        download.responses.append(res)
        try:
            with download.scope:
                await send_file(res, open_variant, FileOptions())
        except BaseException as exc:
            download.errors.append(exc)
            raise
        finally:
            download.offset = res.get_write_offset()
            download.over.set()
        if after is not None:
            await trio.lowlevel.checkpoint()
            after(res)

    async with open_peer(app, kind, window=100_000, receive_buffer=1024) as peer:
        downloads.append(Download(peer))
        with trio.fail_after(TIMEOUT):
            await peer.send_all(get("/", *lines))
            await until(lambda: peer.stats.parks > 0)
            yield downloads[0]


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A large file that a test may change."""
    return make_file(tmp_path / "victim.bin", bytes(body(0, SIZE)))


@pytest.mark.parametrize("size", [0, 128 * 1024, 2 * 1024 * 1024 + 64 * 1024])
async def test_file_that_shrinks_is_cut_and_never_padded(
    kind: Kind, size: int, victim: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = settled_descriptors()
    async with parked_download(kind, open_variants(victim)) as download:
        parked_at = download.response.get_write_offset()
        os.truncate(victim, size)
        received = await download.receive_body()
        assert received[:size] == body(0, min(len(received), size))
        rest = received[size:]
        # What the kernel has taken are the pages themselves, which it may have cleared since.
        assert rest == body(size, len(rest)) or (kind == "socket" and not rest.strip(b"\0"))
        # What was read ahead is sent, after the piece that is being sent.
        assert parked_at <= len(received) <= max(parked_at + 2 * READ_SIZE, size)
        (error,) = download.errors
        assert isinstance(error, EOFError)
        assert download.response.abort_reason is AbortReason.INCOMPLETE
        assert download.offset == len(received)
    assert open_descriptors() == before
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [error]
    caplog.clear()


async def test_file_that_grows_is_sent_up_to_its_first_length(kind: Kind, victim: Path) -> None:
    async with parked_download(kind, open_variants(victim), "Connection: close") as download:
        with victim.open("ab") as file:
            file.write(b"more" * 100_000)
        assert await download.receive_body() == body(0, SIZE)
        assert download.errors == []


async def test_file_that_is_replaced_is_sent_as_it_was(kind: Kind, victim: Path) -> None:
    async with parked_download(kind, open_variants(victim), "Connection: close") as download:
        victim.unlink()
        victim.write_bytes(b"another one")
        assert await download.receive_body() == body(0, SIZE)


# Whoever goes, and when...


@pytest.mark.parametrize("cancel_on_abort", [True, False])
async def test_gone_while_parked(
    kind: Kind, cancel_on_abort: bool, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told as by `send_chunk`, however the file is sent; and no more of it is read."""
    app = App(cancel_on_abort=cancel_on_abort)
    results: list[object] = []
    over = trio.Event()
    responses: list[Response] = []

    def note_next(part: type[Pieces]) -> None:
        real_next = part.next

        async def next_piece(self: Pieces, sent: int) -> memoryview | FilePart:
            assert not responses[0].aborted
            return await real_next(self, sent)

        monkeypatch.setattr(part, "next", next_piece)

    note_next(PacedPart)
    note_next(ReadPart)

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        responses.append(res)
        try:
            results.append(await res.send_file(large))
        finally:
            over.set()

    async with open_peer(app, kind, window=100_000, receive_buffer=1024) as peer:
        with trio.fail_after(TIMEOUT):
            await peer.send_all(get("/"))
            await peer.receive_head()
            await peer.receive_exactly(64 * 1024)
            await until(lambda: peer.stats.parks > 0)
            await peer.reset()
            await over.wait()
    assert results == [(False, True)]


@pytest.mark.usefixtures("unknown")
@pytest.mark.parametrize("lines", [(), ("Range: bytes=0-499",)])
async def test_cancelled_before_the_first_byte_and_answered_otherwise(
    lines: tuple[str, ...], small: Path
) -> None:
    """Nothing is left of the head of the file."""
    app = App()

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        res.write_header("X-Is", "kept")
        scope = trio.CancelScope()

        def open_slowly(_: str) -> OpenFile:
            trio.from_thread.run_sync(scope.cancel)
            return open_file(small)

        with scope:
            await send_file(res, open_slowly, FileOptions(cache_control="immutable"))
        assert scope.cancelled_caught
        res.end("slow")

    async with open_peer(app, "memory") as peer:
        await peer.send_all(get("/", *lines, "Connection: close"))
        assert without_date(await peer.receive_until_eof()) == (
            b"HTTP/1.1 200 OK\r\nX-Is: kept\r\nContent-Length: 4\r\nConnection: close\r\n\r\nslow"
        )


@pytest.mark.usefixtures("unknown")
async def test_nobody_sends_between_two_pieces(large: Path) -> None:
    app = App()

    @app.get("/")
    async def handler(res: Response, req: Request) -> None:
        async def send_file_slowly() -> None:
            await send_file(res, lambda _: SlowFile(large, gate, 64 * 1024), FileOptions())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_file_slowly)
            await until(gate.reached.is_set)
            while res.get_write_offset() < 64 * 1024:
                await trio.lowlevel.checkpoint()
            for _ in range(10):
                await trio.lowlevel.checkpoint()
            with pytest.raises(trio.BusyResourceError):
                res.try_end(b"!", SIZE)
            gate.open()

    with open_gate() as gate:
        async with open_client(app) as client:
            with trio.fail_after(TIMEOUT):
                response = await client.get("/")
                assert await response.read() == body(0, SIZE)


async def test_cancelled_though_the_client_takes_all(kind: Kind, large: Path) -> None:
    offsets: list[int] = []
    app = App(config=Config(send_budget=1000))

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        async def cancel_soon() -> None:
            while res.get_write_offset() <= 64 * 1024:
                await trio.lowlevel.checkpoint()
            scope.cancel()

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_soon)
                await res.send_file(large)
        assert scope.cancelled_caught
        offsets.append(res.get_write_offset())

    async with open_peer(app, kind, window=SIZE) as peer:
        with trio.fail_after(TIMEOUT):
            await peer.send_all(get("/"))
            _, _, data = (await peer.receive_until_eof()).partition(b"\r\n\r\n")
    assert data == body(0, offsets[0])
    assert 64 * 1024 < offsets[0] < SIZE


async def test_cancelled_while_parked(kind: Kind, large: Path) -> None:
    before = settled_descriptors()
    async with parked_download(kind, open_variants(large)) as download:
        download.scope.cancel()
        await download.over.wait()
        assert download.offset == download.response.get_write_offset() > 0
        received = await download.receive_body()
        assert received == body(0, download.offset)
        assert download.response.abort_reason is AbortReason.INCOMPLETE
    assert open_descriptors() == before


async def test_cancelled_while_parked_and_ended_otherwise(kind: Kind, large: Path) -> None:
    """The offset is exact, so the rest can still be sent; nobody may use the connection after."""

    def end(res: Response) -> None:
        start = res.get_write_offset()
        res.end(body(start, SIZE - start))

    config = Config(max_queued_bytes=2 * SIZE)
    async with parked_download(kind, open_variants(large), config=config, after=end) as download:
        download.scope.cancel()
        assert await download.receive_body() == body(0, SIZE)


GOING = ("reset", "FIN", "shutdown", "cancel")


@pytest.mark.parametrize("lines", [(), ("Range: bytes=0-99,70000-2000000",)])
@pytest.mark.parametrize("way", GOING)
async def test_descriptors_are_closed_when_it_is_over(
    kind: Kind, way: str, lines: tuple[str, ...], large: Path
) -> None:
    before = settled_descriptors()
    async with parked_download(kind, open_variants(large), *lines) as download:
        assert len(open_descriptors()) > len(before)
        if way == "reset":
            await download.peer.reset()
        elif way == "FIN":
            await download.peer.send_eof()
        elif way == "cancel":
            download.response.cancel_scope.cancel()
        if way != "shutdown":
            await download.over.wait()
            reason = AbortReason.CANCELLED if way == "cancel" else AbortReason.CLIENT_CLOSED
            await until(lambda: download.response.abort_reason is reason)
    await download.over.wait()
    assert open_descriptors() == before


async def test_client_that_stalls(kind: Kind, large: Path) -> None:
    before = settled_descriptors()
    config = Config(stall_timeout=0.05)
    async with parked_download(kind, open_variants(large), config=config) as download:
        await download.over.wait()
        assert download.response.abort_reason is AbortReason.STALLED
    assert open_descriptors() == before


def test_client_that_stalls_and_one_that_does_not(large: Path) -> None:
    """A byte now and then is enough."""

    async def main() -> None:
        app = make_app(large, config=Config(stall_timeout=60))
        async with open_client(app, window=100_000) as client:
            response = await client.get("/file")
            for _ in range(20):
                await response.receive_some(1)
                await trio.sleep(50)
            await trio.sleep(200)
            assert client.stats.aborts[AbortReason.STALLED] == 1

    trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("ticks", [0, 1, 2, 5, 13, 34, 55])
async def test_cancelled_at_any_step(kind: Kind, ticks: int, large: Path) -> None:
    """Wherever it is, all that was accepted arrives, and nothing else."""
    app = App()
    before = settled_descriptors()
    over = trio.Event()
    offsets: list[int] = []

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        async def cancel_soon() -> None:
            for _ in range(ticks):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_soon)
            await res.send_file(large)
        offsets.append(res.get_write_offset())
        over.set()
        if not offsets[0]:
            await res.send_chunk(b"x", SIZE)  # the head may have gone already

    async with open_peer(app, kind, window=20_000, receive_buffer=1024) as peer:
        with trio.fail_after(TIMEOUT):
            await peer.send_all(get("/"))
            received = await peer.receive_until_eof()
            await over.wait()
    head, _, data = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert data == (body(0, offsets[0]) if offsets[0] else b"x")
    assert open_descriptors() == before


class Gate:
    """Lets a thread pass when it is told to; a test that fails opens it, too."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()

    def pass_through(self) -> None:
        self.reached.set()
        assert self._open.wait(TIMEOUT)

    def open(self) -> None:
        self._open.set()


@contextmanager
def open_gate() -> Iterator[Gate]:
    gate = Gate()
    try:
        yield gate
    finally:
        gate.open()


@pytest.mark.parametrize("cancel_on_abort", [True, False])
@pytest.mark.parametrize("way", ["reset", "cancel"])
async def test_gone_while_the_file_is_opened(
    kind: Kind, way: str, cancel_on_abort: bool, large: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(cancel_on_abort=cancel_on_abort)
    before = settled_descriptors()
    results: list[object] = []
    over = trio.Event()
    scope = trio.CancelScope()

    def open_variant(_: str) -> OpenFile:
        file = open_file(large)
        gate.pass_through()
        return file

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        responses.append(res)
        try:
            with scope:
                results.append(await send_file(res, open_variant, FileOptions()))
        finally:
            over.set()

    responses: list[Response] = []
    with open_gate() as gate:
        async with open_peer(app, kind) as peer:
            with trio.fail_after(TIMEOUT):
                await peer.send_all(get("/"))
                await until(gate.reached.is_set)
                if way == "reset":
                    await peer.reset()
                    await until(lambda: responses[0].aborted)
                else:
                    scope.cancel()
                gate.open()
                await over.wait()
                if way == "cancel":
                    # Nothing was sent.
                    received = await peer.receive_head()
                    assert received.startswith(b"HTTP/1.1 500 ")
    assert results == ([(False, True)] if way == "reset" else [])
    assert open_descriptors() == before
    assert len(caplog.records) == (way == "cancel")  # it returned without an answer
    caplog.clear()


# Disks...


class SlowFile(OpenFile):
    """Reads from its disk, which takes as long as a gate says; none of it is in a cache."""

    __slots__ = ("gate", "reads", "slow_from")

    def __init__(self, path: Path, gate: Gate | None, slow_from: int = 0) -> None:
        fd = os.open(path, os.O_RDONLY)
        super().__init__(fd, path.name, os.fstat(fd), is_owned=True)
        self.gate = gate
        self.slow_from = slow_from
        self.reads: list[tuple[int, int]] = []

    def read(self, offset: int, size: int) -> bytes:
        if self.gate is not None and offset >= self.slow_from:
            self.gate.pass_through()
        self.reads.append((offset, size))
        return super().read(offset, size)

    def read_cached(self, offset: int, size: int) -> bytes | None:
        return None


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that can't tell what it has in its cache, such as tmpfs or NFS."""

    def preadv(fd: int, buffers: object, offset: int, flags: int = 0) -> int:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "preadv", preadv)


@pytest.mark.usefixtures("unknown")
async def test_others_are_served_while_a_disk_is_slow(kind: Kind, large: Path) -> None:
    app = make_app(large)

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        with trio.fail_after(TIMEOUT):
            file = SlowFile(large, gate, slow_from=64 * 1024)
            await send_file(res, lambda _: file, FileOptions())

    with open_gate() as gate:
        async with open_peer(app, kind, window=100_000) as peer:
            with trio.fail_after(TIMEOUT):
                await peer.send_all(get("/", "Connection: close"))
                await peer.receive_head()
                assert await peer.receive_exactly(64 * 1024) == body(0, 64 * 1024)
                await until(gate.reached.is_set)
                for _ in range(10):
                    await trio.lowlevel.checkpoint()  # all others
                gate.open()
                rest = await peer.receive_until_eof()
                assert rest == body(64 * 1024, SIZE - 64 * 1024)


@pytest.mark.usefixtures("unknown")
@pytest.mark.parametrize("way", ["reset", "cancel"])
async def test_gone_while_a_disk_is_slow(kind: Kind, way: str, large: Path) -> None:
    app = App()
    before = settled_descriptors()
    over = trio.Event()
    responses: list[Response] = []
    results: list[object] = []

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        responses.append(res)
        try:
            file = SlowFile(large, gate, slow_from=64 * 1024)
            results.append(await send_file(res, lambda _: file, FileOptions()))
        finally:
            over.set()

    with open_gate() as gate:
        async with open_peer(app, kind, window=100_000) as peer:
            with trio.fail_after(TIMEOUT):
                await peer.send_all(get("/"))
                await peer.receive_head()
                assert await peer.receive_exactly(64 * 1024) == body(0, 64 * 1024)
                await until(gate.reached.is_set)
                if way == "reset":
                    await peer.reset()
                    await until(lambda: responses[0].aborted)
                else:
                    responses[0].cancel_scope.cancel()
                gate.open()
                await over.wait()
                assert results == ([(False, True)] if way == "reset" else [])
                if way == "cancel":  # what was read may still be sent, as far as it goes
                    sent = responses[0].get_write_offset() - 64 * 1024
                    assert await peer.receive_until_eof() == body(64 * 1024, sent)
    assert open_descriptors() == before


@pytest.mark.usefixtures("unknown")
async def test_what_may_not_be_cached_is_not_read_again_and_again(kind: Kind, large: Path) -> None:
    """However little of it the client takes at a time."""
    app = App()
    files: list[SlowFile] = []

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        files.append(SlowFile(large, None))
        await send_file(res, lambda _: files[0], FileOptions())

    async with open_peer(app, kind, window=50_000) as peer:
        with trio.fail_after(TIMEOUT):
            await peer.send_all(get("/", "Connection: close"))
            await peer.receive_head()
            assert await peer.receive_until_eof() == body(0, SIZE)
    # Each part once for the cache, and where the kernel does not send it, once for the client.
    assert sum(size for _, size in files[0].reads) < 3 * SIZE


async def test_cold_file(kind: Kind, tmp_path: Path) -> None:
    path = make_file(tmp_path / "cold.bin", bytes(body(0, SIZE)))
    with open_file(path) as file:
        cool_down(file)
    async with open_peer(make_app(path), kind, window=100_000) as peer:
        with trio.fail_after(TIMEOUT):
            await peer.send_all(get("/file", "Connection: close"))
            await peer.receive_head()
            assert await peer.receive_until_eof() == body(0, SIZE)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a tmpfs")
async def test_file_in_memory(kind: Kind) -> None:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(body(0, SIZE))
        file.flush()
        async with open_peer(make_app(Path(file.name)), kind, window=100_000) as peer:
            with trio.fail_after(TIMEOUT):
                await peer.send_all(get("/file", "Connection: close"))
                await peer.receive_head()
                assert await peer.receive_until_eof() == body(0, SIZE)


@pytest.mark.parametrize("first", [1, 2])
async def test_where_the_kernel_knows_no_way_it_is_read(
    first: int, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the `first` call on, sent bytes included that went before."""
    real = os.sendfile
    calls = itertools.count(1)

    def sendfile(out_fd: int, in_fd: int, offset: int, count: int) -> int:
        if next(calls) >= first:
            raise OSError(errno.EINVAL, "not this file")
        return real(out_fd, in_fd, offset, count)

    monkeypatch.setattr(os, "sendfile", sendfile)
    received = await exchange(make_app(large), "socket", get("/file"))
    answer, _ = decode(received)
    assert answer.body == body(0, SIZE)
    assert next(calls) > first


async def test_disk_that_breaks(
    kind: Kind, large: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = settled_descriptors()

    class Broken(SlowFile):
        def read(self, offset: int, size: int) -> bytes:
            if offset >= 1_000_000:
                raise OSError(errno.EIO, "broken disk")
            return super().read(offset, size)

    def sendfile(out_fd: int, in_fd: int, offset: int, count: int) -> int:
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(os, "sendfile", sendfile)
    async with parked_download(kind, lambda _: Broken(large, None)) as download:
        received = await download.receive_body()
        assert received == body(0, len(received))
        assert len(received) == download.offset >= 1_000_000 - 64 * 1024
        assert download.response.abort_reason is AbortReason.HANDLER_ERROR
        (error,) = download.errors
        assert isinstance(error, OSError)
        assert error.errno == errno.EIO
    assert open_descriptors() == before
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    caplog.clear()


# A client that is killed, and comes again...


@pytest.mark.parametrize("epoll", [True, False])
@pytest.mark.parametrize("replaced", [False, True])
async def test_client_that_is_killed_100_times(
    epoll: bool, replaced: bool, victim: Path, nursery: trio.Nursery
) -> None:
    rng = random.Random(100)
    server = await start_server(nursery, make_app(victim), epoll=epoll)
    received = bytearray()
    etag = b""
    restarts = 0
    with trio.fail_after(TIMEOUT):
        for _kill in range(100):
            if replaced and _kill == 50:
                make_file(victim, bytes(body(1000, SIZE)), modified_ns=MODIFIED_NS + 10**9)
            lines = [f"Range: bytes={len(received)}-", f"If-Range: {etag.decode()}"]
            async with await connect(server.port, receive_buffer=4096) as stream:
                await stream.send_all(get("/file", "Connection: close", *(lines if etag else [])))
                answer = b""
                while b"\r\n\r\n" not in answer:
                    answer += await stream.receive_some(500)
                head, _, first = answer.partition(b"\r\n\r\n")
                if head.startswith(b"HTTP/1.1 200 "):
                    restarts += bool(etag)
                    received.clear()
                else:
                    assert f"Content-Range: bytes {len(received)}-".encode() in head
                (etag_line,) = (x for x in head.split(b"\r\n") if x.startswith(b"ETag: "))
                etag = etag_line.removeprefix(b"ETag: ")
                received += first
                most = rng.randint(1, 40_000)
                while most > 0 and (data := await stream.receive_some(most)):
                    received += data
                    most -= len(data)
        async with await connect(server.port) as stream:  # and once to the end
            lines = [f"Range: bytes={len(received)}-", f"If-Range: {etag.decode()}"]
            await stream.send_all(get("/file", *lines, "Connection: close"))
            tail = bytearray()
            while data := await stream.receive_some(1024 * 1024):
                tail += data
            head, _, rest = bytes(tail).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 206 ")
            received += rest
        await until(lambda: server.stats.open_connections == 0)
    assert hashlib.sha256(received).digest() == hashlib.sha256(victim.read_bytes()).digest()
    assert restarts == replaced
    nursery.cancel_scope.cancel()


async def test_fairness_with_an_open_part(large: Path) -> None:
    """A part that is sent at once is a checkpoint all the same."""
    app = App(config=Config(send_budget=1))
    ticks = 0

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        async def count() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            await res.send_file(large)
            nursery.cancel_scope.cancel()

    async with open_client(app, window=2 * SIZE) as client:
        response = await client.get("/")
        assert await response.read() == body(0, SIZE)
    assert ticks > 10


@pytest.mark.parametrize("epoll", [True, False])
async def test_the_least_turns(tmp_path: Path, epoll: bool, nursery: trio.Nursery) -> None:
    """Shared by two, they must still be turns."""
    size = 64 * 1024 + 100
    path = make_file(tmp_path / "file.bin", bytes(body(0, size)))
    config = Config(send_budget=1)
    server = await start_server(nursery, make_app(path, config=config), epoll=epoll)
    with trio.fail_after(TIMEOUT):
        async with await connect(server.port) as one, await connect(server.port) as other:
            for stream in (one, other):
                await stream.send_all(get("/file", "Connection: close"))
            for stream in (one, other):
                received = b""
                while data := await stream.receive_some(size):
                    received += data
                assert decode(received)[0].body == body(0, size)
    nursery.cancel_scope.cancel()


async def test_part_is_the_length_of_its_bytes(large: Path) -> None:
    """`FilePart` goes through the same code as bytes: as a view, it is one that is not empty."""
    with open_file(large) as file:
        await wait_all_tasks_blocked()
        assert bool(FilePart(file, 0, 1)) is True
        assert bool(FilePart(file, 1, 1)) is False


# The turns of others...


async def test_small_request_beside_a_download_is_answered_in_between(tmp_path: Path) -> None:
    path = make_file(tmp_path / "huge", b"")
    os.truncate(path, 1 << 30)
    app = App(config=Config(send_budget=64 * 1024))
    app.get("/file", lambda res, _: res.send_file(path))
    app.get("/hello", lambda res, _: res.end(b"hello"))
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            server = await start_server(nursery, app)
            async with (
                await connect(server.port, receive_buffer=4096) as slow,
                await connect(server.port) as quick,
            ):
                await slow.send_all(get("/file"))
                await slow.receive_some(1)
                for _ in range(20):
                    await quick.send_all(get("/hello"))
                    assert bytes(await quick.receive_some()).endswith(b"\r\n\r\nhello")
                assert server.stats.active_responses == 1
            nursery.cancel_scope.cancel()
