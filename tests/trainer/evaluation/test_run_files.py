"""Run files in the variants that toolkits write, and what each refusal names."""

from __future__ import annotations

import csv
import gzip
import io
import json
from dataclasses import replace
from typing import Literal

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
        TREC.replace(b" ", b","),
        TREC.replace(b" ", b", "),
        TREC.replace(b" ", b";"),
        b"q1,d2,7.5\nq1,d1,3.25\nq9,d1,1\n",
        b"\xef\xbb\xbfquery_id,doc_id,score\r\nq1,d2,7.5\r\nq1,d1,3.25\r\nq9,d1,1\r\n",
        b',Score,"Doc ID",QueryId,query,document\n0,7.5,d2,q1,"a, b",x\n1,3.25,"d1",q1,"a ""b""",y\n2,1,d1,q9,c,z\n',
        b"# by us, today, again\nqid;docno;rank;score\nq1;d2;1;7.5\nq1;d1;2;3.25\nq9;d1;1;1\n",
        b'{"query_id": "q1", "doc_id": "d2", "score": 7.5}\n{"query_id": "q1", "doc_id": "d1", "score": 3.25}\n\n'
        b'{"score": 1, "doc_id": "d1", "query_id": "q9"}',
        b'{"qid": "q1", "query": "who", "docid": "d2", "document": {"text": "x"}, "rank": 1, "score": 7.5}\n'
        b'{"qid": "q1", "query": "who", "docid": "d1", "document": {}, "rank": 2, "score": 3.25}\n'
        b'{"qid": "q9", "query": "why", "docid": "d1", "document": {}, "rank": 1, "score": 1}\n',
        b'[{"query": "q1", "document": "d2", "score": 7.5}, {"query": "q1", "document": "d1", "score": 3.25},'
        b' {"query": "q9", "document": "d1", "score": 1}]',
        b'{"q1": {"d2": 7.5, "d1": 3.25}}\n{"q9": {"d1": 1}}\n',
        b'{"q1": {"d2": 7.5, "d1": 3.25}}\r{"q9": {"d1": 1}}\r',
        b'qid,text,docid,score\nq1,"%b",d2,7.5\nq1,,d1,3.25\nq9,,d1,1\n' % (b"long, " * 40_000),
        TREC.replace(b"mine", b"bm25,k1=0.9,0.4"),
        TREC.replace(b"mine", b"a;2;7"),
        b"# a run made by us\n#depth = 1000\n" + TREC + b"# the end\n",
        b"# a,b,c,d,e,f\nq1,d2,7.5\n# it's \"x, 1, 2\nq1,d1,3.25\nq9,d1,1\n",
        b"qid,docid,docno,rank,score,query\nq1,0,d2,0,7.5,who\nq1,1,d1,1,3.25,who\nq9,1,d1,0,1,why\n",
        b'{"qid": "q1", "docid": 0, "docno": "d2", "score": 7.5}\n{"qid": "q1", "docid": 1, "docno": "d1", "score": 3.25}\n'
        b'{"qid": "q9", "docid": 1, "docno": "d1", "score": 1}\n',
        b"QUERY_ID,Score,DOC_ID,title\tand text,title\tand text\nq1,7.5,d2,a,b\nq1,3.25,d1,a,b\nq9,1,d1,,\n",
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
    assert read(b"q1 d2 0\nq9 d1 0\n") == {"q1": {"d2": 0.0}, "q9": {"d1": 0.0}}
    assert read(b"q1 d1 0.5\nq1 d2 1\nq9 d1 1\nq9 d2 2\n")["q1"] == {"d1": 0.5, "d2": 1.0}
    assert read(b"q1 d1 2\nq1 d2 1\nq9 d1 1\nq9 d2 3\n")["q9"] == {"d1": 1.0, "d2": 3.0}
    for unclear in (
        b"q1 d2 1\nq9 d1 1\n",
        b"q1 d2 0\nq1 d1 1\nq9 d1 0\n",
        b"q1 d2 1\nq1 d1 3\nq9 d1 2\n",  # ranks of the rows that a filter has left
        b"q1 d2 1\nq1 d1 2\nq9 d1 0\nq9 d2 1\n",
        b"q1 d1 2\nq1 d2 1\nq1 d3 3\nq9 d1 1\n",  # ranks in the order of the documents
    ):
        with pytest.raises(RowError, match=r"a score or a rank.*query-id corpus-id score"):
            read(unclear)


