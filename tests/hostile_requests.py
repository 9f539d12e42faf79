"""Requests that are wrong, or right but unusual, each with the answer that it must get.

`REQUESTS` is read by `test_wire.py`, which sends `FOLLOW_UP` behind each: where the connection may
live on it is answered as well, else not.
"""

from __future__ import annotations

from typing import NamedTuple

from trio_stream import Config

# Small, so that what is too large can be sent byte by byte.
CONFIG = Config(max_head_size=600, max_target_size=200, max_header_count=12)

FOLLOW_UP = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"


class Hostile(NamedTuple):
    """What a client sends, and what becomes of it.

    Attributes:
      data: Of the request, and sometimes of another one behind it.
      statuses: Of all answers, without that to the follow-up.
      lives: Whether the follow-up is answered; `None` if it is waited for more.
      rfc: The section that asks for it; "" where it is our own choice.
      why: What is wrong, or right.
      body: What is read of the body; where there is none, the host.
    """

    data: bytes
    statuses: tuple[int, ...]
    lives: bool | None
    rfc: str
    why: str
    body: bytes = b""


def refused(status: int, data: bytes, rfc: str, why: str) -> Hostile:
    return Hostile(data, (status,), False, rfc, why)


def taken(
    data: bytes,
    rfc: str,
    why: str,
    *,
    body: bytes = b"",
    lives: bool | None = True,
    statuses: tuple[int, ...] = (200,),
) -> Hostile:
    return Hostile(data, statuses, lives, rfc, why, body)


def get(
    *lines: bytes, method: bytes = b"GET", target: bytes = b"/", version: bytes = b"HTTP/1.1"
) -> bytes:
    """A request without a body; with `Host: h` unless the first line is `b"-"`."""
    fields = lines[1:] if lines[:1] == (b"-",) else (b"Host: h", *lines)
    return b"\r\n".join((b" ".join((method, target, version)), *fields, b"", b""))


