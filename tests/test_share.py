"""The app that serves a file or a folder to people.

It reads files in worker threads, for which no clock but the real one waits.
"""

from __future__ import annotations

import errno
import os
import random
import re
import tracemalloc
import zipfile
from contextlib import aclosing, asynccontextmanager
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import h11
import pytest
import trio

from trio_stream import AbortReason, _share, _zip
from trio_stream._share import Share
from trio_stream._tree import Tree
from trio_stream._zip import zip_directory
from trio_stream.testing import Client, open_client

from .harness import pattern

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_stream.testing import ClientResponse


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "holiday"
    (root / "deep" / "deeper").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "song.mp3").write_bytes(pattern(5000))
    (root / "film.webm").write_bytes(pattern(300))
    (root / "notes.txt").write_text("notes")
    (root / "deep" / "a b?.txt").write_text("deep")
    (root / "deep" / "deeper" / "c.txt").write_text("deeper")
    (root / ".hidden").write_text("hidden")
    (tmp_path / "outside.txt").write_text("outside")
    (root / "leads_out.txt").symlink_to(tmp_path / "outside.txt")
    return root


@asynccontextmanager
async def open_share(path: Path, *, window: int = 64 * 1024) -> AsyncIterator[Client]:
    with trio.fail_after(30):
        async with open_client(Share(path), window=window) as client:
            yield client


async def get(path: Path, target: str) -> tuple[ClientResponse, bytes]:
    async with open_share(path) as client:
        response = await client.get(target)
        return response, await response.read()


# A folder...


async def test_a_folder_is_a_page_of_what_may_be_seen(folder: Path) -> None:
    response, page = await get(folder, "/")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert b"<h1><bdi>holiday</bdi></h1>" in page
    assert re.findall(rb'<td class="name"><a href="([^"]*)"', page) == [
        *(b"./deep/", b"./empty/"),
        *(b"./film.webm", b"./notes.txt", b"./song.mp3"),
    ]


async def test_all_links_of_a_folder_lead_somewhere(folder: Path) -> None:
    seen = set()
    new = {"/"}
    async with open_share(folder) as client:
        while new:
            seen.add(target := new.pop())
            response = await client.get(target)
            body = await response.read()
            assert response.status_code == 200, target
            if response.headers["Content-Type"].startswith("text/html"):
                links = re.findall(r'(?:href|src)="([^"#][^"]*)"', body.decode())
                links = [link.replace("&amp;", "&") for link in links if link != "data:,"]
                new |= {urljoin(target, link) for link in links} - seen
    assert {"/deep/a%20b%3F.txt?download", "/deep/deeper/?zip", "/song.mp3?play"} <= seen
    assert {"/?sort=size&order=ascending", "/deep/?sort=time&order=descending"} <= seen


@pytest.mark.parametrize(
    "target",
    [
        *("/nothing", "/nothing/", "/nothing/?zip", "/nothing?play", "/nothing?download"),
        *("/.hidden", "/.hidden?play", "/leads_out.txt", "/leads_out.txt?play"),
        *("/../outside.txt", "/%2e%2e/outside.txt", "/..%2foutside.txt", "/../?zip"),
        *("/notes.txt/", "/notes.txt/?zip", "//", "//?zip", "/deep//", "/deep//?zip", "/%00"),
    ],
)
async def test_what_is_not_there_is_404(folder: Path, target: str) -> None:
    response, body = await get(folder, target)
    assert response.status_code == 404
    assert response.headers.getall("Content-Type") == ["text/plain; charset=utf-8"]
    assert body == b"Not Found\n"


async def test_a_file_is_itself_and_a_player_can_seek_in_it(folder: Path) -> None:
    async with open_share(folder) as client:
        whole = await client.get("/song.mp3")
        assert await whole.read() == pattern(5000)
        assert whole.headers["Content-Type"] == "audio/mpeg"
        assert "Content-Disposition" not in whole.headers
        part = await client.request("GET", "/song.mp3", headers=[("Range", "bytes=4000-")])
        assert part.status_code == 206
        assert await part.read() == pattern(1000, 4000)
        known = [("If-None-Match", whole.headers["ETag"])]
        again = await client.request("GET", "/song.mp3", headers=known)
        assert again.status_code == 304


