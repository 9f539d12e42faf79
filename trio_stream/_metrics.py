"""What a server counts, for Prometheus; and whether it is well, for orchestrators."""

from __future__ import annotations

from collections import Counter
from inspect import isawaitable
from typing import TYPE_CHECKING

from ._routing import Handler, answer_status
from ._stats import AbortReason
from ._worker_stats import all_workers

try:
    from prometheus_client import core, exposition
except ImportError:
    HAVE_PROMETHEUS = False
else:
    HAVE_PROMETHEUS = True

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from prometheus_client.core import Metric

    from ._request import Request
    from ._response import Response
    from ._worker_stats import WorkerStats

# The fields of `Stats` that are summed, and those that are shown for each worker.
COUNTERS = {
    "connections": ("connections", "Connections accepted."),
    "requests": ("requests", "Requests received, without those that were refused as malformed."),
    "body_bytes_received": ("request_body_bytes", "Bytes of request bodies that handlers read."),
    "body_bytes_sent": ("response_body_bytes", "Bytes of response bodies sent."),
    "parks": ("parks", "How often a send had to wait for its client."),
}
GAUGES = {
    "open_connections": ("open_connections", "Connections that are open."),
    "active_responses": ("active_responses", "Responses under way."),
    "shutting_down": ("shutting_down", "Whether a shutdown has begun."),
}


async def send_metrics(res: Response, req: Request) -> None:
    """Answer with the metrics of all workers, in the format that the client prefers.

    No answer is better than one without some of the workers: counters that fall look like those of
    a server that has begun anew.
    """
    workers = await all_workers(res._stats)
    if workers is None:
        answer_status(res, 503)
        return
    try:
        encode, content_type = exposition.choose_encoder(req.headers.get("Accept", ""))
    except (TypeError, ValueError):  # it asks for a version that does not exist
        encode, content_type = exposition.choose_encoder("")
    res.write_header("Content-Type", content_type).write_header("Cache-Control", "no-store")
    res.end(encode(_Collector(workers)))


class _Collector:
    """A registry of one moment, with nothing else in it."""

    def __init__(self, workers: Sequence[WorkerStats]) -> None:
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        all_stats = [worker.stats for worker in self._workers]
        for field, (name, text) in COUNTERS.items():
            metric = core.CounterMetricFamily(f"trio_stream_{name}", text)
            metric.add_metric((), sum(getattr(stats, field) for stats in all_stats))
            yield metric
        responses = sum((stats.responses for stats in all_stats), Counter())
        yield _counts(
            "responses",
            "Responses that are over, by status.",
            "code",
            ((str(status), count) for status, count in sorted(responses.items())),
        )
        aborts = sum((stats.aborts for stats in all_stats), Counter())
        yield _counts(
            "aborts",
            "Responses that ended before they were complete, by reason.",
            "reason",
            ((reason.name.lower(), aborts[reason]) for reason in AbortReason),
        )
        alive = [worker for worker in self._workers if not worker.is_over]
        for field, (name, text) in GAUGES.items():
            gauge = core.GaugeMetricFamily(f"trio_stream_{name}", text, labels=("worker",))
            for worker in alive:
                gauge.add_metric((str(worker.worker),), getattr(worker.stats, field))
            yield gauge
        memory = core.GaugeMetricFamily(
            "process_resident_memory_bytes", "Resident memory.", labels=("worker",)
        )
        cpu = core.CounterMetricFamily(
            "process_cpu_seconds", "User and system time.", labels=("worker",)
        )
        for worker in alive:
            if worker.memory:
                memory.add_metric((str(worker.worker),), worker.memory)
            cpu.add_metric((str(worker.worker),), worker.cpu_seconds)
        yield memory
        yield cpu


def _counts(name: str, text: str, label: str, counts: Iterable[tuple[str, int]]) -> Metric:
    metric = core.CounterMetricFamily(f"trio_stream_{name}", text, labels=(label,))
    for value, count in counts:
        metric.add_metric((value,), count)
    return metric


def tell_live(res: Response, _: Request) -> None:
    """Answer 200: the loop turns."""
    _answer(res, is_well=True)


def make_tell_ready(check: Callable[[], object] | None) -> Handler:
    """A handler that answers 200, or 503 when a shutdown has begun or `check` is not content."""

    async def tell_ready(res: Response, _: Request) -> None:
        is_well = True if check is None else check()
        if isawaitable(is_well):
            is_well = await is_well
        _answer(res, is_well=bool(is_well) and not res._stats.shutting_down)

    return tell_ready


def _answer(res: Response, *, is_well: bool) -> None:
    res.write_header("Cache-Control", "no-store")
    answer_status(res, 200 if is_well else 503)