@pytest.mark.parametrize(
    "content",
    [b"qid,docid,rank\nq1,d2,1\nq1,d1,2\n", b"q1,d2,1\nq1,d1,2\n", b'{"qid": 1, "pid": 7, "rank": 3}\n'],
)
def test_ranks_without_scores_order_every_dialect(content: bytes) -> None:
    assert read(content) in ({"q1": {"d2": -1.0, "d1": -2.0}}, {"1": {"7": -3.0}})


def test_commas_and_semicolons_within_ids_are_no_separators() -> None:
    assert read(b"q,1 Q0 d;1,2,3 1 7.5 t\n") == {"q,1": {"d;1,2,3": 7.5}}
    assert read(b"q;1\td,1\t7.5\n") == {"q;1": {"d,1": 7.5}}
    assert read(b'"q,1";d,1,2;7.5\n') == {"q,1": {"d,1,2": 7.5}}
    assert read(b'"q,1","d 1",7.5\n') == {"q,1": {"d 1": 7.5}}


def test_ids_may_begin_with_a_hash_and_hold_a_tab() -> None:
    assert read(b"#1,d1,7.5\n#1,d2,3.25\n") == {"#1": {"d1": 7.5, "d2": 3.25}}
    assert read(b"#1\td1\t7.5\n#1\td2\t3.25\n") == {"#1": {"d1": 7.5, "d2": 3.25}}
    assert read(b"q1 d1 7.5\n#1 d2 3.25\n# a 7\n") == {"q1": {"d1": 7.5}, "#1": {"d2": 3.25}}
    assert read(b'"q 1"\t"Q0"\t"d\t""1"""\t1\t7.5\t"t"\n') == {"q 1": {'d\t"1"': 7.5}}
    assert read(b'q"1"\t"d1\t7.5\n') == {'q"1"': {'"d1': 7.5}}, "quotes within an id are its own"
    assert read(b'q1,"d\t1",7.5\nq1,d\t2,3.25\n') == {"q1": {"d\t1": 7.5, "d\t2": 3.25}}


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC, csv.QUOTE_ALL])
@pytest.mark.parametrize("header", ["", "qid\tdocid\tscore\n"])
def test_quotes_of_a_csv_writer_are_left_out_and_those_of_ids_stay(quoting: Literal[0, 1, 2], header: str) -> None:
    run = {"q1": {"d1": 7.5, 'the "d"': 3.25, '"d"': 1.5, "d\t2": 0.5, '"d" one': 0.25}, '"q 2"': {"d1": 7.5}}
    text = io.StringIO(header)
    text.seek(0, io.SEEK_END)
    rows = ([query, document, score] for query, own in run.items() for document, score in own.items())
    csv.writer(text, delimiter="\t", quoting=quoting).writerows(rows)
    assert read(text.getvalue().encode()) == run
    plain = b'q1\tQ0\t"Love_and_Theft"\t1\t7.5\tt\nq1\tQ0\t"Weird_Al"_Yankovic\t2\t3.25\tt\n'
    assert read(plain) == {"q1": {'"Love_and_Theft"': 7.5, '"Weird_Al"_Yankovic': 3.25}}


def test_fields_of_json_that_do_not_count_may_appear_twice() -> None:
    assert read(b'{"qid": "q1", "docid": "d1", "score": 2, "Text": "a", "text": "b"}') == {"q1": {"d1": 2.0}}


def test_four_columns_whose_last_may_be_the_rank_are_refused() -> None:
    """Read as scores, ranks would reverse the order."""
    for content in (
        b"q1 d1 0.5 1\nq1 d2 0.25 2\n",
        b"q1 d1 90 1\nq1 d2 80 2\n",
        b"q1 d1 90 1\nq1 d2 80 2\nq2 d1 7 1\n",
    ):
        with pytest.raises(RowError, match=r"four columns.*put the score into the last column, or write a header"):
            read(content)
    assert read(b"q1 d1 1 0.9\nq1 d2 2 0.5\n") == {"q1": {"d1": 0.9, "d2": 0.5}}
    assert read(b"qid docid score rank\nq1 d1 90 1\nq1 d2 80 2\n") == {"q1": {"d1": 90.0, "d2": 80.0}}
    assert read(b"qid docid rank score\nq1 d1 2 1\nq1 d2 1 2\n") == {"q1": {"d1": 1.0, "d2": 2.0}}


