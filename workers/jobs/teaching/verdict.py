"""Whether a taught judge agrees with people more often than the judge it was made from. Pure functions of the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from labeling.records import FloatArray
from labeling.stored_texts import StoredText, stored_text
from scoring.numerics.measures.resampling import PairedTest, paired_test
from scoring.numerics.measures.sides import side

BETTER, NOT_SHOWN, WORSE, FAILS = "better", "not_shown", "worse", "fails"
LEVEL = 0.95
# A sign-flip test over fewer queries cannot reach p = .05: 2 of 2^6 = .031, 2 of 2^5 = .0625.
LEAST_QUERIES = 6
# So much larger may the share of unanswered questions of the taught judge be.
MORE_UNANSWERED = 0.05

OVERALL = (
    "it agrees with people on %(taught)s of %(pairs)s pairs of %(queries)s held-out queries, the judge without examples on "
    "%(old)s: a difference of %(difference)s points (95-percent interval %(low)s to %(high)s, p %(p)s)"
)
IS_BETTER = stored_text("the taught judge is better: " + OVERALL)
IS_NOT_SHOWN = stored_text("no improvement is shown: " + OVERALL)
IS_WORSE = stored_text("the taught judge is worse: " + OVERALL)
OLD_FAILS = stored_text("the judge without examples answered none of the first %(n)s questions: %(message)s")
TAUGHT_FAILS = stored_text("the taught judge answered none of the first %(n)s questions: %(message)s")
UNANSWERED = stored_text(
    "the taught judge left %(taught)s of %(n)s questions unanswered, the judge without examples %(old)s: %(message)s"
)
FEW_QUERIES = stored_text(
    "both judges answered pairs of %(queries)s held-out queries only, expected %(least)s or more; %(message)s",
    one="both judges answered pairs of %(queries)s held-out query only, expected %(least)s or more; %(message)s",
)


@dataclass(frozen=True, slots=True)
class Answered:
    """Both judges' answers to a held-out pair: P(a is the more relevant), None where there was none; `known` is people's."""

    query: int
    known: float
    old: float | None
    taught: float | None
    message: str = ""

    @property
    def is_paired(self) -> bool:
        return self.old is not None and self.taught is not None


def failed_from_the_start(rows: Sequence[Answered]) -> StoredText | None:
    """Why nothing more is asked: one of the judges has answered none of these questions."""
    for sentence, answers in ((OLD_FAILS, [row.old for row in rows]), (TAUGHT_FAILS, [row.taught for row in rows])):
        if rows and all(answer is None for answer in answers):
            return sentence % {"n": len(rows), "message": _message(rows)}
    return None


def verdict_on(rows: Sequence[Answered], rng: np.random.Generator) -> dict[str, Any]:
    """The verdict with its reason and figures: `old` and `taught` are shares of agreement, `difference` theirs with its
    interval over queries; pairs that one of them left unanswered are in neither.

    The taught judge is better only where the interval is above zero and a sign-flip test over the queries agrees (p <= .05):
    the interval is too short where there are few queries.
    """
    paired = [row for row in rows if row.is_paired]
    queries = len({row.query for row in paired})
    figures: dict[str, Any] = {"pairs": len(paired), "queries": queries}
    if (failure := failed_from_the_start(rows)) is not None:
        return {**figures, "verdict": FAILS, "reason": failure}
    if queries < LEAST_QUERIES:
        reason = FEW_QUERIES % {"queries": queries, "least": LEAST_QUERIES, "message": _message(rows)}
        return {**figures, "verdict": FAILS, "reason": reason}
    old, taught = _by_query(paired, [row.old for row in paired]), _by_query(paired, [row.taught for row in paired])
    found = paired_test(taught, old, rng=rng, level=LEVEL)
    figures |= _figures(found, old, taught)
    if (failure := _unanswered(rows)) is not None:
        return {**figures, "verdict": FAILS, "reason": failure}
    verdict, sentence = _side_of(found)
    return {**figures, "verdict": verdict, "reason": sentence % _in_words(figures)}


def _by_query(rows: Sequence[Answered], answers: Sequence[float | None]) -> FloatArray:
    """The share of pairs on people's side, a tie counting half: float64[queries], in the order of the queries' ids."""
    apart = np.abs(side(np.array(answers, dtype=np.float64)) - side(np.array([row.known for row in rows]))) / 2.0
    _, of_query = np.unique([row.query for row in rows], return_inverse=True)
    return np.asarray(np.bincount(of_query, weights=1.0 - apart) / np.bincount(of_query), dtype=np.float64)


def _figures(found: PairedTest, old: FloatArray, taught: FloatArray) -> dict[str, Any]:
    """The means over queries, and their difference with its interval and the p of the sign-flip test."""
    change = found.difference
    difference = {"value": change.estimate, "low": change.low, "high": change.high, "p": found.p_value}
    return {"old": float(old.mean()), "taught": float(taught.mean()), "difference": difference}


def _side_of(found: PairedTest) -> tuple[str, StoredText]:
    is_sure = found.p_value <= 1.0 - LEVEL
    if found.difference.low > 0.0 and is_sure:
        return BETTER, IS_BETTER
    if found.difference.high < 0.0 and is_sure:
        return WORSE, IS_WORSE
    return NOT_SHOWN, IS_NOT_SHOWN


def _in_words(figures: dict[str, Any]) -> dict[str, str]:
    change = figures["difference"]
    return {
        "taught": f"{figures['taught']:.0%}",
        "old": f"{figures['old']:.0%}",
        "pairs": str(figures["pairs"]),
        "queries": str(figures["queries"]),
        "p": "< 0.001" if change["p"] < 0.001 else f"= {change['p']:.3f}",
        **{
            name: f"{100.0 * change[key]:+z.1f}"
            for name, key in (("difference", "value"), ("low", "low"), ("high", "high"))
        },
    }


def _unanswered(rows: Sequence[Answered]) -> StoredText | None:
    taught, old = sum(row.taught is None for row in rows), sum(row.old is None for row in rows)
    if taught <= old + MORE_UNANSWERED * len(rows):
        return None
    return UNANSWERED % {"taught": taught, "n": len(rows), "old": old, "message": _message(rows)}


def _message(rows: Sequence[Answered]) -> str:
    """The message of the last failure."""
    return next((row.message for row in reversed(rows) if row.message), "")
