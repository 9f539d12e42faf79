"""TLS between a transport and a connection, on the server's side.

A filter of bytes: what the transport below does (partial sends, stalls, a FIN seen behind unread
bytes, resets) is what TLS does as well. `trio.SSLStream` has no send that takes what goes now.
"""

from __future__ import annotations

import logging
import ssl
from contextlib import suppress
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import trio

from ._background import open_background
from ._stats import AbortReason
from ._transport import READ_SIZE, Transport, after

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._background import StartSoon
    from ._config import Config
    from ._timeouts import TimeLimit, TimeoutWatch
    from ._transport import Bytes

logger = logging.getLogger("trio_stream")

# Two TLS records. With one, a byte costs a quarter more CPU time; with four, a connection keeps
# 45 KiB more memory, as the buffers of OpenSSL never shrink.
_STEP = 2 * 16 * 1024

# For a client that keeps up, so much is encrypted before it leaves, in one system call: all that
# was corked. Beside one call for each step, that saves a fifth of the CPU time, and half of it
# comes from the last doubling. Twice as much again would save nothing.
_BATCH = 8 * _STEP

_HEADER_SIZE = 5  # of a record: its type, a version, and its length in two bytes

# To encrypt so much takes half a millisecond. Of more, the rest goes after others have had a turn,
# even if the client takes it as fast as it comes.
_MOST_AT_ONCE = 1024 * 1024

_NOT_TLS = b"This port speaks HTTPS: use https:// in the address.\n"


class HandshakeError(Exception):
    """The client and we do not speak TLS with each other."""


class PlainTextError(HandshakeError):
    """The client sends what looks like HTTP without TLS."""


async def serve_tls(
    transport: Transport,
    context: ssl.SSLContext,
    config: Config,
    stalls: TimeoutWatch,
    limit: TimeLimit,
    serve: Callable[[Transport], Awaitable[None]],
) -> None:
    """Shake hands over `transport`, and have `serve` use the result.

    A client that speaks HTTP without TLS gets a 400 that says so; of another one that fails nothing
    is told but a line at the level DEBUG. `limit` ends the handshake if it takes too long.
    """
    tls = TLSTransport(transport, context, config, stalls)
    try:
        if await _shake_hands(tls, transport, limit):
            async with open_background() as start_soon:
                tls.start(start_soon)
                await serve(tls)
    finally:
        transport.stop_timers()
        transport.user = None


async def _shake_hands(tls: TLSTransport, below: Transport, limit: TimeLimit) -> bool:
    """Whether it worked. Else the client has been told what may be told, and is to be closed."""
    try:
        with limit() as scope:
            await tls.shake_hands()
        if not scope.cancelled_caught:
            return True
        logger.debug("%s: no TLS handshake in time", tls.client)
    except HandshakeError as exc:
        logger.debug("%s: no TLS: %s", tls.client, exc)
        with suppress(trio.BrokenResourceError):
            if isinstance(exc, PlainTextError):
                below.send_some(_refuse_plain_text())
            await below.finish(peer_is_sending=True)
    except trio.BrokenResourceError as exc:
        logger.debug("%s: gone before TLS: %s", tls.client, exc)
    return False


