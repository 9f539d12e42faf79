"""What is fuzzed: the protocol alone, and whole connections of a server that stays up."""

from __future__ import annotations

import logging
import random
import sys
import tempfile
import warnings
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from unittest.mock import patch
from zlib import crc32

import trio
import trio.testing

from tests.clients import open_descriptors, registered_descriptors, settled_descriptors
from tests.fuzz.app import CONFIGS, FILE_SIZE, make_app
from tests.fuzz.cases import FindingError
from tests.fuzz.oracle import check_wire
from tests.fuzz.streams import Faults, ScriptedStream, be_client, failing_os, open_pair
from tests.harness import pattern
from trio_stream import BadRequestError
from trio_stream._protocol import Protocol
from trio_stream._response_head import ResponseHead
from trio_stream._server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from tests.fuzz.app import RecordingRouter
    from tests.fuzz.cases import Case

T = TypeVar("T")

_LONGEST = 100_000.0
"""What no connection may take, in seconds of the mock clock: each of its waits has a limit."""

Event: TypeAlias = tuple[Any, ...]


# The protocol...


def check_protocol(case: Case) -> list[int]:
    """Feed the bytes as they are cut, and cut otherwise: the same must come of it.

    Returns:
      The statuses of refusals.

    Raises:
      FindingError: It did not; or something else than a `BadRequestError` was raised.
    """
    rng = random.Random(crc32(case.data))
    events = _ProtocolRun(case, case.pieces).events
    others = _ProtocolRun(case, _cut(case.data, rng)).events
    if events != others and b"100-continue" not in case.data.lower():
        raise FindingError(f"cut otherwise, it is something else: {events}, then {others}")
    return [event[1] for event in events if event[0] == "refused"]


def _cut(data: bytes, rng: random.Random) -> Iterator[bytes]:
    most = rng.choice((1, 7, 50, 1000)) if len(data) < 300 else rng.choice((20, 300, 5000))
    start = 0
    while start < len(data):
        size = rng.randint(1, most)
        yield data[start : start + size]
        start += size


class _NoMoreError(Exception):
    """The client sends nothing more."""


class _ProtocolRun:
    """What a connection does with a protocol, without its waits.

    Attributes:
      events: What it was told, in order. What was received of a body that breaks is left out, as it
        depends on the cuts.
    """

    def __init__(self, case: Case, pieces: Iterable[bytes]) -> None:
        self.events: list[Event] = []
        self._protocol = Protocol(CONFIGS[case.config])
        self._pieces = iter(pieces)
        self._rest = b""
        self._ends = case.ending == "fin"
        try:
            while self._serve_request():
                pass
        except BadRequestError as exc:
            self.events.append(("refused", exc.status))
        except _NoMoreError:
            self.events.append(("waits",))
        except Exception as exc:
            raise FindingError(f"the protocol raised {exc!r}") from exc

    def _serve_request(self) -> bool:
        protocol = self._protocol
        while (head := protocol.next_request()) is None:
            if protocol.client_has_closed:
                self.events.append(("closed",))
                return False
            self._receive()
        fields = head.fields.items
        self.events.append(("request", head.method, head.target, head.http_version, fields))
        if head.method not in (b"GET", b"HEAD"):
            body = bytearray()
            while data := self._receive_body():
                body += data
            self.events.append(("body", bytes(body)))
        protocol.start_response(ResponseHead(), 5, closes=False)
        protocol.finish_response()
        try:
            while (discarded := protocol.discard_request_body()) is not None:
                if not discarded:
                    self._receive()
            goes_on = protocol.start_next_cycle()
        except BadRequestError:
            goes_on = False
        if not goes_on:
            self.events.append(("last",))
        return goes_on

    def _receive_body(self) -> bytes:
        while (data := self._protocol.receive_body()) is None:
            self._protocol.continue_request()
            self._receive()
        return data

    def _receive(self) -> None:
        size = self._protocol.read_size
        data = self._rest or next(self._pieces, b"")
        if not data:
            if not self._ends:
                raise _NoMoreError
            self._ends = False
        self._rest = data[size:]
        self._protocol.receive_data(data[:size])


# Whole connections...


