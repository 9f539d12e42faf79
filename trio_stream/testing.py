"""Test handlers without sockets: an app on an in-memory connection, a client that can stop and go.

Back-pressure is exact here. The client has a `window`: the number of bytes that the server may have
sent and the client has not received yet. A client that does not receive stops the server after that
many bytes, to the byte::

    async def test_download_is_cancelled(autojump_clock):
        async with open_client(app, window=1000) as client:
            response = await client.get("/song.mp3")
            await trio.testing.wait_all_tasks_blocked()  # the handler has filled the window
            client.vanish()
            await trio.testing.wait_all_tasks_blocked()
            assert client.stats.aborts[AbortReason.CLIENT_CLOSED] == 1

An exception that a handler raises is logged and answered, as in a server, and not raised here.

All time is Trio's, so with an autojump clock a stall of a minute takes no time. It jumps on while a
thread is at work, though, and files are read by threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import asynccontextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING, Protocol

import h11
import trio

from ._message import decode_fields
from ._stats import AbortReason
from ._transport import READ_SIZE, Transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from ._app import App
    from ._config import Config
    from ._server import Server
    from ._timeouts import TimeoutWatch
    from ._transport import Bytes


_WINDOW = 64 * 1024


class Connect(Protocol):
    """Connects a client: what `open_clients` gives."""

    def __call__(self, *, window: int = _WINDOW, address: object = None) -> Client:
        """Connect a client.

        Args:
          window: How many bytes the server may be ahead of it.
          address: Its address, as `Request.client` tells it, if no proxy does.
        """


@asynccontextmanager
async def open_client(
    app: App, *, window: int = _WINDOW, address: object = None
) -> AsyncIterator[Client]:
    """Serve `app` to one client for the length of the block, as `open_clients` does to many."""
    async with open_clients(app) as connect:
        yield connect(window=window, address=address)


@asynccontextmanager
async def open_clients(app: App) -> AsyncIterator[Connect]:
    """Serve `app` on in-memory connections for the length of the block, which makes them.

    ::

        async with open_clients(app) as connect:
            alice, bob = connect(), connect(window=100)

    At its end all clients vanish, and what still runs for them is cancelled. An exception in the
    block comes out bare, not in a group.

    Args:
      app: What to serve, with its own config.
    """
    server = app._make_server()
    clients: list[Client] = []
    error: BaseException | None = None
    try:
        async with server._running(), trio.open_nursery() as nursery:
            context = copy_context()  # that of the server, and not of who connects

            def connect(*, window: int = _WINDOW, address: object = None) -> Client:
                transport = _MemoryTransport(app.config, server._stalls, nursery, window, address)
                context.run(nursery.start_soon, serve, transport)
                clients.append(Client(transport, server))
                return clients[-1]

            async def serve(transport: _MemoryTransport) -> None:
                await server._serve_transport(transport)
                transport.close()

            try:
                yield connect
            except BaseException as exc:
                if _is_cancellation(exc):  # which belongs to the nurseries
                    raise
                error = exc
            for client in clients:
                client.vanish()
            nursery.cancel_scope.cancel()
    finally:
        if error is not None:
            raise error


def _is_cancellation(exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return exc.subgroup(trio.Cancelled) is not None
    return isinstance(exc, trio.Cancelled)


class Client:
    """The client's end of an in-memory connection. `open_client` and `open_clients` make it.

    Attributes:
      server: The server: its counters, its shutdown.
      stats: The counters of the server.
    """

    def __init__(self, transport: _MemoryTransport, server: Server) -> None:
        self.server = server
        self.stats = server.stats
        self._transport = transport
        self._h11 = h11.Connection(h11.CLIENT)

    # Bytes...

    @property
    def window(self) -> int:
        """How many bytes the server may be ahead of the client. Can be set at any time."""
        return self._transport.window

    @window.setter
    def window(self, window: int) -> None:
        self._transport.window = window
        self._transport.check_room()

    @property
    def unread(self) -> int:
        """How many bytes the server has sent that have not been received."""
        return len(self._transport.to_client)

    async def send_all(self, data: bytes) -> None:
        """Send raw bytes; they are never held back.

        Raises:
          trio.BrokenResourceError: The server has closed the connection.
          trio.ClosedResourceError: The client has, by `send_eof` or `vanish`.
        """
        await trio.lowlevel.checkpoint()
        self._transport.send_to_server(data)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive raw bytes: at least one, at most `max_bytes`; `b""` after the server's last.

        Raises:
          trio.BrokenResourceError: The server reset the connection.
          ValueError: `max_bytes` is less than 1.
        """
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        return await self._transport.receive_from_server(max_bytes)

    def send_eof(self) -> None:
        """End the stream to the server, as a FIN does; what it sends can still be received."""
        self._transport.client_closed()

    def vanish(self) -> None:
        """Be gone, as with a RST: unread bytes are lost, and the server can't send any more."""
        self._transport.client_vanished()

    # Requests...

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> ClientResponse:
        """Send a request, and wait for the head of its response.

        The body of the last response must have been read. `Host` and `Content-Length` are added
        where needed.

        Raises:
          trio.BrokenResourceError: The server reset the connection.
          trio.ClosedResourceError: As `send_all`.
          h11.RemoteProtocolError: The server closed it, or answered with something else than HTTP.
          h11.LocalProtocolError: The last response said that it is the last one of the connection.
          RuntimeError: It was not read to its end.
        """
        if self._h11.their_state is h11.SEND_BODY:
            raise RuntimeError("read the last response to its end before the next request")
        if self._h11.our_state is not h11.IDLE:
            self._h11.start_next_cycle()
        fields = list(headers.items() if isinstance(headers, Mapping) else headers)
        names = {name.lower() for name, _ in fields}
        if "host" not in names:
            fields.insert(0, ("Host", "memory"))
        if body and not names & {"content-length", "transfer-encoding"}:
            fields.append(("Content-Length", str(len(body))))
        data = self._h11.send(h11.Request(method=method, target=target, headers=fields)) or b""
        if body:
            data += self._h11.send(h11.Data(data=body)) or b""
        await self.send_all(data + (self._h11.send(h11.EndOfMessage()) or b""))
        head = await self._next_event(None)
        while isinstance(head, h11.InformationalResponse):
            head = await self._next_event(None)
        assert isinstance(head, h11.Response), head
        return ClientResponse(self, head)

    async def get(self, target: str) -> ClientResponse:
        """`request("GET", target)`."""
        return await self.request("GET", target)

    async def _next_event(self, max_bytes: int | None) -> h11.Event:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            self._h11.receive_data(await self.receive_some(max_bytes))
        assert not isinstance(event, type), event
        return event


