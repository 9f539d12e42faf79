"""Heads whose fields were sent before: not parsed again, and read as if they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_stream import BadRequestError, Config
from trio_stream._protocol import Protocol
from trio_stream._response_head import ResponseHead

if TYPE_CHECKING:
    from collections.abc import Iterable

PLAIN = b"\r\nHost: x\r\nX-A: caf\xe9\r\n\r\n"

LINES = (
    *(b"GET / HTTP/1.1", b"GET / HTTP/1.0", b"HEAD /a?b HTTP/1.1", b"OPTIONS * HTTP/1.1"),
    *(b"GET http://y/c HTTP/1.1", b"POST / HTTP/1.1", b"CONNECT x:1 HTTP/1.1"),
    # And what is refused.
    *(b"GET  / HTTP/1.1", b"GET /#a HTTP/1.1", b"GET / HTTP/2.0", b"CONNECT x HTTP/1.1", b"GET /"),
    *(b"GET /" + bytes([0x7F]) + b" HTTP/1.1", b"GET / HTTP/1.1 ", b"GET /\r HTTP/1.1"),
    *(b"GET /%b HTTP/1.1" % (b"a" * 150), b"\0 / HTTP/1.1", b"GET / http/1.1", b"GET / HTTP/1.11"),
)

FIELDS = (
    *(PLAIN, b"\r\nHost: x\r\n\r\n", b"\r\nhost:x\r\n\r\n", b"\r\nHost: x\r\nX-A: b\r\n\r\n"),
    b"\r\nX-B: c" + PLAIN,
    *(b"\r\nHost: x\r\nConnection: close\r\n\r\n", b"\r\nX-A: b\r\n\r\n", b"\r\n\r\n"),
    b"\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    b"\r\nHost: x\r\nExpect: 100-continue\r\n\r\n",
    # And what is refused.
    *(b"\r\nHost: x\r\nHost: x\r\n\r\n", b"\r\nHost: a b\r\n\r\n", b"\nHost: x\r\n\r\n"),
    *(b"\r\nHost: x\r\nExpect: more\r\n\r\n", b"\r\nHost: x\r\nTransfer-Encoding: y\r\n\r\n"),
    *(b"\r\nHost: x\r\nX-A\0: b\r\n\r\n", b"\r\n Host: x\r\n\r\n", b"\r\nHost: x\r\n X: y\r\n\r\n"),
)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[h11.Connection]:
    """The parsers that were made since the start of the test."""
    parsers: list[h11.Connection] = []

    class Parser(h11.Connection):
        def __init__(self, role: type[h11.SERVER]) -> None:
            super().__init__(role)
            parsers.append(self)

    monkeypatch.setattr(h11, "Connection", Parser)
    return parsers


def read(protocol: Protocol, head: bytes) -> object:
    """What becomes of a head, and of the connection after an answer to it."""
    protocol.receive_data(head)
    try:
        request = protocol.next_request()
    except BadRequestError as exc:
        # The answer differs by what could be read of the request.
        return exc.status, protocol.start_response(ResponseHead(exc.status), 1, closes=True)[:12]
    if request is None:
        return None
    awaits_continue = protocol.continue_request()
    is_over = protocol.receive_body() == b""
    has_body = protocol.response_has_body(200)
    protocol.start_response(ResponseHead(), 0, closes=False)
    protocol.finish_response()
    lives = protocol.start_next_cycle()
    return request[:3], request.fields.items, awaits_continue, is_over, has_body, lives


def that_knows(fields: bytes, config: Config) -> Protocol:
    """A protocol that has received these fields twice."""
    protocol = Protocol(config)
    for _ in range(2):
        read(protocol, b"GET / HTTP/1.1" + fields)
    return protocol


def plain(line: bytes) -> tuple[bytes, bytes]:
    return line, PLAIN


@example([plain(line) for line in LINES if line != b"GET / HTTP/1.0"])
@example([plain(b"GET / HTTP/1.1"), *map(plain, reversed(LINES))])
@example([(b"GET / HTTP/1.1", fields) for fields in FIELDS])
@given(st.lists(st.tuples(st.sampled_from(LINES), st.sampled_from(FIELDS)), max_size=6))
def test_what_was_read_before_changes_nothing(heads: Iterable[tuple[bytes, bytes]]) -> None:
    config = Config(max_target_size=100)
    protocol = that_knows(PLAIN, config)
    for line, fields in heads:
        fresh = Protocol(config)
        outcome = read(protocol, line + fields)
        assert outcome == read(fresh, line + fields)
        if not (isinstance(outcome, tuple) and outcome[-1] is True):
            protocol = that_knows(PLAIN, config)  # this was the last request of the connection


def test_fields_that_came_twice_are_not_parsed_again(parsed: list[h11.Connection]) -> None:
    protocol = Protocol(Config())
    for line in (b"GET / HTTP/1.1", b"GET /other HTTP/1.1", b"POST / HTTP/1.1", b"HEAD / HTTP/1.0"):
        read(protocol, line + PLAIN)
    assert len(parsed) == 2


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        (b"\r\nHost: x\r\nConnection: keep-alive\r\n\r\n", 2),
        (b"\r\nHost: x\r\nCookie: %b\r\n\r\n" % (b"a" * 4073), 2),
        (b"\r\nHost: x\r\nCookie: %b\r\n\r\n" % (b"a" * 4074), 3),  # more than is remembered
        (b"\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 3),
        (b"\r\nHost: x\r\nExpect: 100-continue\r\n\r\n", 3),
    ],
)
def test_what_is_remembered(fields: bytes, count: int, parsed: list[h11.Connection]) -> None:
    protocol = Protocol(Config())
    first, *others = [read(protocol, b"GET / HTTP/1.1" + fields) for _ in range(3)]
    assert others == [first, first]
    assert len(parsed) == count


def test_what_comes_in_between_is_not_remembered(parsed: list[h11.Connection]) -> None:
    protocol = Protocol(Config())
    known = b"GET / HTTP/1.1" + PLAIN
    other = b"GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n\r\n"
    for head, count in ((known, 1), (known, 2), (other, 3), (known, 3), (other, 4), (other, 4)):
        read(protocol, head)
        assert len(parsed) == count
