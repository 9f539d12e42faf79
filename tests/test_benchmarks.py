"""The benchmarks run, and what they find is complete: at a tiny size, whatever the time."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from math import isfinite
from typing import TYPE_CHECKING

import pytest

if sys.platform != "linux":
    pytest.skip("the benchmarks read /proc", allow_module_level=True)

from tests.benchmarks.__main__ import main
from tests.benchmarks.disk import provided
from tests.benchmarks.process import Cores, running
from tests.benchmarks.report import as_json, table
from tests.benchmarks.rounds import run
from tests.benchmarks.scenarios.chunks import Chunks
from tests.benchmarks.scenarios.cold_file import ColdFile
from tests.benchmarks.scenarios.files import Files
from tests.benchmarks.scenarios.requests import Requests
from tests.benchmarks.scenarios.slow_files import SlowFiles
from tests.benchmarks.scenarios.small_files import SmallFiles
from tests.benchmarks.scenarios.stalled import Stalled
from tests.benchmarks.scenarios.storm import Storm
from tests.benchmarks.scenarios.unknown import Unknown
from tests.benchmarks.scenarios.uploads import Uploads
from tests.benchmarks.scenarios.vanish import Vanish
from tests.benchmarks.servers import SERVERS

if TYPE_CHECKING:
    from tests.benchmarks.model import Scenario, Server

MIB = 1 << 20

CORE = (
    Chunks(total=MIB, seconds=0),
    Unknown(total=MIB, turns=1, seconds=0),
    Uploads(total=MIB, seconds=0),
    Requests(count=64, seconds=0),
)
"""Those that servers offer that are here only for them."""

CORE_NAMES = {scenario.name for scenario in CORE}
PEERS = [
    server
    for server in SERVERS
    if server.needs and server.offers & CORE_NAMES and not server.missing()
]


@pytest.mark.parametrize(
    "scenario",
    [
        *CORE,
        Stalled(clients=3, hold=0, first_part=MIB, total=4 * MIB),
        Vanish(clients=30, pause=0),
        Files(total=MIB, turns=1),
        SmallFiles(count=80),
        SlowFiles(clients=3, size=8 * MIB, turns=2, pause=0),
        Storm(clients=20, seconds=0.3, patience=0.3),
        ColdFile(size=MIB, turns=1, quiet=0.05),
    ],
    ids=lambda scenario: scenario.name,
)
def test_scenario_runs_on_every_server_that_offers_it(scenario: Scenario) -> None:
    servers = [server for server in SERVERS if scenario not in CORE or server not in PEERS]
    samples = list(run(scenario, servers, 1))
    offering = {s.name for s in servers if scenario.name in s.offers and not s.missing()}
    assert "trio_stream" in offering
    assert {sample.server for sample in samples} == offering
    assert all(isfinite(value) for sample in samples for value in sample.figures.values())
    text = table(scenario, samples)
    assert "not measured" not in text
    assert "inf" not in text
    assert len(json.loads(as_json({scenario.name: samples}))["scenarios"][scenario.name]) == len(
        samples
    )


@pytest.mark.parametrize("server", PEERS, ids=lambda server: server.name)
def test_peer_that_is_installed_runs_all_core_scenarios_that_it_offers(server: Server) -> None:
    with provided(), running(server, Cores.of_this_process().server) as process:
        for scenario in CORE:
            if scenario.name in server.offers:
                assert scenario.measure(lambda: nullcontext(process))


def test_command_line_knows_its_servers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "chunks", "--servers", "trio_stream", "other"])
    with pytest.raises(SystemExit):
        main()
    error = capsys.readouterr().err
    assert "no such server: other; there are: bare epoll, " in error
    assert ", nginx" in error


def test_server_that_is_not_installed_is_left_out() -> None:
    server = replace(SERVERS[0], needs=("sys", "sh", "no_such_module_or_program"))
    assert server.missing() == ["no_such_module_or_program"]
    assert list(run(Chunks(), [server], 1)) == []
