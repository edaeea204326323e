"""The pages of endpoints in a real browser, and the drop-down of the judge form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from labeling.access.annotators import get_judge
from labeling.models import Membership, Project
from tests.browser.checks import Start, faults_in_looks
from tests.factories.pages import make_user
from tests.fake_judge.process import FakeJudge, running_fake_judge
from workers.endpoints.registry import get_endpoint
from workers.endpoints.stored.changes import add_endpoint, retire_endpoint
from workers.models import EndpointDefinition, EndpointState

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
KEY = "sk-very-secret-0123456789"


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeJudge]:
    ledger = tmp_path_factory.mktemp("fake") / "ledger.jsonl"
    with running_fake_judge(ledger, "--api-key", KEY) as judge:
        yield judge


def fill_the_list(project: Project, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One endpoint of each origin and state, with judges."""
    given = [{"name": "openai", "base_url": "https://api.openai.com/v1", "api_key_env": "K", "input_price": 0.4}]
    monkeypatch.setenv("K", KEY)
    monkeypatch.setenv("ZELO_ENDPOINTS", json.dumps(given))
    add_endpoint("vllm-of-the-search-team", {"base_url": "http://gpu-host.internal.example.org:8000/v1", "rpm": 5000})
    add_endpoint("mistral", {"base_url": "https://api.mistral.ai/v1", "input_price": 0.1, "output_price": 0.3}, key=KEY)
    add_endpoint("old-server", {"base_url": "http://old:8000/v1"})
    retire_endpoint("old-server")
    for name, mode in (("vllm-of-the-search-team", "open"), ("mistral", "closed")):
        channel = get_endpoint(name).channel("")
        is_open = mode == "open"
        EndpointState.objects.create(
            identity=channel.identity, name=name, base_url=channel.base_url, mode=mode, seen_at=timezone.now(),
            until=timezone.now() + timedelta(seconds=42) if is_open else None,
            last_error="endpoint 'vllm': ConnectError: connection refused" if is_open else "",
        )  # fmt: skip
    get_judge(project, "openai-http", {"endpoint": "mistral", "model": "mistral-small"}, name="Mistral Small")


def test_the_pages_are_clean_in_every_look(
    visit: Start, owner: User, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visited = visit(owner)
    faults: dict[str, Any] = {}

    def check(name: str, path: str) -> None:
        visited.open(path)
        faults.update(faults_in_looks(visited, name))

    check("endpoints-empty", reverse("endpoints"))
    fill_the_list(project, tmp_path, monkeypatch)
    check("endpoints", reverse("endpoints"))
    check("endpoint-new", f"{reverse('new-endpoint')}?preset=azure")
    check("endpoint-stored", reverse("endpoint", args=["mistral"]))
    check("endpoint-environment", reverse("endpoint", args=["openai"]))
    check("endpoint-retired", reverse("endpoint", args=["old-server"]))
    assert not faults
    assert not visited.complaints


def test_an_endpoint_is_added_tested_changed_and_retired(visit: Start, owner: User, fake: FakeJudge) -> None:
    visited = visit(owner)
    page = visited.open(reverse("jobs"))
    page.get_by_role("link", name="Endpoints").click()
    page.get_by_role("link", name="vLLM").click()
    expect(page.get_by_label("Base URL")).to_have_value("http://localhost:8000/v1")
    page.get_by_label("Base URL").fill("ftp://nowhere")
    page.get_by_role("button", name="Add endpoint").click()
    expect(page.locator("#base_url-error")).to_be_visible()
    page.get_by_label("Base URL").fill(fake.base_url)
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Add endpoint").click()
    expect(page.get_by_text("Endpoint added.")).to_be_visible()
    expect(page.locator("dd", has_text="ends in …6789.")).to_be_visible()
    assert KEY not in page.content() and page.get_by_label("API key").input_value() == ""

    page.locator("#test-model").fill("fake")
    page.get_by_role("button", name="Test endpoint").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("1 model listed in")).to_be_visible()
    expect(page.get_by_text("fake answered in")).to_be_visible()
    visited.picture("endpoint-tested")
    fake.order_faults("quota")
    page.get_by_role("button", name="Test endpoint").click()
    expect(page.get_by_text("add credit at the provider or raise its spending limit, then retry")).to_be_visible()

    page.get_by_text("Header of the key, further headers, query").click()
    page.get_by_label("Further headers").fill("X-Org: hush-hush\nX-Team: search")
    page.get_by_label("Requests per minute").fill("120")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Workers use the change within seconds.")).to_be_visible()
    assert get_endpoint("vllm").rpm == 120 and get_endpoint("vllm").api_key() is not None
    page.get_by_text("Header of the key, further headers, query").click()
    expect(page.get_by_text("Set: X-Org, X-Team.")).to_be_visible()
    assert "hush-hush" not in page.content()
    visited.picture("endpoint-headers")
    page.get_by_label("Remove further headers and query").check()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Workers use the change within seconds.")).to_be_visible()
    assert dict(get_endpoint("vllm").access().headers) == {"Authorization": f"Bearer {KEY}"}
    page.get_by_label("Base URL").fill("http://127.0.0.1:9/v1")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#key-error")).to_contain_text("not sent to another host")

    page.get_by_role("button", name="Retire endpoint").click()
    expect(page.get_by_text("vllm retired")).to_be_visible()
    page.get_by_role("button", name="Bring back").click()
    expect(page.get_by_text("vllm is in use again.")).to_be_visible()
    assert EndpointDefinition.objects.get().retired_at is None
    assert not [each for each in visited.complaints if "422" not in each]


def test_the_judge_form_offers_endpoints_and_their_models(
    visit: Start, owner: User, project: Project, fake: FakeJudge
) -> None:
    member = make_user("member")
    Membership.objects.create(project=project, user=member, role="owner")
    visited = visit(member)
    page = visited.open(reverse("new-run", args=[project.slug]))
    page.locator("#options-openai-http summary").click()
    options = page.locator("#options-openai-http")
    expect(options.get_by_text("Ask a superuser to add one.")).to_be_visible()
    visited.picture("judge-form-without-endpoint")

    add_endpoint("ours", {"base_url": fake.base_url}, key=KEY)
    add_endpoint("unreachable", {"base_url": "http://127.0.0.1:9/v1"})
    fake.set_judge("large", sigma=0)
    page.wait_for_load_state("networkidle")  # a request that the reload cut off would be a complaint
    page.reload()
    page.locator("#options-openai-http summary").click()
    choice = page.locator("#judge-openai-http-endpoint")
    expect(choice.locator("option")).to_have_text(["ours · not called yet", "unreachable · not called yet"])
    suggested = page.locator("#judge-openai-http-model-suggestions option")
    expect(suggested).to_have_count(0)
    page.locator("#judge-openai-http-model").focus()
    expect(suggested).to_have_count(1)
    assert suggested.first.get_attribute("value") == "large"
    visited.picture("judge-form-with-endpoint")
    choice.select_option("unreachable")
    expect(suggested).to_have_count(0)
    choice.select_option("ours")
    expect(suggested).to_have_count(1)
    page.wait_for_load_state("networkidle")  # the button loads the page again
    page.locator("#options-openai-http button[name=another]").click()
    page.locator("[id='judge-openai-http~2-model']").focus()
    expect(page.locator("[id='judge-openai-http~2-model-suggestions'] option")).to_have_count(1)
    assert not visited.complaints
