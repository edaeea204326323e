"""Draws the pairs of a spot check for each reason. Writes nothing.

Random and disputed pairs come from a limited number of random queries, so that large projects are as fast as small
ones. `scoring.spot_checks.plans` stores the drawn pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from django.db import connection

from labeling.annotation.answer_scale import CLEAR
from labeling.models import GoldAnswer, Project, SpotCheck
from labeling.plugins import Sampler, get_plugin
from scoring.calibration.cross_query import sample_cross_pairs
from scoring.sampling.certainty import next_pairs
from scoring.sampling.draw import comparable_query_ids, sample_pairs

Reason = SpotCheck.Reason
MOST_PAIRS = 20_000
MOST_OVERLAP = 20

# The number of random queries for reasons that read every answer of a query.
MOST_QUERIES = 2_000
MOST_UNCERTAIN_QUERIES = 200


class BadPlan(ValueError):
    """The number of pairs or people, or the reason, is invalid."""


class NothingToAsk(BadPlan):
    """No pair fits the reason; the message says how to get some."""


@dataclass(frozen=True, slots=True)
class DrawnPair:
    """A pair of candidates, a < b, with its query (None across queries) and its gold answer, if known."""

    a: int
    b: int
    query: int | None
    gold: float | None = None


def draw_pairs(project: Project, *, reason: str, pairs: int, overlap: int = 1, seed: int = 0) -> list[DrawnPair]:
    """Return up to `pairs` unplanned pairs for this reason. Writes nothing. Raises BadPlan."""
    _check(reason, pairs, overlap)
    return _DRAWS[Reason(reason)](project, pairs, seed)


def _check(reason: str, pairs: int, overlap: int) -> None:
    if reason not in Reason.values:
        raise BadPlan(f"the reason is {reason[:40]!r}; expected one of {', '.join(Reason.values)}")
    if not 1 <= pairs <= MOST_PAIRS:
        raise BadPlan(f"the number of pairs is {pairs:,}; expected 1 to {MOST_PAIRS:,}")
    if not 1 <= overlap <= MOST_OVERLAP:
        raise BadPlan(f"the number of people per pair is {overlap}; expected 1 to {MOST_OVERLAP}")


_UNPLANNED = """NOT EXISTS (SELECT 1 FROM labeling_spotcheck planned WHERE planned.pair_id = pair.id)
    AND NOT EXISTS (SELECT 1 FROM labeling_goldanswer gold WHERE gold.pair_id = pair.id)"""

_RANDOM = f"""
SELECT pair.a_id, pair.b_id, pair.query_id FROM labeling_pair pair
WHERE pair.query_id = ANY(%(queries)s) AND {_UNPLANNED} AND EXISTS (
    SELECT 1 FROM labeling_live_judgment answer
    WHERE answer.pair_id = pair.id AND NOT answer.by_person)
