"""May a judge replace people? The Alternative Annotator Test of Calderon, Reichart and Dror (ACL 2025.acl-long.782).

Pure: labels in, frozen result out. A person is left out at a time; judge and person are compared by how well each agrees
with the other people. Assumptions: people are a sample of those whom the judge would replace, items are drawn at random
and independent, and every person answered without seeing others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtr

from labeling.records import FloatArray
from scoring.numerics.measures.metrics import MetricInput
from scoring.numerics.measures.multiple_tests import benjamini_yekutieli

FEWEST_PEOPLE = 3
FEWEST_ITEMS = 30
MOST_NEEDED = 1_000_000  # nobody answers more
LEVEL = 0.05
POWER = 0.8
# Cost-benefit of the paper: people are dearer than judges by .2 if they are experts, .15 if skilled, .1 if crowd workers.
EPSILON = 0.2
# Standard deviation of a difference of two wins before it can be measured: a tie in half of the items.
UNKNOWN_SPREAD = math.sqrt(0.5)


@dataclass(frozen=True, slots=True)
class PersonTest:
    """One person left out: on `items`, `judge_wins` is the share on which the judge agrees with the others at least as well
    as the person, `person_wins` the reverse. `p_value` of "the person is better by epsilon or more"; `adjusted` over people.
    """

    person: int
    items: int
    judge_wins: float
    person_wins: float
    p_value: float
    adjusted: float

    @property
    def is_replaceable(self) -> bool:
        return self.adjusted <= LEVEL


@dataclass(frozen=True, slots=True)
class Replacement:
    """`winning_rate` (omega): share of people against whom the judge holds; it passes from one half. `advantage` (rho): mean
    of `judge_wins`. Both are None with fewer than three people of thirty items. `items_needed`: a person's items for a
    power of .8 at the measured difference, None if the judge is worse by epsilon or more, so that no number would do, or by
    so nearly epsilon that it takes more than MOST_NEEDED.
    """

    epsilon: float
    people: tuple[PersonTest, ...]
    left_out: tuple[tuple[int, int], ...]
    winning_rate: float | None
    advantage: float | None
    items_needed: int | None

    @property
    def passes(self) -> bool | None:
        return None if self.winning_rate is None else self.winning_rate >= 0.5


def replacement_test(judge: npt.ArrayLike, people: npt.ArrayLike, *, epsilon: float = EPSILON) -> Replacement:
    """Test labels of a judge, float64[P], against those of people, float64[H, P]; NaN where there is none.

    Agreement with others is the share of them with the same label. `left_out`: (person, items) of those with fewer than
    thirty items that the judge and another person answered too. Raises MetricInput.
    """
    own, table = np.asarray(judge, dtype=np.float64), np.asarray(people, dtype=np.float64)
    if own.ndim != 1 or table.ndim != 2 or table.shape[1] != len(own) or not 0.0 <= epsilon < 1.0:
        raise MetricInput(
            f"shapes {own.shape} and {table.shape}, epsilon {epsilon}; expected a label per item, people in rows, "
            "and epsilon from 0 to below 1"
        )
    wins = [_wins(own, table, person) for person in range(len(table))]
    kept = [person for person, each in enumerate(wins) if len(each) >= FEWEST_ITEMS]
    short = tuple((person, len(each)) for person, each in enumerate(wins) if person not in kept)
    p_values = [_p_value(wins[person][:, 1] - wins[person][:, 0], epsilon) for person in kept]
    adjusted = benjamini_yekutieli(p_values).tolist()
    tests = tuple(
        PersonTest(person, len(own := wins[person]), float(own[:, 0].mean()), float(own[:, 1].mean()), p, q)
        for person, p, q in zip(kept, p_values, adjusted, strict=True)
    )
    enough = len(tests) >= FEWEST_PEOPLE
    return Replacement(
        epsilon=epsilon,
        people=tests,
        left_out=short,
        winning_rate=float(np.mean([each.is_replaceable for each in tests])) if enough else None,
        advantage=float(np.mean([each.judge_wins for each in tests])) if enough else None,
        items_needed=_items_needed(
            np.concatenate(wins) if wins else np.zeros((0, 2)), epsilon, max(len(table), FEWEST_PEOPLE)
        ),
    )


def _wins(judge: FloatArray, people: FloatArray, person: int) -> FloatArray:
    """Whether judge and person agree with the others at least as well as each other, float64[items, 2]."""
    others = np.delete(people, person, axis=0)
    given = ~np.isnan(others)
    rows = ~np.isnan(judge) & ~np.isnan(people[person]) & given.any(axis=0)
    count = np.maximum(given.sum(axis=0), 1)
    by_judge, by_person = ((others == labels).sum(axis=0) / count for labels in (judge, people[person]))
    return np.stack([by_judge >= by_person, by_person >= by_judge], axis=1)[rows].astype(np.float64)


def _p_value(difference: FloatArray, epsilon: float) -> float:
    """One-sided t test of mean(person wins - judge wins) >= epsilon."""
    spread = float(difference.std(ddof=1))
    gap = float(difference.mean()) - epsilon
    if spread == 0.0:
        return 0.0 if gap < 0.0 else 1.0
    return float(stdtr(len(difference) - 1, gap / (spread / math.sqrt(len(difference)))))


def _items_needed(wins: FloatArray, epsilon: float, people: int) -> int | None:
    """Items a person; the strictest level of the correction, that of the smallest p, is used.

    `people`: at least as many as the test needs, so that more people do not raise the number of someone who has two.
    """
    few = len(wins) < FEWEST_ITEMS
    difference = wins[:, 1] - wins[:, 0]
    margin = epsilon if few else epsilon - float(difference.mean())
    if margin <= 0.0:
        return None
    spread = UNKNOWN_SPREAD if few else max(float(difference.std(ddof=1)), 0.1)
    strictest = LEVEL / (people * (1.0 / np.arange(1, people + 1)).sum())
    z = float(ndtri(1.0 - strictest) + ndtri(POWER))
    if z * spread > margin * math.sqrt(MOST_NEEDED):
        return None
    return max(FEWEST_ITEMS, math.ceil((z * spread / margin) ** 2))
