"""The judges that need no network: BM25, query likelihood and embeddings, without a database."""

from __future__ import annotations

import collections
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from labeling.plugins import Judge, get_plugin
from labeling.records import Comparison, Failure, TextRecord, Verdict
from labeling.retrieval.tokenize import CollectionStatistics
from workers.judges.embedding import EmbeddingJudge
from workers.judges.lexical import BM25Judge, QueryLikelihoodJudge, query_likelihood_scores
from workers.judges.score_difference import NotPrepared, Recent, ScoreDifferenceJudge, lookup_or_compute

NAMES = ["bm25", "query-likelihood", "embedding"]


class Texts:
    """A collection in memory; counts how often candidates were asked for."""

    def __init__(self, queries: dict[int, str], candidates: dict[int, dict[int, str]]) -> None:
        self.queries = queries
        self.by_query = candidates
        self.asked: collections.Counter[int] = collections.Counter()

    def documents(self) -> Iterator[TextRecord]:
        texts = {number: text for documents in self.by_query.values() for number, text in documents.items()}
        return iter([TextRecord(number, text) for number, text in sorted(texts.items())])

    def candidates(self, query_id: int) -> Sequence[TextRecord]:
        self.asked[query_id] += 1
        return [TextRecord(number, text) for number, text in sorted(self.by_query[query_id].items())]

    def query(self, query_id: int) -> TextRecord:
        return TextRecord(query_id, self.queries[query_id])

    def comparison(self, a: tuple[int, int], b: tuple[int, int], *, swapped: bool = False) -> Comparison:
        """A question about two (query id, document id)."""
        return Comparison(
            key=0,
            query_a=self.query(a[0]),
            query_b=self.query(b[0]),
            a=TextRecord(a[1], self.by_query[a[0]].get(a[1], "?")),
            b=TextRecord(b[1], self.by_query[b[0]].get(b[1], "?")),
            swapped=swapped,
        )


@pytest.fixture
def texts() -> Texts:
    return Texts(
        queries={1: "goldfish in ponds", 2: "how to cook soup", 3: "goldfish"},
        candidates={
            1: {11: "Goldfish grow in ponds.", 12: "Some fish live in ponds.", 13: "File your tax return."},
            2: {21: "Cook the soup slowly.", 22: "Tomato soup.", 23: "A tax on goldfish ponds."},
            3: {31: "tax return", 32: "tax return"},
        },
    )


def prepared(name: str, texts: Texts) -> Judge:
    judge = get_plugin("judge", name)()
    assert isinstance(judge, Judge)
    judge.prepare(texts)
    return judge


def preference(judge: Judge, comparison: Comparison) -> float:
    [answer] = judge.judge([comparison])
    assert isinstance(answer, Verdict) and answer.preference is not None
    return answer.preference


class FixedScores(ScoreDifferenceJudge):
    """Scores a document by the table it is given."""

    name = "fixed"
    label = "Fixed scores"
    table: dict[int, float] = {}

    def score(self, query: TextRecord, documents: Sequence[TextRecord]) -> np.ndarray:
        return np.array([self.table[document.id] for document in documents])


@pytest.fixture
def fixed(texts: Texts) -> FixedScores:
    judge = FixedScores()
    judge.table = {11: 7.0, 12: 4.0, 13: 1.0, 21: 100.0, 22: 0.0, 23: 50.0, 31: 3.0, 32: 3.0}
    judge.prepare(texts)
    return judge


# --- the frame ---------------------------------------------------------------------------


def test_preference_is_the_sigmoid_of_the_standardised_difference(fixed: FixedScores, texts: Texts) -> None:
    deviation = math.sqrt(6.0)  # of 7, 4, 1
    expected = 1 / (1 + math.exp(-1.5 * (7.0 - 4.0) / deviation))
    assert preference(fixed, texts.comparison((1, 11), (1, 12))) == pytest.approx(expected)


