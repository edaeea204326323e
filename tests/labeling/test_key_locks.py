"""What a row refers to cannot be deleted while its transaction runs, nor referred to while its deletion runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction

from labeling.models import Candidate, Document, Judgment
from tests.factories.rows import make_pair, make_project, make_query_with_documents, make_tasks
from workers.models import Attempt

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]

Case = tuple[str, int, Callable[[], Any]]


def candidate_of_document() -> Case:
    query = make_query_with_documents(make_project())
    document = Document.objects.create(project=query.project, external_id="new", text="new")
    return "labeling_document", document.pk, lambda: Candidate.objects.create(query=query, document=document)


def candidate_of_query() -> Case:
    project = make_project()
    query = make_query_with_documents(project)
    document = Document.objects.create(project=project, external_id="new", text="new")
    return "labeling_query", query.pk, lambda: Candidate.objects.create(query=query, document=document)


def judgment_of_annotator() -> Case:
    (task,) = make_tasks()
    pair = make_pair(make_query_with_documents(task.run.project))
    write = lambda: Judgment.objects.create(pair=pair, annotator=task.annotator, preference=0.5)  # noqa: E731
    return "labeling_annotator", task.annotator_id, write


def attempt_of_run() -> Case:
    (task,) = make_tasks()
    write = lambda: Attempt.objects.create(task_id=1, fence=1, run=task.run, annotator=task.annotator)  # noqa: E731
    return "workers_run", task.run_id, write


def waits_elsewhere(act: Callable[[], Any]) -> bool:
    """Whether `act` waits for a lock in a transaction of another connection, which is rolled back."""
    waited: list[bool] = []

    def run() -> None:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SET LOCAL lock_timeout = '300ms'")
                act()
                transaction.set_rollback(True)
            waited.append(False)
        except OperationalError as error:
            waited.append("lock timeout" in str(error))
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30.0)
    return waited == [True]


def lock_as_a_deletion(table: str, pk: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT 1 FROM {table} WHERE id = %s FOR UPDATE", [pk])


@pytest.mark.parametrize("case", [candidate_of_document, candidate_of_query, judgment_of_annotator, attempt_of_run])
def test_a_reference_and_the_deletion_of_its_row_wait_for_each_other(case: Callable[[], Case]) -> None:
    table, pk, write = case()
    with transaction.atomic():
        write()
        assert waits_elsewhere(lambda: lock_as_a_deletion(table, pk))
        transaction.set_rollback(True)
    with transaction.atomic():
        lock_as_a_deletion(table, pk)
        assert waits_elsewhere(write)
    assert not waits_elsewhere(write), "without the other transaction nobody waits"


def test_a_document_of_the_same_transaction_is_not_locked_again() -> None:
    """Nobody else can delete it, and an import makes thousands."""
    query = make_query_with_documents(make_project())
    with transaction.atomic():
        document = Document.objects.create(project=query.project, external_id="new", text="new")
        Candidate.objects.create(query=query, document=document)
        with connection.cursor() as cursor:
            cursor.execute("SELECT xmax::text FROM labeling_document WHERE id = %s", [document.pk])
            assert cursor.fetchone() == ("0",)
