"""Every byte of a response, over a transport that takes exactly as many as it is told."""

from __future__ import annotations

from collections import Counter
from copy import copy
from typing import TYPE_CHECKING, cast

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.harness import decode, pattern
from trio_stream import Stats
from trio_stream._file import FilePart
from trio_stream._outgoing import FRAME_SIZE, LENT_FRAME_SIZE, Outgoing

if TYPE_CHECKING:
    from trio_stream._file import OpenFile
    from trio_stream._transport import Bytes, Transport

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TAIL = b"0\r\n\r\n"

# The length of a frame and the two line ends around it.
MOST_FRAMING = len(b"4000\r\n\r\n")


class Wire:
    """Takes what it has `room` for.

    Attributes:
      data: What it has taken.
      calls: How often it was asked.
      notified: How often it was to tell that there is room.
      breaks: As soon as it has no room left.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.data = b""
        self.calls = 0
        self.notified = 0
        self.breaks = False

    def notify_soon(self) -> None:
        self.notified += 1

    def send_some(self, *pieces: Bytes) -> int:
        assert 0 < len(pieces) <= 1024
        assert any(pieces)  # or it would be a system call for nothing
        if self.breaks and not self.room:
            raise trio.BrokenResourceError
        taken = b"".join(pieces)[: self.room]
        self.room -= len(taken)
        self.data += taken
        self.calls += 1
        return len(taken)


class Broken:
    def send_some(self, *_pieces: Bytes) -> int:
        raise trio.BrokenResourceError


def outgoing(wire: Wire | Broken, head: bytes = HEAD, *, is_chunked: bool = False) -> Outgoing:
    out = Outgoing(cast("Transport", wire), Stats())
    out.start(head, is_chunked=is_chunked)
    return out


def chunked_body(room: int) -> tuple[Wire, Outgoing]:
    """A response whose head has gone, and is not in the `data` of the wire."""
    wire = Wire(len(CHUNKED_HEAD))
    out = outgoing(wire, CHUNKED_HEAD, is_chunked=True)
    out.flush()
    assert (wire.data, out.is_flushed, out.blocked) == (CHUNKED_HEAD, True, False)
    wire.data = b""
    wire.room = room
    return wire, out


def go_on(out: Outgoing, wire: Wire, room: int) -> None:
    """Make room, and tell of it as a transport does."""
    wire.room = room
    out.blocked = False
    out.flush()


def kept(out: Outgoing) -> int:
    """How many bytes of a head or a frame wait there, the queue aside."""
    return sum(map(len, out._unsent))


# A body of known length


@pytest.mark.parametrize("room", range(len(HEAD) + 11))
def test_plain_body_is_taken_to_the_byte(room: int) -> None:
    wire = Wire(room)
    out = outgoing(wire)
    data = pattern(10)
    accepted = max(room - len(HEAD), 0)
    assert out.send(data) == accepted
    assert out.offset == out._stats.body_bytes_sent == accepted
    assert wire.data == (HEAD + data)[:room]
    assert wire.calls == 1
    assert out.blocked == (accepted < 10)
    assert kept(out) == max(len(HEAD) - room, 0)  # nothing of the data
    wire.room = 1000
    if rest := data[accepted:]:
        assert out.send(rest) == len(rest)
    assert wire.data == HEAD + data
    assert (out.offset, out.is_flushed) == (10, True)


def test_plain_body_is_handed_over_as_it_is() -> None:
    pieces: list[Bytes] = []

    class Recorder(Wire):
        def send_some(self, *args: Bytes) -> int:
            pieces.extend(args)
            return super().send_some(*args)

    out = outgoing(Recorder(10_000_000))
    data = bytes(1_000_000)
    out.send(data)
    out.send(data)
    assert [piece is data for piece in pieces] == [False, True, True]


# A chunked body


@pytest.mark.parametrize("is_lent", [False, True])
@pytest.mark.parametrize("room", range(len(CHUNKED_HEAD) + len(b"a\r\n0123456789\r\n") + 1))
def test_frame_is_accepted_with_its_first_byte(room: int, is_lent: bool) -> None:
    wire = Wire(room)
    out = outgoing(wire, CHUNKED_HEAD, is_chunked=True)
    whole = CHUNKED_HEAD + b"a\r\n0123456789\r\n"
    accepted = 10 if room > len(CHUNKED_HEAD) else 0
    assert out.send(b"0123456789", is_lent=is_lent) == accepted
    assert out.offset == out._stats.body_bytes_sent == accepted
    assert wire.data == whole[:room]
    assert wire.calls == 1
    assert out.blocked == (room < len(whole))
    assert out.is_flushed == (room in (len(CHUNKED_HEAD), len(whole)))
    assert kept(out) == (len(whole) if accepted else len(CHUNKED_HEAD)) - room
    go_on(out, wire, 1000)
    if not accepted:
        assert wire.data == CHUNKED_HEAD
        assert out.send(b"0123456789", is_lent=is_lent) == 10
    assert wire.data == whole
    assert (out.offset, out.is_flushed, out.blocked) == (10, True, False)


@pytest.mark.parametrize("room", range(len(b"2\r\nab\r\n3\r\ncde\r\n") + 1))
def test_rest_of_a_frame_goes_before_the_next_one(room: int) -> None:
    wire, out = chunked_body(1)
    assert out.send(b"ab") == 2
    wire.room = room
    accepted = 3 if room > len(b"\r\nab\r\n") else 0
    assert out.send(b"cde") == accepted
    assert out.offset == 2 + accepted
    assert wire.data == b"2\r\nab\r\n3\r\ncde\r\n"[: 1 + room]
    go_on(out, wire, 1000)
    if not accepted:
        assert out.send(b"cde") == 3
    assert wire.data == b"2\r\nab\r\n3\r\ncde\r\n"


def test_large_data_goes_in_frames() -> None:
    wire = Wire(10_000_000)
    out = outgoing(wire, CHUNKED_HEAD, is_chunked=True)
    data = pattern(2 * FRAME_SIZE + 7)
    assert out.send(data) == len(data)
    assert wire.data == b"".join(
        [
            CHUNKED_HEAD,
            b"4000\r\n",
            data[:FRAME_SIZE],
            b"\r\n4000\r\n",
            data[FRAME_SIZE : 2 * FRAME_SIZE],
            b"\r\n7\r\n",
            data[-7:],
            b"\r\n",
        ]
    )
    assert wire.calls == 3


def test_frames_leave_turns_to_others() -> None:
    wire, out = chunked_body(1 << 40)
    data = bytes(5 << 20)
    offset = 0
    for accepted in (2 << 20, 2 << 20, 1 << 20):
        assert out.send(data[offset:], is_lent=True) == accepted
        offset += accepted
        assert out.offset == offset
        assert out.blocked is (offset < len(data))
        assert wire.notified == min(offset >> 21, 2)
        out.blocked = False
        assert out.is_flushed


@pytest.mark.parametrize("frames", [0, 1, 2])
@pytest.mark.parametrize("extra", [0, 1, 5, 6, 7, 16_000, FRAME_SIZE + 6, FRAME_SIZE + 7])
def test_no_more_than_one_frame_is_kept(frames: int, extra: int) -> None:
    room = frames * (FRAME_SIZE + MOST_FRAMING) + extra
    wire, out = chunked_body(room)
    data = pattern(4 * FRAME_SIZE)
    accepted = FRAME_SIZE * (frames + (extra > 0))
    assert out.send(data) == out.offset == accepted
    assert kept(out) == (FRAME_SIZE + MOST_FRAMING - extra if extra else 0)
    go_on(out, wire, 10_000_000)
    assert out.send(data[accepted:]) == len(data) - accepted
    out.finish(TAIL)
    out.flush()
    decoded, rest = decode(CHUNKED_HEAD + wire.data)
    assert (decoded.body, decoded.is_whole, rest) == (data, True, b"")
    assert decoded.chunks == [FRAME_SIZE] * 4


def test_lent_data_is_not_copied_before_it_is_taken_over() -> None:
    wire = Wire(100)
    out = outgoing(wire, CHUNKED_HEAD, is_chunked=True)
    data = bytearray(pattern(100_000))
    assert out.send(data, is_lent=True) == 100_000  # one frame
    with pytest.raises(BufferError):
        data.clear()  # it is still exported
    out.copy_unsent()
    data.clear()
    go_on(out, wire, 1_000_000)
    assert wire.data == CHUNKED_HEAD + b"186a0\r\n" + pattern(100_000) + b"\r\n"


def test_data_that_is_not_lent_can_be_changed_at_once() -> None:
    wire = Wire(60)
    out = outgoing(wire, CHUNKED_HEAD, is_chunked=True)
    data = bytearray(pattern(1000))
    assert out.send(data) == 1000
    data.clear()
    go_on(out, wire, 10_000)
    assert wire.data == CHUNKED_HEAD + b"3e8\r\n" + pattern(1000) + b"\r\n"


# The queue, the tail, and what comes before the head


@pytest.mark.parametrize("room", range(len(b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n") + 1))
def test_queue_then_tail_follow_at_every_position(room: int) -> None:
    wire, out = chunked_body(room)
    assert out.send(b"abc") == (3 if room else 0)
    if not room:
        out.queue(b"abc")
    out.queue(b"def")
    out.finish(TAIL)
    for _ in range(100):
        go_on(out, wire, 1)
        # What was accepted and what is queued are all there is, at every moment.
        assert out.offset + len(out.queued) == 6
        assert out.is_flushed == wire.data.endswith(TAIL)
    frames = b"3\r\nabc\r\n3\r\ndef\r\n" if room else b"6\r\nabcdef\r\n"
    assert wire.data == frames + TAIL


def test_queue_does_not_copy_what_cannot_change() -> None:
    out = outgoing(Wire(0))
    data = pattern(1000)
    out.queue(data)
    assert out.queued is data
    changeable = bytearray(b"abc")
    out.queue(changeable)  # type: ignore[arg-type]  # as a view would be
    changeable.clear()
    assert bytes(out.queued) == data + b"abc"
    out = outgoing(Wire(0))
    changeable = bytearray(b"abc")
    out.queue(memoryview(changeable))
    changeable.clear()
    assert bytes(out.queued) == b"abc"


def test_queue_is_sent_without_loss_while_it_grows() -> None:
    wire = Wire(len(HEAD) + 3)
    out = outgoing(wire)
    out.queue(b"0123456789")
    out.flush()
    assert (out.offset, bytes(out.queued)) == (3, b"3456789")
    out.queue(b"abc")
    go_on(out, wire, 5)
    assert (out.offset, bytes(out.queued)) == (8, b"89abc")
    out.queue(b"")
    out.queue(b"def")
    go_on(out, wire, 100)
    assert (out.offset, out.is_flushed) == (16, True)
    assert wire.data == HEAD + b"0123456789abcdef"


def test_head_and_tail_alone_leave_in_one_piece() -> None:
    wire = Wire(1000)
    out = outgoing(wire, CHUNKED_HEAD, is_chunked=True)
    out.finish(TAIL)
    out.flush()
    assert (wire.data, wire.calls, out.offset) == (CHUNKED_HEAD + TAIL, 1, 0)
    out.flush()
    assert wire.calls == 1


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("room", range(5))
def test_head_follows_what_came_before_it(room: int, is_chunked: bool) -> None:
    wire = Wire(room)
    out = outgoing(wire, b"100 ")
    out.flush()
    assert out.is_flushed == (not out.blocked) == (room >= 4)
    wire.room = 2
    out.start(b"200 ", is_chunked=is_chunked)
    assert out.send(b"a") == 0
    go_on(out, wire, 100)
    assert out.send(b"a") == 1
    assert wire.data == b"100 200 " + (b"1\r\na\r\n" if is_chunked else b"a")
    assert out.offset == 1


@pytest.mark.parametrize("is_chunked", [False, True])
def test_broken_transport_is_told_and_nothing_counts(is_chunked: bool) -> None:
    out = outgoing(Broken(), is_chunked=is_chunked)
    with pytest.raises(trio.BrokenResourceError):
        out.send(b"abc")
    with pytest.raises(trio.BrokenResourceError):
        out.flush()
    out.queue(b"abc")
    with pytest.raises(trio.BrokenResourceError):
        out.flush()
    assert (out.offset, out._stats.body_bytes_sent) == (0, 0)


@pytest.mark.parametrize("how", ["lent", "copied", "queued"])
def test_frames_that_went_before_the_transport_broke_count(how: str) -> None:
    frame = LENT_FRAME_SIZE if how == "lent" else FRAME_SIZE
    body = pattern(4 * frame)
    wire, out = chunked_body(2 * (len(b"%x\r\n\r\n" % frame) + frame))
    wire.breaks = True
    if how == "queued":
        out.queue(body)
    with pytest.raises(trio.BrokenResourceError):
        if how == "queued":
            out.flush()
        else:
            out.send(body, is_lent=how == "lent")
    out.abandon()
    assert out.offset == out._stats.body_bytes_sent == 2 * frame
    assert decode(CHUNKED_HEAD + wire.data)[0].body == body[: 2 * frame]


@pytest.mark.parametrize("tail", [b"", TAIL, b"0\r\nX-Hash: 0123456789\r\n\r\n"])
def test_rest_of_a_frame_does_not_count_if_the_transport_breaks_behind_it(tail: bytes) -> None:
    wire, out = chunked_body(len(b"64\r\n") + 30)
    assert out.send(pattern(100)) == 100
    wire.breaks = True
    out.finish(tail)
    with pytest.raises(trio.BrokenResourceError):
        out.flush()
    out.abandon()
    assert out.offset == 30


# Small chunks, corked


def corked_body(room: int, *, is_chunked: bool = False) -> tuple[Wire, Outgoing]:
    """`ab` and `cde`, held back, of a response whose head has gone."""
    wire = Wire(1000)
    out = outgoing(wire, is_chunked=is_chunked)
    out.flush()
    wire.room, wire.data, wire.calls = room, b"", 0
    out.cork(b"ab")
    out.cork(b"cde")
    assert (wire.calls, out.corked_size, out.is_flushed, out.offset) == (0, 5, False, 5)
    assert out._stats.body_bytes_sent == 0
    return wire, out


@pytest.mark.parametrize("room", range(7))
@pytest.mark.parametrize("what_follows", ["flush", "send"])
def test_corked_chunks_leave_together_and_before_what_follows(room: int, what_follows: str) -> None:
    wire, out = corked_body(room)
    if what_follows == "flush":
        out.flush()
    else:
        assert out.send(b"fg") == max(room - 5, 0)
    assert wire.data == b"abcdefg"[: min(room, 5 if what_follows == "flush" else 7)]
    assert out.offset == max(len(wire.data), 5)
    assert out._stats.body_bytes_sent == len(wire.data)
    is_open = room < 5 or (what_follows == "send" and room < 7)
    assert (out.corked_size > 0, out.blocked) == (room < 5, is_open)
    go_on(out, wire, 1000)
    assert wire.data == b"abcdefg"[: out.offset]
    assert (out.is_flushed, out._stats.body_bytes_sent) == (True, out.offset)


@pytest.mark.parametrize("room", range(len(b"5\r\nabcde\r\n") + 1))
def test_corked_chunks_are_one_frame(room: int) -> None:
    frame = b"5\r\nabcde\r\n"
    wire, out = corked_body(room, is_chunked=True)
    out.flush()
    assert (wire.data, wire.calls) == (frame[:room], 1)
    assert (out.corked_size > 0, out.blocked) == (room == 0, room < len(frame))
    assert out._stats.body_bytes_sent == (5 if room else 0)
    go_on(out, wire, 1000)
    assert (wire.data, out.offset, out.is_flushed) == (frame, 5, True)


@pytest.mark.parametrize("room", range(6))
def test_a_part_of_a_file_waits_for_what_is_corked(room: int) -> None:
    class FileWire(Wire):
        def send_file(self, part: FilePart) -> int:
            return self.send_some(bytes(len(part)))

    wire = FileWire(1000)
    out = outgoing(wire)
    out.flush()
    wire.room, wire.data = room, b""
    out.cork(b"abcde")
    part = FilePart(cast("OpenFile", None), 0, 2)
    assert out.send(part) == 0
    assert (wire.data, out.blocked) == (b"abcde"[:room], True)
    go_on(out, wire, 1000)
    assert out.send(part) == 2
    assert (wire.data, out.offset) == (b"abcde\0\0", 7)


def test_so_much_is_corked_and_no_more() -> None:
    wire = Wire(10_000_000)
    out = outgoing(wire)
    out.flush()
    for size, count in ((64 * 1024, 4), (1000, 263), (1, 512)):
        calls = wire.calls
        for _ in range(count - 1):
            out.cork(bytes(size))
        assert wire.calls == calls
        out.cork(bytes(size))
        assert (wire.calls, out.is_flushed) == (calls + 1, True)


@pytest.mark.parametrize("room", range(6))
@pytest.mark.parametrize("was_tried", [False, True])
def test_what_was_corked_and_did_not_leave_is_taken_off_at_the_end(
    room: int, was_tried: bool
) -> None:
    wire, out = corked_body(room)
    if was_tried:
        out.flush()
    out.abandon()
    assert wire.calls == 1
    assert wire.data == b"abcde"[:room]
    assert out.offset == out._stats.body_bytes_sent == room
    assert out.is_flushed


@pytest.mark.parametrize("is_corked", [False, True])
@pytest.mark.parametrize("room", range(11))
def test_what_did_not_leave_of_a_frame_is_taken_off_at_the_end(room: int, is_corked: bool) -> None:
    if is_corked:
        wire, out = corked_body(room, is_chunked=True)
    else:
        wire = Wire(len(CHUNKED_HEAD))
        out = outgoing(wire, CHUNKED_HEAD, is_chunked=True)
        out.flush()
        wire.data, wire.room = b"", room
        out.send(b"abcde")
    out.abandon()
    assert wire.data == b"5\r\nabcde\r\n"[:room]
    assert out.offset == len(wire.data[3:8])
    assert not out.corked_size


def test_a_tail_that_did_not_leave_is_no_part_of_the_body() -> None:
    wire = Wire(0)
    out = outgoing(wire, CHUNKED_HEAD, is_chunked=True)
    go_on(out, wire, len(CHUNKED_HEAD))
    wire.room = 1
    out.send(b"abcde")
    tail = b"0\r\nChecksum: 1234567890\r\n\r\n"
    out.finish(tail)
    for taken in range(1, 10 + len(tail) - 1):
        go_on(out, wire, 1)
        assert offset_if_abandoned(out) == min(max(taken + 1 - 3, 0), 5)


def test_nothing_that_was_corked_counts_over_a_broken_transport() -> None:
    _, out = corked_body(0)
    out._transport = cast("Transport", Broken())
    with pytest.raises(trio.BrokenResourceError):
        out.send(b"fg")
    with pytest.raises(trio.BrokenResourceError):
        out.flush()
    assert out.offset == 5
    out.abandon()
    assert (out.offset, out._stats.body_bytes_sent) == (0, 0)


def offset_if_abandoned(out: Outgoing) -> int:
    abandoned = copy(out)
    abandoned._transport = cast("Transport", Wire(0))
    abandoned.abandon()
    return abandoned.offset


# All of it


SIZES = st.one_of(
    st.integers(1, 40),
    st.sampled_from([FRAME_SIZE - 1, FRAME_SIZE, FRAME_SIZE + 1, 3 * FRAME_SIZE]),
    st.integers(1, 3 * FRAME_SIZE),
)
ROOMS = st.one_of(st.integers(0, 20), st.integers(0, 3 * FRAME_SIZE), st.just(10_000_000))
WAYS = ("send", "send lent", "queue", "cork")


@given(
    is_chunked=st.booleans(),
    parts=st.lists(st.tuples(st.sampled_from(WAYS), SIZES), max_size=8),
    rooms=st.lists(ROOMS, max_size=30),
)
def test_any_parts_over_any_rooms_decode_to_what_was_given(
    is_chunked: bool, parts: list[tuple[str, int]], rooms: list[int]
) -> None:
    total = sum(size for _, size in parts)
    length = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total
    head = CHUNKED_HEAD if is_chunked else length
    wire = Wire(0)
    out = outgoing(wire, head, is_chunked=is_chunked)
    given_so_far = 0
    most_kept = Counter[str]()

    def check(way: str) -> None:
        beyond_head = kept(out) - max(len(head) - len(wire.data), 0)
        most_kept[way] = max(most_kept[way], beyond_head)
        assert out.is_flushed or out.blocked or out.corked_size
        assert out.offset == out._stats.body_bytes_sent + out.corked_size
        received = decode(wire.data)[0].body if len(wire.data) >= len(head) else b""
        assert received == pattern(total)[: len(received)]
        assert offset_if_abandoned(out) == len(received)
        assert len(received) <= out.offset - out.corked_size <= len(received) + beyond_head

    def make_room(way: str) -> None:
        go_on(out, wire, rooms.pop() if rooms else 10_000_000)
        check(way)

    for way, size in parts:
        data = pattern(total)[given_so_far : given_so_far + size]
        given_so_far += size
        if way == "queue":
            out.queue(data)
            make_room(way)
            assert out.offset + len(out.queued) == given_so_far
            continue
        while out.queued:
            make_room("queue")
        if way == "cork":
            while out.blocked or (not out.is_flushed and not out.corked_size):
                make_room(way)
            out.cork(data)
            check(way)
            continue
        while rest := data[out.offset + len(data) - given_so_far :]:
            before = out.offset
            assert out.send(rest, is_lent=way == "send lent") == out.offset - before
            check(way)
            if out.blocked:
                make_room(way)
        while out._unsent and way == "send lent":  # as send_chunk does
            make_room(way)
    out.finish(TAIL if is_chunked else b"")
    while not out.is_flushed:
        make_room("queue")
    decoded, rest = decode(wire.data)
    assert (decoded.body, decoded.is_whole, rest) == (pattern(total), True, b"")
    assert out.offset == out._stats.body_bytes_sent == total
    for way in () if "cork" in dict(parts) else ("send", "queue"):
        assert most_kept[way] <= (FRAME_SIZE + MOST_FRAMING + len(TAIL) if is_chunked else 0)