ORDER BY hashint8extended(pair.id, %(seed)s), pair.id LIMIT %(pairs)s
"""

# Both orders of a judge are one opinion.
_DISAGREEMENT = f"""
SELECT disputed.a_id, disputed.b_id, disputed.query_id FROM (
    SELECT pair.id, pair.a_id, pair.b_id, pair.query_id, (
        SELECT max(opinion.mean) - min(opinion.mean) FROM (
            SELECT avg(preference) AS mean FROM labeling_live_judgment answer
            WHERE answer.pair_id = pair.id AND NOT answer.by_person
              AND answer.kind = 'preference'
            GROUP BY answer.annotator_id
        ) opinion HAVING count(*) >= 2
    ) AS spread
    FROM labeling_pair pair WHERE pair.query_id = ANY(%(queries)s) AND {_UNPLANNED}
) disputed
WHERE disputed.spread > 0
ORDER BY disputed.spread DESC, hashint8extended(disputed.id, %(seed)s), disputed.id LIMIT %(pairs)s
"""


def _some_queries(project: Project, seed: int, most: int = MOST_QUERIES) -> list[int]:
    """Return queries with two or more candidates in random order; the same seed gives the same order."""
    ids = comparable_query_ids(project.pk)
    return [ids[i] for i in np.random.default_rng(seed).permutation(len(ids))[:most]]


def _select(statement: str, project: Project, pairs: int, seed: int) -> list[DrawnPair]:
    values: dict[str, Any] = {"queries": _some_queries(project, seed), "pairs": pairs, "seed": seed}
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return [DrawnPair(*row) for row in cursor.fetchall()]


def _draw_random(project: Project, pairs: int, seed: int) -> list[DrawnPair]:
    """Draw pairs that judges answered; if there are too few, add new pairs of random queries."""
    found = _select(_RANDOM, project, pairs, seed)
    if len(found) < pairs:
        found += _draw_new(project, pairs - len(found), seed, known={(each.a, each.b) for each in found})
    return found


def _draw_new(project: Project, pairs: int, seed: int, known: set[tuple[int, ...]]) -> list[DrawnPair]:
    """Draw pairs of random cycles, in turn over the queries, without planned pairs."""
    sampler = cast(Sampler, get_plugin("sampler", "cycles").from_dict({}))
    queries = _some_queries(project, seed, most=min(MOST_QUERIES, pairs))
    planned = _planned_pairs(project)
    budgets = dict.fromkeys(queries, 10**6)
    drawn = sample_pairs(queries, sampler, budgets=budgets, seed=abs(seed), round_number=0)
    columns = [
        [DrawnPair(int(a), int(b), query) for a, b in ends if (int(a), int(b)) not in known | planned]
        for query, ends in drawn.items()
    ]
    longest = max(map(len, columns), default=0)
    return [column[row] for row in range(longest) for column in columns if row < len(column)][:pairs]


def _planned_pairs(project: Project) -> set[tuple[int, ...]]:
    return set(_with_slot_or_gold(project, "pair__a_id", "pair__b_id"))


def _with_slot_or_gold(project: Project, *fields: str) -> Iterable[tuple[int, ...]]:
    """Return `fields` of the pairs that have a slot or a gold answer, without duplicates."""
    return (
        SpotCheck.objects.filter(project=project)
        .order_by()
        .values_list(*fields)
        .union(GoldAnswer.objects.filter(project=project).order_by().values_list(*fields))
    )


def _draw_disagreement(project: Project, pairs: int, seed: int) -> list[DrawnPair]:
    return _select(_DISAGREEMENT, project, pairs, seed)


def _draw_uncertain(project: Project, pairs: int, seed: int) -> list[DrawnPair]:
    """Draw the next pairs of the sampler `uncertain` from random rated queries, the most informative first."""
    queries = _some_queries(project, seed, most=min(MOST_UNCERTAIN_QUERIES, pairs))
    planned = _planned_pairs(project)
    share = -(-pairs // max(1, len(queries)))
    waiting = [pair for (pair,) in _with_slot_or_gold(project, "pair_id")]
    found = [
        (each.shrinkage, DrawnPair(each.a_id, each.b_id, query))
        for query in queries
        for each in next_pairs(query, share, pending=waiting)
        if (each.a_id, each.b_id) not in planned
    ]
    found.sort(key=lambda each: (-each[0], each[1].a, each[1].b))
    return [pair for _, pair in found[:pairs]]


def _draw_across(project: Project, pairs: int, seed: int) -> list[DrawnPair]:
    per_query = max(1, min(1000, -(-2 * pairs // max(1, len(comparable_query_ids(project.pk))))))
    sampler = cast(Sampler, get_plugin("sampler", "cross-query").from_dict({"pairs_per_query": per_query}))
    planned = _planned_pairs(project)
    drawn = sample_cross_pairs(project.pk, sampler, budget=pairs, seed=abs(seed), round_number=0)
    found = (DrawnPair(int(a), int(b), None) for a, b in drawn)
    return [each for each in found if (each.a, each.b) not in planned][:pairs]


_GRADE_RANGE = """
SELECT COALESCE(max(candidate.grade) - min(candidate.grade), 0)::int FROM labeling_candidate candidate
JOIN labeling_query query ON query.id = candidate.query_id WHERE query.project_id = %s
"""

_GRADED = """
SELECT query_id, id, grade FROM labeling_candidate WHERE query_id = ANY(%s) AND grade IS NOT NULL ORDER BY query_id, id
"""

_ADJUDICATED = """
SELECT pair.a_id, pair.b_id, pair.query_id, answer.preference
FROM scoring_adjudication decided JOIN labeling_judgment answer ON answer.id = decided.judgment_id
JOIN labeling_pair pair ON pair.id = decided.pair_id JOIN labeling_annotator person ON person.id = answer.annotator_id
WHERE person.project_id = %(project)s AND answer.kind = 'preference' AND NOT EXISTS (
    SELECT 1 FROM labeling_goldanswer gold WHERE gold.pair_id = pair.id)
