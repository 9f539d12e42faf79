"""Metrics of one worker and of several, and the probes."""

from __future__ import annotations

import errno
import os
import socket
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as prometheus
from trio.testing import wait_all_tasks_blocked

from tests.harness import get, open_peer, start_server
from trio_stream import (
    AbortReason,
    App,
    Request,
    Response,
    Stats,
    _accept,
    _metrics,
    _worker_stats,
)
from trio_stream._worker_stats import DIRECTORY_VARIABLE, WorkerStats, all_workers
from trio_stream.testing import Client, open_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.harness import Kind

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
OWN_ID = os.getpid()
OWN = f"{{'worker': '{OWN_ID}'}}"


def metrics_app() -> App:
    app = App()
    app.metrics()

    @app.post("/echo")
    async def echo(res: Response, req: Request) -> None:
        res.end(await req.read())

    return app


async def scrape(client: Client, accept: str | None = None) -> dict[str, float]:
    """All samples, by name and labels."""
    headers = [] if accept is None else [("Accept", accept)]
    response = await client.request("GET", "/metrics", headers=headers)
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    text = (await response.read()).decode()
    parse = open_metrics if accept else prometheus
    return {
        f"{sample.name}{sample.labels or ''}": sample.value
        for family in parse(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("accept", [None, OPEN_METRICS])
async def test_metrics_are_what_was_counted(accept: str | None) -> None:
    async with open_client(metrics_app()) as client:
        response = await client.request("POST", "/echo", body=b"hello")
        assert await response.read() == b"hello"
        for _ in range(2):
            response = await client.get("/unknown")
            assert response.status_code == 404
            await response.read()
        samples = await scrape(client, accept)
    memory = samples.pop(f"process_resident_memory_bytes{OWN}")
    assert 10 << 20 < memory < 10 << 30
    assert samples.pop(f"process_cpu_seconds_total{OWN}") > 0
    assert samples == {
        "trio_stream_connections_total": 1,
        "trio_stream_requests_total": 4,
        "trio_stream_request_body_bytes_total": 5,
        "trio_stream_response_body_bytes_total": 5 + 2 * len("Not Found\n"),
        "trio_stream_parks_total": 0,
        "trio_stream_responses_total{'code': '200'}": 1,
        "trio_stream_responses_total{'code': '404'}": 2,
        f"trio_stream_open_connections{OWN}": 1,
        f"trio_stream_active_responses{OWN}": 1,
        f"trio_stream_shutting_down{OWN}": 0,
        **{
            f"trio_stream_aborts_total{{'reason': '{reason.name.lower()}'}}": 0
            for reason in AbortReason
        },
    }


def test_every_statistic_is_a_metric() -> None:
    shown = {*_metrics.COUNTERS, *_metrics.GAUGES, "responses", "aborts"}
    assert shown == {field.name for field in fields(Stats)}


async def test_content_type_is_that_of_the_format() -> None:
    async with open_client(metrics_app()) as client:
        response = await client.get("/metrics")
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        await response.read()
        response = await client.request("GET", "/metrics", headers=[("Accept", OPEN_METRICS)])
        assert response.headers["Content-Type"].startswith(OPEN_METRICS)


def test_metrics_need_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_stream._routes.HAVE_PROMETHEUS", False)
    with pytest.raises(RuntimeError, match=r"pip install 'trio-stream\[metrics\]'"):
        App().metrics()


async def test_waits_for_the_client_are_counted_in_every_style(kind: Kind) -> None:
    app = App()
    app.get("/end", lambda res, _: res.end(bytes(4_000_000)))

    async with open_peer(app, kind) as peer:
        await peer.send_all(get("/end", "Connection: close"))
        await peer.receive_until_eof()
        assert peer.stats.parks > 0
        assert peer.stats.responses == {200: 1}


# Several workers...


STATS = Stats(
    open_connections=2,
    active_responses=1,
    connections=10,
    requests=100,
    responses=Counter({200: 90, 500: 9}),
    body_bytes_received=1000,
    body_bytes_sent=10_000,
    parks=7,
    aborts=Counter({AbortReason.STALLED: 1}),
)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the workers meet."""
    monkeypatch.setenv(DIRECTORY_VARIABLE, f"{os.getppid()}:{tmp_path}")
    return tmp_path


@asynccontextmanager
async def other_worker(path: Path, answer: bytes | None) -> AsyncIterator[None]:
    """Answer connections to the Unix socket `path`, or accept none if there is no answer."""
    with trio.socket.socket(socket.AF_UNIX) as listener:
        await listener.bind(str(path))
        listener.listen()

        async def serve() -> None:
            while answer is not None:
                connection, _ = await listener.accept()
                with connection:
                    await connection.send(answer)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            yield
            nursery.cancel_scope.cancel()


async def all_statistics() -> list[WorkerStats]:
    workers = await all_workers(Stats())
    assert workers is not None
    return workers


def test_statistics_survive_the_way() -> None:
    worker = WorkerStats(7, STATS, 1.5, 1000)
    assert WorkerStats.from_json(worker.as_json()) == worker


async def test_counters_are_summed_and_gauges_are_those_of_each(directory: Path) -> None:
    answer = WorkerStats(7, STATS, 1.5, 1000).as_json()
    (directory / "8.old").write_bytes(WorkerStats(8, STATS, 2.5, 2000).as_json(is_over=True))
    (directory / ".9.new").write_bytes(b"{")
    async with other_worker(directory / "7.x", answer), open_client(metrics_app()) as client:
        samples = await scrape(client)
    assert samples["trio_stream_requests_total"] == 201
    assert samples["trio_stream_connections_total"] == 21
    assert samples["trio_stream_responses_total{'code': '500'}"] == 18
    assert samples["trio_stream_aborts_total{'reason': 'stalled'}"] == 2
    gauges = {name: value for name, value in samples.items() if "'worker'" in name}
    assert {name for name in gauges if "'8'" in name} == set()
    assert gauges["process_resident_memory_bytes{'worker': '7'}"] == 1000
    assert gauges["process_cpu_seconds_total{'worker': '7'}"] == 1.5
    assert gauges["trio_stream_open_connections{'worker': '7'}"] == 2
    assert gauges[f"trio_stream_open_connections{OWN}"] == 1


@pytest.mark.parametrize("answer", [b"", b'{"worker"'])
async def test_worker_that_was_killed_is_left_out(directory: Path, answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(directory / "7.stale"))
    async with other_worker(directory / "8.dying", answer):
        with trio.fail_after(10):
            assert [worker.worker for worker in await all_statistics()] == [os.getpid()]


async def test_worker_that_does_not_answer_is_not_waited_for(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_worker_stats, "_TIMEOUT", 0.01)
    async with other_worker(directory / "7.stopped", None):
        with trio.fail_after(10):
            assert len(await all_statistics()) == 1


def tell(path: Path, *, is_over: bool = False) -> None:
    """What a worker has told when it was last asked."""
    worker, _, _ = path.name.partition(".")
    path.write_bytes(WorkerStats(int(worker), STATS, 1.5, 1000).as_json(is_over=is_over))


async def test_what_a_killed_worker_has_told_goes_on_to_count(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(directory / "7.stale"))
    tell(directory / "7.stale.told")
    async with other_worker(directory / "8.dying", b'{"worker"'):
        tell(directory / "8.dying.told")
        async with open_client(metrics_app()) as client:
            samples = await scrape(client)
    assert samples["trio_stream_requests_total"] == 201
    assert "trio_stream_open_connections{'worker': '7'}" not in samples
    assert samples["trio_stream_open_connections{'worker': '8'}"] == 2


async def test_what_a_busy_worker_has_told_counts(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_worker_stats, "_TIMEOUT", 0.01)
    tell(directory / "7.busy.told")
    async with other_worker(directory / "7.busy", None), open_client(metrics_app()) as client:
        samples = await scrape(client)
    assert samples["trio_stream_requests_total"] == 101
    assert samples["trio_stream_open_connections{'worker': '7'}"] == 2


async def test_a_worker_that_ends_while_it_is_asked_counts_once(directory: Path) -> None:
    async def end(path: Path) -> trio.SocketStream:
        path.unlink()
        tell(path, is_over=True)
        return await open_unix_socket(path)

    open_unix_socket = trio.open_unix_socket
    async with other_worker(directory / "7.ends", b""):
        tell(directory / "7.ends.told")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trio, "open_unix_socket", end)
            workers = await all_statistics()
    assert [(worker.worker, worker.is_over) for worker in workers] == [(7, True), (OWN_ID, False)]


@pytest.mark.parametrize("where", ["trio.open_unix_socket", "pathlib.Path.iterdir"])
async def test_no_sums_are_told_without_descriptors_to_ask_all(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with other_worker(directory / "7.x", b""), other_worker(directory / "8.x", b""):
        monkeypatch.setattr(where, fail)
        async with open_client(metrics_app()) as client:
            assert (await client.get("/metrics")).status_code == 503
    (record,) = caplog.records
    assert record.getMessage() == (
        "the metrics of other workers can't be had: [Errno 24] Too many open files"
    )
    assert record.exc_info is None
    caplog.clear()


async def test_a_server_answers_with_its_statistics_and_leaves_them(directory: Path) -> None:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            server = await start_server(nursery, App())
            server.stats.aborts[AbortReason.STALLED] = 3
            (path,) = directory.iterdir()
            async with await trio.open_unix_socket(path) as stream:
                answer = b"".join([data async for data in stream])
            worker = WorkerStats.from_json(answer)
            assert (worker.worker, worker.stats) == (os.getpid(), server.stats)
            assert worker.memory > 0
            told = path.with_name(f"{path.name}.told")
            assert told.read_bytes() == answer
            server.stats.parks = 4
            server.shutdown()
    assert sorted(directory.iterdir()) == [path, told]
    left = WorkerStats.from_json(path.read_bytes())
    assert left.is_over
    assert left.stats == server.stats
    assert [worker.is_over for worker in await all_statistics()] == [True, False]


async def test_a_process_that_a_worker_has_started_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It inherits the variable, and its parent is somebody else."""
    (tmp_path / "8.old").write_bytes(WorkerStats(8, STATS, 2.5, 2000).as_json(is_over=True))
    monkeypatch.setenv(DIRECTORY_VARIABLE, f"{os.getpid()}:{tmp_path}")
    async with trio.open_nursery() as nursery:
        await start_server(nursery, App())
        assert [path.name for path in tmp_path.iterdir()] == ["8.old"]
        assert [worker.worker for worker in await all_statistics()] == [os.getpid()]
        nursery.cancel_scope.cancel()


async def test_a_shortage_of_descriptors_is_logged_once(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries = 0
    accept = _accept._accept

    def fail_at_first(listener: socket.socket) -> object:
        nonlocal tries
        tries += 1
        if tries <= 3:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return accept(listener)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await start_server(nursery, App())
            (path,) = directory.iterdir()
            monkeypatch.setattr(_accept, "_accept", fail_at_first)
            async with await trio.open_unix_socket(path) as stream:
                assert await stream.receive_some()
            nursery.cancel_scope.cancel()
    assert tries > 3
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert [record.exc_info for record in caplog.records] == [None, None]
    caplog.clear()


async def test_a_directory_that_has_gone_is_no_error_at_the_end(directory: Path) -> None:
    async with trio.open_nursery() as nursery:
        await start_server(nursery, App())
        (path,) = directory.iterdir()
        path.unlink()
        directory.rmdir()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("name", ["gone", "long" * 40])
async def test_a_worker_that_cannot_tell_its_statistics_serves(
    directory: Path, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = directory / name
    monkeypatch.setenv(DIRECTORY_VARIABLE, f"{os.getppid()}:{other}")
    if name != "gone":
        other.mkdir()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            server = await start_server(nursery, metrics_app())
            async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
                await stream.send_all(get("/metrics", "Connection: close"))
                answer = b"".join([data async for data in stream])
            server.shutdown()
    assert answer.startswith(b"HTTP/1.1 200 ")
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert warning.getMessage().startswith("the metrics of other workers will lack this one: ")
    assert str(other) in warning.getMessage()
    caplog.clear()


async def test_memory_that_is_not_known_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(Path, "read_text", fail)
    async with open_client(metrics_app()) as client:
        samples = await scrape(client)
    assert samples[f"trio_stream_open_connections{OWN}"] == 1
    assert f"process_resident_memory_bytes{OWN}" not in samples


# Probes...


async def probe(client: Client, path: str) -> tuple[int, bytes]:
    response = await client.get(path)
    assert response.headers["Cache-Control"] == "no-store"
    return response.status_code, await response.read()


async def test_probes_are_well() -> None:
    app = App()
    app.health()
    async with open_client(app) as client:
        assert await probe(client, "/livez") == (200, b"OK\n")
        assert await probe(client, "/readyz") == (200, b"OK\n")


@pytest.mark.parametrize("is_async", [False, True])
async def test_an_app_has_its_own_say_in_readiness(is_async: bool) -> None:
    ready = False

    async def check_later() -> bool:
        await trio.lowlevel.checkpoint()
        return ready

    app = App()
    app.health("/healthy", "/ready", check=check_later if is_async else lambda: ready)
    async with open_client(app) as client:
        assert await probe(client, "/ready") == (503, b"Service Unavailable\n")
        assert await probe(client, "/healthy") == (200, b"OK\n")
        ready = True
        assert await probe(client, "/ready") == (200, b"OK\n")


async def test_readiness_fails_as_soon_as_a_shutdown_begins() -> None:
    go_on = trio.Event()

    async def check() -> bool:
        await go_on.wait()
        return True

    app = App()
    app.health(check=check)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            server = await start_server(nursery, app)
            async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
                await stream.send_all(get("/readyz"))
                while not server.stats.active_responses:
                    await trio.sleep(0.001)
                server.shutdown()
                go_on.set()
                answer = b"".join([data async for data in stream])
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"Connection: close\r\n" in answer


async def test_a_failing_check_is_not_ready_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    app.health(check=lambda: 1 / 0)
    async with open_client(app) as client:
        assert (await client.get("/readyz")).status_code == 500
        await wait_all_tasks_blocked()
    (record,) = caplog.records
    assert record.exc_info is not None
    caplog.clear()


@pytest.mark.parametrize("version", ["abc", "x", '"1.0.0"', "", "1.x.0"])
@pytest.mark.parametrize("media_type", ["application/openmetrics-text", "text/plain"])
async def test_a_version_that_is_none_is_no_error(media_type: str, version: str) -> None:
    app = App()
    app.metrics("/metrics")
    async with open_client(app) as client:
        accept = f"{media_type};version={version}"
        response = await client.request("GET", "/metrics", headers=[("Accept", accept)])
        assert response.status_code == 200
        assert b"trio_stream_requests" in await response.read()
