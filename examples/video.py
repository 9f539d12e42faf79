"""A player that seeks: the browser asks for the ranges of a film or a sound that it needs.

Open http://127.0.0.1:8000/ in a browser, and jump about. Without a file of yours it plays a sound
that is made at start-up, a minute of it; with one, that:

    MEDIA=film.mp4 python -m trio_stream video

What a player asks for, and what it gets, can be seen with:

    curl --include --range 1000000-1000015 --output - http://127.0.0.1:8000/media
"""

import atexit
import math
import mimetypes
import os
import tempfile
import wave
from array import array
from typing import IO

from trio_stream import App, Request, Response

MEDIA = os.environ.get("MEDIA", "")
SECONDS = 60
RATE = 16_000

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>A player that seeks</title>
<link rel="icon" href="data:,">
<style>
  body { font: 1rem/1.5 system-ui, sans-serif;
         max-width: 50rem; margin: 2rem auto; padding: 0 1rem }
  video { width: 100%; background: #0003 }
</style>
<h1>A player that seeks</h1>
<video controls preload="metadata" src="/media"></video>
<p>Jump to
  <button onclick="document.querySelector('video').currentTime = 10">0:10</button>
  <button onclick="document.querySelector('video').currentTime = 45">0:45</button>
"""


def make_sound() -> IO[bytes]:
    """A tone that rises by a half step each second, so that one hears where one is."""
    samples = array("h")
    phase = 0.0
    for index in range(SECONDS * RATE):
        step = index // RATE % 24
        phase += math.tau * 220 * 2 ** (step / 12) / RATE
        samples.append(int(8000 * math.sin(phase)))
    file = tempfile.TemporaryFile()  # noqa: SIM115 (it is open as long as it is served)
    atexit.register(file.close)
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(samples.itemsize)
        writer.setframerate(RATE)
        writer.writeframes(samples.tobytes())
    file.flush()
    return file


app = App()
media = MEDIA or make_sound()
media_type = mimetypes.guess_type(MEDIA)[0] if MEDIA else "audio/wav"


@app.get("/")
def page(res: Response, req: Request) -> None:
    res.write_header("Content-Type", "text/html; charset=utf-8").end(PAGE)


@app.get("/media")
async def play(res: Response, req: Request) -> None:
    await res.send_file(media, content_type=media_type)


if __name__ == "__main__":
    app.run(port=8000)