def test_cross_query_pair_measures_each_document_by_its_own_query(fixed: FixedScores, texts: Texts) -> None:
    assert preference(fixed, texts.comparison((1, 12), (2, 23))) == pytest.approx(0.5)
    assert preference(fixed, texts.comparison((1, 11), (2, 21))) == pytest.approx(0.5)
    z = math.sqrt(1.5)  # of the best of three equally spaced scores
    expected = 1 / (1 + math.exp(-1.5 * 2 * z))
    assert preference(fixed, texts.comparison((1, 11), (2, 22))) == pytest.approx(expected)


def test_equal_scores_are_a_tie(fixed: FixedScores, texts: Texts) -> None:
    assert preference(fixed, texts.comparison((3, 31), (3, 32))) == 0.5
    assert preference(fixed, texts.comparison((3, 31), (1, 11))) == 0.5


def test_scores_are_computed_once_a_query(fixed: FixedScores, texts: Texts) -> None:
    fixed.judge([texts.comparison((1, 11), (1, 12)), texts.comparison((1, 12), (1, 13))])
    fixed.judge([texts.comparison((1, 11), (1, 13))])
    assert texts.asked == {1: 1}


def test_candidate_that_came_later_is_scored(fixed: FixedScores, texts: Texts) -> None:
    fixed.judge([texts.comparison((1, 11), (1, 12))])
    texts.by_query[1][14] = "Koi."
    fixed.table[14] = 9.0
    assert preference(fixed, texts.comparison((1, 14), (1, 11))) > 0.5
    assert texts.asked == {1: 2}


def test_document_that_is_no_candidate_is_a_failure_and_not_a_vote(fixed: FixedScores, texts: Texts) -> None:
    [failure, verdict] = fixed.judge([texts.comparison((1, 99), (1, 12)), texts.comparison((1, 11), (1, 12))])
    assert isinstance(failure, Failure) and not failure.retryable
    assert "document 99 is not a candidate of query 1" in failure.message
    assert isinstance(verdict, Verdict)


def test_unprepared_judge_says_what_to_call(texts: Texts) -> None:
    with pytest.raises(NotPrepared, match="call prepare"):
        BM25Judge().judge([texts.comparison((1, 11), (1, 12))])


def test_cache_forgets_what_was_used_longest_ago() -> None:
    cache: Recent[int, str] = Recent(2)
    cache.put(1, "a")
    cache.put(2, "b")
    assert cache.get(1) == "a"
    cache.put(3, "c")
    assert (cache.get(1), cache.get(2), cache.get(3), len(cache)) == ("a", None, "c", 2)


def test_cache_smaller_than_a_query_still_answers_in_order() -> None:
    cache: Recent[int, str] = Recent(2)
    records = [TextRecord(number, str(number)) for number in (5, 1, 4, 2)]
    for _ in range(2):
        assert lookup_or_compute(cache, records, lambda missing: [r.text for r in missing]) == ["5", "1", "4", "2"]
    assert len(cache) == 2


# --- the three ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_relevant_document_is_preferred(name: str, texts: Texts) -> None:
    judge = prepared(name, texts)
    assert preference(judge, texts.comparison((1, 11), (1, 13))) > 0.7
    assert preference(judge, texts.comparison((2, 23), (2, 21))) < 0.3
    assert preference(judge, texts.comparison((1, 11), (2, 23))) > 0.7


@pytest.mark.parametrize("name", NAMES)
def test_sides_are_complementary_and_order_changes_nothing(name: str, texts: Texts) -> None:
    judge = prepared(name, texts)
    straight = preference(judge, texts.comparison((1, 11), (1, 12)))
    assert preference(judge, texts.comparison((1, 12), (1, 11))) == pytest.approx(1 - straight)
    assert preference(judge, texts.comparison((1, 11), (1, 12), swapped=True)) == straight


@pytest.mark.parametrize("name", NAMES)
def test_same_text_twice_is_a_tie(name: str, texts: Texts) -> None:
    assert preference(prepared(name, texts), texts.comparison((3, 31), (3, 32))) == 0.5


@pytest.mark.parametrize("name", NAMES)
def test_empty_text_and_wordless_query_get_an_answer(name: str) -> None:
    texts = Texts({1: "??", 2: "goldfish"}, {1: {11: "tax", 12: "soup"}, 2: {21: "", 22: "goldfish", 23: "..."}})
    judge = prepared(name, texts)
    assert 0.0 <= preference(judge, texts.comparison((1, 11), (1, 12))) <= 1.0
    assert preference(judge, texts.comparison((2, 22), (2, 21))) > 0.5


