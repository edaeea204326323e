"""Each person's work in a project: answers, pace, and agreement with gold and judges. For pages and REST.

`labeling.annotation.gold` defines the gold results; shares have Wilson intervals.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from django.db import connection

from labeling.annotation.gold import gold_records
from labeling.models import Project
from labeling.stored_texts import read_stored
from scoring.models import INDEPENDENT
from scoring.numerics.judges.judge_checks import Estimate, share
from scoring.numerics.measures.sides import agreement

LATEST = 20_000
# Nobody reads a query and two documents in this time; people who often do are flagged.
FAST_S, FAST_SHARE = 1.5, 0.2
REASON = 4  # column of _PEOPLE: why the person is paused


@dataclass(frozen=True, slots=True)
class PersonFigures:
    """One person's figures. None means that there are no answers to measure.

    `seconds`: median of the latest 200 answers, `fast` the share of them under FAST_S; `gold`: share of expected answers since they were last resumed;
    `with_judges`: agreement with the judges' mean, a tie counts half, without verdicts.
    """

    annotator_id: int
    user_id: int | None
    name: str
    paused_at: datetime | None
    pause_reason: str
    answers: int
    today: int
    last_at: datetime | None
    seconds: float | None
    fast: float | None
    gold: Estimate | None
    with_judges: Estimate | None

    @property
    def is_fast(self) -> bool:
        """Return whether too many answers came faster than two texts can be read."""
        return self.fast is not None and self.fast >= FAST_SHARE


@dataclass(frozen=True, slots=True)
class PairsLeft:
    """The pairs that wait for people: `open` of them, and how many of these each annotator has answered already."""

    open: int
    answered: dict[int, int]

    def of(self, annotator_id: int | None) -> int:
        """Return how many of them wait for this person; None for one who has not begun."""
        return self.open - self.answered.get(annotator_id or 0, 0)


_PEOPLE = """
SELECT person.id, person.user_id, person.name, person.paused_at, person.pause_reason,
       counted.answers, counted.today, counted.last_at, timed.seconds, timed.fast
FROM labeling_annotator person
CROSS JOIN LATERAL (
    SELECT count(*) AS answers, max(created_at) AS last_at,
           count(*) FILTER (WHERE created_at >= date_trunc('day', now())) AS today
    FROM labeling_live_judgment WHERE annotator_id = person.id AND by_person
) counted
CROSS JOIN LATERAL (
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS seconds,
           (count(*) FILTER (WHERE seconds < %(fast_s)s))::float8 / NULLIF(count(*), 0) AS fast FROM (
        SELECT seconds FROM labeling_spotcheck
        WHERE holder_id = person.id AND seconds IS NOT NULL ORDER BY id DESC LIMIT 200
    ) latest
) timed
WHERE person.project_id = %(project)s AND person.is_person AND (%(user)s::bigint IS NULL OR person.user_id = %(user)s)
ORDER BY person.id
"""

_JUDGES = f"""
SELECT own.annotator_id, own.preference, judges.mean
FROM (
    SELECT answer.* FROM labeling_live_judgment answer JOIN labeling_annotator person ON person.id = answer.annotator_id
    WHERE person.project_id = %(project)s AND person.is_person
      AND answer.kind = 'preference' AND (%(user)s::bigint IS NULL OR person.user_id = %(user)s) AND {INDEPENDENT}
    ORDER BY answer.id DESC LIMIT %(latest)s
) own
CROSS JOIN LATERAL (
    SELECT avg(preference) AS mean FROM labeling_live_judgment
    WHERE pair_id = own.pair_id AND NOT by_person AND kind = 'preference'
) judges
WHERE judges.mean IS NOT NULL
"""


def people_figures(project: Project, *, user: Any = None) -> list[PersonFigures]:
    """Return the figures of all people who compared in the project, or of `user` alone."""
    values = {
        "project": project.pk,
        "user": user.pk if user is not None else None,
        "latest": LATEST,
        "fast_s": FAST_S,
    }
    people = _rows(_PEOPLE, values)
    if not people:
        return []
    records = gold_records(
        project.pk,
        feedback=project.gold_feedback,
        tolerance=project.gold_tolerance,
        person_id=None if user is None else people[0][0],  # a user is one person of a project
    )
    gold = {person: share(right, count) for person, (right, count) in records.items()}
    judges = _with_judges(_rows(_JUDGES, values))
    found = []
    for row in people:
        row = (*row[:REASON], read_stored(row[REASON]), *row[REASON + 1 :])
        figures: tuple[Any, ...] = (*row, gold.get(row[0]), judges.get(row[0]))
        found.append(PersonFigures(*figures))
    return found


_LEFT = """
WITH open AS (
    SELECT DISTINCT pair_id FROM labeling_spotcheck
    WHERE project_id = %(project)s AND slot IS NOT NULL AND judgment_id IS NULL
)
SELECT NULL::bigint, count(*) FROM open
UNION ALL
SELECT answer.annotator_id, count(*) FROM open JOIN labeling_live_judgment answer ON answer.pair_id = open.pair_id
WHERE answer.by_person GROUP BY answer.annotator_id
"""


def pairs_left(project: Project) -> PairsLeft:
    """Return how many pairs of the project wait for people."""
    counts = dict(_rows(_LEFT, {"project": project.pk}))
    return PairsLeft(counts.pop(None), counts)


def _rows(statement: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall()


def _with_judges(rows: list[tuple[Any, ...]]) -> dict[int, Estimate | None]:
    columns = np.array(rows, dtype=np.float64).reshape(-1, 3)
    found = {}
    for person in np.unique(columns[:, 0]):
        mine = columns[columns[:, 0] == person]
        same = agreement(mine[:, 1], mine[:, 2])
        found[int(person)] = share(same.hits, same.count)
    return found
