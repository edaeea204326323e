"""Pages, lists and what runs every few seconds send as many statements for twice as many queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from labeling.models import Project
from scoring.rating import rate_stale, stale_project_ids, stale_query_ids
from tests.factories.rows import make_judges, make_project, make_run, make_user
from tests.factories.working import judge_all
from workers.budgets.spend import spend_of_project, totals_of_project
from workers.jobs.calibration import whats_due
from workers.judging import queue
from workers.models import ProjectFigure, Run
from workers.runs import advancing
from workers.runs.progress import run_progress
from zelo_site.api.root import api

# The rater reads in a transaction of its own.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]

SMALL, LARGE, AT_ONCE = 7, 14, 3
OF_PROJECT = (
    "project", "project-live", "project-story", "project-figures", "settings", "audit", "imports", "exports", "new-run", "trials",
    "queries", "people", "people-agreement", "disagreements", "scorecard", "agreement", "scale", "snapshots", "training", "proof",
    "rerankers", "distill", "recipe", "recordings", "probes", "failures", "webhooks", "candidates", "import", "teachings",
    "charts", "report", "deployments",
)  # fmt: skip
ANSWERED, NOTHING_TO_TELL = (200, 204, 302), (404, 409, 422)  # of a leaderboard before there is one
# A file of the whole project, which costs what it holds.
FILES = ("archive",)
OF_QUERY = ("query", "query-ranking", "matrix", "graph", "where-next")


def judged(queries: int, owner: Any) -> Run:
    """A project of so many queries with scores, and a second run whose questions are open."""
    project = make_project(owner=owner, queries=queries, documents=4)
    first, second = make_judges(project, 2)
    judge_all(make_run(project, judges=[first]))
    rate_stale(project.pk)
    return make_run(project, judges=[second])


def places(run: Run, client: Client) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What is read, by a name that does not depend on the project, and how."""
    project: Project = run.project
    query = project.queries.order_by("id").values_list("pk", flat=True)[0]
    addresses = {name: reverse(name, args=[project.slug]) for name in OF_PROJECT}
    addresses |= {name: reverse(name, args=[project.slug, query]) for name in OF_QUERY}
    addresses |= {"jobs": "/jobs/", "projects": "/", "budget": reverse("budget", args=[project.slug, run.pk])}
    addresses |= {"find": "/find/?q=abc", "jobs-live": "/jobs/live/", "server-audit": "/audit/"}
    addresses |= {path: path.replace("{slug}", project.slug) for path in lists()}
    addresses["api run"] = f"/api/v1/runs/{run.pk}"
    addresses["api scores"] = f"/api/v1/queries/{query}/scores"
    for name, address in addresses.items():
        yield name, lambda address=address: client.get(address)
    yield "progress", lambda: run_progress(run)
    yield "spend", lambda: (spend_of_project(project.pk), totals_of_project(project.pk))
    yield "stale queries", lambda: (stale_project_ids(), stale_query_ids(project.pk, limit=10))
    yield "calibration", whats_due
    yield "claimable", queue.open_tasks_by_annotator
    yield "leases", queue.reap
    yield "advance", lambda: advancing.advance(run.pk)
    yield "runs to advance", lambda: advancing.runs_to_advance(project.pk)


def lists() -> list[str]:
    """What the API tells of a project without another parameter, as its document describes it."""
    found = []
    for path, operations in api.get_openapi_schema()["paths"].items():
        wanted = operations.get("get", {}).get("parameters", [])
        needed = [each["name"] for each in wanted if each["in"] == "path" or each.get("required")]
        if "get" in operations and needed == ["slug"] and not path.endswith(FILES):
            found.append(path)
    return found


def statements(run: Run, client: Client) -> dict[str, int]:
    found = {}
    for name, read in places(run, client):
        cache.clear()
        ProjectFigure.objects.all().delete()
        with CaptureQueriesContext(connection) as captured:
            answer = read()
            good = ANSWERED + (NOTHING_TO_TELL if name.startswith("/api/") else ())
            assert getattr(answer, "status_code", 200) in good, name
        found[name] = len(captured)
    return found


def test_statements_do_not_grow_with_the_number_of_queries(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advancing, "QUERIES_AT_ONCE", AT_ONCE)
    owner = make_user(is_superuser=True)
    client.force_login(owner)
    small, large = judged(SMALL, owner), judged(LARGE, owner)
    for run in (small, large):  # what a process reads once, and figures that are stored at the first look
        statements(run, client)
    assert statements(large, client) == statements(small, client)
