"""Scorecards, canaries and the drift alarm over stored answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from django.db.models import F
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from labeling import plugins
from labeling.access.annotators import get_person
from labeling.models import Annotator, Candidate, Judgment, Pair, Project
from labeling.pairs import store_pairs
from labeling.records import AnswerKind, Comparison, Failure, Verdict
from scoring.annotators.known_answers import draw_known_pairs, gold_share, judge_answers
from tests.factories.rows import (
    answer_each_way,
    candidate_ids,
    judge_pair,
    make_judges,
    make_member,
    make_project,
    make_query_with_documents,
    make_run,
    make_user,
)
from tests.factories.stubs.plugins import TestJudge
from tests.factories.working import work_until_over
from workers.judging import batches, queue
from workers.judging.drift import known_drift, watch_judge
from workers.judging.pausing import pause_judge, resume_judge
from workers.models import Attempt, JudgingTask, Spend
from workers.monitoring import judge_summary
from workers.monitoring import scorecard as scorecard_module
from workers.monitoring.scorecard import scorecard, scorecards

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]


def make_graded(*, documents: int = 6, queries: int = 1) -> Project:
    """Grades rise with the words of the documents, so that the judge `test-longer` is always right."""
    project = make_project()
    for _ in range(queries):
        make_query_with_documents(project, documents, grades=range(documents))
    return project


def answer_all(project: Project, judge: Annotator, *, orders: str = "one") -> None:
    make_run(project, judges=[judge], sampler="all", orders=orders)
    while batches.judge_open(judge.pk, worker="w@host:1"):
        pass


def all_pairs(project: Project) -> list[Pair]:
    for query in project.queries.all():
        ids = candidate_ids(query)
        a, b = zip(*[(x, y) for x in ids for y in ids if x < y], strict=True)
        store_pairs(a, b, [query.pk] * len(a))
    return list(Pair.objects.filter(query__project=project).order_by("id"))


# --- the card ----------------------------------------------------------------------------


def test_a_judge_that_is_always_right_has_a_clean_card() -> None:
    project = make_graded()
    (judge,) = make_judges(project)
    answer_all(project, judge, orders="both")
    card = scorecard(judge)
    assert card.gold is not None and (card.gold.value, card.gold.count) == (1.0, 15)
    assert card.flips is not None and (card.flips.value, card.flips.count) == (0.0, 15)
    assert card.cycles is not None and (card.cycles.value, card.cycles.count) == (0.0, 20)
    assert card.position is not None and abs(card.position.value) < 1e-12
    assert card.people is None and card.agreement is None and card.drift is None
    assert (card.answers, card.calls.calls, card.calls.cost_micros) == (30, 30, 0)
    assert card.calls.failed is not None and card.calls.failed.value == 0.0


def test_a_judge_that_always_takes_the_first_leans_and_flips() -> None:
    project = make_graded()
    (judge,) = make_judges(project)
    for pair in all_pairs(project):
        judge_pair(pair, judge, 0.8, swapped=False)
        judge_pair(pair, judge, 0.2, swapped=True)
    card = scorecard(judge)
    assert card.flips is not None and card.flips.value == 1.0
    assert card.position is not None and card.position.value == pytest.approx(0.3)
    assert card.gold is not None and card.gold.value == 0.5


def test_pairs_of_equal_grades_are_no_known_answers() -> None:
    project = make_graded()
    (judge,) = make_judges(project)
    answer_all(project, judge)
    Candidate.objects.filter(query__project=project).exclude(grade=5).update(grade=1)
    card = scorecard(judge)
    assert card.gold is not None and (card.gold.value, card.gold.count) == (1.0, 5)
    Candidate.objects.filter(query__project=project).update(grade=1)
    assert scorecard(judge).gold is None


def test_people_and_other_judges_are_measured_against_apart() -> None:
    project = make_project(queries=1, documents=4)
    mine, other = make_judges(project, 2)
    person = get_person(project, make_user())
    pairs = all_pairs(project)
    for place, pair in enumerate(pairs):
        judge_pair(pair, mine, 0.9)
        judge_pair(pair, other, 0.9 if place else 0.1)
    judge_pair(pairs[0], person, 0.05)
    card = scorecard(mine)
    assert card.gold is None
    assert card.people is not None and (card.people.value, card.people.count) == (0.0, 1)
    assert card.agreement is not None and card.agreement.value == pytest.approx(5 / 6)


def test_verdicts_and_answers_given_anew_are_known_and_no_opinions_of_people() -> None:
    project = make_project(queries=1, documents=4)
    (judge,) = make_judges(project)
    owner = make_member(project, "owner")
    answer_each_way(judge, owner, all_pairs(project)[:3])
    card = scorecard(judge)
    assert card.people is not None and (card.people.value, card.people.count) == (0.0, 1)
    assert judge_answers(judge).truth.tolist() == [0.05, 0.95, 0.95]


def test_every_kind_of_answer_counts_and_shares_the_cost_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures are of the latest answers, but what was paid is for all of them."""
    project = make_project(queries=1, documents=4)
    (judge,) = make_judges(project)
    run = make_run(project, judges=[judge], planned=False)
    Spend.objects.create(run=run, annotator_id=judge.pk, shard=0, calls=6, cost_micros=600)
    pairs = all_pairs(project)
    for pair in pairs[:2]:
        judge_pair(pair, judge, 0.9)
    for pair in pairs[2:]:
        judge_pair(pair, judge, None, kind=AnswerKind.BOTH_IRRELEVANT)
    for most, answers in ((20_000, 6), (3, 3)):
        monkeypatch.setattr(scorecard_module, "RECENT_ANSWERS", most)
        monkeypatch.setattr(judge_summary, "RECENT_ANSWERS", most)
        card, (figures,) = scorecard(judge), judge_summary.judge_figures(project)
        assert (card.answers, card.cost_each_micros) == (answers, 100)
        assert (figures.answers, figures.cost_each_micros) == (answers, 100.0)
    assert figures.lean is None, "the latest three take no side"