async def test_a_download_is_saved(folder: Path) -> None:
    response, body = await get(folder, "/deep/a%20b%3F.txt?download")
    assert response.headers["Content-Disposition"] == 'attachment; filename="a b?.txt"'
    assert body == b"deep"


@pytest.mark.parametrize(
    ("target", "player"),
    [
        ("/song.mp3?play", '<audio controls playsinline autoplay src="./song.mp3"></audio>'),
        ("/film.webm?play", '<video controls playsinline autoplay src="./film.webm"></video>'),
        ("/notes.txt?play", ""),
    ],
)
async def test_a_player_fits_its_file(folder: Path, target: str, player: str) -> None:
    response, body = await get(folder, target)
    page = body.decode()
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "media-src 'self'" in response.headers["Content-Security-Policy"]
    assert re.findall("<(?:audio|video) .*", page) == [player] * bool(player)
    name = target[1:].removesuffix("?play")
    assert f'href="./{name}?download"' in page
    assert '<nav><a href="./"><bdi>holiday</bdi></a></nav>' in page


@pytest.mark.parametrize("query", ["", "?zip", "?play", "?download", "?sort=size"])
async def test_a_folder_without_its_slash_is_redirected(folder: Path, query: str) -> None:
    response, _ = await get(folder, f"/deep{query}")
    assert response.status_code == 301
    assert response.headers["Location"] == f"./deep/{query}"


HOSTILE = [
    *(b"<script>", b"\"'&", b"two\nlines", b"caf\xe9", b"%2f", b"a?b#c", b"javascript:x", b" "),
    *(b"\x1b[2J", "東京".encode(), b"x;y=z", b"+"),
]


@pytest.mark.parametrize("name", HOSTILE, ids=map(repr, HOSTILE))
async def test_hostile_names_are_served_by_their_links(tmp_path: Path, name: bytes) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    folder.mkdir()
    Path(os.fsdecode(bytes(folder) + b"/" + name)).write_bytes(name)
    async with open_share(tmp_path) as client:

        async def follow(base: str, pattern: str) -> tuple[str, ClientResponse, bytes]:
            page = await (await client.get(base)).read()
            (link,) = re.findall(pattern, page.decode())
            target = urljoin(base, link)
            response = await client.get(target)
            return target, response, await response.read()

        base, _, page = await follow("/", r'<td class="name"><a href="([^"]*/)"')
        assert page.count(b"<script") == 0
        _, _, body = await follow(base, r'<td class="name"><a href="([^"]*)"')
        assert body == name
        _, response, body = await follow(base, r'href="([^"]*\?download)"')
        assert body == name
        assert response.headers["Content-Disposition"].startswith('attachment; filename="')
        _, _, body = await follow(base, r'href="(./\?zip)"')
    with zipfile.ZipFile(BytesIO(body)) as archive:
        (entry,) = archive.infolist()
        assert archive.read(entry) == name
    readable = "caf%E9" if name == b"caf\xe9" else name.decode()
    assert entry.filename == f"{readable}/{readable}"


async def test_a_folder_is_called_what_it_is_called_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "deep")
    assert Share(".").name == "deep"
    assert Share("..").name == "holiday"
    assert Share("../deep/").name == "deep"
    assert Share("../song.mp3").name == "song.mp3"
    assert Share("/").name == "files"


# An archive...


def unzip(data: bytes | Path) -> dict[str, bytes]:
    with zipfile.ZipFile(BytesIO(data) if isinstance(data, bytes) else data) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


async def test_an_archive_has_all_that_may_be_seen_below_a_folder(folder: Path) -> None:
    response, body = await get(folder, "/?zip")
    assert response.headers["Content-Type"] == "application/zip"
    assert response.headers["Content-Disposition"] == 'attachment; filename="holiday.zip"'
    assert response.headers["Transfer-Encoding"] == "chunked"
    assert unzip(body) == {
        "holiday/song.mp3": pattern(5000),
        "holiday/film.webm": pattern(300),
        "holiday/notes.txt": b"notes",
        "holiday/deep/a b?.txt": b"deep",
        "holiday/deep/deeper/c.txt": b"deeper",
    }
    response, body = await get(folder, "/deep/deeper/?zip")
    assert response.headers["Content-Disposition"] == 'attachment; filename="deeper.zip"'
    assert unzip(body) == {"deeper/c.txt": b"deeper"}
    _, body = await get(folder, "/empty/?zip")
    assert unzip(body) == {}


