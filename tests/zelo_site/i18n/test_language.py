"""Pages in another language: numbers in drawings and forms stay numbers that a browser can read."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from labeling.models import Project
from tests.factories.pages import make_query, score

pytestmark = pytest.mark.django_db
WITH_COMMA = re.compile(r' (?:x|y|x1|x2|y1|y2|cx|cy|r|width|height|value)="\d+,\d+%?"')


@pytest.mark.parametrize("language", ["en", "de"])
def test_numbers_in_drawings_and_forms_have_a_point(
    language: str, client: Client, owner: Any, project: Project
) -> None:
    query = make_query(project)
    score(query, [1.25, 0.1, -0.7])
    for address in (reverse("query", args=[project.slug, query.pk]), reverse("settings", args=[project.slug])):
        page = client.get(address, headers={"Accept-Language": language}).content.decode()
        assert f'<html lang="{language}">' in page
        assert WITH_COMMA.findall(page) == []
        assert re.search(r'"\d+\.\d+%?"', page)
