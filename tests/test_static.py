"""Folders as a part of an app's URLs: what is found there, and what never is."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import h11
import pytest
import trio

from tests.clients import open_descriptors, settled_descriptors
from tests.files import MODIFIED_NS, make_file
from tests.harness import connect, decode, get, open_peer, start_server
from tests.hostile_paths import FOUND, MISSING, PUBLIC, REDIRECTED, REFUSED, SECRET, plant
from trio_stream import AbortReason, App, Request, Response
from trio_stream.testing import Client, open_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.harness import Kind

PAGE = b"<p>a page"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small site."""
    folder = tmp_path / "site"
    (folder / "sub").mkdir(parents=True)
    (folder / "none").mkdir()
    for name in ("index.html", "page.html", "sub/index.html", "404.html"):
        make_file(folder / name, PAGE + b" " + name.encode())
    make_file(folder / "home.html", b"home")
    return folder


async def fetch(
    client: Client, target: str, method: str = "GET", **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    """Status, body, and the fields that are of interest."""
    fields = [(name.replace("_", "-"), value) for name, value in headers.items()]
    response = await client.request(method, target, headers=fields)
    body = await response.read()
    return response.status_code, body, dict(response.headers)


NOT_FOUND = b"Not Found\n"


@pytest.mark.parametrize(
    ("target", "status", "body"),
    [
        ("/s/", 200, PAGE + b" index.html"),
        ("/s/index.html", 200, PAGE + b" index.html"),
        ("/s/page.html", 200, PAGE + b" page.html"),
        ("/s/page.html?x=1", 200, PAGE + b" page.html"),
        ("/s/sub/", 200, PAGE + b" sub/index.html"),
        ("/s/sub/index.html", 200, PAGE + b" sub/index.html"),
        ("/s/none/", 404, NOT_FOUND),
        ("/s/other", 404, NOT_FOUND),
        ("/s/other/", 404, NOT_FOUND),
        ("/s/page.html/", 404, NOT_FOUND),
        ("/", 404, NOT_FOUND),
        ("/sx", 404, NOT_FOUND),
    ],
)
async def test_files_and_folders(folder: Path, target: str, status: int, body: bytes) -> None:
    app = App()
    app.static("/s", folder)
    async with open_client(app) as client:
        for method in ("GET", "HEAD"):
            found, received, fields = await fetch(client, target, method)
            assert (found, received) == (status, body if method == "GET" else b"")
            assert fields["Content-Length"] == str(len(body))
            if status == 200:
                assert fields["Content-Type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/s", "./s/"),
        ("/s?x=1&y", "./s/?x=1&y"),
        ("/s/sub", "./sub/"),
        ("/s/sub?x=/../y", "./sub/?x=/../y"),
        ("/s/s%75b", "./s%75b/"),
        ("http://x/s/sub?y", "./sub/?y"),
        ("/s/none", "./none/"),
    ],
)
async def test_redirects(folder: Path, target: str, location: str) -> None:
    app = App()
    app.static("/s", folder)
    async with open_client(app) as client:
        for method in ("GET", "HEAD"):
            status, body, fields = await fetch(client, target, method)
            assert (status, body, fields["Location"]) == (301, b"", location)


async def test_a_name_that_looks_like_a_host_is_no_redirect_there(tmp_path: Path) -> None:
    """Nor one that looks like a scheme."""
    for name in ("example.org", "http:", "javascript:alert(1)"):
        (tmp_path / name).mkdir()
    app = App()
    app.static("/", tmp_path)
    async with open_client(app) as client:
        for target, location in (
            ("//example.org", None),
            ("//example.org/", None),
            ("/%2fexample.org", None),
            ("/\\example.org", None),
            ("/example.org", "./example.org/"),
            ("/http:", "./http:/"),
            ("/javascript:alert(1)", "./javascript:alert(1)/"),
        ):
            status, _, fields = await fetch(client, target)
            assert (status, fields.get("Location")) == (301 if location else 404, location)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_other_methods(folder: Path, method: str) -> None:
    app = App()
    app.static("/s", folder)
    async with open_client(app) as client:
        for target in ("/s", "/s/", "/s/page.html", "/s/missing"):
            status, _, fields = await fetch(client, target, method)
            assert status == (204 if method == "OPTIONS" else 405)
            assert fields["Allow"] == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize("prefix", ["/", "/s", "/s/", "/a/b/c", "/caf\xe9", "/:tenant/files"])
