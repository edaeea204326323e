"""A process that stands still in a transaction keeps its locks for a limited time, and continues on a new connection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import Error, InternalError, connection, transaction

from labeling.database import is_lost
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
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '10s'")  # without the limit the test fails instead of waiting for ever
        assert Project.objects.filter(pk=project.pk).update(name="kept") == 1
        with pytest.raises(Error, match="idle-in-transaction") as caught, stopped.cursor() as cursor:
            cursor.execute("SELECT 1")
        assert is_lost(caught.value)
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
                        "DO $$ BEGIN FOR i IN 1..200 LOOP EXIT WHEN NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s);"
                        " PERFORM pg_sleep(.05); PERFORM pg_stat_clear_snapshot(); END LOOP; END $$",
                        [pid],
                    )
                other.close()
                Project.objects.filter(pk=project.pk).exists()

    recorder._patiently(store)
    project.refresh_from_db()
    assert (len(tries), project.name) == (2, "stored 2")


def test_other_internal_errors_are_faults_of_the_statement() -> None:
    """As of a damaged index: retrying does not help, and a run or job must say so."""
    with pytest.raises(InternalError) as caught, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("DO $$ BEGIN RAISE EXCEPTION 'damaged' USING ERRCODE = 'XX002'; END $$")
    assert not is_lost(caught.value)
