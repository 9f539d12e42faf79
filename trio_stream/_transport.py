"""Non-blocking partial sends over a socket, and over any other Trio stream.

`send_some` takes what goes *now* and says how much that was: after a `Cancelled`, nobody knows how
much `trio.abc.SendStream.send_all` has sent. What becomes of the peer is told to the `user` of the
transport, which is the response under way.
"""

from __future__ import annotations

import io
import os
import socket
import struct
import sys
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import trio

from ._background import open_background
from ._file import FilePart, FileTooShortError
from ._stalls import Pace
from ._stats import AbortReason

if sys.platform != "win32":
    import fcntl
    import termios

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from ._background import StartSoon
    from ._config import Config
    from ._readiness import ReadinessWatcher
    from ._stalls import StallWatch

Bytes: TypeAlias = bytes | bytearray | memoryview

READ_SIZE = 16 * 1024

# Larger steps cost more, up to half as much again for all at once, as what is sent leaves the cache
# of the processor before it is received.
_SENDFILE_SIZE = 512 * 1024

# The kernel may keep so much more of a file unsent: what it keeps are the pages of its cache, and
# no copies. With 64 clients that halves the CPU time, as there are fewer wake-ups.
_FILE_LOWAT = 32

_INT_MAX = 2**31 - 1

# One TLS record: a larger piece would hide progress, a smaller one costs a system call more.
_SLICE_SIZE = 16 * 1024


class ClientGoneError(trio.BrokenResourceError):
    """The client has gone. That is no error of the handler which lets this pass."""


class TransportUser(Protocol):
    """What a transport tells about its peer. Neither method may raise."""

    def _transport_writable(self) -> None: ...

    def _transport_lost(self, reason: AbortReason) -> None: ...


