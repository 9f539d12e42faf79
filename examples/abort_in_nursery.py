"""A client that goes away cancels all the work that is done for it, however deep it is nested.

The handler of `/readings` opens a nursery with three sensors, each a task that must be switched off
at its end, and that sends its readings through a memory channel. No task asks whether the client is
still there: when it goes, the handler is cancelled, so the nursery unwinds, and every task in it.

Try:

    curl --no-buffer http://127.0.0.1:8000/readings

and end it with Ctrl-C: the log shows each sensor switched off, and then the end of the nursery.
"""

import logging
import random

import trio

from trio_stream import App, Request, Response

SENSORS = ("pressure", "humidity", "wind")
PERIOD = 0.2  # seconds between two readings of a sensor
LINE = "{name:>8} {value:7.2f}\n"
TOTAL = 3_000 * len(LINE.format(name="", value=0))  # which takes some three minutes

logger = logging.getLogger("abort_in_nursery")
app = App()


async def read_sensor(name: str, readings: trio.MemorySendChannel[bytes]) -> None:
    logger.info("%s: on", name)
    try:
        async with readings:
            while True:
                value = random.gauss(500, 20)
                await readings.send(LINE.format(name=name, value=value).encode())
                await trio.sleep(PERIOD)
    finally:
        logger.info("%s: off", name)


@app.get("/readings")
async def stream_readings(res: Response, req: Request) -> None:
    res.write_header("Content-Type", "text/plain; charset=utf-8")
    # Without a buffer a sensor waits until its last reading was sent: a slow client slows it down.
    send_channel, receive_channel = trio.open_memory_channel[bytes](0)
    try:
        async with trio.open_nursery() as nursery:
            async with send_channel:
                for name in SENSORS:
                    nursery.start_soon(read_sensor, name, send_channel.clone())
            async for line in receive_channel:
                _, done = await res.send_chunk(line, TOTAL)
                if done:
                    nursery.cancel_scope.cancel()
    finally:
        logger.info("all sensors are off; the client has gone: %s", res.aborted)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    app.run(port=8000)
