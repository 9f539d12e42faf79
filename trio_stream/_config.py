"""Every limit and timeout of a server, in one place."""

from dataclasses import dataclass
from ipaddress import ip_network
from math import inf
from typing import Literal

INT_MAX = 2**31 - 1  # setsockopt takes an int of C

_TIMES = (
    "stall_timeout",
    "linger_timeout",
    "head_timeout",
    "keep_alive_timeout",
    "rate_grace",
    "request_timeout",
    "handshake_timeout",
    "shutdown_grace",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Limits and timeouts. Sizes are in bytes, times in seconds of Trio's clock.

    Raises:
      ValueError: A field has a value that can't work; the message names it.
      TypeError: `trusted_proxies` is not a tuple.
    """

    stall_timeout: float = 60.0
    """A client that takes no byte of a response for this long is aborted as `STALLED`.

    Measured from the send that did not fit, until there is room or the response is complete; also
    while nothing more is sent, as the client has not taken what was. On a socket the kernel's queue
    counts, which is told of steps of a segment (up to 64 KiB on loopback): a client that takes
    longer than this for one is aborted, and one that stops is found within twice this time. On
    another stream, only whole pieces of 16 KiB count. `inf`: never.
    """

    half_close: Literal["abort", "serve"] = "abort"
    """What a FIN means that a client sends after a complete request.

    RFC 9112 section 9.6 lets a client close its sending side and still read the response. But a TCP
    peer can't tell that FIN from one of a client that has gone; only a later write finds out.
    Nearly no client half-closes, and every client goes away, so `"abort"`, as in Go and
    uWebSockets, takes a FIN for the end. `"serve"` goes on until a write or a reset says that the
    client has gone: for clients such as `nc -N`, at the price that a handler that sends nothing is
    not told. A stream that is not a watched socket tells only by a write, once it has ended.

    With `"abort"`, what `end` has queued for a client that sent a FIN is not delivered either.
    """

    notsent_lowat: int = 128 * 1024
    """How much unsent data the kernel takes for one socket (`TCP_NOTSENT_LOWAT`, tcp(7)).

    Trio's own 16 KiB needs twice the CPU of 128 KiB; without a limit, a slow client holds 800 KiB
    of kernel memory and hears of an abort that much later. A client that keeps up, and so has
    nothing waiting for it, gets eight times as much, until it lets the server wait; a file, whose
    pages are in memory anyway, 32 times.
    """

    stream_buffer_size: int = 64 * 1024
    """What is accepted ahead for a stream that has no non-blocking send, such as `trio.SSLStream`,
    and read ahead from it, or from TLS, to notice its end."""

    send_budget: int = 2 * 1024 * 1024
    """How many bytes all responses together may send before other tasks run.

    Each has an equal share, but at least an eighth; after that much without parking, `send_chunk`
    yields. To yield costs as much as to send 64 KiB, so to do it for each chunk would halve the
    throughput; to send 2 MiB takes 1 to 3 ms of CPU. Choose less where a quick answer beside fast
    streams matters more than their cost.

    While no client sends anything it is eight times as much, in equal shares, but at least half of
    a budget for each; files that the kernel sends have eight budgets each. Handlers that compute
    between their chunks yield after 10 ms in all, looked at every 64 chunks at least.
    """

    max_queued_bytes: int = 1024 * 1024
    """How much `Response.write` queues for a client that is slower than the handler."""

    max_head_size: int = 16 * 1024
    """The longest request line and header fields that are taken, together; beyond it, 431."""

    max_target_size: int = 8 * 1024
    """The longest request target that is taken; beyond it, 414 (RFC 9110 section 15.5.15)."""

    max_header_count: int = 100
    """How many header fields a request may have; beyond it, 431."""

    max_body_size: int = 1024 * 1024
    """The longest request body that is read whole (`read`, `text`, `json`, `form`); beyond it, 413.

    While JSON is parsed, nobody else is served: 0.1 to 0.2 s for each MiB, at the worst. A body
    that is read piece by piece has no limit.
    """

    max_form_fields: int = 1000
    """How many fields or parts a form may have; beyond it, 413."""

    max_discarded_body: int = 64 * 1024
    """How much of a request body that nobody read is read and dropped to keep the connection.

    With more than that still to come the connection closes after the response, and so it does if
    the client has announced that it waits for `100 Continue`, and nobody read.
    """

    max_requests: float = inf
    """How many requests one connection may send; the answer to the last one closes it."""

    max_connections: float = 10_000
    """How many connections are served at once; beyond it nothing more is accepted for the moment,
    and new ones wait in the kernel's backlog."""

    max_connections_per_client: float = inf
    """How many connections one client address may have; one more is answered 503 and closed,
    without a look at its request; with TLS it is closed before a handshake. A Unix socket, or a
    stream without a socket, has no address.

    Behind a proxy all have the same address, unless the proxy tells (`proxy_protocol`).
    """

    head_timeout: float = 20.0
    """How long a request's head may take, from its first byte (for the first request: from the
    connection) to its last; beyond it, 408, or just a close if not a byte has come: a browser
    connects ahead of its requests."""

    keep_alive_timeout: float = 75.0
    """How long a connection may be idle between two requests before it is closed, without a word.

    Longer than a proxy keeps its connections to us, so that it never sends into a close.
    """

    min_upload_rate: float = 240.0
    """Bytes a second of a request body while a handler waits for them; a slower client gets a 408,
    or a cut if the response has begun. 0: no minimum, as for events that come now and then."""

    min_download_rate: float = 0.0
    """Bytes a second of a response that a client must take while some wait for it; a slower one is
    aborted as `STALLED`. 0: no minimum, other than by `stall_timeout`."""

    rate_grace: float = 5.0
    """How long a client may send or take nothing where there is a minimum rate.

    While it is waited for, each second costs a second of this, and each byte earns what it may take
    at the minimum rate, up to the whole again. Looked at once in this time, so a client that is
    only a little too slow stays so much longer; that it was is found afterwards, too, while nobody
    waits for it or in its next response.
    """

    request_timeout: float = inf
    """How long a request may take, from its head to the end of its response; then it is aborted as
    `TIMED_OUT`, with a 503, once the handler has ended, if no response has begun."""

    handshake_timeout: float = 10.0
    """How long a TLS handshake, or the head of the PROXY protocol, may take."""

    shutdown_grace: float = 25.0
    """How long responses under way may take to end at a shutdown, before they are aborted as
    `SHUTDOWN`. Less than the 30 seconds after which Kubernetes and others kill."""

    proxy_protocol: bool = False
    """Whether connections begin with the PROXY protocol, version 1 or 2; one that does not, or
    comes from none of `trusted_proxies`, is closed."""

    trusted_proxies: tuple[str, ...] = ()
    """Addresses, networks (`"10.0.0.0/8"`), or `"unix"` for Unix sockets, that are believed about
    who the client is: by the PROXY protocol, `Forwarded` or `X-Forwarded-*`.

    They must set, or remove, each of these fields that a client sends. With the PROXY protocol, the
    fields are believed if the address that it tells is one of these; so not if it tells none.
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
            ("max_target_size", 1),
            ("max_header_count", 1),
            ("max_body_size", 0),
            ("max_form_fields", 1),
            ("max_discarded_body", 0),
        ):
            size = getattr(self, name)
            if not isinstance(size, int) or size < least:
                raise ValueError(f"{name} must be an integer of at least {least}, not {size!r}")
        if self.notsent_lowat > INT_MAX:
            raise ValueError(f"notsent_lowat must be at most {INT_MAX}, not {self.notsent_lowat}")
        for name in ("max_requests", "max_connections", "max_connections_per_client"):
            count = getattr(self, name)
            if count != inf and (not isinstance(count, int) or count < 1):
                raise ValueError(
                    f"{name} must be an integer of at least 1, or math.inf for no limit, "
                    f"not {count!r}"
                )
        for name in ("min_upload_rate", "min_download_rate"):
            rate = getattr(self, name)
            if not isinstance(rate, int | float) or not 0 <= rate < inf:
                raise ValueError(
                    f"{name} must be a number of bytes a second, or 0 for no minimum, not {rate!r}"
                )
        for name in _TIMES:
            seconds = getattr(self, name)
            if not isinstance(seconds, int | float) or not 0 < seconds <= inf:
                raise ValueError(
                    f"{name} must be more than 0 seconds, or math.inf for no limit, not {seconds!r}"
                )
        if not isinstance(self.trusted_proxies, tuple):
            raise TypeError(f"trusted_proxies must be a tuple, not {self.trusted_proxies!r}")
        if self.proxy_protocol and not self.trusted_proxies:
            raise ValueError(
                "proxy_protocol needs trusted_proxies: it closes all other connections"
            )
        for proxy in self.trusted_proxies:
            if proxy != "unix":
                try:
                    ip_network(proxy)
                except ValueError as exc:
                    raise ValueError(
                        f'trusted_proxies must be addresses, networks or "unix": {exc}'
                    ) from None
