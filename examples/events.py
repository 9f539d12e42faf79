"""Server-sent events: a clock, and a page that shows it.

Open http://127.0.0.1:8000/ in a browser, or try:

    curl --no-buffer http://127.0.0.1:8000/clock

When the page is closed, the block of `events()` ends, and with it the handler. When the server
shuts down, the clock ends itself, so nobody waits for it, and the page connects again.
"""

from datetime import datetime, timedelta

import trio
from trio_util import move_on_when

from trio_stream import App, Request, Response

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Clock</title>
<p id="time">not yet</p>
<script>
  new EventSource("/clock").addEventListener("time", (event) => {
    document.getElementById("time").textContent = event.data;
  });
</script>
"""

app = App()


@app.get("/")
def page(res: Response, req: Request) -> None:
    res.write_header("Content-Type", "text/html; charset=utf-8").end(PAGE)


@app.get("/clock")
async def clock(res: Response, req: Request) -> None:
    async with res.events() as events, move_on_when(res.wait_shutdown):
        while True:
            now = datetime.now().astimezone()
            await events.send(f"{now:%H:%M:%S}", event="time", id=int(now.timestamp()))
            second = now.replace(microsecond=0) + timedelta(seconds=1)
            await trio.sleep((second - now).total_seconds())


if __name__ == "__main__":
    app.run(port=8000)