async def test_in_an_archive_no_two_files_have_one_name(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    contents = set()
    for name in (b"%E9", b"\xe9", b"%E9~", b"100%"):
        with open(folder + b"/" + name, "wb") as file:  # noqa: PTH123 (not UTF-8)
            file.write(name)
        contents.add(name)
    _, body = await get(tmp_path, "/?zip")
    archive = unzip(body)
    assert set(archive.values()) == contents
    assert f"{tmp_path.name}/100%" in archive


async def test_head_of_an_archive_has_no_body(folder: Path) -> None:
    async with open_share(folder) as client:
        response = await client.request("HEAD", "/?zip")
        assert response.headers["Content-Type"] == "application/zip"
        assert await response.read() == b""
        # The same connection serves on.
        assert (await client.get("/notes.txt")).status_code == 200


async def test_a_large_archive_takes_no_memory(tmp_path: Path) -> None:
    folder = tmp_path / "large"
    (folder / "a" / "b").mkdir(parents=True)
    sizes = {"large/zeros": 100_000_000, "large/a/noise": 3_000_000, "large/a/b/more": 20_000_000}
    hashes = {}
    for name, size in sizes.items():
        data = random.Random(size).randbytes(1_000_000)
        with (tmp_path / name).open("wb") as file:
            file.write(data)
            file.truncate(size)
        hashes[name] = sha256(data + bytes(size - len(data))).hexdigest()
    received = 0
    with (tmp_path / "received.zip").open("wb") as file:
        async with open_share(folder, window=2**18) as client:
            response = await client.get("/?zip")
            tracemalloc.start()
            try:
                while data := await response.receive_some():
                    received += file.write(data)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
    assert received > sum(sizes.values())
    assert peak < 4_000_000
    found = {}
    with zipfile.ZipFile(tmp_path / "received.zip") as archive:
        for name in archive.namelist():
            with archive.open(name) as entry:
                digest = sha256()
                while data := entry.read(2**20):
                    digest.update(data)
                found[name] = digest.hexdigest()
    assert found == hashes


def open_files(folder: Path) -> list[str]:
    """The files below a folder that this process has open."""
    found = []
    for fd in Path("/proc/self/fd").iterdir():
        try:
            target = fd.readlink()
        except FileNotFoundError:
            continue
        if target.is_relative_to(folder):
            found.append(target.name)
    return found


async def test_an_aborted_archive_leaves_nothing_open(folder: Path) -> None:
    with (folder / "large").open("wb") as file:
        file.truncate(50_000_000)
    async with open_share(folder) as client:
        response = await client.get("/?zip")
        size = 0
        while size < 2_000_000:
            size += len(await response.receive_some())
        assert open_files(folder) == ["large"]
        client.vanish()
        while client.stats.active_responses:
            await trio.lowlevel.checkpoint()
        assert open_files(folder) == []


async def test_a_cancelled_archive_leaves_nothing_open(folder: Path) -> None:
    with (folder / "large").open("wb") as file:
        file.truncate(5_000_000)
    with trio.CancelScope() as scope:
        async with aclosing(zip_directory(Tree(folder), (), "x")) as pieces:
            async for _ in pieces:
                assert open_files(folder) == ["large"]
                scope.cancel()
    assert scope.cancelled_caught
    assert open_files(folder) == []


async def test_a_file_that_shrinks_cuts_its_archive(folder: Path) -> None:
    path = folder / "zzz"
    with path.open("wb") as file:
        file.truncate(3_000_000)
    async with aclosing(zip_directory(Tree(folder), (), "x")) as pieces:
        with pytest.raises(EOFError, match="'zzz' had 3000000 bytes"):
            async for _ in pieces:
                os.truncate(path, 1000)
    assert open_files(folder) == []


async def test_a_cut_archive_is_one_line_in_the_log(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / "zzz"
    with path.open("wb") as file:
        file.truncate(30_000_000)
    async with open_client(Share(folder), window=1000) as client:
        response = await client.get("/?zip")
        os.truncate(path, 1000)
        with pytest.raises(h11.RemoteProtocolError):
            await response.read()
    assert client.stats.aborts == {AbortReason.HANDLER_ERROR: 1}
    (error,) = (record for record in caplog.records if record.levelname == "ERROR")
    assert error.getMessage().startswith("GET /?zip: 'zzz' had 30000000 bytes")
    assert error.exc_info is None
    caplog.clear()


@pytest.mark.parametrize("query", ["", "?play", "?download", "?zip"])
async def test_trouble_of_the_system_is_one_line(
    folder: Path,
    query: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    target = f"/{'' if query == '?zip' else 'song.mp3'}{query}"
    async with open_share(folder) as client:
        for name in ("open", "entries"):
            monkeypatch.setattr(Tree, name, fail)
        response = await client.get(target)
        body = await response.read()
    assert (response.status_code, body) == (500, b"Internal Server Error\n")
    (error,) = (record for record in caplog.records if record.levelname == "ERROR")
    assert error.getMessage().startswith(f"GET {target}: [Errno 24] too many open files (request ")
    assert error.exc_info is None
    caplog.clear()


async def test_without_its_library_there_are_no_archives(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_share, "HAVE_ZIP", False)
    response, page = await get(folder, "/?zip")
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert b"?zip" not in page
    assert b"?download" in page


def test_the_library_is_there() -> None:
    assert _zip.HAVE_ZIP


# One file...


async def test_one_file_is_a_page_with_that_file(folder: Path) -> None:
    response, body = await get(folder / "song.mp3", "/")
    page = body.decode()
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "<h1><bdi>song.mp3</bdi></h1>" in page
    assert '<audio controls playsinline src="./song.mp3"></audio>' in page
    links = re.findall(r'href="(\./[^"]*)"', page)
    assert links == ["./song.mp3?download", "./song.mp3"]
    for link in links:
        response, body = await get(folder / "song.mp3", urljoin("/", link))
        assert body == pattern(5000)
        assert ("Content-Disposition" in response.headers) == ("download" in link)


@pytest.mark.parametrize(
    "target",
    [
        *("/notes.txt", "/notes.txt?play", "/deep/", "/deep/?zip", "/deep", "/.hidden"),
        *("/song.mp3/", "/song.mp3/song.mp3", "/song.mp3/?zip", "/../holiday/song.mp3"),
        *("//", "//song.mp3", "/SONG.MP3", "/song.mp3%00", "/song.mp"),
    ],
)
async def test_all_else_beside_one_file_is_404(folder: Path, target: str) -> None:
    response, body = await get(folder / "song.mp3", target)
    assert response.status_code == 404
    assert body == b"Not Found\n"


async def test_one_file_has_no_archive(folder: Path) -> None:
    response, page = await get(folder / "song.mp3", "/?zip")
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert b"zip" not in page


@pytest.mark.parametrize("name", [".hidden", "leads_out.txt"])
async def test_one_file_may_be_what_a_folder_does_not_show(folder: Path, name: str) -> None:
    _, body = await get(folder / name, f"/{name}")
    assert body == (folder / name).read_bytes()


async def test_one_file_may_go_and_come(folder: Path) -> None:
    path = folder / "song.mp3"
    async with open_share(path) as client:
        path.rename(folder / "other")
        for target in ("/", "/song.mp3", "/song.mp3?play"):
            response = await client.get(target)
            await response.read()
            assert response.status_code == 404
        (folder / "other").rename(path)
        assert (await client.get("/")).status_code == 200


# What can't be shared...


def test_what_is_not_there_is_an_error(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Share(folder / "nothing")


def test_a_fifo_is_an_error(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    with pytest.raises(OSError, match="not found") as caught:
        Share(folder / "fifo")
    cause = caught.value.__cause__
    assert isinstance(cause, OSError)
    assert cause.errno == errno.EINVAL