class Connections:
    """Servers with small limits; each case is a connection to one of them."""

    def __init__(
        self,
        servers: list[tuple[Server, RecordingRouter]],
        errors: list[str],
    ) -> None:
        self._servers = servers
        self._errors = errors

    async def check_stream(self, case: Case) -> list[int]:
        """Serve a scripted stream.

        Returns:
          The statuses of the answers.

        Raises:
          FindingError: Something was wrong with what was sent, said or left behind.
        """
        stream = ScriptedStream(case)
        server, router = self._servers[case.config]
        async with self._checked(server):
            await server._serve_stream(stream)
        if stream.misuse:
            raise FindingError(stream.misuse)
        if not stream.is_closed:
            raise FindingError("the stream was left open")
        config = CONFIGS[case.config]
        is_stalled = case.slowness >= config.stall_timeout
        # What a stream has accepted, but not sent, is lost with a client that counts as gone.
        has_left = case.ending == "reset" or (case.ending == "fin" and config.half_close == "abort")
        lost = stream.faults.happened or is_stalled or has_left
        return self._check_wire(case, router, stream.wire, lost=lost)

    async def check_socket(self, case: Case) -> list[int]:
        """Serve a scripted client over a socket. As `check_stream`."""
        faults = Faults(case, is_stream=False)
        client, stream = open_pair(faults)
        server, router = self._servers[case.config]
        wire = bytearray()
        assert server._watcher is not None
        async with self._checked(server):
            with failing_os(stream.socket.fileno(), faults, server._watcher):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(be_client, client, case, wire)
                    await server._serve_stream(stream)
        if registered_descriptors(server._watcher):
            raise FindingError("a descriptor is still watched")
        if stream.socket.fileno() >= 0:
            raise FindingError("the socket was left open")
        # A client that sends more than was read has its answers reset, after a while.
        return self._check_wire(case, router, wire, lost=True)

    @asynccontextmanager
    async def _checked(self, server: Server) -> AsyncIterator[None]:
        del self._errors[:]
        tasks = trio.lowlevel.current_statistics().tasks_living
        try:
            with trio.fail_after(_LONGEST):
                yield
        except trio.TooSlowError:
            raise FindingError("a hang") from None
        except Exception as exc:
            raise FindingError(f"an exception left the server: {exc!r}") from exc
        if self._errors:
            raise FindingError(f"logged: {self._errors}")
        stats = server.stats
        if stats.open_connections or stats.active_responses or server._connections:
            raise FindingError(f"still open: {stats}, {server._connections}")
        if server._stalls._deadlines:
            raise FindingError(f"still timed: {list(server._stalls._deadlines)}")
        if trio.lowlevel.current_statistics().tasks_living != tasks:
            await trio.testing.wait_all_tasks_blocked()
        if left := trio.lowlevel.current_statistics().tasks_living - tasks:
            raise FindingError(f"{left} tasks are left")

    def _check_wire(
        self, case: Case, router: RecordingRouter, wire: bytearray, *, lost: bool
    ) -> list[int]:
        exchanges = router.exchanges
        router.exchanges = []
        return check_wire(case, exchanges, bytes(wire), lost=lost)


class _Errors(logging.Handler):
    """What a person would be told of."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(self.format(record))


@asynccontextmanager
async def open_connections() -> AsyncIterator[Connections]:
    """Serve for the length of the block. For a mock clock, threads are left out.

    Raises:
      FindingError: Descriptors are left at its end.
    """
    before = settled_descriptors()
    errors = _Errors()
    logger = logging.getLogger("trio_stream")
    logger.addHandler(errors)
    try:
        with tempfile.TemporaryDirectory() as folder, _without_threads(), _noted(errors.messages):
            file = Path(folder, "file")
            file.write_bytes(pattern(FILE_SIZE))
            async with AsyncExitStack() as stack:
                servers = []
                for config in CONFIGS:
                    app, router = make_app(config, str(file))
                    server = Server(app._router, config)
                    await stack.enter_async_context(server._running())
                    servers.append((server, router))
                yield Connections(servers, errors.messages)
    finally:
        logger.removeHandler(errors)
    if left := open_descriptors() - before:
        raise FindingError(f"descriptors are left: {sorted(left)}")


@contextmanager
def _without_threads() -> Iterator[None]:
    """Do at once what would be done in a thread: a mock clock would not wait for it."""

    async def run_sync(sync_fn: Callable[..., T], *args: object, **_: object) -> T:
        await trio.lowlevel.checkpoint()
        return sync_fn(*args)

    with patch.object(trio.to_thread, "run_sync", run_sync):
        yield


@contextmanager
def _noted(messages: list[str]) -> Iterator[None]:
    """Note what can't be raised, such as a warning in a finalizer."""

    def note(unraisable: sys.UnraisableHookArgs) -> None:
        messages.append(f"{unraisable.err_msg}: {unraisable.exc_value!r}: {unraisable.object!r}")

    with warnings.catch_warnings(), patch.object(sys, "unraisablehook", note):
        warnings.simplefilter("error")
        yield
