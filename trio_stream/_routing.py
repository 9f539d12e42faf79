"""From a method and a path to a handler.

The routes are a tree of path segments, so finding one costs the same however many there are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from inspect import isasyncgenfunction, isgeneratorfunction
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import unquote

from ._response_head import status_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ._request import Request
    from ._response import Response

Handler: TypeAlias = "Callable[[Response, Request], object]"

_FOREIGN_PARAMETER = re.compile(r"\{[^/{}]*\}|<[^/<>]*>")  # of other frameworks
_NAME = re.compile(r"\w[\w-]*", re.ASCII)

ANY = "*"  # no method's name: RFC 9110 section 5.6.2 allows the character, nobody registers it


@dataclass(frozen=True, slots=True)
class Route:
    """A handler and how it is served.

    Attributes:
      handler: Called as `handler(res, req)`.
      names: What the values matched by the pattern are called, from left to right.
      cancel_on_abort: Whether an abort cancels the handler.
    """

    handler: Handler
    names: tuple[str, ...]
    cancel_on_abort: bool


@dataclass(slots=True)
class _Node:
    literals: dict[str, _Node] = field(default_factory=dict)
    parameter: _Node | None = None
    tail: dict[str, Route] = field(default_factory=dict)
    routes: dict[str, Route] = field(default_factory=dict)


class Router:
    """Finds the best route: a literal segment beats a parameter, a parameter beats a wildcard."""

    def __init__(self) -> None:
        self._root = _Node()
        self._literals: dict[tuple[str, str], Route] = {}  # also in the tree
        self._methods: set[str] = set()

    def add(self, method: str, pattern: str, handler: Handler, *, cancel_on_abort: bool) -> None:
        """Register `handler`.

        Args:
          method: Upper case, or `ANY`.
          pattern: `/a/b`, with parameters `/users/:id`, with a tail `/files/*`.
          handler: Called as `handler(res, req)`.
          cancel_on_abort: Whether an abort cancels the handler.

        Raises:
          ValueError: The pattern is malformed, or has a route for this method.
          TypeError: The handler can't be called, or is a generator.
        """
        if not callable(handler):
            raise TypeError(f"the handler of {pattern!r} must be callable, not {handler!r}")
        if isasyncgenfunction(handler) or isgeneratorfunction(handler):
            raise TypeError(f"the handler of {pattern!r} must not yield; it can `await send_chunk`")
        if not pattern.startswith("/"):
            raise ValueError(f"a path pattern starts with '/', unlike {pattern!r}")
        if "?" in pattern or "#" in pattern:
            raise ValueError(f"a path pattern has no query and no fragment, unlike {pattern!r}")
        if _FOREIGN_PARAMETER.search(pattern):
            raise ValueError(f"a parameter is written as in '/users/:id', unlike in {pattern!r}")
        *segments, last = pattern.split("/")[1:]
        if any("*" in segment for segment in segments) or ("*" in last and last != "*"):
            raise ValueError(
                f"'*' matches a tail, so it must be the last segment, unlike in {pattern!r}"
            )
        if (decoded := unquote(pattern)) != pattern:
            raise ValueError(
                f"a path pattern is not percent-encoded: {decoded!r} also matches {pattern!r}"
            )
        node = self._root
        names: list[str] = []
        for segment in segments if last == "*" else [*segments, last]:
            if segment.startswith(":"):
                names.append(segment[1:])
                node.parameter = node = node.parameter or _Node()
            else:
                node = node.literals.setdefault(segment, _Node())
        routes = node.tail if last == "*" else node.routes
        for name in names:
            if not _NAME.fullmatch(name):
                raise ValueError(f"a whole segment is a parameter, and {name!r} can't be its name")
        if len(set(names)) < len(names):
            raise ValueError(f"the parameters of {pattern!r} need names that differ")
        if method in routes:
            raise ValueError(f"{pattern!r} has a route for this method already")
        if last == "*":
            names.append("*")
        self._methods.add(method)
        routes[method] = route = Route(handler, tuple(names), cancel_on_abort)
        if not names and "%" not in pattern:
            self._literals[method, pattern] = route

    def find(self, method: str, raw_path: str) -> tuple[Route, dict[str, str]]:
        """The route that answers, and its parameters, percent-decoded.

        There always is one: built-in routes answer OPTIONS, 404, 405 and 501.
        """
        if (literal := self._literals.get((method, raw_path))) is not None:
            return literal, {}
        if raw_path == "*":  # the whole server: RFC 9110 section 9.3.7
            return _other_methods(method, self._methods), {}
        segments = raw_path.removeprefix("/").split("/")
        if "%" in raw_path:
            segments = [unquote(segment) for segment in segments]
        known: set[str] = set()
        for routes, values in _matches(self._root, segments, 0, ()):
            route = routes.get(method) or (routes.get("GET") if method == "HEAD" else None)
            if route is None and method != "CONNECT":  # a 2xx would promise a tunnel
                route = routes.get(ANY)
            if route is not None:
                return route, dict(zip(route.names, values, strict=True))
            known.update(routes)
        if method == "CONNECT":
            return (_NOT_FOUND if method in self._methods else _NOT_IMPLEMENTED), {}
        return (_other_methods(method, known) if known else _NOT_FOUND), {}


def _matches(
    node: _Node, segments: list[str], index: int, values: tuple[str, ...]
) -> Iterator[tuple[dict[str, Route], tuple[str, ...]]]:
    """All that matches the segments from `index` on, the most specific first."""
    if index == len(segments):
        yield node.routes, values
        return
    segment = segments[index]
    if (child := node.literals.get(segment)) is not None:
        yield from _matches(child, segments, index + 1, values)
    if node.parameter is not None and segment:
        yield from _matches(node.parameter, segments, index + 1, (*values, segment))
    if node.tail:
        yield node.tail, (*values, "/".join(segments[index:]))


def answer_status(res: Response, status: int) -> None:
    """Give a short plain-text answer that only says what `status` says."""
    res.write_status(status).write_header("Content-Type", "text/plain; charset=utf-8")
    res.end(status_text(status))


def _refusal(status: int) -> Route:
    return Route(lambda res, _: answer_status(res, status), (), cancel_on_abort=True)


_NOT_FOUND = _refusal(404)
_NOT_IMPLEMENTED = _refusal(501)


def _other_methods(method: str, known: set[str]) -> Route:
    """The answer where there are routes for `known` methods, but none for `method`."""
    # RFC 9110 sections 9.3.7 and 15.5.6.
    implied = {"HEAD"} if "GET" in known else set()
    allow = ", ".join(sorted((known - {ANY}) | implied | {"OPTIONS"}))

    def tell_allowed(res: Response, _: Request) -> None:
        res.write_header("Allow", allow)
        if method == "OPTIONS":
            res.write_status(204).end_without_body()
        else:
            answer_status(res, 405)

    return Route(tell_allowed, (), cancel_on_abort=True)
