"""Turns the answer to a question about a set into the judgments of its pairs.

`workers.judging.queue` calls this when it stores answers. The pairs of a set are stored here, because the answer alone
decides which of them have a preference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from labeling.database import Cursor
from labeling.records import CallPlaces, NewJudgment, Verdict


class SetTask(Protocol):
    """The part of a claimed task that is read here; `documents` are candidates in the order of `swapped = False`."""

    @property
    def id(self) -> int: ...
    @property
    def annotator_id(self) -> int: ...
    @property
    def swapped(self) -> bool: ...
    @property
    def documents(self) -> tuple[int, ...]: ...


def shown_order(task: SetTask) -> tuple[int, ...]:
    """The candidates of a set in the order in which the judge sees them."""
    return task.documents[::-1] if task.swapped else task.documents


# Candidates that were deleted meanwhile leave their pairs out.
_PAIRS = """
WITH wanted AS (
    SELECT DISTINCT LEAST(ends.a, ends.b) AS a, GREATEST(ends.a, ends.b) AS b
    FROM unnest(%(a)s::bigint[], %(b)s::bigint[]) AS ends (a, b)
), stored AS (
    INSERT INTO labeling_pair (a_id, b_id, query_id)
    SELECT wanted.a, wanted.b, one.query_id FROM wanted
    JOIN labeling_candidate one ON one.id = wanted.a JOIN labeling_candidate other ON other.id = wanted.b
    WHERE one.query_id = other.query_id ORDER BY 1, 2
    ON CONFLICT (a_id, b_id) DO NOTHING
    RETURNING a_id, b_id, id
)
SELECT * FROM stored
UNION ALL SELECT pair.a_id, pair.b_id, pair.id FROM wanted JOIN labeling_pair pair ON pair.a_id = wanted.a AND pair.b_id = wanted.b
"""


def judgments_of_sets(cursor: Cursor, answers: Sequence[tuple[SetTask, Verdict]]) -> list[NewJudgment]:
    """The judgments of these answers: one for each preference whose two candidates still exist."""
    if not answers:
        return []
    judgments = []
    ends = [(shown_order(task), each) for task, verdict in answers for each in verdict.placed]
    one, other = [shown[each.one] for shown, each in ends], [shown[each.other] for shown, each in ends]
    cursor.execute(_PAIRS, {"a": one, "b": other})
    pair_ids = {(a, b): pair for a, b, pair in cursor.fetchall()}
    for task, verdict in answers:
        shown = shown_order(task)
        for each in verdict.placed:
            a, b, preference = each.one, each.other, each.preference
            if shown[a] > shown[b]:
                a, b, preference = b, a, 1.0 - preference
            pair = pair_ids.get((shown[a], shown[b]))
            if pair is not None:
                judgments.append(
                    NewJudgment(
                        pair_id=pair,
                        annotator_id=task.annotator_id,
                        swapped=b < a,
                        preference=preference,
                        rationale=verdict.rationale if each is verdict.placed[0] else "",
                        truncated=verdict.truncated,
                        places=CallPlaces(call=task.id, size=len(shown), a=a, b=b),
                    )
                )
    return judgments
