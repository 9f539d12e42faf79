"""Non-blocking partial sends, and what is told of the peer.

`send_some` takes what goes *now* and says how much that was: after a `Cancelled`, nobody knows how
much `trio.abc.SendStream.send_all` has sent. What becomes of the peer is told to the `user` of the
transport, which is the response under way.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import trio

from ._stats import AbortReason
from ._timeouts import MinimumRate

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ._config import Config
    from ._file import FilePart
    from ._timeouts import TimeoutWatch

Bytes: TypeAlias = bytes | bytearray | memoryview

READ_SIZE = 16 * 1024

_LOOK_AGAIN = 0.02  # seconds


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
      trusted_proxies: Who is believed about who the client is: `Config.trusted_proxies`, or nobody.
    """

    _eof_is_close = False  # true for a stream without a half-close, such as `trio.SSLStream`

    def __init__(
        self,
        config: Config,
        stalls: TimeoutWatch,
        *,
        client: object = None,
        scheme: str = "http",
    ) -> None:
        self.user: TransportUser | None = None
        self.hung_up = False
        self._peer_has_reset = False
        self.client = client
        self.scheme = scheme
        self.trusted_proxies = config.trusted_proxies
        self._half_close_is_hang_up = config.half_close == "abort"
        self._linger_timeout = config.linger_timeout
        self._stalls = stalls
        self._is_timed = False
        self._unsent_when_blocked = 0
        self._pace: MinimumRate | None = None
        self._accepted = 0  # while there is a pace, and the client is waited for

    def require_rate(self, watch: TimeoutWatch, rate: float) -> None:
        """Take a client for stalled that takes fewer than `rate` bytes a second: `MinimumRate`."""
        self._pace = MinimumRate(
            watch, rate, lambda: self._accepted - self.unsent(), self.on_timeout
        )

    def stop_timers(self) -> None:
        """Look no more at how slow the client is."""
        self.stop_waiting()
        if self._pace is not None:
            self._pace.close()
            self._pace = None

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

    def arrivals(self) -> object:
        """What is the same as before if nothing has come in for the server since then."""
        return object()  # nobody knows

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

    def has_kept(self) -> bool:
        """Whether some of what was taken by `send_some` is still here, for a task to send it."""
        return False

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
          peer_is_sending: The peer has more to send, as far as is known.
        """
        try:
            if peer_is_sending and self._eof_is_close:
                await self._linger()
            await self.send_eof()
            await self._linger()
        except trio.BrokenResourceError:
            pass  # then the peer has closed, too

    async def wait_taken(self) -> None:
        """Wait a while for the peer to take what was sent."""
        with trio.move_on_after(self._linger_timeout):
            while self.unsent() and not self._peer_has_reset:  # noqa: ASYNC110 (no kernel has an event for that)
                await trio.sleep(_LOOK_AGAIN)

    async def _linger(self) -> None:
        with trio.move_on_after(self._linger_timeout):
            while await self.receive_some():
                pass

    def on_writable(self) -> None:
        """There is room again."""
        self.stop_waiting()
        if self.user is not None:
            self.user._transport_writable()

    def on_hang_up(self, *, reset: bool) -> None:
        """The peer sent the end of its stream or, with `reset`, nothing can be sent any more."""
        self._peer_has_reset = self._peer_has_reset or reset
        if reset or self._half_close_is_hang_up:
            self._lose(AbortReason.CLIENT_CLOSED)

    def has_progressed(self) -> bool:
        """Whether the peer took a byte since the last call, or since it was blocked."""
        before, self._unsent_when_blocked = self._unsent_when_blocked, self.unsent()
        return self._unsent_when_blocked < before

    def on_timeout(self) -> None:
        """The peer took nothing for too long."""
        self.reset()
        self._lose(AbortReason.STALLED)

    def _time_send(self, accepted: int, size: int) -> None:
        """Start the stall timer if fewer than `size` bytes were accepted: until there is room."""
        if self._pace is not None:
            self._accepted += accepted
            if accepted < size and not self._is_timed:
                self._pace.wait()
        if accepted == size:
            self._unsent_when_blocked += accepted  # which the peer has not taken
        elif accepted or not self._is_timed:
            self._is_timed = True
            self._unsent_when_blocked = self.unsent()
            self._stalls.start(self)

    def stop_waiting(self) -> None:
        """Nobody waits for the client any more to take what was sent."""
        if self._is_timed:
            self._is_timed = False
            self._stalls.stop(self)
            if self._pace is not None:
                self._pace.stop_waiting()

    def _lose(self, reason: AbortReason) -> None:
        self.hung_up = True
        self.stop_waiting()
        if self.user is not None:
            self.user._transport_lost(reason)


def after(taken: int, pieces: tuple[Bytes, ...]) -> tuple[Bytes, ...]:
    """What is left of `pieces` without the first `taken` bytes, not copied."""
    for index, piece in enumerate(pieces):
        if taken < len(piece):
            return (memoryview(piece)[taken:], *pieces[index + 1 :])
        taken -= len(piece)
    return ()
