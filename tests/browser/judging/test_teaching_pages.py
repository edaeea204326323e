"""Teaching a judge, in a real browser: the form, its errors, the verdict and the examples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import expect

from labeling.access.annotators import get_judge
from labeling.stored_texts import stored_json
from tests.browser.checks import Start, faults_in_looks
from tests.factories.rows import answer_queries, make_project
from workers.jobs.teaching.plan import TeachingOptions, examples_from, split_answers
from workers.jobs.teaching.verdict import Answered, verdict_on
from workers.models import EndpointDefinition, Job, JudgeTeaching, Run

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
LOOKS = ("phone", "light", "dark")  # the buttons are pressed in the first one


def finished(judge: Any, *, taught_answers: float) -> JudgeTeaching:
    """A teaching as a worker leaves it: the judge without examples takes people's side in every other pair."""
    options = TeachingOptions(examples=3)
    split = split_answers(judge.project, options)
    examples = [each.model_dump() for each in examples_from(judge.project, split, options)]
    taught = get_judge(judge.project, judge.plugin, {**judge.options, "examples": examples}, name="m + 3 examples (1)")
    rows = [Answered(query, 1.0, float(query % 2), taught_answers) for query in range(40)]
    found = verdict_on(rows, np.random.default_rng(0))
    usage = {"questions": 40, "answers": 40, "input_tokens": 12_000, "output_tokens": 40, "cost_micros": 1800}
    report = {**found, "reason": stored_json(found["reason"]), "usage": {"old": usage, "taught": usage}, "examples": 3}
    return JudgeTeaching.objects.create(
        project=judge.project,
        annotator=judge,
        taught=taught,
        job=Job.objects.create(project=judge.project, stage="teaching", state="finished"),
        report=report,
        calls=80,
        cost_micros=3600,
    )


def test_a_judge_is_taught_on_its_page(visit: Start, owner: User) -> None:
    EndpointDefinition.objects.create(name="stored", base_url="http://127.0.0.1:9/v1")
    project = make_project(owner=owner)
    answer_queries(project, queries=24, pairs=1)
    judge = get_judge(project, "openai-http", {"endpoint": "stored", "model": "m"}, name="Qwen3 32B")
    visited = visit(owner, look=LOOKS[0])
    page = visited.open(reverse("teachings", args=[project.slug]))
    form = page.locator("form", has=page.locator(f"#teach-{judge.pk}"))
    form.get_by_label("Examples").fill("99")
    form.evaluate("form => form.noValidate = true")
    form.get_by_role("button", name="Teach this judge").click()
    expect(page.locator(f"#examples-{judge.pk}")).to_have_value("99")
    expect(page.get_by_text("Ensure this value is less than or equal to 16.")).to_be_visible()
    form.get_by_label("Examples").fill("3")
    form.get_by_role("button", name="Teach this judge").click()
    expect(page.get_by_text("Choosing the examples…")).to_be_visible()
    faults = faults_in_looks(visited, "teaching-started", LOOKS)
    cancel = page.get_by_role("button", name="Cancel teaching")
    cancel.focus()
    with page.expect_response("**/teachings/*/"):
        pass  # the part is replaced every two seconds
    page.wait_for_timeout(100)
    expect(cancel).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_text("Teaching cancelled.")).to_be_visible()
    expect(form.get_by_role("button", name="Teach this judge")).to_be_visible()
    faults |= faults_in_looks(visited, "teaching-cancelled", LOOKS)
    assert Job.objects.get(stage="teaching").state == "cancelled"
    JudgeTeaching.objects.all().delete()
    finished(judge, taught_answers=1.0)
    page = visited.open(reverse("teachings", args=[project.slug]))
    expect(page.get_by_text("Use “m + 3 examples (1)” in the next run.")).to_be_visible()
    page.locator("summary", has_text="3 examples in the prompt").click()
    expect(page.get_by_text("People prefer A.").first).to_be_visible()
    faults |= faults_in_looks(visited, "teaching", LOOKS)
    assert faults == {}


def test_a_run_is_started_with_the_taught_judge(visit: Start, owner: User) -> None:
    EndpointDefinition.objects.create(name="stored", base_url="http://127.0.0.1:9/v1")
    project = make_project(owner=owner)
    answer_queries(project, queries=24, pairs=1)
    options = {"endpoint": "stored", "model": "m", "send_temperature": False, "seed": 3}
    judge = get_judge(project, "openai-http", options, name="Qwen3 32B")
    taught = finished(judge, taught_answers=1.0).taught
    page = visit(owner).open(reverse("teachings", args=[project.slug]))
    page.get_by_role("link", name="Start a run with it").click()
    page.get_by_role("button", name="Start run").click()
    expect(page.get_by_text("Run started.")).to_be_visible()
    assert list(Run.objects.get(project=project).judges.all()) == [taught]
