"""Makes `dump.sql.gz`: the database of a home of the commit 7a96d3d, with rows in every table.

How it was made, with the requirements of this repository:

    git archive 7a96d3d | tar -x -C OLD
    cd OLD && ZELO_HOME=HOME PYTHONPATH=. python .../old_home/fill.py | gzip -9 > .../old_home/dump.sql.gz

It runs the program of that commit, so its imports are those of then; this repository's tests read the dump only.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

os.environ.setdefault("ZELO_SECRET_KEY", "only-for-tests-" + "0" * 40)
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "zelo_site.settings")


def main() -> None:
    import django

    from zelo_site.environment import prepare_environment

    prepare_environment()
    django.setup()
    from django.apps import apps
    from django.conf import settings
    from django.core.management import call_command
    from django.db import connection
    from zelo_site.services import ServiceSupervisor

    with ServiceSupervisor(settings.ZELO_HOME):
        call_command("migrate", verbosity=0)
        fill()
        models: list[Any] = [each for each in apps.get_models(include_auto_created=True) if each._meta.managed]
        empty = sorted(each._meta.db_table for each in models if not each.objects.exists())
        assert not empty, f"tables without rows: {empty}"
        parameters = connection.get_connection_params()
        from zelo_site.embedded import find_postgres

        command = [str(find_postgres(os.environ) / "pg_dump"), "--no-owner", "--no-privileges", "--inserts"]
        sys.stdout.flush()
        subprocess.run([*command, "-h", parameters["host"], "-U", parameters["user"], parameters["dbname"]], check=True)
        connection.close()


def fill() -> None:
    from labeling.annotators import get_person
    from tests.stub_plugins import STUBS

    from labeling import plugins
    from labeling.projects import create_project
    from tests.factories import make_judges, make_query_with_documents, make_run, make_user
    from workers import audit

    for stub in STUBS:
        plugins._registry[(stub.kind, stub.name)] = stub
    owner = make_user("anna", email="anna@example.org", is_superuser=True, is_staff=True)
    owner.set_password("a long password")
    owner.save()
    member = make_user("ben")
    fill_accounts(owner)
    project = create_project("Cooking", owner=owner)
    fill_access(project, owner, member)
    queries = [make_query_with_documents(project, 5, grades=[3, 2, 1, 0, 0]) for _ in range(3)]
    judges = make_judges(project, 2)
    run = make_run(project, judges=judges, sampler="all")
    person = get_person(project, member)
    fill_answers(queries, judges, person)
    fill_spot_checks(project, owner, queries, person)
    fill_scores(project, judges)
    fill_calls(project, owner, run, judges)
    fill_student(project)
    fill_processes()
    audit.note("project.created", project=project, actor=owner, subject=project.slug)


def fill_accounts(owner: Any) -> None:
    """Groups, rights, a session, and failed sign-ins."""
    from axes.models import AccessAttempt, AccessAttemptExpiration, AccessFailureLog, AccessLog
    from django.contrib.auth.models import Group, Permission
    from django.contrib.sessions.backends.db import SessionStore
    from django.utils import timezone

    from zelo_site.models import Preferences

    group = Group.objects.create(name="readers")
    group.permissions.add(Permission.objects.first())
    owner.groups.add(group)
    owner.user_permissions.add(Permission.objects.last())
    session = SessionStore()
    session["hello"] = "there"
    session.create()
    Preferences.objects.create(user=owner, language="de")
    attempt = AccessAttempt.objects.create(username="eve", ip_address="192.0.2.1", failures_since_start=3)
    AccessAttemptExpiration.objects.create(access_attempt=attempt, expires_at=timezone.now())
    AccessFailureLog.objects.create(username="eve", ip_address="192.0.2.1")
    AccessLog.objects.create(username="anna", ip_address="192.0.2.2")


def fill_access(project: Any, owner: Any, member: Any) -> None:
    """A member, a link, a key and limits."""
    from datetime import timedelta

    from django.utils import timezone

    from labeling.models import AccessLink, ApiToken, Membership
    from workers.models import Caps

    until = timezone.now() + timedelta(days=1)
    Membership.objects.create(project=project, user=member, role="annotator", quota=10)
    AccessLink.objects.create(token_hash="1" * 64, project=project, role="viewer", expires_at=until)
    ApiToken.objects.create(user=owner, name="script", token_hash="2" * 64, scopes=["read"])
    Caps.objects.create(project=project, calls=1_000_000, cost_micros=5_000_000)


def fill_answers(queries: list[Any], judges: list[Any], person: Any) -> None:
    """Answers of both judges to all pairs, and one of a person with its screen's rows."""
    from labeling.desk_models import Desk, PastLease, Submission, Told

    from labeling.judgments import record_judgments
    from labeling.models import Judgment, Rationale
    from labeling.records import NewJudgment
    from tests.factories import judge_pair, make_pair

    for query in queries:
        for a in range(5):
            for b in range(a + 1, 5):
                for judge in judges:
                    judge_pair(make_pair(query, a, b), judge, 0.5 + 0.1 * (b - a) - 0.05 * judge.options["number"])
    pair = make_pair(queries[0], 0, 1)
    record_judgments([NewJudgment(pair_id=pair.pk, annotator_id=person.pk, preference=0.75, swapped=False)])
    answer = Judgment.objects.get(annotator=person)
    Rationale.objects.create(judgment=answer, text="the first answers the question")
    Told.objects.create(judgment=answer)
    Desk.objects.create(person=person, answers=1)
    PastLease.objects.create(annotator=person, pair=make_pair(queries[0], 1, 2), swapped=True)
    Submission.objects.create(
        annotator=person, key="12345678123456781234567812345678", body_hash="3" * 64, response="{}"
    )


