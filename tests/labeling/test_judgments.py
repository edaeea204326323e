"""The sole write path of judgments: versions, duplicates, rationales, the signal after commit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from labeling.access.annotators import get_person
from labeling.judgments import record_judgments
from labeling.models import Judgment, Project, Query, Rationale
from labeling.pairs import store_pairs
from labeling.records import AnswerKind, NewJudgment
from labeling.signals import judgments_recorded
from tests.factories.rows import (
    candidate_ids,
    judge_pair,
    make_judges,
    make_pair,
    make_project,
    make_query_with_documents,
    make_user,
)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `judgments_recorded` has said."""
    messages: list[dict[str, Any]] = []

    def note(sender: Any, project_ids: tuple[int, ...], query_ids: tuple[int, ...], **kwargs: Any) -> None:
        messages.append({"projects": project_ids, "queries": query_ids})

    judgments_recorded.connect(note)
    yield messages
    judgments_recorded.disconnect(note)


def version(query: Query) -> int:
    query.refresh_from_db()
    return query.judged_version


def test_stored_judgments_raise_the_version_of_their_queries_alone() -> None:
    project = make_project()
    touched, other = make_query_with_documents(project), make_query_with_documents(project)
    (judge,) = make_judges(project)
    recorded = judge_pair(make_pair(touched), judge)
    assert (recorded.stored, recorded.query_ids, recorded.project_ids) == (1, (touched.pk,), (project.pk,))
    assert (version(touched), version(other)) == (1, 0)


def test_a_batch_raises_a_version_once() -> None:
    query = make_query_with_documents(make_project())
    (judge,) = make_judges(query.project)
    answers = [NewJudgment(make_pair(query, 0, b).pk, judge.pk, False, 0.5) for b in (1, 2, 3)]
    assert record_judgments(answers).stored == 3
    assert version(query) == 1


def test_first_answer_stands_and_a_repeat_raises_no_version() -> None:
    query = make_query_with_documents(make_project())
    (judge,) = make_judges(query.project)
    judge_pair(make_pair(query), judge, 0.7)
    again = judge_pair(make_pair(query), judge, 0.1)
    assert (again.stored, again.duplicates, again.query_ids) == (0, 1, ())
    assert Judgment.objects.get().preference == 0.7
    assert version(query) == 1


def test_one_batch_with_the_same_question_twice_stores_it_once() -> None:
    query = make_query_with_documents(make_project())
    (judge,) = make_judges(query.project)
    pair = make_pair(query)
    recorded = record_judgments([NewJudgment(pair.pk, judge.pk, False, p) for p in (0.6, 0.4)])
    assert (recorded.stored, recorded.duplicates) == (1, 1)
    assert Judgment.objects.get().preference == 0.6


def test_models_answer_in_both_orders_and_people_once() -> None:
    query = make_query_with_documents(make_project())
    (judge,) = make_judges(query.project)
    person = get_person(query.project, make_user())
    pair = make_pair(query)
    stored = [
        judge_pair(pair, annotator, swapped=swapped).stored
        for annotator in (judge, person)
        for swapped in (False, True)
    ]
    assert stored == [1, 1, 1, 0]
    assert Judgment.objects.filter(by_person=True).count() == 1


def test_superseded_answer_makes_room_for_another() -> None:
    query = make_query_with_documents(make_project())
    person = get_person(query.project, make_user())
    pair = make_pair(query)
    judge_pair(pair, person, 0.95)
    Judgment.objects.update(superseded_at="2026-01-01T00:00Z")
    assert judge_pair(pair, person, 0.05).stored == 1
    assert [each.preference for each in Judgment.objects.live()] == [0.05]


def test_rationale_lies_beside_its_judgment() -> None:
    query = make_query_with_documents(make_project())
    (judge,) = make_judges(query.project)
    judge_pair(make_pair(query, 0, 1), judge, rationale="b tells when")
    judge_pair(make_pair(query, 0, 2), judge)
    judge_pair(make_pair(query, 0, 1), judge, rationale="too late")
    assert list(Rationale.objects.values_list("text", flat=True)) == ["b tells when"]