class ClientResponse:
    """A response as the client sees it.

    Attributes:
      status_code: From 200 to 599.
      headers: The header fields, names in any case.
    """

    def __init__(self, client: Client, head: h11.Response) -> None:
        self.status_code = head.status_code
        self.headers = decode_fields(head.headers.raw_items())
        self._client = client
        self._at_end = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next bytes of the body; `b""` at its end.

        Args:
          max_bytes: The most that is received from the server for this, framing included. What came
            with the head is not limited.

        Raises:
          h11.RemoteProtocolError: The server closed the connection before the end of the body.
          trio.BrokenResourceError: It reset the connection.
        """
        if not self._at_end:
            event = await self._client._next_event(max_bytes)
            if isinstance(event, h11.Data):
                return bytes(event.data)
            self._at_end = True
        return b""

    async def read(self) -> bytes:
        """All that is left of the body. Raises as `receive_some`."""
        body = bytearray()
        while data := await self.receive_some():
            body += data
        return bytes(body)


class _MemoryTransport(Transport):
    """Two buffers: one to the client, with a window, and one to the server, without."""

    def __init__(
        self,
        config: Config,
        stalls: TimeoutWatch,
        nursery: trio.Nursery,
        window: int,
        address: object = None,
    ) -> None:
        super().__init__(config, stalls, client=address)
        self.window = window
        self.to_client = bytearray()
        self._to_server = bytearray()
        self._nursery = nursery
        self._blocked = False
        self._no_more_to_server = False
        self._no_more_to_client = False
        self._closed = False
        self._was_reset = False
        # Whoever waits for one of the above to change parks here and then looks again.
        self._change = trio.lowlevel.ParkingLot()

    # The server's side...

    def send_some(self, *pieces: Bytes) -> int:
        if self._was_reset:
            raise trio.BrokenResourceError("the client has vanished")
        before = len(self.to_client)
        for piece in pieces:
            self.to_client += piece[: max(self.window - len(self.to_client), 0)]
        accepted = len(self.to_client) - before
        size = sum(map(len, pieces))
        self._blocked = self._blocked or accepted < size
        self._change.unpark_all()
        self._time_send(accepted, size)
        return accepted

    async def receive_some(self, max_bytes: int = READ_SIZE) -> bytes:
        await trio.lowlevel.checkpoint()
        while not (self._to_server or self._no_more_to_server or self._was_reset):
            await self._change.park()
        if self._was_reset:
            raise trio.BrokenResourceError("the client has vanished")
        data = bytes(self._to_server[:max_bytes])
        del self._to_server[:max_bytes]
        return data

    def has_unread(self) -> bool:
        return bool(self._to_server)

    def unsent(self) -> int:
        return len(self.to_client)

    def notify_soon(self) -> None:
        self._nursery.start_soon(self._notify)

    async def _notify(self) -> None:
        if self.hung_up:
            self._lose(AbortReason.CLIENT_CLOSED)
        elif len(self.to_client) < self.window:
            self.on_writable()
        else:
            self._blocked = True  # so that it is told as soon as there is room

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self._no_more_to_client = True
        self._change.unpark_all()

    def reset(self) -> None:
        self._was_reset = True

    def close(self) -> None:
        self._closed = self._no_more_to_client = True
        self._was_reset = self._was_reset or bool(self._to_server)  # as a kernel does it
        self._change.unpark_all()

    # The client's side...

    def check_room(self) -> None:
        if self._blocked and len(self.to_client) < self.window:
            self._blocked = False
            self.on_writable()

    def send_to_server(self, data: bytes) -> None:
        if self._no_more_to_server:
            raise trio.ClosedResourceError("the client has ended its stream")
        if self._closed or self._was_reset:
            raise trio.BrokenResourceError("the server has closed the connection")
        self._to_server += data
        self._change.unpark_all()

    async def receive_from_server(self, max_bytes: int | None) -> bytes:
        await trio.lowlevel.checkpoint()
        while not (self.to_client or self._no_more_to_client):
            await self._change.park()
        if self._was_reset:
            raise trio.BrokenResourceError("the connection was reset")
        data = bytes(self.to_client[:max_bytes])
        del self.to_client[:max_bytes]
        self.check_room()
        return data

    def client_closed(self) -> None:
        self._no_more_to_server = True
        self._change.unpark_all()
        self.on_hang_up(reset=False)

    def client_vanished(self) -> None:
        self._was_reset = self._no_more_to_server = self._no_more_to_client = True
        self.to_client.clear()
        self._change.unpark_all()
        self.on_hang_up(reset=True)