def test_scores_that_rise_with_the_ranks_of_every_query_are_distances() -> None:
    rows = [(query, rank, rank / 8) for query in ("q1", "q2") for rank in range(1, 8)]
    trec = "".join(f"{query} Q0 d{rank} {rank} {distance} faiss\n" for query, rank, distance in rows)
    named = "qid,docno,rank,score\n" + "".join(f"{query},d{rank},{rank},{distance}\n" for query, rank, distance in rows)
    lines = "".join(
        json.dumps({"qid": query, "docid": f"d{rank}", "rank": rank, "score": distance}) + "\n"
        for query, rank, distance in rows
    )
    for content in (trec, named, lines):
        with pytest.raises(RowError, match=r"as distances do.*write negative distances, or leave out the ranks"):
            read(content.encode())
    assert read(trec.encode() + b"q3 Q0 d1 1 2 t\nq3 Q0 d2 2 1 t\n"), "one query in the order of its ranks"


def test_a_negative_rank_is_none() -> None:
    for content in (b"qid,docid,rank\nq1,d1,-1\nq1,d2,-2\n", b'{"qid": "q1", "docid": "d1", "rank": -1}\n'):
        with pytest.raises(RowError, match="is -1; expected a rank from 0 or 1"):
            read(content)


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
        ("q1 Q0 d1 1 ١٢ mine\n".encode(), "'١٢'"),
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
        (b"question,passage,points\nq1,d1,2\n", "line 1, columns: .*known header.*names query_id, doc_id and score"),
        (b"0,q1,d1,2.5\n", "line 1, columns: .*known header"),
        (b"qid,docid,score\nq1,d1,2\nq1,d2\n", "line 3, columns: the line has 2 columns.*3 columns as in the first"),
        (b"qid,docid,score\nq1,d1,high\n", "line 2, score: is 'high'"),
        (b"q1;d1;2,5\n", "line 1, score: is '2,5'.*decimal point"),
        (b'qid,docid,score\nq1,"d1,2\n', "line 2: is not CSV.*closed in the same line"),
        (b"qid,docid,score\n,d1,2\n", "line 2, query: is empty"),
        (b"qid,docid,score,Score\nq1,d1,2,3\n", "line 1: the column 'score' appears twice"),
        (b"qid\tqid\tdocid\trank\nq1\tq2\td1\t2\n", "line 1: the column 'qid' appears twice"),
        (b"q1 Q0 d1 1 0,5 a,2\n", "line 1, score: is '0,5'.*decimal point"),
        (
            b'{"qid": "q1", "docid": "d1", "score": 2}\n{"qid": "q1", "score": 2}\n',
            "line 2, document: the row has no document",
        ),
        (
            b'{"qid": "q1", "docid": "d1", "score": 2}\n{"qid": "q1", "docid": "d2", "rank": 2}\n',
            "line 2, score: .*no score",
        ),
        (b'{"qid": "q1", "docid": "d1"}\n', "line 1, score: the row has no rank"),
        (b'{"qid": "q1", "docid": "d1", "score": null}\n', "line 1, score: the row has the score 'None'"),
        (b'{"qid": "q1", "docid": {"id": 1}, "score": 2}\n', "line 1, document: is .*expected an id"),
        (b'{"qid": "q1", "QID": "q2", "docid": "d1", "score": 2}\n', "'qid' appears twice"),
        (b'{"qid": "q1", "docid": "d1", "score": 2}\n{"qid": \n', "line 2: is not JSON"),
        (b'{\n "qid": "q1",\n "docid": "d1",\n "score": 2\n}\n', "line 1: opens a JSON object that continues"),
        (b"q1 Q0 d1 1 7.5 " + b"t" * (16 * 2**20), "line 1: longer than 16777216 bytes.*leave out the texts"),
        (b'{"q1": {"d1": 1},\n "q2": {"d1" 1}}', "line 2: is not JSON"),
        (b'[{"qid": "q1", "docid": "d1", "score": 2}, 3]', "entry 2 of the list: is '3'"),
        (b'{"q1": {"d1": 1}}\n{"q1": {"d2": 1}}\n', "line 2: query 'q1' appears twice"),
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