@pytest.mark.parametrize("name", NAMES)
def test_provenance_names_a_revision_and_no_prompt(name: str) -> None:
    judge = get_plugin("judge", name)()
    assert isinstance(judge, Judge)
    assert judge.model_revision and judge.prompt_hash == ""
    assert judge.batch_size == 2048


def test_query_likelihood_follows_dirichlet_smoothing() -> None:
    statistics = CollectionStatistics.of(["pond fish", "soup soup"])
    scores = query_likelihood_scores("pond zebra", ["pond fish", "soup soup"], statistics=statistics, mu=8.0)
    assert scores == pytest.approx([math.log((1 + 8 * 0.25) / 10), math.log((0 + 8 * 0.25) / 10)])


def test_smoothing_is_an_option(texts: Texts) -> None:
    little, much = (QueryLikelihoodJudge.from_dict({"mu": mu}) for mu in (1.0, 100000.0))
    query, documents = texts.query(1), texts.candidates(1)
    spreads = []
    for judge in (little, much):
        assert isinstance(judge, QueryLikelihoodJudge)
        judge.prepare(texts)
        spreads.append(float(np.std(judge.score(query, documents))))
    assert spreads[0] > 10 * spreads[1]


def test_document_of_two_queries_is_embedded_once(texts: Texts) -> None:
    texts.by_query[2][11] = texts.by_query[1][11]
    judge = EmbeddingJudge()
    judge.prepare(texts)
    judge.judge([texts.comparison((1, 11), (1, 12)), texts.comparison((2, 21), (2, 22))])
    assert len(judge._vectors) == 6  # three of each query, and one of them shared


# --- on real passages --------------------------------------------------------------------

DL19 = Path(os.environ.get("ZELO_DATA", "/nonexistent")) / "trec_dl19"
QUERIES_OF_DL19 = 43


@pytest.fixture(scope="module")
def dl19() -> tuple[Texts, dict[int, dict[int, int]]]:
    if not DL19.is_dir():
        pytest.skip("ZELO_DATA does not name a folder with trec_dl19")
    queries, candidates = {}, {}
    for line in (DL19 / "candidates_judged100.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        number = int(row["query"]["id"])
        queries[number] = row["query"]["query"]
        candidates[number] = {int(document["id"]): document["content"] for document in row["documents"]}
    grades: dict[int, dict[int, int]] = collections.defaultdict(dict)
    for line in (DL19 / "qrels.txt").read_text(encoding="utf-8").splitlines():
        query, _, document, grade = line.split()
        grades[int(query)][int(document)] = int(grade)
    return Texts(queries, candidates), grades


def ndcg_at_10(order: list[int], grades: dict[int, int]) -> float:
    """Linear gain; the ideal order is that of the candidates."""
    discounts = 1 / np.log2(np.arange(2, 12))
    gains = np.array([grades.get(document, 0) for document in order])
    return float(gains[:10] @ discounts[: len(gains)] / (np.sort(gains)[::-1][:10] @ discounts[: len(gains)]))


@pytest.mark.parametrize(("judge", "expected"), [(BM25Judge(), 0.566), (QueryLikelihoodJudge(), 0.548)])
def test_lexical_judges_reach_the_known_quality_on_dl19(
    judge: ScoreDifferenceJudge, expected: float, dl19: tuple[Texts, dict[int, dict[int, int]]]
) -> None:
    texts, grades = dl19
    judge.prepare(texts)
    quality = []
    for query_id, text in texts.queries.items():
        documents = texts.candidates(query_id)
        scores = judge.score(TextRecord(query_id, text), documents)
        order = [documents[row].id for row in np.argsort(-scores, kind="stable")]
        quality.append(ndcg_at_10(order, grades[query_id]))
    assert len(quality) == QUERIES_OF_DL19
    assert float(np.mean(quality)) == pytest.approx(expected, abs=0.02)
