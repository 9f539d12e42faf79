"""The medians as bars: an SVG for a README, that needs no fonts, scripts or background."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree as ET

from tests.benchmarks.report import OURS, digits, unique, values

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tests.benchmarks.model import Sample, Scenario

# As far from white as from GitHub's dark background, 4.3:1.
_TEXT = "#797979"
_OURS, _PEER = "#dd5f23", "#8a919a"

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
_WIDTH, _COLUMNS, _COLUMN_GAP = 840, 2, 24
_COLUMN_WIDTH = (_WIDTH - (_COLUMNS - 1) * _COLUMN_GAP) // _COLUMNS
_NAME_WIDTH, _VALUE_WIDTH = 136, 44
_LONGEST = _COLUMN_WIDTH - _NAME_WIDTH - _VALUE_WIDTH

_LINE, _BAR, _HEADING, _PARAGRAPH = 17, 11, 24, 18

_CAPTION = (
    f"The shorter, the better. In colour: {OURS}; outlined: bare loops, the least that it can cost."
)


class Bar(NamedTuple):
    """The median of one server."""

    server: str
    value: float


class Chart(NamedTuple):
    """What is compared, and how the servers did, the best one first."""

    title: str
    bars: Sequence[Bar]


def make_charts(scenario: Scenario, samples: Sequence[Sample]) -> Iterator[Chart]:
    """One for each figure of the scenario that is to be drawn, row by row."""
    servers = unique(sample.server for sample in samples)
    for row in unique(sample.row for sample in samples):
        for figure in scenario.drawn:
            bars = [
                Bar(server, median(found))
                for server in servers
                if (found := values(samples, row, server, figure))
            ]
            if bars:
                yield Chart(f"{row}: {figure}", sorted(bars, key=lambda bar: bar.value))


def picture(measured: Iterable[tuple[Scenario, Sequence[Sample]]]) -> str:
    """An SVG of all charts, scenario by scenario; those that have none are left out."""
    svg = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img"})
    svg.set("font-family", _FONT)
    svg.set("font-size", "12")
    svg.set("fill", _TEXT)
    y = 0
    for scenario, samples in measured:
        charts = list(make_charts(scenario, samples))
        if charts:
            rounds = len({sample.round for sample in samples})
            y += _HEADING
            times = "1 round" if rounds == 1 else f"median of {rounds} rounds"
            _text(svg, 0, y, f"{scenario.title.removesuffix('.')} ({times})", size=13, bold=True)
            y += _PARAGRAPH // 2
        for index in range(0, len(charts), _COLUMNS):
            line = charts[index : index + _COLUMNS]
            for column, chart in enumerate(line):
                _draw(svg, column * (_COLUMN_WIDTH + _COLUMN_GAP), y, chart)
            y += _HEADING + max(len(chart.bars) for chart in line) * _LINE + _PARAGRAPH // 2
    y += _PARAGRAPH
    _text(svg, 0, y, _CAPTION)
    height = y + _PARAGRAPH // 2
    svg.set("viewBox", f"0 0 {_WIDTH} {height}")
    svg.set("width", str(_WIDTH))
    svg.set("height", str(height))
    ET.indent(svg)
    return ET.tostring(svg, encoding="unicode") + "\n"


def _draw(svg: ET.Element, x: int, y: int, chart: Chart) -> None:
    y += _PARAGRAPH
    # Centred: the longest of these titles is wider than the bars.
    _text(svg, x + _COLUMN_WIDTH // 2, y, chart.title, bold=True, anchor="middle")
    longest = max(bar.value for bar in chart.bars) or 1
    for bar in chart.bars:
        y += _LINE
        is_ours = bar.server == OURS
        length = round(bar.value / longest * _LONGEST, 1)
        _text(svg, x + _NAME_WIDTH - 8, y, bar.server, bold=is_ours, anchor="end")
        rect = ET.SubElement(svg, "rect")
        rect.set("x", str(x + _NAME_WIDTH))
        rect.set("y", str(y - _BAR + 1))
        rect.set("width", str(length))
        rect.set("height", str(_BAR))
        if bar.server.startswith("bare "):
            rect.set("fill", "none")
            rect.set("stroke", _PEER)
        else:
            rect.set("fill", _OURS if is_ours else _PEER)
        _text(svg, x + _NAME_WIDTH + length + 5, y, digits(bar.value), bold=is_ours)


def _text(
    svg: ET.Element,
    x: float,
    y: float,
    content: str,
    *,
    size: int | None = None,
    bold: bool = False,
    anchor: str | None = None,
) -> None:
    text = ET.SubElement(svg, "text", {"x": f"{x:g}", "y": f"{y:g}"})
    text.text = content
    if size is not None:
        text.set("font-size", str(size))
    if bold:
        text.set("font-weight", "bold")
    if anchor is not None:
        text.set("text-anchor", anchor)
