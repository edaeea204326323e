"""The stage `calibrate`: what is due when, cross-query runs, and that rating never waits for it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import psycopg
import pytest
from django.db import connection
from django.test import Client

from labeling.access.api_keys import make_token
from labeling.models import Judgment, Pair, Project, Role
from scoring.calibration.calibrate import project_calibration
from scoring.models import Calibration, ProjectFit, QueryFit
from scoring.rating import rate_stale, stale_query_ids
from tests.factories.broker import WaitingHints
from tests.factories.judged import Judged, answer, draw_pairs, grade, make_judged
from tests.factories.rows import make_judges, make_member, make_project, make_run, make_user
from workers import reconciler, tasks
from workers.broker.hints import leave_hint
from workers.jobs import calibration
from workers.jobs.calibration import calibrate, due_project_ids, order_calibration, whats_due
from workers.judging import batches, questions, queue
from workers.models import Job, JudgingTask, Run
from workers.runs.advancing import advance
from workers.runs.ordering import RunRefused
from zelo_site.management.commands.calibrate import calibration_report

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]

QUERIES, SIZE = 8, 6


@pytest.fixture
def judged(sent_hints: WaitingHints) -> Judged:
    rng = np.random.default_rng(3)
    judged = make_judged(queries=QUERIES, size=SIZE, rng=rng)
    answer(judged, make_judges(judged.project)[0], draw_pairs(judged, 4, rng), rng)
    rate_stale(judged.project.pk)
    return judged


def settle(project: Project) -> None:
    """Calibrate and rate as the rating worker would, until nothing is due."""
    for _ in range(5):
        calibrate(project.pk)
        rate_stale(project.pk)
    assert not whats_due(project.pk)


def carry_out(run: Run) -> Run:
    """Advance and judge a run to its end."""
    for _ in range(20):
        advance(run.pk)
        for judge in run.judges.all():
            batches.judge_open(judge.pk, worker="test")
        rate_stale(run.project_id)
        run.refresh_from_db()
        if run.state not in Run.ACTIVE:
            return run
    raise AssertionError(f"run is {run.state} after twenty rounds")


# --- cross-query runs --------------------------------------------------------------------


def test_a_cross_query_run_asks_judges_about_two_queries_and_ends_in_a_calibration(judged: Judged) -> None:
    run = carry_out(order_calibration(judged.project, judges=make_judges(judged.project), seed=1))
    assert (run.state, run.reason) == (Run.State.FINISHED, "the design is complete")
    pairs = Pair.objects.filter(query=None).select_related("a", "b")
    assert len(pairs) == run.pairs_planned == QUERIES * 3
    assert all(pair.a.query_id != pair.b.query_id for pair in pairs)
    assert Judgment.objects.filter(pair__query=None).count() == len(pairs)
    assert set(Job.objects.filter(run=run).values_list("stage", flat=True)) == {"calibrate"}
    settle(judged.project)
    shown = project_calibration(judged.project)
    assert (shown.pairs, shown.stale) == (QUERIES * 3, False)
    assert set(QueryFit.objects.values_list("bias_island", flat=True)) == {0}


def test_judges_are_shown_both_queries(judged: Judged) -> None:
    run = order_calibration(judged.project, judges=make_judges(judged.project), seed=1)
    advance(run.pk)
    claimed = queue.claim(annotator_id=run.judges.get().pk, worker="test", limit=5)
    asked = questions.comparisons_of(judged.project.pk, claimed)
    assert len(asked) == 5 and all(each.cross_query for each in asked)


def test_a_second_judge_answers_the_same_cross_query_pairs(judged: Judged) -> None:
    first, second = make_judges(judged.project, 2)
    carry_out(order_calibration(judged.project, judges=[first], seed=1))
    run = carry_out(order_calibration(judged.project, judges=[second], seed=2))
    assert run.pairs_planned == QUERIES * 3
    assert Pair.objects.filter(query=None).count() == QUERIES * 3
    assert Judgment.objects.filter(pair__query=None, annotator=second).count() == QUERIES * 3


def test_planning_a_cross_query_run_twice_asks_nothing_twice(judged: Judged) -> None:
    run = order_calibration(judged.project, judges=make_judges(judged.project), seed=1)
    advance(run.pk)
    Job.objects.filter(run=run).update(state=Job.State.OPEN, finished_at=None)
    advance(run.pk)
    assert JudgingTask.objects.filter(run=run).count() == Pair.objects.filter(query=None).count() == QUERIES * 3


def test_a_budget_bounds_a_cross_query_run(judged: Judged) -> None:
    run = carry_out(order_calibration(judged.project, judges=make_judges(judged.project), pair_budget=9, seed=1))
    assert Pair.objects.filter(query=None).count() == 9
    assert run.state == Run.State.FINISHED


def test_a_cross_query_run_of_chosen_queries_stays_among_them(judged: Judged) -> None:
    chosen = list(judged.candidates)[:4]
    carry_out(order_calibration(judged.project, judges=make_judges(judged.project), query_ids=chosen, seed=1))
    of = set(Pair.objects.filter(query=None).values_list("a__query", "b__query"))
    assert {query for both in of for query in both} == set(chosen)


def test_a_project_without_strengths_cannot_order_cross_query_pairs(sent_hints: WaitingHints) -> None:
    project = make_project(queries=3)
    with pytest.raises(RunRefused, match="judge pairs within queries first"):
        order_calibration(project, judges=make_judges(project))
    assert not Run.objects.exists()


def test_a_calibration_without_any_judge_is_refused(judged: Judged) -> None:
    with pytest.raises(RunRefused, match="choose the judges"):
        order_calibration(judged.project)


def test_the_judges_of_the_last_run_are_asked_unless_others_are_named(judged: Judged) -> None:
    judges = make_judges(judged.project, 2)
    carry_out(make_run(judged.project, judges=judges, sampler_options={"degree": 2}))
    assert list(order_calibration(judged.project).judges.order_by("id")) == judges


# --- what is due -------------------------------------------------------------------------


def test_few_judgments_make_nothing_due_until_a_run_ends(judged: Judged) -> None:
    assert not whats_due(judged.project.pk)  # 96 judgments
    run = carry_out(make_run(judged.project, judges=make_judges(judged.project, 2)[1:]))
    assert run.state == Run.State.FINISHED
    assert [due.choice for due in whats_due(judged.project.pk)] == [True]
    settle(judged.project)


def test_the_end_of_a_run_hints_at_calibration(judged: Judged, sent_hints: WaitingHints) -> None:
    carry_out(make_run(judged.project, judges=make_judges(judged.project, 2)[1:]))
    assert ("calibrate", judged.project.pk) in sent_hints


def test_prior_and_judges_are_chosen_again_when_judgments_grew_by_half(judged: Judged) -> None:
    ProjectFit.objects.create(project=judged.project, version=0, judgments=96, rater="thurstone")
    calibrate(judged.project.pk)
    assert not [due for due in whats_due(judged.project.pk) if due.choice]
    others, rng = make_judges(judged.project, 3)[1:], np.random.default_rng(9)
    pairs = draw_pairs(judged, 4, rng)
    for judge in others:
        answer(judged, judge, pairs, rng)
    rate_stale(judged.project.pk)
    assert [due.choice for due in whats_due(judged.project.pk)] == [True]
    settle(judged.project)
    assert ProjectFit.objects.get().judgments == 96 * 3


def test_a_new_prior_refits_every_query_before_biases_are_fitted(judged: Judged, sent_hints: WaitingHints) -> None:
    carry_out(order_calibration(judged.project, judges=make_judges(judged.project), seed=1))
    sent_hints.clear()
    calibrate(judged.project.pk)
    assert ("rate", judged.project.pk) in sent_hints
    assert len(stale_query_ids(judged.project.pk)) == QUERIES
    assert not Calibration.objects.exists()
    rate_stale(judged.project.pk)
    calibrate(judged.project.pk)
    assert Calibration.objects.count() == 1
    shared = ProjectFit.objects.get()
    stored = set(QueryFit.objects.values_list("prior_precision", "project_version"))
    assert stored == {(shared.prior_precision, shared.version)}


def test_answers_across_queries_are_left_to_gather_before_the_next_calibration(judged: Judged) -> None:
    carry_out(order_calibration(judged.project, judges=make_judges(judged.project), seed=1))
    settle(judged.project)
    Project.objects.update(calibration_version=50)
    assert not whats_due(judged.project.pk)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE scoring_projectfit SET chosen_at = chosen_at - interval '1 minute', "
            "calibrated_at = calibrated_at - interval '1 minute'"
        )
        cursor.execute("UPDATE workers_run SET finished_at = finished_at - interval '2 minutes'")
    assert [(due.choice, due.fit) for due in whats_due(judged.project.pk)] == [(False, True)]


def test_the_reconciler_finds_a_calibration_whose_hint_was_lost(
    judged: Judged, sent_hints: WaitingHints, monkeypatch: pytest.MonkeyPatch
) -> None:
    carry_out(order_calibration(judged.project, judges=make_judges(judged.project), seed=1))
    sent_hints.clear()
    reconciler.reconcile_once()
    assert ("calibrate", judged.project.pk) in sent_hints


def test_the_task_takes_its_hint_and_calibrates(judged: Judged, sent_hints: WaitingHints) -> None:
    carry_out(order_calibration(judged.project, judges=make_judges(judged.project), seed=1))
    sent_hints.clear()
    leave_hint("calibrate", judged.project.pk)
    tasks.calibrate(judged.project.pk)
    assert leave_hint("calibrate", judged.project.pk)
    assert sent_hints.count(("calibrate", judged.project.pk)) == 2, "the key of the first hint is gone"
    assert ProjectFit.objects.filter(project=judged.project).exists()


# --- trouble -----------------------------------------------------------------------------


def test_rewriting_many_scores_makes_way_and_goes_on(
    judged: Judged, sent_hints: WaitingHints, monkeypatch: pytest.MonkeyPatch
) -> None:
    carry_out(order_calibration(judged.project, judges=make_judges(judged.project), seed=1))
    calibrate(judged.project.pk)
    rate_stale(judged.project.pk)
    monkeypatch.setattr("scoring.calibration.calibrate.QUERIES_AT_ONCE", 3)
    monkeypatch.setattr(calibration, "SLICE_S", 0.0)
    sent_hints.clear()
    calibrate(judged.project.pk)
    assert sent_hints == [("calibrate", judged.project.pk)]
    assert [(due.choice, due.fit, due.rest) for due in whats_due(judged.project.pk)] == [(False, False, True)]
    settle(judged.project)
    latest = Calibration.objects.get()
    assert set(QueryFit.objects.values_list("calibration_id", flat=True)) == {latest.pk}


def test_a_failure_is_noted_and_leaves_peace_for_a_while(judged: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    carry_out(make_run(judged.project, judges=make_judges(judged.project, 2)[1:]))

    def fails(project_id: int) -> None:
        raise ValueError("the prior ran away")

    monkeypatch.setattr(calibration, "choose_project_fit", fails)
    calibrate(judged.project.pk)
    job = Job.objects.get(project=judged.project, run=None)
    assert (job.stage, job.state, job.error) == ("calibrate", Job.State.FAILED, "ValueError: the prior ran away")
    assert judged.project.pk not in due_project_ids()
    Job.objects.update(finished_at="2020-01-01T00:00Z")
    assert judged.project.pk in due_project_ids()


def test_two_processes_never_calibrate_one_project_at_once(judged: Judged) -> None:
    carry_out(make_run(judged.project, judges=make_judges(judged.project, 2)[1:]))
    with psycopg.connect(**connection.get_connection_params()) as other:
        other.execute("SELECT pg_advisory_lock(hashtext('zelo.calibrate'), %s)", [judged.project.pk])
        calibrate(judged.project.pk)
        assert not ProjectFit.objects.exists()
        # By hand: a closed connection lets go of its locks only when its server process has ended.
        other.execute("SELECT pg_advisory_unlock(hashtext('zelo.calibrate'), %s)", [judged.project.pk])
    calibrate(judged.project.pk)
    assert ProjectFit.objects.exists()


# --- REST and the command ----------------------------------------------------------------


def api_get(user: Any, path: str) -> Any:
    key = make_token(user, name="test", scopes=("read", "write"))
    return Client().get(f"/api/v1{path}", headers={"Authorization": f"Bearer {key}"})


def api_post(user: Any, path: str, body: dict[str, Any]) -> Any:
    key = make_token(user, name="test", scopes=("read", "write"))
    return Client().post(
        f"/api/v1{path}", json.dumps(body), content_type="application/json", headers={"Authorization": f"Bearer {key}"}
    )


def test_an_owner_orders_a_calibration_over_rest_and_reads_its_reliability(judged: Judged) -> None:
    owner = make_member(judged.project, Role.OWNER)
    grade(judged)
    slug = f"/projects/{judged.project.slug}"
    answered = api_post(owner, f"{slug}/calibrations", {"judges": [{"plugin": "test-longer"}], "pairs_per_query": 2})
    assert answered.status_code == 201
    carry_out(Run.objects.get(pk=answered.json()["run_id"]))
    settle(judged.project)
    found = api_get(owner, f"{slug}/calibration").json()
    assert found["calibrated"] and found["pairs"] == QUERIES * 2 and found["answers"] == QUERIES * SIZE
    assert sum(each["count"] for each in found["bins"]) == found["answers"]
    people = api_get(owner, f"{slug}/agreement").json()
    assert people["annotators"][0]["sharpness"]["low"] < people["annotators"][0]["sharpness"]["high"]


def test_a_viewer_reads_a_calibration_but_orders_none_and_a_stranger_sees_nothing(judged: Judged) -> None:
    viewer, stranger = make_member(judged.project, Role.VIEWER), make_user()
    slug = f"/projects/{judged.project.slug}"
    assert api_get(viewer, f"{slug}/calibration").status_code == 200
    assert api_post(viewer, f"{slug}/calibrations", {}).status_code == 403
    for path in ("calibration", "agreement"):
        assert api_get(stranger, f"{slug}/{path}").status_code == 404
    assert api_post(stranger, f"{slug}/calibrations", {}).status_code == 404


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "choose the judges"),
        ({"judges": [{"plugin": "no-such-judge"}]}, "no judge is named 'no-such-judge'"),
        ({"judges": [{"plugin": "test-longer"}], "pairs_per_query": 0}, "pairs_per_query"),
        ({"judges": [{"plugin": "test-longer"}], "query_ids": [10**9]}, "two candidates or more"),
    ],
)
def test_a_calibration_that_cannot_be_carried_out_is_refused_with_its_reason(
    judged: Judged, body: dict[str, Any], named: str
) -> None:
    owner = make_member(judged.project, Role.OWNER)
    answered = api_post(owner, f"/projects/{judged.project.slug}/calibrations", body)
    assert answered.status_code == 422
    assert named in answered.content.decode()
    assert not Run.objects.exists()


def test_the_report_names_islands_the_prior_and_what_relevance_rests_on(judged: Judged) -> None:
    grade(judged)
    ids = list(judged.candidates)
    carry_out(order_calibration(judged.project, judges=make_judges(judged.project), query_ids=ids[:5], seed=1))
    settle(judged.project)
    text = calibration_report(project_calibration(judged.project))
    assert "3 queries without a cross-query pair: query-5, query-6, query-7" in text
    assert "by cross-validation" in text
    assert f"on {5 * SIZE} human grades, 5 queries" in text
    assert "observed" in text


def test_the_report_says_that_relevance_is_uncalibrated_and_why(judged: Judged) -> None:
    carry_out(order_calibration(judged.project, judges=make_judges(judged.project), seed=1))
    settle(judged.project)
    assert "relevance is uncalibrated: 0 answers" in calibration_report(project_calibration(judged.project))
