"""Pages, API lists and what runs every few seconds, measured on the project of `benchmarks/scale.py`.

A second judge's run is planned first, so that there are as many open questions as answers. Figures that pages leave to a worker are
measured next (`figures_s`). Each address is asked with an empty cache; statements that take longer than SLOW_MS are printed with their plans. Files, which stream every row of a project, are measured
to their end and counted apart: they are no pages.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

SLOW_MS = 200.0
LONGEST_SQL = 1500


def measure_pages(project: Any) -> dict[str, Any]:
    from django.contrib.auth import get_user_model
    from django.test import Client
    from django.test.utils import setup_test_environment

    setup_test_environment()
    planned = plan_second_run(project)
    client = Client()
    client.force_login(get_user_model().objects.get(username="owner"))
    client.get("/")  # templates, translations and imports
    figures_s = measure_figures(project, client)
    pages: list[dict[str, Any]] = []
    slow: list[dict[str, Any]] = []
    for address in addresses(project):
        measure(address, lambda address=address: _get(client, address), pages, slow)
    for name, work in operations(project):
        measure(name, work, pages, slow)
    pages.sort(key=lambda page: -page["ms"])
    files, pages = [each for each in pages if each["is_file"]], [each for each in pages if not each["is_file"]]
    slow = [each for each in slow if not any(each["address"] == file["address"] for file in files)]
    return {
        "rows": len(pages), "seconds": sum(page["ms"] for page in pages) / 1000, "open_questions": planned,
        "figures_s": round(figures_s, 1),
        "slowest_page_ms": pages[0]["ms"], "slowest_statement_ms": max((each["ms"] for each in slow), default=0.0),
        "pages": pages, "slow": slow, "files": files,
    }  # fmt: skip


def measure_figures(project: Any, client: Any) -> float:
    """Ask for the stored figures, as their pages do, and measure them as a worker does; returns the seconds that this took."""
    from django.urls import reverse

    from workers.monitoring.project_figures import measure_wanted

    for name in ("project-figures", "report", "scorecard", "agreement"):
        client.get(reverse(name, args=[project.slug]))
    began = time.monotonic()
    measure_wanted(project.pk, until=math.inf)
    return time.monotonic() - began


def plan_second_run(project: Any) -> int:
    """Order and plan a run of a second judge, whose questions nobody asks."""
    from benchmarks.scale_stages import plan_whole
    from labeling.access.annotators import get_judge
    from workers.models import Run
    from workers.runs.ordering import start_run

    judge = get_judge(project, "computed", {"noise": 1})
    ordered = Run.objects.filter(judges=judge).first() or start_run(project, judges=[judge], seed=3)
    plan_whole(ordered)
    ordered.refresh_from_db()
    return int(ordered.tasks_planned)


def _get(client: Any, address: str) -> bool:
    """Read an address to its end; returns whether it is a file."""
    answer = client.get(address)
    if answer.status_code not in (200, 204, 302):
        raise RuntimeError(f"{address} answered {answer.status_code}")
    if answer.streaming:
        for _ in answer.streaming_content:
            pass
    return bool(answer.streaming)


def measure(address: str, work: Callable[[], Any], pages: list[dict[str, Any]], slow: list[dict[str, Any]]) -> None:
    from django.core.cache import cache
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    cache.clear()
    with CaptureQueriesContext(connection) as captured:
        began = time.perf_counter()
        is_file = work() is True
        took = 1000.0 * (time.perf_counter() - began)
    statements = captured.captured_queries
    pages.append({"address": address, "ms": round(took, 1), "statements": len(statements), "is_file": is_file})
    for each in statements:
        if 1000.0 * float(each["time"]) > SLOW_MS:
            sql = each["sql"]
            slow.append(
                {"address": address, "ms": 1000.0 * float(each["time"]), "sql": sql[:LONGEST_SQL], "plan": _plan(sql)}
            )


def _plan(sql: str) -> str:
    from django.db import connection

    if not sql.lstrip().upper().startswith(("SELECT", "WITH")):
        return ""
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {sql}".replace("%", "%%"), ())
        return "\n".join(row[0] for row in cursor.fetchall()[:30])


def addresses(project: Any) -> Iterator[str]:
    """The pages of a project and the lists of the API."""
    from django.urls import reverse

    from workers.models import Run

    slug = project.slug
    query = project.queries.order_by("id").values_list("pk", flat=True)[0]
    run = Run.objects.filter(project=project).order_by("-id").values_list("pk", flat=True)[0]
    yield from ("/", "/jobs/", "/jobs/live/", "/audit/", "/find/?q=abc")
    for name in (
        "project", "project-live", "project-story", "project-figures", "settings", "audit", "imports", "exports", "new-run",
        "trials", "teachings", "queries", "people", "people-agreement", "disagreements", "scorecard", "agreement", "scale",
        "snapshots", "training", "proof", "report", "rerankers", "distill", "recipe", "recordings", "probes", "failures",
    ):  # fmt: skip
        yield reverse(name, args=[slug])
    yield reverse("queries", args=[slug]) + "?q=zz"
    for name in ("query", "query-ranking", "matrix", "graph", "where-next"):
        yield reverse(name, args=[slug, query])
    yield reverse("budget", args=[slug, run])
    listed = (
        "runs",
        "queries",
        "judges",
        "judgments",
        "documents",
        "pairs",
        "snapshots",
        "rerankers",
        "trainings",
        "jobs",
    )
    known = api_paths()
    for name in listed:
        if f"/api/v1/projects/{{slug}}/{name}" in known:
            yield f"/api/v1/projects/{slug}/{name}"
    yield from (
        "/api/v1/projects",
        f"/api/v1/projects/{slug}",
        f"/api/v1/runs/{run}",
        f"/api/v1/queries/{query}/scores",
    )


def api_paths() -> set[str]:
    """The addresses of the API's GET operations, with their parameters' names."""
    from zelo_site.api.root import api

    return {path for path, methods in api.get_openapi_schema()["paths"].items() if "get" in methods}


def operations(project: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What the reconciler and the workers do every few seconds, and figures that pages and commands read."""
    from scoring.rating import stale_project_ids, stale_query_ids
    from workers.budgets.spend import spend_of_project, totals_of_project
    from workers.jobs.calibration import whats_due
    from workers.judging import queue
    from workers.models import Run
    from workers.reconciler import reconcile_once
    from workers.runs.advancing import advance, runs_to_advance
    from workers.runs.progress import run_progress

    last = Run.objects.filter(project=project).order_by("-id")[0]
    yield "progress of the run", lambda: run_progress(last)
    yield "spend of the project", lambda: (spend_of_project(project.pk), totals_of_project(project.pk))
    yield "stale projects", stale_project_ids
    yield "stale queries", lambda: stale_query_ids(project.pk, limit=200)
    yield "what calibration is due", lambda: whats_due()
    yield "judges with open questions", queue.open_tasks_by_annotator
    yield "expired leases", queue.reap
    yield "runs to advance", lambda: runs_to_advance(project.pk)
    yield "advance of a run that waits", lambda: advance(last.pk)
    yield "reconciler, one round", reconcile_once
