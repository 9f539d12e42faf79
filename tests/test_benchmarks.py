"""The benchmarks run, and what they find is complete: at a tiny size, whatever the time."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from math import isfinite
from typing import TYPE_CHECKING

import pytest

if sys.platform != "linux":
    pytest.skip("the benchmarks read /proc", allow_module_level=True)

from tests.benchmarks.report import as_json, table
from tests.benchmarks.rounds import run
from tests.benchmarks.scenarios.abort import Abort
from tests.benchmarks.scenarios.chunks import Chunks
from tests.benchmarks.scenarios.cold_file import ColdFile
from tests.benchmarks.scenarios.files import Files
from tests.benchmarks.scenarios.growth import Growth
from tests.benchmarks.scenarios.readers import Readers
from tests.benchmarks.scenarios.requests import Requests
from tests.benchmarks.scenarios.slow_files import SlowFiles
from tests.benchmarks.scenarios.small_files import SmallFiles
from tests.benchmarks.scenarios.stalled import Stalled
from tests.benchmarks.scenarios.storm import Storm
from tests.benchmarks.scenarios.tls import Tls
from tests.benchmarks.scenarios.unknown import Unknown
from tests.benchmarks.scenarios.uploads import Uploads
from tests.benchmarks.scenarios.vanish import Vanish
from tests.benchmarks.scenarios.watching import Watching
from tests.benchmarks.servers import SERVERS

if TYPE_CHECKING:
    from tests.benchmarks.model import Scenario

MIB = 1 << 20


@pytest.mark.parametrize(
    "scenario",
    [
        Chunks(total=MIB),
        Unknown(total=MIB, turns=1),
        Uploads(total=MIB),
        Requests(count=80),
        Watching(count=80),
        Stalled(clients=3, hold=0, first_part=MIB, total=4 * MIB),
        Readers(clients=12, seconds=0.2, bites=3),
        Vanish(clients=30, pause=0),
        Abort(clients=30, pause=0),
        Growth(connections=(1, 3), total=16 * MIB, requests=8),
        Tls(total=32 * MIB, first_part=MIB),
        Files(total=MIB, turns=1),
        SmallFiles(count=80),
        SlowFiles(clients=3, size=8 * MIB, turns=2, pause=0),
        Storm(clients=20, seconds=0.3, patience=0.3),
        ColdFile(size=MIB, turns=1, quiet=0.05),
    ],
    ids=lambda scenario: scenario.name,
)
def test_scenario_runs_on_every_server_that_offers_it(scenario: Scenario) -> None:
    samples = list(run(scenario, SERVERS, 1))
    offering = {s.name for s in SERVERS if scenario.name in s.offers and not s.missing()}
    assert "trio_stream" in offering
    assert {sample.server for sample in samples} == offering
    assert all(isfinite(value) for sample in samples for value in sample.figures.values())
    text = table(scenario, samples)
    assert "not measured" not in text
    assert "inf" not in text
    assert len(json.loads(as_json({scenario.name: samples}))["scenarios"][scenario.name]) == len(
        samples
    )


def test_server_that_is_not_installed_is_left_out() -> None:
    server = replace(SERVERS[0], needs=("sys", "sh", "no_such_module_or_program"))
    assert server.missing() == ["no_such_module_or_program"]
    assert list(run(Chunks(), [server], 1)) == []
