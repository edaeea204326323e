"""Measures of rankings equal those of trec_eval, ties, missing documents, negative and fractional grades included."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.numerics.measures.metrics import MetricInput
from scoring.numerics.measures.rankings import (
    MOST_CUT_OFF,
    Measure,
    Ranked,
    UnknownMetric,
    evaluate_run,
    ndcg,
    ranks_of,
)

EXACT = 1e-12
quickly = settings(max_examples=60, deadline=None)
seeds = st.integers(0, 100_000)
Run = dict[str, dict[str, float]]
Grades = dict[str, dict[str, int]]
CUTS = (1, 3, 10, 100, MOST_CUT_OFF)


def random_run(seed: int) -> tuple[Run, Grades]:
    """Rankings with ties (some only as 32-bit floats), missing documents and queries, negative grades, odd ids.

    One query has no relevant document, one is only in the run and one only in the grades.
    """
    rng = np.random.default_rng(seed)
    names = [f"{mark}{i}" for i in range(30) for mark in ("d", "D-", "é", "\ue000", "\U00010000")]
    run: Run = {}
    grades: Grades = {}
    for query in ("q1", "q10", "q2", "nothing", "only-run", "only-grades"):
        order = [names[i] for i in rng.permutation(len(names))]
        near = rng.choice([0.0, 1e-5], len(order))
        scores = rng.integers(0, 5, len(order)) * rng.choice([1.0, 1500.0]) + near
        if query != "only-grades":
            run[query] = dict(zip(order[: rng.integers(1, 120)], scores.tolist(), strict=False))
        if query != "only-run":
            low, high = (-2, 1) if query == "nothing" else (-2, 4)
            grades[query] = {each: int(rng.integers(low, high)) for each in order[rng.integers(0, 100) :]}
    return run, grades


def of_trec_eval(run: Run, grades: Grades, names: set[str]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = pytrec_eval.RelevanceEvaluator(grades, names).evaluate(run)
    return found


@quickly
@given(seed=seeds)
def test_every_measure_of_trec_eval_is_equal_to_the_last_digit(seed: int) -> None:
    run, grades = random_run(seed)
    ours = {"ndcg": "ndcg", "map": "map", "mrr": "recip_rank"}
    cut_measures = {"ndcg": "ndcg_cut", "recall": "recall", "precision": "P", "map": "map_cut", "success": "success"}
    ours |= {f"{name}@{cut}": f"{theirs}_{cut}" for name, theirs in cut_measures.items() for cut in CUTS}
    cuts = ",".join(map(str, CUTS))
    theirs = of_trec_eval(run, grades, {"ndcg", "map", "recip_rank"} | {f"{n}.{cuts}" for n in cut_measures.values()})
    found = evaluate_run(run, grades, list(ours))
    for name, of_trec in ours.items():
        expected = {query: values[of_trec] for query, values in theirs.items()}
        assert found[name] == pytest.approx(expected, abs=EXACT), name
    assert set(found["map"]) == {"q1", "q10", "q2", "nothing"}
    assert found["map"]["nothing"] == 0.0


@quickly
@given(seed=seeds)
def test_exponential_gain_is_the_linear_gain_of_transformed_grades(seed: int) -> None:
    run, grades = random_run(seed)
    gains = {query: {d: 2 ** max(grade, 0) - 1 for d, grade in own.items()} for query, own in grades.items()}
    theirs = of_trec_eval(run, gains, {"ndcg_cut.10"})
    found = evaluate_run(run, grades, ["ndcg_exp@10"])["ndcg_exp@10"]
    assert found == pytest.approx({query: values["ndcg_cut_10"] for query, values in theirs.items()}, abs=EXACT)


@quickly
@given(seed=seeds, scale=st.sampled_from([2.0, 4.0, 10.0]))
def test_fractional_grades_keep_their_fractions(seed: int, scale: float) -> None:
    run, grades = random_run(seed)
    fractions = {query: {d: grade / scale for d, grade in own.items()} for query, own in grades.items()}
    names = {"ndcg@10": "ndcg_cut_10", "recall@10": "recall_10", "map": "map"}
    theirs = of_trec_eval(run, grades, {"ndcg_cut.10", "recall.10", "map"})
    found = evaluate_run(run, fractions, list(names), relevant_from=1.0 / scale)
    for name, of_trec in names.items():
        expected = {query: values[of_trec] for query, values in theirs.items()}
        assert found[name] == pytest.approx(expected, abs=EXACT), name


@quickly
@given(seed=seeds)
def test_complete_counts_queries_that_the_run_lacks_as_zero(seed: int) -> None:
    run, grades = random_run(seed)
    some = evaluate_run(run, grades, ["ndcg@10"])["ndcg@10"]
    whole = evaluate_run(run, grades, ["ndcg@10"], complete=True)["ndcg@10"]
    assert whole == some | {"only-grades": 0.0}


@quickly
@given(seed=seeds)
def test_the_order_of_rows_and_the_names_of_other_queries_do_not_matter(seed: int) -> None:
    run, grades = random_run(seed)
    names = [name if name in ("map", "mrr", "rbp", "err", "ndcg") else f"{name}@10" for name in
             ("ndcg", "ndcg_exp", "recall", "precision", "map", "mrr", "rbp", "err", "success")]  # fmt: skip
    turned = {query: dict(reversed(own.items())) for query, own in reversed(run.items())}
    again = evaluate_run(turned, {query: dict(reversed(own.items())) for query, own in grades.items()}, names)
    for name, values in evaluate_run(run, grades, names).items():
        assert again[name] == pytest.approx(values, abs=EXACT)
        assert all(0.0 <= value <= 1.0 for value in values.values())


def by_hand(measure: str, ranked: list[int], *, highest: float | None = None) -> float:
    ranks = np.arange(1, len(ranked) + 1)
    return Measure.parse(measure).of(Ranked.of_grades(ranks, ranked, highest=highest))


def test_rank_biased_precision_and_expected_reciprocal_rank_by_hand() -> None:
    assert by_hand("rbp", [1, 0, 2]) == pytest.approx(0.2 * (1 + 0.8**2))
    assert by_hand("rbp.5", [1, 0, 2]) == pytest.approx(0.5 * (1 + 0.5**2))
    assert by_hand("rbp.95@1", [1, 0, 2]) == pytest.approx(0.05)
    first, third = 1 / 4, 3 / 4
    assert by_hand("err", [1, 0, 2]) == pytest.approx(first + (1 - first) * third / 3)
    assert by_hand("err@2", [1, 0, 2]) == pytest.approx(first)
    assert by_hand("err", [1, 0, 2], highest=4.0) == pytest.approx(1 / 16 + (15 / 16) * (3 / 16) / 3)
    assert by_hand("err", [32767, 0, 2000]) == by_hand("ndcg_exp", [32767, 0, 2000]) == 1.0, "2^32767 is no float"


def test_equal_scores_are_ordered_by_id_and_a_missing_one_is_not_retrieved() -> None:
    assert ranks_of([1.0, 1.0, np.nan, 2.0], ["d2", "d10", "d9", "a"]).tolist() == [2, 3, 0, 1]
    with pytest.raises(MetricInput, match="for 2 ids"):
        ranks_of([1.0], ["a", "b"])
    with pytest.raises(MetricInput, match="finite"):
        ranks_of([np.inf], ["a"])


def test_without_ids_ties_share_their_expected_gain() -> None:
    rng = np.random.default_rng(3)
    scores, grades = rng.integers(0, 3, 9).astype(float), rng.integers(0, 4, 9).astype(float)
    orders = [rng.permutation(9) for _ in range(4000)]
    ids = [f"{i}" for i in range(9)]
    measure: Callable[[np.ndarray], float] = lambda o: Measure("ndcg", 5).of(  # noqa: E731
        Ranked.of_grades(ranks_of(scores[o], ids), grades[o])
    )
    assert ndcg(scores, grades, 5) == pytest.approx(np.mean([measure(order) for order in orders]), abs=0.01)
    assert ndcg(scores[orders[0]], grades[orders[0]], 5) == pytest.approx(ndcg(scores, grades, 5), abs=EXACT)
    assert ndcg([1.0, 1.0], [0.0, 0.0]) == 0.0
    with pytest.raises(MetricInput, match="expected 'linear'"):
        ndcg([1.0], [1.0], gain="cubic")  # type: ignore[arg-type]
    with pytest.raises(MetricInput, match="finite"):
        ndcg([np.nan], [1.0])


@pytest.mark.parametrize(
    "name",
    ["ndcg@0", "ndcg@1001", "ndcg@x", "recall", "precision", "success", "bpref@10", "", "ndcg.5@10", "rbp.0", "rbp.@3"],
)
def test_an_unknown_measure_is_named_with_what_is_expected(name: str) -> None:
    with pytest.raises(UnknownMetric, match="cut-off from 1 to 1000"):
        evaluate_run({}, {}, [name])


def test_a_measure_has_one_spelling_and_a_heading() -> None:
    for text in ("ndcg@10", "ndcg_exp@1000", "map", "rbp.95@100", "success@1"):
        assert str(Measure.parse(text)) == text
    assert str(Measure.parse(" NDCG@7 ")) == "ndcg@7"
    assert [Measure.parse(text).label for text in ("ndcg@10", "rbp.95", "mrr")] == ["NDCG@10", "RBP.95", "MRR"]
    assert Measure.parse("rbp.80") == Measure.parse("rbp.8")
