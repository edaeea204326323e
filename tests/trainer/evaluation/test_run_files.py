"""Run files in the variants that toolkits write, and what each refusal names."""

from __future__ import annotations

import gzip
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from labeling.importing.lines import RowError
from tests.factories.frozen import a_query
from trainer.evaluation.metrics import EvaluationQuery, measurable, measure
from trainer.evaluation.rankers import RunFile
from trainer.evaluation.run_files import Run, read_run

EXPECTED = {"q1": {"d2": 7.5, "d1": 3.25}, "q9": {"d1": 1.0}}
TREC = b"q1 Q0 d2 1 7.5 mine\nq1 Q0 d1 2 3.25 mine\nq9 Q0 d1 1 1 mine\n"


def read(content: bytes) -> dict[str, dict[str, float]]:
    return read_run(io.BytesIO(content))


@pytest.mark.parametrize(
    "content",
    [
        TREC,
        TREC.replace(b" ", b"\t"),
        TREC.replace(b" ", b"   "),
        TREC.replace(b"\n", b"\r\n"),
        TREC.replace(b"\n", b"\r"),
        TREC.replace(b" mine", b""),
        b"# from our system\n\n" + TREC + b"\x1a",
        b"\xef\xbb\xbf" + TREC[:20] + b"\xef\xbb\xbf" + TREC[20:],
        gzip.compress(TREC, mtime=0),
        b"q1 d2 7.5\nq1 d1 3.25\nq9 d1 1\n",
        b"query-id\tcorpus-id\tscore\nq1\td2\t7.5\nq1\td1\t3.25\nq9\td1\t1\n",
        b"qid docno rank score\nq1 d2 1 7.5\nq1 d1 2 3.25\nq9 d1 1 1\n",
        b"q1 d2 1 7.5\nq1 d1 2 3.25\nq9 d1 1 1\n",
        json.dumps(EXPECTED).encode(),
        b"\xef\xbb\xbf " + json.dumps(EXPECTED, indent=1).encode(),
        gzip.compress(json.dumps(EXPECTED).encode(), mtime=0),
    ],
)
def test_every_variant_gives_the_same_run(content: bytes) -> None:
    assert read(content) == EXPECTED


def test_tabs_keep_blanks_and_other_spaces_within_an_id() -> None:
    assert read("q 1\tQ0\td\u00a01\t1\t2.0\tt\nq 1\tQ0\td 2\t2\t1.0\tt\n".encode()) == {
        "q 1": {"d\u00a01": 2.0, "d 2": 1.0}
    }
    assert read("q1 Q0 d\u00a01 1 2.0 t\n".encode()) == {"q1": {"d\u00a01": 2.0}}


def test_three_columns_are_ranks_only_where_every_query_counts_upwards() -> None:
    assert read(b"q1 d2 1\nq1 d1 2\nq9 d1 1\n") == {"q1": {"d2": -1.0, "d1": -2.0}, "q9": {"d1": -1.0}}
    assert read(b"q1 d2 2\nq1 d1 1\nq9 d1 1\n")["q1"] == {"d2": 2.0, "d1": 1.0}
    assert read(b"qid\tpid\trank\nq1\td2\t1\n") == {"q1": {"d2": -1.0}}
    with pytest.raises(RowError, match=r"a score or a rank.*query-id corpus-id score"):
        read(b"q1 d2 1\nq9 d1 1\n")


def test_the_rank_column_of_trec_does_not_count() -> None:
    assert read(b"q1 Q0 worse 1 1.0 t\nq1 Q0 better 2 3.0 t\n")["q1"] == {"worse": 1.0, "better": 3.0}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"q1 d1\n", "line 1, columns: the line has 2 columns"),
        (TREC + b"q1 Q0 d7 3\n", "line 4, columns: the line has 4 columns.*6 columns as in the first line"),
        (b"q1 Q0 d1 1 nan mine\n", "line 1, score: is 'nan'; expected a finite number"),
        (b"q1 Q0 d1 1 1e39 mine\n", "32-bit float"),
        (b"q1 Q0 d1 1 1_0 mine\n", "'1_0'"),
        (b"q1 Q0 d1 1 2 m\nq1 Q0 d1 2 1 m\n", "line 2, document: document 'd1' appears twice for query 'q1'"),
        (b"q1 Q0 d\xff 1 2 m\n", "not UTF-8"),
        (b"", "the file is empty"),
        (b"{}", "the file is empty"),
        (b'{"q1": {}}', "the file is empty"),
        (b'{"q1": ', "not JSON"),
        (b'{"q1": {"d1": "3"}}', "document 'd1' of query 'q1' has the score '3'"),
        (b'{"q1": {"d1": NaN}}', "is 'nan'"),
        (b'{"q1": 3}', "query 'q1' has no object of scores"),
        (b'{"q1": {"d1": 1}, "q1": {"d2": 1}}', "query 'q1' appears twice"),
        (b'{"q1": {"d1": 1, "d1": 2}}', "document 'd1' appears twice"),
        (b"qid docid score\n", "the file is empty"),
        (b"\x1f\x8b", "damaged or truncated"),
    ],
)
def test_a_bad_run_file_is_refused_with_its_line(content: bytes, said: str) -> None:
    with pytest.raises(RowError, match=said):
        read(content)


