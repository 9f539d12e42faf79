"""Clients that others wrote decode what is sent, byte for byte: curl, Chromium, nginx as a proxy.

Each is skipped where it is not installed, unless TRIO_STREAM_ALL_CLIENTS is set, as CI does.
"""

from __future__ import annotations

import hashlib
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from tests.clients import until
from tests.harness import pattern, start_server
from tests.proxies import needs, nginx, output_of
from tests.test_examples import run_example
from trio_stream import App, Request, Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CHUNK_SIZES = (1000, 16 * 1024, 64 * 1024, 1024 * 1024)
TOTAL = 2_500_000


def make_app() -> App:
    app = App()

    @app.get("/chunks/:size")
    async def chunks(res: Response, req: Request) -> None:
        size = int(req.params["size"])
        for start in range(0, TOTAL, size):
            await res.send_chunk(pattern(min(size, TOTAL - start), start))

    @app.post("/hash")
    async def hash_body(res: Response, req: Request) -> None:
        digest = hashlib.sha256()
        async for data in req.body:
            digest.update(data)
        res.end(digest.hexdigest())

    return app


# curl...


@needs("curl")
@pytest.mark.parametrize("epoll", [True, False])
async def test_curl_gets_and_sends(epoll: bool, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(pattern(TOTAL))
    digest = hashlib.sha256(pattern(TOTAL)).hexdigest().encode()
    async with trio.open_nursery() as nursery:
        server = await start_server(nursery, make_app(), epoll=epoll)
        url = f"http://127.0.0.1:{server.port}"
        for size in CHUNK_SIZES:
            for version in ("--http1.1", "--http1.0"):
                data = await output_of("curl", "-sSf", version, f"{url}/chunks/{size}")
                assert data == pattern(TOTAL)
        for options in (
            ("--data-binary", f"@{file}"),  # with Expect: 100-continue
            ("-X", "POST", "-T", str(file)),
            ("-X", "POST", "-H", "Transfer-Encoding: chunked", "-T", str(file)),
        ):
            assert await output_of("curl", "-sSf", *options, f"{url}/hash") == digest
        nursery.cancel_scope.cancel()


# nginx...


@needs("nginx")
@needs("curl")
@pytest.mark.parametrize("buffering", [True, False])
async def test_nginx_passes_both_directions_on(buffering: bool, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(pattern(TOTAL))
    digest = hashlib.sha256(pattern(TOTAL)).hexdigest().encode()
    async with trio.open_nursery() as nursery:
        server = await start_server(nursery, make_app())
        path = tmp_path / "socket"
        switch = "on" if buffering else "off"
        config = f"""
            client_max_body_size 0;
            server {{
                listen unix:{path};
                location / {{
                    proxy_pass http://127.0.0.1:{server.port};
                    proxy_http_version 1.1;
                    proxy_buffering {switch};
                    proxy_request_buffering {switch};
                }}
            }}"""
        async with nginx(tmp_path, config):
            curl = ("curl", "-sSf", "--unix-socket", str(path))
            for size in CHUNK_SIZES:
                assert await output_of(*curl, f"http://x/chunks/{size}") == pattern(TOTAL)
            for chunked in ((), ("-H", "Transfer-Encoding: chunked")):
                upload = ("-X", "POST", "-T", str(file), *chunked)
                assert await output_of(*curl, *upload, "http://x/hash") == digest
        nursery.cancel_scope.cancel()


# Chromium...

FETCHING_PAGE = """<!doctype html><title>fetch</title><script>
  async function check(size) {
    const reader = (await fetch(`/chunks/${size}`)).body.getReader();
    let at = 0;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      for (const byte of value) {
        if (byte !== ((at >> 2) >>> (8 * (3 - at % 4))) % 256) return `${size}: wrong at ${at}`;
        at++;
      }
    }
    return `${size}: ${at}`;
  }
  (async () => {
    const results = [];
    for (const size of SIZES) results.push(await check(size));
    await fetch("/result", { method: "POST", body: results.join(", ") });
  })();
</script>"""


@asynccontextmanager
async def chromium(url: str, profile: Path) -> AsyncIterator[None]:
    """Show a page, without a screen, for the length of the block."""
    command = [
        *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--no-first-run", "--disable-background-networking", "--no-proxy-server"),
        *(f"--user-data-dir={profile}", "--remote-debugging-port=0", url),
    ]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            lambda: trio.run_process(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
            )
        )
        yield
        nursery.cancel_scope.cancel()


@needs("chromium")
async def test_chromium_reads_a_chunked_body_as_a_stream(tmp_path: Path) -> None:
    told = trio.Event()
    results = []
    app = make_app()

    @app.get("/")
    def page(res: Response, req: Request) -> None:
        sizes = str(list(CHUNK_SIZES))
        res.write_header("Content-Type", "text/html").end(FETCHING_PAGE.replace("SIZES", sizes))

    @app.post("/result")
    async def result(res: Response, req: Request) -> None:
        results.append(await req.text())
        res.end_without_body()
        told.set()

    async with trio.open_nursery() as nursery:
        server = await start_server(nursery, app)
        async with chromium(f"http://127.0.0.1:{server.port}/", tmp_path):
            with trio.fail_after(60):
                await told.wait()
        nursery.cancel_scope.cancel()
    assert results == [", ".join(f"{size}: {TOTAL}" for size in CHUNK_SIZES)]


@needs("chromium")
async def test_chromium_shows_the_clock_and_closes_it(tmp_path: Path) -> None:
    told = trio.Event()
    shown = []
    example = run_example("events")
    app: App = example["app"]

    # The page tells what it shows when that changes for the third time.
    script = """<script>
      const seen = [];
      new MutationObserver(() => {
        seen.push(document.getElementById("time").textContent);
        if (seen.length === 3) fetch("/shown", { method: "POST", body: seen.join(" ") });
      }).observe(document.getElementById("time"), { childList: true });
    </script>"""

    @app.get("/watched")
    def watched(res: Response, req: Request) -> None:
        page = example["PAGE"] + script
        res.write_header("Content-Type", "text/html; charset=utf-8").end(page)

    @app.post("/shown")
    async def tell(res: Response, req: Request) -> None:
        shown.extend((await req.text()).split())
        res.end_without_body()
        told.set()

    async with trio.open_nursery() as nursery:
        server = await start_server(nursery, app)
        async with chromium(f"http://127.0.0.1:{server.port}/watched", tmp_path):
            with trio.fail_after(60):
                await told.wait()
            assert server.stats.active_responses >= 1
        with trio.fail_after(10):
            await until(lambda: server.stats.active_responses == 0)
        nursery.cancel_scope.cancel()
    assert len(set(shown)) == len(shown) == 3
    assert all(time.count(":") == 2 for time in shown)


# The page tells where the player was when it had played a bit, here and after a jump.
PLAYING_SCRIPT = """<script>
  const player = document.querySelector("video");
  const until = (position) => new Promise((resolve) => {
    const look = () => (player.currentTime > position ? resolve() : setTimeout(look, 20));
    look();
  });
  (async () => {
    player.muted = true;
    await player.play();
    await until(0.3);
    const before = player.currentTime;
    document.querySelectorAll("button")[1].click();
    await until(45.3);
    const found = [player.duration, player.seekable.end(0), before, player.currentTime];
    await fetch("/played", { method: "POST", body: JSON.stringify(found) });
  })();
</script>"""


@needs("chromium")
async def test_chromium_plays_and_seeks(tmp_path: Path) -> None:
    told = trio.Event()
    found: list[float] = []
    example = run_example("video")
    app: App = example["app"]

    @app.get("/watched")
    def watched(res: Response, req: Request) -> None:
        page = example["PAGE"] + PLAYING_SCRIPT
        res.write_header("Content-Type", "text/html; charset=utf-8").end(page)

    @app.post("/played")
    async def tell(res: Response, req: Request) -> None:
        found.extend(await req.json())
        res.end_without_body()
        told.set()

    async with trio.open_nursery() as nursery:
        server = await start_server(nursery, app)
        async with chromium(f"http://127.0.0.1:{server.port}/watched", tmp_path):
            with trio.fail_after(60):
                await told.wait()
        nursery.cancel_scope.cancel()
    duration, seekable, before, after = found
    assert duration == seekable == 60
    assert 0.3 < before < 30
    assert 45.3 < after < 60
