"""What the field's tools write: BEIR, TREC, MS MARCO, ranx, Quepid and tables, sound and ugly, and their detection."""

from __future__ import annotations

import gzip
import io
import json
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labeling.importing.dataset import ImportFailed, ImportSummary, import_dataset, preview_dataset
from labeling.importing.detection import detect
from labeling.importing.formats import RowError, make_importer
from labeling.models import Candidate, Document, Project, Query, UnmatchedGrade
from labeling.plugin_checks import check_plugin
from labeling.plugins import get_plugin, registered
from labeling.records import ImportedCandidate, ImportedDocument, ImportedGrade, ImportedQuery

KIB = 1024


def parquet(rows: list[dict[str, Any]]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), stream)
    return stream.getvalue()


def archive(files: Mapping[str, bytes | str], **values: Any) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = values.get("external_attr", 0)
            made.writestr(entry, data)
    return stream.getvalue()


def read(importer: str, data: bytes | str, **options: Any) -> list[Any]:
    """All rows and errors of a file, with small limits."""
    made = make_importer(
        get_plugin("importer", importer), max_line_bytes=64 * KIB, max_total_bytes=512 * KIB, options=options
    )
    return list(made.read_all(io.BytesIO(data.encode() if isinstance(data, str) else data)))  # type: ignore[attr-defined]


def only_error(importer: str, data: bytes | str, **options: Any) -> RowError:
    try:
        errors = [each for each in read(importer, data, **options) if isinstance(each, RowError)]
    except RowError as error:
        errors = [error]
    assert len(errors) == 1, errors
    assert errors[0].remedy and errors[0].expectation
    return errors[0]


BEIR = {
    "scifact/corpus.jsonl": '{"_id": 1, "title": "T", "text": "x y", "metadata": {}}\n{"_id": "d2", "text": "z"}\n',
    "scifact/queries.jsonl": '{"_id": "q1", "text": "who", "metadata": {"domain": "bio"}}\n{"_id": "q2", "text": "what"}\n',
    "scifact/qrels/test.tsv": "query-id\tcorpus-id\tscore\nq1\t1\t1\n",
    "scifact/qrels/train.tsv": "query-id\tcorpus-id\tscore\nq2\td2\t0\n",
    "scifact/__MACOSX/._corpus.jsonl": "\x00\x05",
}
CSV = 'qid;query;docid;text;rating\n1;who;a;"x;\n""y""";2\n1;who;b;z;\n'


# --- sound files -------------------------------------------------------------------------


def test_beir_gives_documents_queries_and_grades_alone() -> None:
    rows = read("beir", archive(BEIR))
    assert rows == [
        ImportedDocument("1", "T\nx y", {"title": "T"}, line=1),
        ImportedDocument("d2", "z", line=2),
        ImportedQuery("q1", "who", (), {"domain": "bio"}, line=1),
        ImportedQuery("q2", "what", (), line=2),
        ImportedGrade("q1", "1", 1, line=2),
        ImportedGrade("q2", "d2", 0, line=2),
    ]
    judged = read("beir", archive(BEIR), split="test", judged_only=True)
    assert [row.id for row in judged if isinstance(row, ImportedQuery)] == ["q1"]
    assert [row.document_id for row in judged if isinstance(row, ImportedGrade)] == ["1"]


def test_topics_of_old_and_new_tracks_are_queries() -> None:
    text = (
        "<?xml version='1.0'?>\n<topics>\n<topic number='7'>\n<query>covid &amp; origin</query>\n"
        "<question>where from</question>\n</topic>\n</topics>\n"
        "<top>\n<num> Number: 301\n<title> International\nCrime\n<desc> Description:\nWho?\n</top>\n"
    )
    rows = read("trec-topics", text)
    assert [(row.id, row.text) for row in rows] == [("7", "covid & origin"), ("301", "International Crime")]
    assert rows[1].metadata == {"desc": "Who?"}
    assert [row.text for row in read("trec-topics", text, field="description")] == ["where from", "Who?"]


