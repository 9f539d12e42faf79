"""The head of a response: what is accepted leaves exactly so; what could split it is refused."""

from __future__ import annotations

import re
from http import HTTPStatus
from types import SimpleNamespace

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trio_stream import App, Config, Request, Response, _protocol
from trio_stream._protocol import Protocol
from trio_stream._response_head import ResponseHead
from trio_stream.testing import open_client

TOKEN_CHARACTERS = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ASCII = [chr(code) for code in range(128)]


def head_bytes(head: ResponseHead, *, size: int = 0) -> bytes:
    """The head as it leaves, in answer to a GET."""
    protocol = Protocol(Config())
    protocol.receive_data(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert protocol.next_request() is not None
    return protocol.start_response(head, size, closes=False)


def as_received(data: bytes) -> h11.Response:
    """The head as a client reads it; it must end where `data` does."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    event = client.next_event()
    assert isinstance(event, h11.Response)
    assert client.trailing_data == (b"", False)
    return event


# The status...


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (200, 200, b"OK"),
        (404, 404, b"Not Found"),
        (HTTPStatus.NOT_FOUND, 404, b"Not Found"),
        (599, 599, b""),
        (299, 299, b""),
        ("200", 200, b"OK"),
        ("200 OK", 200, b"OK"),
        ("200 Fine", 200, b"Fine"),
        ("200 ", 200, b""),
        ("200  OK ", 200, b" OK "),
        ("200 \tO\tK", 200, b"\tO\tK"),
        ("299 ~!", 299, b"~!"),
        ("599 x" + 1000 * "y", 599, b"x" + 1000 * b"y"),
    ],
)
def test_status(status: int | str, code: int, reason: bytes) -> None:
    head = ResponseHead()
    head.write_status(status)
    assert (head.status, head.reason) == (code, reason)
    data = head_bytes(head)
    assert data.startswith(b"HTTP/1.1 %d %b\r\nDate: " % (code, reason))
    received = as_received(data)
    assert (received.status_code, received.reason) == (code, reason)


def test_every_status_that_has_a_phrase_gets_it() -> None:
    renamed = {  # RFC 9110 sections 15.5.14, 15.5.15, 15.5.17 and 15.5.21
        413: b"Content Too Large",
        414: b"URI Too Long",
        416: b"Range Not Satisfiable",
        422: b"Unprocessable Content",
    }
    for status in HTTPStatus:
        if status >= 200:
            head = ResponseHead()
            head.write_status(int(status))
            phrase = renamed.get(status, status.phrase.encode("ascii"))
            assert (head.status, head.reason) == (status, phrase)


def test_the_last_status_counts() -> None:
    head = ResponseHead()
    assert (head.status, head.reason) == (200, b"OK")
    head.write_status("404 Gone fishing")
    head.write_status(500)
    assert (head.status, head.reason) == (500, b"Internal Server Error")
    assert (ResponseHead(500).status, ResponseHead(500).reason) == (500, b"Internal Server Error")


@pytest.mark.parametrize(
    "status",
    [
        0,
        -200,
        20,
        99,
        100,
        101,
        199,
        600,
        999,
        1000,
        2000,
        200.0,
        True,
        None,
        b"200",
        "",
        " ",
        "OK",
        "20",
        "2000",
        "100",
        "101 Switching Protocols",
        " 200",
        "200OK",
        "200\tOK",
        "200\n",
        "200 OK\n",
        "200 OK\r\nX: y",
        "200 O\nK",
        "200 O\rK",
        "200 O\0K",
        "200 O\x1fK",
        "200 O\x7fK",
        "200 Ünüblich",
        "200 \N{EURO SIGN}",
        "\N{SUPERSCRIPT TWO}00",
        "\N{ARABIC-INDIC DIGIT TWO}00",
        "HTTP/1.1 200 OK",
    ],
)
def test_what_is_no_status(status: int | str) -> None:
    head = ResponseHead()
    head.write_status("404 before")
    with pytest.raises(ValueError) as error:
        head.write_status(status)
    assert str(error.value) == (
        "a status is a number from 200 to 599, alone or with a phrase in printable ASCII, "
        f"not {status!r}"
    )
    assert (head.status, head.reason) == (404, b"before")


# The fields...


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("text/plain", b"text/plain"),
        ("", b""),
        (b"", b""),
        ("a", b"a"),
        ("a b\tc \t d", b"a b\tc \t d"),
        (7, b"7"),
        (-1, b"-1"),
        ("café", b"caf\xe9"),
        ("\x80\x85\xa0\xff", b"\x80\x85\xa0\xff"),
        ("café".encode(), b"caf\xc3\xa9"),
        (bytes(range(0x80, 0x100)), bytes(range(0x80, 0x100))),
        ('"a", b; c=(d) \\ <e> @:/[]?={}', b'"a", b; c=(d) \\ <e> @:/[]?={}'),
        ("x" * 10_000, b"x" * 10_000),
    ],
)
def test_value(value: str | bytes | int, sent: bytes) -> None:
    head = ResponseHead()
    head.write_header("X-Name", value)
    assert head.fields == [(b"X-Name", sent)]
    data = head_bytes(head)
    assert data.endswith(b"GMT\r\nX-Name: " + sent + b"\r\nContent-Length: 0\r\n\r\n")
    assert as_received(data).headers[1] == (b"x-name", sent)


@pytest.mark.parametrize(
    "value",
    [
        "a\r\nb",
        "a\r\nSet-Cookie: b=c",
        "a\r\n\r\n<html>",
        "a\r\n b",
        "a\n\tb",
        "a\r\n",
        "a\n",
        "a\r",
        "\na",
        " a",
        "a ",
        "\ta",
        "a\t",
        " ",
        "\t",
        b"a\nb",
        b"a\r",
        b" a",
        b"a\t",
        b"a\0b",
    ],
)
def test_what_can_be_no_value(value: str | bytes) -> None:
    head = ResponseHead()
    with pytest.raises(ValueError) as error:
        head.write_header("X", value)
    assert str(error.value) == f"X: {value!r} can't be the value of a header field"
    assert head.fields == []


@pytest.mark.parametrize("template", ["{}", "a{}", "{}b", "a{}b"])
def test_control_characters_can_be_in_no_value(template: str) -> None:
    for character in [*map(chr, range(0x20)), "\x7f"]:
        value = template.format(character)
        if value != "a\tb":
            for same in (value, value.encode("ascii")):
                head = ResponseHead()
                with pytest.raises(ValueError) as error:
                    head.write_header("X", same)
                assert str(error.value) == f"X: {same!r} can't be the value of a header field"
                assert head.fields == []


@pytest.mark.parametrize(
    "value", ["\u0100", "5 €", "\N{LINE SEPARATOR}", "\u560a", "\ud800", "a\n€"]
)
def test_text_beyond_latin_1_can_be_no_value(value: str) -> None:
    # U+560A, cut to its low byte, is the line feed of many a split response.
    head = ResponseHead()
    with pytest.raises(ValueError) as error:
        head.write_header("X", value)
    assert str(error.value) == (f"X: {value!r} is not ISO-8859-1; percent-encode it, or pass bytes")
    assert head.fields == []


@pytest.mark.parametrize("value", [None, 1.5, ["a"], bytearray(b"a"), memoryview(b"a"), object()])
def test_what_has_not_the_type_of_a_value(value: object) -> None:
    with pytest.raises(TypeError):
        ResponseHead().write_header("X", value)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [b"X", None, 1])
def test_what_has_not_the_type_of_a_name(name: object) -> None:
    with pytest.raises(TypeError) as error:
        ResponseHead().write_header(name, "v")  # type: ignore[arg-type]
    assert str(error.value) == f"the name of a header field is text, not {name!r}"


@pytest.mark.parametrize(
    "name", ["X", "x-y", "X_Y", "9", "!#$%&'*+-.^_`|~", "Content-Lengths", "Dat", "Connection"]
)
def test_name(name: str) -> None:
    head = ResponseHead()
    head.write_header(name, "v")
    assert head.fields == [(name.encode("ascii"), b"v")]
    data = head_bytes(head)
    assert data.endswith(b"GMT\r\n" + name.encode("ascii") + b": v\r\nContent-Length: 0\r\n\r\n")
    assert (name.lower().encode("ascii"), b"v") in list(as_received(data).headers)


def test_names_are_tokens() -> None:
    for character in [*ASCII, "\x80", "é", "\N{FULLWIDTH LATIN SMALL LETTER A}", "\ud800"]:
        for name in (character, f"X{character}", f"{character}X", f"X{character}X"):
            head = ResponseHead()
            if character in TOKEN_CHARACTERS:
                head.write_header(name, "v")
                assert head.fields == [(name.encode("ascii"), b"v")]
            else:
                with pytest.raises(ValueError) as error:
                    head.write_header(name, "v")
                assert str(error.value) == f"{name!r} can't be the name of a header field"
                assert head.fields == []


@pytest.mark.parametrize("name", ["", "X: y\r\nZ", "X:", "X\r\n", " X", "X ", "X\n"])
def test_what_can_be_no_name(name: str) -> None:
    with pytest.raises(ValueError) as error:
        ResponseHead().write_header(name, "v")
    assert str(error.value) == f"{name!r} can't be the name of a header field"


@pytest.mark.parametrize("name", ["Content-Length", "Date", "Transfer-Encoding"])
def test_fields_of_the_server(name: str) -> None:
    for same in (name, name.lower(), name.upper(), name.swapcase()):
        head = ResponseHead()
        with pytest.raises(ValueError) as error:
            head.write_header(same, "1")
        hint = ": give a total_size instead" if name == "Content-Length" else ""
        assert str(error.value) == f"{same} is written by the server{hint}"
        assert head.fields == []


# ... and all of it, byte by byte...


def test_the_whole_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_protocol, "time", SimpleNamespace(time=lambda: 784111777.9))
    head = ResponseHead()
    head.write_status("201 Made")
    head.write_header("set-cookie", "a=b")
    head.write_header("Location", b"/caf\xc3\xa9")
    head.write_header("Set-Cookie", "c=d")
    head.write_header("Set-Cookie", "c=d")
    head.write_header("Retry-After", 7)
    head.write_header("X-Empty", "")
    assert head_bytes(head, size=12) == (
        b"HTTP/1.1 201 Made\r\n"
        b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
        b"set-cookie: a=b\r\n"
        b"Location: /caf\xc3\xa9\r\n"
        b"Set-Cookie: c=d\r\n"
        b"Set-Cookie: c=d\r\n"
        b"Retry-After: 7\r\n"
        b"X-Empty: \r\n"
        b"Content-Length: 12\r\n"
        b"\r\n"
    )


names = st.text(st.sampled_from(TOKEN_CHARACTERS), min_size=1, max_size=20)
likely_text = st.text(st.sampled_from("ab \t\r\n\0:,;é€\x7f\x85"), max_size=8)
values = st.text() | likely_text | st.binary() | st.integers()


@settings(deadline=None)
@given(
    st.integers(200, 599),
    st.none() | st.text(st.sampled_from([*ASCII[0x20:0x7F], "\t"])),
    st.lists(st.tuples(names | likely_text | st.text(), values)),
)
@example(200, None, [("X", "a\r\nb")])
@example(200, None, [("Content-Length", "1")])
@example(204, None, [])
@example(205, None, [])
def test_what_is_accepted_is_what_a_client_receives(
    code: int, phrase: str | None, fields: list[tuple[str, str | bytes | int]]
) -> None:
    head = ResponseHead()
    head.write_status(code if phrase is None else f"{code} {phrase}")
    accepted: list[tuple[bytes, bytes]] = []
    for name, value in fields:
        try:
            head.write_header(name, value)
        except ValueError:
            # Nothing is refused that is harmless.
            text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
            assert (
                not re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name)
                or name.lower() in ("content-length", "date", "transfer-encoding")
                or any(c < " " or c == "\x7f" or c > "\xff" for c in text.replace("\t", " "))
                or text != text.strip(" \t")
            )
        else:
            sent = value if isinstance(value, bytes) else str(value).encode("latin-1")
            accepted.append((name.encode("ascii"), sent))
    data = head_bytes(head, size=3)
    received = as_received(data)
    assert received.status_code == code
    assert phrase is None or received.reason == phrase.encode("ascii")
    (date, _), *fields_received = received.headers.raw_items()
    assert date == b"Date"
    size = b"0" if code == 205 else b"3"  # RFC 9110 section 15.3.6
    length = [] if code == 204 else [(b"Content-Length", size)]
    assert fields_received == [*accepted, *length]
    lines = 1 + 1 + len(accepted) + len(length) + 1
    assert data.count(b"\r\n") == data.count(b"\n") == data.count(b"\r") == lines


@settings(deadline=None)
@given(st.text(), st.sampled_from("\r\n\0"), st.text())
def test_what_could_split_the_response_is_refused(before: str, between: str, after: str) -> None:
    evil = before + between + after
    head = ResponseHead()
    for value in (evil, evil.encode("utf-8", "surrogatepass")):
        with pytest.raises(ValueError):
            head.write_header("X", value)
    with pytest.raises(ValueError):
        head.write_header(evil, "v")
    with pytest.raises(ValueError):
        head.write_status(evil)
    with pytest.raises(ValueError):
        head.write_status(f"200 {evil}")
    assert (head.status, head.reason, head.fields) == (200, b"OK", [])


# ... as the handler writes it.


async def test_a_handler_writes_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_protocol, "time", SimpleNamespace(time=lambda: 784111777.9))
    errors: list[str] = []

    def handler(res: Response, req: Request) -> None:
        assert res.write_status(404) is res
        assert res.write_header("X-A", "1") is res
        for name, value in [("X-B", "1\r\n"), ("X\r\n", "1"), ("date", "1")]:
            with pytest.raises(ValueError):
                res.write_header(name, value)
        with pytest.raises(ValueError):
            res.write_status("200\n")
        assert res.try_end(b"ab", 4) == (True, False)
        for method, arguments in [("write_status", (200,)), ("write_header", ("X-C", "1"))]:
            with pytest.raises(RuntimeError) as error:
                getattr(res, method)(*arguments)
            errors.append(str(error.value))
        assert res.try_end(b"cd", 4) == (True, True)

    app = App()
    app.get("/", handler)
    async with open_client(app) as client:
        await client.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        received = b""
        while not received.endswith(b"cd"):
            received += await client.receive_some()
    assert received == (
        b"HTTP/1.1 404 Not Found\r\n"
        b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
        b"X-A: 1\r\n"
        b"Content-Length: 4\r\n"
        b"\r\n"
        b"abcd"
    )
    assert errors == [
        "write_status() came after the head of the response was sent",
        "write_header() came after the head of the response was sent",
    ]
