"""Failures as states: counted by reason, filtered, asked again; none is ever a vote."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from labeling.models import Judgment, Project
from labeling.records import Failure, FailureKind
from tests.factories.rows import make_project, make_tasks, make_user
from workers.judging import queue
from workers.judging.failures import MEANINGS, FailureFilter, failure_counts, retry_failures
from workers.models import JudgingTask, Run
from workers.monitoring.queue_depth import read_dead_letters

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]


def fail_tasks(*failures: Failure) -> tuple[Project, list[JudgingTask]]:
    """One failed question for each failure, all of one run."""
    tasks = make_tasks(len(failures))
    claimed = queue.claim(annotator_id=tasks[0].annotator_id, worker="w@host:1", limit=len(failures))
    queue.fail(list(zip(claimed, failures, strict=True)))
    return tasks[0].run.project, list(JudgingTask.objects.order_by("id"))


def final(kind: FailureKind) -> Failure:
    return Failure(kind, f"because of {kind.value}", retryable=False)


def test_every_reason_has_a_name() -> None:
    assert set(MEANINGS) == set(FailureKind)
    assert all(meaning.label for meaning in MEANINGS.values())


def test_a_reason_shows_its_most_frequent_message_which_has_the_only_remedy() -> None:
    often = Failure(FailureKind.BAD_REQUEST, "HTTP 500: wrong; start the server with --n_ctx 4096", retryable=False)
    project, _ = fail_tasks(often, final(FailureKind.BAD_REQUEST), often)
    shown = {each.reason: each.message for each in failure_counts(project)}
    assert (shown["bad_request"], shown["timeout"]) == (often.message, "")
    [dead] = read_dead_letters(make_user(is_superuser=True))
    assert (dead.message, dead.count) == (often.message, 3)


def test_every_reason_is_a_state_of_its_own_and_no_vote() -> None:
    project, tasks = fail_tasks(*map(final, FailureKind))
    assert {task.reason for task in tasks} == {kind.value for kind in FailureKind}
    assert {each.reason: each.dead for each in failure_counts(project)} == dict.fromkeys(FailureKind, 1)
    assert not Judgment.objects.exists()


def test_what_is_asked_again_by_itself_is_told_apart_from_what_was_given_up() -> None:
    timeout = Failure(FailureKind.TIMEOUT, "slow", retryable=True)
    project, _ = fail_tasks(timeout, timeout, final(FailureKind.TIMEOUT))
    (first, *_) = failure_counts(project)
    assert (first.reason, first.dead, first.waiting) == ("timeout", 1, 2)


def test_asking_again_opens_what_the_filter_names_and_a_finished_run_goes_on() -> None:
    project, tasks = fail_tasks(final(FailureKind.REFUSAL), final(FailureKind.TIMEOUT), final(FailureKind.REFUSAL))
    Run.objects.update(state="finished")
    assert retry_failures(project, FailureFilter(reason="refusal", annotator_id=tasks[0].annotator_id)) == 2
    assert set(JudgingTask.objects.values_list("state", "reason")) == {("open", ""), ("dead", "timeout")}
    assert Run.objects.get().state == "judging"
    assert retry_failures(project, FailureFilter(annotator_id=10**9)) == 0


def test_failures_of_another_project_stay_out_of_sight() -> None:
    fail_tasks(final(FailureKind.REFUSAL))
    other = make_project(queries=1)
    assert sum(each.dead + each.waiting for each in failure_counts(other)) == 0
    assert retry_failures(other) == 0


def test_the_page_filters_by_reason_and_asks_again(client: Client) -> None:
    project, _ = fail_tasks(final(FailureKind.REFUSAL), final(FailureKind.LABEL_MASS))
    client.force_login(make_user(is_superuser=True))
    address = reverse("failures", args=[project.slug])
    page = client.get(address, {"reason": "refusal"}).content.decode()
    assert (page.count("because of refusal"), page.count("because of label_mass")) == (3, 1)  # reasons list both
    assert client.post(address, {"reason": "refusal"}).status_code == 302
    assert set(JudgingTask.objects.values_list("state", "reason")) == {("open", ""), ("dead", "label_mass")}
    assert client.get(address, {"reason": "nonsense", "judge": "x"}).status_code == 200


def test_rest_lists_and_asks_again(client: Client) -> None:
    project, tasks = fail_tasks(final(FailureKind.REFUSAL), final(FailureKind.OVER_BUDGET))
    client.force_login(make_user(is_superuser=True))
    answer = client.get(f"/api/v1/projects/{project.slug}/failures", {"reason": "over_budget"}).json()
    assert [task["id"] for task in answer["tasks"]] == [tasks[1].pk]
    assert {each["reason"]: each["dead"] for each in answer["counts"]}["refusal"] == 1
    again = client.post(f"/api/v1/projects/{project.slug}/failures/retry?reason=refusal")
    assert again.json() == {"opened": 1}
    assert client.get(f"/api/v1/projects/{project.slug}/failures", {"reason": "bored"}).status_code == 422


def test_a_viewer_sees_failures_and_cannot_ask_again(client: Client) -> None:
    from tests.factories.rows import make_member

    project, _ = fail_tasks(final(FailureKind.REFUSAL))
    client.force_login(make_member(project))
    assert client.get(reverse("failures", args=[project.slug])).status_code == 200
    assert client.post(reverse("failures", args=[project.slug])).status_code == 403
    assert client.post(f"/api/v1/projects/{project.slug}/failures/retry").status_code == 403
