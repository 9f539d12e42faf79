"""An app as it is run in production: behind a proxy, with probes and metrics.

    trio-stream --workers 4 --unix /run/trio-stream/http.sock --access-log json app.py

See the other files of this directory for what stands around it.
"""

import trio
from trio_util import move_on_when

from trio_stream import App, Config, Request, Response

# The proxy is on the other side of a Unix socket: what it tells of the client is believed.
app = App(config=Config(trusted_proxies=("unix",)))
app.metrics()
app.health()


@app.get("/")
def hello(res: Response, req: Request) -> None:
    host, *_ = req.client if isinstance(req.client, tuple) else ("somebody",)
    res.end(f"Hello, {host}!\n")


@app.get("/clock")
async def clock(res: Response, req: Request) -> None:
    async with res.events() as events, move_on_when(res.wait_shutdown):
        while True:
            await events.send("tick")
            await trio.sleep(1)


if __name__ == "__main__":
    app.run()
