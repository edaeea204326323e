"""The list of queries: order, bounds and saved views; counts that agree with a query’s page."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from labeling.models import Candidate, Membership, Project, Query
from scoring.models import QueryFit
from tests.factories.pages import (
    candidates_of,
    judge,
    make_judge,
    make_pair,
    make_project,
    make_query,
    make_user,
    page,
    score,
)
from zelo_site.models import SavedView

pytestmark = pytest.mark.django_db


@pytest.fixture
def queries(project: Project) -> list[Query]:
    """Queries whose relevant document is first, second and third, in another order of ids; the last has no scores."""
    found = []
    for text, relevant in (("second", 1), ("third", 2), ("first", 0)):
        query = make_query(project, text=f"relevant is {text}")
        score(query, [1.0, 0.0, -1.0])
        Candidate.objects.filter(pk=candidates_of(query)[relevant].pk).update(grade=1)
        found.append(query)
    return [*found, make_query(project, text="nobody judged this")]


def listed(html: str) -> list[str]:
    return re.findall(r'<span class="cut">(.*?)</span>', html)


def test_the_worst_query_is_first_and_unknown_ones_last(client: Client, project: Project, queries: list[Query]) -> None:
    html = page(client, "queries", project.slug, sort="ndcg")
    assert listed(html) == ["relevant is third", "relevant is second", "relevant is first", "nobody judged this"]
    assert 'aria-sort="ascending"' in html and "0.500" in html
    assert listed(page(client, "queries", project.slug, sort="-ndcg"))[0] == "relevant is first"


def test_bounds_select_and_wrong_ones_are_left_out(client: Client, project: Project, queries: list[Query]) -> None:
    assert listed(page(client, "queries", project.slug, ndcg_max="0.7")) == ["relevant is second", "relevant is third"]
    assert listed(page(client, "queries", project.slug, ndcg_min="0.6", ndcg_max="0.7")) == ["relevant is second"]
    assert len(listed(page(client, "queries", project.slug, ndcg_max="low", sort="nonsense"))) == 4
    assert "No results" in page(client, "queries", project.slug, judgments_min="1000")


def test_columns_without_any_value_are_left_out(client: Client, project: Project) -> None:
    score(make_query(project), [1.0, 0.0, -1.0])
    html = page(client, "queries", project.slug)
    assert "sort=certainty" in html and 'data-label="NDCG@10"' not in html and "student’s gain</a>" not in html


def test_a_view_is_saved_for_its_user_alone_and_forgotten(
    client: Client, owner: Any, project: Project, queries: list[Query]
) -> None:
    sent = {"name": "my worst", "ndcg_max": "0.7", "sort": "ndcg"}
    html = client.post(reverse("query-views", args=[project.slug]), sent, follow=True).content.decode()
    assert "★ my worst" in html and listed(html) == ["relevant is third", "relevant is second"]
    view = SavedView.objects.get(user=owner)
    assert view.address == "sort=ndcg&ndcg_max=0.7"
    viewer = make_user()
    Membership.objects.create(project=project, user=viewer, role="viewer")
    other = Client()
    other.force_login(viewer)
    assert "my worst" not in page(other, "queries", project.slug)
    other.post(reverse("query-views", args=[project.slug]), {"forget": view.pk})
    assert SavedView.objects.filter(pk=view.pk).exists()
    client.post(reverse("query-views", args=[project.slug]), {"forget": view.pk})
    assert not SavedView.objects.exists()


def test_no_more_than_twenty_views(client: Client, owner: Any, project: Project) -> None:
    elsewhere = make_project(owner)
    SavedView.objects.create(user=owner, project=elsewhere, name="other")
    for number in range(20):
        SavedView.objects.create(user=owner, project=project, name=str(number))
    address = reverse("query-views", args=[project.slug])
    assert "You have 20 saved views" in client.post(address, {"name": "one more"}, follow=True).content.decode()
    client.post(address, {"name": "3", "sort": "ndcg"})
    assert SavedView.objects.get(project=project, name="3").address == "sort=ndcg"


def test_ten_thousand_queries_are_read_a_page_at_a_time(
    client: Client, project: Project, django_assert_num_queries: Any
) -> None:
    for _ in range(3):
        score(make_query(project), [1.0, 0.0, -1.0])
    page(client, "queries", project.slug)  # measures them
    with django_assert_num_queries(8):
        page(client, "queries", project.slug, sort="-disagreement")


def test_the_query_says_how_many_of_its_judgments_the_scores_hold(client: Client, project: Project) -> None:
    query = make_query(project, size=2)
    judge(make_pair(*candidates_of(query)), make_judge(project), 0.8)
    score(query, [1.0, -1.0])
    html = page(client, "query", project.slug, query.pk)
    assert "1 judgment" in html and "2 in the scores" in html
    QueryFit.objects.update(judgments=1)
    assert "in the scores" not in page(client, "query", project.slug, query.pk)