class Transport(ABC):
    """One connection's bytes: out without blocking, in with `await`.

    Attributes:
      user: Is told of writability and of a hang-up, from another task.
      hung_up: Whether the peer counts as gone.
      client: The peer's address, as `socket.getpeername` gives it; `None` if it has none.
      scheme: `"http"` or `"https"`.
    """

    _eof_is_close = False  # for a stream that has no half-close, such as TLS

    def __init__(
        self,
        config: Config,
        stalls: StallWatch,
        *,
        client: object = None,
        scheme: str = "http",
    ) -> None:
        self.user: TransportUser | None = None
        self.hung_up = False
        self.client = client
        self.scheme = scheme
        self._half_close_is_hang_up = config.half_close == "abort"
        self._linger_timeout = config.linger_timeout
        self._stalls = stalls
        self._is_timed = False
        self._unsent_when_blocked = 0
        self._pace: Pace | None = None
        self._accepted = 0  # while there is a pace, and the client is waited for

    def require_rate(self, watch: StallWatch, rate: float) -> None:
        """Take a client for stalled that takes fewer than `rate` bytes a second, see `Pace`."""
        self._pace = Pace(watch, rate, lambda: self._accepted - self.unsent(), self.on_stall)

    def stop_timers(self) -> None:
        """Look no more at how slow the client is."""
        self._stop_timer()
        if self._pace is not None:
            self._pace.close()

    @property
    def client_certificate(self) -> dict[str, Any] | None:
        """The peer's certificate, as `ssl.SSLSocket.getpeercert` gives it; `None` without."""
        return None

    @abstractmethod
    def send_some(self, *pieces: Bytes) -> int:
        """Hand over as much of the pieces (at most 1024), in order, as is taken now.

        Returns:
          The number of bytes taken, 0 if there is no room. If some were not, the user is told when
          there is room again.

        Raises:
          trio.BrokenResourceError: Nothing can be sent any more.
        """

    def send_file(self, part: FilePart) -> int:
        """Hand over some of a part of a file, without reading it.

        Returns:
          The number of bytes taken, which may be fewer than would go; 0 if there is no room: then
          the user is told when there is.

        Raises:
          trio.BrokenResourceError: Nothing can be sent any more.
          FileTooShortError: The file ends before the part.
          io.UnsupportedOperation: It must be read to be sent: the transport knows no other way, or
            the kernel knows none for this file.
        """
        raise io.UnsupportedOperation(f"{part.file.name!r} must be read to be sent")

    def sending_files(self) -> AbstractContextManager[None]:
        """Expect `send_file` for the length of the block.

        Raises:
          io.UnsupportedOperation: As `send_file`, if it will do so in any case.
        """
        raise io.UnsupportedOperation("files must be read to be sent")

    def has_arrivals(self) -> bool:
        """Whether something has come in for the server since this was asked, as far as known."""
        return True

    @abstractmethod
    async def receive_some(self, max_bytes: int = READ_SIZE) -> bytes:
        """Wait for bytes of the peer: at most `max_bytes`, or `b""` after its last.

        Raises:
          trio.BrokenResourceError: The connection was reset.
        """

    @abstractmethod
    def has_unread(self) -> bool:
        """Whether `receive_some` would return bytes at once, as far as known."""

    @abstractmethod
    def unsent(self) -> int:
        """How many bytes were taken by `send_some` and not yet by the peer, as far as known."""

    @abstractmethod
    def notify_soon(self) -> None:
        """Tell the user once more what is known now, but not before the next scheduler tick."""

    @abstractmethod
    async def send_eof(self) -> None:
        """Send what was accepted, and then the end of the stream.

        Raises:
          trio.BrokenResourceError: Nothing can be sent any more.
        """

    @abstractmethod
    def reset(self) -> None:
        """Throw away what the peer has not taken: closing will reset the connection."""

    async def finish(self, *, peer_is_sending: bool = False) -> None:
        """End the stream and wait a while for the peer to do the same (RFC 9112 section 9.6).

        Closing at once while bytes of the peer are unread would reset the connection, and the peer
        might lose what it has not read yet.

        Args:
          peer_is_sending: There is more to come of the peer, as far as is known.
        """
        try:
            if peer_is_sending and self._eof_is_close:
                await self._linger()
            await self.send_eof()
            await self._linger()
        except trio.BrokenResourceError:
            pass  # then the peer has closed, too

    async def _linger(self) -> None:
        with trio.move_on_after(self._linger_timeout):
            while await self.receive_some():
                pass

    def on_writable(self) -> None:
        """There is room again."""
        self._stop_timer()
        if self.user is not None:
            self.user._transport_writable()

    def on_hang_up(self, *, reset: bool) -> None:
        """The peer sent the end of its stream or, with `reset`, nothing can be sent any more."""
        if reset or self._half_close_is_hang_up:
            self._lose(AbortReason.CLIENT_CLOSED)

    def has_progressed(self) -> bool:
        """Whether the peer took a byte since the last call, or since it was blocked."""
        before, self._unsent_when_blocked = self._unsent_when_blocked, self.unsent()
        return self._unsent_when_blocked < before

    def on_stall(self) -> None:
        """The peer took nothing for too long."""
        self.reset()
        self._lose(AbortReason.STALLED)

    def _time_send(self, accepted: int, size: int) -> None:
        """Start or stop the stall timer, as `accepted` of `size` bytes ask for it."""
        if self._pace is not None:
            self._accepted += accepted
            if accepted < size and not self._is_timed:
                self._pace.wait()
        if accepted == size:
            self._stop_timer()
        elif accepted or not self._is_timed:
            self._is_timed = True
            self._unsent_when_blocked = self.unsent()
            self._stalls.start(self)

    def _stop_timer(self) -> None:
        if self._is_timed and self._pace is not None:
            self._pace.stop_waiting()
        self._is_timed = False
        self._stalls.stop(self)

    def _lose(self, reason: AbortReason) -> None:
        self.hung_up = True
        self._stop_timer()
        if self.user is not None:
            self.user._transport_lost(reason)


