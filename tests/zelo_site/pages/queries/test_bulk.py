"""Actions on selected queries: each is shown first, and does what the verb of a single query does."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from labeling.access.annotators import get_judge
from labeling.models import AuditEntry, Document, Project, Query, SpotCheck
from scoring.sampling.draw import comparable_query_ids
from tests.factories.pages import make_query, make_run, page, score
from workers.models import Run

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]


@pytest.fixture
def queries(project: Project) -> list[Query]:
    found = [make_query(project, text=f"question {at}") for at in range(3)]
    for query in found:
        score(query, [1.0, 0.0, -1.0])
    return found


def act(client: Client, project: Project, action: str, **sent: Any) -> str:
    """Look at the page of the action, then send its form."""
    shown = page(client, "bulk-queries", project.slug, action=action, **sent)
    assert "selected" in shown
    answer = client.post(reverse("bulk-queries", args=[project.slug]), {"action": action, **sent}, follow=True)
    return str(answer.content.decode())


def test_exclude_and_include(client: Client, project: Project, queries: list[Query]) -> None:
    chosen = [queries[0].pk, queries[2].pk]
    assert "2 queries excluded." in act(client, project, "exclude", query=chosen)
    assert comparable_query_ids(project.pk) == [queries[1].pk]
    assert page(client, "queries", project.slug, show="excluded").count('class="excluded"') == 2
    assert "1 query included again." in act(client, project, "include", query=[queries[0].pk])
    assert comparable_query_ids(project.pk) == [queries[0].pk, queries[1].pk]
    assert list(
        AuditEntry.objects.filter(action__startswith="query.").order_by("id").values_list("action", flat=True)
    ) == [
        "query.excluded",
        "query.included",
    ]


def test_delete_keeps_documents(client: Client, project: Project, queries: list[Query]) -> None:
    documents = Document.objects.count()
    assert "deleted." in act(client, project, "delete", query=[queries[0].pk, queries[1].pk])
    assert list(Query.objects.all()) == [queries[2]]
    assert Document.objects.count() == documents


def test_all_means_all_of_the_view(client: Client, project: Project, queries: list[Query]) -> None:
    assert "1 query excluded." in act(client, project, "exclude", all="1", q="question 2")
    assert Query.objects.get(excluded_at__isnull=False) == queries[2]


def test_ask_more_starts_a_run_like_the_last_one(client: Client, project: Project, queries: list[Query]) -> None:
    assert "No judges yet" in act(client, project, "ask", query=[queries[0].pk])
    make_run(project, state="finished").judges.set([get_judge(project, "test-longer", {})])
    act(client, project, "ask", query=[queries[0].pk, queries[1].pk], pairs="2")
    run = Run.objects.latest("id")
    assert run.query_ids == [queries[0].pk, queries[1].pk]
    assert (run.sampler, run.sampler_options["pairs"], run.pair_budget) == ("uncertain", 2, 4)


def test_spot_check_plans_the_next_pairs(client: Client, project: Project, queries: list[Query]) -> None:
    assert "Planned 2 pairs." in act(client, project, "check", query=[queries[0].pk, queries[1].pk])
    assert set(SpotCheck.objects.values_list("pair__query_id", flat=True)) == {queries[0].pk, queries[1].pk}


def test_nothing_selected_and_queries_of_others(client: Client, project: Project, queries: list[Query]) -> None:
    address = reverse("bulk-queries", args=[project.slug])
    assert "No query is selected" in client.get(address, {"action": "delete"}, follow=True).content.decode()
    foreign = make_query(Project.objects.create(name="Other", slug="other"))
    client.post(address, {"action": "delete", "query": [foreign.pk, "9" * 40, "x"]})
    assert Query.objects.filter(pk=foreign.pk).exists()