def post(body: bytes, *lines: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    return get(*lines, method=b"POST", version=version) + body


def chunked(body: bytes, *lines: bytes) -> bytes:
    return post(body, b"Transfer-Encoding: chunked", *lines)


def smuggling(*lines: bytes) -> bytes:
    """A request in the body of another, as one of two ways to read the framing sees it."""
    body = b"0\r\n\r\n" + get(target=b"/smuggled")
    return post(body, *(line.replace(b"LENGTH", b"%d" % len(body)) for line in lines))


CODING = b"Transfer-Encoding: chunked"
ENDED = b"0\r\n\r\n"
HELLO = b"5\r\nhello\r\n0\r\n\r\n"

REQUEST_LINES = [
    refused(400, b"nonsense\r\n", "9112 3", "a line of one word"),
    refused(400, b"GET /\r\n", "9112 2.3", "a request of HTTP/0.9"),
    refused(400, b"GET / \r\n\r\n", "9112 3", "no version"),
    refused(400, b"GET HTTP/1.1\r\nHost: h\r\n\r\n", "9112 3", "no target"),
    refused(400, b"/ HTTP/1.1\r\nHost: h\r\n\r\n", "9112 3", "no method"),
    refused(400, get(target=b" /"), "9112 3", "two spaces before the target"),
    refused(400, get(version=b" HTTP/1.1"), "9112 3", "two spaces before the version"),
    refused(400, get(version=b"HTTP/1.1 "), "9112 3", "a space behind the version"),
    refused(400, get(target=b"/a b"), "9112 3.2", "a space in the target"),
    refused(400, b"GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n", "9112 3", "a tab for a space"),
    refused(400, b"GET /\x0bHTTP/1.1\r\nHost: h\r\n\r\n", "9112 3", "a vertical tab for a space"),
    refused(400, b" " + get(), "9112 3", "a space before the request line"),
    refused(400, b"\t" + get(), "9112 3", "a tab before the request line"),
    refused(400, b" \r\n\r\n", "9112 3", "a line of white space"),
    refused(400, b"some words " + get(), "9112 3", "words before the method"),
    refused(400, get(method=b"GE(T"), "9110 9.1", "a method that is no token"),
    refused(400, get(method=b"GET,"), "9110 9.1", "a method with a comma"),
    refused(400, get(method=b"G\xc3\x89T"), "9110 9.1", "a method that is not ASCII"),
    refused(400, get(version=b"http/1.1"), "9112 2.3", "a version in lower case"),
    refused(400, get(version=b"HTTP/1"), "9112 2.3", "no minor version"),
    refused(400, get(version=b"HTTP/1."), "9112 2.3", "an empty minor version"),
    refused(400, get(version=b"HTTP/01.1"), "9112 2.3", "a major version of two digits"),
    refused(400, get(version=b"HTTP/1.10"), "9112 2.3", "a minor version of two digits"),
    refused(400, get(version=b"HTTP/ 1.1"), "9112 2.3", "a space in the version"),
    refused(400, get(version=b"HTTP/1,1"), "9112 2.3", "a comma in the version"),
    refused(400, get(version=b"HTTPS/1.1"), "9112 2.3", "another name in the version"),
    refused(505, get(version=b"HTTP/0.9"), "9110 15.6.6", "version 0.9"),
    refused(505, get(version=b"HTTP/2.0"), "9110 15.6.6", "version 2.0"),
    refused(505, get(version=b"HTTP/9.9"), "9110 15.6.6", "version 9.9"),
    refused(505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "9113 3.4", "the preface of HTTP/2"),
    refused(400, b"HTTP/1.1 200 OK\r\n\r\n", "9112 3", "a response"),
    refused(400, b"\x16\x03\x01\x02\x00\x01\x00", "9112 3", "a TLS client"),
    refused(400, b"SSH-2.0-OpenSSH_9.6\r\n", "9112 3", "an SSH client"),
    refused(400, b"\x04\x01\x1f\x90\x7f\x00\x00\x01\x00", "9112 3", "a SOCKS client"),
    refused(400, b"\xfe\x8d\x9f\x00\x10\xa0\xff", "9112 3", "bytes at random"),
]

TARGETS = [
    refused(400, get(target=b"*"), "9112 3.2.4", "`*` for GET"),
    refused(400, get(target=b"*", method=b"POST"), "9112 3.2.4", "`*` for POST"),
    refused(400, get(target=b"*/", method=b"OPTIONS"), "9112 3.2.4", "more than `*`"),
    refused(400, get(target=b"a"), "9112 3.2", "a path that does not begin with /"),
    refused(400, get(target=b"?a"), "9112 3.2", "a query alone"),
    refused(400, get(target=b"h:80"), "9112 3.2.3", "an authority for GET"),
    refused(400, get(target=b"/a#b"), "9110 7.1", "a fragment"),
    refused(400, get(target=b"http://h/#b"), "9110 7.1", "a fragment behind an authority"),
    refused(400, get(target=b"ftp://h/"), "9112 3.2", "a scheme that is not served"),
    refused(400, get(target=b"mailto:a"), "9112 3.2", "a URI without authority"),
    refused(400, get(target=b"http:///a"), "9110 4.2.1", "an empty host"),
    refused(400, get(target=b"http://:80/a"), "9110 4.2.1", "an empty host with a port"),
    refused(400, get(target=b"http://u:p@h/"), "9110 4.2.4", "userinfo"),
    refused(400, get(target=b"http://h:x/"), "3986 3.2.3", "a port of letters"),
    refused(400, get(target=b"/\0"), "9112 3.2", "NUL"),
    refused(400, get(target=b"/\x7f"), "9112 3.2", "DEL"),
    refused(400, get(target=b"/caf\xc3\xa9"), "9112 3.2", "UTF-8 that is not percent-encoded"),
    refused(400, get(target=b"/\xc0\xaf"), "9112 3.2", "an overlong slash"),
    refused(400, get(target=b"/", method=b"CONNECT"), "9112 3.2.3", "a path for CONNECT"),
    refused(400, get(target=b"h", method=b"CONNECT"), "9110 9.3.6", "CONNECT without a port"),
    refused(400, get(target=b"h:", method=b"CONNECT"), "9110 9.3.6", "CONNECT, an empty port"),
    refused(400, get(target=b"h:65536", method=b"CONNECT"), "9110 9.3.6", "CONNECT, no port"),
    refused(400, get(target=b"u@h:1", method=b"CONNECT"), "9112 3.2.3", "CONNECT with userinfo"),
    refused(400, get(target=b"http://h:1/", method=b"CONNECT"), "9112 3.2.3", "CONNECT, a URI"),
    taken(get(target=b"*", method=b"OPTIONS"), "9112 3.2.4", "`*`", statuses=(204,)),
    taken(get(target=b"http://other/a"), "9112 3.2.2", "absolute form", body=b"other"),
    taken(get(target=b"HTTPS://other:443?a"), "9112 3.2.2", "without a path", body=b"other:443"),
    taken(get(target=b"http://[::1]:80/"), "9112 3.2.2", "an IPv6 address", body=b"[::1]:80"),
    taken(get(target=b'/a|b"c{d}\\e^f`g[h]<i>'), "", "what browsers do not encode", body=b"h"),
    taken(get(target=b"/%00%0d%0aX:%20y"), "", "percent-encoded is only text", body=b"h"),
    taken(get(target=b"//a//../b?c?d"), "9112 3.2.1", "a path that is nobody's", body=b"h"),
]

HOSTS = [
    refused(400, get(b"-"), "9112 3.2", "none"),
    refused(400, get(b"-", version=b"HTTP/1.2"), "9112 3.2", "none in a later version"),
    refused(400, get(b"-", target=b"http://h/"), "9112 3.2", "none but in the target"),
    refused(400, get(b"Host: h"), "9112 3.2", "twice the same"),
    refused(400, get(b"Host: other"), "9112 3.2", "two of them"),
    refused(400, get(b"host: other", version=b"HTTP/1.0"), "9112 3.2", "two in HTTP/1.0"),
    refused(400, get(b"-", b"Host:"), "9110 4.2.1", "empty"),
    refused(400, get(b"-", b"Host:  \t"), "9110 4.2.1", "white space"),
    refused(400, get(b"-", b"Host: u@h"), "9110 7.2", "userinfo"),
    refused(400, get(b"-", b"Host: u:p@h:80"), "9110 7.2", "userinfo and a port"),
    refused(400, get(b"-", b"Host: h/path"), "9110 7.2", "a path"),
    refused(400, get(b"-", b"Host: http://h"), "9110 7.2", "a URI"),
    refused(400, get(b"-", b"Host: h?q"), "9110 7.2", "a query"),
    refused(400, get(b"-", b"Host: h#f"), "9110 7.2", "a fragment"),
    refused(400, get(b"-", b"Host: h, other"), "9110 7.2", "a list"),
    refused(400, get(b"-", b"Host: h,other"), "9110 7.2", "a list without a space"),
    refused(400, get(b"-", b"Host: h other"), "9110 7.2", "a space"),
    refused(400, get(b"-", b"Host: h:x"), "3986 3.2.3", "a port of letters"),
    refused(400, get(b"-", b"Host: h:80:80"), "3986 3.2.3", "two ports"),
    refused(400, get(b"-", b"Host: h:65536"), "3986 3.2.3", "a port past the last"),
    refused(400, get(b"-", b"Host: h:" + 400 * b"0"), "3986 3.2.3", "a port of many digits"),
    refused(400, get(b"-", b"Host: h:-1"), "3986 3.2.3", "a negative port"),
    refused(400, get(b"-", b"Host: :80"), "9110 4.2.1", "a port alone"),
    refused(400, get(b"-", b"Host: [::1"), "3986 3.2.2", "an open bracket"),
    refused(400, get(b"-", b"Host: [:::1]"), "3986 3.2.2", "no IPv6 address"),
    refused(400, get(b"-", b"Host: [h]"), "3986 3.2.2", "a name in brackets"),
    refused(400, get(b"-", b"Host: ::1"), "3986 3.2.2", "an IPv6 address without brackets"),
    refused(400, get(b"-", b"Host: a%2"), "3986 2.1", "half of an escape"),
    refused(400, get(b"-", b"Host: a\\b"), "3986 3.2.2", "a backslash"),
    refused(400, get(b"-", b"Host: <h>"), "3986 3.2.2", "angle brackets"),
    refused(400, get(b"-", b"Host: caf\xc3\xa9"), "3986 3.2.2", "UTF-8"),
    refused(400, get(b"-", b"Host: u@h", target=b"http://h/"), "9112 3.2", "where it is ignored"),
    refused(400, get(b"-", b"Host: u@h", version=b"HTTP/1.0"), "9112 3.2", "in HTTP/1.0"),
    taken(get(b"-", version=b"HTTP/1.0"), "9112 3.2", "HTTP/1.0 has none", lives=False),
    taken(get(b"-", b"hOST:\th:80 \t"), "9110 5.1", "any case and white space", body=b"h:80"),
    taken(get(b"-", b"Host: h:"), "3986 3.2.3", "an empty port", body=b"h:"),
    taken(get(b"-", b"Host: 127.0.0.1:65535"), "3986 3.2.2", "IPv4", body=b"127.0.0.1:65535"),
    taken(get(b"-", b"Host: [2001:db8::1]:8"), "3986 3.2.2", "IPv6", body=b"[2001:db8::1]:8"),
    taken(get(b"-", b"Host: a_b-c.%C3%A9~!"), "3986 3.2.2", "a name", body=b"a_b-c.%C3%A9~!"),
]

FIELDS = [
    refused(400, get(b"X : y"), "9112 5.1", "a space before the colon"),
    refused(400, get(b"X\t: y"), "9112 5.1", "a tab before the colon"),
    refused(400, get(b": y"), "9112 5", "an empty name"),
    refused(400, get(b"no colon"), "9112 5", "no colon"),
    refused(400, get(b"X[]: y"), "9110 5.1", "brackets in a name"),
    refused(400, get(b"X\xc3\xab: y"), "9110 5.1", "a name that is not ASCII"),
    refused(400, get(b"X\0: y"), "9110 5.1", "NUL in a name"),
    refused(400, get(b"X\ty: z"), "9110 5.1", "a tab in a name"),
    refused(400, get(b"X: y", b" folded"), "9112 5.2", "a line folded with a space"),
    refused(400, get(b"X: y", b"\tfolded"), "9112 5.2", "a line folded with a tab"),
    refused(400, get(b"X: y", b" "), "9112 5.2", "a line of white space"),
    refused(400, b"GET / HTTP/1.1\r\n Host: h\r\n\r\n", "9112 2.2", "space before the first field"),
    refused(400, b"GET / HTTP/1.1\r\n \r\nHost: h\r\n\r\n", "9112 2.2", "white space, then fields"),
    refused(400, get(b"X: y\0z"), "9110 5.5", "NUL in a value"),
    refused(400, get(b"X: y\rz"), "9110 5.5", "a bare CR in a value"),
    refused(400, get(b"X: y\r"), "9110 5.5", "a bare CR behind a value"),
    refused(400, get(b"X: y\nZ: z"), "9112 2.2", "a bare LF between fields"),
    *(
        refused(400, get(b"X: y%cz" % code), "9110 5.5", f"control character {code:#x}")
        for code in (*range(1, 9), *range(11, 13), *range(14, 32), 127)
    ),
    refused(400, b"GET / HTTP/1.1\nHost: h\r\n\r\n", "9112 2.2", "a bare LF behind the first line"),
    refused(400, b"GET / HTTP/1.1\rHost: h\r\n\r\n", "9112 2.2", "a bare CR behind the first line"),
    refused(400, b"GET / HTTP/1.1\r\nHost: h\n\n", "9112 2.2", "bare LFs at the end"),
    refused(400, b"GET / HTTP/1.1\r\nHost: h\r\n\n", "9112 2.2", "one bare LF at the end"),
    refused(400, b"GET / HTTP/1.1\r\nHost: h\n\r\n", "9112 2.2", "one bare LF before the end"),
    refused(
        400, b"GET / HTTP/1.1\r\nHost: h\r\n\rX: y\r\n\r\n", "9112 2.2", "a bare CR in the end"
    ),
    refused(400, b"GET / HTTP/1.1\r\nHost: h\r\r\n\r\n", "9112 2.2", "two CRs at the end"),
    refused(400, b"\n" + get(), "9112 2.2", "a bare LF before the request line"),
    refused(400, b"\r" + get(), "9112 2.2", "a bare CR before the request line"),
    refused(400, 9 * b"\r\n" + get(), "", "too many empty lines before the request line"),
    taken(b"\r\n" + get(), "9112 2.2", "an empty line before the request line", body=b"h"),
    taken(8 * b"\r\n" + get(), "", "eight of them", body=b"h"),
    taken(get(b"X:"), "9110 5.5", "an empty value", body=b"h"),
    taken(get(b"X: \t "), "9110 5.5", "a value of white space", body=b"h"),
    taken(get(b"X: a\tb"), "9110 5.5", "a tab in a value", body=b"h"),
    taken(get(b"X: \x80\xff"), "9110 5.5", "a value that is not ASCII", body=b"h"),
    taken(get(b"!#$%&'*+-.^_`|~09azAZ: y"), "9110 5.6.2", "all of a token", body=b"h"),
    taken(get(b"Transfer_Encoding: chunked"), "9110 5.1", "another name", body=b"h"),
    taken(get(b"Content_Length: 9"), "9110 5.1", "yet another name", body=b"h"),
    taken(get(method=b"get"), "9110 9.1", "a method that nobody knows", body=b"h"),
    taken(get(version=b"HTTP/1.2"), "9112 2.3", "a later minor version", body=b"h"),
    taken(get(version=b"HTTP/1.0"), "9112 9.3", "HTTP/1.0", body=b"h", lives=False),
    taken(get(b"Connection: close"), "9112 9.6", "the last one", body=b"h", lives=False),
    taken(get(b"Connection: Upgrade", b"Upgrade: a/1"), "9110 7.8", "unknown", body=b"h"),
    taken(get(b"Upgrade: websocket"), "9110 7.8", "not in Connection", body=b"h"),
    taken(
        get(b"Connection: upgrade", b"Upgrade: websocket", version=b"HTTP/1.0"),
        "9110 7.8",
        "HTTP/1.0 has no Upgrade",
        body=b"h",
        lives=False,
    ),
    taken(get(method=b"HEAD"), "9110 9.3.2", "HEAD"),
]

LIMITS = [
    refused(431, get(b"X: " + 700 * b"y"), "6585 5", "a long value"),
    refused(431, get(700 * b"X" + b": y"), "6585 5", "a long name"),
    refused(431, get(*[b"X:"] * 12), "6585 5", "many fields"),
    refused(431, get(*[b"X:"] * 300), "6585 5", "fields without end"),
    refused(414, get(target=b"/" + 200 * b"a"), "9110 15.5.15", "a target that is a little long"),
    refused(414, get(target=b"/" + 700 * b"a"), "9110 15.5.15", "a target without end"),
    refused(414, get(b"X: " + 700 * b"y", target=b"/" + 200 * b"a"), "", "it, and a long value"),
    refused(414, get(version=700 * b"x", target=b"/" + 200 * b"a"), "", "it, and a long version"),
    refused(431, get(version=700 * b"x"), "", "a version without end"),
    refused(400, 700 * b"A" + get(), "9112 3", "a method without end"),
    refused(400, get(*[b"X:"] * 20, version=b"HTTP/x"), "", "many fields of no request"),
    refused(400, get(b"X: \n" + 700 * b"y"), "", "a bare LF before the limit"),
    refused(431, get(b"X: " + 700 * b"y" + b"\n"), "", "a bare LF past the limit"),
    taken(get(*[b"X:"] * 11), "", "as many fields as may be", body=b"h"),
    taken(get(target=b"/" + 199 * b"a"), "", "as long a target as may be", body=b"h"),
    taken(get(b"X: " + (600 - len(get(b"X: "))) * b"y"), "", "as long a head as may be", body=b"h"),
    refused(431, get(b"X: " + (601 - len(get(b"X: "))) * b"y"), "", "a head one byte longer"),
]

LENGTHS = [
    *(
        refused(400, post(b"hello", b"Content-Length: " + value), "9110 8.6", why)
        for value, why in (
            (b"", "empty"),
            (b"-1", "negative"),
            (b"-0", "negative zero"),
            (b"+5", "with a sign"),
            (b"0x5", "hexadecimal"),
            (b"0o5", "octal"),
            (b"5.0", "with a fraction"),
            (b"5e0", "with an exponent"),
            (b"1_0", "with an underscore"),
            (b"1 0", "with a space"),
            (b"abc", "letters"),
            (b"5x", "with a letter"),
            (b'"5"', "quoted"),
            (b"5;", "with a semicolon"),
            (b"\xb2", "a superscript"),
            (b"5, 10", "a list"),
            (b"5, 5", "a list of the same"),
            (b"5,", "a list with an end"),
            (b"99999999999999999999", "past 64 bits"),
            (b"9223372036854775808", "past 63 bits"),
            (400 * b"9", "of many digits"),
        )
    ),
    refused(400, post(b"hello", b"Content-Length: 5", b"Content-Length: 5"), "9112 6.3", "twice"),
    refused(400, post(b"hello", b"Content-Length: 5", b"Content-Length: 9"), "9112 6.3", "two"),
    refused(
        400, post(b"hello", b"Content-Length: 5", b"Content-Length : 9"), "9112 5.1", "a space"
    ),
    refused(400, post(b"hello", b"Content-Length: 5", b"Content-\tLength: 9"), "9112 5.1", "a tab"),
    refused(400, post(b"hello", b"Content-Length:", b" 5"), "9112 5.2", "folded"),
    refused(400, get(b"Content-Length: 5", method=b"TRACE") + b"hello", "9110 9.3.8", "TRACE"),
    taken(post(b"hello", b"Content-Length: 5"), "9112 6.2", "a length", body=b"hello"),
    taken(post(b"hello", b"Content-Length:\t5 \t"), "9110 5.5", "white space", body=b"hello"),
    taken(post(b"hello", b"Content-Length: 005"), "9110 8.6", "zeros", body=b"hello"),
    taken(post(100 * b"a", b"Content-Length: 0100"), "9110 8.6", "not octal", body=100 * b"a"),
    taken(post(b"", b"Content-Length: 0"), "9110 8.6", "zero", body=b"h"),
    taken(post(b"", b"Content-Length: 00"), "9110 8.6", "two zeros", body=b"h"),
    taken(post(b""), "9112 6.3", "no body", body=b"h"),
    taken(get(b"Content-Length: 5") + b"hello", "9110 9.3.1", "a GET with one", body=b"hello"),
    taken(get(b"Content-Length: 5", method=b"HEAD") + b"hello", "9110 9.3.2", "a HEAD with one"),
    taken(
        post(b"hello", b"Content-Length: 5", version=b"HTTP/1.0"),
        "9112 6.2",
        "HTTP/1.0",
        body=b"hello",
        lives=False,
    ),
    taken(
        post(get(target=b"/inner"), b"Content-Length: %d" % len(get(target=b"/inner"))),
        "9112 6.2",
        "a request in a body is a body",
        body=get(target=b"/inner"),
    ),
]

CODINGS = [
    *(
        refused(status, post(ENDED, b"Transfer-Encoding: " + value), "9112 6.1", why)
        for status, value, why in (
            (501, b"gzip", "one that is not known here"),
            (501, b"identity", "one that was taken back"),
            (501, b"xchunked", "a longer name"),
            (501, b"chunke", "a shorter name"),
            (501, b"chunked;a=b", "with a parameter"),
            (501, b'"chunked"', "quoted"),
            (501, b"gzip, chunked", "one before chunked"),
            (400, b"", "empty"),
            (400, b"chunked, gzip", "chunked not last"),
            (400, b"chunked, chunked", "chunked twice"),
            (400, b"chunked,", "an empty one behind"),
            (400, b", chunked", "an empty one before"),
            (400, b"\x0bchunked", "a vertical tab"),
            (400, b"\x0cchunked", "a form feed"),
            (400, b"chunked\0", "NUL"),
            (400, b"chunked\r", "a bare CR"),
        )
    ),
    refused(400, post(ENDED, CODING, CODING), "9112 6.3", "two fields"),
    refused(400, post(ENDED, CODING, b"Transfer-Encoding: identity"), "9112 6.3", "two codings"),
    refused(400, post(ENDED, b"Transfer-Encoding : chunked"), "9112 5.1", "a space"),
    refused(400, post(ENDED, b"Transfer-Encoding:", b" chunked"), "9112 5.2", "folded"),
    refused(400, post(ENDED, CODING, version=b"HTTP/1.0"), "9112 6.1", "in HTTP/1.0"),
    refused(
        400,
        post(ENDED, b"Transfer-Encoding: gzip", version=b"HTTP/1.0"),
        "9112 6.1",
        "an unknown one in HTTP/1.0",
    ),
    refused(400, get(CODING, method=b"TRACE") + ENDED, "9110 9.3.8", "TRACE"),
    *(
        refused(400, smuggling(*lines), "9112 6.1", why)
        for lines, why in (
            ((b"Content-Length: LENGTH", CODING), "both"),
            ((CODING, b"Content-Length: LENGTH"), "both, in the other order"),
            ((CODING, b"Content-Length: 0"), "both, and none of it"),
            ((CODING, b"Content-Length: 5"), "both, and they agree"),
            ((b"Content-Length: +LENGTH", CODING), "both, and no length"),
            ((b"Content-Length: LENGTHx", CODING), "both, and no length either"),
            ((b"Content-Length: LENGTH", b"transfer-ENCODING: Chunked"), "both, in another case"),
            ((b"Content-Length: LENGTH", b"Transfer-Encoding:\tchunked"), "both, with a tab"),
            ((b"Content-Length: LENGTH", CODING + b" "), "both, with a space"),
            ((b"Content-Length: LENGTH", b"Transfer-Encoding:", b" chunked"), "both, and folded"),
            ((b"Content-Length: LENGTH", b"Transfer-Encoding: , chunked"), "both, and empty"),
            ((b"Content-Length: LENGTH", b"Transfer-Encoding: chunked,"), "both, and empty"),
            ((b"Content-Length: LENGTH", b"Transfer-Encoding: gzip"), "both, and unknown"),
            ((b"Content-Length: LENGTH", b"Transfer-Encoding: xchunked"), "both, and unknown"),
            ((b"Content-Length: LENGTH", b"Transfer-Encoding: chunked;a=b"), "both, and unknown"),
            ((b"Content-Length: LENGTH", b"Transfer-Encoding: "), "both, and empty"),
            ((b"Content-Length: LENGTH", CODING, CODING), "both, twice"),
            (
                (b"Content-Length: LENGTH", CODING, b"Transfer-Encoding: identity"),
                "both, and another",
            ),
            ((b"Content-Length: 4", b"Content-Length: LENGTH"), "two lengths"),
        )
    ),
    refused(
        400,
        post(ENDED, b"Content-Length: 5", CODING, version=b"HTTP/1.0"),
        "9112 6.1",
        "both in HTTP/1.0",
    ),
    taken(chunked(ENDED), "9112 7.1", "an empty body"),
    taken(post(HELLO, b"TRANSFER-encoding:\tCHUNKED "), "9112 7", "any case", body=b"hello"),
    taken(post(HELLO, CODING, version=b"HTTP/1.2"), "9112 2.3", "a later version", body=b"hello"),
]

CHUNKS = [
    *(
        refused(400, chunked(body), "9112 7.1", why)
        for body, why in (
            (b"x\r\n", "no size"),
            (b"\r\n", "an empty size"),
            (b";a\r\n", "an extension without a size"),
            (b"-1\r\nhello\r\n" + ENDED, "negative"),
            (b"+5\r\nhello\r\n" + ENDED, "with a sign"),
            (b"+0\r\n\r\n", "an end with a sign"),
            (b"0x5\r\nhello\r\n" + ENDED, "with a prefix"),
            (b"1_0\r\n0123456789abcdef\r\n" + ENDED, "with an underscore"),
            (b"5.0\r\nhello\r\n" + ENDED, "with a fraction"),
            (b" 5\r\nhello\r\n" + ENDED, "a space before"),
            (b"5 \r\nhello\r\n" + ENDED, "a space behind"),
            (b"5\t\r\nhello\r\n" + ENDED, "a tab behind"),
            (b"5 5\r\nhello\r\n" + ENDED, "a space within"),
            (b"FFFFFFFFFFFFFFFF0\r\nhello\r\n" + ENDED, "past 64 bits"),
            (b"00000000000000005\r\nhello\r\n" + ENDED, "more digits than we read"),
            (b"5\0\r\nhello\r\n" + ENDED, "NUL"),
            (b"\xd9\xa5\r\nhello\r\n" + ENDED, "digits of another script"),
            (b"5\nhello\r\n" + ENDED, "a bare LF behind the size"),
            (b"5\n", "a bare LF behind the size, and nothing more"),
            (b"5\rhello\r\n" + ENDED, "a bare CR behind the size"),
            (b"5\r\nhello\n" + ENDED, "a bare LF behind the data"),
            (b"5\r\nhello\r" + ENDED, "a bare CR behind the data"),
            (b"5\r\nhello" + ENDED, "nothing behind the data"),
            (b"5\r\nhello!!\r\n" + ENDED, "more data than said"),
            (b"6\r\nhello\r\n" + ENDED, "less data than said"),
            (b"5;\r\nhello\r\n" + ENDED, "an extension without a name"),
            (b"5;;a\r\nhello\r\n" + ENDED, "an empty extension"),
            (b"5;a;\r\nhello\r\n" + ENDED, "an extension at the end without a name"),
            (b"5;=b\r\nhello\r\n" + ENDED, "a value without a name"),
            (b"5;a=\r\nhello\r\n" + ENDED, "an empty value"),
            (b"5;a[=b\r\nhello\r\n" + ENDED, "a name that is no token"),
            (b"5;a=b c\r\nhello\r\n" + ENDED, "a value with a space"),
            (b"5;a b\r\nhello\r\n" + ENDED, "a name with a space"),
            (b"5;a \r\nhello\r\n" + ENDED, "a space behind an extension"),
            (b'5;a="b\r\nhello\r\n' + ENDED, "an open quote"),
            (b'5;a="b"c\r\nhello\r\n' + ENDED, "more behind a quote"),
            (b'5;a="\\\r\nhello\r\n' + ENDED, "an open escape"),
            (b"5;\0a\r\nhello\r\n" + ENDED, "NUL in an extension"),
            (b"5;a\rb\r\nhello\r\n" + ENDED, "a bare CR in an extension"),
            (b"5;\nhello\r\n" + ENDED, "a bare LF in an extension"),
            (b'5;a="\x07"\r\nhello\r\n' + ENDED, "a control character in an extension"),
            (b"5,a\r\nhello\r\n" + ENDED, "a comma behind the size"),
            (b"0\r\n\n", "a bare LF at the end"),
            (b"0\n\r\n", "a bare LF behind the last size"),
            (b"0\n\n", "two bare LFs at the end"),
            (b"0\r\n\rX", "a bare CR at the end"),
            (b"0\r\nno colon\r\n\r\n", "a trailer without a colon"),
            (b"0\r\nX : y\r\n\r\n", "a trailer with a space before the colon"),
            (b"0\r\n: y\r\n\r\n", "a trailer without a name"),
            (b"0\r\nX: y\r\n z\r\n\r\n", "a folded trailer"),
            (b"0\r\n X: y\r\n\r\n", "a trailer with a space before it"),
            (b"0\r\nX: y\nZ: z\r\n\r\n", "a bare LF in trailers"),
            (b"0\r\nX: y\0\r\n\r\n", "NUL in a trailer"),
        )
    ),
    refused(
        431, chunked(b"5;" + 700 * b"a" + b"\r\nhello\r\n" + ENDED), "9112 7.1.1", "a long one"
    ),
    refused(431, chunked(30 * b"1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\na\r\n"), "", "many"),
    refused(400, chunked(b"5;\n" + 700 * b"a"), "", "a bare LF before the limit"),
    refused(431, chunked(b"0\r\nX: " + 700 * b"y" + b"\r\n\r\n"), "6585 5", "long trailers"),
    refused(400, chunked(b"0\r\nX: \n" + 700 * b"y" + b"\r\n\r\n"), "", "and a bare LF before"),
    *(
        taken(chunked(body), "9112 7.1", why, body=b"hello")
        for body, why in (
            (HELLO, "one chunk"),
            (b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", "two chunks"),
            (b"0005\r\nhello\r\n000\r\n\r\n", "zeros before the size"),
            (b"5;a\r\nhello\r\n0\r\n\r\n", "an extension"),
            (b"5;a=b\r\nhello\r\n0;c\r\n\r\n", "an extension with a value"),
            (b'5;a="b;\\"c"\r\nhello\r\n0\r\n\r\n', "a quoted value"),
            (b"5 ; a\t=  b;c\r\nhello\r\n0\r\n\r\n", "white space that is only bad"),
            (b"5\r\nhello\r\n0\r\nX: y\r\nZ:\r\n\r\n", "trailers"),
            (b"5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n", "a length in the trailers"),
            (b"5\r\nhello\r\n0\r\nTransfer-Encoding: x\r\n\r\n", "a coding in the trailers"),
            (b"5\r\nhello\r\n0\r\nHost: other\r\n\r\n", "a host in the trailers"),
            (b"5\r\nhello\r\n0\r\nConnection: close\r\n\r\n", "a close in the trailers"),
        )
    ),
    taken(chunked(b"A\r\nhelloworld\r\n" + ENDED), "9112 7.1", "A", body=b"helloworld"),
    taken(chunked(b"a\r\nhelloworld\r\n" + ENDED), "9112 7.1", "a", body=b"helloworld"),
    taken(chunked(b"2\r\n\r\n\r\n" + ENDED), "9112 7.1", "a chunk that is CRLF", body=b"\r\n"),
]

EXPECTATIONS = [
    refused(417, get(b"Expect: 200-ok"), "9110 10.1.1", "another one"),
    refused(417, get(b"Expect: 100-continue, a=b"), "9110 10.1.1", "one more"),
    refused(417, get(b"Expect: 100-continue", b"Expect: a"), "9110 10.1.1", "two fields"),
    taken(get(b"Expect:"), "9110 10.1.1", "none", body=b"h"),
    taken(get(b"Expect: 100-continue"), "9110 10.1.1", "and no body", body=b"h"),
    taken(
        get(b"Expect: a", version=b"HTTP/1.0"), "9110 10.1.1", "HTTP/1.0", body=b"h", lives=False
    ),
    taken(
        post(b"hello", b"Expect: 100-continue", b"Content-Length: 5", version=b"HTTP/1.0"),
        "9110 15.2",
        "HTTP/1.0 knows no 1xx",
        body=b"hello",
        lives=False,
    ),
]

# The follow-up is a part of these.
UNFINISHED = [
    taken(b"GET / HTTP/1.1\r\nX: ", "9112 8", "a head, until then", body=b"next", lives=None),
    taken(post(b"hello", b"Content-Length: 999"), "9112 8", "a body", lives=None, statuses=()),
    taken(chunked(b"500\r\nhello"), "9112 8", "a chunk", lives=None, statuses=()),
]

REQUESTS = [
    *REQUEST_LINES,
    *TARGETS,
    *HOSTS,
    *FIELDS,
    *LIMITS,
    *LENGTHS,
    *CODINGS,
    *CHUNKS,
    *EXPECTATIONS,
    *UNFINISHED,
]
