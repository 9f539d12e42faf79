"""The command line."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fuzz.worker import work

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.fuzz.loop import Kind
    from tests.fuzz.worker import Report

_SHARES: Mapping[Kind, int] = {"protocol": 6, "connection": 3, "transport": 1}
"""Of ten inputs, so many are of each kind."""


def main() -> None:
    """Fuzz, or repeat one input; exit with 1 if something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--inputs", type=int, default=100_000, metavar="N", help="in all")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--kind", choices=_SHARES, help="default: all")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run the input of a finding")
    args = parser.parse_args()
    if args.replay is not None:
        sys.exit(_replay(args.replay))
    shares = _SHARES if args.kind is None else {args.kind: 1}
    each = args.inputs / args.jobs / sum(shares.values())
    counts = {kind: round(each * share) for kind, share in shares.items()}
    start = time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.jobs, mp_context=spawn) as pool:
        seeds = [1000 * args.seed + job for job in range(args.jobs)]
        reports = [r for result in pool.map(work, [counts] * args.jobs, seeds) for r in result]
    seconds = time.monotonic() - start
    for kind in shares:
        _print([report for report in reports if report.kind == kind])
    inputs = sum(report.inputs for report in reports)
    found = sum(len(report.findings) for report in reports)
    print(f"in all: {inputs} inputs in {seconds:.0f} s, {inputs / seconds:.0f}/s, {found} findings")
    sys.exit(bool(found))


def _print(reports: Iterable[Report]) -> None:
    reports = list(reports)
    kind, blocks = reports[0].kind, reports[0].blocks
    inputs = sum(report.inputs for report in reports)
    speed = sum(report.inputs / report.seconds for report in reports)
    reached = reduce(or_, (report.reached for report in reports)).bit_count()
    kept = sum(report.kept for report in reports)
    statuses = sum((report.statuses for report in reports), Counter[int]())
    print(f"{kind}: {inputs} inputs, {speed:.0f}/s")
    print(f"  blocks reached: {reached} of {blocks}; inputs kept: {kept}")
    print("  answers:", ", ".join(f"{s or 'cut'}: {n}" for s, n in sorted(statuses.items())))
    for report in reports:
        for path, text in report.findings.items():
            print(f"  FOUND {path}: {text[:1000]}")


def _replay(path: Path) -> int:
    from tests.fuzz.cases import Case
    from tests.fuzz.loop import replay, watch_for_hangs

    watch_for_hangs()
    kind: Kind = path.name.partition("-")[0]  # type: ignore[assignment]
    found = replay(kind, Case.from_json(path.read_text()))
    print(found or "all is well")
    return int(found is not None)


if __name__ == "__main__":  # also imported by the processes
    main()
