"""What a server counts, and the names of the ways in which a response ends early."""

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum


class AbortReason(Enum):
    """Why a response ended before it was complete."""

    CLIENT_CLOSED = "the client closed or reset the connection"
    STALLED = "the client took no byte for `Config.stall_timeout`, or fewer than the minimum rate"
    TIMED_OUT = "the request took longer than `Config.request_timeout`"
    SHUTDOWN = "the server was shut down, and the response took longer than the grace"
    CANCELLED = "the handler was cancelled, from inside or with the server"
    HANDLER_ERROR = "the handler raised an exception after the head was sent"
    INCOMPLETE = "the handler returned before the body was complete"


@dataclass(slots=True)
class Stats:
    """Counters of one server, kept up to date while it runs."""

    open_connections: int = 0
    """Connections that are open."""
    active_responses: int = 0
    """Responses under way."""
    shutting_down: bool = False
    """Whether a shutdown has begun."""
    connections: int = 0
    """Connections accepted."""
    requests: int = 0
    """Requests received, without those that were refused as malformed."""
    responses: Counter[int] = field(default_factory=Counter)
    """Those that are over, by status; without those of which nothing was sent."""
    body_bytes_received: int = 0
    """Bytes of request bodies that handlers read."""
    body_bytes_sent: int = 0
    """Bytes of response bodies that were sent; a chunk that an abort cuts counts in full."""
    parks: int = 0
    """How often a send had to wait for its client, or with a large piece for its turn."""
    aborts: Counter[AbortReason] = field(default_factory=Counter)