async def test_prefixes(folder: Path, prefix: str) -> None:
    app = App()
    app.static(prefix, folder)
    path = prefix.rstrip("/").replace("\xe9", "%C3%A9").replace(":tenant", "some%2Fone")
    async with open_client(app) as client:
        assert (await fetch(client, f"{path}/page.html"))[:2] == (200, PAGE + b" page.html")
        assert (await fetch(client, f"{path}/sub/"))[:2] == (200, PAGE + b" sub/index.html")
        assert (await fetch(client, f"{path}/sub"))[0] == 301
        assert (await fetch(client, f"{path}/"))[:2] == (200, PAGE + b" index.html")
        assert (await fetch(client, f"{path}/../page.html"))[0] == 404


async def test_routes_beside_it(folder: Path, tmp_path: Path) -> None:
    app = App()
    make_file(tmp_path / "nested.txt", b"nested")

    def api(res: Response, _: Request) -> None:
        res.end("api")

    app.get("/page.html", api)
    app.post("/sub/index.html", api)
    app.static("/", folder)
    app.static("/sub", tmp_path)
    async with open_client(app) as client:
        assert (await fetch(client, "/page.html"))[1] == b"api"
        assert (await fetch(client, "/sub/nested.txt"))[1] == b"nested"
        assert (await fetch(client, "/sub/index.html"))[0] == 404
        assert (await fetch(client, "/sub/index.html", "POST"))[1] == b"api"
        assert (await fetch(client, "/home.html"))[1] == b"home"


@pytest.mark.parametrize("prefix", ["", "static", "/a*", "/*", "/a/*/b", "/a%20b"])
def test_prefix_that_is_malformed(folder: Path, prefix: str) -> None:
    app = App()
    if prefix == "":
        app.static(prefix, folder)  # as "/"
    with pytest.raises(ValueError, match=r"a path pattern|'\*' matches|has a route"):
        app.static(prefix, folder)


def test_folder_that_is_none(folder: Path) -> None:
    for path in (folder / "missing", folder / "page.html"):
        with pytest.raises(NotADirectoryError):
            App().static("/", path)


# Options...


async def test_index(folder: Path) -> None:
    app = App()
    app.static("/home", folder, index="home.html")
    app.static("/none", folder, index=None)
    app.static("/folder", folder, index="sub")
    async with open_client(app) as client:
        assert (await fetch(client, "/home/"))[:2] == (200, b"home")
        assert (await fetch(client, "/home/sub/"))[0] == 404
        assert (await fetch(client, "/none/"))[0] == 404
        assert (await fetch(client, "/none/index.html"))[0] == 200
        assert (await fetch(client, "/folder/"))[0] == 404


async def test_not_found(folder: Path) -> None:
    app = App()
    app.static("/page", folder, not_found="404.html", cache_control="max-age=9")
    app.static("/missing", folder, not_found="405.html")
    app.static("/folder", folder, not_found="sub")
    text = PAGE + b" 404.html"
    async with open_client(app) as client:
        for method in ("GET", "HEAD"):
            status, body, fields = await fetch(
                client, "/page/other", method, Range="bytes=0-1", If_None_Match="*", If_Match="x"
            )
            assert (status, body) == (404, text if method == "GET" else b"")
            assert fields["Content-Length"] == str(len(text))
            assert fields["Content-Type"] == "text/html; charset=utf-8"
            assert fields.keys() == {"Date", "Content-Type", "Content-Length"}
        assert (await fetch(client, "/page/none/"))[:2] == (404, text)
        assert (await fetch(client, "/page/../x"))[:2] == (404, text)
        assert (await fetch(client, "/page/404.html"))[:2] == (200, text)
        assert (await fetch(client, "/missing/other"))[:2] == (404, NOT_FOUND)
        assert (await fetch(client, "/folder/other"))[:2] == (404, NOT_FOUND)


