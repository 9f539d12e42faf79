"""The benchmarks run, and what they find is complete: at a tiny size, whatever the time."""

from __future__ import annotations

import json
import sys
from concurrent.futures import Future
from contextlib import closing, nullcontext
from dataclasses import replace
from http.client import HTTPConnection
from math import isfinite
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

if sys.platform != "linux":
    pytest.skip("the benchmarks read /proc", allow_module_level=True)

from tests.benchmarks import probe
from tests.benchmarks.__main__ import main
from tests.benchmarks.client import connect
from tests.benchmarks.disk import content, provided
from tests.benchmarks.process import Cores, running
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
from tests.benchmarks.servers.chunk import make_chunk

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.model import Scenario, Server

MIB = 1 << 20

TINY: tuple[Scenario, ...] = (
    Chunks(total=MIB, seconds=0, least=0),
    Unknown(total=MIB, turns=1, seconds=0),
    Uploads(total=MIB, seconds=0),
    Requests(count=64, seconds=0),
    Watching(count=64, turns=2),
    Stalled(clients=3, hold=0, first_part=MIB, total=4 * MIB),
    Readers(clients=12, seconds=0.2, bites=3),
    Vanish(clients=30, pause=0),
    Abort(clients=30, pause=0),
    Growth(connections=(1, 3), total=16 * MIB, requests=8),
    Tls(total=32 * MIB, first_part=MIB),
    Files(total=MIB, seconds=0),
    SmallFiles(count=80),
    SlowFiles(clients=3, size=8 * MIB, turns=2, pause=0),
    Storm(clients=20, seconds=0.3, patience=0.1),
    ColdFile(size=MIB, turns=1, quiet=0.05),
)
FILES = (4096, MIB // 64, MIB, 8 * MIB)
"""The sizes of those that they need."""

OWN = [server for server in SERVERS if not (server.needs or server.programs)]
PEERS = [server for server in SERVERS if server not in OWN and not server.missing()]


@pytest.mark.parametrize("server", OWN, ids=lambda server: server.name)
def test_own_server_runs_all_scenarios_that_it_offers(server: Server) -> None:
    # One process for all of them: what takes longest is to start.
    with provided(*FILES), running(server, Cores.of_this_process().server) as process:
        check_answers(server, process.port)
        for scenario in TINY:
            if scenario.name in server.offers and not isinstance(scenario, Tls):
                rows = scenario.measure(lambda: nullcontext(process))
                assert all(isfinite(v) for figures in rows.values() for v in figures.values())
                assert all(target.figure in rows[target.row] for target in scenario.targets)
    assert server.offers <= {scenario.name for scenario in TINY}


def test_a_probe_measures_something_beside_what_is_over_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def submit(work: Callable[[], None]) -> Future[None]:
        work()
        future = Future[None]()
        future.set_result(None)
        return future

    executor = nullcontext(SimpleNamespace(submit=submit))
    monkeypatch.setattr(probe, "ThreadPoolExecutor", lambda _: executor)
    (server,) = (it for it in OWN if it.name == "bare epoll")
    with running(server, Cores.of_this_process().server) as process, connect(process.port) as sock:
        assert len(probe.Probe(sock).delays_beside(lambda: None)) == 1


def test_tls_starts_the_server_with_a_certificate_and_without() -> None:
    scenario = Tls(total=32 * MIB, first_part=MIB)
    samples = list(run(scenario, [s for s in OWN if s.name == "trio_stream"], 1))
    assert [sample.row for sample in samples] == ["TLS", "plain"]
    assert "not measured" not in table(scenario, samples)


@pytest.mark.parametrize("server", PEERS, ids=lambda server: server.name)
def test_peer_answers(server: Server) -> None:
    with provided(4096), running(server, Cores.of_this_process().server) as process:
        check_answers(server, process.port)


def check_answers(server: Server, port: int) -> None:
    """It answers the paths of the scenarios that it offers with the right bytes."""
    stream, hello = make_chunk(4096) * 64, b"Hello, World!"
    exchanges = (
        ("chunks", "GET", "/stream/4096/262144", stream),
        ("unknown", "GET", "/unknown/4096/262144", stream),
        ("uploads", "POST", "/upload", hello),
        ("requests", "GET", "/hello", hello),
        ("files", "GET", "/files/4096", content(4096)),
        ("small_files", "GET", "/static/4096", content(4096)),
    )
    with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as client:
        for scenario, method, path, body in exchanges:
            if scenario in server.offers:
                client.request(method, path, bytes(MIB) if method == "POST" else None)
                response = client.getresponse()
                is_chunked = response.getheader("Transfer-Encoding") == "chunked"
                assert (response.status, is_chunked) == (200, scenario == "unknown")
                assert response.read() == body


@pytest.mark.parametrize("scenario", TINY, ids=lambda scenario: scenario.name)
def test_scenario_compares_servers_that_offer_it(scenario: Scenario) -> None:
    offering = {server.name for server in SERVERS if scenario.name in server.offers}
    others = {scenario.baseline, *(target.to for target in scenario.targets)} - {None}
    assert others | {"trio_stream"} <= offering


def test_run_measures_every_server_and_reports_all() -> None:
    scenario = Uploads(total=MIB, seconds=0)
    servers = [s for s in OWN if s.name in {"trio_stream", "bare trio + h11"}]
    samples = list(run(scenario, servers, 2))
    assert [sample.server for sample in samples] == ["bare trio + h11", "trio_stream"] * 2
    text = table(scenario, samples)
    assert "not measured" not in text
    assert "inf" not in text
    assert len(json.loads(as_json({"uploads": samples}))["scenarios"]["uploads"]) == len(samples)


def test_command_line_knows_its_servers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "chunks", "--servers", "trio_stream", "other"])
    with pytest.raises(SystemExit):
        main()
    error = capsys.readouterr().err
    assert "no such server: other; there are: 'bare epoll' " in error
    assert " nginx" in error


def test_server_that_is_not_installed_is_left_out() -> None:
    # "sh" is a program and no module, "sys" a module and no program.
    server = replace(SERVERS[0], needs=("sys", "sh"), programs=("sh", "sys"))
    assert server.missing() == ["sh", "sys"]
    assert list(run(Chunks(), [server], 1)) == []
