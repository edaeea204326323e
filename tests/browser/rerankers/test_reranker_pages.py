"""The rerankers' pages in every look: clean under axe, no overflow, nothing refused by the content policy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.urls import reverse

from labeling.models import Project
from tests.browser.checks import Start, faults_in_looks
from tests.factories.pages import make_project, make_user
from tests.processes.serve import served
from trainer.models import Reranker
from trainer.serving.registry import TRAINED
from zelo_site import reranking

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def published(project: Project) -> Reranker:
    """A reranker's row as publishing leaves it; its files are not needed to show it."""
    files = {f"{form}/model.safetensors": {"bytes": 90_000_000, "sha256": "1" * 64} for form in ("adapter", "merged")}
    manifest = {
        "files": files,
        "base": {"name": "minilm"},
        "max_length": 256,
        "parity": {"largest_difference": {"merged": 3e-7}},
    }
    return Reranker.objects.create(
        project=project,
        name="minilm-run-7-with-a-name-that-is-rather-long",
        kind=TRAINED,
        location="rerankers/project/run-7-abcdef01/and/deeper",
        checksum="a1" * 32,
        manifest=manifest,
    )


async def second_first(scope: Any, receive: Any, send: Any) -> None:
    """A ranking server that prefers the second of two documents."""
    if scope["type"] == "http":
        results = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]
        kind = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": kind})
        await send({"type": "http.response.body", "body": json.dumps({"results": results, "meta": {}}).encode()})


@pytest.fixture
def ranking(settings: Any) -> Iterator[None]:
    reranking._client.cache_clear()
    with served(second_first) as settings.ZELO_RERANK_URL:
        yield
    reranking._client.cache_clear()


@pytest.mark.usefixtures("ranking")
def test_list_and_box_are_clean(visit: Start) -> None:
    owner = make_user("owner")
    project = make_project(owner)
    published(project)
    visited = visit(owner)
    visited.open(reverse("rerankers", args=[project.slug]))
    faults = faults_in_looks(visited, "rerankers")
    visited.page.get_by_role("link", name="Try it").click()
    visited.page.fill("#query", "how do fish breathe")
    visited.page.fill("#documents", "bread\ngills")
    visited.page.keyboard.press("Tab")
    visited.page.keyboard.press("Enter")
    visited.page.wait_for_selector("#ranked table")
    assert visited.page.locator("#ranked summary").all_inner_texts() == ["gills", "bread"]
    faults |= faults_in_looks(visited, "box")
    assert not faults
    assert not visited.complaints
