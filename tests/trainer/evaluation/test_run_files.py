"""Run files in the variants that toolkits write, and what each refusal names."""

from __future__ import annotations

import gzip
import io
import json

import numpy as np
import pytest
import pytrec_eval

from labeling.importing.lines import RowError
from scoring.numerics.measures.rankings import evaluate_run
from tests.factories.frozen import a_query
from trainer.evaluation.metrics import measure
from trainer.evaluation.rankers import RunFile
from trainer.evaluation.run_files import read_run

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


def test_a_run_is_measured_as_trec_eval_measures_it() -> None:
    """Ties, ties only as 32-bit floats, documents that are no candidates, and candidates that it lacks."""
    rng = np.random.default_rng(11)
    found = [a_query(f"q{i}", grades=rng.integers(0, 3, 20).astype(float).tolist()) for i in range(12)]
    run = {
        query.id: {
            f"d{number}": float(1500 * rng.integers(0, 4) + rng.choice([0.0, 1e-5]))
            for number in rng.permutation(np.arange(1, 41))[:25]
        }
        for query in found
    }
    grades = {q.id: {d: int(g) for d, g in zip(q.document_ids, q.grades, strict=True)} for q in found}
    order = RunFile(run)
    names = {
        "ndcg@10": "ndcg_cut_10",
        "recall@10": "recall_10",
        "mrr": "recip_rank",
        "map": "map",
        "precision@5": "P_5",
    }
    measured = measure(found, order.scores(found, lambda done, total: None), "grades", list(names), are_ranks=True)
    theirs = pytrec_eval.RelevanceEvaluator(grades, {"ndcg_cut.10", "recall.10", "recip_rank", "map", "P.5"}).evaluate(
        run
    )
    ours = evaluate_run(run, {query: dict(own) for query, own in grades.items()}, list(names))
    for name, of_trec in names.items():
        expected = [theirs[query][of_trec] for query in measured.query_ids]
        assert measured.values[name].tolist() == pytest.approx(expected, abs=1e-12), name
        assert [ours[name][query] for query in measured.query_ids] == pytest.approx(expected, abs=1e-12)
    assert order.named(found) == [25] * 12