def fill_spot_checks(project: Any, owner: Any, queries: list[Any], person: Any) -> None:
    """A gold pair, an answered spot check with its plan, and a verdict of the owner."""
    from labeling.annotators import get_person

    from labeling.judgments import record_judgments
    from labeling.models import Judgment, SpotCheck
    from labeling.records import NewJudgment
    from scoring.models import Adjudication, SpotCheckPlan
    from tests.factories import make_pair

    gold = SpotCheck.objects.create(
        pair=make_pair(queries[1], 0, 1), slot=None, reason="gold", gold_preference=1.0, explanation="the longer one"
    )
    check = SpotCheck.objects.create(
        pair=make_pair(queries[0], 0, 1), slot=0, reason="random", holder=person,
        judgment=Judgment.objects.get(annotator=person), seconds=4.0,
    )  # fmt: skip
    plan = SpotCheckPlan.objects.create(project=project, reason="random", wanted=1, pairs=1, seed=1, created_by=owner)
    plan.checks.add(check, gold)
    owners = get_person(project, owner)
    other = make_pair(queries[2], 0, 1)
    record_judgments([NewJudgment(pair_id=other.pk, annotator_id=owners.pk, preference=0.25, swapped=False)])
    Adjudication.objects.create(pair=other, judgment=Judgment.objects.get(annotator=owners), by=owner)


def fill_scores(project: Any, judges: list[Any]) -> None:
    """Fits and scores of all queries, and a calibration."""
    from labeling.models import Candidate
    from scoring.models import Calibration, JudgeFit, ProjectFit, QueryFit, Score
    from scoring.rating import rate_stale

    rate_stale(project.pk)
    ProjectFit.objects.get_or_create(project=project, defaults={"rater": "thurstone"})
    Calibration.objects.create(project=project, version=1, method="isotonic", answers=10)
    JudgeFit.objects.create(annotator=judges[0], sharpness=1.0, weight=1.0, votes=30)
    assert Score.objects.count() == Candidate.objects.count() and QueryFit.objects.count() == 3


def fill_calls(project: Any, owner: Any, run: Any, judges: list[Any]) -> None:
    """Calls of a run, of which one failed for good, a job and an injection probe."""
    from django.utils import timezone

    from workers.models import Attempt, InjectionProbe, Job, JudgingTask

    now = timezone.now()
    tasks = list(JudgingTask.objects.filter(run=run).order_by("id"))
    for number, task in enumerate(tasks[:6]):
        Attempt.objects.create(
            task_id=task.pk, fence=1, run=run, annotator=task.annotator, outcome="preference" if number else "refusal",
            input_tokens=100, output_tokens=1, cost_micros=25, latency_ms=120, finished_at=now,
        )  # fmt: skip
    JudgingTask.objects.filter(pk=tasks[0].pk).update(state="dead", reason="refusal", message="no", attempts=1, fence=1)
    JudgingTask.objects.filter(pk__in=[task.pk for task in tasks[1:]]).delete()
    Job.objects.create(project=project, stage="candidates", state="finished", finished_at=now, done=5, total=5)
    InjectionProbe.objects.create(
        project=project, annotator=judges[0], created_by=owner, options={"pairs": 2}, state="finished", calls=8,
        report={"rows": [], "failures": {}, "targets": 2, "pairs": 4}, finished_at=now,
    )  # fmt: skip


def fill_student(project: Any) -> None:
    """A snapshot, a training, its reranker and an evaluation."""
    from django.utils import timezone

    from scoring.models import Snapshot
    from trainer.models import Evaluation, Reranker, TrainingRun

    snapshot = Snapshot.objects.create(
        name="v1", location="snapshots/v1", checksum="4" * 64, rows=15, manifest={"format": 1}
    )
    snapshot.projects.add(project)
    training = TrainingRun.objects.create(
        project=project, snapshot=snapshot, trainer="pointwise", state="finished", finished_at=timezone.now()
    )
    reranker = Reranker.objects.create(
        project=project, training_run=training, name="student", kind="student", manifest={}
    )
    Evaluation.objects.create(
        reranker=reranker, project=project, snapshot=snapshot, split="test", reference="grades",
        metrics={"ndcg@10": 0.5},
    )  # fmt: skip


def fill_processes() -> None:
    """A worker that has ended, and the state of an endpoint with its shares."""
    from datetime import timedelta

    from django.utils import timezone

    from workers.models import EndpointShare, EndpointState, Worker

    yesterday = timezone.now() - timedelta(days=1)
    Worker.objects.create(name="rating@old", queues="rating", host="old", pid=1, seen_at=yesterday)
    state = EndpointState.objects.create(identity="5" * 64, name="local", base_url="http://127.0.0.1:9/v1", calls=6)
    EndpointShare.objects.create(endpoint=state, holder="old", slots=1, in_flight=0, wanted=0, until=yesterday)


if __name__ == "__main__":
    main()
