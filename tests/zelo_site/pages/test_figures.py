"""The slower figures of a project's page: who agrees with whom, who leans, how NDCG grew."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from labeling.access.annotators import get_person
from labeling.models import Candidate, Project, Query
from scoring.annotators.adjudication import adjudicate
from scoring.quality import ranking_quality
from scoring.rating import rate_stale
from tests.factories.pages import candidates_of, judge, make_judge, make_pair, make_query, make_run, page, score
from tests.factories.rows import answer_each_way
from workers.models import ProjectFigure
from workers.monitoring.data_summary import elo_histogram
from workers.monitoring.judge_summary import (
    _RECENT,
    RECENT_ANSWERS,
    JudgeFigures,
    judge_figures,
    ndcg_by_judgments,
)
from zelo_site.pages.project.figures import elo_columns

# Columns are read in a transaction of their own.
pytestmark = pytest.mark.django_db(transaction=True)


def figures_of(project: Project) -> dict[str, JudgeFigures]:
    return {each.name: each for each in judge_figures(project)}


def reads_of(plan: dict[str, Any], name: str) -> int:
    """How often a plan reads a common table expression."""
    return (plan.get("CTE Name") == name) + sum(reads_of(each, name) for each in plan.get("Plans", []))


def test_votes_are_not_joined_with_themselves(db: None) -> None:
    """Without statistics the planner expects one vote and would loop over all votes for each of the demo's 45,000."""
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN (FORMAT JSON) " + _RECENT, {"project": 1, "most": RECENT_ANSWERS})
        plan = cursor.fetchone()[0]
    plan = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]
    assert reads_of(plan, "opinion") == 2 and reads_of(plan, "votes") <= 1


@pytest.fixture
def query(project: Project) -> Query:
    """Eight documents graded in their order; every pair of neighbours and next neighbours drawn."""
    query = make_query(project, size=8)
    for at, candidate in enumerate(candidates_of(query)):
        candidate.grade = 7 - at
        candidate.first_stage_rank = 8 - at
        candidate.save()
    return query


def pairs_of(query: Query) -> list[Any]:
    documents = candidates_of(query)
    return [make_pair(documents[at], documents[(at + step) % 8]) for step in (1, 2, 3) for at in range(8)]


def test_agreement_counts_sides_and_ties_half(project: Project, query: Query) -> None:
    first, second, odd = (make_judge(project, name=name) for name in ("first", "second", "odd"))
    pairs = pairs_of(query)[:4]
    for at, pair in enumerate(pairs):
        judge(pair, first, 0.9)
        judge(pair, second, 0.8)
        judge(pair, odd, 0.5 if at == 0 else 0.05)
    found = figures_of(project)
    assert found["odd"].agrees == pytest.approx((0.5 + 0 + 0 + 0) / 4)
    assert found["first"].agrees == pytest.approx(1 / 4)  # where the odd one ties, it stands with the second
    assert found["first"].answers == 4


def test_agreement_with_people_rests_on_their_pairs_only(project: Project, query: Query, owner: Any) -> None:
    machine, person = make_judge(project), get_person(project, owner)
    pairs = pairs_of(query)[:3]
    for pair in pairs:
        judge(pair, machine, 0.9)
    judge(pairs[0], person, 0.95)
    judge(pairs[1], person, 0.25)
    found = figures_of(project)[machine.name]
    assert (found.agrees_with_people, found.people_pairs) == (0.5, 2)


def test_verdicts_and_answers_given_anew_are_counted_and_are_no_opinions(
    project: Project, query: Query, owner: Any
) -> None:
    machine, person = make_judge(project), get_person(project, owner)
    answer_each_way(machine, owner, pairs_of(query)[:3])
    found = figures_of(project)
    assert (found[machine.name].agrees_with_people, found[machine.name].people_pairs) == (0.0, 1)
    assert (found[person.name].answers, found[person.name].agrees) == (3, 0.0)
    assert found[person.name].lean == pytest.approx(-0.45)


def test_who_only_gave_verdicts_is_listed_without_agreement(project: Project, query: Query, owner: Any) -> None:
    machine, person = make_judge(project), get_person(project, owner)
    pair = pairs_of(query)[0]
    judge(pair, machine, 0.9)
    adjudicate(pair, owner, "1")
    figures = figures_of(project)[person.name]
    assert (figures.answers, figures.agrees, figures.lean, figures.people_pairs) == (1, None, None, 0)


