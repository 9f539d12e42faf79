"""The command line."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.picture import picture
from tests.benchmarks.report import as_json, from_json, table
from tests.benchmarks.rounds import run
from tests.benchmarks.scenarios import SCENARIOS
from tests.benchmarks.servers import SERVERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.benchmarks.model import Sample, Scenario


def main() -> None:
    """Measure what the command line names, and print it scenario by scenario."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--servers", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each server has a turn")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw figures there")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the medians there, as bars")
    parser.add_argument(
        "--from",
        type=Path,
        metavar="FILE",
        dest="source",
        help="measure nothing: take what --json has written, and print and draw it once more",
    )
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
    source = None
    if args.source is not None:
        source = from_json(args.source.read_text())
        names = args.scenarios or list(source)
        if unknown := set(names) - set(source):
            parser.error(f"{args.source} has nothing of {', '.join(sorted(unknown))}")
    if args.svg is not None and not any(SCENARIOS[name].drawn for name in names):
        parser.error("--svg: there is nothing to draw of these scenarios")

    sizes = {name: getattr(args, name) for name in ("clients", "seconds")}
    servers = [s for s in SERVERS if not args.servers or s.name in args.servers]
    if source is None:
        for server in servers:
            if server.offers.intersection(names) and (missing := server.missing()):
                print(f"{server.name} is left out: {', '.join(missing)} not installed", flush=True)
    measured: list[tuple[Scenario, Sequence[Sample]]] = []
    for name in names:
        scenario = _sized(SCENARIOS[name], sizes)
        if source is None:
            samples = list(run(scenario, servers, args.rounds or scenario.rounds))
        else:
            samples = [s for s in source[name] if s.server in {server.name for server in servers}]
        measured.append((scenario, samples))
        print(table(scenario, samples), end="\n\n", flush=True)
    if args.json is not None:
        args.json.write_text(as_json({scenario.name: samples for scenario, samples in measured}))
    if args.svg is not None:
        args.svg.write_text(picture(measured))


def _sized(scenario: Any, sizes: Mapping[str, float | None]) -> Scenario:  # noqa: ANN401
    """The scenario with these sizes, as far as they were given and it has them."""
    known = {field.name for field in fields(scenario)}
    given = {name: size for name, size in sizes.items() if size is not None and name in known}
    sized: Scenario = replace(scenario, **given)
    return sized


if __name__ == "__main__":  # also imported by the processes of scenarios
    main()