async def test_cache_control(folder: Path) -> None:
    app = App()
    app.static("/", folder, cache_control="max-age=9")
    async with open_client(app) as client:
        for target, sent in (("/page.html", True), ("/sub/", True), ("/other", False)):
            _, _, fields = await fetch(client, target)
            assert fields.get("Cache-Control") == ("max-age=9" if sent else None)
        status, _, fields = await fetch(client, "/page.html", If_None_Match="*")
        assert (status, fields["Cache-Control"]) == (304, "max-age=9")


async def test_conditions_and_ranges(folder: Path, kind: Kind) -> None:
    app = App()
    app.static("/", folder)
    etag = f'"{MODIFIED_NS:x}-4"'
    async with open_peer(app, kind) as peer:
        await peer.send_all(
            get("/home.html", "Range: bytes=1-2")
            + get("/home.html", f"If-None-Match: {etag}")
            + get("/home.html", "Range: bytes=4-")
            + get("/home.html", "If-Match: x", "Connection: close")
        )
        rest = await peer.receive_until_eof()
        answers = []
        while rest:
            answer, rest = decode(rest)
            answers.append((answer.status, answer.body))
    assert [status for status, _ in answers] == [206, 304, 416, 412]
    assert [body for _, body in answers[:2]] == [b"om", b""]


@pytest.mark.parametrize(
    ("accept", "suffix"), [("gzip", "gz"), ("gzip, br", "br"), ("gzip;q=0", ""), (None, "")]
)
async def test_precompressed(folder: Path, accept: str | None, suffix: str) -> None:
    for name in ("page.html", "sub/index.html"):
        for coding in ("gz", "br"):
            make_file(folder / f"{name}.{coding}", coding.encode())
    app = App()
    app.static("/", folder, precompressed=True)
    headers = {} if accept is None else {"Accept_Encoding": accept}
    async with open_client(app) as client:
        for target, plain in (("/page.html", "page.html"), ("/sub/", "sub/index.html")):
            status, body, fields = await fetch(client, target, **headers)
            assert status == 200
            assert body == (suffix.encode() or PAGE + b" " + plain.encode())
            assert fields["Vary"] == "Accept-Encoding"
            assert fields["Content-Type"] == "text/html; charset=utf-8"
            assert fields.get("Content-Encoding") == {"gz": "gzip", "br": "br"}.get(suffix)
        status, _, fields = await fetch(client, "/other.html", **headers)
        assert status == 404


async def test_dotfiles_and_symlinks_out(tmp_path: Path) -> None:
    root = plant(tmp_path)
    app = App()
    app.static("/dot", root, dotfiles=True)
    app.static("/out", root, symlinks_out=True)
    async with open_client(app) as client:
        for target, status in (
            ("/dot/.hidden", 200),
            ("/dot/.git/config", 200),
            ("/dot/.git", 301),
            ("/dot/.", 404),
            ("/dot/..", 404),
            ("/dot/../secret.txt", 404),
            ("/dot/sub/%2e%2e/a.txt", 404),
            ("/dot/out.txt", 404),
            ("/out/out.txt", 200),
            ("/out/out/", 200),
            ("/out/out", 301),
            ("/out/slash", 301),
            ("/out/../secret.txt", 404),
            ("/out/out/../../secret.txt", 404),
            ("/out/.hidden", 404),
            ("/out/slash/dev/zero", 404),
        ):
            found, body, _ = await fetch(client, target)
            assert found == status, target
            assert body == (SECRET if status == 200 else b"" if status == 301 else NOT_FOUND)


# Hostile paths...


def hostile() -> Iterator[tuple[str, int]]:
    for targets, status in ((FOUND, 200), (REDIRECTED, 301), (MISSING, 404), (REFUSED, 400)):
        for target in targets:
            yield target, status


def test_there_are_enough_of_them() -> None:
    targets = [target for target, _ in hostile()]
    assert len(set(targets)) > 300


