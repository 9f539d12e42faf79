"""Files: a directory as it is, one file under conditions of your own, and one to be saved.

It serves the directory that it is in. Open http://127.0.0.1:8000/ in a browser, or try:

    curl --head http://127.0.0.1:8000/hello.py                      # ETag, Last-Modified
    curl --range 0-99,-100 http://127.0.0.1:8000/hello.py           # the ends of it
    curl http://127.0.0.1:8000/newest
    curl --remote-name --remote-header-name http://127.0.0.1:8000/download
"""

from pathlib import Path

import trio

from trio_stream import App, Request, Response

FOLDER = Path(__file__).parent

app = App()
app.static("/", FOLDER, listing=True, cache_control="no-cache")


@app.get("/newest")
async def newest(res: Response, req: Request) -> None:
    """The file that was changed last: which one that is, a handler can decide."""
    path = await trio.to_thread.run_sync(find_newest)
    await res.send_file(path, content_type="text/plain; charset=utf-8", cache_control="no-store")


@app.get("/download")
async def download(res: Response, req: Request) -> None:
    """A file that browsers save, under a name in any script."""
    await res.send_file(__file__, download=True, filename="Beispiel für Dateien.py")


def find_newest() -> Path:
    return max(FOLDER.glob("*.py"), key=lambda path: path.stat().st_mtime)


if __name__ == "__main__":
    app.run(port=8000)
