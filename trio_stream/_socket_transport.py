"""Partial sends over a socket, by plain non-blocking system calls."""

from __future__ import annotations

import io
import os
import socket
import struct
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import trio

from ._config import INT_MAX
from ._file import FilePart, FileTooShortError
from ._transport import READ_SIZE, Bytes, Transport

if sys.platform != "win32":
    import fcntl
    import termios

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._config import Config
    from ._readiness import ReadinessWatcher
    from ._timeouts import TimeoutWatch

# The kernel may keep so much more of a file unsent: what it keeps are the pages of its cache, and
# no copies. With 64 clients that halves the CPU time, as there are fewer wake-ups.
_FILE_LOWAT = 32

# Of other data, the kernel may keep so much more for a client that keeps up, as it is gone at once:
# for chunks of 1 MiB that saves a third of the CPU time with one client, a fifth with 64.
_QUICK_LOWAT = 8
_QUICK, _SLOW = 0.002, 0.1  # seconds that a client lets the server wait


class SocketTransport(Transport):
    """A connected `trio.SocketStream`, sent to with plain non-blocking system calls."""

    def __init__(
        self,
        stream: trio.SocketStream,
        config: Config,
        stalls: TimeoutWatch,
        watcher: ReadinessWatcher,
        *,
        client: object,
    ) -> None:
        super().__init__(config, stalls, client=client)
        self._stream = stream
        # Asked each time: once it is closed, its number may be that of another connection.
        self._fileno = stream.socket.fileno
        self._watcher = watcher
        self._is_tcp = stream.socket.family != socket.AF_UNIX
        self._notsent_lowat = config.notsent_lowat
        self._lowat_factor = 0
        self._limit_unsent(1)
        self._sends_files = False
        self._blocked_at: float | None = None
        self._was_full = False  # what was received last: then there is more, nearly always

    def _limit_unsent(self, factor: int) -> None:
        """Have the kernel keep no more than `factor` times the configured size."""
        if factor != self._lowat_factor:
            size = min(factor * self._notsent_lowat, INT_MAX)
            self._set_tcp_option(socket.TCP_NOTSENT_LOWAT, size)
        self._lowat_factor = factor

    def _set_tcp_option(self, option: int, value: int) -> None:
        if self._is_tcp:
            with suppress(OSError):  # it was closed: whoever sends next is told
                self._stream.setsockopt(socket.IPPROTO_TCP, option, value)

    @contextmanager
    def sending_files(self) -> Iterator[None]:
        self._sends_files = True
        self._limit_unsent(_FILE_LOWAT)
        self._send_full_segments(True)
        try:
            yield
        finally:
            self._sends_files = False
            self._send_full_segments(False)
            self._limit_unsent(1)

    def _send_full_segments(self, only: bool) -> None:
        """Have the kernel keep the rest of a segment for what follows, or send it now.

        The kernel takes files in pieces of 64 KiB, of which few are a number of whole segments:
        without this, files cost a quarter more on loopback. It keeps nothing for more than 200 ms
        (`TCP_CORK` in tcp(7)).
        """
        self._set_tcp_option(socket.TCP_CORK, only)

    def _time_send(self, accepted: int, size: int) -> None:
        if accepted < size and self._blocked_at is None:
            self._blocked_at = trio.current_time()
        super()._time_send(accepted, size)

    def on_writable(self) -> None:
        if self._blocked_at is not None:
            waited = trio.current_time() - self._blocked_at
            self._blocked_at = None
            if not self._sends_files and not _QUICK < waited < _SLOW:
                self._limit_unsent(_QUICK_LOWAT if waited <= _QUICK else 1)
        super().on_writable()

    def send_some(self, *pieces: Bytes) -> int:
        size = len(pieces[0]) if len(pieces) == 1 else sum(map(len, pieces))
        try:
            if len(pieces) == 1:
                accepted = os.write(self._fileno(), pieces[0])
            else:
                accepted = os.writev(self._fileno(), pieces)
        except BlockingIOError:
            accepted = 0
        except OSError as exc:
            raise trio.BrokenResourceError(f"sending failed: {exc}") from exc
        if accepted < size or self._is_timed:
            self._time_send(accepted, size)
        return accepted

    def send_file(self, part: FilePart) -> int:
        try:
            accepted = os.sendfile(self._fileno(), part.file.fd, part.start, len(part))
        except BlockingIOError:
            self._time_send(0, len(part))
            return 0
        except (ConnectionError, TimeoutError) as exc:
            raise trio.BrokenResourceError(f"sending failed: {exc}") from exc
        except OSError as exc:  # of which side? Reading and sending will tell.
            raise io.UnsupportedOperation(f"sendfile failed: {exc}") from exc
        if not accepted:
            raise FileTooShortError(part)
        if self._is_timed:
            self._time_send(accepted, accepted)
        return accepted

    def arrivals(self) -> object:
        return self._watcher.count_arrivals()

    async def receive_some(self, max_bytes: int = READ_SIZE) -> bytes:
        while True:
            fd = self._fileno()
            if fd < 0:
                raise trio.BrokenResourceError("receiving failed: the stream was closed")
            try:
                if self._was_full:
                    await trio.lowlevel.checkpoint()
                else:  # to try first would cost a call that fails, nearly always
                    await trio.lowlevel.wait_readable(fd)
                data = os.read(self._fileno(), max_bytes)
            except BlockingIOError:
                self._was_full = False
                continue
            except (OSError, trio.ClosedResourceError) as exc:
                raise trio.BrokenResourceError(f"receiving failed: {exc}") from exc
            self._was_full = len(data) == max_bytes
            return data

    def has_unread(self) -> bool:
        return has_unread(self._stream)

    def unsent(self) -> int:
        return count_unsent(self._stream)

    def has_progressed(self) -> bool:
        return self._fileno() >= 0 and super().has_progressed()

    def notify_soon(self) -> None:
        if (fd := self._fileno()) >= 0:
            self._watcher.notify_soon(fd)

    async def send_eof(self) -> None:
        # At once: what was looked at just before is still so, as nobody else has run.
        try:
            self._stream.socket.shutdown(socket.SHUT_WR)
        except OSError as exc:
            raise trio.BrokenResourceError(f"ending the stream failed: {exc}") from exc
        await trio.lowlevel.checkpoint()

    def reset(self) -> None:
        reset_on_close(self._stream)


def socket_below(stream: trio.abc.Stream) -> trio.SocketStream | None:
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    return stream if isinstance(stream, trio.SocketStream) else None


def has_unread(stream: trio.SocketStream) -> bool:
    fd = stream.socket.fileno()
    if sys.platform == "win32" or fd < 0:
        return False
    return fcntl.ioctl(fd, termios.FIONREAD, bytes(4)) != bytes(4)


def count_unsent(stream: trio.SocketStream) -> int:
    """How many bytes the kernel keeps that the peer has not taken; 0 where it does not tell."""
    fd = stream.socket.fileno()
    if sys.platform == "win32" or fd < 0:
        return 0
    (unsent,) = struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)))
    return int(unsent)


def peer_address(stream: trio.abc.Stream) -> object:
    """The peer's address, as `socket.getpeername` gives it; `None` if it has none."""
    if (below := socket_below(stream)) is None:
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


def reset_on_close(stream: trio.abc.Stream) -> None:
    if (below := socket_below(stream)) is not None:
        with suppress(OSError):  # it was closed
            below.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
