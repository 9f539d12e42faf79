"""The same requests for a file, answered by nginx: what differs, who is right, and why.

Skipped where it is not installed, unless TRIO_STREAM_ALL_CLIENTS is set, as CI does.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import h11
import trio

from tests.files import Answered, ask, make_file, sent_parts
from tests.harness import get, pattern
from tests.preconditions import MODIFIED, SIZE, Asked, all_asked
from tests.proxies import needs, nginx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


class Difference(NamedTuple):
    """Where nginx answers otherwise.

    Attributes:
      applies: To which requests. With no other reason for a difference, they do differ.
      why: Ours is right by what RFC 9110 says there, or both are.
    """

    applies: Callable[[Asked], bool]
    why: str


def names_range(asked: Asked) -> bool:
    """Whether `Range` is looked at, by nginx for every method."""
    return asked.if_range in ("none", "match", "same date")


DIFFERENCES = {
    "If-Unmodified-Since counts beside If-Match": Difference(
        lambda asked: asked.if_match != "none" and asked.if_unmodified_since == "earlier",
        "13.1.4: it MUST be ignored then, as If-Match is more exact. nginx says 412.",
    ),
    "what is no date in If-Unmodified-Since was long ago": Difference(
        lambda asked: asked.if_unmodified_since == "invalid",
        "13.1.4: it MUST be ignored. nginx says 412.",
    ),
    "If-Modified-Since counts beside If-None-Match": Difference(
        lambda asked: asked.if_none_match != "none" and asked.if_modified_since != "none",
        "13.1.3: it MUST be ignored then. nginx says 304 only if both have it so.",
    ),
    "If-Modified-Since must be the very date": Difference(
        lambda asked: asked.if_none_match == "none" and asked.if_modified_since == "later",
        "13.1.3: not modified since, or then, is 304. nginx takes another date for one of a "
        "version that was put back, which is safe (`if_modified_since exact`, its default).",
    ),
    "HEAD has ranges": Difference(
        lambda asked: asked.method == "HEAD" and asked.range != "none" and names_range(asked),
        "14.2: a server MUST ignore Range with any method but GET. nginx says 206 or 416.",
    ),
    "a range that means nothing can't be satisfied": Difference(
        lambda asked: asked.range in ("malformed", "reversed") and names_range(asked),
        "14.2: both may be: it MAY be ignored or rejected. nginx says 416.",
    ),
    "parts are not joined": Difference(
        lambda asked: asked.range in ("overlapping", "adjacent") and names_range(asked),
        "15.3.7.2: both may be: they MAY be coalesced. nginx sends two.",
    ),
    "there are never too many parts": Difference(
        lambda asked: asked.range == "too many" and names_range(asked),
        "14.2 and 17.15: both may be. nginx has a limit (`max_ranges`), but none by default.",
    ),
}


async def ask_peer(path: str, headers: Sequence[tuple[str, str]], *, method: str) -> Answered:
    """What a server answers to a request for the file, on a connection of its own."""
    lines = (f"{name}: {value}" for name, value in headers)
    async with await trio.open_unix_socket(path) as stream:
        await stream.send_all(get("/file.bin", *lines, "Connection: close", method=method))
        received = b""
        while data := await stream.receive_some(65536):
            received += data
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/file.bin", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(received)
    head = client.next_event()
    assert isinstance(head, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    fields = {name.decode(): value.decode() for name, value in head.headers.raw_items()}
    return Answered(head.status_code, fields, int(fields.get("Content-Length", 0)), body)


def seen(answered: Answered) -> tuple[object, ...]:
    """What both servers should agree upon: all but the words of a refusal, and boundaries."""
    status, fields, length, body = answered
    has_etag = "ETag" in fields
    content_range = fields.get("Content-Range")
    if fields.get("Content-Type", "").startswith("multipart/") and body:
        # An empty line before the first boundary is none of it: RFC 2046 section 5.1.1.
        whole = answered._replace(body=body.removeprefix(b"\r\n"))
        return status, has_etag, *sent_parts(whole)
    if status in (412, 416):
        return status, has_etag, content_range
    return status, has_etag, content_range, length, body


def requests() -> Iterator[Asked]:
    """A small part of all, in which any few values come together."""
    yield from itertools.islice(all_asked(), 0, None, 89)


@needs("nginx")
async def test_nginx_answers_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "www"
    folder.mkdir()
    path = make_file(folder / "file.bin", pattern(SIZE), modified_ns=MODIFIED * 10**9)
    reasons = Counter[str]()
    agreed = 0
    with trio.fail_after(30):
        peer = str(tmp_path / "socket")
        async with nginx(tmp_path, f"root {folder}; server {{ listen unix:{peer}; }}"):
            our_etag = ask(path).fields["ETag"]
            their_etag = (await ask_peer(peer, [], method="GET")).fields["ETag"]
            for asked in requests():
                ours = ask(path, asked.headers(our_etag), method=asked.method)
                theirs = await ask_peer(peer, asked.headers(their_etag), method=asked.method)
                applying = [name for name, each in DIFFERENCES.items() if each.applies(asked)]
                if seen(ours) == seen(theirs):
                    agreed += 1
                    continue
                assert applying, (asked, ours, theirs)
                if len(applying) == 1:
                    reasons[applying[0]] += 1
    assert agreed > 1000
    # None of them has become untrue.
    assert reasons.keys() == DIFFERENCES.keys()
