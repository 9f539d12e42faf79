"""Makes inputs, runs them, and keeps those that lead somewhere new."""

from __future__ import annotations

import gc
import random
import re
import signal
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias
from zlib import crc32

import trio
from trio.testing import MockClock

from tests.fuzz.cases import Case, FindingError
from tests.fuzz.mutations import add_faults, make_case, mutate
from tests.fuzz.targets import check_protocol, open_connections

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fuzz.blocks import Blocks
    from tests.fuzz.targets import Connections

Kind: TypeAlias = Literal["protocol", "connection", "transport"]

_SEEDS = 60
_MOST_WAYS = 4000
_BATCH = 5000
_MOST_SECONDS = 30
_MOST_ATTEMPTS = 600


class HangError(BaseException):
    """One input takes longer than it may, in real time: no exception that a server would catch."""


@dataclass
class Result:
    """What came of many inputs.

    Attributes:
      inputs: How many.
      statuses: How many answers had each.
      reached: The blocks that they ran, as bits.
      kept: How many were worth keeping.
      findings: What went wrong, by what it is, with its shortest input.
    """

    inputs: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    reached: int = 0
    kept: int = 0
    findings: dict[str, Case] = field(default_factory=dict)


class Fuzzer:
    """Fuzzes one kind of inputs.

    Attributes:
      result: So far.
    """

    def __init__(self, kind: Kind, seed: int, blocks: Blocks | None = None) -> None:
        self.result = Result()
        self._kind = kind
        self._rng = random.Random(f"{kind} {seed}")
        self._blocks = blocks
        self._corpus = [make_case(self._rng) for _ in range(_SEEDS)]
        self._ways: set[int] = set()
        self._case = self._corpus[0]

    def run(self, inputs: int) -> None:
        """Run so many."""
        stop = self.result.inputs + inputs
        while self.result.inputs < stop:
            count = min(stop - self.result.inputs, _BATCH)
            try:
                _run(self._run_batch, count)
            except (FindingError, HangError) as exc:
                self._note(str(exc) or type(exc).__name__)
            gc.collect()

    async def _run_batch(self, count: int) -> None:
        async with open_connections() as connections:
            for _ in range(count):
                self.result.inputs += 1
                self._case = case = self._make_case()
                with _time_limit():
                    statuses = await _check(connections, self._kind, case)
                self.result.statuses.update(statuses)
                if self._blocks is not None:
                    self._keep_if_new(case, self._blocks.take())

    def _make_case(self) -> Case:
        rng = self._rng
        if rng.random() < 0.1:
            case = make_case(rng)
        else:
            case = mutate(rng.choice(self._corpus), self._corpus, rng)
        if self._kind == "transport":
            return add_faults(case, rng)
        return case

    def _keep_if_new(self, case: Case, hits: int) -> None:
        is_new = hits & ~self.result.reached
        self.result.reached |= hits
        if not is_new and (hits in self._ways or len(self._ways) > _MOST_WAYS):
            return
        self._ways.add(hits)
        self._corpus.append(case)
        self.result.kept += 1

    def _note(self, message: str) -> None:
        known = {summary(text) for text in self.result.findings}
        if summary(message) not in known:
            case, message = minimize(self._kind, self._case, message)
            self.result.findings[message] = case


def replay(kind: Kind, case: Case) -> str | None:
    """Run one input; what went wrong, if anything did."""

    async def run_one() -> None:
        async with open_connections() as connections:
            with _time_limit():
                await _check(connections, kind, case)

    try:
        if kind == "protocol":
            with _time_limit():
                check_protocol(case)
        else:
            _run(run_one)
    except (FindingError, HangError) as exc:
        return str(exc) or type(exc).__name__
    return None


def minimize(kind: Kind, case: Case, message: str) -> tuple[Case, str]:
    """A shorter input with the same finding, and what that says."""
    attempts = 0
    goes_on = True
    while goes_on:
        goes_on = False
        for shorter in _shorter(case):
            attempts += 1
            if attempts > _MOST_ATTEMPTS:
                break
            found = replay(kind, shorter)
            if found is not None and summary(found) == summary(message):
                case, message, goes_on = shorter, found, True
                break
    return case, message


def save(folder: Path, kind: Kind, case: Case, message: str) -> Path:
    """Write a finding where it can be replayed from."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{kind}-{crc32(summary(message).encode()):08x}.json"
    path.write_text(case.to_json())
    path.with_suffix(".txt").write_text(f"{message}\n\n{case}\n")
    return path


def summary(message: str) -> str:
    """What is the same in the messages of two inputs that find the same."""
    return re.sub(r"b'.*|b\".*|\d+|0x\w+|/\S*", "#", message)[:60]


def _shorter(case: Case) -> Iterator[Case]:
    for index in range(len(case.faults)):
        yield replace(case, faults=case.faults[:index] + case.faults[index + 1 :])
    if len(case.pieces) > 1:
        yield replace(case, pieces=(case.data,))
        for index in range(len(case.pieces)):
            yield replace(case, pieces=case.pieces[:index] + case.pieces[index + 1 :], bodies=None)
    for plain in (Case(()),):
        for name in ("ending", "pause", "slowness", "config"):
            if getattr(case, name) != getattr(plain, name):
                yield replace(case, **{name: getattr(plain, name)})
    if case.is_sound:
        return
    for number, piece in enumerate(case.pieces):
        size = len(piece) // 2
        while size:
            for start in range(0, len(piece), size):
                less = piece[:start] + piece[start + size :]
                pieces = (*case.pieces[:number], less, *case.pieces[number + 1 :])
                yield replace(case, pieces=tuple(filter(None, pieces)), bodies=None)
            size //= 2


async def _check(connections: Connections, kind: Kind, case: Case) -> list[int]:
    match kind:
        case "protocol":
            return check_protocol(case)
        case "transport" if sys.platform == "linux" and crc32(repr(case.faults).encode()) % 2:
            return await connections.check_socket(case)
        case _:
            return await connections.check_stream(case)


def _run(async_fn: object, *args: object) -> None:
    trio.run(async_fn, *args, clock=MockClock(autojump_threshold=0))  # type: ignore[arg-type]


@contextmanager
def _time_limit() -> Iterator[None]:
    signal.setitimer(signal.ITIMER_REAL, _MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def watch_for_hangs() -> None:
    """Let an input that takes too long in real time end in `HangError`."""

    def hang(_signal: int, _frame: object) -> None:
        raise HangError("a hang in real time")

    signal.signal(signal.SIGALRM, hang)
