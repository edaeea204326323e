"""REST of projects: what the list shows and what it costs."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.factories.api import Api
from tests.factories.rows import make_project, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]


def listed(api: Api) -> tuple[list[dict[str, Any]], int]:
    """The rows of GET /projects, and how many statements they took."""
    with CaptureQueriesContext(connection) as statements:
        rows = api.get("/projects").json()
    return rows, len(statements)


def test_a_list_of_projects_costs_as_much_as_one() -> None:
    owner = make_user()
    api = Api(owner)
    first = make_project(owner=owner, queries=2, documents=3)
    rows, alone = listed(api)
    assert [(row["slug"], row["queries"], row["documents"], row["candidates"]) for row in rows] == [
        (first.slug, 2, 6, 6)
    ]
    for _ in range(3):
        make_project(owner=owner)
    rows, several = listed(api)
    assert [row["queries"] for row in rows] == [0, 0, 0, 2]
    assert several == alone