def test_answer_without_preference_is_stored_and_is_no_preference() -> None:
    query = make_query_with_documents(make_project())
    (judge,) = make_judges(query.project)
    judge_pair(make_pair(query), judge, None, kind=AnswerKind.BOTH_IRRELEVANT)
    assert Judgment.objects.live().count() == 1
    assert Judgment.objects.preferences().count() == 0
    assert version(query) == 1


def test_cross_query_answer_raises_the_calibration_of_the_project_and_no_query() -> None:
    project = make_project(queries=2)
    one, two = project.queries.order_by("id")
    (judge,) = make_judges(project)
    (pair_id,) = store_pairs([candidate_ids(one)[0]], [candidate_ids(two)[0]], [None])
    recorded = record_judgments([NewJudgment(pair_id, judge.pk, False, 0.5)])
    assert (recorded.query_ids, recorded.project_ids) == ((), (project.pk,))
    assert (version(one), version(two)) == (0, 0)
    assert Project.objects.get(pk=project.pk).calibration_version == project.calibration_version + 1


def test_pair_that_does_not_exist_is_refused() -> None:
    (judge,) = make_judges(make_project())
    with pytest.raises(IntegrityError), transaction.atomic():
        record_judgments([NewJudgment(10**12, judge.pk, False, 0.5)])
        connection.check_constraints()


@pytest.mark.parametrize("preference", [float("nan"), -0.1, 1.1, float("inf"), None])
def test_preference_outside_its_range_never_becomes_a_record(preference: float | None) -> None:
    with pytest.raises(ValueError, match="preference is"):
        NewJudgment(1, 1, False, preference)


def test_nothing_is_sent_for_nothing() -> None:
    assert record_judgments([]).stored == 0


@pytest.mark.django_db(transaction=True)
def test_signal_is_sent_after_commit_and_not_after_rollback(received: list[dict[str, Any]]) -> None:
    query = make_query_with_documents(make_project())
    (judge,) = make_judges(query.project)
    with pytest.raises(RuntimeError), transaction.atomic():
        judge_pair(make_pair(query), judge)
        raise RuntimeError
    assert received == []
    with transaction.atomic():
        judge_pair(make_pair(query), judge)
        assert received == []
    assert received == [{"projects": (query.project_id,), "queries": (query.pk,)}]


@pytest.mark.django_db(transaction=True)
def test_a_receiver_that_raises_does_not_make_stored_judgments_look_lost() -> None:
    query = make_query_with_documents(make_project())
    (judge,) = make_judges(query.project)

    def broken(**kwargs: Any) -> None:
        raise RuntimeError("broken receiver")

    judgments_recorded.connect(broken)
    try:
        assert judge_pair(make_pair(query), judge).stored == 1
    finally:
        judgments_recorded.disconnect(broken)


# --- live judgments ----------------------------------------------------------------------

# The model and its write path; and two statements that read superseded answers on purpose.
READS_SUPERSEDED = {
    "labeling/models/judgments.py",
    "labeling/judgments.py",
    "labeling/annotation/gold.py",
    "scoring/annotators/agreement.py",
}


def test_live_is_defined_once() -> None:
    root = Path(__file__).parents[2]
    apps = ("labeling", "scoring", "trainer", "workers", "zelo_site")
    files = (path.relative_to(root) for app in apps for path in (root / app).rglob("*.py"))
    found = {
        str(path)
        for path in files
        if "migrations" not in path.parts
        and re.search(r"superseded_at(__isnull=True| is null)", (root / path).read_text(), re.IGNORECASE)
    }
    assert found == READS_SUPERSEDED


def test_the_view_of_live_judgments_uses_the_partial_indexes() -> None:
    with connection.cursor() as cursor:
        # Of an empty table the planner may prefer any index; without sorting only the partial one is in order.
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off")
        cursor.execute(
            "EXPLAIN SELECT created_at FROM labeling_live_judgment WHERE annotator_id = 1 AND by_person "
            "ORDER BY created_at DESC LIMIT 20"
        )
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "judgment_live_of_person" in plan