def test_runs_of_trec_and_ms_marco_are_candidates() -> None:
    assert read("trec-run", "q1 Q0 d1 1 0.5 x\nq1 Q0 d2 0 7e-1 x\n") == [
        ImportedCandidate("q1", "d1", score=0.5, line=1),
        ImportedCandidate("q1", "d2", score=0.7, line=2),
    ]
    assert read("ms-marco-run", "1\t2\t1\n") == [ImportedCandidate("1", "2", rank=1, line=1)]


def test_ms_marcos_texts_top_and_triples() -> None:
    assert read("ms-marco-texts", '1\ta "b\n') == [ImportedDocument("1", 'a "b', line=1)]
    assert read("ms-marco-texts", "1\tq\n", texts="queries") == [ImportedQuery("1", "q", (), line=1)]
    top = read("ms-marco-top", "1\t2\tq\tx y\n1\t3\tq\tz\n")
    assert [type(row).__name__ for row in top].count("ImportedQuery") == 1
    triples = read("ms-marco-triples", "q\tgood\tbad\nq\tgood\tworse\n")
    assert sum(isinstance(row, ImportedCandidate) for row in triples) == 3
    assert {row.grade for row in triples if isinstance(row, ImportedGrade)} == {1}


TABLE_ROWS = [
    {"qid": "1", "query": "who", "docid": "a", "text": 'x;\n"y"', "rating": 2},
    {"qid": "1", "query": "who", "docid": "b", "text": "z", "rating": None},
]


@pytest.mark.parametrize(
    "data",
    [
        CSV.encode(),
        b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").encode(),
        gzip.compress(CSV.encode(), mtime=0),
        json.dumps(TABLE_ROWS, indent=1).encode(),
        "\n".join(map(json.dumps, TABLE_ROWS)).encode(),
        parquet(TABLE_ROWS),
    ],
    ids=["csv", "bom and crlf", "gzip", "json", "jsonl", "parquet"],
)
def test_tables_of_all_kinds_give_the_same_rows(data: bytes) -> None:
    rows = read("table", data)
    assert [(row.id, row.text) for row in rows if isinstance(row, ImportedQuery)] == [("1", "who")]
    assert [(row.id, row.text) for row in rows if isinstance(row, ImportedDocument)] == [("a", 'x;\n"y"'), ("b", "z")]
    assert [(row.query_id, row.document_id, row.grade) for row in rows if isinstance(row, ImportedGrade)] == [
        ("1", "a", 2)
    ]
    assert detect(data) == "table"


def test_the_column_mapping_is_guessed_and_corrected() -> None:
    alone = "id\ttext\tyear\nd1\tx\t1999\n"
    assert read("table", alone) == [ImportedDocument("d1", "x", {"year": "1999"}, line=2)]
    assert read("table", alone, query="text", query_id="id") == [ImportedQuery("d1", "x", (), {"year": "1999"}, line=2)]
    assert read("table", "query-id,corpus-id,score\nq,d,2\n") == [ImportedGrade("q", "d", 2, line=2)]
    without_ids = read("table", "query,passage\nwho,x\nwho,y\n")
    assert [row.id for row in without_ids if isinstance(row, ImportedQuery)] == ["q-" + without_ids[0].id[2:]]
    assert len({row.id for row in without_ids if isinstance(row, ImportedDocument)}) == 2
    assert "one of its columns: 'id', 'text', 'year'" in only_error("table", alone, query="nope").expectation


def test_quepids_ratings_find_their_query_by_its_text() -> None:
    rows = read("quepid-csv", "query,docid,rating\nstar wars,11,3\nstar wars,12,\nalien,11,0\n")
    queries = {row.text: row.id for row in rows if isinstance(row, ImportedQuery)}
    assert list(queries) == ["star wars", "alien"]
    assert [(row.query_id, row.document_id, row.grade) for row in rows if isinstance(row, ImportedGrade)] == [
        (queries["star wars"], "11", 3),
        (queries["alien"], "11", 0),
    ]


