"""The running totals of a project's queries, documents and candidates, which triggers keep."""

from __future__ import annotations

import importlib
import io
import json
import threading

import pytest
from django.db import connection, transaction

from labeling.importing.dataset import import_dataset
from labeling.models import Candidate, Document, Project, ProjectCount, Query
from labeling.projects import with_counts
from tests.factories.rows import make_project, make_query_with_documents

COUNT = importlib.import_module("labeling.migrations.0023_project_counts").COUNT


def counted(project: Project) -> tuple[int, int, int]:
    found = with_counts(Project.objects.filter(pk=project.pk)).get()
    return found.query_count, found.document_count, found.candidate_count


def stored(project: Project) -> tuple[int, int, int]:
    return (
        Query.objects.filter(project=project).count(),
        Document.objects.filter(project=project).count(),
        Candidate.objects.filter(query__project=project).count(),
    )


@pytest.mark.django_db
def test_totals_follow_rows_that_come_and_go() -> None:
    first, second = Project.objects.create(name="a", slug="a"), Project.objects.create(name="b", slug="b")
    assert counted(first) == (0, 0, 0)
    queries = [make_query_with_documents(project, 5) for project in (first, second, first)]
    assert counted(first) == stored(first) == (2, 10, 10)
    assert counted(second) == stored(second) == (1, 5, 5)
    Candidate.objects.filter(query=queries[0]).order_by("id")[0].delete()
    Candidate.objects.filter(query__in=queries[1:], pk__gt=0).filter(first_stage_rank__lte=2).delete()
    Candidate.objects.filter(query=queries[2]).delete()
    queries[2].delete()
    for project in (first, second):
        assert counted(project) == stored(project)
    first.delete()
    assert set(ProjectCount.objects.values_list("project", flat=True)) == {second.pk}
    assert counted(second) == stored(second)


@pytest.mark.django_db
def test_an_import_that_adds_rows_to_a_known_query_counts_the_new_ones() -> None:
    project = Project.objects.create(name="a", slug="a")
    for number in (2, 5, 5):
        documents = [{"id": str(at), "content": f"text {at}"} for at in range(number)]
        line = json.dumps({"query": {"id": "q", "query": "what"}, "documents": documents})
        import_dataset(project, io.BytesIO(line.encode()))
        assert counted(project) == stored(project) == (1, number, number)


@pytest.mark.django_db
def test_the_migration_counts_what_is_there() -> None:
    project = make_project(queries=3, documents=4)
    Project.objects.create(name="empty", slug="empty")
    before = counted(project)
    ProjectCount.objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute(COUNT)
    assert counted(project) == before == stored(project)


@pytest.mark.django_db(transaction=True)
def test_two_connections_add_to_a_project_at_once_and_a_rollback_counts_nothing() -> None:
    project = make_project(queries=1, documents=2)
    query = Query.objects.get(project=project)
    ready = threading.Barrier(2, timeout=30)
    errors: list[Exception] = []

    def add(name: str) -> None:
        try:
            with transaction.atomic():
                made = Document.objects.create(project=project, external_id=name, text=name)
                Candidate.objects.create(query=query, document=made)
                ready.wait()  # both have open transactions with counts
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=add, args=(name,)) for name in ("left", "right")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    with transaction.atomic():
        make_query_with_documents(project, 3)
        transaction.set_rollback(True)
    assert counted(project) == stored(project) == (1, 4, 4)