class SocketTransport(Transport):
    """A connected `trio.SocketStream`, sent to with plain non-blocking system calls."""

    def __init__(
        self,
        stream: trio.SocketStream,
        config: Config,
        stalls: StallWatch,
        watcher: ReadinessWatcher,
    ) -> None:
        super().__init__(config, stalls, client=peer_address(stream))
        self._stream = stream
        self._fd = stream.socket.fileno()
        self._watcher = watcher
        self._notsent_lowat = config.notsent_lowat
        self._limit_unsent(self._notsent_lowat)

    def _limit_unsent(self, size: int) -> None:
        if self._stream.socket.family != socket.AF_UNIX:
            self._stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size)

    @contextmanager
    def sending_files(self) -> Iterator[None]:
        self._limit_unsent(min(_FILE_LOWAT * self._notsent_lowat, _INT_MAX))
        try:
            yield
        finally:
            self._limit_unsent(self._notsent_lowat)

    def send_some(self, *pieces: Bytes) -> int:
        try:
            if len(pieces) == 1:
                accepted = os.write(self._fd, pieces[0])
            else:
                accepted = os.writev(self._fd, pieces)
        except BlockingIOError:
            accepted = 0
        except OSError as exc:
            raise trio.BrokenResourceError(f"sending failed: {exc}") from exc
        size = sum(map(len, pieces))
        if accepted < size or self._is_timed:
            self._time_send(accepted, size)
        return accepted

    def send_file(self, part: FilePart) -> int:
        start, stop, fd, file_fd = part.start, part.stop, self._fd, part.file.fd
        position = start
        # Whatever stops it after a part was sent will stop the next call at once.
        try:
            while position < stop:
                step = min(_SENDFILE_SIZE, stop - position)
                if not (sent := os.sendfile(fd, file_fd, position, step)):
                    break
                position += sent
        except BlockingIOError:
            if position == start:
                self._time_send(0, stop - start)
                return 0
        except (ConnectionError, TimeoutError) as exc:
            if position == start:
                raise trio.BrokenResourceError(f"sending failed: {exc}") from exc
        except OSError as exc:  # of which side? Reading and sending will tell.
            if position == start:
                raise io.UnsupportedOperation(f"sendfile failed: {exc}") from exc
        if position == start:
            raise FileTooShortError(part)
        accepted = position - start
        if self._is_timed:
            self._time_send(accepted, accepted)
        return accepted

    def has_arrivals(self) -> bool:
        return self._watcher.has_arrivals()

    async def receive_some(self, max_bytes: int = READ_SIZE) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    def has_unread(self) -> bool:
        return _has_unread(self._stream)

    def unsent(self) -> int:
        (unsent,) = struct.unpack("i", fcntl.ioctl(self._fd, termios.TIOCOUTQ, bytes(4)))
        return int(unsent)

    def notify_soon(self) -> None:
        self._watcher.notify_soon(self._fd)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    def reset(self) -> None:
        _reset_on_close(self._stream)


