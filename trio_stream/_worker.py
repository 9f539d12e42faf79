"""What a worker gets from its supervisor: listening sockets, and a channel that ends with it."""

from __future__ import annotations

import os
import signal
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ._config import Config

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

VARIABLE = "TRIO_STREAM_WORKER"

# Seconds that a worker has to end itself after the grace of its shutdown, before it is killed:
# longer than its lifespans have.
MARGIN = 5.0


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
        self._grace = Config().shutdown_grace  # until the app is known

    def tell_ready(self, shutdown_grace: float) -> None:
        """Tell the supervisor that this process serves, and how long its shutdown may take."""
        self._grace = shutdown_grace
        with suppress(BrokenPipeError):  # it has gone, which is noticed elsewhere
            self._channel.send(str(shutdown_grace).encode())

    @contextmanager
    def watch_supervisor(self) -> Iterator[None]:
        """End this process if the supervisor dies before the end of the block, as that would.

        It gets a SIGTERM, and is killed if that does not end it in time: it would keep the address
        for ever. A thread waits for that, as this process may hang before Trio runs, while it
        imports an app, or in a handler that never lets others run.
        """
        is_over = threading.Event()

        def wait_for_end() -> None:
            with suppress(ConnectionError):
                self._channel.recv(1)
            if is_over.is_set():
                return
            os.kill(os.getpid(), signal.SIGTERM)
            if not is_over.wait(min(self._grace + MARGIN, threading.TIMEOUT_MAX)):
                os.kill(os.getpid(), signal.SIGKILL)

        thread = threading.Thread(target=wait_for_end, name="watch supervisor", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            with suppress(OSError):  # where it is not connected any more, there is no wait
                self._channel.shutdown(socket.SHUT_RD)  # which ends it
            thread.join()
            self._channel.close()


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
