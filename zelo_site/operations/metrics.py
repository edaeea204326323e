"""GET /metrics, in Prometheus' text format: queues, answers, spend, scores, endpoints, workers, GPUs, web requests and
the ranking server.

The ranking server and the web processes count their requests (`web_metrics`). Every other sample is read from the database when it is
scraped, so any web process gives the same answer. Counters are sums of rows that
triggers maintain (`Spend`) and fall when a run is deleted; Prometheus treats that as a restart. Tables of the size of all
judgments are not read, but for the failures of the last `RECENT_MINUTES`, which an index finds.

Names and units follow https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import hmac
import shutil
import time
from collections.abc import Iterator

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from labeling.access.api_keys import find_token
from labeling.records import FailureKind
from workers.broker.client import broker_answers
from workers.endpoints.limiter import endpoint_states
from workers.models import EndpointState, Job, Worker
from workers.monitoring.heartbeats import alive
from workers.monitoring.queue_depth import read_backlog
from zelo_site.operations.server_metrics import gauge, read_rows, server_metrics
from zelo_site.operations.web_metrics import web_metrics
from zelo_site.reranking import ranking_metrics

RECENT_MINUTES = 5
# Sees every project; it is never stored.
_OPERATOR = User(username="metrics", is_active=True, is_superuser=True)

_SPEND = """
SELECT project.slug, judge.name, sum(spend.calls), sum(spend.answers), sum(spend.input_tokens), sum(spend.output_tokens),
       sum(spend.cost_micros)
FROM workers_spend spend
JOIN workers_run run ON run.id = spend.run_id
JOIN labeling_project project ON project.id = run.project_id
JOIN labeling_annotator judge ON judge.id = spend.annotator_id
GROUP BY project.slug, judge.name ORDER BY project.slug, judge.name
"""
_FAILURES = """
SELECT outcome, count(*) FROM workers_attempt
WHERE finished_at > clock_timestamp() - make_interval(mins => %s) AND outcome NOT IN ('', 'reserved')
GROUP BY outcome ORDER BY outcome
"""
# An alert on growth sees no first failure where the series begins with it, so these begin at 0.
STAGES = (
    "archive", "calibrate", "candidates", "deletion", "distill", "evaluate", "import", "pairs", "probe", "recipe",
    "refine", "teaching", "train", "trial",
)  # fmt: skip
_JOBS = "SELECT stage, state, count(*) FROM workers_job GROUP BY stage, state ORDER BY stage, state"
_DEAD = "SELECT reason, count(*) FROM workers_judgingtask WHERE state = 'dead' GROUP BY reason ORDER BY reason"


@login_not_required
@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """All metrics; for ZELO_METRICS_KEY, or a superuser's key or session. Others get 401 or 403, with the remedy."""
    if not _may_read(request):
        remedy = (
            "send `Authorization: Bearer KEY` with ZELO_METRICS_KEY or a superuser's API key with permission read\n"
        )
        status = 403 if request.user.is_authenticated else 401
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        return HttpResponse(remedy, status=status, content_type="text/plain; charset=utf-8", headers=headers)
    registry = CollectorRegistry()
    registry.register(ServerCollector())
    ranking = ranking_metrics()
    up = gauge("zelo_rerank_up", "1 if the ranking server answers.", [((), float(ranking is not None))])
    registry.register(Constant(up))
    text = generate_latest(registry) + web_metrics() + (ranking or "").encode()
    return HttpResponse(text, content_type=CONTENT_TYPE_LATEST)


def _may_read(request: HttpRequest) -> bool:
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    token = token.strip()
    if kind.lower() == "bearer" and token:
        expected = settings.ZELO_METRICS_KEYS
        if any(hmac.compare_digest(token.encode(), key.encode()) for key in expected):
            return True
        found = find_token(token)
        request.has_valid_key = found is not None  # type: ignore[attr-defined]
        return found is not None and "read" in found.scopes and found.user.is_superuser
    return request.user.is_authenticated and bool(getattr(request.user, "is_superuser", False))