def test_leaning_is_towards_what_was_shown_first(project: Project, query: Query) -> None:
    leaning, fair = make_judge(project, name="leaning"), make_judge(project, name="fair")
    for at, pair in enumerate(pairs_of(query)):
        swapped = at % 2 == 0
        judge(pair, leaning, 0.2 if swapped else 0.8, swapped=swapped)
        judge(pair, fair, 0.8, swapped=swapped)
    found = figures_of(project)
    assert found["leaning"].lean == pytest.approx(0.3)
    assert found["leaning"].leans_visibly
    assert found["fair"].lean == pytest.approx(0.0)
    assert not found["fair"].leans_visibly


def test_curve_ends_where_the_whole_fit_stands(project: Project, query: Query) -> None:
    machine = make_judge(project)
    places = {candidate.pk: at for at, candidate in enumerate(candidates_of(query))}
    for pair in pairs_of(query):
        judge(pair, machine, 0.95 if places[pair.a_id] < places[pair.b_id] else 0.05)
    rate_stale(project.pk)
    points = ndcg_by_judgments(project)
    assert [point.judgments for point in points] == sorted(point.judgments for point in points)
    assert points[-1].judgments == 24
    assert points[-1].ndcg == pytest.approx(1.0)
    alone = {row.order: row.ndcg.estimate for row in ranking_quality(project)}
    assert points[-1].ndcg == pytest.approx(alone[f"judge {machine.name}"])


def test_curve_is_of_judged_queries_and_compared_documents(project: Project, query: Query) -> None:
    """A graded query that nobody was asked about, and a good document that was compared with nothing."""
    unasked = candidates_of(make_query(project))
    Candidate.objects.filter(pk=unasked[-1].pk).update(grade=1)
    best, judges = candidates_of(query)[0].pk, [make_judge(project, name=name) for name in ("one", "two")]
    for pair in pairs_of(query):
        if best not in (pair.a_id, pair.b_id):
            for each in judges:
                judge(pair, each, 0.95)
    rate_stale(project.pk)
    alone = {row.order: row for row in ranking_quality(project)}
    assert ndcg_by_judgments(project)[-1].ndcg == pytest.approx(alone["Elo"].ndcg.estimate)
    assert (alone["Elo"].queries, alone["Elo"].of_queries) == (1, 2)
    assert alone["Elo"].ndcg.estimate < 0.9


def test_curve_needs_grades(project: Project) -> None:
    assert ndcg_by_judgments(project) == []


def test_distribution_counts_every_rated_candidate(project: Project, query: Query) -> None:
    score(query, [1.0 - at / 4 for at in range(8)])
    assert sum(column.count for column in elo_columns(elo_histogram(project))) == 8


def test_names_of_people_are_never_translated(client: Client, project: Project, query: Query, owner: Any) -> None:
    """A user may be called as a role is."""
    type(owner).objects.filter(pk=owner.pk).update(username="owner")
    owner.refresh_from_db()
    person = get_person(project, owner)
    for pair in pairs_of(query):
        judge(pair, person, 0.8)
    address = reverse("project-figures", args=[project.slug])
    html = client.get(address, headers={"Accept-Language": "de"}).content.decode()
    assert html.count('<th scope="row">owner') == 2
    assert "Besitz" not in html and '<th scope="col">Wer</th>' in html


def test_fragment_shows_them_all(client: Client, project: Project, query: Query) -> None:
    machine = make_judge(project)
    for pair in pairs_of(query):
        judge(pair, machine, 0.8)
    score(query, [1.0 - at / 4 for at in range(8)])
    html = page(client, "project-figures", project.slug)
    assert "by number of judgments" in html
    assert "8 graded" not in html
    assert "1 query with a relevant document," in html
    assert machine.name in html
    assert html.count("<rect") >= 8


def test_columns_of_one_document_have_no_fractions_beside_them(client: Client, project: Project, query: Query) -> None:
    score(query, [1.0 - at / 4 for at in range(8)])
    ticks = client.get(reverse("project-figures", args=[project.slug])).context["ticks"]
    assert [(tick.value, tick.places) for tick in ticks] == [(0.0, 0), (1.0, 0)]


@pytest.mark.parametrize(("state", "is_read_again"), [("judging", True), ("finished", False)])
def test_figures_say_their_age_and_none_is_older_than_seconds_while_a_run_goes_on(
    state: str, is_read_again: bool, client: Client, project: Project
) -> None:
    query = make_query(project)
    first, second, __ = candidates_of(query)
    judge(make_pair(first, second), make_judge(project, name="late"), 0.9)
    make_run(project, state=state)
    earlier = timezone.now() - timedelta(seconds=6)
    ProjectFigure.objects.create(project=project, name="judges", value=[], measured_at=earlier, took_ms=1)
    shown = page(client, "project-figures", project.slug)
    assert ("late" in shown) == is_read_again
    assert (f'datetime="{earlier.isoformat(timespec="microseconds")}"' in shown) != is_read_again
    assert "data-ago" in shown
