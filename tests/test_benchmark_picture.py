"""The picture of the benchmarks, and the figures that it is made from again."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar
from xml.etree import ElementTree as ET

import pytest

if sys.platform != "linux":
    pytest.skip("the benchmarks read /proc", allow_module_level=True)

from tests.benchmarks.__main__ import main
from tests.benchmarks.model import Sample, Scenario
from tests.benchmarks.picture import Bar, Chart, make_charts, picture
from tests.benchmarks.report import as_json, from_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.benchmarks.model import Figures, Start

SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Drawn(Scenario):
    """What is <drawn>."""

    name: ClassVar[str] = "uploads"

    @property
    def drawn(self) -> tuple[str, ...]:
        return "CPU s", "p99 ms"

    def measure(self, start: Start) -> Mapping[str, Figures]:
        raise NotImplementedError


SAMPLES = [
    Sample(server, number, row, {"CPU s": cost + number, "not drawn": 1})
    for number in range(3)
    for server, cost in (("bare loop", 0), ("trio_stream", 3), ("other & more", 1))
    for row in ("one", "two")
]
SAMPLES.append(Sample("trio_stream", 0, "two", {"p99 ms": 0.125}))


def test_charts_have_medians_of_all_drawn_figures_the_best_first() -> None:
    bars = [Bar("bare loop", 1), Bar("other & more", 2), Bar("trio_stream", 4)]
    assert list(make_charts(Drawn(), SAMPLES)) == [
        Chart("one: CPU s", bars),
        Chart("two: CPU s", bars),
        Chart("two: p99 ms", [Bar("trio_stream", 0.125)]),
    ]


def test_picture_has_all_bars_to_scale_and_marks_ours() -> None:
    svg = ET.fromstring(picture([(Drawn(), SAMPLES)]))
    texts = [text.text for text in svg.iter(f"{SVG}text")]
    chart = ["bare loop", "1", "other & more", "2", "trio_stream", "4"]
    assert texts[:-1] == [
        "What is <drawn> (median of 3 rounds)",
        *("one: CPU s", *chart),
        *("two: CPU s", *chart),
        *("two: p99 ms", "trio_stream", "0.125"),
    ]
    bold = [text.text for text in svg.iter(f"{SVG}text") if text.get("font-weight") == "bold"]
    assert bold[1:4] == ["one: CPU s", "trio_stream", "4"]

    rects = list(svg.iter(f"{SVG}rect"))
    widths = [float(rect.attrib["width"]) for rect in rects]
    assert widths == [57, 114, 228, 57, 114, 228, 228]
    fills = [rect.attrib["fill"] for rect in rects]
    ours, peer = fills[2], fills[1]
    assert ours != peer
    assert fills == ["none", peer, ours, "none", peer, ours, ours]


def test_nothing_in_the_picture_overlaps_or_is_cut_off() -> None:
    svg = ET.fromstring(picture([(Drawn(), SAMPLES)] * 2))
    width, height = int(svg.attrib["width"]), int(svg.attrib["height"])
    assert svg.attrib["viewBox"] == f"0 0 {width} {height}"
    places = {(rect.attrib["x"], rect.attrib["y"]) for rect in svg.iter(f"{SVG}rect")}
    assert len(places) == 14
    lowest = max(float(element.get("y", 0)) for element in svg.iter())
    assert lowest < height
    longest = max(float(r.attrib["x"]) + float(r.attrib["width"]) for r in svg.iter(f"{SVG}rect"))
    assert longest < width - 40  # there is room for the value


def test_picture_of_nothing_but_zeros_has_no_length() -> None:
    samples = [Sample("trio_stream", 0, "one", {"CPU s": 0})]
    svg = ET.fromstring(picture([(Drawn(), samples)]))
    assert [rect.get("width") for rect in svg.iter(f"{SVG}rect")] == ["0.0"]
    assert next(svg.iter(f"{SVG}text")).text == "What is <drawn> (1 round)"


def test_figures_come_back_from_json() -> None:
    assert from_json(as_json({"uploads": SAMPLES})) == {"uploads": SAMPLES}


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *map(str, arguments)])
    main()


def test_command_line_draws_once_more_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    source, svg = tmp_path / "figures.json", tmp_path / "picture.svg"
    samples = [Sample(s, 0, "upload", {"CPU s/GiB": 1}) for s in ("aiohttp", "trio_stream")]
    source.write_text(as_json({"uploads": samples, "vanish": []}))

    run_main(monkeypatch, "--from", source, "--svg", svg, "--servers", "trio_stream")
    out = capsys.readouterr().out
    assert "Receiving a body" in out
    assert "aiohttp" not in out
    assert [rect.get("width") for rect in ET.parse(svg).iter(f"{SVG}rect")] == ["228.0"]

    for arguments, reason in (
        (("vanish", "--svg", svg), "there is nothing to draw of these scenarios"),
        (("chunks",), "figures.json has nothing of chunks"),
    ):
        with pytest.raises(SystemExit):
            run_main(monkeypatch, *arguments, "--from", source)
        assert reason in capsys.readouterr().err
