"""Orders of runs that cannot be carried out are refused before anything is stored."""

from __future__ import annotations

import json

import pytest
from django.test import Client
from django.urls import reverse

from labeling.access.annotators import get_judge
from labeling.plugins import get_plugin
from tests.factories.rows import make_judges, make_project, make_user
from workers.models import Run
from workers.runs.ordering import RunRefused, start_run

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seed_that_the_database_cannot_hold_is_refused(seed: int) -> None:
    project = make_project(queries=1)
    with pytest.raises(RunRefused, match="seed"):
        start_run(project, judges=make_judges(project), seed=seed)
    assert not Run.objects.exists()


def test_judge_at_an_endpoint_that_nobody_defined_starts_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZELO_ENDPOINTS", json.dumps([{"name": "here", "base_url": "http://127.0.0.1:9/v1"}]))
    project = make_project(queries=1)
    elsewhere = get_judge(project, "openai-http", {"endpoint": "elsewhere", "model": "m"})
    with pytest.raises(RunRefused, match=r"elsewhere.*here"):
        start_run(project, judges=[elsewhere])
    assert not Run.objects.exists()
    start_run(project, judges=[get_judge(project, "openai-http", {"endpoint": "here", "model": "m"})])


@pytest.mark.parametrize(
    ("sampler", "option", "value"),
    [
        ("cycles", "degree", 10**18),
        ("adaptive", "pairs_per_candidate", 1e308),
        ("adaptive", "draws", 10**9),
        ("adaptive", "round_pairs", 10**18),
        ("adaptive", "top", 10**18),
        ("uncertain", "pairs", 10**18),
        ("cross-query", "pairs_per_query", 10**18),
    ],
)
def test_options_of_a_design_are_bounded(sampler: str, option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{option}\n.*less than or equal"):
        get_plugin("sampler", sampler).from_dict({option: value})


def test_asking_again_on_the_page_needs_a_reason_there_is(client: Client) -> None:
    owner = make_user()
    project = make_project(owner=owner)
    client.force_login(owner)
    address = reverse("failures", args=[project.slug])
    for reason in ("nothing", "nul\x00"):
        refused = client.post(address, {"reason": reason})
        assert refused.status_code == 422 and "Nothing was retried." in refused.content.decode()
    assert client.post(address, {"reason": "timeout"}).status_code == 302
