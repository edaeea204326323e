"""A project's annotators: agreement, position bias and cost; and NDCG by number of judgments.

The project's page shows these figures. They cover only the most recent answers, so that the page stays
fast in large projects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from django.db import connection

from labeling.access.annotators import names_told_apart
from labeling.models import Annotator, Project
from labeling.plugins import Rater, get_plugin
from scoring.columns import ProjectColumns, copy_columns, only_votes, read_columns
from scoring.models import INDEPENDENT, JudgeFit
from scoring.numerics.measures.sides import SAME_SQL
from scoring.project_fits import stored_terms
from scoring.quality import graded_with_elo, measure
from scoring.raters import rate
from scoring.same_texts import distinct, expanded
from workers.budgets.spend import spend_of_project
from workers.monitoring.query_figures import spend_per_answer

# A tenth of a second of the database; four times as many took half of one.
RECENT_ANSWERS = 50_000
CURVE_POINTS = 12
CURVE_QUERIES = 50


@dataclass(frozen=True, slots=True)
class JudgeFigures:
    """The figures of one annotator. `agrees`: share of pairs with the same side as the other judges' mean;
    `agrees_with_people`: as people's mean; `scoring.numerics.measures.sides` counts ties. `lean`: mean preference for the
    document shown first, minus one half. None without pairs to compare. "Neither is relevant", "cannot judge", verdicts, and
    answers given after seeing others' answers, count only in `answers`. `answers` are among the latest of the project;
    `cost_each_micros` is the cost of one of all answers.
    """

    annotator_id: int
    name: str
    is_person: bool
    answers: int
    agrees: float | None
    agrees_with_people: float | None
    people_pairs: int
    lean: float | None
    lean_stderr: float | None
    sharpness: float | None
    cost_micros: int
    cost_each_micros: float | None = None

    @property
    def leans_visibly(self) -> bool:
        """Whether the lean is significant and large."""
        return (
            self.lean is not None
            and self.lean_stderr is not None
            and abs(self.lean) > max(0.03, 2.5 * self.lean_stderr)
        )


# Agreement and lean use independent preferences only; `answers` counts all answers. Windows, because the planner expects one vote
# where a table has no statistics yet, and would join the votes with their sums in nested loops, minutes for the demo's.
_RECENT = f"""
WITH recent AS (
    SELECT answer.id, answer.pair_id, answer.annotator_id, answer.by_person, answer.swapped, answer.preference, answer.kind
    FROM labeling_live_judgment answer JOIN labeling_annotator annotator ON annotator.id = answer.annotator_id
    WHERE annotator.project_id = %(project)s
    ORDER BY answer.id DESC LIMIT %(most)s
), opinion AS (
    SELECT * FROM recent answer WHERE kind = 'preference' AND {INDEPENDENT}
), votes AS (
    SELECT pair_id, annotator_id, by_person, avg(preference) AS p FROM opinion GROUP BY 1, 2, 3
), beside AS (
    SELECT annotator_id, by_person, p, sum(p) FILTER (WHERE NOT by_person) OVER pair AS judged,
           count(*) FILTER (WHERE NOT by_person) OVER pair AS judges, avg(p) FILTER (WHERE by_person) OVER pair AS people
    FROM votes WINDOW pair AS (PARTITION BY pair_id)
), compared AS (
    SELECT annotator_id, p, people, by_person,
           CASE WHEN by_person THEN judged / NULLIF(judges, 0) ELSE (judged - p) / NULLIF(judges - 1, 0) END AS others
    FROM beside
), agreement AS (
    SELECT annotator_id, avg({SAME_SQL.format("p", "others")}) AS agrees,
           avg({SAME_SQL.format("p", "people")}) FILTER (WHERE NOT by_person) AS agrees_with_people,
           count(people) FILTER (WHERE NOT by_person) AS people_pairs
    FROM compared GROUP BY 1
), leaning AS (
    SELECT annotator_id, avg(CASE WHEN swapped THEN 1 - preference ELSE preference END) - 0.5 AS lean,
           stddev_samp(CASE WHEN swapped THEN 1 - preference ELSE preference END) / sqrt(count(*)) AS lean_stderr
    FROM opinion GROUP BY 1
), counted AS (
    SELECT annotator_id, count(*) AS answers FROM recent GROUP BY 1
)
SELECT annotator_id, answers, agrees, agrees_with_people, COALESCE(people_pairs, 0), lean, lean_stderr
FROM counted LEFT JOIN leaning USING (annotator_id) LEFT JOIN agreement USING (annotator_id)
"""


_COLUMNS = ("answers", "agrees", "agrees_with_people", "people_pairs", "lean", "lean_stderr")


def judge_figures(project: Project) -> list[JudgeFigures]:
    """Return every annotator with answers, judges first, in creation order."""
    with connection.cursor() as cursor:
        cursor.execute(_RECENT, {"project": project.pk, "most": RECENT_ANSWERS})
        rows = {row[0]: dict(zip(_COLUMNS, row[1:], strict=True)) for row in cursor.fetchall()}
    names = names_told_apart(project)
    cost_of_one = spend_per_answer(project.pk)
    cost_of = {judge: spent.cost_micros for judge, spent in spend_of_project(project.pk).items()}
    sharpness = dict(JudgeFit.objects.filter(annotator__project=project).values_list("annotator_id", "sharpness"))
    annotators = Annotator.objects.filter(project=project, pk__in=rows).order_by("is_person", "id")
    return [
        JudgeFigures(
            annotator_id=each.pk,
            name=names[each.pk],
            is_person=each.is_person,
            **rows[each.pk],
            sharpness=sharpness.get(each.pk),
            cost_micros=cost_of.get(each.pk) or 0,
            cost_each_micros=cost_of_one.get(each.pk),
        )
        for each in annotators
    ]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """NDCG@10 of the Elo order after the first `judgments` answers, with its interval; `micros` is what they cost."""

    judgments: int
    ndcg: float
    low: float = 0.0
    high: float = 0.0
    micros: float = 0.0


_ORDER = """
SELECT pair.id, judgment.annotator_id, judgment.swapped, judgment.id
FROM labeling_pair pair JOIN labeling_live_judgment judgment ON judgment.pair_id = pair.id
WHERE pair.query_id = ANY(%s) AND judgment.kind = 'preference'
"""


def ndcg_by_judgments(project: Project) -> list[CurvePoint]:
    """Return NDCG@10 on fifty graded queries with an Elo, drawn by their texts, refitted on growing shares of their answers.

    As in every figure, a document that these answers do not compare is not retrieved.
    """
    graded = graded_with_elo(project, most=CURVE_QUERIES)
    if not graded:
        return []
    whole = read_columns([query.query_id for query in graded])
    one = distinct(whole)
    read = one.read
    when = _answer_ids(read)
    if len(when) < 2 * CURVE_POINTS:
        return []
    rater = cast(Rater, get_plugin("rater", project.rater).from_dict(project.rater_options))
    terms = stored_terms(project)
    shares = spend_per_answer(project.pk)
    cost = np.array([shares.get(each, 0.0) for each in read.annotator_ids.tolist()] or [0.0])[read.columns.judge]
    points = []
    for share in np.linspace(1.0 / CURVE_POINTS, 1.0, CURVE_POINTS):
        kept = when <= np.quantile(when, share)
        fit = expanded(rate(rater, only_votes(read, kept), terms), one, whole)
        known = fit.comparisons > 0
        scores = dict(zip(whole.candidate_ids[known].tolist(), fit.theta[known].tolist(), strict=True))
        ndcg = measure("Elo", scores, graded).ndcg
        points.append(CurvePoint(int(kept.sum()), ndcg.estimate, ndcg.low, ndcg.high, float(cost[kept].sum())))
    return points


def _answer_ids(read: ProjectColumns) -> np.ndarray:
    """Return the judgment id of each row of the columns, int64[m]; ids follow the order of answers.

    The query runs after the columns were read; rows superseded in between count as the latest.
    """
    rows = copy_columns(
        _ORDER, [read.query_ids.tolist()], [("pair", "i8"), ("annotator", "i8"), ("swapped", "b1"), ("id", "i8")]
    )
    keys = zip(rows["pair"].tolist(), rows["annotator"].tolist(), rows["swapped"].tolist(), strict=True)
    ids = dict(zip(keys, rows["id"].tolist(), strict=True))
    latest = max(ids.values(), default=0)
    annotators = read.annotator_ids[read.columns.judge].tolist() if len(read.pair_ids) else []
    mine = zip(read.pair_ids.tolist(), annotators, read.columns.swapped.tolist(), strict=True)
    return np.array([ids.get(key, latest) for key in mine], dtype=np.int64)
