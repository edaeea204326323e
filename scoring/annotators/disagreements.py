"""Finds disputed pairs, the widest gap first: people against judges, among people, among judges.

The gap is the distance of mean preferences, or of the two most distant ones. Both orders of a judge are one
opinion. Answers without a preference and verdicts are not opinions; the answer that a verdict replaced stays one, because
the adjudicator's own answer may be what made the pair disputed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from django.db import connection

from labeling.models import Project
from scoring.project_fits import sampled_query_ids

# Opinions closer than this count as equal; the steps of the five strengths are 0.2 and 0.25.
SMALLEST_GAP = 0.2
MOST_LISTED = 1_000


class Between(enum.StrEnum):
    """The groups whose opinions are compared."""

    ANYBODY = "anybody"
    PEOPLE_AND_JUDGES = "people-judges"
    PEOPLE = "people"
    JUDGES = "judges"


@dataclass(frozen=True, slots=True)
class Opinions:
    """The opinion of one group on a pair: preferences for a, None without answers."""

    mean: float | None
    low: float | None
    high: float | None
    count: int

    @property
    def percent(self) -> tuple[int, int, int]:
        """(first, mean, last) as positions from A (0, left) to B (100, right)."""
        first, mean, last = (round(100 * (1.0 - (value or 0.0))) for value in (self.high, self.mean, self.low))
        return first, mean, last


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A pair and the gap between opinions on it. `decided`: it was adjudicated."""

    pair_id: int
    gap: float
    decided: bool
    people: Opinions
    judges: Opinions


# People answer and decide few pairs, so all of these are read; pairs of judges alone come from a sample of queries.
_BY_PEOPLE = """
SELECT DISTINCT answer.pair_id FROM labeling_annotator person JOIN labeling_live_judgment answer
    ON answer.annotator_id = person.id AND answer.by_person
WHERE person.project_id = %(project)s AND person.is_person AND answer.kind = 'preference'
UNION SELECT decided.pair_id FROM scoring_adjudication decided JOIN labeling_judgment answer ON answer.id = decided.judgment_id
JOIN labeling_annotator person ON person.id = answer.annotator_id WHERE person.project_id = %(project)s
"""
_BY_JUDGES = "SELECT id AS pair_id FROM labeling_pair WHERE query_id = ANY(%(queries)s)"

_GAPS = {
    Between.ANYBODY: "COALESCE(GREATEST(abs(people - judges), people_high - people_low), 0.0)",
    Between.PEOPLE_AND_JUDGES: "abs(people - judges)",
    Between.PEOPLE: "people_high - people_low",
    Between.JUDGES: "judges_high - judges_low",
}

_LIST = """
WITH looked_at AS ({pairs}), opinion AS (
    SELECT pair_id, by_person, annotator_id, avg(preference) AS mean FROM (
        SELECT answer.pair_id, answer.by_person, answer.annotator_id, answer.preference
        FROM looked_at JOIN labeling_live_judgment answer ON answer.pair_id = looked_at.pair_id
        LEFT JOIN scoring_adjudication decided ON decided.judgment_id = answer.id
        WHERE answer.kind = 'preference' AND decided.id IS NULL
        UNION ALL
        SELECT answer.pair_id, answer.by_person, answer.annotator_id, answer.preference
        FROM looked_at JOIN scoring_adjudication decided ON decided.pair_id = looked_at.pair_id
        JOIN labeling_judgment answer ON answer.id = decided.replaced_id
        WHERE answer.kind = 'preference'
    ) said GROUP BY 1, 2, 3
), seen AS (
    SELECT pair_id, avg(mean) FILTER (WHERE by_person) AS people, avg(mean) FILTER (WHERE NOT by_person) AS judges,
           min(mean) FILTER (WHERE by_person) AS people_low, max(mean) FILTER (WHERE by_person) AS people_high,
           min(mean) FILTER (WHERE NOT by_person) AS judges_low, max(mean) FILTER (WHERE NOT by_person) AS judges_high,
           count(*) FILTER (WHERE by_person) AS people_count, count(*) FILTER (WHERE NOT by_person) AS judges_count
    FROM opinion GROUP BY pair_id
)
SELECT pair_id, gap, decided, people, people_low, people_high, people_count, judges, judges_low, judges_high, judges_count
FROM (
    SELECT seen.*, {gap} AS gap,
           EXISTS (SELECT 1 FROM scoring_adjudication WHERE scoring_adjudication.pair_id = seen.pair_id) AS decided
    FROM seen
) found
WHERE gap >= %(smallest)s AND (%(decided)s::boolean IS NULL OR decided = %(decided)s)
ORDER BY gap DESC, pair_id LIMIT %(most)s
"""


def disagreements(
    project: Project, *, between: Between = Between.ANYBODY, decided: bool | None = False, most: int = MOST_LISTED
) -> list[Disagreement]:
    """Return disputed pairs, the widest gaps first. `decided` selects adjudicated pairs, others, or both (None).

    Between anybody, every adjudicated pair with an answer is listed, however close the opinions are.
    """
    among_judges = between == Between.JUDGES
    statement = _LIST.format(pairs=_BY_JUDGES if among_judges else _BY_PEOPLE, gap=_GAPS[between])
    with connection.cursor() as cursor:
        cursor.execute(
            statement,
            {
                "project": project.pk,
                "queries": sampled_query_ids(project.pk) if among_judges else [],
                "smallest": 0.0 if decided and between == Between.ANYBODY else SMALLEST_GAP - 1e-9,
                "decided": decided,
                "most": most,
            },
        )
        return [
            Disagreement(pair_id, gap, is_decided, Opinions(*sides[:4]), Opinions(*sides[4:]))
            for pair_id, gap, is_decided, *sides in cursor.fetchall()
        ]


def neighbours(found: list[Disagreement], pair_id: int) -> tuple[int | None, int | None]:
    """Return the previous and next pair in a list; the first as next if the pair is not in it."""
    ids = [each.pair_id for each in found]
    if pair_id not in ids:
        return None, ids[0] if ids else None
    place = ids.index(pair_id)
    return (ids[place - 1] if place else None), (ids[place + 1] if place + 1 < len(ids) else None)
