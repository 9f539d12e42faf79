"""What the servers stream: all send the same bytes."""

from __future__ import annotations

from functools import lru_cache


@lru_cache
def make_chunk(size: int) -> bytes:
    """A chunk to send, the same object each time."""
    return bytes(range(256)) * (size // 256)


@lru_cache
def make_frame(size: int) -> bytes:
    """The same as a chunk of the chunked coding (RFC 9112 7.1)."""
    return b"%x\r\n%b\r\n" % (size, make_chunk(size))


LAST_FRAME = b"0\r\n\r\n"
"""Ends a body in the chunked coding."""

HELLO = b"Hello, World!"
"""The body of small answers."""