class TLSTransport(Transport):
    """A transport that encrypts, on top of another one. First `shake_hands`, then `start`.

    A task of its own reads ahead, a bounded number of bytes: an end that is told by TLS only, with
    no FIN behind it, is noticed while nobody reads.
    """

    def __init__(
        self, below: Transport, context: ssl.SSLContext, config: Config, stalls: TimeoutWatch
    ) -> None:
        super().__init__(config, stalls, client=below.client, scheme="https")
        self.trusted_proxies = below.trusted_proxies
        self._below = below
        self._arrived = ssl.MemoryBIO()
        self._encrypted = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._arrived, self._encrypted, server_side=True)
        self._size = config.stream_buffer_size
        self._leaving: tuple[Bytes, ...] = ()  # what was taken from `_encrypted`
        self._batch = _STEP
        self._received = bytearray()
        self._record_left = 0  # bytes of the client's last record that have not come yet...
        self._record_header = b""  # ...or what has come of its header
        self._blocked = False
        self._ended = False  # by us
        self._broken = False
        self._at_eof = False
        self._kept_back = 0  # bytes of the handshake that nobody waits for
        self._client_certificate: dict[str, Any] | None = None
        # Whoever waits for one of the above to change parks here and then looks again.
        self._change = trio.lowlevel.ParkingLot()
        below.user = self

    async def shake_hands(self) -> None:
        """Agree with the client on how to encrypt, and look at its certificate if it has one.

        Raises:
          HandshakeError: That failed. The client was told why, if it may know.
          trio.BrokenResourceError: The connection was reset.
        """
        data = await self._below.receive_some()
        if data[:1].isalpha():  # a handshake begins with 0x16 (RFC 8446 section 5.1)
            raise PlainTextError("the client sent HTTP without TLS")
        while data:
            self._follow_records(data)
            self._arrived.write(data)
            try:
                self._ssl.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                data = await self._below.receive_some()
            except ssl.SSLError as exc:
                self._flush()
                raise HandshakeError(str(exc)) from exc
            else:
                break
        else:
            raise HandshakeError("the client has ended its stream")
        # In TLS 1.3 the client has all that it needs. What is left are tickets for later
        # connections, and a client that closes without having read them would reset this one.
        if self._ssl.version() != "TLSv1.3":
            self._flush()
        self._kept_back = self._encrypted.pending
        self._client_certificate = self._ssl.getpeercert() or None
        self._decrypt(b"")  # what came with the end of the handshake

    def start(self, start_soon: StartSoon) -> None:
        """Begin to receive."""
        self._start_soon = start_soon
        start_soon(self._read_ahead)

    @property
    def client_certificate(self) -> dict[str, Any] | None:
        return self._client_certificate

    # Out...

    def send_some(self, *pieces: Bytes) -> int:
        size = sum(map(len, pieces))
        accepted = self._encrypt(pieces, size) if self._flush() else 0
        self._blocked = self._blocked or accepted < size
        return accepted

    def _encrypt(self, pieces: tuple[Bytes, ...], size: int) -> int:
        """Encrypt and hand on what goes now of the pieces, when nothing else is left to go."""
        if size <= READ_SIZE * len(pieces):
            pieces = (b"".join(pieces),)  # or each would be a record
        accepted = gathered = 0
        try:
            for piece in pieces:
                rest = memoryview(piece)
                while rest:
                    if gathered >= self._batch:
                        gathered = 0
                        if not self._flush():
                            self._batch = _STEP
                            return accepted
                        if accepted >= _MOST_AT_ONCE:
                            self.notify_soon()
                            return accepted
                    written = self._ssl.write(rest[:_STEP])
                    self._leaving += (self._encrypted.read(),)
                    accepted += written
                    gathered += written
                    rest = rest[written:]
            self._batch = _BATCH if self._flush() else _STEP
        except ssl.SSLError as exc:
            self._break()
            raise trio.BrokenResourceError(f"sending failed: {exc}") from exc
        except trio.BrokenResourceError:
            # Some may have gone, so it is not for the caller: the user is told.
            self._break()
            self.notify_soon()
        return accepted

    def _flush(self) -> bool:
        """Hand on what is encrypted; whether all of it went.

        If not, the transport below times how long that takes, and tells when there is room.
        """
        if self._broken:
            raise trio.BrokenResourceError("sending failed: the connection is broken")
        while self._leaving or self._encrypted.pending:
            self._leaving = self._leaving or (self._encrypted.read(),)
            self._leaving = after(self._below.send_some(*self._leaving), self._leaving)
            if self._leaving:
                return False
        return True

    def unsent(self) -> int:
        leaving = sum(map(len, self._leaving))
        return leaving + self._encrypted.pending + self._below.unsent()

    def has_kept(self) -> bool:
        return bool(self._leaving) or self._encrypted.pending > self._kept_back

    def require_rate(self, watch: TimeoutWatch, rate: float) -> None:
        self._below.require_rate(watch, rate)

    def stop_waiting(self) -> None:
        if not (self._leaving or self._encrypted.pending):
            self._below.stop_waiting()

    def stop_timers(self) -> None:
        self._below.stop_timers()

    def notify_soon(self) -> None:
        self._start_soon(self._notify)

    async def _notify(self) -> None:
        if self.hung_up:
            self._lose(AbortReason.CLIENT_CLOSED)
        else:
            self._blocked = True
            self._transport_writable()

    async def send_eof(self) -> None:
        # It says "close_notify" (RFC 8446 section 6.1), and is done when the client has said the
        # same; that is not waited for here.
        with suppress(ssl.SSLError):
            self._ssl.unwrap()
        self._ended = True
        self._received.clear()
        self._change.unpark_all()
        while not self._flush():
            await self._change.park()
        await self._below.send_eof()

    def reset(self) -> None:
        self._break()
        self._leaving = ()
        self._below.reset()

    def _break(self) -> None:
        self._broken = True
        self._change.unpark_all()

    # In...

    async def receive_some(self, max_bytes: int = READ_SIZE) -> bytes:
        await trio.lowlevel.checkpoint()
        while not (self._received or self._at_eof or self._broken):
            await self._change.park()
        if self._broken and not self._received:
            raise trio.BrokenResourceError("receiving failed: the connection is broken")
        data = bytes(self._received[:max_bytes])
        del self._received[:max_bytes]
        self._change.unpark_all()
        return data

    def has_unread(self) -> bool:
        has_begun = self._record_left or self._record_header
        return bool(self._received or has_begun) or self._below.has_unread()

    async def _read_ahead(self) -> None:
        while not self._at_eof:
            # TLS answers some of what it receives, and a client may ask without taking answers.
            while (
                len(self._received) >= self._size
                or self._encrypted.pending >= self._kept_back + self._size
            ):
                await self._change.park()
            try:
                data = await self._below.receive_some(_STEP)
                if not data:
                    self._at_eof = True  # without "close_notify", as many clients end
                elif not self._ended:
                    self._decrypt(data)
                    self._flush()
            except trio.BrokenResourceError:
                self._break()
                self.on_hang_up(reset=True)
                return
            self._change.unpark_all()

    def _decrypt(self, data: bytes) -> None:
        self._follow_records(data)
        self._arrived.write(data)
        try:
            while decrypted := self._ssl.read(READ_SIZE):
                self._received += decrypted
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as exc:
            self._flush()  # it says what was wrong
            raise trio.BrokenResourceError(f"receiving failed: {exc}") from exc
        self._at_eof = True
        self.on_hang_up(reset=False)

    def _follow_records(self, data: bytes) -> None:
        """Note whether the client is in the middle of a record (RFC 8446 section 5.1).

        `ssl` does not tell.
        """
        data = self._record_header + data
        position = self._record_left
        while position + _HEADER_SIZE <= len(data):
            length = data[position + 3 : position + _HEADER_SIZE]
            position += _HEADER_SIZE + int.from_bytes(length, "big")
        self._record_header = data[position:]
        self._record_left = max(position - len(data), 0)

    # As the user of the transport below...

    def _transport_writable(self) -> None:
        try:
            has_room = self._flush()
        except trio.BrokenResourceError:
            self._break()
            self.on_hang_up(reset=True)
            return
        self._change.unpark_all()
        if has_room and self._blocked:
            self._blocked = False
            self.on_writable()

    def _transport_lost(self, reason: AbortReason) -> None:
        self._broken = self._broken or reason is AbortReason.STALLED
        self._change.unpark_all()
        self._lose(reason)


def _refuse_plain_text() -> bytes:
    head = (
        "HTTP/1.1 400 Bad Request",
        f"Date: {formatdate(usegmt=True)}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(_NOT_TLS)}",
        "Connection: close",
    )
    return "\r\n".join((*head, "", "")).encode("ascii") + _NOT_TLS
