"""One input of the fuzzer: what a client sends, how it behaves, and what fails meanwhile."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

Ending = Literal["stay", "fin", "reset"]
Call = Literal["send", "sendfile", "receive", "eof", "close"]

Way = Literal["broken", "closed", "block", "again", "one byte", "end"]
WAYS: dict[Call, tuple[Way, ...]] = {
    "send": ("broken", "closed", "block", "again", "one byte"),
    "sendfile": ("again", "one byte", "broken"),
    "receive": ("broken", "closed", "block", "one byte", "end"),
    "eof": ("broken", "closed", "block"),
    "close": ("broken",),
}

ERRNOS = (
    *("EPIPE", "ECONNRESET", "ETIMEDOUT", "EHOSTUNREACH", "ENETDOWN", "ENOBUFS", "ENOMEM"),
    *("EIO", "EINVAL", "EBADF", "ENOTCONN", "EMSGSIZE", "EPERM", "EOVERFLOW", "ESTALE"),
)
"""What system calls that send may fail with: the likely, and what a driver or a filter adds."""


@dataclass(frozen=True)
class Fault:
    """A call that fails.

    Attributes:
      call: Which.
      index: The how manieth of its kind, from 0.
      what: A `Way`, or the name of an errno.
    """

    call: Call
    index: int
    what: str


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
      pieces: What the client sends, as it is cut.
      ending: What it does then; one that stays gives up when nothing has come for a long time.
      pause: The seconds before each piece.
      slowness: The seconds that the client takes for each piece of an answer.
      config: Which of the servers is asked.
      faults: Which calls of the server fail.
      bodies: The bodies of the requests, if all are sound and each must be answered.
    """

    pieces: tuple[bytes, ...]
    ending: Ending = "stay"
    pause: float = 0
    slowness: float = 0
    config: int = 0
    faults: tuple[Fault, ...] = ()
    bodies: tuple[bytes, ...] | None = None

    @property
    def data(self) -> bytes:
        """All that the client sends."""
        return b"".join(self.pieces)

    @property
    def is_sound(self) -> bool:
        """Whether each request must be answered well."""
        calm = not (self.faults or self.pause or self.slowness)
        return self.bodies is not None and self.ending == "stay" and calm

    def to_json(self) -> str:
        """As a text that `from_json` reads; bytes are ISO-8859-1."""
        return json.dumps(asdict(self), default=lambda data: data.decode("latin-1"), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        values["pieces"] = _bytes(values["pieces"])
        values["faults"] = tuple(Fault(**fault) for fault in values["faults"])
        if values["bodies"] is not None:
            values["bodies"] = _bytes(values["bodies"])
        return cls(**values)


class FindingError(Exception):
    """What the server did wrong."""


def _bytes(texts: list[str]) -> tuple[bytes, ...]:
    return tuple(text.encode("latin-1") for text in texts)
