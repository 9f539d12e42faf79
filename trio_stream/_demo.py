"""The embedded demo: a page with an audio player, and the sound that it plays, streamed."""

from __future__ import annotations

import math
import tempfile
import wave
from array import array
from contextlib import contextmanager
from operator import add
from typing import IO, TYPE_CHECKING

from ._app import App
from ._page import make_page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._request import Request
    from ._response import Response

SAMPLE_RATE = 22_050  # per second: enough for these notes, and made in half the time of 44,100
BEAT = 0.48  # seconds
REPEATS = 16  # two minutes, or 5 MiB: enough to see it stream

# The end of Beethoven's "Ode to Joy": notes and their beats.
MELODY = "E1 E1 F1 G1 G1 F1 E1 D1 C1 C1 D1 E1 D1.5 C0.5 C2"
HERTZ = {"C": 523.25, "D": 587.33, "E": 659.26, "F": 698.46, "G": 783.99}

STYLE = """
  body { min-height: 100vh; display: grid; place-items: center; }
  main { width: min(34rem, 100%); padding: 2rem; }
  p { margin-top: .75rem; }
  audio { display: block; width: 100%; margin: 1.5rem 0 1rem; }
"""

BODY = """\
  <h1>trio_stream</h1>
  <p>This song is streamed as fast as your browser takes it, and no faster. Close the page, and the
     handler that sends it is cancelled.</p>
  <audio controls src="/song.wav"></audio>
  <a href="/song.wav" download>Download song.wav</a>
  <p><small>&ldquo;Ode to Joy&rdquo;, two minutes, 5 MB of WAV</small></p>"""


@contextmanager
def open_demo() -> Iterator[App]:
    """The demo, and a song that it plays for the length of the block."""
    with tempfile.TemporaryFile() as song:
        write_song(song)
        yield make_app(song)


def make_app(song: IO[bytes]) -> App:
    """The demo, with a song of somebody else's."""
    app = App()
    html = make_page("trio_stream", STYLE, BODY)

    @app.get("/")
    def page(res: Response, _: Request) -> None:
        res.write_header("Content-Type", "text/html; charset=utf-8")
        res.end(html)

    @app.get("/song.wav")
    async def send_song(res: Response, _: Request) -> None:
        await res.send_file(song, content_type="audio/wav")

    return app


def write_song(file: IO[bytes]) -> None:
    """Write the melody, repeated without a gap, as a WAV file with one channel of 16 bits."""
    notes = [(note[0], float(note[1:])) for note in MELODY.split()]
    beats = sum(length for _, length in notes)
    size = round(beats * BEAT * SAMPLE_RATE)
    mix = [0.0] * (size + SAMPLE_RATE)
    sounds = {name: _pluck(hertz) for name, hertz in HERTZ.items()}
    beat = 0.0
    for name, length in notes:
        start = round(beat * BEAT * SAMPLE_RATE)
        end = start + SAMPLE_RATE
        mix[start:end] = map(add, mix[start:end], sounds[name])
        beat += length
    mix[:SAMPLE_RATE] = map(add, mix, mix[size:])  # the last note rings on into the repetition
    del mix[size:]
    scale = 24_000 / max(map(abs, mix))  # not quite as loud as 16 bits can be
    samples = array("h", [int(sample * scale) for sample in mix])
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(samples.itemsize)
        writer.setframerate(SAMPLE_RATE)
        writer.writeframes(samples.tobytes() * REPEATS)
    file.flush()


def _pluck(hertz: float) -> list[float]:
    """One second of a plucked note: a sudden start that fades, the overtone faster."""
    samples = []
    for index in range(SAMPLE_RATE):
        time = index / SAMPLE_RATE
        phase = math.tau * hertz * time
        fade = math.exp(-5 * time) * min(1.0, 200 * time)  # 5 ms of rise, or it would click
        samples.append(fade * (math.sin(phase) + 0.4 * fade * math.sin(2 * phase)))
    return samples
