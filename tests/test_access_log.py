"""The access log: what is in a record, and the two kinds of lines."""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio

from tests.harness import get, open_peer
from trio_stream import App, Request, Response
from trio_stream._access_log import Outcome, combined_line, json_line
from trio_stream._access_log import logger as access_logger
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from tests.harness import Kind

CREATED = 1_700_000_000.0625
OUTCOME: Outcome = {
    "client": "127.0.0.1",
    "method": "GET",
    "target": "/a?b=c",
    "http_version": "1.1",
    "status": 200,
    "body_bytes": 1234,
    "duration": 0.25,
    "parks": 3,
    "ended": "done",
    "request_id": "5f1d3c9a07be-1",
    "referer": "http://x/",
    "user_agent": "curl/7.88",
}


def outcome_of(record: logging.LogRecord) -> dict[str, Any]:
    return {name: vars(record)[name] for name in OUTCOME}


def changed(**changes: object) -> Outcome:
    return cast("Outcome", {**OUTCOME, **changes})


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """With the access log."""
    caplog.set_level(logging.INFO, access_logger.name)
    return caplog


# Records...


async def test_a_record_tells_all_about_a_response(
    log: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    ids = []
    app = App()

    @app.get("/slow")
    async def slow(res: Response, req: Request) -> None:
        ids.append(req.id)
        await trio.sleep(2)
        await res.send_chunk(bytes(2500), 2500)

    async with open_peer(app, "memory", window=1000) as peer:
        for _ in range(2):
            await peer.send_all(
                get("/slow?now", "User-Agent: curl/7.88", "X-Trace-1: no", "referer: http://x/")
            )
            await trio.sleep(4)
            await peer.receive_head()
            await peer.receive_exactly(2500)
    first, second = log.records
    outcome = outcome_of(first)
    assert outcome == changed(
        client=None,
        target="/slow?now",
        body_bytes=2500,
        duration=pytest.approx(4),
        parks=outcome["parks"],
        request_id=ids[0],
    )
    assert outcome["parks"] > 0
    assert re.fullmatch("[0-9a-f]{12}-1", ids[0])
    assert outcome_of(second)["request_id"] == ids[1] == ids[0][:-1] + "2"
    assert first.getMessage() == f"None: GET /slow?now: 200, done (request {ids[0]})"


async def test_nothing_is_logged_by_default(caplog: pytest.LogCaptureFixture) -> None:
    async with open_client(App()) as client:
        assert (await client.get("/")).status_code == 404
    assert caplog.records == []


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"rubbish\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/3.7\r\nHost: x\r\n\r\n", 505),
        (b"GET x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (get("/", "X: " + 20_000 * "x"), 431),
    ],
)
async def test_refused_heads_are_logged(
    log: pytest.LogCaptureFixture, data: bytes, status: int
) -> None:
    async with open_peer(App(), "memory") as peer:
        await peer.send_all(data)
        await peer.send_eof()
        await peer.receive_until_eof()
        assert peer.stats.responses == {status: 1}
    (record,) = log.records
    outcome = outcome_of(record)
    assert (outcome["status"], outcome["ended"]) == (status, "done")
    assert outcome["method"] in (None, "GET")  # as far as it could be read
    line = combined_line(record.created, cast("Outcome", outcome))
    assert f" {status} " in line
    assert line.endswith("-1")


async def test_a_body_that_was_dropped_has_no_bytes(log: pytest.LogCaptureFixture) -> None:
    app = App()
    app.get("/", lambda res, _: res.end("hello"))
    async with open_client(app) as client:
        for method in ("GET", "HEAD"):
            await (await client.request(method, "/")).read()
        assert client.stats.body_bytes_sent == 5
    assert [vars(record)["body_bytes"] for record in log.records] == [5, 0]


async def test_a_record_tells_how_it_ended(log: pytest.LogCaptureFixture, kind: Kind) -> None:
    app = App()

    @app.get("/asleep")
    async def asleep(_res: Response, _: Request) -> None:
        await trio.sleep_forever()

    @app.get("/part")
    async def part(res: Response, _: Request) -> None:
        await res.send_chunk(b"half", 8)

    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/asleep"))
        while not peer.stats.active_responses:
            await trio.sleep(0)
        await peer.reset()
        while peer.stats.active_responses:
            await trio.sleep(0)
    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/part"))
        await peer.receive_until_eof()
    records = [record for record in log.records if record.name == access_logger.name]
    told = [(vars(r)["status"], vars(r)["body_bytes"], vars(r)["ended"]) for r in records]
    assert told == [(None, 0, "client_closed"), (200, 4, "incomplete")]
    expected = None if kind == "memory" else "127.0.0.1"
    assert {vars(record)["client"] for record in records} == {expected}


@pytest.mark.parametrize(
    ("client", "name"),
    [
        (None, None),
        ("", "unix:"),
        ("/run/x", "/run/x"),
        (b"\0x", "@x"),
        (b"\0x\n\xff", "@x\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"),
        (("::1", 80, 0, 0), "::1"),
    ],
)
async def test_clients_have_names(
    log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    client: object,
    name: str | None,
) -> None:
    monkeypatch.setattr(Request, "client", client)
    async with open_client(App()) as it:
        await it.get("/")
    (record,) = log.records
    assert vars(record)["client"] == name


# Lines...


def test_a_combined_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.fullmatch(
        r"127\.0\.0\.1 - - \[1[45]/Nov/2023:\d\d:\d\d:20 [+-]\d{4}\] "
        r'"GET /a\?b=c HTTP/1\.1" 200 1234 "http://x/" "curl/7\.88" '
        r"0\.250000 3 done 5f1d3c9a07be-1",
        combined_line(CREATED, OUTCOME),
    )


def test_a_combined_line_about_hardly_anything() -> None:
    nothing = dict.fromkeys(("client", "method", "target", "status", "referer", "user_agent"))
    line = combined_line(CREATED, changed(**nothing))
    assert line.startswith("- - - [")
    assert line.partition("] ")[2].startswith('"-" 000 1234 "-" "-" 0.25')


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ('a" 200 "', r"a\x22 200 \x22"),
        ("\\x22", r"\x5Cx22"),
        ("\r\n\0\x1b[31m\x7f", r"\x0D\x0A\x00\x1B[31m\x7F"),
        ("caf\xe9\x85", r"caf\xE9\x85"),
        ("\u2028", r"\x3F"),
    ],
)
@pytest.mark.parametrize("fact", ["target", "referer", "user_agent", "client"])
def test_no_client_can_forge_a_line(fact: str, text: str, escaped: str) -> None:
    outcome = changed(**{fact: text})
    line = combined_line(CREATED, outcome)
    if fact == "client":
        escaped = escaped.replace(" ", r"\x20")
    assert escaped in line
    assert line.isascii()
    assert line.isprintable()
    assert line.count('"') == 6
    value = json.loads(json_line(CREATED, outcome))
    assert value[fact] == text


def test_a_json_line() -> None:
    line = json_line(CREATED, changed(user_agent="caf\xe9\n"))
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.062Z",
        **OUTCOME,
        "user_agent": "caf\xe9\n",
    }
