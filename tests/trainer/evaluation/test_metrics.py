"""How well orders agree with grades and with Elo, on queries small enough to check by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import pytrec_eval

from scoring.numerics.measures.rankings import UnknownMetric
from tests.factories.frozen import a_query
from trainer.evaluation import rankers
from trainer.evaluation.metrics import (
    BadOrder,
    NothingToMeasure,
    difference,
    intervals,
    measurable,
    measure,
    parse_measures,
    with_missing,
)
from trainer.evaluation.rankers import BM25, Cosine, Elo, FirstStage, Strengths

NAN = float("nan")


def no_progress(done: int, total: int) -> None:
    assert 0 <= done <= total


def test_figures_against_grades_equal_those_of_trec_eval() -> None:
    rng = np.random.default_rng(5)
    queries = [a_query(f"q{i}", grades=rng.integers(0, 4, 30).tolist()) for i in range(20)]
    scores = [rng.integers(0, 12, 30).astype(np.float64) for _ in queries]
    measured = measure(queries, scores, "grades")
    qrels = {q.id: {d: int(g) for d, g in zip(q.document_ids, q.grades, strict=True)} for q in queries}
    run = {
        q.id: {d: float(v) for d, v in zip(q.document_ids, s, strict=True)}
        for q, s in zip(queries, scores, strict=True)
    }
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recall.10", "recip_rank"}).evaluate(run)
    for row, name in enumerate(measured.query_ids):
        assert measured.values["ndcg@10"][row] == pytest.approx(theirs[name]["ndcg_cut_10"])
        assert measured.values["recall@10"][row] == pytest.approx(theirs[name]["recall_10"])
        assert measured.values["mrr"][row] == pytest.approx(theirs[name]["recip_rank"])


def test_relevant_documents_that_are_no_candidates_count_as_in_trec_eval() -> None:
    query = replace(a_query(grades=[0.0, 2.0, 1.0]), other_grades=np.array([3.0, 0.0, 1.0]))
    measured = measure([query], [np.array([3.0, 2.0, 1.0])], "grades")
    qrels = {d: int(g) for d, g in zip(query.document_ids, query.grades, strict=True)} | {"x": 3, "y": 0, "z": 1}
    run = {d: 3.0 - place for place, d in enumerate(query.document_ids)}
    theirs = pytrec_eval.RelevanceEvaluator({"q": qrels}, {"ndcg_cut.10", "recall.10"}).evaluate({"q": run})["q"]
    assert measured.values["ndcg@10"][0] == pytest.approx(theirs["ndcg_cut_10"])
    assert measured.values["recall@10"][0] == pytest.approx(theirs["recall_10"]) == 0.5


def test_elo_itself_is_perfect_against_elo_and_its_reverse_is_not() -> None:
    queries = [a_query(grades=[NAN] * 40, elo=(1500.0 + 20.0 * np.arange(40)).tolist())]
    perfect = measure(queries, Elo().scores(queries, no_progress), "elo")
    reverse = measure(queries, [-queries[0].elo], "elo")
    assert [perfect.values[m][0] for m in ("ndcg@10", "recall@10", "mrr")] == [1.0, 1.0, 1.0]
    assert reverse.values["recall@10"][0] == 0.0
    assert reverse.values["mrr"][0] == pytest.approx(1 / 40)
    assert reverse.values["ndcg@10"][0] < 0.7


def test_documents_that_were_never_compared_gain_nothing_against_elo() -> None:
    query = a_query(grades=[NAN] * 4, elo=[1700.0, NAN, 1300.0, NAN])
    measured = measure([query], [np.array([1.0, 9.0, 0.0, 8.0])], "elo")
    assert measured.values["mrr"][0] == pytest.approx(1 / 3)


def test_candidates_that_were_never_compared_move_no_measure_against_elo() -> None:
    names = ("ndcg@10", "recall@10", "recall@3", "precision@3", "map", "mrr", "rbp", "err", "success@1")
    elo, scores = [1700.0, 1650.0, 1500.0, 1450.0, 1400.0, 1300.0], [1.0, 6.0, 5.0, 3.0, 4.0, 2.0]
    before = measure([a_query(grades=[NAN] * 6, elo=elo)], [np.array(scores)], "elo", names)
    more = a_query(grades=[NAN] * 16, elo=elo + [NAN] * 10)
    after = measure([more], [np.append(scores, np.full(10, NAN))], "elo", names)
    for name in names:
        assert after.values[name][0] == pytest.approx(before.values[name][0], abs=1e-12), name


def test_a_document_without_a_score_is_not_retrieved() -> None:
    query = a_query(grades=[0.0, 0.0, 0.0, 2.0, 1.0])
    names = ("ndcg@10", "recall@10", "mrr", "map", "success@10")
    only_the_first = measure([query], [np.array([1.0, NAN, NAN, NAN, NAN])], "grades", names)
    assert [only_the_first.values[name][0] for name in names] == [0.0] * 5
    # A judge that knows one of four documents gets no credit for the others.
    compared = a_query(grades=[NAN] * 4, elo=[1400.0, 1500.0, 1600.0, 1700.0])
    assert measure([compared], [np.array([1.0, NAN, NAN, NAN])], "elo").values["recall@10"][0] == 0.0


@pytest.mark.parametrize("first_key", [1, 90, 95])
def test_ties_do_not_depend_on_primary_keys(first_key: int) -> None:
    """Twelve documents of equal score, only d12 relevant; keys that sort differently as text."""
    query = replace(
        a_query(grades=[0.0] * 11 + [1.0]), candidate_ids=np.arange(first_key, first_key + 12, dtype=np.int64)
    )
    values = measure([query], [np.ones(12)], "grades").values
    theirs = pytrec_eval.RelevanceEvaluator({"q": {"d12": 1}}, {"ndcg_cut.10"}).evaluate(
        {"q": dict.fromkeys(query.document_ids, 1.0)}
    )
    assert values["ndcg@10"][0] == pytest.approx(theirs["q"]["ndcg_cut_10"])
    assert values["mrr"][0] == pytest.approx(1 / 9)  # d9 ... d2, d12, d11, d10, d1


def test_documents_of_equal_elo_are_equally_relevant() -> None:
    query = a_query(grades=[NAN] * 4, elo=[1600.0, 1600.0, 1400.0, 1300.0])
    for scores in ([2.0, 1.0, 0.0, -1.0], [1.0, 2.0, 0.0, -1.0]):
        assert measure([query], [np.array(scores)], "elo").values["mrr"][0] == 1.0


def test_a_query_without_relevant_documents_counts_as_zero() -> None:
    relevant, irrelevant, ungraded = (
        a_query("q1", grades=[0.0, 1.0]),
        a_query("q2", grades=[NAN, 0.0]),
        a_query("q3", grades=[NAN, NAN]),
    )
    assert measurable([relevant, irrelevant, ungraded], "grades") == [relevant, irrelevant]
    values = measure([relevant, irrelevant], [np.array([0.0, 1.0])] * 2, "grades").values["ndcg@10"]
    assert values.tolist() == [1.0, 0.0]
    with pytest.raises(NothingToMeasure, match="import grades"):
        measurable([irrelevant, ungraded], "grades")
    with pytest.raises(NothingToMeasure, match="different Elo"):
        measurable([a_query(grades=[1.0, 0.0], elo=[1500.0, 1500.0])], "elo")


def test_missing_queries_count_as_zero_by_choice() -> None:
    measured = measure([a_query("q1", grades=[1.0, 0.0], domain="law")], [np.array([1.0, 0.0])], "grades")
    whole = with_missing(measured, {"q2": "code"})
    assert (whole.query_ids, whole.domains) == (("q1", "q2"), ("law", "code"))
    assert whole.values["ndcg@10"].tolist() == [1.0, 0.0]


def test_measures_are_chosen_by_name() -> None:
    assert parse_measures(" map, NDCG@5,map ") == ("map", "ndcg@5")
    assert parse_measures("") == ("ndcg@10", "recall@10", "mrr")
    with pytest.raises(UnknownMetric, match="ndcg@2000"):
        parse_measures("map,ndcg@2000")


def test_an_order_that_does_not_fit_is_refused() -> None:
    query = a_query(grades=[0.0, 1.0])
    with pytest.raises(BadOrder, match="one per query"):
        measure([query], [], "grades")
    with pytest.raises(BadOrder, match="for 2 documents"):
        measure([query], [np.array([1.0, 2.0, 3.0])], "grades")
    with pytest.raises(BadOrder, match="finite"):
        measure([query], [np.array([1.0, np.inf])], "grades")


def test_differences_are_paired_over_shared_queries() -> None:
    queries = [a_query(f"q{i}", grades=[0.0, 1.0, 0.0, 2.0]) for i in range(30)]
    good = measure(queries, [query.grades for query in queries], "grades")
    bad = measure(queries[10:], [-query.grades for query in queries[10:]], "grades")
    test = difference(good, bad)
    assert test is not None
    assert test.difference.count == 20
    assert test.difference.low > 0.0
    assert test.p_value < 0.01
    assert difference(good, measure([a_query("other", grades=[0.0, 1.0])], [np.zeros(2)], "grades")) is None


def test_domains_are_measured_apart() -> None:
    queries = [a_query("q1", grades=[1.0, 0.0], domain="law"), a_query("q2", grades=[1.0, 0.0], domain="code")]
    measured = measure(queries, [np.array([1.0, 0.0]), np.array([0.0, 1.0])], "grades")
    assert intervals(measured.of_domain("law"))["mrr"].estimate == 1.0
    assert intervals(measured.of_domain("code"))["mrr"].estimate == 0.5
    assert intervals(measured)["mrr"].count == 2
    without = measure(
        [queries[0], replace(queries[1], domain="")], [np.array([1.0, 0.0]), np.array([0.0, 1.0])], "grades"
    )
    assert intervals(without.of_domain(""))["mrr"].estimate == 0.5, "of the queries without a domain, not of all"


def test_given_orders_read_what_stands() -> None:
    query = a_query(grades=[0.0, 1.0, 0.0])
    assert FirstStage().scores([query], no_progress)[0].tolist() == [-1.0, -2.0, -3.0]
    strengths = Strengths({2: 0.7}).scores([query], no_progress)[0]
    assert np.isnan(strengths).tolist() == [True, False, True]
    assert np.argmax(BM25().scores([a_query(grades=[0.0, 0.0])], no_progress)[0]) in (0, 1)


class CountingEmbedder:
    """Unit vectors by the length of the text; remembers what it was given."""

    def __init__(self) -> None:
        self.documents: list[str] = []

    def encode(self, texts: list[str], *, role: str, threads: int) -> np.ndarray:
        self.documents += texts if role == "document" else []
        angles = np.array([len(text) for text in texts], dtype=np.float32)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)


@pytest.mark.parametrize(("most", "together"), [(50_000, 1), (50_000, 4), (50_000, 400), (3, 1)])
def test_the_cosine_embeds_a_text_of_several_queries_once(
    most: int, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = CountingEmbedder()
    monkeypatch.setattr(rankers, "load_embedder", lambda model: embedder)
    monkeypatch.setattr(rankers, "MOST_VECTORS", most)
    monkeypatch.setattr(rankers, "TEXTS_TOGETHER", together)
    queries = [a_query(name=name, grades=[1] * count) for name, count in (("a", 3), ("bb", 12), ("ccc", 5))]
    found = Cosine().scores(queries, no_progress)
    for query, scores in zip(queries, found, strict=True):
        expected = [np.cos(len(text) - len(query.text)) for text in query.documents]
        assert scores == pytest.approx(expected, abs=1e-5)
    assert len(embedder.documents) == (12 if most > 3 else 17)