def dialects(run: Run) -> dict[str, bytes]:
    """One run in every dialect, by name; those with ranks alone have the order of the scores as trec_eval reads it."""
    listed = {
        query: sorted(own.items(), key=lambda each: (np.float32(each[1]), each[0]), reverse=True)
        for query, own in run.items()
    }
    rows = [(q, d, rank, score) for q, own in listed.items() for rank, (d, score) in enumerate(own, start=1)]
    trec = [[q, "Q0", d, str(rank), repr(score), "tag"] for q, d, rank, score in rows]
    scores = [[q, d, repr(score)] for q, d, _, score in rows]
    ranks = [[q, d, str(rank)] for q, d, rank, _ in rows]

    def table(
        cells: list[list[str]], separator: str, *header: str, quoting: Literal[0, 1, 2] = csv.QUOTE_MINIMAL
    ) -> bytes:
        text = io.StringIO()
        writer = csv.writer(text, delimiter=separator, quoting=quoting)
        writer.writerows([[*header]] * bool(header) + cells)
        return text.getvalue().encode()

    def lines(cells: list[list[str]], separator: str) -> bytes:
        return "".join(f"{separator.join(row)}\n" for row in cells).encode()

    objects = [{"query_id": q, "doc_id": d, "score": score, "rank": 1} for q, d, _, score in rows]
    return {
        **{f"trec {name}": lines(trec, sep) for name, sep in (("blank", " "), ("tab", "\t"), ("blanks", "   "))},
        **{f"scores {sep}": table(scores, sep) for sep in ",;"},
        **{f"trec {sep}": table(trec, sep) for sep in ",;"},
        **{f"header {sep}": table(scores, sep, "query_id", "doc_id", "score") for sep in ",;"},
        "header tab": lines([["query-id", "corpus-id", "score"], *scores], "\t"),
        "quoted tab": table(scores, "\t", quoting=csv.QUOTE_ALL),
        "quoted tab with a header": table(
            trec, "\t", "qid", "q0", "docid", "rank", "score", "tag", quoting=csv.QUOTE_ALL
        ),
        "quoted ids and tab": table([[q, d, score] for q, d, _, score in rows], "\t", quoting=csv.QUOTE_NONNUMERIC),
        "ranks csv": table(ranks, ",", "qid", "docid", "rank"),
        "ranks tsv": table(ranks, "\t", "qid", "docno", "rank"),
        "jsonl": "".join(f"{json.dumps(each)}\n" for each in objects).encode(),
        "jsonl ranks": "".join(
            json.dumps({"qid": q, "document": d, "rank": rank}) + "\n" for q, d, rank, _ in rows
        ).encode(),
        "list": json.dumps(objects, indent=1).encode(),
        "json": json.dumps(run).encode(),
        "json lines": "".join(f"{json.dumps({query: own})}\n" for query, own in run.items()).encode(),
    }


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_all_dialects_of_a_run_have_the_same_figures(seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries = measurable(graded_queries(rng), "grades")
    run: Run = {
        f"q{number}": {
            f"d{each}": float(rng.integers(-2, 6) + rng.choice([0.0, 0.25, 1e-9])) for each in rng.permutation(40)[:25]
        }
        for number in rng.permutation(12)[:8]
    }

    def figures(content: bytes) -> list[list[float]]:
        order = RunFile(read(content))
        scores = order.scores(queries, lambda done, total: None)
        found = measure(queries, scores, "grades", list(NAMES), run=order.beyond(queries))
        return [found.values[name].tolist() for name in NAMES]

    expected, *others = ((name, figures(content)) for name, content in dialects(run).items())
    for name, found in others:
        assert found == expected[1], name


IDS = st.from_regex(r"[a-z0-9é:_.-]{1,4}([,;/\"'][a-z0-9]{1,3}){0,3}", fullmatch=True)


@settings(max_examples=60, deadline=None)
@given(
    run=st.dictionaries(
        IDS,
        st.dictionaries(IDS, st.floats(-(2.0**90), 2.0**90, width=32), min_size=1, max_size=4),
        min_size=1,
        max_size=4,
    )
)
def test_every_dialect_keeps_ids_and_scores(run: Run) -> None:
    run["sure"] = {"one": 0.5, "two": 0.5}  # so that three columns without a header are no ranks
    for name, content in dialects(run).items():
        if "ranks" not in name:
            assert read(content) == run, name


def test_a_snapshot_that_does_not_name_them_lets_no_run_find_graded_documents_beyond_the_candidates() -> None:
    query = replace(a_query(grades=[1.0]), other_grades=np.array([3.0]))
    order = RunFile({"q1": {"d1": 1.0, "d2": 2.0}})
    found = order.scores([query], lambda done, total: None)
    assert measure([query], found, "grades", ["recall@10"], run=order.beyond([query])).values["recall@10"] == [0.5]
    named = replace(query, other_documents=("d2",))
    assert measure([named], found, "grades", ["recall@10"], run=order.beyond([named])).values["recall@10"] == [1.0]
