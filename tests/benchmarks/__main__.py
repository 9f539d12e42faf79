"""The command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.report import as_json, table
from tests.benchmarks.rounds import run
from tests.benchmarks.scenarios import SCENARIOS
from tests.benchmarks.servers import SERVERS

if TYPE_CHECKING:
    from tests.benchmarks.model import Sample


def main() -> None:
    """Measure what the command line names, and print it scenario by scenario."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument(
        "scenarios", nargs="*", metavar="SCENARIO", help=f"{', '.join(SCENARIOS)}; default: all"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each server has a turn")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw figures there")
    args = parser.parse_args()
    if unknown := set(args.scenarios) - set(SCENARIOS):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    if args.rounds is not None and args.rounds < 1:
        parser.error("--rounds must be at least 1")

    names = args.scenarios or list(SCENARIOS)
    for server in SERVERS:
        if server.offers.intersection(names) and (missing := server.missing()):
            print(f"{server.name} is left out: {', '.join(missing)} not installed", flush=True)
    measured: dict[str, list[Sample]] = {}
    for name in names:
        scenario = SCENARIOS[name]
        measured[name] = list(run(scenario, SERVERS, args.rounds or scenario.rounds))
        print(table(scenario, measured[name]), end="\n\n", flush=True)
    if args.json is not None:
        args.json.write_text(as_json(measured))


main()
