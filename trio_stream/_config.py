"""Every limit and timeout of a server, in one place."""

from dataclasses import dataclass
from math import inf
from typing import Literal

_INT_MAX = 2**31 - 1  # setsockopt takes an int of C


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Limits and timeouts. Sizes are in bytes, times in seconds of Trio's clock.

    Raises:
      ValueError: A field has a value that can't work; the message names it.
    """

    stall_timeout: float = 60.0
    """A client that takes no byte of a response for this long is aborted as `STALLED`.

    Measured from the send that did not fit. On a socket the kernel's queue counts: a client that
    takes a few bytes now and then stays, and one that stops is found within twice this time. On
    another stream only whole pieces of 16 KiB count, so a client that takes longer than this for
    one is aborted. `inf`: never.
    """

    half_close: Literal["abort", "serve"] = "abort"
    """What a FIN means that a client sends after a complete request.

    RFC 9112 section 9.6 lets a client close its sending side and still read the response. But a TCP
    peer can't tell that FIN from one of a client that has gone; only a later write finds out.
    Nearly no client half-closes, and every client goes away, so `"abort"`, as in Go and
    uWebSockets, takes a FIN for the end. `"serve"` goes on until a write or a reset says that the
    client has gone: for clients such as `nc -N`, at the price that a handler that sends nothing is
    not told. A stream that is no watched socket tells only by a write, once it has ended.

    With `"abort"`, what `end` has queued for a client that sent a FIN is not delivered either.
    """

    notsent_lowat: int = 128 * 1024
    """How much unsent data the kernel takes for one socket (`TCP_NOTSENT_LOWAT`, tcp(7)).

    Trio's own 16 KiB needs twice the CPU of 128 KiB; without a limit, a slow client holds 800 KiB
    of kernel memory and hears of an abort that much later.
    """

    stream_buffer_size: int = 64 * 1024
    """What is accepted ahead for a stream that has no non-blocking send (TLS, memory), and read
    ahead from it to notice its end."""

    send_budget: int = 2 * 1024 * 1024
    """So many bytes the responses under way may send, together, before other tasks run.

    Each has an equal share, but at least an eighth: after that without parking, `send_chunk`
    yields. A turn of Trio's scheduler costs as much as sending 64 KiB, so one for each chunk would
    halve the throughput. 2 MiB keep the others waiting for 1 to 3 ms of CPU; where a quick answer
    beside fast streams matters more than their cost, choose less. Of a file that the kernel sends,
    each response has so much for itself, and up to eight times as much while no client of the
    server sends anything.
    """

    max_queued_bytes: int = 1024 * 1024
    """How much `Response.write` queues for a client that is slower than the handler."""

    max_head_size: int = 16 * 1024
    """The longest request line and header fields that are taken, together; beyond it, 431."""

    max_body_size: int = 16 * 1024 * 1024
    """The longest request body that is read whole (`read`, `text`, `json`, `form`); beyond it, 413.

    A body that is read piece by piece has no limit.
    """

    max_form_fields: int = 1000
    """How many fields or parts a form may have; beyond it, 413."""

    max_discarded_body: int = 64 * 1024
    """How much of a request body that nobody read is read and dropped to keep the connection.

    With more than that still to come the connection closes after the response.
    """

    linger_timeout: float = 2.0
    """How long a connection that we close waits for the client to close as well (RFC 9112 section
    9.6).

    Without it the kernel may reset the connection, and the client loses the end of the response.
    """

    def __post_init__(self) -> None:
        if self.half_close not in ("abort", "serve"):
            raise ValueError(f'half_close must be "abort" or "serve", not {self.half_close!r}')
        for name, least in (
            ("notsent_lowat", 1),
            ("stream_buffer_size", 1),
            ("send_budget", 1),
            ("max_queued_bytes", 1),
            ("max_head_size", 1),
            ("max_body_size", 0),
            ("max_form_fields", 1),
            ("max_discarded_body", 0),
        ):
            size = getattr(self, name)
            if not isinstance(size, int) or size < least:
                raise ValueError(f"{name} must be an integer of at least {least}, not {size!r}")
        if self.notsent_lowat > _INT_MAX:
            raise ValueError(f"notsent_lowat must be at most {_INT_MAX}, not {self.notsent_lowat}")
        for name in ("stall_timeout", "linger_timeout"):
            seconds = getattr(self, name)
            if not isinstance(seconds, int | float) or not 0 < seconds <= inf:
                raise ValueError(
                    f"{name} must be more than 0 seconds, or math.inf for no limit, not {seconds!r}"
                )