ORDER BY hashint8extended(pair.id, %(seed)s), pair.id LIMIT %(pairs)s
"""


def _draw_gold(project: Project, pairs: int, seed: int) -> list[DrawnPair]:
    """Draw adjudicated pairs, then pairs whose grades differ by more than half of the project's range."""
    with connection.cursor() as cursor:
        cursor.execute(_ADJUDICATED, {"project": project.pk, "seed": seed, "pairs": pairs})
        found = [DrawnPair(*row) for row in cursor.fetchall()]
    if len(found) < pairs:
        known = _planned_pairs(project) | {(each.a, each.b) for each in found}
        found += _draw_graded(project, pairs - len(found), seed, known)
    return found


def _draw_graded(project: Project, pairs: int, seed: int, known: set[tuple[int, ...]]) -> list[DrawnPair]:
    queries = _some_queries(project, seed)
    with connection.cursor() as cursor:
        cursor.execute(_GRADE_RANGE, [project.pk])
        apart = max(1, cursor.fetchone()[0] // 2 + 1)
        cursor.execute(_GRADED, [queries])
        rows = np.array(cursor.fetchall(), dtype=np.int64).reshape(-1, 3)
    rng = np.random.default_rng(seed)
    found: dict[tuple[int, int], DrawnPair] = {}
    of_query = (rows[rows[:, 0] == query] for query in np.unique(rows[:, 0]))
    clear = [mine for mine in of_query if np.ptp(mine[:, 2]) >= apart]
    for _ in range(20 * pairs if clear else 0):
        if len(found) >= pairs:
            break
        mine = clear[rng.integers(len(clear))]
        one, other = rng.choice(len(mine), 2, replace=False)
        first, second = sorted((mine[one], mine[other]), key=lambda row: int(row[1]))
        key = int(first[1]), int(second[1])
        if abs(int(first[2]) - int(second[2])) >= apart and key not in known:
            found[key] = _graded_pair(first, second)
    return list(found.values())


def _graded_pair(first: np.ndarray, second: np.ndarray) -> DrawnPair:
    gold = CLEAR if first[2] > second[2] else round(1.0 - CLEAR, 2)
    return DrawnPair(int(first[1]), int(second[1]), int(first[0]), gold)


_DRAWS: dict[Reason, Callable[[Project, int, int], list[DrawnPair]]] = {
    Reason.RANDOM: _draw_random,
    Reason.DISAGREEMENT: _draw_disagreement,
    Reason.UNCERTAIN: _draw_uncertain,
    Reason.CROSS_QUERY: _draw_across,
    Reason.GOLD: _draw_gold,
}

REMEDIES: dict[Reason, str] = {
    Reason.RANDOM: "every pair is already planned, or no query has two candidates; import or retrieve more candidates",
    Reason.DISAGREEMENT: "judges do not disagree on any pair that is still unplanned; "
    "run two or more judges with the allocation `all`",
    Reason.UNCERTAIN: "no query has scores yet, or all their pairs are planned; start a run first",
    Reason.CROSS_QUERY: "fewer than two queries have scores, or every cross-query pair is planned; start a run first",
    Reason.GOLD: "no candidates of a query have clearly different grades, and every adjudicated pair is already gold; "
    "import grades, adjudicate pairs, or mark a pair as gold on its page",
}
