"""Uploads that are written to disk as they come: a form of any size, and never more than a piece.

The files go to the directory `uploads` of the current directory; what a client does not send to its
end is removed. Open http://127.0.0.1:8000/ in a browser, or try:

    curl --form file=@README.md --form file=@LICENSE http://127.0.0.1:8000/upload

The log tells the progress. Needs the extra `forms`: pip install 'trio-stream[forms]'.
"""

import logging
import os
from pathlib import Path

import trio

from trio_stream import App, Part, Request, Response

FOLDER = Path("uploads")
STEP = 10_000_000  # bytes between two lines of the log

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Upload</title>
<form method="post" action="/upload" enctype="multipart/form-data">
  <input type="file" name="file" multiple required>
  <button>Upload</button>
</form>
"""

logger = logging.getLogger("upload")
app = App()


@app.get("/")
def page(res: Response, req: Request) -> None:
    res.write_header("Content-Type", "text/html; charset=utf-8").end(PAGE)


@app.post("/upload")
async def upload(res: Response, req: Request) -> None:
    await trio.Path(FOLDER).mkdir(exist_ok=True)
    lines = []
    async for part in req.parts():
        if part.filename:
            path, size = await save(part)
            lines.append(f"{path.name}: {size} bytes\n")
    res.write_header("Content-Type", "text/plain; charset=utf-8").end("".join(lines))


async def save(part: Part) -> tuple[Path, int]:
    """Write a file, under a name that is ours: the client's may say anything."""
    path = FOLDER / f"{os.urandom(8).hex()}{suffix(part.filename or '')}"
    size = 0
    async with await trio.open_file(path, "xb") as file:
        try:
            async for data in part.body:
                await file.write(data)
                if (size + len(data)) // STEP > size // STEP:
                    logger.info("%r: %d MB so far", part.filename, (size + len(data)) // 1_000_000)
                size += len(data)
        except BaseException:
            path.unlink()  # without an await, which would be cancelled, too
            raise
    logger.info("%r: %d bytes, as %s", part.filename, size, path)
    return path, size


def suffix(filename: str) -> str:
    name = Path(filename).suffix
    return name if name[1:].isalnum() and name.isascii() and len(name) < 10 else ""


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    app.run(port=8000)
