"""The panel's contradictions on the judges' page, also after documents of a listed circle were deleted."""

from __future__ import annotations

import pytest
from django.test import Client

from labeling.models import Membership, Pair
from scoring.rating import rate_stale
from tests.factories.pages import page
from tests.factories.rows import judge_pair, make_judges, make_pair, make_project, make_query_with_documents, make_user

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]


@pytest.mark.parametrize("gone", ["query", "candidate"])
def test_a_circle_of_deleted_rows_is_left_out_until_circles_are_counted_again(client: Client, gone: str) -> None:
    project, owner = make_project(), make_user()
    Membership.objects.create(project=project, user=owner, role="owner")
    client.force_login(owner)
    query = make_query_with_documents(project, 3)
    (judge,) = make_judges(project)
    for a, b, preference in ((0, 1, 0.9), (1, 2, 0.9), (0, 2, 0.1)):
        judge_pair(make_pair(query, a, b), judge, preference)
    rate_stale(project.pk)
    assert "circles" in page(client, "agreement", project.slug)
    Pair.objects.all().delete()
    (query if gone == "query" else query.candidates.earliest("pk")).delete()
    html = page(client, "agreement", project.slug)
    assert "Contradictions" in html and 'class="circles"' not in html
