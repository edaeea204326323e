"""Explains a document's score: each comparison, the fit's expected preference, and the residual.

All numbers are from the document's side: a preference of 0.9 means that it won, whether it was a or b
of the pair. The query page and the pair page use it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import F, Q, QuerySet
from django.db.models.functions import Left

from labeling.models import Judgment
from labeling.records import AnswerKind
from zelo_site.pages.texts import SNIPPET_LENGTH, clipped, document_title

# A residual this large on the other side of one half contradicts the fit.
ODD_RESIDUAL = 0.25
MOST_SHOWN = 200
# The number of latest answers that are searched for those furthest from the fit.
MOST_READ = 2000
OPPONENT_LENGTH = 70


@dataclass(frozen=True, slots=True)
class Reason:
    """One judgment from one document's side. `preference`, `expected` = P(it is more relevant);
    `residual` = preference - expected; all None without a fit or a preference.
    """

    judgment_id: int
    pair_id: int
    opponent_id: int
    opponent_query_id: int
    opponent: str
    cross_query: bool
    annotator: str
    by_person: bool
    shown_first: bool
    kind: str
    preference: float | None
    expected: float | None
    residual: float | None
    rationale: str
    created_at: datetime

    @property
    def won(self) -> bool:
        return self.preference is not None and self.preference >= 0.5

    @property
    def percent(self) -> float:
        """The preference as the width of a bar."""
        return round(100.0 * (self.preference or 0.0), 1)

    @property
    def kind_label(self) -> str:
        return self.kind.replace("_", " ")

    @property
    def is_odd(self) -> bool:
        """Whether the answer is far from the fit and on the other side of one half."""
        if self.preference is None or self.expected is None or self.residual is None:
            return False
        return abs(self.residual) >= ODD_RESIDUAL and (self.preference - 0.5) * (self.expected - 0.5) < 0


def expected_preference(rater: str, difference: float) -> float:
    """Return F(d) of method.md section 4, with d in the rater's units."""
    if rater == "thurstone":
        return 0.5 * math.erfc(-difference)
    return 1.0 / (1.0 + math.exp(-difference)) if difference >= 0 else math.exp(difference) / (1 + math.exp(difference))


_SIDE_FIELDS = ("id", "query_id", "document__metadata")


def judgments_with_sides(judgments: QuerySet[Judgment]) -> QuerySet[Judgment, dict[str, Any]]:
    """Return judgments as rows with both candidates, their strengths and their documents' first words."""
    sides = [f"pair__{side}__{name}" for side in "ab" for name in (*_SIDE_FIELDS, "score__theta")]
    return judgments.annotate(
        a_text=Left("pair__a__document__text", SNIPPET_LENGTH),
        b_text=Left("pair__b__document__text", SNIPPET_LENGTH),
    ).values(
        "id", "pair_id", "kind", "preference", "swapped", "by_person", "created_at", "annotator__name",
        "rationale__text", "pair__query_id", "a_text", "b_text", *sides,
    )  # fmt: skip


def reason_of(row: dict[str, Any], candidate_id: int, *, rater: str | None) -> Reason:
    """Return one row of `judgments_with_sides` from a candidate's side; `rater` is None without a fit."""
    is_a = row["pair__a__id"] == candidate_id
    mine, other = ("a", "b") if is_a else ("b", "a")
    preference = row["preference"]
    if preference is not None and not is_a:
        preference = 1.0 - preference
    cross_query = row["pair__query_id"] is None
    theta, theta_other = row[f"pair__{mine}__score__theta"], row[f"pair__{other}__score__theta"]
    expected = None
    if rater is not None and not cross_query and theta is not None and theta_other is not None:
        expected = expected_preference(rater, theta - theta_other)
    return Reason(
        judgment_id=row["id"],
        pair_id=row["pair_id"],
        opponent_id=row[f"pair__{other}__id"],
        opponent_query_id=row[f"pair__{other}__query_id"],
        opponent=clipped(
            document_title(row[f"{other}_text"], row[f"pair__{other}__document__metadata"]), OPPONENT_LENGTH
        ),
        cross_query=cross_query,
        annotator=row["annotator__name"],
        by_person=row["by_person"],
        shown_first=is_a != row["swapped"],
        kind=row["kind"],
        preference=preference if row["kind"] == AnswerKind.PREFERENCE else None,
        expected=expected,
        residual=None if expected is None or preference is None else preference - expected,
        rationale=row["rationale__text"] or "",
        created_at=row["created_at"],
    )


def reasons_for(judgments: QuerySet[Judgment], candidate_id: int, *, rater: str | None) -> list[Reason]:
    """Return the latest MOST_READ live answers on a candidate's pairs, those furthest from the fit first."""
    rows = judgments_with_sides(_answers_on(judgments, candidate_id)).order_by(F("id").desc())[:MOST_READ]
    return odd_first([reason_of(row, candidate_id, rater=rater) for row in rows])


def count_answers(judgments: QuerySet[Judgment], candidate_id: int) -> int:
    """Return the number of live answers on a candidate's pairs."""
    return _answers_on(judgments, candidate_id).count()


def _answers_on(judgments: QuerySet[Judgment], candidate_id: int) -> QuerySet[Judgment]:
    return judgments.filter(Q(pair__a_id=candidate_id) | Q(pair__b_id=candidate_id), superseded_at__isnull=True)


def odd_first(reasons: Sequence[Reason]) -> list[Reason]:
    """Sort key: largest residual first, answers without a residual last."""
    return sorted(reasons, key=lambda r: (r.residual is None, -abs(r.residual or 0.0), r.judgment_id))
