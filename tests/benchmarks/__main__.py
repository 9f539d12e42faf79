"""The command line."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.report import as_json, table
from tests.benchmarks.rounds import run
from tests.benchmarks.scenarios import SCENARIOS
from tests.benchmarks.servers import SERVERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.benchmarks.model import Sample, Scenario


def main() -> None:
    """Measure what the command line names, and print it scenario by scenario."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--servers", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each server has a turn")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw figures there")
    for name, kind in (("clients", int), ("seconds", float)):
        parser.add_argument(
            f"--{name}", type=kind, metavar="N", help="of scenarios that have such a size"
        )
    args = parser.parse_args()
    if unknown := set(args.scenarios) - set(SCENARIOS):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    if args.rounds is not None and args.rounds < 1:
        parser.error("--rounds must be at least 1")
    known = dict.fromkeys(server.name for server in SERVERS)
    if unknown := set(args.servers or ()) - set(known):
        text = f"{shlex.join(sorted(unknown))}; there are: {shlex.join(known)}"
        parser.error(f"no such server: {text}")

    names = args.scenarios or [n for n, s in SCENARIOS.items() if not s.only_when_named]
    sizes = {name: getattr(args, name) for name in ("clients", "seconds")}
    servers = [s for s in SERVERS if not args.servers or s.name in args.servers]
    for server in servers:
        if server.offers.intersection(names) and (missing := server.missing()):
            print(f"{server.name} is left out: {', '.join(missing)} not installed", flush=True)
    measured: dict[str, list[Sample]] = {}
    for name in names:
        scenario = _sized(SCENARIOS[name], sizes)
        measured[name] = list(run(scenario, servers, args.rounds or scenario.rounds))
        print(table(scenario, measured[name]), end="\n\n", flush=True)
    if args.json is not None:
        args.json.write_text(as_json(measured))


def _sized(scenario: Any, sizes: Mapping[str, float | None]) -> Scenario:  # noqa: ANN401
    """The scenario with these sizes, as far as they were given and it has them."""
    known = {field.name for field in fields(scenario)}
    given = {name: size for name, size in sizes.items() if size is not None and name in known}
    sized: Scenario = replace(scenario, **given)
    return sized


if __name__ == "__main__":  # also imported by the processes of scenarios
    main()