NAMES = {
    "ndcg@10": "ndcg_cut_10", "ndcg@3": "ndcg_cut_3", "ndcg": "ndcg", "recall@10": "recall_10", "recall@100": "recall_100",
    "mrr": "recip_rank", "map": "map", "map@10": "map_cut_10", "precision@5": "P_5", "success@1": "success_1",
}  # fmt: skip
OF_TREC = {"ndcg_cut.3,10", "ndcg", "recall.10,100", "recip_rank", "map", "map_cut.10", "P.5", "success.1"}


def graded_queries(rng: np.random.Generator) -> list[EvaluationQuery]:
    """Candidates d1 to d20, some without a grade; grades from -2 to 3; graded documents beyond the candidates."""
    found = []
    for number in range(10):
        grades = rng.integers(-2, 1 if number == 4 else 4, 20).astype(float)
        grades[rng.random(20) < 0.3] = np.nan
        beyond = sorted(f"d{each}" for each in rng.choice(np.arange(21, 60), rng.integers(0, 15), replace=False))
        others = rng.integers(-2, 1 if number == 4 else 4, len(beyond)).astype(float)
        query = a_query(f"q{number}", grades=grades.tolist())
        found.append(replace(query, other_grades=others, other_documents=tuple(beyond)))
    return found


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 100_000), scale=st.sampled_from([1.0, 4.0]))
def test_a_run_is_measured_as_trec_eval_measures_it_over_all_graded_documents(seed: int, scale: float) -> None:
    """Ties, ties only as 32-bit floats, negative and fractional grades, unjudged documents, missing ones, -c.

    The run lacks queries that are graded and has queries that nobody graded.
    """
    rng = np.random.default_rng(seed)
    queries = graded_queries(rng)
    run: Run = {
        f"q{number}": {
            f"d{each}": float(1500 * rng.integers(-1, 4) + rng.choice([0.0, 1e-5]))
            for each in rng.permutation(np.arange(1, 80))[: rng.integers(1, 60)]
        }
        for number in rng.permutation(np.arange(14))[:9]
    }
    grades = {
        query.id: {
            name: int(grade)
            for name, grade in zip(query.document_ids + query.other_documents, query.all_grades, strict=True)
            if np.isfinite(grade)
        }
        for query in queries
    }
    theirs = pytrec_eval.RelevanceEvaluator(grades, OF_TREC).evaluate(run)
    order = RunFile(run)
    asked = measurable(queries, "grades")
    scores = order.scores(asked, lambda done, total: None)
    beyond = order.beyond(asked)
    measured = measure(asked, scores, "grades", list(NAMES), run=beyond)
    for name, of_trec in NAMES.items():
        found = dict(zip(measured.query_ids, measured.values[name].tolist(), strict=True))
        expected = {query: theirs.get(query, {}).get(of_trec, 0.0) for query in grades if grades[query]}
        assert found == pytest.approx(expected, abs=1e-12), name
    fractions = [replace(q, grades=q.grades / scale, other_grades=q.other_grades / scale) for q in asked]
    again = measure(fractions, scores, "grades", ["ndcg@10"], run=beyond)
    assert again.values["ndcg@10"] == pytest.approx(measured.values["ndcg@10"], abs=1e-12)
    assert beyond.named == {query.id: len(run.get(query.id, {})) for query in asked}


def test_a_snapshot_that_does_not_name_them_lets_no_run_find_graded_documents_beyond_the_candidates() -> None:
    query = replace(a_query(grades=[1.0]), other_grades=np.array([3.0]))
    order = RunFile({"q1": {"d1": 1.0, "d2": 2.0}})
    found = order.scores([query], lambda done, total: None)
    assert measure([query], found, "grades", ["recall@10"], run=order.beyond([query])).values["recall@10"] == [0.5]
    named = replace(query, other_documents=("d2",))
    assert measure([named], found, "grades", ["recall@10"], run=order.beyond([named])).values["recall@10"] == [1.0]
