"""A trial, a judge in trouble and its recovery, in a real browser."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import expect

from labeling.records import Failure, FailureKind
from tests.browser.checks import Start, faults_in_looks, show_in
from tests.browser.conftest import LOOKS
from tests.factories.rows import make_judges, make_project, make_run
from tests.factories.working import work_until_over
from workers.jobs.trial import run_trial, try_now
from workers.judging import queue
from workers.models import JudgeTrial, JudgeTrouble
from workers.runs.advancing import advance

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("stub_plugins"),
]


def test_a_judge_is_tested_on_the_start_page_before_anything_is_bought(visit: Start, owner: User) -> None:
    project = make_project(owner=owner, queries=3, documents=5)
    page = visit(owner).open(reverse("new-run", args=[project.slug]))
    row = page.locator(".choice", has=page.locator("#judge-test-longer")).first
    row.get_by_role("button", name="Test this judge").click()
    expect(page.get_by_text("Asking the judge up to ten questions…")).to_be_visible()
    run_trial(JudgeTrial.objects.get().job_id, worker="w@host:1")
    expect(page.locator(".trial .badge").first).to_be_visible()
    expect(page.get_by_text("These answers do not count in any score.")).to_be_visible()
    page.locator(".trial summary").first.click()
    expect(page.get_by_text("This judge computes its answer here, without a request.").first).to_be_visible()


def test_trouble_is_on_top_and_ends_with_a_click(visit: Start, owner: User) -> None:
    project = make_project(owner=owner, queries=1, documents=8)
    (judge,) = make_judges(project)
    run = make_run(project, judges=[judge])
    refused = Failure(
        FailureKind.BAD_REQUEST,
        "endpoint 'hosted': HTTP 404: no model is named 'gpt-5'; correct the judge's model 'gpt-5'",
        retryable=False,
    )
    tasks = queue.claim(annotator_id=judge.pk, worker="w@host:1", limit=100, careful=True)
    queue.fail([(task, refused) for task in tasks])
    advance(run.pk)
    visited = visit(owner)
    page = visited.open(reverse("project", args=[project.slug]))
    alert = page.locator(f"#trouble-{judge.pk}")
    expect(alert).to_contain_text("is paused: its answers fail.")
    expect(alert).to_contain_text("no model is named 'gpt-5'; correct the judge's model 'gpt-5'")
    expect(page.get_by_text("Finished without answers of")).to_be_visible()
    faults = faults_in_looks(visited, "trouble")
    try_now(judge)
    visited.open(reverse("trials", args=[project.slug]))
    page.locator(".trial summary").first.click()
    faults |= faults_in_looks(visited, "trials")
    cut = (
        "[...document.querySelectorAll('.trial .scroll')].filter((each) => each.scrollWidth > each.clientWidth).length"
    )
    for look in LOOKS:
        show_in(visited, look)
        assert page.evaluate(cut) == 0
    assert faults == {}
    visited.open(reverse("project", args=[project.slug]))
    alert.get_by_role("button", name="Resume and retry").click()
    expect(page.get_by_text("Retrying 5 questions.")).to_be_visible()
    expect(alert).to_have_count(0)
    assert not JudgeTrouble.objects.exists()
    assert work_until_over(run).reason == "the design is complete"
    assert not visited.complaints
