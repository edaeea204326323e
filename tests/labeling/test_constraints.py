"""What the database itself refuses, whoever writes: each constraint is hit by a statement that breaks it alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.apps import apps
from django.db import IntegrityError, connection, transaction

from labeling.access.annotators import get_person
from labeling.models import (
    AccessLink,
    Annotator,
    Candidate,
    GoldAnswer,
    Judgment,
    Membership,
    Pair,
    Project,
    SpotCheck,
)
from scoring.models import Calibration, Score
from tests.factories.rows import (
    candidate_ids,
    judge_pair,
    make_judges,
    make_pair,
    make_project,
    make_query_with_documents,
    make_run,
    make_tasks,
    make_user,
)
from workers.models import Attempt, Job, JudgingTask, Run

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]

NAN, INFINITY = float("nan"), float("inf")
OURS = ("labeling", "scoring", "trainer", "workers")


def refused(constraint: str, write: Callable[[], Any]) -> None:
    """`write` fails, now or at the commit, by this constraint and no other."""
    with pytest.raises(IntegrityError) as error, transaction.atomic():
        write()
        connection.check_constraints()
    assert getattr(error.value.__cause__.diag, "constraint_name", None) == constraint  # type: ignore[union-attr]


def updated(model: Any, **fields: Any) -> Callable[[], Any]:
    rows = getattr(model, "objects", model)
    return lambda: rows.update(**fields)


def deleted(table: str, pk: int) -> None:
    """Delete a row alone, as a forgetful deletion would."""
    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {table} WHERE id = %s", [pk])
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


def deleted_without_tasks(table: str, pk: int) -> None:
    """Delete a run or a judge with all that refers to it but its tasks, as a forgetful deletion would."""
    names = {"run": "workers_run", "annotator": "labeling_annotator"}
    with connection.cursor() as cursor:
        for other in ("workers_run_judges", "workers_attempt", "workers_job", "workers_spend"):
            column = "run_id" if other == "workers_job" else f"{table}_id"
            cursor.execute(f"DELETE FROM {other} WHERE {column} = %s", [pk])
        cursor.execute(f"DELETE FROM {names[table]} WHERE id = %s", [pk])
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


class TestJudgments:
    @pytest.fixture
    def judgment(self) -> Judgment:
        project = make_project(queries=1)
        judge_pair(make_pair(project.queries.get()), make_judges(project)[0])
        return Judgment.objects.get()

    @pytest.mark.parametrize("preference", [NAN, INFINITY, -INFINITY, -0.001, 1.001, None])
    def test_preference_outside_0_and_1(self, judgment: Judgment, preference: float | None) -> None:
        refused("judgment_preference_in_range", updated(Judgment, preference=preference))

    @pytest.mark.parametrize("preference", [0.0, 0.5, 1.0])
    def test_both_ends_of_the_range_are_allowed(self, judgment: Judgment, preference: float) -> None:
        assert Judgment.objects.update(preference=preference) == 1

    @pytest.mark.parametrize("kind", ["both_irrelevant", "cannot_judge", "tie", ""])
    def test_preference_beside_another_kind(self, judgment: Judgment, kind: str) -> None:
        refused("judgment_preference_in_range", updated(Judgment, kind=kind))

    @pytest.mark.parametrize("kind", ["tie", ""])
    def test_unknown_kind_without_preference(self, judgment: Judgment, kind: str) -> None:
        refused("judgment_preference_in_range", updated(Judgment, kind=kind, preference=None))

    def test_two_live_answers_of_a_model_in_one_order(self, judgment: Judgment) -> None:
        twin = {"pair_id": judgment.pair_id, "annotator_id": judgment.annotator_id, "preference": 0.1}
        refused("judgment_live_once_by_model", lambda: Judgment.objects.create(**twin, swapped=False))
        Judgment.objects.create(**twin, swapped=True)
        Judgment.objects.create(**twin, swapped=False, superseded_at="2026-01-01T00:00Z")

    def test_two_live_answers_of_a_person(self, judgment: Judgment) -> None:
        person = get_person(judgment.annotator.project, make_user())
        answer = {"pair_id": judgment.pair_id, "annotator": person, "by_person": True, "preference": 0.5}
        Judgment.objects.create(**answer)
        refused("judgment_live_once_by_person", lambda: Judgment.objects.create(**answer, swapped=True))

    def test_by_person_that_its_annotator_is_not(self, judgment: Judgment) -> None:
        refused("judgment_by_person_of_annotator", updated(Judgment, by_person=True))
        twin = {"pair_id": judgment.pair_id, "annotator_id": judgment.annotator_id, "preference": 0.1}
        refused("judgment_by_person_of_annotator", lambda: Judgment.objects.create(**twin, by_person=True))

    def test_annotator_that_is_not_there(self, judgment: Judgment) -> None:
        stranger = {"pair_id": judgment.pair_id, "annotator_id": 10**9, "preference": 0.1}
        refused("judgment_by_person_of_annotator", lambda: Judgment.objects.create(**stranger))

    def test_annotator_with_judgments_stays_and_stays_what_it_is(self, judgment: Judgment) -> None:
        judge = judgment.annotator_id
        refused("judgment_by_person_of_annotator", lambda: deleted_without_tasks("annotator", judge))
        Annotator.objects.filter(pk=judge).update(name="other")
        other = updated(Annotator.objects.filter(pk=judge), is_person=True, plugin="")
        refused("judgment_by_person_of_annotator", other)


class TestCandidates:
    def test_query_and_document_that_are_not_there(self) -> None:
        query = make_query_with_documents(make_project())
        document = Candidate.objects.filter(query=query)[0].document_id
        refused("candidate_of_query", lambda: Candidate.objects.create(query_id=10**9, document_id=document))
        refused("candidate_of_document", lambda: Candidate.objects.create(query=query, document_id=10**9))

    def test_query_and_document_with_candidates_stay(self) -> None:
        candidate = Candidate.objects.filter(query=make_query_with_documents(make_project()))[0]
        refused("candidate_of_query", lambda: deleted("labeling_query", candidate.query_id))
        refused("candidate_of_document", lambda: deleted("labeling_document", candidate.document_id))

    def test_candidate_keeps_its_document(self) -> None:
        query = make_query_with_documents(make_project())
        first, second = candidate_ids(query)[:2]
        other = Candidate.objects.get(pk=second).document_id
        Candidate.objects.filter(pk=second).delete()
        refused("candidate_keeps_document", updated(Candidate.objects.filter(pk=first), document_id=other))


class TestPairs:
    def test_pair_out_of_order_or_of_one_candidate(self) -> None:
        query = make_query_with_documents(make_project())
        first, second = candidate_ids(query)[:2]
        refused("pair_in_order", lambda: Pair.objects.create(a_id=second, b_id=first, query=query))
        refused("pair_in_order", lambda: Pair.objects.create(a_id=first, b_id=first, query=query))

    def test_pair_twice(self) -> None:
        pair = make_pair(make_query_with_documents(make_project()))
        refused("pair_once", lambda: Pair.objects.create(a=pair.a, b=pair.b, query=pair.query))

    def test_query_that_is_not_that_of_both_candidates(self) -> None:
        project = make_project(queries=2)
        one, two = project.queries.order_by("id")
        a, b = candidate_ids(one)[0], candidate_ids(two)[0]
        refused("pair_b_of_query", lambda: Pair.objects.create(a_id=a, b_id=b, query=one))
        refused("pair_a_of_query", lambda: Pair.objects.create(a_id=a, b_id=b, query=two))
        Pair.objects.create(a_id=a, b_id=b, query=None)
        pair = Pair.objects.get()
        refused("pair_a_of_query", updated(Pair, query=two))
        assert Pair.objects.filter(pk=pair.pk).update(query=None) == 1

    def test_a_candidate_stays_in_its_query(self) -> None:
        project = make_project()
        one, two = make_query_with_documents(project), make_query_with_documents(project)
        refused("candidate_keeps_query", lambda: Candidate.objects.filter(query=one).update(query=two))


class TestTexts:
    def test_names_are_unique_within_a_project(self) -> None:
        query = make_query_with_documents(make_project())
        document = query.candidates.first().document
        for row, constraint in ((query, "query_external_id"), (document, "document_external_id")):
            refused(
                constraint,
                lambda row=row: type(row).objects.create(
                    project=row.project, external_id=row.external_id, text="again"
                ),
            )

    def test_a_document_is_a_candidate_of_a_query_once(self) -> None:
        candidate = make_query_with_documents(make_project()).candidates.first()
        refused("candidate_once", lambda: Candidate.objects.create(query=candidate.query, document=candidate.document))

    def test_ranks_start_at_1(self) -> None:
        make_query_with_documents(make_project())
        refused("candidate_rank_from_1", updated(Candidate, first_stage_rank=0))

    def test_slug_of_a_project_is_unique(self) -> None:
        project = make_project()
        with pytest.raises(IntegrityError), transaction.atomic():
            Project.objects.create(name="Twin", slug=project.slug)


class TestPeople:
    def test_annotator_is_a_model_or_a_person(self) -> None:
        project, user = make_project(), make_user()
        for fields in (
            {"is_person": True, "plugin": "bm25"},
            {"is_person": False, "plugin": ""},
            {"is_person": False, "plugin": "bm25", "user": user},
        ):
            refused(
                "annotator_model_or_person",
                lambda fields=fields: Annotator.objects.create(project=project, config_hash="x", **fields),
            )

    def test_a_configuration_and_a_person_are_annotators_once_a_project(self) -> None:
        project, user = make_project(), make_user()
        (judge,), person = make_judges(project), get_person(project, user)
        refused(
            "annotator_config_once",
            lambda: Annotator.objects.create(project=project, plugin="x", config_hash=judge.config_hash),
        )
        refused(
            "annotator_person_once",
            lambda: Annotator.objects.create(project=project, is_person=True, user=user, config_hash="other"),
        )
        assert person.is_person

    def test_membership_has_a_known_role_and_is_unique(self) -> None:
        project, user = make_project(), make_user()
        refused("membership_role", lambda: Membership.objects.create(project=project, user=user, role="king"))
        Membership.objects.create(project=project, user=user, role="viewer")
        refused("membership_once", lambda: Membership.objects.create(project=project, user=user, role="owner"))

    def test_access_link_leads_somewhere(self) -> None:
        fields = {"token_hash": "x", "expires_at": "2030-01-01T00:00Z"}
        refused("access_link_leads_somewhere", lambda: AccessLink.objects.create(**fields))
        refused("access_link_leads_somewhere", lambda: AccessLink.objects.create(**fields, project=make_project()))

    def test_spot_checks(self) -> None:
        project = make_project(queries=1)
        pair = make_pair(project.queries.get())
        person = get_person(project, make_user())
        SpotCheck.objects.create(pair=pair, slot=0, holder=person)
        refused("spot_check_slot_once_a_pair", lambda: SpotCheck.objects.create(pair=pair, slot=0))
        refused("spot_check_person_once_a_pair", lambda: SpotCheck.objects.create(pair=pair, slot=1, holder=person))
        refused(
            "spot_check_lease_has_holder",
            lambda: SpotCheck.objects.create(pair=pair, slot=1, lease_until="2030-01-01T00:00Z"),
        )
        leased = {"pair": pair, "slot": 1, "lease_until": "2030-01-01T00:00Z"}
        elsewhere = {"holder": get_person(project, make_user()), **leased}
        refused("spot_check_lease_has_place", lambda: SpotCheck.objects.create(**elsewhere))
        refused("spot_check_place_is_1_or_2", lambda: SpotCheck.objects.create(**elsewhere, place=3))
        refused("spot_check_private_slot_has_holder", lambda: SpotCheck.objects.create(pair=pair, slot=None))
        judge_pair(pair, person, 0.5)
        answered = {**elsewhere, "place": 1, "judgment": Judgment.objects.get()}
        refused("spot_check_answer_ends_lease", lambda: SpotCheck.objects.create(**answered))

    def test_gold_answers(self) -> None:
        project = make_project(queries=1)
        pair = make_pair(project.queries.get())
        for preference in (NAN, -0.1, 1.1):
            refused(
                "gold_answer_in_range",
                lambda preference=preference: GoldAnswer.objects.create(pair=pair, preference=preference),
            )
        GoldAnswer.objects.create(pair=pair, preference=0.95)
        assert GoldAnswer.objects.get().project == project
        refused("labeling_goldanswer_pair_id_key", lambda: GoldAnswer.objects.create(pair=pair, preference=0.95))


class TestWork:
    def test_lease_of_a_task_fits_its_state(self) -> None:
        make_tasks()
        until = "2030-01-01T00:00Z"
        for fields in (
            {"state": "leased"},
            {"state": "leased", "lease_until": until},
            {"state": "leased", "leased_by": "w"},
            {"state": "open", "lease_until": until, "leased_by": "w"},
            {"state": "open", "leased_by": "w"},
            {"state": "dead", "reason": "timeout", "lease_until": until},
            {"state": "asleep"},
        ):
            refused("judging_task_lease_fits_state", updated(JudgingTask, **fields))
        assert JudgingTask.objects.update(state="leased", lease_until=until, leased_by="w") == 1

    def test_dead_task_has_a_reason(self) -> None:
        make_tasks()
        refused("judging_task_dead_has_reason", updated(JudgingTask, state="dead"))

    def test_a_call_has_a_run_and_a_judge(self) -> None:
        (task,) = make_tasks()
        call = {"task_id": task.pk, "fence": 1, "run_id": task.run_id, "annotator_id": task.annotator_id}
        # The running totals of the run come first.
        refused("workers_spend_run", lambda: Attempt.objects.create(**{**call, "run_id": 10**9}))
        refused("attempt_of_annotator", lambda: Attempt.objects.create(**{**call, "annotator_id": 10**9}))
        Attempt.objects.create(**call)
        other = make_run(task.run.project, judges=[task.annotator])
        refused("attempt_keeps_keys", updated(Attempt, run=other))

    def test_run_and_judge_with_calls_stay(self) -> None:
        (task,) = make_tasks()
        Attempt.objects.create(task_id=task.pk, fence=1, run=task.run, annotator=task.annotator)
        JudgingTask.objects.all().delete()
        with connection.cursor() as cursor:
            for table in ("workers_run_judges", "workers_job", "workers_spend"):
                cursor.execute(f"DELETE FROM {table}")
        refused("attempt_of_annotator", lambda: deleted("labeling_annotator", task.annotator_id))
        refused("attempt_of_run", lambda: deleted("workers_run", task.run_id))

    def test_a_question_is_one_task(self) -> None:
        (task,) = make_tasks()
        refused(
            "judging_task_once",
            lambda: JudgingTask.objects.create(
                run=task.run, pair=task.pair, annotator=task.annotator, swapped=task.swapped
            ),
        )

    def test_a_task_has_a_run_and_a_judge(self) -> None:
        (task,) = make_tasks()
        for constraint, fields in (
            ("workers_taskcount_run", {"run_id": 0, "annotator": task.annotator}),
            ("workers_taskcount_annotator", {"run": task.run, "annotator_id": 0}),
        ):
            create = partial(JudgingTask.objects.create, pair=task.pair, swapped=not task.swapped, **fields)
            refused(constraint, create)
        refused("workers_taskcount_run", updated(JudgingTask, run_id=0))

    def test_a_run_or_a_judge_with_tasks_stays(self) -> None:
        (task,) = make_tasks()
        for table, pk in (("run", task.run_id), ("annotator", task.annotator_id)):
            with pytest.raises(IntegrityError, match="still has tasks"), transaction.atomic():
                deleted_without_tasks(table, pk)
        JudgingTask.objects.all().delete()
        deleted_without_tasks("run", task.run_id)

    def test_a_call_is_booked_once(self) -> None:
        (task,) = make_tasks()
        call = {"task_id": task.id, "fence": 1, "call": 1, "run": task.run, "annotator": task.annotator}
        Attempt.objects.create(**call)
        refused("attempt_once", lambda: Attempt.objects.create(**call))

    def test_run_has_known_state_allocation_and_orders(self) -> None:
        make_run(make_project(queries=1))
        refused("run_state", updated(Run, state="lost"))
        refused("run_allocation", updated(Run, allocation="some"))
        refused("run_orders", updated(Run, orders="three"))

    def test_lease_of_a_job_fits_its_state_and_a_stage_is_unfinished_once(self) -> None:
        run = make_run(make_project(queries=1), planned=False)
        refused("job_lease_fits_state", updated(Job, state="leased"))
        refused("job_lease_fits_state", updated(Job, lease_until="2030-01-01T00:00Z"))
        refused("job_unfinished_once", lambda: Job.objects.create(project=run.project, run=run, stage="pairs"))


class TestScores:
    GOOD = {"theta": 0.0, "stderr": 0.1, "elo": 1500.0, "elo_stderr": 10.0, "relevance": 0.5, "judged_version": 1}

    @pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY])
    @pytest.mark.parametrize("field", ["theta", "stderr", "elo"])
    def test_score_that_is_no_number(self, field: str, value: float) -> None:
        candidate = make_query_with_documents(make_project()).candidates.first()
        refused("score_is_finite", lambda: Score.objects.create(candidate=candidate, **{**self.GOOD, field: value}))

    @pytest.mark.parametrize("value", [NAN, -0.01, 1.01])
    def test_relevance_outside_0_and_1(self, value: float) -> None:
        candidate = make_query_with_documents(make_project()).candidates.first()
        refused(
            "score_relevance_in_range",
            lambda: Score.objects.create(candidate=candidate, **{**self.GOOD, "relevance": value}),
        )

    def test_calibration_version_twice(self) -> None:
        project = make_project()
        Calibration.objects.create(project=project, version=1000)
        refused("calibration_version_once", lambda: Calibration.objects.create(project=project, version=1000))


def test_every_table_of_a_project_says_who_may_see_it() -> None:
    """`visible_to` on each queryset, and strangers see nothing through any of them."""
    project = make_project(queries=1)
    make_run(project)
    judge_pair(make_pair(project.queries.get()), make_judges(project)[0])
    stranger, open_to_all, filled = make_user(), set(), 0
    for model in (model for app in OURS for model in apps.get_app_config(app).get_models()):
        if hasattr(model._default_manager, "visible_to"):
            assert not model._default_manager.visible_to(stranger).exists(), model.__name__
            filled += model._default_manager.exists()
        else:
            open_to_all.add(model.__name__)
    assert filled >= 8
    # Reached only through a row that is visible, or of no project at all.
    assert open_to_all == {
        "Membership", "AccessLink", "ApiToken", "Rationale", "Worker", "PastLease", "ScreenState", "Submission",
        "EndpointState", "EndpointShare", "SeenAnswers", "EndpointDefinition", "EndpointRestriction", "EndpointSpend", "OperatorLimit",
    }  # fmt: skip