class StreamTransport(Transport):
    """Any `trio.abc.Stream`, made non-blocking by two tasks of its own.

    One drains a bounded send buffer; the other reads ahead, also bounded, so that the end of the
    stream is noticed while nobody reads.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        config: Config,
        stalls: StallWatch,
        start_soon: StartSoon,
    ) -> None:
        super().__init__(
            config,
            stalls,
            client=peer_address(stream),
            scheme="https" if isinstance(stream, trio.SSLStream) else "http",
        )
        self._stream = stream
        self._eof_is_close = not isinstance(stream, trio.abc.HalfCloseableStream)
        self._start_soon = start_soon
        self._stall_timeout = config.stall_timeout
        self._size = config.stream_buffer_size
        self._unsent = bytearray()
        self._blocked = False
        self._broken = False
        self._received = bytearray()
        self._at_eof = False
        # Whoever waits for one of the above to change parks here and then looks again.
        self._change = trio.lowlevel.ParkingLot()
        start_soon(self._drain_send_buffer)
        start_soon(self._read_ahead)

    @property
    def client_certificate(self) -> dict[str, Any] | None:
        if isinstance(self._stream, trio.SSLStream):
            return self._stream.getpeercert() or None
        return None

    def send_some(self, *pieces: Bytes) -> int:
        if self._broken:
            raise trio.BrokenResourceError("sending failed: the stream is broken")
        before = len(self._unsent)
        for piece in pieces:
            self._unsent += piece[: self._size - len(self._unsent)]
        accepted = len(self._unsent) - before
        size = sum(map(len, pieces))
        self._blocked = self._blocked or accepted < size
        self._change.unpark_all()
        self._time_send(accepted, size)
        return accepted

    async def receive_some(self, max_bytes: int = READ_SIZE) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._received and not self._at_eof:
            await self._change.park()
        if self._broken and not self._received:
            raise trio.BrokenResourceError("receiving failed: the stream is broken")
        data = bytes(self._received[:max_bytes])
        del self._received[:max_bytes]
        self._change.unpark_all()
        return data

    def has_unread(self) -> bool:
        below = _socket_below(self._stream)
        return bool(self._received) or (below is not None and _has_unread(below))

    def unsent(self) -> int:
        return len(self._unsent)

    def notify_soon(self) -> None:
        self._start_soon(self._notify)

    async def send_eof(self) -> None:
        while self._unsent and not self._broken:
            before = len(self._unsent)
            with trio.move_on_after(self._stall_timeout) as scope:
                while len(self._unsent) == before and not self._broken:
                    await self._change.park()
            if scope.cancelled_caught:
                raise trio.BrokenResourceError("the client has stopped reading")
        if self._broken:
            raise trio.BrokenResourceError("the stream is broken")
        # The end of TLS is a record, for which there must be room as for any other.
        with trio.move_on_after(self._stall_timeout) as scope:
            await self._send_end()
        if scope.cancelled_caught:
            raise trio.BrokenResourceError("the client has stopped reading")

    async def _send_end(self) -> None:
        if self._eof_is_close:
            await self._stream.aclose()
            return
        assert isinstance(self._stream, trio.abc.HalfCloseableStream)
        try:
            await self._stream.send_eof()
        except trio.ClosedResourceError as exc:  # by whoever else has the stream
            raise trio.BrokenResourceError("the stream was closed") from exc

    def reset(self) -> None:
        self._broken = True
        self._unsent.clear()
        self._change.unpark_all()
        _reset_on_close(self._stream)

    async def _notify(self) -> None:
        if self.hung_up:
            self.on_hang_up(reset=True)
        elif len(self._unsent) < self._size:
            self.on_writable()
        else:
            self._blocked = True  # so that it is told as soon as there is room

    async def _drain_send_buffer(self) -> None:
        while True:
            while not self._unsent:
                await self._change.park()
            piece = bytes(self._unsent[:_SLICE_SIZE])
            try:
                await self._stream.send_all(piece)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._broken = True
                self._at_eof = True
                self._change.unpark_all()
                self.on_hang_up(reset=True)
                return
            del self._unsent[: len(piece)]
            self._change.unpark_all()
            # At half: earlier would wake a sender for each slice, later would let the stream run
            # dry.
            if self._blocked and len(self._unsent) <= self._size // 2:
                self._blocked = False
                self.on_writable()

    async def _read_ahead(self) -> None:
        while True:
            while len(self._received) >= self._size:
                await self._change.park()
            try:
                data = await self._stream.receive_some(READ_SIZE)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._broken = True
                data = b""
            self._received += data
            self._at_eof = not data
            self._change.unpark_all()
            if self._at_eof:
                self.on_hang_up(reset=self._broken)
                return


@asynccontextmanager
async def open_transport(
    stream: trio.abc.Stream,
    config: Config,
    stalls: StallWatch,
    watcher: ReadinessWatcher | None,
) -> AsyncIterator[Transport]:
    """Wrap `stream` for the length of the block, and close it, without ceremony, at its end."""
    try:
        if watcher is not None and isinstance(stream, trio.SocketStream):
            fd = stream.socket.fileno()
            transport = SocketTransport(stream, config, stalls, watcher)
            watcher.add(fd, transport)
            try:
                yield transport
            finally:
                watcher.remove(fd)
        else:
            async with open_background() as start_soon:
                yield StreamTransport(stream, config, stalls, start_soon)
    finally:
        await trio.aclose_forcefully(stream)


def _socket_below(stream: trio.abc.Stream) -> trio.SocketStream | None:
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    return stream if isinstance(stream, trio.SocketStream) else None


def _has_unread(stream: trio.SocketStream) -> bool:
    return sys.platform != "win32" and fcntl.ioctl(
        stream.socket.fileno(), termios.FIONREAD, bytes(4)
    ) != bytes(4)


def peer_address(stream: trio.abc.Stream) -> object:
    """The peer's address, as `socket.getpeername` gives it; `None` if it has none."""
    if (below := _socket_below(stream)) is None:
        return None
    try:
        return below.socket.getpeername()
    except OSError:  # it has gone already
        return None


async def peek_some(stream: trio.SocketStream) -> bytes:
    """Wait for bytes of the peer, and leave them in the socket; `b""` after its last.

    Raises:
      trio.BrokenResourceError: The connection was reset.
    """
    try:
        return await stream.socket.recv(READ_SIZE, socket.MSG_PEEK)
    except OSError as exc:
        raise trio.BrokenResourceError(f"receiving failed: {exc}") from exc


def _reset_on_close(stream: trio.abc.Stream) -> None:
    if (below := _socket_below(stream)) is not None:
        below.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
