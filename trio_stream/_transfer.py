"""What is told about a response that sends a file: how far it is, how fast, and how it ended."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

from ._stats import AbortReason
from ._wording import human_duration, human_size, printable

if TYPE_CHECKING:
    from ._request import Request
    from ._response import Response

# A client that is slower than the server makes the transport block all the time. It is waited for
# when it takes nothing for so long.
_WAIT = 1.0  # seconds

_SPEED_WINDOW = 3.0  # seconds, over which it is measured

_HOW_IT_ENDED = {
    AbortReason.CLIENT_CLOSED: "stopped by the client",
    AbortReason.STALLED: "given up, as the client took nothing more",
    AbortReason.TIMED_OUT: "given up, as it took too long",
    AbortReason.SHUTDOWN: "stopped by the server",
    AbortReason.CANCELLED: "stopped by the server",
    AbortReason.HANDLER_ERROR: "failed",
    AbortReason.INCOMPLETE: "failed",
}


class Transfer:
    """A file or an archive on its way to a client, as it was at the last `look`.

    Attributes:
      name: What it is called, `printable`.
      client: Who gets it, `printable`.
      sent: How many bytes have gone.
      total: How many there are; `None` if nobody knows.
      speed: In bytes per second, lately or, when it is over, on average.
      seconds: How long it took, when it is over.
      state: `"sending"`, `"waiting"` for the client, or how it ended.
      is_begun: Whether there is something to show.
      is_over: Whether there will be nothing new.
      is_complete: Whether all has gone.
    """

    def __init__(self, name: str, res: Response, req: Request) -> None:
        self.name = self._name = printable(name)
        self.client = printable(str(req.client[0] if isinstance(req.client, tuple) else "?"))
        self.sent = 0
        self.total: int | None = None
        self.speed = 0.0
        self.seconds = 0.0
        self.state = "sending"
        self.is_begun = self.is_over = self.is_complete = False
        self._response = res
        self._has_body = req.method != "HEAD"
        self._began_at = self._moved_at = trio.current_time()
        self._samples = deque([(self._began_at, 0)])

    def look(self, now: float) -> None:
        """Take notice of what has happened to the response up to `now`."""
        res = self._response
        # All else that answers a request for a file is none: an error, a redirect, "you have it".
        status = res._sent_status
        self.is_begun = status in (200, 206) and self._has_body
        self.name = f"part of {self._name}" if status == 206 else self._name
        self.is_complete = res._complete
        self.is_over = res._complete or res.aborted
        self.total = res._total_size
        sent = res.get_write_offset()
        if sent != self.sent:
            self.sent = sent
            self._moved_at = now
        if self.is_over:
            self.seconds = now - self._began_at
            self.speed = self.sent / self.seconds if self.seconds else 0.0
            reason = res.abort_reason
            self.state = "sent" if reason is None else _HOW_IT_ENDED[reason]
            return
        self._samples.append((now, sent))
        while now - self._samples[0][0] > _SPEED_WINDOW and len(self._samples) > 2:
            self._samples.popleft()
        start, offset = self._samples[0]
        self.speed = (sent - offset) / (now - start) if now > start else 0.0
        is_waiting = res._outgoing.blocked and now - self._moved_at >= _WAIT
        self.state = "waiting" if is_waiting else "sending"

    @property
    def size(self) -> str:
        """How much has gone: `"1.2 MB of 4.5 GB"`."""
        if self.total is None or self.is_complete:
            return human_size(self.sent)
        return f"{human_size(self.sent)} of {human_size(self.total)}"

    @property
    def summary(self) -> str:
        """A line about how it ended."""
        if not self.is_complete:
            return f"{self.state}: {self.name} to {self.client}, after {self.size}"
        line = f"sent: {self.name} to {self.client}, {self.size}"
        if self.seconds < 1:  # too short to be measured from look to look
            return line
        return f"{line} in {human_duration(self.seconds)}, {human_size(self.speed)}/s"
