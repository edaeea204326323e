"""Deleted projects: invisible at once, restored within 30 days, then purged with every row and file."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.db.models import Model
from django.utils import timezone

from labeling.access.annotators import get_person
from labeling.access.links import find_link, make_link
from labeling.annotation.context import ProjectNotVisible, find_screen_context
from labeling.models import AuditEntry, Judgment, Project, Query
from labeling.projects import create_project
from scoring.models import Snapshot
from scoring.rating import stale_project_ids
from scoring.storage.files import storage
from tests.factories.rows import judge_pair, make_member, make_pair, make_project, make_run, make_user
from tests.factories.scored import stored_snapshot
from workers.deletion import job as jobs
from workers.deletion.accounts import FORMER, count_account, delete_account
from workers.deletion.projects import archive_project, is_purging, purge_due, purge_project, restore_project
from workers.deletion.targets import DeletionRefused
from workers.jobs.candidates import order_candidates
from workers.models import Job, JudgingTask, ProviderBatch, Run

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]


@pytest.fixture
def owner() -> Any:
    return make_user()


def at_work(owner: Any) -> Project:
    """A project with a run, a job, answers, scores and a snapshot."""
    project = make_project(owner=owner, queries=2)
    stored_snapshot(project)
    run = make_run(project, sampler="all")
    for task in JudgingTask.objects.filter(run=run)[:3]:
        judge_pair(task.pair, task.annotator)
    order_candidates(project, "bm25")
    return project


def rows() -> dict[str, int]:
    """How many rows each table has, without the audit log."""
    found: list[type[Model]] = [model for model in apps.get_models(include_auto_created=True) if model._meta.managed]
    return {model._meta.label: model._base_manager.count() for model in found if model is not AuditEntry}


def test_an_archived_project_is_invisible_and_nothing_works_for_it(owner: Any) -> None:
    project = at_work(owner)
    token = make_link(project=project, role="viewer", by=owner)
    root = make_user(is_superuser=True)
    assert archive_project(project, by=owner) and not archive_project(project, by=owner)
    for user in (owner, root):
        assert not Project.objects.visible_to(user).exists()
        assert not Query.objects.visible_to(user).exists()
        assert not Judgment.objects.visible_to(user).exists()
        assert not Snapshot.objects.visible_to(user).exists()
        assert list(Project.with_archived.archived_by(user)) == [project]
    assert not Project.with_archived.archived_by(make_member(project)).exists()
    assert find_link(token) is None
    with pytest.raises(ProjectNotVisible):
        find_screen_context(owner, project.slug)
    assert set(Run.objects.filter(project=project).values_list("state", flat=True)) == {Run.State.PAUSED}
    assert not Job.objects.filter(project=project, run=None, state__in=["open", "leased"]).exists()
    assert project.pk not in stale_project_ids()
    assert create_project(project.name).slug != project.slug


def test_a_restored_project_is_as_it_was(owner: Any) -> None:
    project = at_work(owner)
    before = rows()
    archive_project(project, by=owner)
    restore_project(project, by=owner)
    assert rows() == before
    assert Project.objects.visible_to(owner).get() == project
    actions = set(AuditEntry.objects.filter(project=project).values_list("action", flat=True))
    assert {"project.archived", "project.restored", "run.paused"} <= actions
    with pytest.raises(DeletionRefused, match="not deleted"):
        restore_project(project, by=owner)


def test_a_purge_removes_every_row_and_file_and_leaves_the_audit_log(owner: Any) -> None:
    make_pair(make_project(owner=owner, queries=1).queries.get())
    before = rows()
    project = at_work(owner)
    folder = Snapshot.objects.get(projects=project).location
    archive_project(project, by=owner)
    assert purge_due() == []
    Project.with_archived.filter(pk=project.pk).update(archived_at=timezone.now() - timedelta(days=31))
    [job] = purge_due()
    assert purge_due() == [] and is_purging(project)
    with pytest.raises(DeletionRefused, match="being purged"):
        restore_project(project, by=owner)
    jobs.carry_out_deletion(job, worker="here")
    assert not Job.objects.filter(pk=job).exists()
    assert rows() == before
    assert storage().names(folder) == []
    entries = AuditEntry.objects.filter(project_name=project.name)
    assert set(entries.values_list("project", flat=True)) == {None}
    assert {"project.created", "project.archived", "project.purge_ordered"} <= set(
        entries.values_list("action", flat=True)
    )
    assert AuditEntry.objects.get(action="project.purged").subject == project.slug


def test_a_purge_goes_on_after_its_worker_died(owner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows()
    project = at_work(owner)
    folder = Snapshot.objects.get(projects=project).location
    archive_project(project, by=owner)
    job = purge_project(project, by=owner)
    assert purge_project(project, by=owner) == job

    class Killed(BaseException):
        pass

    def die(*args: Any) -> None:
        raise Killed

    for dies_at in ("_remove_files", "_finish_purge"):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(jobs, dies_at, die)
            jobs.carry_out_deletion(job.pk, worker="dies")
        Job.objects.filter(pk=job.pk).update(lease_until="2020-01-01T00:00Z")
    jobs.carry_out_deletion(job.pk, worker="next")
    assert rows() == before
    assert storage().names(folder) == []


def test_a_purge_waits_until_batches_have_come_back(owner: Any) -> None:
    before = rows()
    project = at_work(owner)
    run = Run.objects.get(project=project)
    batch = ProviderBatch.objects.create(
        run=run, annotator=run.judges.all()[0], endpoint="e", model="m", requests=1, state="running", batch_id="b"
    )
    archive_project(project, by=owner)
    job = purge_project(project, by=owner)
    run.refresh_from_db()
    assert run.state == Run.State.CANCELLED, "and its batches with it"
    assert jobs.waiting_deletion_ids() == [] and purge_project(project, by=owner) == job
    ProviderBatch.objects.filter(pk=batch.pk).update(state="cancelled", finished_at=timezone.now())
    assert jobs.waiting_deletion_ids() == [job.pk]
    jobs.carry_out_deletion(job.pk, worker="here")
    assert rows() == before


def test_a_deleted_account_leaves_its_answers_without_its_name(owner: Any) -> None:
    project = make_project(owner=owner, queries=1)
    member = make_member(project, "annotator")
    person = get_person(project, member)
    judge_pair(make_pair(project.queries.get()), person)
    name = member.get_username()
    assert count_account(member) == {"memberships": 1, "keys": 0, "links": 0, "judgments": 1}
    delete_account(member, by=owner)
    person.refresh_from_db()
    assert (person.user, person.name) == (None, f"{FORMER} {person.pk}")
    assert Judgment.objects.filter(annotator=person).count() == 1
    assert AuditEntry.objects.get(action="account.deleted").subject == name
    with pytest.raises(DeletionRefused, match="last owner"):
        delete_account(owner, by=owner)
    with pytest.raises(DeletionRefused, match="last superuser"):
        delete_account(make_user(is_superuser=True), by=owner)
