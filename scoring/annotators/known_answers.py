"""Pairs with a known answer, and a judge's answers to them.

Known is what a person set as gold, what people answered, or that one candidate's grade is higher; not between equal texts,
whose grades may differ by mistake. Judges never see any of it. `workers.monitoring.scorecard`, `workers.judging.drift` and `workers.runs.gold_mixing` read it here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from django.db import connection

from labeling.models import Annotator
from labeling.records import BoolArray, FloatArray, IntArray
from scoring.columns import copy_columns
from scoring.models import INDEPENDENT
from scoring.numerics.measures.sides import TIE
from scoring.same_texts import same_texts

RECENT_ANSWERS = 20_000


@dataclass(frozen=True, slots=True)
class JudgeAnswers:
    """One judge's latest answers, oldest first; every array has a row for each.

    `gold` is the answer by grades or set by a person (0 to 1), `people` the mean of people's independent answers,
    `all_people` the mean of all their answers including verdicts, `others` that of the other models: float64, NaN
    if missing. `longer` = log(length of a / length of b).
    """

    query: IntArray
    pair: IntArray
    a: IntArray
    b: IntArray
    swapped: BoolArray
    preference: FloatArray
    gold: FloatArray
    people: FloatArray
    all_people: FloatArray
    others: FloatArray
    longer: FloatArray

    @property
    def truth(self) -> FloatArray:
        """The known answer of each pair: gold, else people, else NaN."""
        return np.where(np.isfinite(self.gold), self.gold, self.all_people)


_ANSWERS = f"""
SELECT COALESCE(pair.query_id, 0), pair.id, pair.a_id, pair.b_id, mine.swapped, mine.preference,
       COALESCE(known.preference, CASE WHEN pair.query_id IS NOT NULL AND first.text_hash <> second.text_hash
                THEN (sign(a.grade - b.grade) + 1) / 2 END, 'NaN')::float8,
       COALESCE(votes.people, 'NaN'), COALESCE(votes.all_people, 'NaN'), COALESCE(votes.others, 'NaN'),
       ln((length(first.text) + 1)::float8 / (length(second.text) + 1))
FROM (
    SELECT id, pair_id, swapped, preference FROM labeling_live_judgment
    WHERE annotator_id = %s AND kind = 'preference'
      AND (%s::timestamptz IS NULL OR created_at >= %s)
    ORDER BY id DESC LIMIT %s
) mine
JOIN labeling_pair pair ON pair.id = mine.pair_id
JOIN labeling_candidate a ON a.id = pair.a_id JOIN labeling_candidate b ON b.id = pair.b_id
JOIN labeling_document first ON first.id = a.document_id JOIN labeling_document second ON second.id = b.document_id
LEFT JOIN labeling_goldanswer known ON known.pair_id = pair.id
LEFT JOIN LATERAL (
    SELECT avg(preference) FILTER (WHERE by_person AND {INDEPENDENT}) AS people,
           avg(preference) FILTER (WHERE by_person) AS all_people,
           avg(preference) FILTER (WHERE NOT by_person AND annotator_id <> %s) AS others
    FROM labeling_live_judgment answer
    WHERE pair_id = pair.id AND kind = 'preference'
) votes ON true
ORDER BY mine.id
"""

_FIELDS = [("query", "i8"), ("pair", "i8"), ("a", "i8"), ("b", "i8"), ("swapped", "b1"), ("preference", "f8")]
_FIELDS += [("gold", "f8"), ("people", "f8"), ("all_people", "f8"), ("others", "f8"), ("longer", "f8")]


def judge_answers(annotator: Annotator, *, only_watched: bool = False, limit: int = RECENT_ANSWERS) -> JudgeAnswers:
    """Return the latest answers of a judge; `only_watched`: only those since it was last resumed."""
    since = annotator.watched_from if only_watched else None
    rows = copy_columns(_ANSWERS, [annotator.pk, since, since, limit, annotator.pk], _FIELDS)
    kinds = {"i8": np.int64, "f8": np.float64, "b1": np.bool_}
    return JudgeAnswers(**{name: rows[name].astype(kinds[kind]) for name, kind in _FIELDS})


# Whether `pair` of the candidates `a` and `b` has a known answer.
IS_KNOWN = """(
    (pair.query_id IS NOT NULL AND a.grade <> b.grade)
    OR EXISTS (SELECT 1 FROM labeling_goldanswer WHERE pair_id = pair.id AND preference <> 0.5)
    OR EXISTS (SELECT 1 FROM labeling_live_judgment WHERE pair_id = pair.id AND by_person
               AND kind = 'preference' AND preference <> 0.5))"""

# Looks at few rows where there are none, which pairs of a large project then need not be asked for one by one.
_HAS_KNOWN = """
SELECT EXISTS (SELECT 1 FROM labeling_candidate WHERE query_id = ANY(%(queries)s) AND grade IS NOT NULL)
    OR EXISTS (SELECT 1 FROM labeling_goldanswer WHERE project_id = %(project)s)
    OR EXISTS (SELECT 1 FROM labeling_annotator person WHERE person.project_id = %(project)s AND person.is_person AND EXISTS (
               SELECT 1 FROM labeling_live_judgment answer WHERE answer.annotator_id = person.id AND answer.by_person))
