"""A server inside a Trio program: one task among others, in a nursery that cancels them all.

`python examples/embedded.py` serves for a minute, or until Ctrl-C, beside a task that reports what
the server does. Then the nursery is cancelled, and the server is gone, with every client still on
it; the program goes on. (`python -m trio_stream embedded` serves the app without this program.)

Try, while the program runs:

    curl --no-buffer http://127.0.0.1:8000/clock
"""

import signal
from datetime import UTC, datetime
from functools import partial

import trio

from trio_stream import App, Request, Response, Server

LINE = "{:%H:%M:%S}\n"
TOTAL = 600 * len("00:00:00\n")  # ten minutes

app = App()


@app.get("/clock")
async def clock(res: Response, req: Request) -> None:
    """One line each second."""
    res.write_header("Content-Type", "text/plain; charset=utf-8")
    while True:
        ok, done = await res.send_chunk(LINE.format(datetime.now(UTC)).encode(), TOTAL)
        if not ok or done:
            break
        await trio.sleep(1)


async def report(server: Server, period: float) -> None:
    while True:
        stats = server.stats
        print(f"{stats.requests} requests so far, {stats.active_responses} under way", flush=True)
        await trio.sleep(period)


async def main(port: int = 8000, duration: float = 60, period: float = 5) -> None:
    async with trio.open_nursery() as nursery:
        # It returns when the server listens; an address that is not to be had raises here.
        server = await nursery.start(partial(app.serve, port=port))
        print(f"Serving on http://127.0.0.1:{server.port} for {duration} seconds", flush=True)
        nursery.start_soon(report, server, period)
        with trio.open_signal_receiver(signal.SIGINT) as signals, trio.move_on_after(duration):
            await anext(signals)
        nursery.cancel_scope.cancel()
    print("The server is gone; the program goes on.", flush=True)


if __name__ == "__main__":
    trio.run(main)
