"""Queries without candidates: every page that meets them offers to find some, to owners only."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from labeling.models import Document, Membership, Project, Query
from tests.factories.pages import make_query, make_user, page
from workers.jobs.candidates import fill
from workers.models import Job

pytestmark = pytest.mark.django_db


@pytest.fixture
def bare(project: Project) -> Query:
    """A query without candidates in a project that has a document for it."""
    Document.objects.create(project=project, external_id="d1", text="goldfish grow")
    return Query.objects.create(project=project, external_id="bare", text="do goldfish grow")


def pages(client: Client, query: Query) -> list[str]:
    slug = query.project.slug
    return [page(client, "project", slug), page(client, "queries", slug), page(client, "query", slug, query.pk)]


def test_every_page_offers_and_names_the_command(client: Client, bare: Query) -> None:
    for html in pages(client, bare):
        assert "1 query has no candidates" in html
        assert 'id="find-candidates"' in html
        assert f"python manage.py candidates {bare.project.slug}" in html


def test_viewers_get_no_button_and_may_not_order(client: Client, bare: Query) -> None:
    viewer = make_user()
    Membership.objects.create(project=bare.project, user=viewer, role="viewer")
    client.force_login(viewer)
    assert not any("find-candidates" in html for html in pages(client, bare))
    assert client.post(reverse("candidates", args=[bare.project.slug])).status_code == 403


def test_the_button_orders_once_and_the_page_follows_to_the_end(client: Client, bare: Query, owner: Any) -> None:
    address = reverse("candidates", args=[bare.project.slug])
    for _ in range(2):
        assert client.post(address).status_code == 302
    job = Job.objects.get(stage="candidates")
    assert all("Retrieving candidates" in html for html in pages(client, bare))
    assert "python manage.py worker judging" in client.get(address, headers={"HX-Request": "true"}).content.decode()
    Job.objects.filter(pk=job.pk).update(payload={"retriever": "bm25", "options": {}, "k": 5})
    fill(job.pk)
    assert "1 candidate retrieved" in client.get(address, headers={"HX-Request": "true"}).content.decode()
    assert not any("find-candidates" in html or 'id="filling"' in html for html in pages(client, bare))


def test_why_the_last_attempt_failed_is_shown(client: Client, bare: Query) -> None:
    Job.objects.create(project=bare.project, stage="candidates", state="failed", error="no <b>memory</b>")
    assert "no &lt;b&gt;memory" in page(client, "project", bare.project.slug)


def test_without_documents_an_import_is_offered(client: Client, project: Project) -> None:
    Query.objects.create(project=project, external_id="bare", text="do goldfish grow")
    html = page(client, "project", project.slug)
    assert "no documents to search" in html
    assert "find-candidates" not in html


def test_where_all_is_there_nothing_is_offered(client: Client, project: Project) -> None:
    assert not any('id="filling"' in html for html in pages(client, make_query(project)))