"""

_BY_PEOPLE = """
SELECT pair.a_id, pair.b_id, pair.query_id FROM labeling_pair pair
WHERE pair.query_id = ANY(%(queries)s) AND (
    EXISTS (SELECT 1 FROM labeling_goldanswer WHERE pair_id = pair.id AND preference <> 0.5)
    OR EXISTS (SELECT 1 FROM labeling_live_judgment WHERE pair_id = pair.id AND by_person
               AND kind = 'preference' AND preference <> 0.5))
ORDER BY pair.id
"""

_GRADED = """
SELECT query_id, id, grade::bigint FROM labeling_candidate
WHERE query_id = ANY(%s) AND grade IS NOT NULL ORDER BY query_id, id
"""


def has_known_pairs(project_id: int, query_ids: Sequence[int]) -> bool:
    """Whether pairs of these queries may have a known answer: by grades, or by people of the project."""
    with connection.cursor() as cursor:
        cursor.execute(_HAS_KNOWN, {"project": project_id, "queries": list(query_ids)})
        return bool(cursor.fetchone()[0])


def gold_share(query_ids: Sequence[int]) -> float:
    """Return the share of all pairs of these queries with an answer known from grades."""
    rows = copy_columns(_GRADED, [list(query_ids)], [("query", "i8"), ("id", "i8"), ("grade", "i8")])
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT COALESCE(sum(n * (n - 1) / 2), 0)::bigint FROM (SELECT count(*) AS n FROM labeling_candidate "
            "WHERE query_id = ANY(%s) GROUP BY query_id) sizes",
            [list(query_ids)],
        )
        every = cursor.fetchone()[0]
    graded = np.stack([rows["query"].astype(np.int64), rows["grade"].astype(np.int64)], axis=1)
    _, in_query = np.unique(graded[:, 0], return_counts=True)
    _, in_grade = np.unique(graded, axis=0, return_counts=True)
    known = int((in_query * (in_query - 1) // 2).sum() - (in_grade * (in_grade - 1) // 2).sum())
    return known / every if every else 0.0


def draw_known_pairs(query_ids: Sequence[int], count: int, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Return up to `count` pairs (a, b, query), a < b, with a known answer; people's first, random order. None of equal texts."""
    same = {candidate: first for _, candidate, first in same_texts(query_ids).tolist()}
    with connection.cursor() as cursor:
        cursor.execute(_BY_PEOPLE, {"queries": list(query_ids)})
        answered = [row for row in cursor.fetchall() if same.get(row[0], row[0]) != same.get(row[1], row[1])]
    chosen = {(a, b): query for a, b, query in (answered[i] for i in rng.permutation(len(answered))[:count])}
    rows = copy_columns(_GRADED, [list(query_ids)], [("query", "i8"), ("id", "i8"), ("grade", "i8")])
    queries = [
        mine for query in np.unique(rows["query"]) if np.ptp((mine := rows[rows["query"] == query])["grade"]) > 0
    ]
    for _ in range(4 * count if queries else 0):
        if len(chosen) >= count:
            break
        mine = queries[rng.integers(len(queries))]
        one, other = rng.choice(len(mine), 2, replace=False)
        if mine["grade"][one] != mine["grade"][other]:
            a, b = sorted((int(mine["id"][one]), int(mine["id"][other])))
            if same.get(a, a) != same.get(b, b):
                chosen[a, b] = int(mine["query"][one])
    return [(a, b, query) for (a, b), query in chosen.items()]


@dataclass(frozen=True, slots=True)
class PeoplesAnswer:
    """A pair of one query that people answered: `preference` = P(a is the more relevant), from gold or else the mean of
    all people; `a` and `b` are candidates, `why` the explanation that somebody gave, or empty.
    """

    pair: int
    query: int
    a: int
    b: int
    preference: float
    why: str


_PEOPLES = """
SELECT pair.id, pair.query_id, pair.a_id, pair.b_id, COALESCE(gold.preference, votes.preference)::float8,
       COALESCE(NULLIF(gold.explanation, ''), votes.why, '')
FROM labeling_pair pair
JOIN labeling_query query ON query.id = pair.query_id
LEFT JOIN labeling_goldanswer gold ON gold.pair_id = pair.id
LEFT JOIN LATERAL (
    SELECT avg(answer.preference) AS preference, max(reason.text) AS why
    FROM labeling_live_judgment answer LEFT JOIN labeling_rationale reason ON reason.judgment_id = answer.id
    WHERE answer.pair_id = pair.id AND answer.by_person AND answer.kind = 'preference'
) votes ON true
WHERE query.project_id = %s AND (gold.preference IS NOT NULL OR votes.preference IS NOT NULL)
ORDER BY pair.id
"""


def peoples_answers(project_id: int) -> list[PeoplesAnswer]:
    """Return the pairs of the project's queries that people answered or set as gold, and that take a side."""
    with connection.cursor() as cursor:
        cursor.execute(_PEOPLES, [project_id])
        found = [PeoplesAnswer(*row) for row in cursor.fetchall()]
    return [each for each in found if abs(each.preference - 0.5) > TIE]