def test_ranx_json_is_grades_or_a_run() -> None:
    data = '{"q1": {"d1": 3, "d2": -1}, "q2": {}}'
    assert read("qrels-json", data) == [ImportedGrade("q1", "d1", 3, line=1), ImportedGrade("q1", "d2", 0, line=1)]
    assert len(read("qrels-json", data, negative="ungraded")) == 1
    assert read("qrels-json", data, values="scores")[1] == ImportedCandidate("q1", "d2", score=-1.0, line=1)


# --- ugly files --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "values", "problem"),
    [
        ({"../corpus.jsonl": ""}, {}, "leads out of the archive"),
        ({"/etc/corpus.jsonl": ""}, {}, "leads out of the archive"),
        ({"C:/corpus.jsonl": ""}, {}, "leads out of the archive"),
        ({"a\\..\\..\\corpus.jsonl": ""}, {}, "leads out of the archive"),
        ({".": ""}, {}, "has no name"),
        ({"": ""}, {}, "has no name"),
        ({"set/corpus\x1b[2J.jsonl": ""}, {}, "corpus\\x1b[2J.jsonl: has a name with a control character"),
        ({"set/\u202elnosj.suproc": ""}, {}, "a control character"),
        ({"corpus.jsonl": "x"}, {"external_attr": stat.S_IFLNK << 16}, "is a link"),
        ({"readme.txt": "x"}, {}, "holds readme.txt"),
        ({"a/corpus.jsonl": "", "b/corpus.jsonl": ""}, {}, "holds 2 data sets"),
        ({"corpus.jsonl": b'{"_id": "d", "text": "\xff"}'}, {}, "not UTF-8"),
        ({"corpus.jsonl": '{"_id": "d", "text": "a\\u0000"}'}, {}, "NUL"),
        ({"corpus.jsonl": '{"_id": "d", "text": ""}'}, {}, "is empty"),
        ({"corpus.jsonl": '{"doc_id": "d", "text": "x"}'}, {}, "_id: is missing"),
        ({"corpus.jsonl": '["d"]'}, {}, "is not an object"),
        ({"corpus.jsonl": '{"_id": "d", "text": "x", "metadata": []}'}, {}, "is not an object"),
        ({"corpus.jsonl": "{" + " " * 70 * KIB + "}"}, {}, "longer than 65536 bytes"),
        ({"corpus.jsonl": "\n" * 600 * KIB}, {}, "longer than 524288 bytes after decompression"),
        ({"qrels/test.tsv": "q1\td1\t0.5\n"}, {}, "a fraction"),
    ],
)
def test_bad_archives_are_named(files: dict[str, bytes | str], values: dict[str, Any], problem: str) -> None:
    assert problem in str(only_error("beir", archive(files, **values)))


def test_a_bomb_of_many_files_stops_at_the_limit_of_all_together() -> None:
    files = {f"qrels/{number}.tsv": "\n" * 200 * KIB for number in range(4)}
    found = _errors("beir", archive(files))
    assert found and "together are longer than 524288 bytes" in str(found[0])


def test_damaged_and_encrypted_archives_are_named() -> None:
    data = archive({"corpus.jsonl": '{"_id": "d", "text": "x"}\n' * 50})
    assert "not a readable zip archive" in str(only_error("beir", data[:-30]))
    spoilt = data[:60] + bytes([data[60] ^ 0xFF, data[61] ^ 0xFF]) + data[62:]
    with pytest.raises(RowError, match=r"damaged|not JSON|not UTF-8"):
        raise next(each for each in _errors("beir", spoilt))
    entry = bytearray(data)
    entry[6] |= 1
    entry[data.index(b"PK\x01\x02") + 8] |= 1
    assert "is encrypted" in str(only_error("beir", bytes(entry)))
    assert "has no qrels/dev.tsv" in str(only_error("beir", archive(BEIR), split="dev"))


def _errors(importer: str, data: bytes) -> list[RowError]:
    try:
        return [each for each in read(importer, data) if isinstance(each, RowError)]
    except RowError as error:
        return [error]


