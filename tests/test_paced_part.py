"""The pieces in which a part of a file leaves: turns for others, and nobody waits for the disk."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, cast

import pytest
import trio
from trio.testing import assert_no_checkpoints

from tests.clients import until
from tests.files import make_file
from tests.test_file_response import SlowFile, open_gate
from tests.test_turn import Arrivals
from trio_stream._file import FilePart, open_file
from trio_stream._paced_part import PacedPart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from trio_stream._transport import Transport

MIB = 1 << 20
TIMEOUT = 20  # a guard against hanging, no expectation
START = 50


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_file(tmp_path / "file.bin", bytes(4 * MIB))


@pytest.fixture
def part(path: Path) -> Iterator[FilePart]:
    with open_file(path) as file:
        yield FilePart(file, START, START + 1950)


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets how many bytes are in the cache, from wherever one looks."""

    def cache(size: int) -> None:
        monkeypatch.setattr(FilePart, "cached_size", lambda part: min(len(part), size))

    return cache


def pace(part: FilePart, send_budget: int) -> PacedPart:
    return PacedPart(part, cast("Transport", Arrivals([])), send_budget)


async def piece(paced: PacedPart, sent: int) -> tuple[int, int]:
    """Where the next one begins and ends, counted from the first byte of the part."""
    part = await paced.next(sent)
    return part.start - START, part.stop - START


async def test_piece_ends_where_others_may_have_their_turn(
    part: FilePart, cached: Callable[[int], None]
) -> None:
    cached(MIB)
    paced = pace(part, 300)
    assert len(paced) == 1950
    assert [await piece(paced, sent) for sent in (0, 100, 299, 300, 599, 700, 1000, 1900)] == [
        *[(0, 300), (100, 300), (299, 300)],
        *[(300, 600), (599, 600)],
        *[(700, 1000), (1000, 1300), (1900, 1950)],
    ]


async def test_others_run_only_when_a_turn_is_over(
    part: FilePart, cached: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[int] = []

    async def checkpoint() -> None:
        turns.append(sent)

    cached(MIB)
    paced = pace(part, 100)
    monkeypatch.setattr(trio.lowlevel, "cancel_shielded_checkpoint", checkpoint)
    for sent in range(0, 1950, 50):
        with assert_no_checkpoints():
            await paced.next(sent)
    assert turns == [100, 900, 1700]  # as `Turn` has it while nothing arrives


async def test_what_is_cached_is_sent_before_the_disk_is_waited_for(
    part: FilePart, cached: Callable[[int], None]
) -> None:
    cached(70)
    paced = pace(part, 100)
    with assert_no_checkpoints():
        assert [await piece(paced, sent) for sent in (0, 70)] == [(0, 70), (70, 100)]


async def test_cache_is_looked_at_after_the_turn_of_others(
    part: FilePart, cached: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def checkpoint() -> None:
        cached(30)

    cached(MIB)
    paced = pace(part, 100)
    monkeypatch.setattr(trio.lowlevel, "cancel_shielded_checkpoint", checkpoint)
    assert await piece(paced, 100) == (100, 130)


async def test_others_run_while_the_disk_is_read(path: Path, cached: Callable[[int], None]) -> None:
    pieces: list[tuple[int, int]] = []

    async def read() -> None:
        pieces.append(await piece(paced, 0))

    cached(0)
    with open_gate() as gate, SlowFile(path, gate) as file:
        paced = pace(FilePart(file, START, 4 * MIB), 2 * MIB)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            with trio.fail_after(TIMEOUT):
                await until(gate.reached.is_set)
            assert pieces == []
            gate.open()
        assert pieces == [(0, MIB)]
        assert file.reads[0][0] == START
        assert sum(size for _, size in file.reads) == MIB


async def test_nothing_is_sent_of_what_may_not_be_cached(
    part: FilePart, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cached_size(_: FilePart) -> int:
        raise io.UnsupportedOperation("nobody knows")

    monkeypatch.setattr(FilePart, "cached_size", cached_size)
    with pytest.raises(io.UnsupportedOperation, match="nobody knows"):
        await pace(part, 100).next(0)
