"""What a handler sees of a request: every attribute, for all four forms of the target."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDictProxy, MultiDictProxy

from tests.clients import open_socket_pair
from trio_stream import App, Config, Request, Response
from trio_stream._forwarded import Origin
from trio_stream._protocol import Protocol
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from collections.abc import Iterable

UNKNOWN = "\N{REPLACEMENT CHARACTER}"


def make_request(
    target: str = "/",
    *,
    method: str = "GET",
    version: str = "1.1",
    headers: Iterable[tuple[str, bytes]] = (),
    client: object = None,
    scheme: str = "http",
) -> Request:
    """A request as it is made of what was received."""
    protocol = Protocol(Config())
    fields = [("Host", b"example.org"), *headers]
    protocol.receive_data(
        f"{method} {target} HTTP/{version}\r\n".encode("ascii")
        + b"".join(name.encode("ascii") + b": " + value + b"\r\n" for name, value in fields)
        + b"\r\n"
    )
    head = protocol.next_request()
    assert head is not None
    return Request(head, Config(), peer=Origin(client, scheme))


# The target...


@pytest.mark.parametrize(
    ("method", "target", "raw_path", "path", "query"),
    [
        # Origin-form.
        ("GET", "/", "/", "/", []),
        ("GET", "/a/b.c", "/a/b.c", "/a/b.c", []),
        ("GET", "//a//", "//a//", "//a//", []),
        ("GET", "//example.org/a", "//example.org/a", "//example.org/a", []),
        ("GET", "/caf%C3%A9?size=2", "/caf%C3%A9", "/café", [("size", "2")]),
        ("GET", "/a%2Fb%2fc", "/a%2Fb%2fc", "/a/b/c", []),
        ("GET", "/a%3Fb?c", "/a%3Fb", "/a?b", [("c", "")]),
        ("GET", "/a+b%20c", "/a+b%20c", "/a+b c", []),
        ("GET", "/%2525", "/%2525", "/%25", []),
        ("GET", "/%", "/%", "/%", []),
        ("GET", "/%4", "/%4", "/%4", []),
        ("GET", "/%zz", "/%zz", "/%zz", []),
        ("GET", "/%00%0D%0A", "/%00%0D%0A", "/\0\r\n", []),
        ("GET", "/%FF", "/%FF", f"/{UNKNOWN}", []),
        ("GET", "/%E2%82x", "/%E2%82x", f"/{UNKNOWN}x", []),
        ("GET", "/%C3%A9%C3", "/%C3%A9%C3", f"/é{UNKNOWN}", []),
        ("GET", "/%ED%A0%80", "/%ED%A0%80", "/" + 3 * UNKNOWN, []),  # a surrogate
        ("GET", "/a/../b/./c", "/a/../b/./c", "/a/../b/./c", []),
        ("GET", "/a;b=c", "/a;b=c", "/a;b=c", []),
        ("GET", "/http://h/?a=b", "/http://h/", "/http://h/", [("a", "b")]),
        ("GET", "/a?http://h/b?c", "/a", "/a", [("http://h/b?c", "")]),
        # Absolute-form.
        ("GET", "http://example.org", "/", "/", []),
        ("GET", "http://example.org/", "/", "/", []),
        ("GET", "http://example.org?a=b", "/", "/", [("a", "b")]),
        ("GET", "http://example.org/caf%C3%A9?a=b", "/caf%C3%A9", "/café", [("a", "b")]),
        ("GET", "http://example.org:80//a", "//a", "//a", []),
        ("GET", "http://[::1]:80/a;b?c://d", "/a;b", "/a;b", [("c://d", "")]),
        ("GET", "HTTP://EXAMPLE.org/A", "/A", "/A", []),
        ("GET", "https://example.org/a", "/a", "/a", []),
        # Authority-form.
        ("CONNECT", "example.org:443", "example.org:443", "example.org:443", []),
        ("CONNECT", "[::1]:443", "[::1]:443", "[::1]:443", []),
        # Asterisk-form.
        ("OPTIONS", "*", "*", "*", []),
        # What a proxy would make of it (RFC 9112 section 3.2.4).
        ("OPTIONS", "http://example.org", "*", "*", []),
        ("OPTIONS", "http://example.org/", "/", "/", []),
        ("OPTIONS", "http://example.org?a=b", "/", "/", [("a", "b")]),
    ],
)
def test_target(
    method: str, target: str, raw_path: str, path: str, query: list[tuple[str, str]]
) -> None:
    request = make_request(target, method=method)
    assert request.method == method
    assert request.target == target
    assert request.raw_path == raw_path
    assert request.path == path
    assert list(request.query.items()) == query
    assert repr(request) == f"<Request {method} {target}>"


@pytest.mark.parametrize("method", ["GET", "get", "PROPFIND", "!#$%&'*+-.^_`|~09azAZ"])
def test_method_is_as_sent(method: str) -> None:
    assert make_request(method=method).method == method


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_http_version(version: str) -> None:
    assert make_request(version=version).http_version == version


def test_who_sent_it() -> None:
    address = ("192.0.2.1", 1234)
    request = make_request(client=address, scheme="https")
    assert request.client is address
    assert request.scheme == "https"
    request = make_request("https://example.org/")
    assert request.client is None
    assert request.scheme == "http"


def test_there_are_no_params_without_a_route() -> None:
    assert make_request().params == {}
    assert isinstance(make_request().params, MappingProxyType)


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.data())
def test_path_is_what_was_quoted(path: str, data: st.DataObject) -> None:
    safe = data.draw(st.sampled_from(["", "/", "/:@!$&'()*+,;=", "/-._~"]))
    request = make_request("/" + quote(path, safe=safe))
    assert request.path == "/" + path
    assert request.raw_path == request.target


@settings(deadline=None)
@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#")))
@example("/?%")
def test_any_origin_form_is_taken_apart(tail: str) -> None:
    request = make_request("/" + tail)
    raw_path, question_mark, raw_query = request.target.partition("?")
    assert request.raw_path == raw_path
    assert len(request.query) <= raw_query.count("&") + bool(question_mark)
    assert request.path.startswith("/")


# The query...


@pytest.mark.parametrize(
    ("query", "items"),
    [
        ("", []),
        ("n=1", [("n", "1")]),
        ("n=1&n=2&m=3&n=1", [("n", "1"), ("n", "2"), ("m", "3"), ("n", "1")]),
        ("n", [("n", "")]),
        ("n=", [("n", "")]),
        ("=v", [("", "v")]),
        ("=", [("", "")]),
        ("a=b=c", [("a", "b=c")]),
        ("a==", [("a", "=")]),
        ("&&a=1&&b=2&", [("a", "1"), ("b", "2")]),
        ("a=1;b=2", [("a", "1;b=2")]),
        ("a=b+c%2Bd%20e", [("a", "b c+d e")]),
        ("a+b=c", [("a b", "c")]),
        ("a%3Db=c%26d", [("a=b", "c&d")]),
        ("caf%C3%A9=%E2%82%AC", [("café", "€")]),
        ("a=%FF&%C3=b", [("a", UNKNOWN), (UNKNOWN, "b")]),
        ("a=%&b=%zz", [("a", "%"), ("b", "%zz")]),
        ("a=1?b=2", [("a", "1?b=2")]),
        ("a[]=1&a[]=2", [("a[]", "1"), ("a[]", "2")]),
        ("N=1&n=2", [("N", "1"), ("n", "2")]),
    ],
)
def test_query(query: str, items: list[tuple[str, str]]) -> None:
    assert list(make_request(f"/?{query}").query.items()) == items
    assert list(make_request(f"http://h/a?{query}").query.items()) == items


def test_query_is_a_multidict() -> None:
    query = make_request("/?n=1&m=3&n=2").query
    assert isinstance(query, MultiDictProxy)
    assert not isinstance(query, CIMultiDictProxy)
    assert query["n"] == "1"
    assert query.getall("n") == ["1", "2"]
    assert query.get("x") is None
    assert query.getall("x", []) == []
    assert "N" not in query
    assert len(query) == 3
    with pytest.raises(KeyError):
        query["x"]
    with pytest.raises(TypeError):
        query["n"] = "3"  # type: ignore[index]


any_text = st.text(st.characters(exclude_categories=["Cs"]))


@settings(deadline=None)
@given(st.lists(st.tuples(any_text, any_text)))
def test_query_is_what_was_quoted(items: list[tuple[str, str]]) -> None:
    query = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in items)
    assert list(make_request(f"/?{query}").query.items()) == items


# The header fields...


def test_headers_are_a_multidict_with_names_in_any_case() -> None:
    fields = [("X-One", b"1"), ("Accept", b"text/html"), ("x-one", b"2"), ("X-ONE", b"")]
    headers = make_request(headers=fields).headers
    assert isinstance(headers, CIMultiDictProxy)
    assert headers["x-One"] == "1"
    assert headers.getall("X-one") == ["1", "2", ""]
    assert "ACCEPT" in headers
    assert headers.get("X-Two") is None
    assert headers.getall("X-Two", ()) == ()
    assert len(headers) == 5
    assert list(headers.items()) == [
        ("Host", "example.org"),
        ("X-One", "1"),
        ("Accept", "text/html"),
        ("x-one", "2"),
        ("X-ONE", ""),
    ]
    with pytest.raises(KeyError):
        headers["X-Two"]
    with pytest.raises(TypeError):
        headers["X-One"] = "3"  # type: ignore[index]


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        (b"", ""),
        (b" \t a \t b\t ", "a \t b"),
        (b"caf\xe9", "café"),
        ("café".encode(), "cafÃ©"),
        (b"\x80\xa0\xff", "\x80\xa0\xff"),
        (b'"a, b", c', '"a, b", c'),
        (b"a:b", "a:b"),
    ],
)
def test_header_value(sent: bytes, value: str) -> None:
    assert make_request(headers=[("X", sent)]).headers["X"] == value


def test_what_was_computed_is_kept() -> None:
    request = make_request("/a?b=c", headers=[("Cookie", b"d=e")])
    assert request.path is request.path
    assert request.query is request.query
    assert request.headers is request.headers
    assert request.cookies is request.cookies


TOKEN = st.text(
    st.sampled_from(
        "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    ),
    min_size=1,
)
VISIBLE = st.binary().map(lambda data: bytes(byte for byte in data if byte > 0x20 and byte != 0x7F))


@settings(deadline=None)
@given(st.lists(st.tuples(TOKEN.map("X-".__add__), VISIBLE)))
def test_headers_are_what_was_sent(fields: list[tuple[str, bytes]]) -> None:
    headers = make_request(headers=fields).headers
    assert list(headers.items())[1:] == [(n, v.decode("latin-1")) for n, v in fields]
    for name, _ in fields:
        values = [v.decode("latin-1") for n, v in fields if n.lower() == name.lower()]
        assert headers.getall(name.swapcase()) == values
        assert headers[name] == values[0]


# Cookies...


@pytest.mark.parametrize(
    ("lines", "cookies"),
    [
        ([], {}),
        ([b""], {}),
        ([b"a=1"], {"a": "1"}),
        ([b"a=1; b=2"], {"a": "1", "b": "2"}),
        ([b"a=1;b=2;  c=3 ; "], {"a": "1", "b": "2", "c": "3"}),
        ([b";;a=1;;"], {"a": "1"}),
        ([b"a=1", b"b=2; a=3"], {"a": "1", "b": "2"}),
        ([b"a=1; a=2; A=3"], {"a": "1", "A": "3"}),
        ([b"a=; b=2"], {"a": "", "b": "2"}),
        ([b"a"], {}),
        ([b"a; b=2; c"], {"b": "2"}),
        ([b" a = 1 ;\tb\t=\t2\t"], {"a": "1", "b": "2"}),
        ([b"a=b=c; d==="], {"a": "b=c", "d": "=="}),
        ([b'a="1"; b=""; c="x y, z"'], {"a": "1", "b": "", "c": "x y, z"}),
        # What `http.cookies` drops, with all that follows or at all.
        ([b"a[0]=1; {b}=2; c/d=3; e=4"], {"a[0]": "1", "{b}": "2", "c/d": "3", "e": "4"}),
        ([b'a={"b":[1,"c"]}; d=4'], {"a": '{"b":[1,"c"]}', "d": "4"}),
        ([b"a=1,2; b=x y"], {"a": "1,2", "b": "x y"}),
        ([b"$Version=1; Path=/; Domain=x"], {"$Version": "1", "Path": "/", "Domain": "x"}),
        ([b"expires=Wed, 21 Oct 2015 07:28:00 GMT"], {"expires": "Wed, 21 Oct 2015 07:28:00 GMT"}),
        ([b"a=%20; b=%22"], {"a": "%20", "b": "%22"}),
        ([b"a=caf\xe9"], {"a": "café"}),
        ([b"__proto__=1; __class__=2"], {"__proto__": "1", "__class__": "2"}),
    ],
)
def test_cookies(lines: list[bytes], cookies: dict[str, str]) -> None:
    assert make_request(headers=[("cookie", line) for line in lines]).cookies == cookies


@pytest.mark.parametrize("value", ["à", "Å", "\N{NO-BREAK SPACE}", "\x85"])
def test_cookie_in_utf_8_keeps_all_its_bytes(value: str) -> None:
    cookies = make_request(headers=[("Cookie", f"a={value}; {value}=b".encode())]).cookies
    text = value.encode().decode("latin-1")
    assert cookies == {"a": text, text: "b"}


@pytest.mark.parametrize("value", ['say "hi"', '"', 'a"', '"a', '""a""', '5"', '"a"b'])
def test_only_quotes_around_a_whole_cookie_are_taken_off(value: str) -> None:
    cookies = make_request(headers=[("Cookie", f"a={value}".encode())]).cookies
    assert cookies == {"a": value[1:-1] if value == '""a""' else value}


def test_cookies_are_read_only() -> None:
    cookies = make_request(headers=[("Cookie", b"a=1")]).cookies
    with pytest.raises(TypeError):
        cookies["a"] = "2"  # type: ignore[index]


# RFC 6265 section 4.1.1.
cookie_value = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='",;\\')
)


@settings(deadline=None)
@given(st.dictionaries(TOKEN, cookie_value), st.booleans())
def test_cookies_are_what_was_set(values: dict[str, str], quoted: bool) -> None:
    mark = '"' if quoted else ""
    line = "; ".join(f"{name}={mark}{value}{mark}" for name, value in values.items())
    assert make_request(headers=[("Cookie", line.encode("ascii"))]).cookies == values


# ... and all of it as a handler sees it.


async def test_handler_sees_the_request() -> None:
    seen: list[Request] = []

    def handler(res: Response, req: Request) -> None:
        seen.append(req)
        res.end_without_body()

    app = App()
    app.post("/:where/*", handler)
    async with open_client(app) as client:
        response = await client.request(
            "POST", "http://h/%C3%A0/b%2Fc?d=e", headers=[("X-Y", "z"), ("Cookie", "f=g")]
        )
        assert response.status_code == 200
    (request,) = seen
    assert request.params == {"where": "à", "*": "b/c"}
    assert request.method == "POST"
    assert request.raw_path == "/%C3%A0/b%2Fc"
    assert request.path == "/à/b/c"
    assert list(request.query.items()) == [("d", "e")]
    assert list(request.headers.items()) == [("Host", "h"), ("X-Y", "z"), ("Cookie", "f=g")]
    assert request.cookies == {"f": "g"}
    assert (request.http_version, request.scheme, request.client) == ("1.1", "http", None)


def app_that_notes_clients(seen: list[object]) -> App:
    def handler(res: Response, req: Request) -> None:
        seen.append((req.client, req.scheme))
        res.end_without_body()

    app = App()
    app.get("/", handler)
    return app


async def test_client_is_the_address_of_the_peer() -> None:
    seen: list[object] = []
    app = app_that_notes_clients(seen)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(lambda **kwargs: app.serve(port=0, **kwargs))
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await stream.receive_some()
            assert seen == [(stream.socket.getsockname(), "http")]
        nursery.cancel_scope.cancel()


async def test_client_of_a_stream_is_its_peer() -> None:
    seen: list[object] = []
    app = app_that_notes_clients(seen)
    client, stream = await open_socket_pair()
    async with client, trio.open_nursery() as nursery:
        address = client.socket.getsockname()
        nursery.start_soon(app.serve_stream, stream)
        await client.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        while await client.receive_some():
            pass
        await client.aclose()
    assert seen == [(address, "http")]


@pytest.mark.parametrize("target", ["http://[::1/", "http://]/", "http://[x]/", "http://u:p@h/"])
async def test_malformed_authority_is_a_bad_request(target: str) -> None:
    async with open_client(App()) as client:
        assert (await client.get(target)).status_code == 400


@pytest.mark.parametrize(
    "target", ["a", "a?b=c", "a/b", "?", "a:80", "mailto:x", "a?b://c", "x://"]
)
async def test_target_in_no_form_is_a_bad_request(target: str) -> None:
    # RFC 9112 section 3.2: only CONNECT has an authority for a target.
    async with open_client(App()) as client:
        assert (await client.get(target)).status_code == 400
