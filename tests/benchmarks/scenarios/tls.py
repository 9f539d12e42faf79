"""A stream over TLS, and the same without."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tests.benchmarks import certificate
from tests.benchmarks.client import connect, receive_head, request, reset_on_close
from tests.benchmarks.model import Scenario, Target
from tests.benchmarks.scenarios.growth import measure_streams
from tests.benchmarks.servers.chunk import make_chunk
from tests.benchmarks.servers.notes import ENDLESS
from tests.benchmarks.spending import PER_GIB

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from tests.benchmarks.model import Figures, Start
    from tests.benchmarks.process import ServerProcess

_TLS, _PLAIN = "TLS", "plain"
_TIMES_CPU, _TIMES_TIME = "times plain CPU", "times plain time"

_CHUNK_SIZE = 64 * 1024


@dataclass(frozen=True)
class Tls(Scenario):
    """Chunks of 64 KiB of a known length over TLS 1.3, and without TLS in the same round.

    After the handshake the client decrypts the head and the first part, and compares it. The rest
    it discards as it comes, as it does without TLS, so that it is never what limits the server; of
    that a 700th is not content but what TLS adds.
    """

    name: ClassVar[str] = "tls"
    rounds: ClassVar[int] = 7
    cost: ClassVar[str] = PER_GIB
    baseline: ClassVar[str] = "uvicorn + httptools"
    targets = (Target(_TLS, _TIMES_CPU, 2), Target(_TLS, _TIMES_TIME, 2))

    total: int = 1 << 30
    first_part: int = 16 << 20

    def prepared(self) -> AbstractContextManager[None]:
        return certificate.provided()

    def measure(self, start: Start) -> Mapping[str, Figures]:
        with start() as server:
            tls = self._measure(server, _open_tls(server.port, self.first_part))
        with certificate.hidden(), start() as server:
            plain = self._measure(server, _open_plain(server.port, self.first_part))
        times = {
            _TIMES_CPU: tls[PER_GIB] / plain[PER_GIB],
            _TIMES_TIME: plain["GiB/s"] / tls["GiB/s"],
        }
        return {_TLS: {**tls, **times}, _PLAIN: plain}

    def _measure(self, server: ServerProcess, sock: socket.socket) -> Figures:
        with sock:
            reset_on_close(sock)
            return measure_streams(server, [sock], self.total)


def _open_tls(port: int, first_part: int) -> socket.socket:
    """A connection in the middle of an answer, as it comes."""
    with certificate.client_context().wrap_socket(connect(port)) as sock:
        sock.sendall(request(f"/stream/{_CHUNK_SIZE}/{ENDLESS}"))
        received = b""
        while b"\r\n\r\n" not in received:
            received += _receive(sock)
        head, _, received = received.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ConnectionError(f"the server answered {head!r}")
        parts = [received]
        left = first_part - len(received)
        while left > 0:
            parts.append(_receive(sock))
            left -= len(parts[-1])
        _check(b"".join(parts))
        return socket.socket(fileno=sock.detach())


def _open_plain(port: int, first_part: int) -> socket.socket:
    sock = connect(port)
    sock.sendall(request(f"/stream/{_CHUNK_SIZE}/{ENDLESS}"))
    receive_head(sock)
    _check(sock.recv(first_part, socket.MSG_WAITALL))
    return sock


def _receive(sock: socket.socket) -> bytes:
    data = sock.recv(_CHUNK_SIZE)
    if not data:
        raise ConnectionError("the server closed with bytes still to come")
    return data


def _check(content: bytes) -> None:
    chunk = make_chunk(_CHUNK_SIZE)
    if not (chunk * (len(content) // _CHUNK_SIZE + 1)).startswith(content):
        raise ConnectionError("the server sent something else")
