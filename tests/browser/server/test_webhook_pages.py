"""The pages of webhooks in a real browser: added, tested and deleted by hand, and clean in every look."""

from __future__ import annotations

import pytest
from django.urls import reverse
from playwright.sync_api import expect
from pytest_django import Settings

from tests.browser.checks import Start, faults_in_looks
from tests.factories.rows import make_judges, make_project, make_run, make_user
from tests.processes.receiver import receiving
from workers.models import Webhook
from workers.runs.transitions import cancel_run
from workers.webhooks.delivery import deliver

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("stub_plugins"),
]
LOOKS = ("phone", "light", "dark")  # the buttons are pressed in the first one


def test_a_webhook_is_added_tested_and_deleted(visit: Start, settings: Settings) -> None:
    owner = make_user("owner")
    project = make_project(owner=owner, queries=1)
    visited = visit(owner, look=LOOKS[0])
    page = visited.open(reverse("webhooks", args=[project.slug]))
    faults = faults_in_looks(visited, "webhooks-empty", LOOKS)
    expect(page.get_by_text("The operator permits no hosts yet.")).to_be_visible()
    with receiving() as receiver:
        settings.ZELO_WEBHOOK_HOSTS = [receiver.entry]
        page.reload()
        page.get_by_label("Address").fill("http://127.0.0.1:1/")
        page.get_by_label("Address").press("Enter")
        expect(page.get_by_text("it is not one of the listed ones")).to_be_visible()
        visited.picture("webhooks-refused")
        page.get_by_label("Address").fill(receiver.url)
        page.get_by_role("button", name="Add webhook").click()
        expect(page.locator("#new-secret")).to_contain_text("whsec_")
        visited.picture("webhook-secret")
        cancel_run(make_run(project, judges=make_judges(project)))
        page.get_by_role("button", name="Send test").click()
        assert page.locator("#new-secret").count() == 0
        receiver.answers = [500]
        deliver(Webhook.objects.get().pk)
        page.reload()
        expect(page.get_by_role("row").filter(has_text="run finished")).to_contain_text("next attempt")
        expect(page.get_by_role("row").filter(has_text="test message")).to_contain_text("delivered")
        faults |= faults_in_looks(visited, "webhook-deliveries", LOOKS)
        page.get_by_label("Active").uncheck()
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("button", name="Send test")).to_have_count(0)
        visited.open(reverse("webhooks", args=[project.slug]))
        expect(page.get_by_text("switched off")).to_be_visible()
        faults |= faults_in_looks(visited, "webhooks", LOOKS)
        page.get_by_role("link", name=receiver.url[:20]).click()
        page.get_by_role("button", name="Delete webhook").click()
        expect(page.get_by_text("Webhook deleted.")).to_be_visible()
    assert not Webhook.objects.exists()
    refused = "the server responded with a status of 422"
    assert not faults and [each for each in visited.complaints if refused not in each] == []