@pytest.mark.parametrize(
    ("importer", "data", "line", "problem"),
    [
        ("table", "query,text\nwho,x\nwho\n", 3, "has one field, the header 2"),
        ("table", 'query,text\nwho,"x"y\n', 2, "not well-formed CSV"),
        ("table", 'query,text\nwho,"x\n', 2, "not well-formed CSV"),
        ("table", "query,query\nwho,x\n", 0, "has the column 'query' twice"),
        ("table", "a,b\n1,2\n", 0, "has the columns 'a', 'b', of which no text"),
        ("table", "query,text\nwho, \u200b\n", 2, "is empty"),
        ("table", "qid,query\n,who\n", 2, "is empty"),
        ("table", "qid,query\n1,who\n1,what\n", 3, "has a different text than on line 2"),
        ("table", "qid,docid,rating\n1,a,good\n", 2, "'good'"),
        ("table", "qid,docid,rank\n1,a,0\n", 2, "'0'"),
        ("table", "qid,docid,score\n1,a,1.5\n", 2, "a fraction"),
        ("table", "query,text\nwho,a\0b\n", 2, "NUL"),
        ("table", b"query,text\nwho,a\xe4\n", 2, "not UTF-8"),
        ("table", "query,text\nwho,a\n".encode("utf-16"), 1, "UTF-16"),
        ("table", b"query,text\nwho," + b"x" * 70 * KIB + b"\n", 2, "longer than 65536"),
        ("table", gzip.compress(b"query,text\n" + b"who,x\n" * 200_000, mtime=0), None, "longer than 524288"),
        ("table", '[{"query": "who"}, 7]', 2, "is not an object"),
        ("table", '[{"query": "who"}', 1, "ends inside"),
        ("table", '[{"query": "who"}] x', 2, "follows the end"),
        ("table", '[{"query": "who"}}', 1, "closed by }"),
        ("table", '[{"query": "who", "query": "x"}]', 1, "occurs twice"),
        ("table", b"PAR1" + b"x" * 40, 0, "not a readable Parquet file"),
        ("table", parquet([{"query": "a\0b"}]), 1, "NUL"),
        ("qrels-json", '{"q1": 3}', 1, "has no object of documents"),
        ("qrels-json", '{"q1": {"d1": 0.25}}', 1, "a fraction"),
        ("qrels-json", '["q1"]', 1, "begins with"),
        ("trec-run", "q1 d1 1\n", 1, "has 3 columns"),
        ("trec-run", "q1 Q0 d1 1 high x\n", 1, "'high'"),
        (
            "trec-run",
            "".join(f"q1 Q0 d{n} {n} {n / 16} x\n" for n in range(1, 13)),
            12,
            "rise with the ranks in each query",
        ),
        ("trec-qrels", "q1 d1 1 12\nq1 d2 2 7\n", 2, "'d2' in the second of four columns"),
        ("ms-marco-run", "1\t2\t0\n", 1, "'0'"),
        ("ms-marco-texts", "1\ta\tb\n", 1, "has 3 columns"),
        ("trec-topics", "<top>\n<num> 1\n<title> x\n", 1, "ends inside a topic"),
        ("trec-topics", "<top>\n<num> 1\n</top>\n", 1, "is empty"),
        ("trec-topics", "hello\n", 1, "text outside of a topic"),
    ],
)
def test_bad_files_are_named_with_line_and_remedy(
    importer: str, data: bytes | str, line: int | None, problem: str
) -> None:
    error = only_error(importer, data)
    assert problem in str(error)
    assert line is None or error.line == line


def test_a_bad_row_of_a_table_leaves_the_others() -> None:
    rows = read("table", "query,text\nwho,a\nwho\nwho,b\n")
    assert [row.text for row in rows if isinstance(row, ImportedDocument)] == ["a", "b"]


@pytest.mark.parametrize("kind", ["json", "jsonl", "parquet"])
def test_tables_of_every_kind_keep_the_contract(kind: str) -> None:
    made = {
        "json": json.dumps(TABLE_ROWS).encode(),
        "jsonl": "\n".join(map(json.dumps, TABLE_ROWS)).encode(),
        "parquet": parquet(TABLE_ROWS),
    }
    assert check_plugin(get_plugin("importer", "table"), example=made[kind]) == []


