"""A file, streamed: each chunk is read when the client has room for it, and not before.

It serves the `song.wav` of the current directory. If there is none, it makes one for the time that
it runs: two minutes of a rising and falling tone, 5 MB.

Try:

    curl --output copy.wav http://127.0.0.1:8000/song.wav
    curl --limit-rate 200k --output copy.wav http://127.0.0.1:8000/song.wav

and end the second one in the middle, with Ctrl-C: the handler is cancelled, and its file closed.
"""

import atexit
import math
import os
import shutil
import tempfile
import wave
from array import array
from pathlib import Path

import trio

from trio_stream import App, Request, Response


def make_song(path: Path) -> None:
    rate = 22_050
    phase = 0.0
    samples = array("h")
    for index in range(4 * rate):  # it rises and falls once
        hertz = 440 + 220 * math.sin(math.tau * index / (4 * rate))
        phase += math.tau * hertz / rate
        samples.append(int(8000 * math.sin(phase)))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(samples.itemsize)
        file.setframerate(rate)
        file.writeframes(samples.tobytes() * 30)


def find_song() -> Path:
    path = Path("song.wav")
    if not path.exists():
        directory = tempfile.mkdtemp()
        atexit.register(shutil.rmtree, directory)
        path = Path(directory, "song.wav")
        make_song(path)
    return path


app = App()
path = find_song()


@app.get("/song.wav")
async def song(res: Response, req: Request) -> None:
    res.write_header("Content-Type", "audio/wav")
    total = os.stat(path).st_size
    async with await trio.open_file(path, "rb") as file:
        while not res.aborted:
            chunk = await file.read(65536)
            ok, done = await res.send_chunk(chunk, total)
            if not ok or done or not chunk:  # the last: the file became shorter
                break


if __name__ == "__main__":
    app.run(port=8000)
