"""Medians, spreads and ratios, as a plain table and as JSON."""

from __future__ import annotations

import json
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.benchmarks.model import Sample, Scenario, Target

OURS = "trio_stream"

_PACKAGES = (
    *("trio-stream", "trio", "h11", "hypercorn", "quart-trio", "uvicorn", "uvloop", "httptools"),
    *("starlette", "granian", "aiohttp", "socketify"),
)


def table(scenario: Scenario, samples: Sequence[Sample]) -> str:
    """What `samples` come to, and whether the targets are met."""
    title = (scenario.__doc__ or "").partition("\n")[0]
    figures = _unique(name for sample in samples for name in sample.figures)
    compare = scenario.baseline is not None and scenario.cost is not None
    header = [scenario.name, "server", *figures, *(["ratio"] if compare else [])]
    lines = [header]
    servers = _unique(sample.server for sample in samples)
    for row in _unique(sample.row for sample in samples):
        for server in servers:
            values = [_values(samples, row, server, figure) for figure in figures]
            if any(values):
                ratios = [_ratios(scenario, samples, row, server)] if compare else []
                lines.append([row, server, *map(_spread, values + ratios)])
    targets = [
        _check(scenario, target, samples)
        for target in scenario.targets
        if target.to is None or target.to in servers
    ]
    return "\n".join([title, "", *_align(lines), "", *targets])


def as_json(samples: Mapping[str, Sequence[Sample]]) -> str:
    """The raw figures of each scenario, and what they were measured with."""
    data: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": dict(_versions()),
        "scenarios": {
            name: [
                {"server": s.server, "round": s.round, "row": s.row, "figures": dict(s.figures)}
                for s in scenario_samples
            ]
            for name, scenario_samples in samples.items()
        },
    }
    return json.dumps(data, indent=1)


def _values(samples: Sequence[Sample], row: str, server: str, figure: str) -> list[float]:
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
    own = _values(samples, row, server, scenario.cost)
    base = _values(samples, row, other, scenario.cost)
    return [a / b for a, b in zip(own, base, strict=False)]


def _check(scenario: Scenario, target: Target, samples: Sequence[Sample]) -> str:
    if target.is_ratio:
        values = _ratios(scenario, samples, target.row, OURS, target.to)
        ratio = f", ratio to {target.to}" if target.to else ", ratio"
    else:
        values = _values(samples, target.row, OURS, target.figure)
        ratio = ""
    name = f"{target.row}, {target.figure}{ratio}"
    if not values:
        return f"target {name} <= {target.limit:g}: not measured"
    verdict = "met" if median(values) <= target.limit else "MISSED"
    return f"target {name} <= {target.limit:g}: {verdict} with {_digits(median(values))}"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    middle = _digits(median(values))
    low, high = _digits(min(values)), _digits(max(values))
    return middle if low == high else f"{middle} ({low}-{high})"


def _digits(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.3g}"


def _unique(names: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _align(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(map(str.ljust, line, widths)).rstrip()


def _versions() -> Iterator[tuple[str, str]]:
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            yield name, version(name)
