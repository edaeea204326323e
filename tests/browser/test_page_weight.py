"""The five most used pages are light: what Lighthouse's performance score comes from, measured without Lighthouse.

Processor time of the page's main thread is counted by the browser, and does not grow while the machine does other work as
much as the time on the clock. `benchmarks/lighthouse.py` takes the scores themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from labeling.annotation.assignments import open_assignments
from labeling.annotation.instruction import confirm_read, instruction_hash
from labeling.models import Project, Query
from tests.browser.checks import Start, all_faults
from tests.factories.pages import (
    candidates_of,
    judge,
    make_judge,
    make_pair,
    make_project,
    make_query,
    make_user,
    score,
)

pytestmark = [pytest.mark.long, pytest.mark.browser, pytest.mark.django_db(transaction=True)]

# A phone of the middle class has a quarter of this machine's speed; a page may block it for 200 ms, besides tasks of 50 ms.
MOST_MS = 300
# The test server sends static files as they are; `test_compression.py` checks that the server does not.
MOST_BYTES = 160_000
MOST_SHIFT = 0.05
PHONE = {"viewport": {"width": 412, "height": 823}}
_SHIFT = """() => new Promise((found) => {
  let sum = 0;
  new PerformanceObserver((list) => { for (const entry of list.getEntries()) if (!entry.hadRecentInput) sum += entry.value; })
    .observe({ type: "layout-shift", buffered: true });
  setTimeout(() => found(sum), 300);
})"""


@dataclass
class Weight:
    """What a page costs: milliseconds of processor time, bytes over the network, the sum of its layout shifts."""

    ms: float
    sent: int
    shift: float


@pytest.fixture
def owner() -> User:
    return make_user("ada", is_staff=True, is_superuser=True)


@pytest.fixture
def project(owner: User) -> Project:
    """The demo's size: thirty-five queries, one of which has two dozen scored and judged documents."""
    project = make_project(owner)
    for number in range(35):
        query = make_query(
            project, size=24 if number == 0 else 4, text=f"how do I keep the last {number} lines of a file"
        )
        score(query, [1.0 - at / 12 for at in range(24 if number == 0 else 4)])
    query = Query.objects.filter(project=project).earliest("id")
    documents, annotator = candidates_of(query), make_judge(project)
    pairs = [make_pair(documents[at], documents[at + 1]) for at in range(23)]
    for pair in pairs:
        judge(pair, annotator, 0.8)
    open_assignments([pair.pk for pair in pairs], reason="random")
    confirm_read(project, owner, seen=instruction_hash(project))
    return project


def addresses(project: Project) -> dict[str, str]:
    query = Query.objects.filter(project=project).earliest("id")
    return {
        "project": reverse("project", args=[project.slug]),
        "compare": reverse("compare", args=[project.slug]),
        "queries": reverse("queries", args=[project.slug]),
        "new-run": reverse("new-run", args=[project.slug]),
        "query": reverse("query", args=[project.slug, query.pk]),
    }


def weigh(visit: Start, owner: User, path: str) -> Weight:
    """Load the page in a new browser without a cache, and wait for what it asks for by itself."""
    visited = visit(owner, **PHONE)
    browser = visited.page.context.new_cdp_session(visited.page)
    browser.send("Performance.enable", {"timeDomain": "threadTicks"})
    browser.send("Network.enable")
    sent: list[float] = []
    browser.on("Network.loadingFinished", lambda event: sent.append(event["encodedDataLength"]))
    visited.open(path)
    visited.page.wait_for_timeout(1500)
    shift = float(visited.page.evaluate(_SHIFT))
    metrics: dict[str, Any] = {
        each["name"]: each["value"] for each in browser.send("Performance.getMetrics")["metrics"]
    }
    visited.page.context.close()
    return Weight(1000 * metrics["TaskDuration"], int(sum(sent)), shift)


def test_the_most_used_pages_are_light(visit: Start, owner: User, project: Project) -> None:
    too_heavy = {}
    for name, path in addresses(project).items():
        found = min((weigh(visit, owner, path) for _ in range(2)), key=lambda each: each.ms)
        if found.ms > MOST_MS or found.sent > MOST_BYTES or found.shift > MOST_SHIFT:
            too_heavy[name] = found
    assert not too_heavy


def test_the_most_used_pages_have_no_fault_of_any_weight(visit: Start, owner: User, project: Project) -> None:
    faults = {}
    for look in ("light", "dark", "phone"):
        visited = visit(owner, look=look)
        for name, path in addresses(project).items():
            visited.open(path)
            visited.page.wait_for_timeout(500)
            if found := all_faults(visited):
                faults[f"{name}, {look}"] = found
    assert not faults
