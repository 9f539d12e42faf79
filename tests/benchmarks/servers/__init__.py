"""The servers that are measured, by the scenarios that they offer.

Paths, for GET where nothing else is said:

- `/stream/CHUNK/TOTAL`: `TOTAL` bytes, in sends of `CHUNK` bytes of one object that all share
  (`chunks`, `growth`, `readers`,
  `stalled`); over HTTPS when there is a certificate (`tls`, see `certificate.py`).
- `/own/CHUNK/TOTAL`: the same with an object for each response (`stalled`).
- `/unknown/CHUNK/TOTAL`: the same as `/stream`, without telling the length (`unknown`).
- `/upload`, by POST: read the body, and then answer as `/hello` (`uploads`).
- `/hello`: `Hello, World!` (`requests`, `watching`, `growth`, `readers`, `cold_file`).
- `/files/NAME` and `/static/NAME`: a file of the folder that `disk.py` makes, as the server sends
  one file and as it serves whole folders (`files`, `small_files`, `slow_files`, `cold_file`).
- `/storm/...`: see `storm_app.py` (`storm`).
- `/vanish/asleep/ID`, `/vanish/sending/ID` and `/vanish/state`: see `scenarios/vanish.py`
  (`vanish`, `abort`).
"""

import sys

from tests.benchmarks.model import Server

_FILES = ("files", "small_files", "slow_files", "cold_file")
_CORE = ("chunks", "unknown", "uploads", "requests")
_MANY = ("growth", "readers")


def _module(
    name: str,
    module: str,
    *offers: str,
    needs: tuple[str, ...] = (),
    programs: tuple[str, ...] = (),
) -> Server:
    argv = (sys.executable, "-m", *f"{__name__}.{module}".split())
    return Server(name, argv, frozenset(offers), needs, programs)


SERVERS = (
    _module("bare epoll", "bare_epoll", *_CORE, *_MANY),
    _module("bare sendfile", "bare_sendfile", *_FILES),
    _module("bare trio", "bare_trio", *_CORE),
    _module("bare trio + h11", "bare_trio_h11", *_CORE),
    _module(
        "trio_stream",
        "trio_stream_app",
        *_CORE,
        *_MANY,
        "tls",
        "abort",
        "stalled",
        "vanish",
        *_FILES,
    ),
    _module("trio_stream, logging", "trio_stream_logged", "requests"),
    _module("trio_stream", "half_watched_app", "watching"),
    _module("trio_stream", "storm_app", "storm"),
    _module("Hypercorn", "hypercorn_trio", *_CORE, *_MANY, "tls", needs=("hypercorn",)),
    _module("quart-trio", "quart_trio_app", *_CORE, "abort", needs=("quart_trio", "hypercorn")),
    _module("uvicorn + h11", "uvicorn_asgi h11", *_CORE, *_MANY, "tls", needs=("uvicorn",)),
    _module(
        "uvicorn + httptools",
        "uvicorn_asgi httptools",
        *(*_CORE, *_MANY, "tls"),
        needs=("uvicorn", "uvloop", "httptools"),
    ),
    _module(
        "uvicorn + Starlette",
        "starlette_app",
        *_FILES[1:],
        needs=("uvicorn", "uvloop", "httptools", "starlette"),
    ),
    _module("granian", "granian_asgi", *_CORE, "readers", needs=("granian", "uvloop")),
    _module("aiohttp", "aiohttp_app", *_CORE, *_MANY, "tls", "abort", *_FILES, needs=("aiohttp",)),
    _module("socketify", "socketify_app", "chunks", "uploads", "requests", needs=("socketify",)),
    _module("nginx", "nginx", "requests", *_FILES, programs=("nginx",)),
    _module("nginx, no tcp_nopush", "nginx no-nopush", "files", programs=("nginx",)),
)
