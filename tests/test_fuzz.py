"""A short run of the fuzzer, always the same, and transports that fail as Hypothesis chooses."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.blocks import Blocks
from tests.fuzz.cases import ERRNOS, WAYS, Case, Fault
from tests.fuzz.loop import Fuzzer, replay
from tests.fuzz.mutations import make_case

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fuzz.cases import Call
    from tests.fuzz.loop import Kind

calls: st.SearchStrategy[Call] = st.sampled_from(list(WAYS))


def ways(call: Call) -> st.SearchStrategy[str]:
    sends = call in ("send", "sendfile")
    return st.sampled_from([*WAYS[call], *(ERRNOS if sends else ())])


faults = calls.flatmap(lambda call: st.builds(Fault, st.just(call), st.integers(0, 8), ways(call)))
cases = st.builds(
    lambda seed, faults: Case(make_case(random.Random(seed)).pieces, faults=tuple(faults)),
    st.integers(0, 1000),
    st.lists(faults, min_size=1, max_size=4, unique_by=lambda fault: (fault.call, fault.index)),
)


@pytest.mark.parametrize(("kind", "inputs"), [("protocol", 800), ("connection", 600)])
def test_no_input_leads_the_server_astray(kind: Kind, inputs: int) -> None:
    fuzzer = Fuzzer(kind, seed=1)
    fuzzer.run(inputs)
    assert fuzzer.result.findings == {}
    assert {400, 431, 501} <= set(fuzzer.result.statuses)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(cases)
def test_no_call_that_fails_leads_the_server_astray(case: Case) -> None:
    assert replay("transport", case) is None


@pytest.mark.parametrize(
    "case",
    [
        Case((b"GET / HTTP/1.1\r\n", b"\xff"), ending="fin", pause=0.5, slowness=1, config=1),
        Case((), faults=(Fault("send", 3, "EPIPE"),), bodies=(b"\0",)),
    ],
)
def test_findings_can_be_read_again(case: Case) -> None:
    assert Case.from_json(case.to_json()) == case


SOURCE = b'''
def sign(n):
    """Doc."""
    if n < 0:
        return -1
    for _ in range(n):
        return 1
    try:
        [][0]
    except IndexError:
        pass
    match n:
        case 0:
            return 0
'''


def test_blocks_are_told_apart() -> None:
    blocks = Blocks()
    namespace: dict[str, object] = {}
    blocks.run(blocks.mark(SOURCE, "sign.py"), namespace)
    assert blocks.take() == 0
    sign: Callable[[int], int] = namespace["sign"]  # type: ignore[assignment]
    reached = []
    for n in (-1, 1, 0):
        assert sign(n) == n
        reached.append(blocks.take())
    negative, positive, zero = reached
    assert sign.__doc__ == "Doc."
    assert [blocks.bit_count() for blocks in reached] == [2, 3, 5]
    assert negative & positive & zero  # the function
    assert (negative | positive | zero).bit_count() == blocks.count
    assert blocks.take() == 0


def test_blocks_of_what_is_imported_cannot_be_marked() -> None:
    with pytest.raises(RuntimeError, match="trio_stream"):
        Blocks("trio_stream").install()


def test_command_line_tells_what_was_reached(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--inputs", "100", "--jobs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    assert "protocol: 60 inputs" in done.stdout
    assert "connection: 30 inputs" in done.stdout
    assert "transport: 10 inputs" in done.stdout
    assert "in all: 100 inputs" in done.stdout
