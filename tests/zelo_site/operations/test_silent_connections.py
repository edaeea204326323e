"""A process that stands still in a transaction keeps its locks for a limited time, and continues on a new connection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, transaction

from labeling.database import LOST
from labeling.models import Project
from tests.factories.rows import make_project
from workers.judging import recorder

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def short(settings: Any) -> Iterator[None]:
    """Connections of this test end after a second in a silent transaction."""
    settings.ZELO_IDLE_TRANSACTION_S = 1
    connection.close()
    yield
    connection.close()


def shown(name: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"SHOW {name}")
        return str(cursor.fetchone()[0])


def test_a_session_has_the_limits(short: None, settings: Any) -> None:
    assert shown("idle_in_transaction_session_timeout") == "1s"
    settings.ZELO_IDLE_TRANSACTION_S = 0
    connection.close()
    assert shown("idle_in_transaction_session_timeout") == "0", "no limit"


def test_locks_of_a_silent_transaction_are_free_after_its_limit(short: None) -> None:
    project = make_project()
    stopped = connection.copy()
    try:
        with stopped.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("UPDATE labeling_project SET name = 'lost' WHERE id = %s", [project.pk])
        assert Project.objects.filter(pk=project.pk).update(name="kept") == 1
        with pytest.raises(LOST, match="idle-in-transaction"), stopped.cursor() as cursor:
            cursor.execute("SELECT 1")
        project.refresh_from_db()
        assert project.name == "kept"
    finally:
        stopped.close()


def test_answers_are_stored_again_after_the_server_ended_their_transaction(short: None) -> None:
    project, tries = make_project(), []

    def store() -> None:
        tries.append(len(tries))
        with transaction.atomic():
            Project.objects.filter(pk=project.pk).update(name=f"stored {len(tries)}")
            if len(tries) == 1:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT pg_backend_pid()")
                    pid = cursor.fetchone()[0]
                other = connection.copy()
                with other.cursor() as cursor:  # waits until the server has ended the first connection
                    cursor.execute(
                        "DO $$ BEGIN WHILE EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s) LOOP"
                        " PERFORM pg_sleep(.05); PERFORM pg_stat_clear_snapshot(); END LOOP; END $$",
                        [pid],
                    )
                other.close()
                Project.objects.filter(pk=project.pk).exists()

    recorder._patiently(store)
    project.refresh_from_db()
    assert (len(tries), project.name) == (2, "stored 2")