def test_latency_and_failures_come_from_the_books() -> None:
    project = make_graded()
    (judge,) = make_judges(project, plugin="test-raising")
    make_run(project, judges=[judge], sampler="all")
    batches.judge_open(judge.pk, worker="w@host:1")
    (card,) = scorecards(project)
    assert card.answers == 0
    assert card.calls.failed is not None and card.calls.failed.value == 1.0
    assert card.calls.latency_p50 is not None and card.calls.latency_p50 >= 0.0


def test_calls_of_a_batch_share_its_time_and_measured_ones_keep_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_graded()
    (judge,) = make_judges(project)
    run = make_run(project, judges=[judge], sampler="all")
    began = timezone.now() - timedelta(minutes=5)
    for number in range(4):
        Attempt.objects.create(
            task_id=-number - 1, fence=1, run=run, annotator=judge, outcome="preference", started_at=began,
            finished_at=began + timedelta(seconds=7 + number / 4),
        )  # fmt: skip
    Attempt.objects.create(
        task_id=-9, fence=1, run=run, annotator=judge, outcome="preference", latency_ms=300, started_at=began,
        finished_at=began + timedelta(seconds=8),
    )  # fmt: skip
    (card,) = scorecards(project)
    assert card.calls.latency_p50 == pytest.approx(7.75 / 4)
    monkeypatch.setattr("workers.monitoring.scorecard.RECENT_CALLS", 2)  # the batch is larger than what is looked at
    assert scorecard(judge).calls.latency_p50 == pytest.approx((7.75 / 4 + 0.3) / 2)


# --- canaries ----------------------------------------------------------------------------


def graded_pairs() -> set[int]:
    """The pairs with a task whose candidates have different grades."""
    known = Pair.objects.filter(tasks__isnull=False, a__grade__isnull=False, b__grade__isnull=False)
    return set(known.exclude(a__grade=F("b__grade")).values_list("pk", flat=True))


def test_a_run_over_few_grades_gets_its_hundredth_of_known_pairs() -> None:
    project = make_project(queries=1, documents=60)
    graded = Candidate.objects.order_by("id")[:3]
    for grade, candidate in enumerate(graded):
        Candidate.objects.filter(pk=candidate.pk).update(grade=grade)
    judges = make_judges(project, 2)
    make_run(project, judges=judges, seed=4)
    asked = list(JudgingTask.objects.values_list("pair_id", flat=True))
    known = graded_pairs()
    assert sum(pair in known for pair in asked) >= 0.01 * len(asked)
    assert {JudgingTask.objects.filter(pair_id=pair).count() for pair in known} == {2}


def test_canaries_stay_within_the_budget() -> None:
    project = make_project(queries=1, documents=60)
    first, second = Candidate.objects.order_by("id")[:2]
    Candidate.objects.filter(pk=first.pk).update(grade=1)
    Candidate.objects.filter(pk=second.pk).update(grade=0)
    run = make_run(project, judges=make_judges(project), pair_budget=100, seed=4)
    # The draw depends on the query's id: where it holds the known pair already, the room kept for it is left to round two.
    assert run.pairs_planned == JudgingTask.objects.count() in {99, 100}
    assert graded_pairs()
    run = work_until_over(run)
    assert run.pairs_planned == Judgment.objects.count() == 100
    assert run.reason == "the budget of 100 pairs is spent"


def test_a_person_s_answer_makes_a_canary() -> None:
    project = make_project(queries=1, documents=40)
    query = project.queries.get()
    pair = all_pairs(project)[5]
    judge_pair(pair, get_person(project, make_user()), 0.9)
    run = make_run(project, judges=make_judges(project), seed=2)
    assert JudgingTask.objects.filter(run=run, pair=pair).exists()
    assert gold_share([query.pk]) == 0.0


def test_without_grades_or_people_nothing_is_added() -> None:
    project = make_project(queries=1, documents=20)
    run = make_run(project, judges=make_judges(project), sampler_options={"degree": 2})
    assert run.tasks_planned == 20


