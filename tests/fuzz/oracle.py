"""What must hold of the bytes that a server has sent, whatever it was sent."""

from __future__ import annotations

from functools import cache
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

import h11

from tests.fuzz.cases import FindingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.fuzz.app import Exchange
    from tests.fuzz.cases import Case

# Of these no handler of the app makes a 500, nor does a client.
_REFUSALS = {400, 404, 405, 408, 413, 414, 417, 422, 431, 501, 503, 505}
_OF_FILES = {206, 304, 412, 416}


class Answer(NamedTuple):
    """One response on the wire.

    Attributes:
      is_whole: Whether its end is there.
      is_framed: Whether that can be told from the end of the stream.
      closes: Whether it says that the connection ends with it.
    """

    status: int
    body: bytes
    is_whole: bool
    is_framed: bool
    closes: bool


def check_wire(case: Case, exchanges: Sequence[Exchange], wire: bytes, *, lost: bool) -> list[int]:
    """Check all that was sent on one connection.

    Args:
      case: What was done to the server.
      exchanges: The requests that it has taken.
      wire: What it has sent.
      lost: Whether some of that may have been lost on the way.

    Returns:
      The statuses of the answers.

    Raises:
      FindingError: It is not what it must be.
    """
    statuses: list[int] = []
    closes = False
    rest = wire
    for exchange in exchanges:
        if closes:
            raise FindingError(f"{_name(exchange)} was served after an answer that closes")
        is_cut_short = lost or exchange.response is None or exchange.response.aborted
        if not rest:
            if not is_cut_short:
                raise FindingError(f"{_name(exchange)} has no answer")
            return statuses
        answer, rest = read_answer(rest, exchange.method)
        if answer is None:  # not even its head is there
            if not is_cut_short:
                raise FindingError(f"{_name(exchange)} has a cut head")
            return statuses
        if not (answer.is_whole or is_cut_short):
            raise FindingError(f"{_name(exchange)} has a cut body: {answer}")
        _check_answer(exchange, answer, is_cut_short=is_cut_short)
        statuses.append(answer.status)
        if not answer.is_whole:
            return statuses
        closes = answer.closes
    if rest:
        if closes:
            raise FindingError(f"after an answer that closes: {rest[:200]!r}")
        statuses.append(_check_refusal(case, rest, lost=lost))
    elif case.is_sound:
        _check_sound(case, exchanges, statuses, closes=closes)
    return statuses


def read_answer(data: bytes, method: str) -> tuple[Answer | None, bytes]:
    """The first answer in `data`, as h11 reads it, and what follows; `None` for a cut head.

    Raises:
      FindingError: It is no response.
    """
    client = h11.Connection(h11.CLIENT)
    try:
        for sent in _request(method):
            client.send(sent)
        client.receive_data(data)
        while isinstance(event := client.next_event(), h11.InformationalResponse):
            pass
        if event is h11.NEED_DATA:
            return None, b""
        assert isinstance(event, h11.Response), event
        head = event
        body = bytearray()
        while isinstance(event := client.next_event(), h11.Data):
            body += event.data
    except (h11.ProtocolError, AssertionError) as exc:
        raise FindingError(f"no response: {exc!r}: {data[:300]!r}") from exc
    rest = client.trailing_data[0]
    if event is h11.PAUSED:  # a tunnel
        return Answer(head.status_code, rest, is_whole=True, is_framed=False, closes=True), b""
    is_whole = isinstance(event, h11.EndOfMessage)
    if event is h11.NEED_DATA:
        rest = b""
        client.receive_data(b"")
        try:
            is_whole = isinstance(client.next_event(), h11.EndOfMessage)
        except h11.RemoteProtocolError:
            is_whole = False
    fields: Iterable[tuple[bytes, bytes]] = head.headers
    closes = (b"connection", b"close") in fields
    is_framed = event is not h11.NEED_DATA or not is_whole
    return Answer(head.status_code, bytes(body), is_whole, is_framed, closes), rest


@cache
def _request(method: str) -> tuple[h11.Event, h11.Event]:
    head = h11.Request(method=method, target="/", headers=[("Host", "x")])
    return head, h11.EndOfMessage()


def _check_answer(exchange: Exchange, answer: Answer, *, is_cut_short: bool) -> None:
    status, name = answer.status, _name(exchange)
    if status == 204 and exchange.method == "OPTIONS":
        return
    if status in _REFUSALS:
        return
    if status in _OF_FILES and "/file" in exchange.path:
        return
    if status != 200 or exchange.expected is None:
        raise FindingError(f"{name} was answered with {status}")
    expected = b"" if exchange.method == "HEAD" else bytes(exchange.expected)
    # Without a framing, the end of the stream is that of the body.
    if not answer.is_whole or (is_cut_short and not answer.is_framed):
        expected = expected[: len(answer.body)]
    if answer.body != expected:
        at = next(i for i, (x, y) in enumerate(zip_longest(answer.body, expected)) if x != y)
        raise FindingError(
            f"{name}: {len(answer.body)} bytes, not {len(expected)}, and wrong from {at} on: "
            f"{answer.body[at : at + 20]!r}, not {expected[at : at + 20]!r}"
        )


def _check_refusal(case: Case, rest: bytes, *, lost: bool) -> int:
    """Check the answer to what is no request: it is the last one, and says so."""
    answer, after = read_answer(rest, "GET")
    if answer is None:
        if not lost:
            raise FindingError(f"a cut head: {rest[:200]!r}")
        return 0
    if answer.status not in _REFUSALS or not answer.closes:
        raise FindingError(f"a refusal that does not close: {rest[:200]!r}")
    # If HEAD was refused, there is a length and no body.
    if not (answer.is_whole or lost or (b"HEAD" in case.data and not answer.body)):
        raise FindingError(f"a cut refusal: {rest[:200]!r}")
    if after:
        raise FindingError(f"after a refusal: {after[:200]!r}")
    if case.is_sound:
        raise FindingError(f"sound requests were refused with {answer.status}")
    return answer.status


def _check_sound(
    case: Case, exchanges: Sequence[Exchange], statuses: Sequence[int], *, closes: bool
) -> None:
    assert case.bodies is not None
    if len(statuses) < len(case.bodies) and not closes:
        raise FindingError(f"{len(statuses)} of {len(case.bodies)} sound requests were answered")
    for exchange, status, body in zip(exchanges, statuses, case.bodies, strict=False):
        is_echo = exchange.path == "/echo"
        if is_echo and exchange.expected != body:
            raise FindingError(f"{_name(exchange)} was given another body")
        if status >= 400 and exchange.path not in ("/refuse", "/nowhere"):
            raise FindingError(f"{_name(exchange)}, which is sound, was answered with {status}")


def _name(exchange: Exchange) -> str:
    return f"{exchange.method} {exchange.path[:80]}"
