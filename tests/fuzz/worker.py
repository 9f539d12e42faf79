"""One of the processes that fuzz. Imports of what is fuzzed wait until its blocks can be marked."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fuzz.blocks import Blocks

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping

    from tests.fuzz.loop import Kind

FINDINGS = Path(__file__).with_name("findings")


@dataclass(frozen=True)
class Report:
    """What came of one kind of inputs in one process.

    Attributes:
      kind: Which.
      inputs: How many.
      seconds: How long they took.
      statuses: How many answers had each.
      reached: The blocks that they ran, as bits.
      blocks: How many there are.
      kept: How many inputs were worth keeping.
      findings: Where the findings were written, with what they say.
    """

    kind: Kind
    inputs: int
    seconds: float
    statuses: Counter[int]
    reached: int
    blocks: int
    kept: int
    findings: Mapping[Path, str]


def work(counts: Mapping[Kind, int], seed: int) -> list[Report]:
    """Fuzz so many inputs of each kind."""
    blocks = Blocks("trio_stream", "h11")
    blocks.install()
    from tests.fuzz import loop

    loop.watch_for_hangs()
    gc.freeze()
    reports = []
    for kind, count in counts.items():
        fuzzer = loop.Fuzzer(kind, seed, blocks)
        start = time.monotonic()
        fuzzer.run(count)
        seconds = time.monotonic() - start
        result = fuzzer.result
        findings = {
            loop.save(FINDINGS, kind, case, text): text for text, case in result.findings.items()
        }
        reports.append(
            Report(
                *(kind, result.inputs, seconds, result.statuses, result.reached),
                *(blocks.count, result.kept, findings),
            )
        )
    return reports