# --- detection ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(registered("importer")))
def test_every_format_recognises_its_own_example(name: str) -> None:
    example = getattr(get_plugin("importer", name), "example", b"")
    assert example and detect(example) == name


@pytest.mark.parametrize("data", [b"", b"\x00" * 100, b"\xff\xfe", b"hello", b"{", b"[", b"{}", b"\x1f\x8b\x08"])
def test_what_nothing_recognises_is_read_as_zbench(data: bytes) -> None:
    assert detect(data) == "zbench-jsonl"


def test_a_table_of_unknown_columns_is_still_a_table_by_its_name() -> None:
    assert detect(b"winner,loser\n1,2\n", "votes.csv") == "table"
    assert "correct" in only_error("table", "qid,x\n1,2\n", query="y").remedy


# --- storing -----------------------------------------------------------------------------


def load(project: Project, data: bytes | str, importer: str = "auto", **options: Any) -> ImportSummary:
    stream = io.BytesIO(data.encode() if isinstance(data, str) else data)
    return import_dataset(project, stream, importer=importer, filename="file", **options)


@pytest.fixture
def project(db: None) -> Project:
    return Project.objects.create(name="Ponds", slug="ponds")


def test_a_corpus_comes_without_an_invented_query_and_a_run_gives_candidates(project: Project) -> None:
    summary = load(project, archive(BEIR))
    assert (summary.documents_created, summary.queries_created, summary.candidates_created) == (2, 2, 0)
    assert UnmatchedGrade.objects.count() == 2
    assert load(project, archive(BEIR)).changed_nothing
    run = load(project, "q1 Q0 d2 5 0.5 x\nq1 Q0 1 9 2.5 x\nq1 Q0 zz 1 9.0 x\nq9 Q0 1 1 1.0 x\n")
    assert (run.candidates_created, run.candidates_unmatched) == (2, 2)
    found = Candidate.objects.values_list("document__external_id", "first_stage_rank", "first_stage_score", "grade")
    assert set(found) == {("1", 2, 2.5, 1), ("d2", 3, 0.5, None)}, "ranks are those among all documents of the run"
    assert load(project, "id,text\nd3,new\n").documents_created == 1


def test_a_run_without_known_texts_is_refused(project: Project) -> None:
    with pytest.raises(ImportFailed, match=r"none of its candidates \(1\) has a query and a document"):
        load(project, "q1 Q0 d1 1 1.0 x\n")


def test_a_folder_is_a_data_set(project: Project, tmp_path: Path) -> None:
    for name, text in BEIR.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert import_dataset(project, tmp_path, importer="auto").documents_created == 2
    with pytest.raises(ImportFailed, match="is a folder"):
        import_dataset(project, tmp_path, importer="table")


def test_pairs_of_a_table_are_stored_as_candidates(project: Project) -> None:
    summary = load(project, CSV)
    assert (summary.queries_created, summary.documents_created, summary.candidates_created) == (1, 2, 2)
    assert summary.grades_created == 1
    assert load(project, CSV).changed_nothing


def test_nothing_of_a_bad_file_is_stored_unless_bad_rows_are_left_out(project: Project) -> None:
    data = archive(BEIR | {"scifact/corpus.jsonl": '{"_id": "d1", "text": "x"}\n{"_id": "d2", "text": ""}\n'})
    with pytest.raises(ImportFailed, match=r"file, line 2, scifact/corpus.jsonl: text: is empty"):
        load(project, data)
    assert not Document.objects.exists() and not Query.objects.exists()
    assert load(project, data, leave_out_bad_rows=True).documents_created == 1


def test_a_preview_counts_what_stands_alone() -> None:
    found = preview_dataset(io.BytesIO(archive(BEIR)), importer="auto", filename="scifact.zip")
    assert (found.documents, found.queries, found.candidates, found.grades, found.errors) == (2, 2, 0, 2, ())
