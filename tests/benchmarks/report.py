"""Medians, spreads and ratios, as a plain table and as JSON."""

from __future__ import annotations

import json
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from tests.benchmarks.model import Sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.benchmarks.model import Scenario, Target

OURS = "trio_stream"

# How TCP paces what is sent decides more than most servers do.
_CONGESTION_CONTROL = Path("/proc/sys/net/ipv4/tcp_congestion_control")

_PACKAGES = (
    *("trio-stream", "trio", "h11", "hypercorn", "quart-trio", "uvicorn", "uvloop", "httptools"),
    *("starlette", "granian", "aiohttp", "socketify"),
)


def table(scenario: Scenario, samples: Sequence[Sample]) -> str:
    """What `samples` come to, and whether the targets are met."""
    figures = unique(name for sample in samples for name in sample.figures)
    compare = scenario.baseline is not None and scenario.cost is not None
    header = [scenario.name, "server", *figures, *(["ratio"] if compare else [])]
    lines = [header]
    servers = unique(sample.server for sample in samples)
    for row in unique(sample.row for sample in samples):
        for server in servers:
            found = [values(samples, row, server, figure) for figure in figures]
            if any(found):
                ratios = [_ratios(scenario, samples, row, server)] if compare else []
                lines.append([row, server, *map(_spread, found + ratios)])
    targets = [
        _check(scenario, target, samples)
        for target in scenario.targets
        if target.to is None or target.to in servers
    ]
    return "\n".join([scenario.title, "", *_align(lines), "", *targets])


def as_json(samples: Mapping[str, Sequence[Sample]]) -> str:
    """The raw figures of each scenario, and what they were measured with."""
    data: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "congestion_control": _CONGESTION_CONTROL.read_text().strip(),
        "versions": dict(_versions()),
        "scenarios": {
            name: [{**vars(sample), "figures": dict(sample.figures)} for sample in scenario_samples]
            for name, scenario_samples in samples.items()
        },
    }
    return json.dumps(data, indent=1)


def from_json(text: str) -> dict[str, list[Sample]]:
    """The raw figures that `as_json` has written."""
    return {
        name: [Sample(**sample) for sample in scenario_samples]
        for name, scenario_samples in json.loads(text)["scenarios"].items()
    }


def values(samples: Sequence[Sample], row: str, server: str, figure: str) -> list[float]:
    """One value of each round, in their order."""
    return [
        sample.figures[figure]
        for sample in samples
        if (sample.row, sample.server) == (row, server) and figure in sample.figures
    ]


def _ratios(
    scenario: Scenario, samples: Sequence[Sample], row: str, server: str, to: str | None = None
) -> list[float]:
    """To the baseline or another server, in each round."""
    other = to or scenario.baseline
    assert other is not None
    assert scenario.cost is not None
    own = values(samples, row, server, scenario.cost)
    base = values(samples, row, other, scenario.cost)
    return [a / b for a, b in zip(own, base, strict=False)]


def _check(scenario: Scenario, target: Target, samples: Sequence[Sample]) -> str:
    if target.is_ratio:
        found = _ratios(scenario, samples, target.row, OURS, target.to)
        ratio = f", ratio to {target.to}" if target.to else ", ratio"
    else:
        found = values(samples, target.row, OURS, target.figure)
        ratio = ""
    name = f"{target.row}, {target.figure}{ratio}"
    if not found:
        return f"target {name} <= {target.limit:g}: not measured"
    verdict = "met" if median(found) <= target.limit else "MISSED"
    return f"target {name} <= {target.limit:g}: {verdict} with {digits(median(found))}"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    middle = digits(median(values))
    low, high = digits(min(values)), digits(max(values))
    return middle if low == high else f"{middle} ({low}-{high})"


def digits(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.3g}"


def unique(names: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _align(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(map(str.ljust, line, widths)).rstrip()


def _versions() -> Iterator[tuple[str, str]]:
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            yield name, version(name)
