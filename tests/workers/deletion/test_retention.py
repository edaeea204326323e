"""Retention: old rows go by kind and in slices; scores, totals and the latest of each kind stay."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.db.models import Sum
from django.utils import timezone

from labeling.access.annotators import get_person
from labeling.models import AuditEntry, Judgment, Rationale, Submission
from tests.factories.rows import judge_pair, make_judges, make_pair, make_project, make_run, make_user
from workers.budgets.operator_limits import OperatorRule, spend_of_rule
from workers.budgets.spend import totals_of_project
from workers.deletion.retention import KINDS, Night, count_old, next_night, prune
from workers.models import Attempt, EndpointSpend, InjectionProbe, Job, Run, Spend, Webhook, WebhookDelivery

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]

LONG_AGO = timezone.now() - timedelta(days=4_000)


def call(run: Any, judge: Any, number: int, *, ended: datetime = LONG_AGO) -> Attempt:
    return Attempt.objects.create(
        task_id=number, fence=1, run=run, annotator=judge, outcome="preference", input_tokens=10, cost_micros=7,
        finished_at=ended,
    )  # fmt: skip


def ended_job(project: Any, stage: str, *, ended: datetime = LONG_AGO, **fields: Any) -> Job:
    return Job.objects.create(project=project, stage=stage, state="finished", finished_at=ended, **fields)


def test_old_calls_go_and_the_spend_of_their_run_stays() -> None:
    project = make_project(queries=1)
    [judge] = make_judges(project)
    run, active = (make_run(project, judges=[judge], planned=False) for _ in range(2))
    Run.objects.filter(pk=run.pk).update(state="finished")
    for number in range(5):
        call(run, judge, number)
    young, unended = call(run, judge, 5, ended=timezone.now()), call(active, judge, 6)
    before = totals_of_project(project.pk)
    assert prune().rows == {"attempts": 5}
    assert set(Attempt.objects.all()) == {young, unended}
    assert totals_of_project(project.pk) == before
    assert Spend.objects.aggregate(calls=Sum("calls"))["calls"] == 7
    Attempt.objects.filter(pk=unended.pk).delete()
    assert totals_of_project(project.pk).calls == before.calls - 1, "other deletions lower the totals as before"


def test_what_scores_need_is_of_no_kind(settings: Any) -> None:
    settings.ZELO_KEEP_DAYS = {kind.name: 1 for kind in KINDS}
    project = make_project(queries=1)
    [judge] = make_judges(project)
    judge_pair(make_pair(project.queries.get()), judge)
    judgment = Judgment.objects.get()
    Rationale.objects.create(judgment=judgment, text="longer")
    Judgment.objects.update(created_at=LONG_AGO)
    assert prune().rows == {"rationales": 1}
    assert Judgment.objects.filter(pk=judgment.pk).exists()
    settings.ZELO_KEEP_DAYS = {**settings.ZELO_KEEP_DAYS, "rationales": None}
    Rationale.objects.create(judgment=judgment, text="longer")
    assert prune().rows == {}


def test_the_latest_probe_of_a_judge_stays_and_old_ones_still_count_as_spent() -> None:
    project = make_project()
    [judge] = make_judges(project)
    for _ in range(3):
        job = ended_job(project, "probe")
        InjectionProbe.objects.create(project=project, annotator=judge, job=job, calls=4, cost_micros=100)
    latest = InjectionProbe.objects.latest("id")
    assert prune().rows == {"probes": 2}
    assert list(InjectionProbe.objects.all()) == [latest] and list(Job.objects.all()) == [latest.job]
    assert totals_of_project(project.pk).calls == 12 and totals_of_project(project.pk).cost_micros == 300


def test_jobs_go_but_for_orders_and_the_latest_of_a_stage() -> None:
    project = make_project(queries=1)
    run = make_run(project, planned=False)
    ended_job(project, "candidates")
    kept = [ended_job(project, "candidates"), ended_job(project, "distill"), ended_job(project, "distill")]
    kept += [ended_job(project, "pairs", run=run), ended_job(project, "pairs", run=run)]
    assert prune().rows == {"jobs": 1}
    assert {job.pk for job in kept} <= set(Job.objects.values_list("pk", flat=True))


def test_messages_deliveries_and_sessions_go_when_their_time_is_up() -> None:
    project = make_project()
    person = get_person(project, make_user())
    for number in range(2):
        key = f"12345678123456781234567812345{number:03}"
        Submission.objects.create(annotator=person, key=key, body_hash="", response="{}")
    Submission.objects.filter(key=key).update(created_at=LONG_AGO)
    webhook = Webhook.objects.create(project=project, url="https://hooks.example.org", events=["run.finished"])
    for state in ("delivered", "failed", "open"):
        WebhookDelivery.objects.create(webhook=webhook, event="run.finished", state=state, finished_at=LONG_AGO)
    Session.objects.create(session_key="old", session_data="", expire_date=LONG_AGO)
    Session.objects.create(session_key="new", session_data="", expire_date=timezone.now())
    counted = {name: count for name, count in count_old().items() if count}
    assert counted == prune().rows == {"submissions": 1, "deliveries": 2, "sessions": 1}
    entry = AuditEntry.objects.get(action="server.pruned")
    assert entry.details == counted


def test_old_days_of_spend_become_one_row_that_limits_in_total_still_count() -> None:
    project = make_project()
    [judge, other] = make_judges(project, 2)
    rule = OperatorRule("gpu", None, "total", 1, None, None)

    def spend(day: date, shard: int, *, of: Any = judge, **figures: int) -> None:
        values = {"endpoint": "gpu", "project_id": project.pk, "annotator_id": of.pk, "day": day, "shard": shard}
        EndpointSpend.objects.create(**values, **figures)

    for number in range(3):
        spend(LONG_AGO.date() + timedelta(days=number), number, calls=5, answers=4, cost_micros=70, in_flight=1)
    spend(LONG_AGO.date(), 0, of=other, calls=2)
    spend(timezone.now().date(), 0, calls=1)
    before = spend_of_rule(rule)
    assert count_old()["spend"] == 4 and prune().rows == {"spend": 4}
    assert spend_of_rule(rule) == before
    assert EndpointSpend.objects.filter(annotator_id=judge.pk).count() == 2
    spend(LONG_AGO.date(), 9, in_flight=-3, answers=3)  # calls of an old day ended after the night
    late = spend_of_rule(rule)
    assert prune().rows == {"spend": 1} and prune().rows == {}
    assert spend_of_rule(rule) == late and late[judge.pk].in_flight == 0
    assert spend_of_rule(OperatorRule("gpu", None, "day", 1, None, None))[judge.pk].calls == 1


def test_a_slice_of_time_leaves_the_rest_for_the_next_round() -> None:
    Session.objects.bulk_create(
        Session(session_key=f"s{number}", session_data="", expire_date=LONG_AGO) for number in range(300)
    )
    first = prune(slice_s=0.0)
    assert first.is_unfinished and 0 < first.rows["sessions"] < 300
    assert not prune().is_unfinished and not Session.objects.exists()


def test_a_night_comes_an_hour_after_the_start_and_then_at_three() -> None:
    start = datetime(2026, 11, 29, 20, 0, tzinfo=UTC)
    night = Night()
    assert night.look(start) is None and night.look(start + timedelta(minutes=59)) is None
    assert night.look(start + timedelta(hours=1)) is not None
    assert night.look(datetime(2026, 11, 30, 2, 59, tzinfo=UTC)) is None
    assert night.look(datetime(2026, 11, 30, 3, 0, tzinfo=UTC)) is not None
    assert next_night(datetime(2026, 11, 30, 3, 0, tzinfo=UTC)) == datetime(2026, 12, 1, 3, 0, tzinfo=UTC)


def test_the_command_counts_before_it_deletes() -> None:
    Session.objects.create(session_key="old", session_data="", expire_date=LONG_AGO)
    out = StringIO()
    call_command("prune", "--dry-run", stdout=out)
    assert "1 to delete, kept for 1 days" in out.getvalue() and "rationales" in out.getvalue()
    assert Session.objects.exists()
    call_command("prune", stdout=out)
    assert not Session.objects.exists()
