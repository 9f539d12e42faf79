from tests.harness import open_peer, Kind
from trio_stream import App
import trio

async def test_hello(kind: Kind) -> None:
    app=App()
    @app.get("/")
    def f(res, req): res.end("hi")
    async with open_peer(app, kind) as peer:
        await peer.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await peer.receive_head()
        assert await peer.receive_exactly(2)==b"hi"

async def test_abort(kind: Kind) -> None:
    app=App()
    ev=trio.Event()
    @app.get("/")
    async def f(res, req):
        try: await trio.sleep_forever()
        finally: ev.set()
    async with open_peer(app, kind) as peer:
        await peer.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await peer.send_eof()
        await ev.wait()
