"""The benchmarks run, and what they find is complete: at a tiny size, whatever the time."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

if sys.platform != "linux":
    pytest.skip("the benchmarks read /proc", allow_module_level=True)

from tests.benchmarks.report import as_json, table
from tests.benchmarks.rounds import run
from tests.benchmarks.scenarios.chunks import Chunks
from tests.benchmarks.scenarios.requests import Requests
from tests.benchmarks.scenarios.stalled import Stalled
from tests.benchmarks.scenarios.unknown import Unknown
from tests.benchmarks.scenarios.uploads import Uploads
from tests.benchmarks.scenarios.vanish import Vanish
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
        Stalled(clients=3, hold=0, first_part=MIB, total=4 * MIB),
        Vanish(clients=30, pause=0),
    ],
    ids=lambda scenario: scenario.name,
)
def test_scenario_runs_on_every_server_that_offers_it(scenario: Scenario) -> None:
    samples = list(run(scenario, SERVERS, 1))
    offering = {server.name for server in SERVERS if scenario.name in server.offers}
    assert "trio_stream" in offering
    assert {sample.server for sample in samples} == offering
    assert all(value >= 0 for sample in samples for value in sample.figures.values())
    text = table(scenario, samples)
    assert "not measured" not in text
    assert "inf" not in text
    assert len(json.loads(as_json({scenario.name: samples}))["scenarios"][scenario.name]) == len(
        samples
    )
