"""Files as they come: legal shapes that are unusual are read, and what nobody can read is named by what it is.

Each row of a table here is one of a kind that users of other tools report; the format is detected unless it is given.
"""

from __future__ import annotations

import bz2
import datetime
import decimal
import gzip
import io
import json
import lzma
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pytest_django import Settings

from labeling.importing import dataset
from labeling.importing.dataset import ImportFailed, Preview, import_dataset, preview_dataset
from labeling.importing.formats.tables.cells import table_cells
from labeling.importing.formats.tables.readers import parquet_rows
from labeling.importing.lines import RowError
from labeling.models import Document, Project, Query
from labeling.records import ImportedCandidate, ImportedDocument
from tests.factories.rows import make_project

ZSTD = b"\x28\xb5\x2f\xfd\x04\x00"
CSV = b"query,text\nwho,one\n"


def parquet(columns: Mapping[str, Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), stream, **options)
    return stream.getvalue()


def zipped(files: Mapping[str, bytes | str], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as made:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = method
            made.writestr(entry, data)
    return stream.getvalue()


def preview(data: bytes | str, importer: str = "auto", filename: str = "file", **options: Any) -> Preview:
    raw = data.encode() if isinstance(data, str) else data
    return preview_dataset(io.BytesIO(raw), importer=importer, filename=filename, options=options)


PAIRS = {"query_id": ["q1", "q1"], "query": ["who", "who"], "doc_id": ["d1", "d2"], "text": ["one", "two"]}
BEIR = {
    "s/corpus.jsonl": '{"_id":"d1","title":"T","text":"x"}\n',
    "s/queries.jsonl": '{"_id":"q1","text":"who"}\n',
    "s/qrels/test.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t1\n",
}
ZBENCH = {"query": {"id": "q1", "query": "who"}, "documents": [{"id": "d1", "content": "one"}]}
NOON = datetime.datetime(2020, 1, 2, 12)
TWO = [decimal.Decimal("1.00"), decimal.Decimal("2.50")]

# What is read: the file, its format, and (queries, documents, candidates, grades, judgments).
READ: dict[str, tuple[bytes | str, str, tuple[int, int, int, int, int]]] = {
    "a line that names the separator": ("sep=;\nquery;text\nwho;one\n", "table", (1, 1, 1, 0, 0)),
    "blank lines before the header": ("\n\nquery,text\nwho,one\n", "table", (1, 1, 1, 0, 0)),
    "a comment before the header": ("# exported in May\nquery,text\nwho,one\n", "table", (1, 1, 1, 0, 0)),
    "a header with a hash": ("#query,text\nwho,one\n", "table", (1, 1, 1, 0, 0)),
    "a column without a name": (",query,text\n0,who,one\n", "table", (1, 1, 1, 0, 0)),
    "spellings of no number": (
        "query_id,query,doc_id,text,grade\nq,who,a,x,NA\nq,who,b,y,nan\nq,who,c,z,NULL\nq,who,d,w,1\n", "table",
        (1, 4, 4, 1, 0),
    ),
    "several gzip members": (gzip.compress(CSV) + gzip.compress(b"what,two\n"), "table", (2, 2, 2, 0, 0)),
    "padding behind gzip": (gzip.compress(CSV) + b"\x00" * 512, "table", (1, 1, 1, 0, 0)),
    "large strings": (parquet({n: pa.array(v, pa.large_string()) for n, v in PAIRS.items()}), "table", (1, 2, 2, 0, 0)),
    "dictionaries": (parquet({n: pa.array(v).dictionary_encode() for n, v in PAIRS.items()}), "table", (1, 2, 2, 0, 0)),
    "Zstandard inside Parquet": (parquet(PAIRS, compression="zstd"), "table", (1, 2, 2, 0, 0)),
    "text as bytes": (parquet({**PAIRS, "text": pa.array([b"one", b"two"])}), "table", (1, 2, 2, 0, 0)),
    "decimals as scores": (parquet({**PAIRS, "score": pa.array(TWO)}), "table", (1, 2, 2, 0, 0)),
    "decimals as ids": (
        parquet({**PAIRS, "query_id": pa.array([decimal.Decimal(7)] * 2)}), "table", (1, 2, 2, 0, 0),
    ),
    "grades with a gap": (parquet({**PAIRS, "grade": [1.0, float("nan")]}), "table", (1, 2, 2, 1, 0)),
    "decimals as preferences": (
        parquet({"query": [1], "a": [2], "b": [3], "preference": pa.array(TWO[:1])}), "preferences", (0, 0, 0, 0, 1),
    ),
    "a comment in a run": ("# bm25\nq1 Q0 d1 1 12.5 t\n", "trec-run", (0, 0, 1, 0, 0)),
    "a score of fifty digits": (f"q1 Q0 d1 1 12.{'1234567890' * 5} t\n", "trec-run", (0, 0, 1, 0, 0)),
    "CDATA in topics": ('<topic number="1"><query><![CDATA[x < y]]></query></topic>', "trec-topics", (1, 0, 0, 0, 0)),
    "queries of Quepid without results": (
        "query,docid,rating\nwho,,\nwhat,d1,1\nwhy,d2,\n", "quepid-csv", (3, 0, 0, 1, 0),
    ),
    "BEIR packed on Windows": (zipped({k.replace("/", "\\"): v for k, v in BEIR.items()}), "beir", (1, 1, 0, 1, 0)),
    "BEIR of compressed files": (
        zipped({f"{k}.gz": gzip.compress(v.encode()) for k, v in BEIR.items()}), "beir", (1, 1, 0, 1, 0),
    ),
    "BEIR with grades in .txt": (zipped({k.replace(".tsv", ".txt"): v for k, v in BEIR.items()}), "beir", (1, 1, 0, 1, 0)),
    "BEIR packed with LZMA": (zipped(BEIR, zipfile.ZIP_LZMA), "beir", (1, 1, 0, 1, 0)),
    "BEIR's texts as Parquet": (
        zipped({
            "s/corpus/corpus-0.parquet": parquet({"_id": ["d1"], "title": ["T"], "text": ["x"]}),
            "s/queries/queries-0.parquet": parquet({"_id": ["q1"], "title": [""], "text": ["who"]}),
        }),
        "datasets-folder", (1, 1, 0, 0, 0),
    ),
    "a key that only later objects have": (
        '{"query_id":1,"query":"w","doc_id":1,"text":"x"}\n{"query_id":1,"query":"w","doc_id":2,"text":"y","grade":2}\n',
        "table", (1, 2, 2, 1, 0),
    ),
    "separators below the last row": ("query,text\nwho,one\n,\n , \n", "table", (1, 1, 1, 0, 0)),
    "an array of zbench's objects": (json.dumps([ZBENCH], indent=2), "zbench-jsonl", (1, 0, 1, 0, 0)),
    "BEIR in capitals": (zipped({k.upper(): v for k, v in BEIR.items() if "qrels" not in k}), "beir", (1, 1, 0, 0, 0)),
    "BEIR with plain ids": (zipped({k: v.replace("_id", "id") for k, v in BEIR.items()}), "beir", (1, 1, 0, 1, 0)),
    "BEIR's grades beside the texts": (
        zipped({k.replace("qrels/test", "qrels"): v for k, v in BEIR.items()}), "beir", (1, 1, 0, 1, 0),
    ),
    "a run with a header": ("qid Q0 docid rank score tag\nq1 Q0 d1 1 12.5 t\n", "trec-run", (0, 0, 1, 0, 0)),
    "a collection with a header": ("pid\tpassage\n1\ta b\n", "ms-marco-texts", (0, 1, 0, 0, 0)),
    "a table of single words between tabs": ("query\ttext\nwho\tone\n", "table", (1, 1, 1, 0, 0)),
    "a line that names the tab": ("sep=\t\nquery\ttext\nwho\tone\n", "table", (1, 1, 1, 0, 0)),
    "a last line that ends with Ctrl-Z": ("q1 0 d1 1\x1a", "trec-qrels", (0, 0, 0, 1, 0)),
    "training texts with negatives": (
        "anchor,positive,negative_1,negative_2\nwho,x,y,z\nwho,x,v,\n", "table", (1, 5, 4, 0, 0),
    ),
    "whole numbers written as 1.0": (
        '{"query":{"id":1.0,"query":"w"},"documents":[{"id":2.0,"content":"x"}]}\n', "zbench-jsonl", (1, 0, 1, 0, 0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", READ)
def test_unusual_files_are_read(kind: str) -> None:
    data, importer, expected = READ[kind]
    found = preview(data)
    assert (found.importer, found.errors) == (importer, ())
    assert (found.queries, found.documents, found.candidates, found.grades, found.judgments) == expected


def test_a_text_that_is_stored_once_is_not_unpacked_for_all_rows_together() -> None:
    schema, text = pa.schema([("query", pa.string()), ("document", pa.list_(pa.string()))]), "a" * 200_000
    table = pa.table({"query": [text] * 300, "document": [[text, text]] * 300}, schema=schema)
    pq.write_table(table, stream := io.BytesIO(), compression="zstd")
    assert len(stream.getvalue()) < 100_000
    tracemalloc.start()
    try:
        rows = parquet_rows(stream, 10_000_000, 10**12)
        assert next(rows)[1] == {"query": text, "document": [text, text]}
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()
    stream.seek(0)
    [(_, error)] = table_cells(stream, 500_000, 10**12)
    assert isinstance(error, RowError) and "holds a row of 6000" in error.problem


def test_nested_columns_are_metadata_and_embeddings_are_not() -> None:
    row = {
        "_id": "d1",
        "text": "x",
        "metadata": {"url": "u", "n": [1]},
        "tags": ["a"],
        "emb": [0.1, 0.2],
        "empty": [],
        "year": 1999,
    }
    for data in (json.dumps(row), parquet({name: [value] for name, value in row.items() if name != "empty"})):
        (found,) = preview(data).rows
        assert found.metadata == {"url": "u", "n": [1], "tags": ["a"], "year": 1999}  # type: ignore[union-attr]


def test_negatives_of_training_texts_are_candidates_of_their_query() -> None:
    rows = preview(
        '{"query":"who","positive":"x","negative":["y","z"]}\n{"query":"who","positive":"x","negative":["z"]}\n'
    ).rows
    texts = {row.id: row.text for row in rows if isinstance(row, ImportedDocument)}
    assert [texts[row.document_id] for row in rows if isinstance(row, ImportedCandidate)] == ["x", "y", "z"]


def test_quotes_between_tabs_are_text_unless_they_are_doubled_inside() -> None:
    rows = preview('query\ttext\nwho is\t"say ""hi"""\nwho was\t"whole"\nwho were\t"open\n').rows
    assert [row.text for row in rows if isinstance(row, ImportedDocument)] == ['say "hi"', '"whole"', '"open']


def test_arrows_types_become_those_of_json() -> None:
    columns = {"id": ["d1"], "text": ["one"], "at": [NOON], "day": [NOON.date()], "price": pa.array(TWO[1:])}
    (row,) = preview(parquet(columns)).rows
    assert row.metadata == {"at": "2020-01-02T12:00:00", "day": "2020-01-02", "price": 2.5}  # type: ignore[union-attr]


def tar(name: str, data: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as made:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        made.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def task(**annotation: Any) -> str:
    result = {"from_name": "r", "type": "rating", "value": {"rating": 3}}
    given = {"completed_by": 1, "result": [result], **annotation}
    return json.dumps([{"data": {"query": "q", "text": "t"}, "annotations": [given]}])


# What is refused: the file, the format that it goes to, and words of the problem and of the remedy.
REFUSED: dict[str, tuple[bytes | str, str, int, str, str]] = {
    "UTF-16 with a mark": (CSV.decode().encode("utf-16"), "auto", 1, "UTF-16", "as UTF-8"),
    "UTF-16 without a mark": (CSV.decode().encode("utf-16-le"), "table", 1, "UTF-16", "as UTF-8"),
    "UTF-32": (CSV.decode().encode("utf-32"), "auto", 1, "UTF-32", "as UTF-8"),
    "qrels in UTF-16": ("q1 0 d1 1\n".encode("utf-16"), "trec-qrels", 1, "UTF-16", "as UTF-8"),
    "Windows-1252": ("query,text\nwho,café\n".encode("cp1252"), "auto", 2, "(0xe9) is not UTF-8", "as UTF-8"),
    "quotes of Windows-1252": (b"query,text\nwho,\x93x\x94\n", "auto", 2, "(0x93) is not UTF-8", "as UTF-8"),
    "a NUL": ("query,text\nwho,o\0ne\n", "auto", 2, "NUL", "remove the character"),
    "gzip twice": (gzip.compress(gzip.compress(CSV)), "auto", 1, "inside a gzip file", "unpack it once"),
    "gzip with garbage behind": (gzip.compress(CSV) + b"garbage", "auto", 0, "damaged", "compress the file again"),
    "a flipped byte in packed JSON": (
        gzip.compress(json.dumps({f"q{n}": {"d": 1} for n in range(999)}).encode(), mtime=0)[:60] + b"\xff" * 400,
        "qrels-json", 1, "damaged", "copy or compress",
    ),
    "bzip2": (bz2.compress(CSV), "auto", 1, "bzip2", "unpack it"),
    "xz": (lzma.compress(CSV), "auto", 1, "xz", "unpack it"),
    "Zstandard": (ZSTD + CSV, "auto", 1, "Zstandard", "unpack it"),
    "a zip for a single file": (zipped({"f.csv": CSV}), "table", 1, "a zip archive", "unpack it"),
    "a zip of one file": (zipped({"f.csv": CSV}), "auto", 0, "holds f.csv", "import f.csv alone"),
    "an empty zip": (zipped({}), "auto", 1, "empty zip", "right file"),
    "a workbook": (zipped({"xl/workbook.xml": "<x/>"}), "auto", 0, "xl/workbook.xml", "as CSV"),
    "an old workbook": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 99, "auto", 1, "Office", "as CSV"),
    "a page of a log-in": ("<!DOCTYPE html><html><body>Sign in", "auto", 1, "web page", "download"),
    "a pointer of Git LFS": (
        "version https://git-lfs.github.com/spec/v1\noid sha256:0", "zbench-jsonl", 1, "Git LFS", "git lfs pull",
    ),
    "Parquet inside gzip": (gzip.compress(parquet(PAIRS)), "table", 1, "Parquet", "do not compress"),
    "a table without a header": ("q1,who is it,d1,x y\nq2,why is it,d2,y z\n", "auto", 0, "'q1', 'who is it'", "mapping"),
    "text of no format": ("q1:who\nq2:why\n", "auto", 1, "begins with 'q1:who'", "choose the file's format"),
    "one column twice": ("query,text,text\nwho,a,b\n", "auto", 0, "column 'text' twice", "rename"),
    "one column twice in Parquet": (
        (lambda stream: (pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 2, names=["text"] * 2), stream),
                         stream.getvalue())[1])(io.BytesIO()),
        "auto", 0, "column 'text' twice", "rename",
    ),
    "one id in two spellings": (
        "query_id,query,doc_id,text\n1,who,5,one\n1.0,who,6,two\n", "auto", 3, "line 2 has '1'", "whole numbers",
    ),
    "an id with a fraction": ('{"query_id":1,"query":"w","doc_id":2.5,"text":"x"}\n', "auto", 1, "is 2.5", "as texts"),
    "an id that is true": ('{"query_id":true,"query":"w","doc_id":"d","text":"x"}\n', "auto", 1, "true or false", "texts"),
    "a text that is an object": ('[{"query":{"text":"w"},"text":"x"}]', "auto", 1, "an object, not a text", "leave"),
    "bytes that are no text": (
        parquet({**PAIRS, "text": pa.array([b"one", b"\xff"])}), "auto", 2, "bytes that are not UTF-8", "leave",
    ),
    "infinity in a column": (parquet({"id": ["d"], "text": ["x"], "p": [float("inf")]}), "auto", 1, "p: is inf", "omit"),
    "NaN in a JSON array": ('[{"query":"w","text":"x","score":NaN}]', "auto", 1, "is nan", "omit"),
    "a decimal comma": ("q1 Q0 d1 1 12,5 t\n", "auto", 1, "'12,5'", "decimal point"),
    "a run of five columns": ("q1 Q0 d1 1 12.5\n", "auto", 1, "has 5 columns", "tabs"),
    "a last line of a report": ("q1 0 d1 1\nTotal: 1\n", "auto", 2, "has 2 columns", "tabs"),
    "triples of ids": ("1185869\t0\t1000004\n1185868\t16\t1000019\n", "auto", 1, "holds the ids 1185869", "join the ids"),
    "triples of small ids": ("1\t2\t3\n", "ms-marco-triples", 1, "holds the ids 1, 2, 3", "join the ids"),
    "documents with addresses": ("D1\thttp://x\tA title\tA body\n", "auto", 1, "begins with 'D1", "choose the file's format"),
    "0 for a loss": ("query,a,b,label\n1,x,y,1\n1,x,z,0\n", "auto", 3, "is '0'", "write a where"),
    "an annotator's endless id": (task(completed_by={"id": "k" * 999, "email": "a@b"}), "auto", 1, "annotator's id", "shorten"),
    "Argilla's users as an object": (
        '[{"query":"q","document":"d","r.responses":[1],"r.responses.users":{"a":1}}]', "auto", 1, "is not a list", "export",
    ),
    "documents in a list": ('{"query":"w","pos":["x"],"neg":["y"]}\n', "auto", 1, "pos: is a list", "a row for each document"),
    "documents in an object": (
        '{"query":"w","passages":{"passage_text":["a"],"is_selected":[1]}}\n', "auto", 1, "passages: is an object", "a row for each",
    ),
    "a line end in quotes between tabs": ('query\ttext\nwho is\t"one\ntwo"\n', "auto", 3, "has one field", "header's first name"),
    "a tar archive": (tar("s/corpus.jsonl", CSV), "auto", 1, "a tar archive", "as a zip archive"),
    "zbench's objects over several lines": (json.dumps(ZBENCH, indent=2), "auto", 1, "continues on the next", "jq -c"),
    "rows over several lines": (json.dumps({"query": "w", "text": "x"}, indent=2), "table", 1, "continues on the next", "jq -c"),
    "BEIR's corpus as an array": (
        zipped({"corpus.json": "[]", "queries.jsonl": BEIR["s/queries.jsonl"]}), "auto", 0, "corpus.json: is of another", "alone",
    ),
    "BEIR's grades as JSON": (zipped({**BEIR, "s/qrels/dev.json": "{}"}), "auto", 0, "dev.json: is of another", "alone"),
    "BEIR without ids": (zipped({"corpus.jsonl": '{"text":"x"}\n'}), "auto", 1, "_id: is missing", '"_id"'),
    "grades with commas": ("q1,0,d1,1\n", "trec-qrels", 1, "commas separate its fields", "by tabs"),
    "a run with no-break spaces": ("q1\u00a0Q0\u00a0d1\u00a01\u00a02\u00a0t\n", "trec-run", 1, "no-break spaces", "by tabs"),
    "a zero-width space before an id": ("q1 0 \u200bd1 1\n", "auto", 1, "invisible character U+200B", "remove the character"),
    "a line separator in an id": ("q1 0 d\u20281 1\n", "trec-qrels", 1, "is 'd\\u20281', with", "remove the character"),
    "a grade of null": ('{"q1": {"d1": null}}', "auto", 1, "grade: is missing", "as a number"),
    "grades by split": ('{"test": {"q1": {"d1": 1}}}', "qrels-json", 1, "is an object", "as a number"),
    "Label Studio's JSON-MIN": (
        '[{"query":"q","text1":"t","text2":"u","pw":"left","annotator":1,"annotation_id":1,"lead_time":2.5}]', "auto", 1,
        "JSON-MIN", "as JSON",
    ),
    "a result without an object": (task(result=[{"type": "rating", "value": "3"}]), "auto", 1, "value: is not an object", "as JSON"),
    "an entity in topics": (
        '<!DOCTYPE t [<!ENTITY a "aa">]>\n<topic number="1"><query>&a;</query></topic>', "auto", 1, "outside of a topic", "file",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_files_that_nobody_can_read_are_named(kind: str) -> None:
    data, importer, line, problem, remedy = REFUSED[kind]
    found = preview(data, importer)
    assert found.errors, "the file must be refused"
    error = found.errors[0]
    assert problem in str(error) and remedy in error.remedy, error
    assert f"line {line}" in str(error) if line else "line" not in str(error).split(":")[0], error


def test_an_error_within_a_topic_is_named_once() -> None:
    topic = "<top>\n<num>1\n<title>caf\xe9\n<desc>x\ny\n</top>\n<top><num>2<title>who</top>\n"
    found = preview(topic.encode("latin-1"))
    assert ([error.line for error in found.errors], found.queries) == ([3], 1)


@pytest.mark.django_db
def test_none_of_them_is_half_stored() -> None:
    project = Project.objects.create(name="Ponds", slug="ponds")
    for data, importer, *_ in REFUSED.values():
        raw = data.encode() if isinstance(data, str) else data
        with pytest.raises(ImportFailed):
            import_dataset(project, io.BytesIO(raw), importer=importer, filename="file")
    assert not Query.objects.exists() and not Document.objects.exists()


# --- files that are too long for a server --------------------------------------------------


def many_queries(count: int) -> bytes:
    rows = [{"query": {"id": f"q{n}", "query": "?"}, "documents": [{"id": "d", "content": "x"}]} for n in range(count)]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.mark.django_db
@pytest.mark.parametrize("leave_out", [True, False])
def test_a_file_with_too_many_rows_is_refused_and_nothing_is_stored(leave_out: bool, settings: Settings) -> None:
    settings.ZELO_MAX_IMPORT_ROWS = 10
    project = make_project()
    import_dataset(project, io.BytesIO(many_queries(10)), leave_out_bad_rows=leave_out)
    with pytest.raises(ImportFailed, match=r"more than 10 rows; expected at most 10 rows.*ZELO_MAX_IMPORT_ROWS"):
        import_dataset(project, io.BytesIO(many_queries(11)), leave_out_bad_rows=leave_out)
    assert project.queries.count() == 10


def test_a_preview_reads_so_many_rows_and_no_more(settings: Settings) -> None:
    settings.ZELO_PREVIEW_ROWS = 10
    stream = io.BytesIO(many_queries(200_000))
    found = preview_dataset(stream)
    assert (found.queries, found.complete, found.errors) == (10, False, ())
    assert stream.tell() < len(stream.getvalue()) / 10
    assert preview_dataset(io.BytesIO(many_queries(10))).complete


@pytest.mark.parametrize("importer", ["zbench-jsonl", "table"])
def test_a_preview_ends_in_time_even_if_a_small_file_unpacks_to_no_rows(
    importer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "PREVIEW_S", 0.0)
    packed = io.BytesIO(gzip.compress(b"\n" * 100_000_000, 1))
    began = time.process_time()
    found = preview_dataset(packed, importer=importer)
    assert time.process_time() - began < 10
    assert not found.complete
    assert "within 0 s" in str(found.errors[0])
