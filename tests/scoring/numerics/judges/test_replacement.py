"""The Alternative Annotator Test against a direct computation, item by item, with scipy's test and correction."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control, ttest_1samp

from scoring.numerics.judges.replacement import replacement_test
from scoring.numerics.measures.metrics import MetricInput


def labels(rng: np.random.Generator, truth: np.ndarray, right: float) -> np.ndarray:
    wrong = rng.choice([-1.0, 0.0, 1.0, 2.0], len(truth))
    return np.where(rng.random(len(truth)) < right, truth, wrong)


@pytest.mark.parametrize("seed", range(4))
def test_it_equals_a_direct_computation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.choice([-1.0, 0.0, 1.0, 2.0], 120)
    people = np.array([labels(rng, truth, right) for right in (0.6, 0.7, 0.8, 0.9)])
    people[rng.random(people.shape) < 0.3] = np.nan
    judge = labels(rng, truth, 0.75)
    judge[rng.random(120) < 0.1] = np.nan
    found = replacement_test(judge, people, epsilon=0.15)
    p_values, advantages = [], []
    for person in range(4):
        judge_wins, person_wins = [], []
        for item in range(120):
            others = [people[j, item] for j in range(4) if j != person and people[j, item] == people[j, item]]
            if not others or judge[item] != judge[item] or people[person, item] != people[person, item]:
                continue
            of_judge = sum(each == judge[item] for each in others) / len(others)
            of_person = sum(each == people[person, item] for each in others) / len(others)
            judge_wins.append(float(of_judge >= of_person))
            person_wins.append(float(of_person >= of_judge))
        difference = np.array(person_wins) - np.array(judge_wins)
        p_values.append(float(ttest_1samp(difference, 0.15, alternative="less").pvalue))
        advantages.append(np.mean(judge_wins))
        assert found.people[person].items == len(judge_wins)
        assert found.people[person].person_wins == pytest.approx(np.mean(person_wins))
    adjusted = false_discovery_control(p_values, method="by")
    assert [each.p_value for each in found.people] == pytest.approx(p_values)
    assert [each.adjusted for each in found.people] == pytest.approx(adjusted.tolist())
    assert found.winning_rate == pytest.approx(np.mean(adjusted <= 0.05))
    assert found.advantage == pytest.approx(np.mean(advantages))


def test_a_judge_better_than_people_passes_and_a_guessing_one_fails() -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice([-1.0, 1.0], 300)
    people = np.array([labels(rng, truth, 0.7) for _ in range(5)])
    assert replacement_test(labels(rng, truth, 0.95), people).passes
    guessing = replacement_test(labels(rng, truth, 0.0), people, epsilon=0.1)
    assert guessing.passes is False and guessing.winning_rate == 0.0 and guessing.items_needed is None


def test_with_too_few_answers_it_says_how_many_are_needed() -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice([-1.0, 1.0], 20)
    people = np.array([labels(rng, truth, 0.8) for _ in range(3)])
    found = replacement_test(labels(rng, truth, 0.8), people)
    assert found.winning_rate is None and found.passes is None and found.people == ()
    assert [items for _, items in found.left_out] == [20, 20, 20]
    assert found.items_needed is not None and found.items_needed >= 30
    two = replacement_test(labels(rng, np.repeat(truth, 5), 0.8), np.repeat(people[:2], 5, axis=1))
    assert two.winning_rate is None and len(two.people) == 2
    nobody = np.full(20, np.nan)
    needed = {replacement_test(nobody, people[:count]).items_needed for count in (0, 1, 2, 3)}
    assert len(needed) == 1, "the test needs three people, however many there are"
    assert [replacement_test(nobody, people, epsilon=epsilon).items_needed for epsilon in (0.0, 1e-320, 1e-4)] == [
        None
    ] * 3
    needed_at = replacement_test(nobody, people, epsilon=0.005).items_needed
    assert needed_at is not None and 100_000 < needed_at < 1_000_000
    with pytest.raises(MetricInput, match="epsilon"):
        replacement_test(truth, people, epsilon=1.0)
