"""Patterns, parameters and precedence; what the built-in routes answer; errors of registration."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, cast
from urllib.parse import quote, unquote

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_stream import App, Request, Response
from trio_stream._routing import ANY, Router
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

# The name of the route that answers, or what the built-in one says; and the parameters.
Found: TypeAlias = tuple[str, dict[str, str]]

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE")


class Answer:
    """A `Response` that notes who answers; what is sent is looked at further down."""

    name = ""
    status = 200
    allow = ""

    def write_status(self, status: int) -> Answer:
        self.status = status
        return self

    def write_header(self, name: str, value: str) -> Answer:
        if name == "Allow":
            self.allow = value
        return self

    def end(self, data: str = "") -> None:
        pass

    end_without_body = end


def make_router(*routes: str) -> Router:
    """A router with routes that are called by what they were registered as: `"GET /a/:b"`."""
    router = Router()
    for name in routes:

        def handler(res: Response, _: Request, name: str = name) -> None:
            cast("Answer", res).name = name

        method, pattern = name.split(" ", 1)
        router.add(method, pattern, handler, cancel_on_abort=True)
    return router


def find(router: Router, method: str, path: str) -> Found:
    route, params = router.find(method, path)
    answer = Answer()
    route.handler(cast("Response", answer), cast("Request", None))
    return answer.name or f"{answer.status} {answer.allow}", params


NOT_FOUND: Found = ("404 ", {})
NO_TUNNELS: Found = ("501 ", {})


def not_allowed(allow: str) -> Found:
    return f"405 {allow}", {}


def options(allow: str) -> Found:
    return f"204 {allow}", {}


# Which pattern matches...


@pytest.mark.parametrize(
    ("pattern", "path", "params"),
    [
        ("/", "/", {}),
        ("/a", "/a", {}),
        ("/a/b", "/a/b", {}),
        ("/:id", "/7", {"id": "7"}),
        ("/users/:id", "/users/7", {"id": "7"}),
        ("/users/:id/posts/:post", "/users/7/posts/8", {"id": "7", "post": "8"}),
        ("/:a/:b", "/x/x", {"a": "x", "b": "x"}),
        ("/:a-b_2", "/x", {"a-b_2": "x"}),
        ("/a:b", "/a:b", {}),
        ("/*", "/", {"*": ""}),
        ("/*", "/a", {"*": "a"}),
        ("/*", "/a/b/", {"*": "a/b/"}),
        ("/*", "//", {"*": "/"}),
        ("/*", "/*", {"*": "*"}),
        ("/files/*", "/files/", {"*": ""}),
        ("/files/*", "/files/a.txt", {"*": "a.txt"}),
        ("/files/*", "/files/a/b/c", {"*": "a/b/c"}),
        ("/files/*", "/files//", {"*": "/"}),
        ("/:user/files/*", "/7/files/a/b", {"user": "7", "*": "a/b"}),
        # A trailing slash is an empty segment, and so is one in the middle.
        ("/a/", "/a/", {}),
        ("/a//b", "/a//b", {}),
        ("//", "//", {}),
        # What a segment holds is not looked at before it is decoded.
        ("/a b", "/a%20b", {}),
        ("/café", "/caf%C3%A9", {}),
        ("/café", "/caf%c3%a9", {}),
        ("/a", "/%61", {}),
        ("/:id", "/a%2Fb", {"id": "a/b"}),
        ("/:id", "/a%2fb", {"id": "a/b"}),
        ("/:a/:b", "/a%2Fb/c", {"a": "a/b", "b": "c"}),
        ("/:id", "/%25", {"id": "%"}),
        ("/:id", "/%2525", {"id": "%25"}),
        ("/:id", "/%", {"id": "%"}),
        ("/:id", "/%4", {"id": "%4"}),
        ("/:id", "/%zz", {"id": "%zz"}),
        ("/:id", "/a+b", {"id": "a+b"}),
        ("/:id", "/%00", {"id": "\0"}),
        ("/:id", "/%2A", {"id": "*"}),
        ("/:id", "/%FF", {"id": "\N{REPLACEMENT CHARACTER}"}),
        ("/:id", "/%C3", {"id": "\N{REPLACEMENT CHARACTER}"}),
        ("/:id", "/%C3%A9", {"id": "é"}),
        ("/:id", "/%3Aid", {"id": ":id"}),
        ("/:id", "/..", {"id": ".."}),
        ("/files/*", "/files/a%20b/%C3%A9", {"*": "a b/é"}),
        ("/files/*", "/files/a%2Fb/c", {"*": "a/b/c"}),
        ("/files/*", "/files/../x", {"*": "../x"}),
    ],
)
def test_pattern_matches(pattern: str, path: str, params: dict[str, str]) -> None:
    name = f"GET {pattern}"
    assert find(make_router(name), "GET", path) == (name, params)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/", "//"),
        ("/", "/a"),
        ("/a", "/"),
        ("/a", "/a/"),
        ("/a", "//a"),
        ("/a", "/A"),
        ("/a", "/a/b"),
        ("/a", "/ab"),
        ("/a/", "/a"),
        ("/a/b", "/a"),
        ("/a/b", "/a%2Fb"),
        ("/:id", "/"),
        ("/:id", "//"),
        ("/:id", "/7/"),
        ("/:id", "/7/8"),
        ("/:a/:b", "/7"),
        ("/:a/:b", "/7/"),
        ("/:a/:b", "//7"),
        ("/files/*", "/files"),
        ("/files/*", "/files%2F"),
        ("/files/*", "/file/a"),
        ("/files/*", "/"),
        ("/:user/files/*", "//files/a"),
        ("/a//b", "/a/b"),
        ("/café", "/cafe"),
    ],
)
def test_pattern_does_not_match(pattern: str, path: str) -> None:
    assert find(make_router(f"GET {pattern}"), "GET", path) == NOT_FOUND


# ... and which of those that do is taken...


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/a", ("GET /a", {})),
        ("/b", ("GET /:x", {"x": "b"})),
        ("/", ("GET /*", {"*": ""})),
        ("/b/c", ("GET /*", {"*": "b/c"})),
        # The first segment counts most...
        ("/a/b", ("GET /a/:y", {"y": "b"})),
        ("/c/b", ("GET /:x/b", {"x": "c"})),
        ("/a/b/c", ("GET /a/*", {"*": "b/c"})),
        # ... but one that leads nowhere is taken back.
        ("/d/e", ("GET /d/e", {})),
        ("/d/b", ("GET /:x/b", {"x": "d"})),
        ("/d/b/c", ("GET /:x/b/c", {"x": "d"})),
        ("/d/b/d", ("GET /*", {"*": "d/b/d"})),
        ("/a/", ("GET /a/*", {"*": ""})),
        ("/c/b/d", ("GET /*", {"*": "c/b/d"})),
        ("/a/b/c/d", ("GET /a/*", {"*": "b/c/d"})),
    ],
)
@pytest.mark.parametrize("reverse", [False, True])
def test_the_most_specific_route_is_found(path: str, found: Found, *, reverse: bool) -> None:
    routes = ["/a", "/:x", "/*", "/a/:y", "/:x/b", "/:x/b/c", "/a/*", "/d/e"]
    router = make_router(*(f"GET {route}" for route in (routes[::-1] if reverse else routes)))
    assert find(router, "GET", path) == found


def test_each_route_names_its_own_parameters() -> None:
    router = make_router("GET /:id", "POST /:name", "GET /:user/posts", "GET /:author/books")
    assert find(router, "GET", "/7") == ("GET /:id", {"id": "7"})
    assert find(router, "POST", "/7") == ("POST /:name", {"name": "7"})
    assert find(router, "GET", "/7/posts") == ("GET /:user/posts", {"user": "7"})
    assert find(router, "GET", "/7/books") == ("GET /:author/books", {"author": "7"})


def test_parameters_that_were_taken_back_are_not_seen() -> None:
    router = make_router("GET /:a/:b/c", "GET /:a/*")
    assert find(router, "GET", "/1/2/3") == ("GET /:a/*", {"a": "1", "*": "2/3"})


# ... for which method...


@pytest.mark.parametrize(
    ("routes", "method", "path", "found"),
    [
        (["GET /a"], "HEAD", "/a", ("GET /a", {})),
        (["GET /a", "HEAD /a"], "HEAD", "/a", ("HEAD /a", {})),
        (["HEAD /a", "GET /a"], "GET", "/a", ("GET /a", {})),
        (["GET /a", "* /a"], "HEAD", "/a", ("GET /a", {})),
        (["HEAD /a", "* /a"], "GET", "/a", ("* /a", {})),
        (["GET /a", "* /a"], "GET", "/a", ("GET /a", {})),
        (["GET /a", "* /a"], "POST", "/a", ("* /a", {})),
        (["* /a"], "OPTIONS", "/a", ("* /a", {})),
        (["* /a"], "QUERY", "/a", ("* /a", {})),
        (["* /a"], "*", "/a", ("* /a", {})),
        (["OPTIONS /a", "GET /a"], "OPTIONS", "/a", ("OPTIONS /a", {})),
        # The more specific path comes before the more specific method...
        (["* /a", "GET /:x"], "GET", "/a", ("* /a", {})),
        (["GET /a", "HEAD /:x"], "HEAD", "/a", ("GET /a", {})),
        # ... and a path without a route for the method is taken back.
        (["GET /a", "POST /:x"], "POST", "/a", ("POST /:x", {"x": "a"})),
        (["GET /a", "POST /*"], "POST", "/a", ("POST /*", {"*": "a"})),
        (["GET /a/b", "GET /:x/b", "* /*"], "POST", "/a/b", ("* /*", {"*": "a/b"})),
        # A path that is known under other methods...
        (["GET /a"], "POST", "/a", not_allowed("GET, HEAD, OPTIONS")),
        (["POST /a"], "GET", "/a", not_allowed("OPTIONS, POST")),
        (["POST /a"], "HEAD", "/a", not_allowed("OPTIONS, POST")),
        (["HEAD /a"], "GET", "/a", not_allowed("HEAD, OPTIONS")),
        (["GET /a"], "get", "/a", not_allowed("GET, HEAD, OPTIONS")),
        (["OPTIONS /a"], "GET", "/a", not_allowed("OPTIONS")),
        (["DELETE /a", "PUT /a"], "GET", "/a", not_allowed("DELETE, OPTIONS, PUT")),
        # ... whichever pattern knows it...
        (
            ["PUT /a", "POST /:x", "DELETE /*"],
            "GET",
            "/a",
            not_allowed("DELETE, OPTIONS, POST, PUT"),
        ),
        (["PUT /a", "POST /:x", "DELETE /*"], "GET", "/b", not_allowed("DELETE, OPTIONS, POST")),
        (["PUT /a", "POST /:x", "DELETE /*"], "GET", "/", not_allowed("DELETE, OPTIONS")),
        # ... is told of.
        (["GET /a"], "OPTIONS", "/a", options("GET, HEAD, OPTIONS")),
        (["PUT /a", "POST /:x"], "OPTIONS", "/a", options("OPTIONS, POST, PUT")),
        # An unknown one is not.
        (["GET /a"], "OPTIONS", "/b", NOT_FOUND),
        (["GET /a/b"], "POST", "/a", NOT_FOUND),
        ([], "GET", "/", NOT_FOUND),
        # The whole server.
        ([], "OPTIONS", "*", options("OPTIONS")),
        (["POST /a", "* /b"], "OPTIONS", "*", options("OPTIONS, POST")),
        (["POST /a", "GET /b"], "OPTIONS", "*", options("GET, HEAD, OPTIONS, POST")),
        (["GET /*", "OPTIONS /*", "* /*"], "OPTIONS", "*", options("GET, HEAD, OPTIONS")),
        (["GET /*", "* /*"], "GET", "*", not_allowed("GET, HEAD, OPTIONS")),
        # The path of a CONNECT is an authority.
        (["CONNECT /:to"], "CONNECT", "h:443", ("CONNECT /:to", {"to": "h:443"})),
        (["CONNECT /:to"], "CONNECT", "[::1]:443", ("CONNECT /:to", {"to": "[::1]:443"})),
        (["CONNECT /h:443"], "CONNECT", "h:443", ("CONNECT /h:443", {})),
        (["CONNECT /h:443"], "CONNECT", "h:80", NOT_FOUND),
        # No other route can promise a tunnel to it.
        ([], "CONNECT", "h:443", NO_TUNNELS),
        (["GET /:to"], "CONNECT", "h:443", NO_TUNNELS),
        (["* /*"], "CONNECT", "h:443", NO_TUNNELS),
        (["CONNECT /h:443", "* /*"], "CONNECT", "h:443", ("CONNECT /h:443", {})),
        (["CONNECT /h:443", "GET /:to", "* /*"], "CONNECT", "h:80", NOT_FOUND),
    ],
)
def test_methods(routes: list[str], method: str, path: str, found: Found) -> None:
    assert find(make_router(*routes), method, path) == found


# ... and the same by brute force.


def match(pattern: str, path: str) -> tuple[tuple[int, ...], dict[str, str]] | None:
    """The parameters, and what sorts before the same of all less specific patterns."""
    segments = [unquote(segment) for segment in path[1:].split("/")]
    ranks: list[int] = []
    params: dict[str, str] = {}
    parts = pattern[1:].split("/")
    for index, part in enumerate(parts):
        if part == "*" and index < len(segments):
            return (*ranks, 2), params | {"*": "/".join(segments[index:])}
        if index == len(segments):
            return None
        if part.startswith(":") and segments[index]:
            ranks.append(1)
            params[part[1:]] = segments[index]
        elif part == segments[index]:
            ranks.append(0)
        else:
            return None
    return (tuple(ranks), params) if len(parts) == len(segments) else None


def find_by_force(routes: Sequence[str], method: str, path: str) -> Found:
    matches = []
    for name in routes:
        route_method, pattern = name.split(" ", 1)
        if (found := match(pattern, path)) is not None:
            ranks, params = found
            matches.append((ranks, route_method, name, params))
    for ranks in sorted({ranks for ranks, *_ in matches}):
        for wanted in (method, "GET" if method == "HEAD" else method, ANY):
            for other, route_method, name, params in matches:
                if (other, route_method) == (ranks, wanted):
                    return name, params
    known = {route_method for _, route_method, *_ in matches}
    allow = ", ".join(sorted(known | {"OPTIONS"} | ({"HEAD"} if "GET" in known else set())))
    if not known:
        return NOT_FOUND
    return options(allow) if method == "OPTIONS" else not_allowed(allow)


a_segment = st.sampled_from(["a", "b", "", "é", "%", "a b"])
a_part = a_segment | st.sampled_from([":p", ":q", ":r"])
a_pattern = st.builds(
    lambda parts, tail: "/" + "/".join([*parts, *tail]),
    st.lists(a_part, max_size=3),
    st.sampled_from([[], [], ["*"]]),
)
a_method = st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", ANY])


def shape(name: str) -> tuple[str, ...]:
    """What must differ between two routes."""
    method, pattern = name.split(" ", 1)
    return (method, *(":" if part.startswith(":") else part for part in pattern.split("/")))


def has_different_names(name: str) -> bool:
    names = [part for part in name.split("/") if part.startswith(":")]
    return len(set(names)) == len(names)


some_routes = st.lists(
    st.builds("{} {}".format, a_method, a_pattern).filter(has_different_names),
    max_size=12,
    unique_by=shape,
)
a_path = st.lists(
    a_segment.map(lambda segment: quote(segment, safe="")) | st.sampled_from(["%61", "+", "c"]),
    min_size=1,
    max_size=4,
).map(lambda segments: "/" + "/".join(segments))


@settings(deadline=None)
@given(some_routes, a_method.filter(lambda method: method != ANY) | st.just("PUT"), a_path)
def test_routing_against_brute_force(routes: list[str], method: str, path: str) -> None:
    assert find(make_router(*routes), method, path) == find_by_force(routes, method, path)


# Registering...


@pytest.mark.parametrize(
    ("routes", "pattern", "message"),
    [
        ([], "", "a path pattern starts with '/', unlike ''"),
        ([], "a", "a path pattern starts with '/', unlike 'a'"),
        ([], "*", "a path pattern starts with '/', unlike '*'"),
        ([], ":id", "a path pattern starts with '/', unlike ':id'"),
        ([], "/*/", "'*' matches a tail, so it must be the last segment, unlike in '/*/'"),
        ([], "/*/a", "'*' matches a tail, so it must be the last segment, unlike in '/*/a'"),
        *[
            (
                [],
                pattern,
                f"'*' matches a tail, so it must be the last segment, unlike in '{pattern}'",
            )
            for pattern in ("/*/*", "/*x", "/js/*.js", "/x*", "/**", "/:*/*", "/a*/b")
        ],
        ([], "/p%20q", "a path pattern is not percent-encoded: '/p q' also matches '/p%20q'"),
        ([], "/:", "a whole segment is a parameter, and '' can't be its name"),
        ([], "/:/a", "a whole segment is a parameter, and '' can't be its name"),
        ([], "/:a.js", "a whole segment is a parameter, and 'a.js' can't be its name"),
        ([], "/a?b=c", "a path pattern has no query and no fragment, unlike '/a?b=c'"),
        ([], "/a#b", "a path pattern has no query and no fragment, unlike '/a#b'"),
        *[
            ([], pattern, f"a parameter is written as in '/users/:id', unlike in {pattern!r}")
            for pattern in ("/{a}", "/a/<int:b>", "/{a}/b", "/{a}.txt", "/a<b>")
        ],
        ([], "/:a/:a", "the parameters of '/:a/:a' need names that differ"),
        ([], "/:a/b/:a", "the parameters of '/:a/b/:a' need names that differ"),
        (["/"], "/", "'/' has a route for this method already"),
        (["/a"], "/a", "'/a' has a route for this method already"),
        (["/:a"], "/:b", "'/:b' has a route for this method already"),
        (["/:a/b"], "/:c/b", "'/:c/b' has a route for this method already"),
        (["/a/*"], "/a/*", "'/a/*' has a route for this method already"),
    ],
)
@pytest.mark.parametrize("method", ["get", "any"])
def test_registering_fails(routes: list[str], pattern: str, message: str, method: str) -> None:
    def first(res: Response, req: Request) -> None: ...
    def second(res: Response, req: Request) -> None: ...

    app = App()
    register = getattr(app, method)
    for route in routes:
        register(route, first)
    with pytest.raises(ValueError) as error:
        register(pattern, second)
    assert str(error.value) == message
    with pytest.raises(ValueError) as error:
        register(pattern)(second)
    assert str(error.value) == message
    # What failed has left no route.
    found = [app._router.find("GET", path)[0].handler for path in ("/", "/a", "/a/b", "/a/b/a")]
    assert second not in found


def test_limits_are_a_config() -> None:
    with pytest.raises(TypeError, match="config must be a Config, not "):
        App(config={"stall_timeout": 3})  # type: ignore[arg-type]


def test_registering_what_is_no_handler_fails() -> None:
    app = App()
    with pytest.raises(TypeError) as error:
        app.get("/a", "handler")  # type: ignore[arg-type]
    assert str(error.value) == "the handler of '/a' must be callable, not 'handler'"
    with pytest.raises(TypeError) as error:
        app.get("/a")(7)  # type: ignore[type-var]
    assert str(error.value) == "the handler of '/a' must be callable, not 7"

    async def generate(res: Response, req: Request) -> AsyncIterator[bytes]:
        yield b"hello"

    def generate_at_once(res: Response, req: Request) -> Iterator[bytes]:
        yield b"hello"

    for handler in (generate, generate_at_once):
        with pytest.raises(TypeError, match="the handler of '/a' must not yield"):
            app.get("/a", handler)
    with pytest.raises(TypeError, match="a route needs a path, as in "):
        app.get(generate)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="check must be callable, not 5"):
        app.health(check=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", [*METHODS, "any"])
@pytest.mark.parametrize("decorate", [False, True])
async def test_each_method_registers_for_itself(method: str, *, decorate: bool) -> None:
    served: list[tuple[str, str]] = []

    def handler(res: Response, req: Request) -> None:
        served.append((req.method, req.params["name"].removesuffix(":1")))
        res.write_status(403).end_without_body()

    app = App()
    register = getattr(app, method.lower())
    if decorate:
        assert register("/:name")(handler) is handler
    else:
        register("/:name", handler)
    for other in METHODS:
        async with open_client(app) as client:
            target = "connect:1" if other == "CONNECT" else f"/{other.lower()}"
            response = await client.request(other, target)
            await response.read()
    also = {
        "GET": ("GET", "HEAD"),
        "any": tuple(other for other in METHODS if other != "CONNECT"),
    }.get(method, (method,))
    assert served == [(other, other.lower()) for other in also]


def test_handlers_of_all_kinds_are_taken() -> None:
    class Page:
        def show(self, res: Response, req: Request) -> None: ...
        def __call__(self, res: Response, req: Request) -> None: ...

    async def handler(res: Response, req: Request) -> None: ...

    page = Page()
    app = App()
    app.get("/1", page.show)
    app.get("/2", page)
    app.get("/3", handler)
    found = [app._router.find("GET", path)[0].handler for path in ("/1", "/2", "/3")]
    assert found == [page.show, page, handler]


@pytest.mark.parametrize(
    ("of_app", "of_route", "cancelled"),
    [
        (True, None, True),
        (True, True, True),
        (True, False, False),
        (False, None, False),
        (False, True, True),
        (False, False, False),
    ],
)
async def test_cancel_on_abort(
    autojump_clock: trio.testing.MockClock,
    *,
    of_app: bool,
    of_route: bool | None,
    cancelled: bool,
) -> None:
    ends: list[str] = []
    app = App(cancel_on_abort=of_app)

    @app.get("/", cancel_on_abort=of_route)
    async def handler(res: Response, req: Request) -> None:
        try:
            await trio.sleep(10)
        except trio.Cancelled:
            ends.append("cancelled")
            raise
        ends.append("returned")

    async with open_client(app) as client:
        await client.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.sleep(1)
        client.vanish()
        await trio.sleep(20)
    assert ends == ["cancelled" if cancelled else "returned"]


# What is sent...


def without_date(data: bytes) -> bytes:
    return b"".join(line for line in data.splitlines(True) if not line.startswith(b"Date: "))


ALLOW_A = "Allow: GET, HEAD, OPTIONS, PUT"
PLAIN = "Content-Type: text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("method", "target", "head", "body"),
    [
        ("GET", "/b", ["404 Not Found", PLAIN, "Content-Length: 10"], "Not Found\n"),
        ("HEAD", "/b", ["404 Not Found", PLAIN, "Content-Length: 10"], ""),
        (
            "POST",
            "/a?/b/c",
            ["405 Method Not Allowed", ALLOW_A, PLAIN, "Content-Length: 19"],
            "Method Not Allowed\n",
        ),
        (
            "HEAD",
            "/b/c",
            ["405 Method Not Allowed", "Allow: OPTIONS, POST", PLAIN, "Content-Length: 19"],
            "",
        ),
        ("OPTIONS", "/a", ["204 No Content", ALLOW_A], ""),
        ("OPTIONS", "*", ["204 No Content", "Allow: GET, HEAD, OPTIONS, POST, PUT"], ""),
    ],
)
async def test_built_in_answers(method: str, target: str, head: list[str], body: str) -> None:
    def handler(res: Response, req: Request) -> None:
        raise AssertionError

    app = App()
    app.get("/a", handler)
    app.put("/a", handler)
    app.post("/b/c", handler)
    async with open_client(app) as client:
        for _ in range(2):  # the connection lives on
            await client.send_all(f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await trio.testing.wait_all_tasks_blocked()
            received = without_date(await client.receive_some())
            assert received == "\r\n".join([f"HTTP/1.1 {head[0]}", *head[1:], "", body]).encode()
