"""Where inputs come from: sound requests, hostile ones, and changes to either."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tests.fuzz.cases import ERRNOS, WAYS, Case, Fault

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from tests.fuzz.cases import Call

_GET_PATHS = (
    *("/small", "/known/0", "/known/1", "/known/4000", "/known/50000", "/chunked/0", "/chunked/1"),
    *("/chunked/20000", "/callbacks/30000", "/file", "/late", "/nowhere", "/refuse", "/deaf"),
)
_BODY_PATHS = ("/echo", "/echo", "/echo", "/upload", "/deaf", "/refuse", "/small", "/late")
_FIELDS = (
    *(b"Accept: */*", b"X-Empty:", b"TE: trailers", b"Connection: keep-alive", b"Cookie: a=b; c=d"),
    *(b"Range: bytes=5-99", b"Range: bytes=0-1,7-9", b"Accept-Encoding: gzip, br"),
)

TOKENS = (
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0", b"\t", b" ", b":", b";", b",", b"%00", b"\xff"),
    *(b"GET ", b"HEAD ", b"POST ", b"OPTIONS * ", b"CONNECT a:1 ", b"PRI * HTTP/2.0", b"TRACE "),
    *(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b" HTTP/0.9\r\n", b" HTTP/2.0\r\n", b" HTTP/9.9\r\n"),
    *(b"http://a/", b"http://[", b"//", b"/../", b"?", b"#", b"*", b"/echo", b"/upload", b"/file"),
    *(b"Host: x\r\n", b"Host: \r\n", b"Host: a@b\r\n", b"Host: a, b\r\n", b"Host:x\r\n"),
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Content-Length: +5\r\n"),
    *(b"Content-Length: 99999999999999999999\r\n", b"Content-Length: 5, 5\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n"),
    *(b"Transfer-Encoding: chunked, identity\r\n", b"Transfer-Encoding:\x0bchunked\r\n"),
    *(b"Transfer-Encoding : chunked\r\n", b"Transfer-Encoding: \r\n", b"TE: trailers\r\n"),
    *(b"Expect: 100-continue\r\n", b"Expect: 200-ok\r\n", b"Connection: close\r\n"),
    *(b"Connection: upgrade\r\n", b"Upgrade: websocket\r\n", b"X: a\r\n b\r\n", b" folded\r\n"),
    *(b"Range: bytes=0-0,-1\r\n", b"Range: bytes=99999-\r\n", b'If-Match: "x"\r\n'),
    *(b"If-None-Match: *\r\n", b"If-Range: x\r\n", b"Cookie: ;=;\r\n"),
    *(b"0\r\n\r\n", b"5\r\nhello\r\n", b"5;a=b\r\nhello\r\n", b"5;a\r\n", b"-1\r\n", b"0x5\r\n"),
    *(b"FFFFFFFFFFFFFFFFF\r\n", b"5 \r\n", b"00000005\r\n", b"0\r\nX: y\r\n\r\n", b"1_0\r\n"),
    *(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", b"\x16\x03\x01\x02\x00\x01", b"a" * 600, b"/" * 3000),
)
"""What a mutation puts in: what has a meaning in HTTP, or is just outside of it."""


def make_case(rng: random.Random) -> Case:
    """Some sound requests, whole or in pieces."""
    bodies, data = [], b""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        body, request = _make_request(rng)
        bodies.append(body)
        data += request
    case = Case((data,), config=rng.randrange(2), bodies=tuple(bodies))
    return _cut(case, rng) if rng.random() < 0.4 else case


def _make_request(rng: random.Random) -> tuple[bytes, bytes]:
    fields = [b"Host: x", *rng.sample(_FIELDS, rng.choice((0, 0, 1, 3)))]
    version = rng.choice((b"1.1",) * 9 + (b"1.0",))
    if rng.random() < 0.5:
        method, path, body = rng.choice(("GET", "GET", "HEAD")), rng.choice(_GET_PATHS), b""
        framed = b""
    else:
        method, path = "POST", rng.choice(_BODY_PATHS)
        body = rng.randbytes(rng.choice((0, 1, 5, 100, 3000)))
        framed = body
        if version == b"1.1" and rng.random() < 0.5:
            fields.append(b"Transfer-Encoding: chunked")
            framed = _chunks(body, rng)
        else:
            fields.append(b"Content-Length: %d" % len(body))
        if version == b"1.1" and rng.random() < 0.1:
            fields.append(b"Expect: 100-continue")
    rng.shuffle(fields)
    line = f"{method} {path} HTTP/".encode() + version
    return body, b"\r\n".join((line, *fields, b"", b"")) + framed


def _chunks(body: bytes, rng: random.Random) -> bytes:
    framed = b""
    while body:
        size = rng.randint(1, len(body))
        framed += b"%x\r\n%b\r\n" % (size, body[:size])
        body = body[size:]
    return framed + rng.choice((b"0\r\n\r\n", b"00\r\n\r\n", b"0\r\nX-Sum: 1\r\n\r\n"))


def mutate(case: Case, others: Sequence[Case], rng: random.Random) -> Case:
    """Change a case, once or a few times; also into a part of another one."""
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        roll = rng.random()
        if roll < 0.1:
            case = _cut(case, rng)
        elif roll < 0.2:
            case = _behave(case, rng)
        else:
            data = rng.choice(_CHANGES)(case.data, rng)
            if roll < 0.3:
                data = _splice(data, rng.choice(others).data, rng)
            # Cuts get lost where bytes change: there are few reasons to keep them.
            case = replace(case, pieces=(data[:20_000],), bodies=None)
    return case


def add_faults(case: Case, rng: random.Random) -> Case:
    """Let some calls of the server fail."""
    faults = {make_fault(rng) for _ in range(rng.choice((1, 1, 2, 5)))}
    return replace(case, faults=tuple(sorted(faults, key=repr)))


def make_fault(rng: random.Random) -> Fault:
    """One call that fails."""
    call: Call = rng.choice(("send", "send", "send", "receive", "receive", "sendfile", "eof"))
    if rng.random() < 0.05:
        call = "close"
    names = WAYS[call] if rng.random() < 0.6 or call not in ("send", "sendfile") else ERRNOS
    return Fault(call, min(int(rng.expovariate(0.5)), 20), rng.choice(names))


def _cut(case: Case, rng: random.Random) -> Case:
    data = case.data
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice((1, 2, 5, 20))))
    pieces = [data[i:j] for i, j in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    return replace(case, pieces=tuple(filter(None, pieces)))


def _behave(case: Case, rng: random.Random) -> Case:
    match rng.randrange(4):
        case 0:
            return replace(case, ending=rng.choice(("stay", "fin", "reset")))
        case 1:
            return replace(case, pause=rng.choice((0, 0.1, 1, 10, 100)))
        case 2:
            return replace(case, slowness=rng.choice((0, 0.1, 1, 10)))
        case _:
            return replace(case, config=1 - case.config)


def _insert_token(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(TOKENS) + data[at:]


def _insert_line(data: bytes, rng: random.Random) -> bytes:
    ends = _ends_of_lines(data)
    at = rng.choice(ends) if ends else 0
    return data[:at] + rng.choice(TOKENS) + data[at:]


def _overwrite(data: bytes, rng: random.Random) -> bytes:
    token = rng.choice(TOKENS)
    at = rng.randrange(len(data) + 1)
    return data[:at] + token + data[at + len(token) :]


def _change_byte(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(1) + data[at + 1 :]


def _flip_bit(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return data
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _delete(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + int(rng.expovariate(0.1)) + 1 :]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    start, stop = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:stop] + data[start:stop] * rng.choice((1, 1, 2, 20)) + data[stop:]


def _truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _change_number(data: bytes, rng: random.Random) -> bytes:
    digits = [i for i, byte in enumerate(data[:2000]) if 48 <= byte <= 57]
    if not digits:
        return data
    at = rng.choice(digits)
    number = rng.choice((b"", b"0", b"1", b"9", b"00", b"65536", b"4097", b"-1", b"a", b"9" * 25))
    return data[:at] + number + data[at + 1 :]


def _drop_line(data: bytes, rng: random.Random) -> bytes:
    ends = _ends_of_lines(data)
    if len(ends) < 2:
        return data
    number = rng.randrange(len(ends) - 1)
    return data[: ends[number]] + data[ends[number + 1] :]


def _ends_of_lines(data: bytes) -> list[int]:
    ends, at = [], 0
    while (at := data.find(b"\n", at, 4000) + 1) > 0:
        ends.append(at)
    return ends


_CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_insert_token, _insert_line, _insert_line, _overwrite, _change_byte, _flip_bit),
    *(_delete, _repeat, _truncate, _change_number, _drop_line),
)


def _splice(data: bytes, other: bytes, rng: random.Random) -> bytes:
    return _truncate(data, rng) + other[rng.randrange(len(other) + 1) :]
