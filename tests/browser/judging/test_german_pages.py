"""Owners' pages in German: long words break no layout, on a phone as little as on a desk."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from labeling.models import Project
from tests.browser.checks import overflow, show_in
from tests.browser.conftest import Visit

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
OF_PROJECT = (
    "project", "queries", "scorecard", "failures", "probes", "people", "people-agreement", "scale", "training",
    "snapshots", "proof", "rerankers", "settings", "new-run", "import", "audit",
)  # fmt: skip
OF_SERVER = ("projects", "new-project", "jobs", "doctor", "profile", "endpoints", "new-endpoint")


def test_german_fits_on_every_page(visit: Callable[..., Visit], owner: User, project: Project) -> None:
    addresses = {name: reverse(name, args=[project.slug]) for name in OF_PROJECT}
    addresses |= {name: reverse(name) for name in OF_SERVER}
    query = project.queries.get()
    User.objects.filter(pk=owner.pk).update(is_staff=True)  # the doctor is for staff
    addresses |= {
        name: reverse(name, args=[project.slug, query.pk]) for name in ("query", "where-next", "matrix", "graph")
    }
    visited = visit(owner, locale="de-DE")
    faults: dict[str, list[object]] = {}
    for name, address in addresses.items():
        page = visited.open(address)
        assert page.locator("html").get_attribute("lang") == "de"
        for look in ("light", "phone"):
            show_in(visited, look)
            visited.picture(f"german-{name}-{look}")
            if (wide := overflow(visited)) > 0 or visited.complaints:
                faults[f"{name}, {look}"] = [wide, *visited.complaints]
                visited.complaints.clear()
    assert faults == {}
