"""Which judge a dollar is best spent on: prices, sharpness, bias, shared errors, and who is measured first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from labeling.records import ComparisonColumns, FloatArray, IntArray
from scoring.numerics.design.static import random_cycles
from scoring.numerics.fitting.likelihood import LOGIT_SCALES
from scoring.numerics.judges.informative import (
    LEAST_VOTES,
    PILOT_VOTES,
    PanelTerms,
    SeenCandidates,
    choose_judges,
    pilot_queries,
    shared_errors,
)
from scoring.numerics.judges.judges import fit_with_judges

SLOPE = LOGIT_SCALES["thurstone"]
SIZE = 40


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def panel(**changed: Any) -> PanelTerms:
    """Three measured judges that differ in nothing but their prices of 10, 3 and 1."""
    judges = len(changed.get("price", (1, 1, 1)))
    terms: dict[str, Any] = {
        "sharpness": np.ones(judges),
        "sharpness_stderr": np.zeros(judges),
        "position_bias": np.zeros(judges),
        "dispersion": np.ones(judges),
        "votes": np.full(judges, 1000),
        "price": np.array([10.0, 3.0, 1.0]),
        "shared": np.zeros((judges, judges)),
        "slope": SLOPE,
        "spread": SLOPE**-2.0,
    }
    terms |= {name: np.asarray(value) for name, value in changed.items()}
    return PanelTerms(**terms)


def shares(known: PanelTerms, degree: int = 8) -> FloatArray:
    pairs = random_cycles(SIZE, degree, rng())
    _, judge, _ = choose_judges(pairs, SeenCandidates.none(SIZE, known.judges), known, rng(1))
    return np.bincount(judge, minlength=known.judges) / len(pairs)


def test_of_equal_judges_the_cheapest_is_asked() -> None:
    assert shares(panel()).tolist() == [0.0, 0.0, 1.0]


def test_a_sharp_judge_is_worth_its_price_as_its_square() -> None:
    assert shares(panel(sharpness=[3.5, 1.0, 1.0]))[0] == 1.0, "12 times as much for 10 times the money"
    assert shares(panel(sharpness=[2.8, 1.0, 1.0]))[2] == 1.0, "8 times as much"


def test_steady_answers_are_worth_more() -> None:
    assert shares(panel(dispersion=[0.05, 1.0, 1.0]))[0] == 1.0


def test_a_position_bias_makes_a_judge_worth_less() -> None:
    assert shares(panel(sharpness=[1.0, 1.2, 0.9], price=[5.0, 2.0, 1.0]))[2] == 1.0
    assert shares(panel(sharpness=[1.0, 1.2, 0.9], price=[5.0, 2.0, 1.0], position_bias=[0.0, 0.0, 0.5]))[1] == 1.0


def test_a_judge_that_contradicts_people_is_not_asked() -> None:
    assert shares(panel(sharpness=[1.0, 1.0, -1.0]))[1] == 1.0


def test_little_known_judges_get_a_look() -> None:
    known = panel(sharpness=[0.8, 1.0], sharpness_stderr=[0.5, 0.0], price=[1.0, 1.0], votes=[40, 4000])
    assert shares(known)[0] == 1.0


def test_errors_of_one_judge_on_candidates_spread_the_calls() -> None:
    alone = shares(panel(sharpness=[1.0, 1.0, 1.1], price=[1.0, 1.0, 1.0]))
    spread = shares(panel(sharpness=[1.0, 1.0, 1.1], price=[1.0, 1.0, 1.0], shared=0.1 * np.eye(3)))
    assert alone[2] == 1.0
    assert spread.min() > 0.15
    alike = 0.1 * np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    together = shares(panel(price=[1.0, 1.0, 1.0], shared=alike))
    assert together[0] > 0.4, "two judges that err alike count as one"


def test_sides_are_balanced_for_each_candidate() -> None:
    pairs = random_cycles(SIZE, 8, rng())
    known = panel(position_bias=[0.2, 0.2, 0.2])
    _, judge, swapped = choose_judges(pairs, SeenCandidates.none(SIZE, 3), known, rng(1))
    first = np.zeros((SIZE, 3))
    side = np.where(swapped, -1.0, 1.0)
    np.add.at(first, (pairs[:, 0], judge), side)
    np.add.at(first, (pairs[:, 1], judge), -side)
    assert np.abs(first).max() <= 2.0
    seen = SeenCandidates.none(2, 3)
    seen.votes[:] = 5
    seen.first[0], seen.first[1] = 1, -1
    assert choose_judges(np.array([[0, 1]]), seen, known, rng())[2].tolist() == [True]


def test_unmeasured_judges_go_round_and_dear_ones_less_often() -> None:
    known = panel(votes=[0, 0, 0], price=[9.0, 9.0, 1.0])
    pairs = random_cycles(SIZE, 20, rng())
    _, judge, _ = choose_judges(pairs, SeenCandidates.none(SIZE, 3), known, rng(1))
    assert np.bincount(judge).tolist() == [80, 80, 240], "as one over the root of the price"
    few = np.bincount(choose_judges(pairs[:90], SeenCandidates.none(SIZE, 3), known, rng(1))[1])
    assert few.min() >= 0.7 * LEAST_VOTES


def test_free_judges_are_alike_and_a_free_one_is_not_priceless() -> None:
    assert shares(panel(price=[0.0, 0.0, 0.0], sharpness=[1.0, 1.1, 1.0]))[1] == 1.0
    assert panel(price=[10.0, 3.0, 0.0]).effective_price.tolist() == [1.0, 0.3, 0.01]


def test_who_cannot_answer_is_not_asked() -> None:
    pairs = random_cycles(10, 4, rng())
    able = np.ones((len(pairs), 3), dtype=np.bool_)
    able[:, 2] = False
    able[3] = False
    rows, judge, swapped = choose_judges(pairs, SeenCandidates.none(10, 3), panel(), rng(), able=able)
    assert 3 not in rows.tolist() and len(rows) == len(judge) == len(swapped) == len(pairs) - 1
    assert set(judge.tolist()) == {1}


def test_nothing_to_ask_is_nobody_asked() -> None:
    found = choose_judges(np.empty((0, 2), dtype=np.int64), SeenCandidates.none(0, 3), panel(), rng())
    assert [len(each) for each in found] == [0, 0, 0]


def test_equal_generators_choose_alike() -> None:
    pairs = random_cycles(SIZE, 8, rng())
    known = panel(price=[1.0, 1.0, 1.0])
    once, again = (choose_judges(pairs, SeenCandidates.none(SIZE, 3), known, rng(4)) for _ in range(2))
    assert all((x == y).all() for x, y in zip(once, again, strict=True))


def votes(
    errors: FloatArray, *, queries: int = 30, seed: int = 0, guesses: bool = False
) -> tuple[ComparisonColumns, FloatArray]:
    """Draws of three judges in turn; `errors` float64[3, 3]: covariance of their errors on a candidate, logits squared."""
    draw = rng(seed)
    root = np.linalg.cholesky(errors + 1e-9 * np.eye(3))
    truth = draw.standard_normal((queries, SIZE))
    pairs: list[IntArray] = [random_cycles(SIZE, 12, draw) for _ in range(queries)]
    judge, preference = [], []
    for strengths, ab in zip(truth, pairs, strict=True):
        who = draw.integers(3, size=len(ab))
        seen = strengths + root @ draw.standard_normal((3, SIZE))
        d = seen[who, ab[:, 0]] - seen[who, ab[:, 1]]
        d = np.where(guesses & (who == 2), 0.0, d)
        judge.append(who)
        preference.append((draw.random(len(ab)) < 1.0 / (1.0 + np.exp(-d))).astype(np.float64))
    ends, count = np.concatenate(pairs), len(pairs[0])
    columns = ComparisonColumns(
        a=ends[:, 0],
        b=ends[:, 1],
        preference=np.concatenate(preference),
        weight=np.ones(len(ends)),
        judge=np.concatenate(judge),
        swapped=np.zeros(len(ends), dtype=np.bool_),
        offsets=np.arange(queries + 1) * count,
        sizes=np.full(queries, SIZE, dtype=np.int64),
    )
    return columns, truth


@pytest.mark.parametrize("error", [0.0, 1.0])
def test_errors_on_candidates_are_measured(error: float) -> None:
    columns, _ = votes(error * np.diag([1.0, 0.0, 0.0]))
    found = fit_with_judges(columns, prior_precision=1.0)
    measured = shared_errors(
        columns,
        found.fit.theta,
        judges=3,
        sharpness=found.judges.sharpness,
        position_bias=found.judges.position_bias,
        dispersion=found.judges.dispersion,
        slope=SLOPE,
    )
    assert np.linalg.eigvalsh(measured).min() > -1e-9
    if error:
        assert measured[0, 0] > 0.03 and measured[0, 0] > 2.0 * max(measured[1, 1], measured[2, 2])
    else:
        assert np.trace(measured) < 0.03


def test_a_judge_that_guesses_does_not_seem_sharp() -> None:
    columns, _ = votes(np.zeros((3, 3)), queries=15, guesses=True)
    sharpness = fit_with_judges(columns, prior_precision=1.0).judges.sharpness
    assert abs(sharpness[2]) < 0.3 and sharpness[:2].min() > 0.9


def test_a_measured_panel_needs_enough_votes_of_every_judge() -> None:
    assert panel().is_measured
    assert not replace(panel(), votes=np.array([1000, LEAST_VOTES - 1, 1000])).is_measured


def test_pilot_gives_each_judge_votes_enough_and_no_more() -> None:
    unknown = panel(votes=[0, 0, 0], sharpness_stderr=[1.0, 1.0, 1.0])
    share = unknown.effective_price**-0.5
    least = float(share.min() / share.sum())
    count = pilot_queries(unknown, np.full(1000, 100))
    assert (count - 1) * 100 * least < PILOT_VOTES <= count * 100 * least
    assert pilot_queries(unknown, np.full(1000, 50)) > count, "smaller queries, more of them"
    assert pilot_queries(unknown, np.full(3, 100)) == 3, "there are no more"
    assert pilot_queries(panel(), np.full(1000, 100)) == 1000, "the judges are measured"
    assert pilot_queries(panel(price=[1.0], votes=[0]), np.full(1000, 100)) == 1000, "there is no choice"
