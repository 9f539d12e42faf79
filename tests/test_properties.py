"""Whatever happens, the wire holds a prefix of the right response, as long as head and offset."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.harness import get, pattern, without_date
from trio_stream import AbortReason, App, Config, Request, Response
from trio_stream.testing import Client, open_client

Way = Literal["send_chunk", "try_end", "callbacks", "end", "mixed"]
Fate = Literal["complete", "vanish", "FIN", "stall", "cancel"]


@dataclass
class Plan:
    """A body, how it is cut, and what the client does.

    Attributes:
      size: Of the body.
      cuts: Where one chunk ends and the next begins.
      pauses: Before which chunks the handler waits for something else.
      way: How the handler sends them.
      window: At first.
      moves: What the client does, in turn: receive so many bytes, then set its window.
      fate: What happens after that.
    """

    size: int
    cuts: list[int]
    pauses: set[int]
    way: Way
    window: int
    moves: list[tuple[int, int]]
    fate: Fate

    def chunks(self) -> list[bytes]:
        edges = [0, *sorted(cut % (self.size + 1) for cut in self.cuts), self.size]
        body = pattern(self.size)
        return [body[start:end] for start, end in itertools.pairwise(edges)]


plans = st.builds(
    Plan,
    size=st.integers(0, 3000),
    cuts=st.lists(st.integers(0, 3000), max_size=8),
    pauses=st.sets(st.integers(0, 8)),
    way=st.sampled_from(Way.__args__),  # type: ignore[attr-defined]
    window=st.integers(0, 3000),
    moves=st.lists(st.tuples(st.integers(1, 800), st.integers(0, 800)), max_size=8),
    fate=st.sampled_from(Fate.__args__),  # type: ignore[attr-defined]
)


async def send(res: Response, plan: Plan) -> None:
    """Send the body the planned way, as far as it goes."""
    if plan.way == "end":
        res.end(pattern(plan.size))
        await res.drain()
        return
    for number, chunk in enumerate(plan.chunks()):
        if number in plan.pauses:
            await trio.sleep(0.1)
        if plan.way == "send_chunk" or (plan.way == "mixed" and number % 2):
            ok, done = await res.send_chunk(chunk, plan.size)
        elif plan.way == "try_end":
            ok, done = await send_by_trying(res, chunk, plan.size)
        else:
            ok, done = await send_by_callbacks(res, chunk, plan.size)
        if not ok or done:
            return


async def send_by_trying(res: Response, chunk: bytes, total_size: int) -> tuple[bool, bool]:
    """Try, park on nothing but time, and try again."""
    start = res.get_write_offset()
    while not any(result := res.try_end(chunk[res.get_write_offset() - start :], total_size)):
        await trio.sleep(1)
    return result


async def send_by_callbacks(res: Response, chunk: bytes, total_size: int) -> tuple[bool, bool]:
    """Try, and again when it is writable; what was accepted is seen in the offset alone."""
    start = res.get_write_offset()
    over = trio.Event()

    def try_again(res: Response, offset: int) -> None:
        if any(res.try_end(chunk[offset - start :], total_size)):
            over.set()

    result = res.try_end(chunk, total_size)
    if any(result):
        return result
    res.on_writable(try_again).on_aborted(lambda _: over.set())
    await over.wait()
    return not res.aborted, res.get_write_offset() == total_size


async def receive_unread(client: Client) -> bytes:
    """All that is on the wire, without making room for more."""
    client.window = 0
    received = b""
    while client.unread:
        received += await client.receive_some()
    return received


@settings(max_examples=300, deadline=None)
@given(plans)
def test_wire_holds_a_prefix_as_long_as_head_and_offset(plan: Plan) -> None:
    trio.run(check_plan, plan, clock=MockClock(autojump_threshold=0))


async def check_plan(plan: Plan) -> None:
    with trio.fail_after(100_000):  # no time at all, but the end of a hang
        await follow_plan(plan)


async def follow_plan(plan: Plan) -> None:
    responses: list[Response] = []
    reasons: list[AbortReason | None] = []
    app = App(config=Config(stall_timeout=1000))

    @app.get("/")
    async def handler(res: Response, _: Request) -> None:
        responses.append(res.on_aborted(lambda res: reasons.append(res.abort_reason)))
        await send(res, plan)

    async with open_client(app, window=plan.window) as client:
        await client.send_all(get("/"))
        await wait_all_tasks_blocked()
        received = bytearray()
        for size, window in plan.moves:
            if client.unread:
                received += await client.receive_some(size)
            client.window = window
            await trio.sleep(2)
        (res,) = responses
        over_before = res.get_write_offset() == plan.size

        if plan.fate == "complete":
            client.window = 1000
            while res.get_write_offset() < plan.size or client.unread:
                received += await client.receive_some()
            await wait_all_tasks_blocked()
        else:
            received += await receive_unread(client)
            offset = res.get_write_offset()
            if plan.fate == "vanish":
                client.vanish()
            elif plan.fate == "FIN":
                client.send_eof()
            elif plan.fate == "stall":
                await trio.sleep(2001)  # the client has just taken some
            elif plan.fate == "cancel":
                res.cancel_scope.cancel()
            await wait_all_tasks_blocked()
            assert res.get_write_offset() == offset
            if plan.fate != "vanish":
                assert client.unread == 0

        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % plan.size
        if b"\r\n\r\n" in received:
            wire = without_date(bytes(received))
            assert wire == head + pattern(plan.size)[: res.get_write_offset()]
        else:
            assert res.get_write_offset() == 0
            assert len(received) < len(head) + 37  # and a date
        if plan.fate == "complete" or (over_before and b"\r\n\r\n" in received):
            assert reasons == []
            assert not res.aborted
            assert res.get_write_offset() == plan.size
        elif plan.fate in ("vanish", "FIN"):
            assert reasons == [AbortReason.CLIENT_CLOSED]
        elif plan.fate == "cancel":
            assert reasons == [AbortReason.CANCELLED]
        elif plan.fate == "stall":
            assert reasons == [AbortReason.STALLED]


@settings(max_examples=150, deadline=None)
@given(
    size=st.integers(1, 600),
    cuts=st.lists(st.integers(0, 600), max_size=6),
    window=st.integers(15, 400),
    reads=st.lists(st.integers(1, 300), max_size=6),
)
def test_cancelled_chunk_can_be_resumed_at_the_offset(
    size: int, cuts: list[int], window: int, reads: list[int]
) -> None:
    plan = Plan(size, cuts, set(), "send_chunk", window, [], "complete")

    async def main() -> None:
        app = App()

        @app.get("/")
        async def handler(res: Response, _: Request) -> None:
            # A progress timeout around each chunk, as often as it takes.
            for chunk in plan.chunks():
                start = res.get_write_offset()
                while (sent := res.get_write_offset() - start) < len(chunk):
                    with trio.move_on_after(1):
                        await res.send_chunk(chunk[sent:], size)

        with trio.fail_after(100_000):
            await resume(app)

    async def resume(app: App) -> None:
        async with open_client(app, window=window) as client:
            await client.send_all(get("/", "Connection: close"))
            received = bytearray()
            for read in reads:
                await trio.sleep(2.5)
                received += await client.receive_some(read)
            while data := await client.receive_some():
                received += data
                await trio.sleep(0.7)
            head, _, body = bytes(received).partition(b"\r\n\r\n")
            assert head
            assert body == pattern(size)

    trio.run(main, clock=MockClock(autojump_threshold=0))
