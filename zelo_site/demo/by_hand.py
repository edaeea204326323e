"""The demo's orders measured twice: by the recorded grades of a language model, and by the older grades that were made by hand.

Judges and recorded grades come from one model; the grades by hand do not, but they name only a few documents of a question,
and a document that they do not name counts as 0. `manage.py hand_grades` prints both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from labeling.models import Candidate, Project
from scoring.numerics.measures.rankings import Measure, Ranked, ranks_of
from scoring.numerics.measures.resampling import Interval, bootstrap_interval, paired_test
from scoring.quality import GradedQuery, graded_queries
from trainer.evaluation.leaderboard import snapshot_queries, stored_scores
from trainer.models import Evaluation
from trainer.serving.registry import TRAINED
from zelo_site.cli.terminal import span
from zelo_site.demo.comparison import Order, comparison_orders
from zelo_site.demo.sample.questions import sample_questions
from zelo_site.demo.student import SPLIT, STUDENT, NoStudent, frozen

NDCG = Measure("ndcg", 10)
BASE = "base"
FIRST_STAGE, PANEL_ELO = "first stage", "Elo of the panel"


@dataclass(frozen=True, slots=True)
class TwoGrades:
    """NDCG@10 by query id of one order, by the recorded grades and by those by hand, on the same queries."""

    name: str
    recorded: tuple[float, ...]
    by_hand: tuple[float, ...]


def measure_twice(project: Project) -> list[TwoGrades]:
    """Return all orders of the demo's table, its untrained base and its student, on the questions with a good candidate by both
    grades. Raises NoStudent before the proof.
    """
    both = [(query, own) for query in graded_queries(project.pk) if (own := _by_hand(project, query)).grades.any()]
    orders = [(name, scores) for name, _, scores in comparison_orders(project)] + _of_models(project)
    return [
        TwoGrades(
            name, tuple(_ndcg(query, scores) for query, _ in both), tuple(_ndcg(query, scores) for _, query in both)
        )
        for name, scores in orders
    ]


def _by_hand(project: Project, query: GradedQuery) -> GradedQuery:
    """The query with its grades by hand; 0 where they do not name a candidate."""
    rows = Candidate.objects.filter(query_id=query.query_id)
    names = dict(rows.values_list("id", "document__external_id"))
    asked = project.queries.values_list("external_id", flat=True).get(pk=query.query_id)
    grades = next((each.grades for each in sample_questions() if each.id == asked), {})
    own = [grades.get(names.get(each, ""), 0) for each in query.candidate_ids.tolist()]
    return replace(query, grades=np.array(own, dtype=np.int64))


def _of_models(project: Project) -> list[tuple[str, Order]]:
    """The untrained base and the student, as the leaderboard evaluated them."""
    snapshot = frozen(project)
    rows = Evaluation.objects.filter(project=project, snapshot=snapshot, split=SPLIT, reference="grades")
    found = list(rows.filter(reranker__kind__in=(BASE, TRAINED)).select_related("reranker"))
    if not any(each.reranker.kind == TRAINED for each in found):
        raise NoStudent("the demo has no evaluated student; run `manage.py demo` until its proof first")
    queries = snapshot_queries(snapshot, SPLIT)
    orders: list[tuple[str, Order]] = []
    for each in sorted(found, key=lambda each: each.reranker.kind == TRAINED):
        own = stored_scores(each, queries)
        ids = np.concatenate([query.candidate_ids for query in queries]).tolist()
        scores = np.concatenate([own[query.id] for query in queries]).tolist()
        name = STUDENT if each.reranker.kind == TRAINED else each.reranker.name
        orders.append((name, dict(zip(ids, scores, strict=True))))
    return orders


def _ndcg(query: GradedQuery, scores: Mapping[int, float]) -> float:
    own = np.array([scores.get(each, np.nan) for each in query.candidate_ids.tolist()], dtype=np.float64)
    return NDCG.of(Ranked.of_grades(ranks_of(own, query.places.tolist()), query.grades))


def hand_report(rows: Sequence[TwoGrades]) -> str:
    """Return both measurements as Markdown, with the differences that the demo is judged by."""
    lines = ["| order | by the recorded grades | by the older grades by hand |", "| --- | --- | --- |"]
    lines += [f"| {row.name} | {_shown(row.recorded)} | {_shown(row.by_hand)} |" for row in rows]
    lines += ["", "| difference | by the recorded grades | by the older grades by hand |", "| --- | --- | --- |"]
    lines += [
        f"| {one.name} less {other.name} | {_difference(one.recorded, other.recorded)} | "
        f"{_difference(one.by_hand, other.by_hand)} |"
        for one, other in _compared(rows)
    ]
    questions = len(rows[0].recorded)
    return "\n".join(
        [*lines, "", f"NDCG@10 on {questions} questions with a good candidate by both grades; 95 % intervals."]
    )


def _compared(rows: Sequence[TwoGrades]) -> list[tuple[TwoGrades, TwoGrades]]:
    """Elo of the panel against the best weak judge and the best panel judge; the student against its base and the first stage."""
    named = {row.name: row for row in rows}
    names = list(named)

    def best(own: Sequence[str]) -> TwoGrades:
        return max((named[name] for name in own), key=lambda row: float(np.mean(row.recorded)))

    elo, first_stage = named[PANEL_ELO], named[FIRST_STAGE]
    judges = [name for name in names if name.startswith("panel judge ")]
    found = [(elo, best(names[: names.index(FIRST_STAGE)])), (elo, best(judges)), (elo, first_stage)]
    student = named.get(STUDENT)
    return found if student is None else [*found, (student, named[names[-2]]), (student, first_stage)]


def _shown(values: Sequence[float]) -> str:
    return _interval(bootstrap_interval(values, rng=np.random.default_rng(0)), ".3f")


def _difference(one: Sequence[float], other: Sequence[float]) -> str:
    return _interval(paired_test(one, other, rng=np.random.default_rng(0)).difference, "+z.3f")


def _interval(found: Interval, digits: str) -> str:
    return f"{found.estimate:{digits}} ({span(found, digits)})"
