"""The app that is fuzzed, and what each of its answers must be."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from zlib import crc32

import trio

from tests.harness import pattern
from trio_stream import App, BadRequestError, Config
from trio_stream._routing import Route, Router

if TYPE_CHECKING:
    from trio_stream import Request, Response

T = TypeVar("T", bytes, bytearray)

SMALL = b"Hello, World!\n"
_DEAF = b"I have not listened.\n"
_CHUNK = 1500
_LARGEST = 50_000

FILE_SIZE = 20_000

_LIMITS: dict[str, Any] = {
    "stall_timeout": 5.0,
    "linger_timeout": 2.0,
    "stream_buffer_size": 4096,
    "send_budget": 8192,
    "max_queued_bytes": 64 * 1024,
    "max_head_size": 2048,
    "max_target_size": 512,
    "max_header_count": 30,
    "max_body_size": 4096,
    "max_discarded_body": 4096,
    "head_timeout": 20.0,
    "keep_alive_timeout": 75.0,
}
CONFIGS = (
    Config(**_LIMITS),
    Config(**_LIMITS, half_close="serve", request_timeout=20.0, max_requests=5),
)
"""Small limits, so that short inputs reach them."""


@dataclass
class Exchange:
    """A request that was routed, and its answer.

    Attributes:
      method: Of the request.
      path: As it was routed, percent-encoded.
      response: Once its handler was called.
      expected: The body of a 200, once the handler knows it.
    """

    method: str
    path: str
    response: Response | None = None
    expected: bytes | bytearray | None = None


class RecordingRouter(Router):
    """Notes what is asked.

    Attributes:
      exchanges: The requests since this was last emptied.
    """

    def __init__(self) -> None:
        super().__init__()
        self.exchanges: list[Exchange] = []

    def find(self, method: str, raw_path: str) -> tuple[Route, dict[str, str]]:
        route, params = super().find(method, raw_path)
        exchange = Exchange(method, raw_path)
        self.exchanges.append(exchange)

        def handle(res: Response, req: Request) -> Any:  # noqa: ANN401
            exchange.response = res
            return route.handler(res, req)

        return Route(handle, route.names, route.cancel_on_abort), params

    def expect(self, body: T) -> T:
        """Note what the body of the answer under way must be."""
        self.exchanges[-1].expected = body
        return body


def make_app(config: Config, file: str) -> tuple[App, RecordingRouter]:
    """An app with a handler of each kind.

    Args:
      config: Its limits.
      file: The path of a file that holds `pattern(FILE_SIZE)`.
    """
    app = App(config=config)
    app._router = router = RecordingRouter()

    @app.any("/small")
    def small(res: Response, _: Request) -> None:
        res.end(router.expect(SMALL))

    @app.any("/late")
    async def late(res: Response, _: Request) -> None:
        await trio.sleep(3)
        res.end(router.expect(SMALL))

    @app.any("/deaf")
    def deaf(res: Response, _: Request) -> None:
        res.end(router.expect(_DEAF))

    @app.get("/known/:size")
    async def known(res: Response, req: Request) -> None:
        body = router.expect(pattern(_size(req.params["size"])))
        for start in range(0, len(body) or 1, _CHUNK):
            ok, done = await res.send_chunk(body[start : start + _CHUNK], len(body))
            if not ok or done:
                break

    @app.any("/chunked/:size")
    async def chunked(res: Response, req: Request) -> None:
        body = router.expect(pattern(_size(req.params["size"])))
        for start in range(0, len(body), _CHUNK):
            if not (await res.send_chunk(body[start : start + _CHUNK])).ok:
                break
        res.end()

    @app.get("/callbacks/:size")
    def callbacks(res: Response, req: Request) -> None:
        body = router.expect(pattern(_size(req.params["size"])))

        def send(res: Response, offset: int) -> bool:
            return res.try_end(body[offset:], len(body)).ok

        res.on_writable(send)
        send(res, 0)

    @app.any("/echo")
    async def echo(res: Response, req: Request) -> None:
        received = router.expect(bytearray())
        async for data in req.body:
            received += data
            if not (await res.send_chunk(data)).ok:
                break
        res.end()

    @app.post("/upload")
    async def upload(res: Response, req: Request) -> None:
        data = await req.read()
        res.end(router.expect(receipt(data)))

    @app.get("/file")
    async def send_file(res: Response, _: Request) -> None:
        router.expect(pattern(FILE_SIZE))
        await res.send_file(file)

    @app.any("/refuse")
    async def refuse(res: Response, _: Request) -> None:
        await trio.lowlevel.checkpoint()
        raise BadRequestError("refused by the handler", 422)

    @app.any("/cut")
    async def cut(res: Response, _: Request) -> None:
        await res.send_chunk(SMALL, 2 * len(SMALL))
        raise BadRequestError("refused after the beginning of the answer", 422)

    return app, router


def receipt(data: bytes) -> bytes:
    """What an upload is answered with."""
    return b"%d %08x" % (len(data), crc32(data))


def _size(text: str) -> int:
    with suppress(ValueError):
        if 0 <= (size := int(text)) <= _LARGEST:
            return size
    raise BadRequestError(f"no size: {text!r}", 400)
