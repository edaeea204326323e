"""What a page does not know it says: prices of undefined endpoints, answers that were not read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from labeling.models import Project
from tests.factories.pages import candidates_of, judge, make_judge, make_pair, make_query, page, score
from zelo_site.pages.queries import reasons

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(("endpoint", "is_known"), [("here", True), ("elsewhere", False)])
def test_an_undefined_endpoint_has_no_price_and_is_refused(
    client: Client, project: Project, monkeypatch: pytest.MonkeyPatch, endpoint: str, is_known: bool
) -> None:
    defined = {"name": "here", "base_url": "http://127.0.0.1:9/v1", "input_price": 1.0}
    monkeypatch.setenv("ZELO_ENDPOINTS", json.dumps([defined]))
    make_query(project, size=4)
    sent: dict[str, Any] = {"judge": "openai-http", "judge-openai-http-endpoint": endpoint}
    sent |= {"judge-openai-http-model": "m", "judge-openai-http-mode": "logprob"}
    sent |= {"judge-openai-http-missing_label": "fail", "judge-openai-http-token_limit_field": "max_tokens"}
    sent |= {"judge-openai-http-response_format": "json_schema", "sampler": "cycles"}
    html = client.post(reverse("estimate", args=[project.slug]), sent).content.decode()
    assert ("<h2>Estimate</h2>" in html and "price unknown" not in html) == is_known
    assert ("Choose one of the endpoints: here." in html) != is_known


def test_reasons_say_that_they_rest_on_the_latest_answers(
    client: Client, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = make_query(project, size=2)
    pair = make_pair(*candidates_of(query))
    for number in range(4):
        judge(pair, make_judge(project, name=f"judge {number}"), 0.9)
    score(query, [0.5, -0.5])
    address = {"document": candidates_of(query)[0].pk}
    assert "among the latest" not in page(client, "query", project.slug, query.pk, **address)
    monkeypatch.setattr(reasons, "MOST_READ", 3)
    html = page(client, "query", project.slug, query.pk, **address)
    assert "4 answers" in html
    assert "among the latest 3" in html
