"""The audit log: entries outlive project and user, keep their names, and cannot be changed."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, transaction

from labeling import audit
from labeling.models import AuditEntry
from tests.factories.rows import make_project, make_user

pytestmark = pytest.mark.django_db


def test_an_entry_outlives_its_project_and_its_user_with_their_names() -> None:
    owner = make_user("olga")
    project = make_project(owner=owner)
    entry = audit.note("run.paused", project=project, actor=owner, subject="run 17")
    name = project.name
    project.delete()
    owner.delete()
    entry.refresh_from_db()
    assert (entry.project, entry.actor) == (None, None)
    assert (entry.project_name, entry.actor_name, entry.subject) == (name, "olga", "run 17")


def test_the_database_refuses_to_delete_an_entry() -> None:
    entry = audit.note("run.paused", project=make_project())
    with pytest.raises(IntegrityError, match="cannot be changed or deleted"), transaction.atomic():
        AuditEntry.objects.all().delete()
    assert AuditEntry.objects.filter(pk=entry.pk).exists()


@pytest.mark.parametrize("column", ["action", "subject", "actor_name", "project_name", "details", "at"])
def test_the_database_refuses_to_change_an_entry(column: str) -> None:
    audit.note("run.paused", project=make_project(), subject="run 17")
    other = {"details": {"more": 1}, "at": "2020-01-01T00:00:00Z"}.get(column, "other")
    with pytest.raises(IntegrityError, match="cannot be changed or deleted"), transaction.atomic():
        AuditEntry.objects.update(**{column: other})


def test_an_entry_cannot_be_given_to_another_project_or_user() -> None:
    audit.note("run.paused", project=make_project(), actor=make_user())
    for change in ({"project": make_project()}, {"actor": make_user()}):
        with pytest.raises(IntegrityError, match="cannot be changed or deleted"), transaction.atomic():
            AuditEntry.objects.update(**change)


def test_text_that_the_database_cannot_store_does_not_stop_the_action() -> None:
    entry = audit.note("data.imported", project=None, subject="a\x00b\udcff", file="c\x00")
    entry.refresh_from_db()
    assert (entry.subject, entry.details) == ("ab?", {"file": "c"})


def test_changes_name_only_what_changed() -> None:
    assert audit.changes({"a": 1, "b": 2}, {"a": 1, "b": 3}) == {"b": "2 → 3"}


def test_changes_of_options_name_the_options() -> None:
    before, after = {"options": {"old": 1, "same": 2}}, {"options": {"same": 2, "none": None, "judges": [1, 2]}}
    assert audit.changes(before, after) == {"old": "1 → –", "judges": "– → 1, 2"}