def test_the_share_of_known_pairs_is_counted() -> None:
    import numpy as np

    project = make_project()
    query = make_query_with_documents(project, 4, grades=[0, 0, 1, 2])
    assert gold_share([query.pk]) == pytest.approx(5 / 6)
    drawn = draw_known_pairs([query.pk], 10, np.random.default_rng(0))
    assert len(drawn) == len({pair[:2] for pair in drawn}) <= 5
    assert all(a < b for a, b, _ in drawn)


# --- drift -------------------------------------------------------------------------------


def drifting(project: Project, judge: Annotator, *, right: int, wrong: int) -> None:
    """Answers on known pairs, first right ones, then wrong ones."""
    for place, pair in enumerate(all_pairs(project)[: right + wrong]):
        judge_pair(pair, judge, 0.1 if place < right else 0.9)  # b has the higher grade


def test_a_judge_that_drifts_is_paused_says_why_and_is_asked_nothing() -> None:
    project = make_graded(documents=15)
    (judge,) = make_judges(project)
    make_run(project, judges=[judge], sampler="all")
    drifting(project, judge, right=70, wrong=30)
    assert watch_judge(judge)
    assert judge.paused_at is not None and "fell from 100%" in judge.pause_reason
    assert queue.claim(annotator_id=judge.pk, worker="w@host:1", limit=5) == []
    assert judge.pk not in [annotator for annotator, _ in queue.open_tasks_by_annotator()]
    assert JudgingTask.objects.filter(state="open").exists()
    card = scorecard(judge)
    assert card.drift is not None and card.drift >= 1.0


def test_a_judge_let_go_on_starts_afresh() -> None:
    project = make_graded(documents=15)
    (judge,) = make_judges(project)
    make_run(project, judges=[judge], sampler="all")
    drifting(project, judge, right=70, wrong=30)
    watch_judge(judge)
    assert resume_judge(judge) and not resume_judge(judge)
    assert known_drift(judge) is None
    assert not watch_judge(judge)
    assert len(queue.claim(annotator_id=judge.pk, worker="w@host:1", limit=5)) == 5


def test_the_alarm_is_raised_while_judging(monkeypatch: pytest.MonkeyPatch) -> None:
    class Backwards(TestJudge):
        """Right for its first hundred answers, wrong from then on."""

        name = "test-backwards"
        label = "Backwards"

        def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict | Failure]:
            done = Judgment.objects.count()
            return [
                Verdict(float((len(each.a.text) > len(each.b.text)) == (done + place < 100)))
                for place, each in enumerate(comparisons)
            ]

    monkeypatch.setitem(plugins._registry, ("judge", "test-backwards"), Backwards)
    monkeypatch.setattr("workers.judging.drift.PAUSE_S", 0.0)
    project = make_graded(documents=20)
    (judge,) = make_judges(project, plugin="test-backwards")
    answer_all(project, judge)
    judge.refresh_from_db()
    assert judge.paused_at is not None
    assert Judgment.objects.filter(annotator=judge).count() <= 190


# --- page and REST -----------------------------------------------------------------------


def test_the_page_shows_why_a_judge_is_paused_and_lets_it_go_on(client: Client) -> None:
    project = make_graded()
    (judge,) = make_judges(project)
    answer_all(project, judge)
    pause_judge(judge, "too generous <b>")
    client.force_login(make_user(is_superuser=True))
    address = reverse("scorecard", args=[project.slug])
    page = client.get(address).content.decode()
    assert "too generous &lt;b&gt;" in page and "pauses at 1" not in page and "cycles" in page
    assert client.post(address, {"judge": judge.pk, "action": "resume"}).status_code == 302
    judge.refresh_from_db()
    assert judge.paused_at is None and judge.pause_reason == ""
    assert client.post(address, {"judge": "0", "action": "resume"}).status_code == 404


def test_an_empty_project_says_how_to_begin(client: Client) -> None:
    project = make_project()
    client.force_login(make_user(is_superuser=True))
    assert "No answers yet" in client.get(reverse("scorecard", args=[project.slug])).content.decode()


def test_rest_gives_cards_and_pauses(client: Client) -> None:
    project = make_graded()
    (judge,) = make_judges(project)
    answer_all(project, judge)
    client.force_login(make_user(is_superuser=True))
    base = f"/api/v1/projects/{project.slug}/judges"
    (card,) = client.get(f"{base}/scorecards").json()
    assert card["gold"]["value"] == 1.0 and card["people"] is None
    paused = client.post(f"{base}/{judge.pk}/pause", {"reason": "price"}, content_type="application/json")
    assert paused.json() == {"annotator_id": judge.pk, "paused": True, "reason": "price"}
    assert client.post(f"{base}/{judge.pk}/resume").json()["paused"] is False
    assert client.post(f"{base}/99999999/resume").status_code == 404
    client.force_login(make_member(project))
    assert client.post(f"{base}/{judge.pk}/resume").status_code == 403
