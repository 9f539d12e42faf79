"""What a worker has of its supervisor: listening sockets, and a channel that ends with it."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import trio

from ._background import open_background

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

VARIABLE = "TRIO_STREAM_WORKER"


class Worker:
    """This process, as one of several that serve the same sockets.

    Args:
      channel: The end of a socket pair. What is sent on it says that this process serves; when it
        ends, the supervisor has gone.
      fds: Descriptors of the sockets to serve.
      announces: Whether to tell people where it serves: the first one does, for all.
    """

    def __init__(self, channel: socket.socket, fds: Sequence[int], *, announces: bool) -> None:
        self.fds = fds
        self.announces = announces
        self._channel = channel

    def tell_ready(self, shutdown_grace: float) -> None:
        """Tell the supervisor that this process serves, and how long its shutdown may take."""
        with suppress(BrokenPipeError):  # it has gone, which is noticed elsewhere
            self._channel.send(str(shutdown_grace).encode())

    @asynccontextmanager
    async def watch_supervisor(self) -> AsyncIterator[None]:
        """Shut down, as by a signal, if the supervisor dies before the end of the block."""
        channel = trio.SocketStream(trio.socket.from_stdlib_socket(self._channel))
        async with channel, open_background() as start_soon:

            async def wait_for_end() -> None:
                with suppress(trio.BrokenResourceError):
                    await channel.receive_some(1)
                signal.raise_signal(signal.SIGTERM)

            start_soon(wait_for_end)
            yield


def describe_worker(channel: socket.socket, fds: Sequence[int], *, announces: bool) -> str:
    """What `take_worker` reads in the process that has inherited these."""
    return f"{channel.fileno()}:{','.join(map(str, fds))}:{int(announces)}"


def take_worker() -> Worker | None:
    """This process as a worker; `None` if it is none.

    What tells it is taken out of the environment: processes that it starts are none.
    """
    if (text := os.environ.pop(VARIABLE, None)) is None:
        return None
    channel, fds, announces = text.split(":")
    os.set_inheritable(int(channel), False)
    return Worker(
        socket.socket(fileno=int(channel)),
        [int(fd) for fd in fds.split(",")],
        announces=announces == "1",
    )