class Constant(Collector):
    """One metric that was read already."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield self._metric


class ServerCollector(Collector):
    """Reads the state of the server at each scrape."""

    def describe(self) -> list[Metric]:
        return []  # registering must not read the database

    def collect(self) -> Iterator[Metric]:
        began = time.monotonic()
        yield gauge("zelo_broker_up", "1 if the broker answers.", [((), float(broker_answers()))])
        yield from _queues()
        yield from _work()
        yield from _spend()
        yield from _endpoints()
        yield from _workers()
        yield from server_metrics()
        yield gauge(
            "zelo_home_free_bytes", "Free space of ZELO_HOME.", [((), shutil.disk_usage(settings.ZELO_HOME).free)]
        )
        yield gauge("zelo_scrape_seconds", "Time that these figures took to read.", [((), time.monotonic() - began)])


def _queues() -> Iterator[Metric]:
    now = timezone.now()
    backlog = read_backlog(_OPERATOR)
    served = [queue for worker in alive() for queue in worker.queues.split(",")]
    labels = ["queue"]
    yield gauge("zelo_queue_due", "Work that is due.", [((each.queue,), each.due) for each in backlog], labels)
    yield gauge(
        "zelo_queue_later", "Work that waits for a retry.", [((each.queue,), each.later) for each in backlog], labels
    )
    yield gauge(
        "zelo_queue_in_flight", "Work in progress.", [((each.queue,), each.in_flight) for each in backlog], labels
    )
    yield gauge(
        "zelo_queue_oldest_seconds",
        "Age of the oldest work that is due; 0 without any.",
        [((each.queue,), max(0.0, (now - each.oldest).total_seconds()) if each.oldest else 0.0) for each in backlog],
        labels,
    )
    yield gauge(
        "zelo_queue_workers",
        "Live workers of the queue.",
        [((each.queue,), served.count(each.queue)) for each in backlog],
        labels,
    )


def _work() -> Iterator[Metric]:
    jobs = {(stage, Job.State.FAILED.value): 0 for stage in STAGES} | {row[:2]: row[2] for row in read_rows(_JOBS)}
    yield gauge("zelo_jobs", "Jobs by stage and state.", list(jobs.items()), ["stage", "state"])
    dead = {(kind.value,): 0 for kind in FailureKind} | {row[:1]: row[1] for row in read_rows(_DEAD)}
    text = "Questions that failed and are not retried, by reason."
    yield gauge("zelo_dead_letters", text, list(dead.items()), ["reason"])
    yield gauge(
        "zelo_recent_calls", f"Calls of the last {RECENT_MINUTES} minutes, by outcome.",
        [(row[:1], row[1]) for row in read_rows(_FAILURES, [RECENT_MINUTES])], ["outcome"],
    )  # fmt: skip


def _spend() -> Iterator[Metric]:
    rows = read_rows(_SPEND)
    counted: tuple[tuple[str, str, int, float], ...] = (
        ("zelo_judge_calls", "Calls of judges.", 2, 1.0),
        ("zelo_judge_answers", "Calls that were answered.", 3, 1.0),
        ("zelo_judge_input_tokens", "Tokens that judges read.", 4, 1.0),
        ("zelo_judge_output_tokens", "Tokens that judges wrote.", 5, 1.0),
        ("zelo_judge_cost_dollars", "Cost of calls in US dollars.", 6, 1e-6),
    )
    for name, text, column, unit in counted:
        family = CounterMetricFamily(name, text, labels=["project", "judge"])
        for row in rows:
            family.add_metric([str(part) for part in row[:2]], float(row[column]) * unit)
        yield family


def _endpoints() -> Iterator[Metric]:
    views = endpoint_states()
    labels = ["endpoint", "model"]
    state = GaugeMetricFamily(
        "zelo_endpoint_state", "1 for the state that the endpoint is in.", labels=[*labels, "state"]
    )
    for view in views:
        for mode in EndpointState.Mode.values:
            state.add_metric([view.name, view.model, mode], float(view.state == mode))
    yield state
    yield gauge(
        "zelo_endpoint_wait_seconds",
        "Time until the next call.",
        [((v.name, v.model), v.wait_s) for v in views],
        labels,
    )
    yield gauge("zelo_endpoint_in_flight", "Open calls.", [((v.name, v.model), v.in_flight) for v in views], labels)
    for name, text, values in (
        ("zelo_endpoint_rate_limited", "Replies 429.", [v.rate_limited for v in views]),
        ("zelo_endpoint_outages", "Outages.", [v.outages for v in views]),
    ):
        family = CounterMetricFamily(name, text, labels=labels)
        for view, value in zip(views, values, strict=True):
            family.add_metric([view.name, view.model], value)
        yield family


def _workers() -> Iterator[Metric]:
    workers: list[Worker] = list(alive())
    yield gauge(
        "zelo_worker_up", "1 for each live worker.", [((w.name, w.queues), 1.0) for w in workers], ["worker", "queues"]
    )
    gpus = {(worker.host, str(number)): gpu for worker in workers for number, gpu in enumerate(worker.gpus)}
    for name, text, key, unit in (
        ("zelo_gpu_memory_bytes", "Memory of the GPU.", "memory_mib", 1024.0**2),
        ("zelo_gpu_memory_used_bytes", "Memory of the GPU in use.", "used_mib", 1024.0**2),
        ("zelo_gpu_utilization_ratio", "Share of time in which the GPU works.", "utilisation", 0.01),
    ):
        found = [(place, gpu[key] * unit) for place, gpu in gpus.items() if gpu.get(key) is not None]
        yield gauge(name, text, found, ["host", "gpu"])