@pytest.mark.parametrize("prefix", ["", "/static", "/a/%62"])
@pytest.mark.parametrize("precompressed", [False, True])
async def test_hostile_paths(
    prefix: str, precompressed: bool, tmp_path: Path, nursery: trio.Nursery
) -> None:
    """Each has a definite answer, nobody logs anything, and no FIFO is opened."""
    root = plant(tmp_path)
    app = App()
    app.static(prefix.replace("%62", "b"), root, precompressed=precompressed)
    server = await start_server(nursery, app)
    before = settled_descriptors()
    with watch_fifo(root / "fifo") as was_opened, trio.fail_after(30):
        async with await connect(server.port) as stream:
            for target, status in hostile():
                if status == 400:
                    continue
                path = target.replace("{}", prefix)
                if prefix == "" and not path.startswith(
                    ("/", "http:/", "https:/", "file:", "ftp:")
                ):
                    path = f"/{path}"
                await stream.send_all(raw_request(path))
                assert await receive_answer(stream) == (status, expected_body(status)), path
        for target in REFUSED:
            async with await connect(server.port) as stream:
                await stream.send_all(raw_request(target.replace("{}", prefix)))
                answer, _ = decode(await receive_all(stream), at_eof=True)
                assert (answer.status, answer.body) == (400, b"Bad Request\n"), target
        assert not was_opened()
        while len(open_descriptors()) > len(before):
            await trio.sleep(0.001)
    nursery.cancel_scope.cancel()


def raw_request(target: str) -> bytes:
    fields = "Host: x\r\nAccept-Encoding: gzip, br, zstd"
    return f"GET {target} HTTP/1.1\r\n{fields}\r\n\r\n".encode("latin-1")


def expected_body(status: int) -> bytes:
    return {200: PUBLIC, 301: b"", 404: NOT_FOUND}[status]


async def receive_all(stream: trio.SocketStream) -> bytes:
    received = b""
    while data := await stream.receive_some():
        received += data
    return received


async def receive_answer(stream: trio.SocketStream) -> tuple[int, bytes]:
    received = b""
    while True:
        data = await stream.receive_some()
        assert data, received
        received += data
        assert SECRET not in received
        if b"\r\n\r\n" in received:
            answer, rest = decode(received)
            if answer.is_whole:
                assert rest == b""
                return answer.status, answer.body


@contextmanager
def watch_fifo(path: Path) -> Iterator[Callable[[], bool]]:
    """Tell whether anybody opened a FIFO for reading: then it can also be opened for writing."""
    was_opened = threading.Event()

    def wait() -> None:
        os.close(os.open(path, os.O_WRONLY))
        was_opened.set()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield was_opened.is_set
    finally:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        thread.join()
        os.close(fd)


# Trouble...


async def test_a_file_that_is_cut_while_it_is_sent_is_one_line(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / "large"
    with path.open("wb") as file:
        file.truncate(10_000_000)
    app = App()
    app.static("/", folder)
    async with open_client(app, window=1000) as client:
        response = await client.get("/large")
        os.truncate(path, 1000)
        with pytest.raises(h11.RemoteProtocolError):
            await response.read()
    assert client.stats.aborts == {AbortReason.INCOMPLETE: 1}
    (record,) = caplog.records
    assert record.getMessage().startswith("GET /large: 'large' had 10000000 bytes ")
    caplog.clear()


async def test_trouble_of_the_system_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    app.static("/", folder, not_found="404.html")
    real = os.stat

    def fail(path: object, **kwargs: object) -> os.stat_result:
        if path == "page.html":
            raise OSError(errno.EMFILE, "too many open files")
        return real(path, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", fail)
    async with open_client(app) as client:
        status, body, _ = await fetch(client, "/page.html")
        assert (status, body) == (500, b"Internal Server Error\n")
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "GET /page.html: [Errno 24] too many open files (request "
    )
    assert record.exc_info is None
    caplog.clear()


async def test_folder_that_comes_and_goes(folder: Path) -> None:
    app = App()
    app.static("/", folder)
    async with open_client(app) as client:
        assert (await fetch(client, "/home.html"))[0] == 200
        folder.rename(folder.with_name("moved"))
        assert (await fetch(client, "/home.html"))[0] == 404
        folder.with_name("moved").rename(folder)
        assert (await fetch(client, "/home.html"))[0] == 200


@pytest.mark.parametrize(
    "option", [{"index": "a/index.html"}, {"not_found": ".404.html"}, {"not_found": ""}]
)
def test_names_that_no_file_can_have_are_refused(tmp_path: Path, option: dict[str, Any]) -> None:
    ((what, name),) = option.items()
    with pytest.raises(ValueError, match=f"{what} must be the name of a file.*{name!r}"):
        App().static("/", tmp_path, **option)
    if name.startswith("."):
        App().static("/", tmp_path, dotfiles=True, **option)
