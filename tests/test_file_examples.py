"""The examples that serve files do what they say."""

from __future__ import annotations

import io
import wave
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from tests.harness import pattern, start_server
from tests.test_examples import run_example
from tests.test_main import CHECKOUT, run_python
from trio_stream import App, Request, Response
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HELLO = (CHECKOUT / "examples" / "hello.py").read_bytes()


# files...


async def test_files_serves_its_folder() -> None:
    async with open_client(run_example("files")["app"]) as client:
        page = await (await client.get("/")).read()
        assert b"hello.py" in page
        response = await client.get("/hello.py")
        assert response.headers["Cache-Control"] == "no-cache"
        assert await response.read() == HELLO
        ranges = [("Range", "bytes=0-99,-100")]
        response = await client.request("GET", "/hello.py", headers=ranges)
        assert response.status_code == 206
        body = await response.read()
        assert HELLO[:100] in body
        assert HELLO[-100:] in body
        assert (await client.get("/../README.md")).status_code == 404


async def test_files_serves_what_handlers_choose() -> None:
    async with open_client(run_example("files")["app"]) as client:
        response = await client.get("/newest")
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
        newest = max((CHECKOUT / "examples").glob("*.py"), key=lambda path: path.stat().st_mtime)
        assert await response.read() == newest.read_bytes()
        response = await client.get("/download")
        assert response.headers["Content-Disposition"] == (
            'attachment; filename="Beispiel f_r Dateien.py"; '
            "filename*=UTF-8''Beispiel%20f%C3%BCr%20Dateien.py"
        )


# video...


async def test_video_sends_the_part_that_a_player_seeks() -> None:
    async with open_client(run_example("video")["app"]) as client:
        assert b"<video controls" in await (await client.get("/")).read()
        sound = await (await client.get("/media")).read()
        with wave.open(io.BytesIO(sound)) as file:
            assert file.getnframes() / file.getframerate() == 60
        headers = [("Range", "bytes=1000000-1000015")]
        response = await client.request("GET", "/media", headers=headers)
        assert response.status_code == 206
        assert response.headers["Content-Type"] == "audio/wav"
        assert await response.read() == sound[1_000_000:1_000_016]


async def test_video_plays_a_file_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "film.mp4").write_bytes(pattern(1000))
    monkeypatch.setenv("MEDIA", str(tmp_path / "film.mp4"))
    async with open_client(run_example("video")["app"]) as client:
        response = await client.get("/media")
        assert response.headers["Content-Type"] == "video/mp4"
        assert await response.read() == pattern(1000)


# resumable_download...


async def test_resumable_download_resumes() -> None:
    async with run_python(str(CHECKOUT / "examples" / "resumable_download.py")) as program:
        await program.read_until("RemoteProtocolError after [1-9]")
        await program.read_until("It arrived as it is")
        assert await program.wait() == (0, "")


async def download(app: App, path: Path, *, tries: int = 100) -> list[str]:
    """Download `/` with the example; what it says on the way."""
    said: list[str] = []
    get = run_example("resumable_download")["download"]
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            server = await start_server(nursery, app)
            try:
                await get(f"http://127.0.0.1:{server.port}/", path, tries=tries, log=said.append)
            finally:
                nursery.cancel_scope.cancel()
    return said


def breaking_off(sizes: list[int], body: Callable[[], bytes], etag: Callable[[], str]) -> App:
    """Sends so much of what is asked for, time after time, and then all of it."""
    app = App()

    @app.get("/")
    async def serve(res: Response, req: Request) -> None:
        data = body()
        start = 0
        if req.headers.get("If-Range") == etag():
            start = int(req.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            res.write_status(206)
            res.write_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            assert "Range" not in req.headers or req.headers["If-Range"] != etag()
        res.write_header("ETag", etag())
        rest = data[start:]
        await res.send_chunk(rest[: sizes.pop(0)] if sizes else rest, len(rest))

    return app


async def test_resumable_download_starts_over_with_another_version(tmp_path: Path) -> None:
    versions = iter([pattern(5000), pattern(5000), pattern(3000, 7)])
    etags = iter(['"1"', '"1"', '"1"', '"1"', '"2"', '"2"', '"2"'])
    app = breaking_off([2000, 1000], lambda: next(versions), lambda: next(etags))
    said = await download(app, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == pattern(3000, 7)
    assert said == [f"RemoteProtocolError after {size} bytes" for size in ("2,000", "3,000")]


async def test_resumable_download_does_not_trust_a_weak_tag(tmp_path: Path) -> None:
    app = breaking_off([2000], lambda: pattern(5000), lambda: 'W/"1"')
    await download(app, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == pattern(5000)


async def test_resumable_download_gives_up(tmp_path: Path) -> None:
    app = breaking_off([1] * 5, lambda: pattern(5000), lambda: '"1"')
    with pytest.RaisesGroup(httpx.RemoteProtocolError):
        await download(app, tmp_path / "file", tries=5)
    app = App()
    with pytest.RaisesGroup(httpx.HTTPStatusError):  # 404: there is no point in trying again
        await download(app, tmp_path / "file")
