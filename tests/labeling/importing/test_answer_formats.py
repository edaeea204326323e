"""What annotation tools and zbench write, sound and ugly: preferences, ratings, Label Studio, Argilla, data sets on disk."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labeling.importing.answers.rows import ImportedPreference, ImportedRating
from labeling.importing.dataset import ImportFailed, import_dataset, preview_dataset
from labeling.importing.detection import detect, detect_source
from labeling.importing.formats import RowError, make_importer
from labeling.models import Annotator, Candidate, DatasetImport, Document, Judgment, Project, Query, RaterGrade
from labeling.plugin_checks import check_plugin
from labeling.plugins import get_plugin, registered
from labeling.records import AnswerKind, ImportedCandidate, ImportedDocument, ImportedGrade, ImportedQuery

KIB = 1024
ANSWERS = ("preferences", "zbench-scores", "label-studio", "argilla")


def read(importer: str, data: bytes | str, **options: Any) -> list[Any]:
    """All rows and errors of a file, with small limits."""
    made = make_importer(
        get_plugin("importer", importer), max_line_bytes=64 * KIB, max_total_bytes=512 * KIB, options=options
    )
    return list(made.read_all(io.BytesIO(data.encode() if isinstance(data, str) else data)))  # type: ignore[attr-defined]


def answers(importer: str, data: bytes | str, **options: Any) -> list[Any]:
    return [
        each
        for each in read(importer, data, **options)
        if isinstance(each, ImportedPreference | ImportedRating | RowError)
    ]


def archive(files: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return stream.getvalue()


def arrow(rows: list[dict[str, Any]]) -> bytes:
    table, stream = pa.Table.from_pylist(rows), io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


@pytest.mark.parametrize("importer", [*ANSWERS, "datasets-folder"])
def test_the_formats_keep_the_contract_and_are_detected(importer: str) -> None:
    plugin: Any = registered("importer")[importer]
    assert check_plugin(plugin) == []
    assert detect(plugin.example, "data") == importer
    assert detect(gzip.compress(plugin.example), "data.gz") == importer or importer == "datasets-folder"


# --- preferences -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "preference", "kind"),
    [
        ('{"qid": 1, "a": "x", "b": "y", "winner": "b", "round": 0, "flag": null}', 0.0, "preference"),
        ('{"query": "1", "a": "x", "b": "y", "preference": 0.25}', 0.25, "preference"),
        ('{"query": "1", "a": "x", "b": "y", "score": -1}', 1.0, "preference"),
        ('{"query": "1", "a": "x", "b": "y", "winner": "y"}', 0.0, "preference"),
        ('{"query": "1", "a": "x", "b": "y", "winner": "Left is better"}', 1.0, "preference"),
        ('{"query": "1", "a": "x", "b": "y", "winner": "TIE"}', 0.5, "preference"),
        ('{"query": "1", "a": "x", "b": "y", "winner": "neither"}', None, "both_irrelevant"),
        ('{"query": "1", "a": "x", "b": "y", "preference": null, "kind": "cannot_judge"}', None, "cannot_judge"),
        ('[{"query_id": "1", "doc_a": "x", "doc_b": "y", "label": "A"}]', 1.0, "preference"),
        ("topic\tdoc1\tdoc2\tpreferred\r\n1\tx\ty\t2\r\n", 0.0, "preference"),
        ("﻿query;a;b;winner\n1;x;y;equal\n", 0.5, "preference"),
    ],
)
def test_a_preference_is_read_in_many_spellings(line: str, preference: float | None, kind: str) -> None:
    assert detect(line.encode() + b"\n") == "preferences"
    (found,) = answers("preferences", line)
    assert (found.query_id, found.a_id, found.b_id) == ("1", "x", "y")
    assert (found.preference, found.kind) == (preference, AnswerKind(kind))


GOOD = "query,a,b,winner,annotator\n"
UGLY_PREFERENCES = [
    ("1,x,y,maybe,anna\n", 2, "is 'maybe'", "write a where"),
    ("1,x,x,a,anna\n", 2, "with itself", "leave the line out"),
    *(
        (f"1,x,y,{word},anna\n", 2, "is '", "write a where")
        for word in ("-1", "+1", "!a", "не a", "不是a", "a?", "a>b", "a/b", "¬b")
    ),
    *(
        (f"1,{pair},anna\n", 2, "a word for the other one", "as preferences")
        for pair in ("2,7,2", "7,1,1", "b,a,a", "right,left,left")
    ),
    ("1,x,y,None,anna\n", 2, "which Python writes for a missing value", "write neither"),
    ("1,x,y,0,anna\n", 2, "so 1 may be the document in column a or in b", "write a where"),
    ("1,x,,a,anna\n", 2, "b: is empty", "give it an id"),
    ("1,x,y,,anna\n", 2, "has no answer", "add the answer"),
    ("1,x,y,a\n", 2, "has 4 fields, the header 5", "double quotes"),
    ('1,"x,y,a,anna\n', 2, "well-formed CSV", "export the file again"),
    ("1,x,y,a," + "n" * 201 + "\n", 2, "annotator", "shorten"),
    ("1,x\0,y,a,anna\n", 2, "NUL", "remove the character"),
    ("1,x,y,a," + "m" * 70 * KIB + "\n", 2, "longer than 65536 bytes", "shorten the texts"),
    ("1," + "x" * 501 + ",y,a,anna\n", 2, "has 501 characters", "shorten or hash"),
]


@pytest.mark.parametrize("answer", ["preference", "winner"])
def test_a_kind_that_contradicts_the_answer_beside_it_is_named(answer: str) -> None:
    """A filler such as .5 beside "both_irrelevant" is no tie."""
    value = {"preference": "0.5", "winner": "tie"}[answer]
    table = f"query,a,b,{answer},kind\nq1,d1,d2,{value},both_irrelevant\nq1,d1,d3,{value},preference\n"
    (error, row) = answers("preferences", table)
    assert isinstance(error, RowError) and f"'both_irrelevant' beside the {answer}" in str(error)
    assert isinstance(row, ImportedPreference) and row.preference == 0.5


@pytest.mark.parametrize(("line", "number", "problem", "remedy"), UGLY_PREFERENCES)
def test_ugly_preferences_are_named_with_line_and_remedy(line: str, number: int, problem: str, remedy: str) -> None:
    errors = [each for each in answers("preferences", GOOD + line + "1,x,z,a,anna\n") if isinstance(each, RowError)]
    assert errors and errors[0].line == number and problem in str(errors[0]) and remedy in errors[0].remedy


@pytest.mark.django_db
def test_labels_that_count_from_zero_are_no_votes_even_where_bad_rows_are_left_out() -> None:
    """1 is the second document of such files, and the rows with 0 alone would be left out."""
    project = Project.objects.create(name="Ponds", slug="ponds")
    labelled = b"query,a,b,label\nq1,d1,d2,1\nq1,d2,d3,0\nq1,d1,d3,1\n"
    with pytest.raises(ImportFailed, match="so 1 may be the document in column a or in b"):
        import_dataset(project, io.BytesIO(labelled), importer="preferences", filename="f.csv", leave_out_bad_rows=True)
    assert not Judgment.objects.exists()


TASK = b'{"data": {"query": "q", "text": "t"}, "annotations": []},'
UGLY_FILES: list[tuple[str, bytes, str]] = [
    ("preferences", GOOD.encode("utf-16"), "UTF-16"),
    ("preferences", b"query,a,b,winner,annotator\n1,x,y,a,Andr\xe9\n", "0xe9"),
    ("preferences", b"query,a,a,b,winner\n1,x,y,z,a\n", "column 'a' twice"),
    ("preferences", b"query,a,winner\n1,x,a\n", "no column for b"),
    ("preferences", b'{"query": "1", "a": "x", "b": "y", "preference": NaN}\n', "is nan"),
    ("preferences", b'{"query": "1", "a": "x", "b": "y", "preference": Infinity}\n', "is inf"),
    ("preferences", b'{"query": "1", "a": "x", "b": "y", "preference": 1.2}\n', "number from 0 to 1"),
    ("preferences", b'{"query": "1", "a": "x", "b": "y", "preference": 1, "winner": "a"}\n', "preference and winner"),
    ("preferences", b'{"query": "1", "a": "x", "b": "y", "swapped": "perhaps", "winner": "a"}\n', "true or false"),
    ("preferences", gzip.compress(GOOD.encode() * 400, mtime=0)[:-9], "damaged or truncated"),
    ("preferences", gzip.compress(GOOD.encode() + b"1,x,y,a,n\n" * 100_000, mtime=0), "after decompression"),
    ("preferences", b"PAR1 and then nothing", "not a readable Parquet"),
    ("zbench-scores", b'{"scored_pairs": [1]}', "is not an object"),
    ("zbench-scores", b'{"scored_pairs": [{"pair": {"query_id": "q"}}]}', "pair.query"),
    ("zbench-scores", b'{"scored_pairs": [', "ends inside"),
    ("zbench-scores", b'{"scored_pairs": []} more', "nothing else must follow"),
    ("zbench-scores", b'{"pairs": []}', 'begins with {"scored_pairs": ['),
    ("zbench-scores", b"\xff\xfe{\x00", "UTF-16"),
    ("label-studio", b'[{"annotations": []}]', "data: is not an object"),
    ("label-studio", b'[{"data": {"query": "q", "text": "t"}, "annotations": {}}]', "annotations: is not a list"),
    ("label-studio", b'[{"data": {"text": "t"}, "annotations": []}]', "no query"),
    ("label-studio", b'[{"data": {"query": "q"}, "annotations": []}]', "no document"),
    ("label-studio", b'[{"data": {"query": "q", "text": "\\u200b"}, "annotations": []}]', "is empty"),
    ("label-studio", b'[{"data": {"query": "q", "text": "a\\u0000"}, "annotations": []}]', "NUL"),
    ("label-studio", b'[{"data": {"query": "q\\ud800", "text": "a"}, "annotations": []}]', "lone surrogate"),
    ("label-studio", b'[{"data": {"query": "q", "text": "a", "text": "b"}, "annotations": []}]', "occurs twice"),
    ("label-studio", b'[{"data": ' + b"[" * 60 + b"]" * 60 + b"}]", "nested more than"),
    ("label-studio", b'[{"id": 1}', "ends inside"),
    ("label-studio", gzip.compress(b"[" + TASK * 14_000 + b"{}]", mtime=0), "after decompression"),
    ("label-studio", b'[{"data": {"query": "' + b"q" * 400 * KIB + b'"}}]', "an element is longer"),
    ("argilla", b"[3]", "is not an object"),
    ("argilla", b'[{"fields": 1, "responses": {}}]', "fields: is not an object"),
    ("argilla", b'[{"fields": {"query": "q"}, "responses": {}}]', "no document"),
    ("argilla", b'[{"fields": {"query": "q", "document": "d"}, "responses": {"r": 1}}]', "responses.r: is not a list"),
    ("argilla", b'[{"fields": {"query": "q", "document": "d"}, "responses": {"r": [1]}}]', "responses.r: is not an object"),
    ("argilla", b'[{"fields": {"query": "q", "document": "d"}, "responses": {"r": [{"value": 1.5}]}}]', "1.5', a fraction"),
    ("argilla", b'[{"fields": {"query": "q", "document": "d"}, "responses": {"r": [{"value": "good"}]}}]', "is 'good'"),
    ("argilla", b'[{"fields": {"query": "q", "document": "d"}, "responses": {"r": [{"value": -1}]}}]', "is -1"),
    ("argilla", b'[{"fields": {"query": "q", "document": "d"}, "metadata": 4, "responses": {}}]', "metadata: is not an object"),
    ("argilla", b"\xef\xbb\xbf[{]", "ends inside"),
    ("argilla", b'{"fields": {"query": "q", "document": "d"}, "responses": {}}\nnot json\n', "not JSON"),
    ("argilla", "[{}]".encode("utf-16"), "UTF-16"),
    ("table", b"query_id,document_id,grade,rater\nq1,d1,2,\n", "the rater's name"),
    ("table", b"query_id,document_id,grade,rater\nq1,d1,two,anna\n", "is 'two'"),
    ("table", b"query_id,document_id,grade,rater\nq1,d1,2.5,anna\n", "a fraction"),
    ("table", b"query_id,document_id,grade,rater,rater\nq1,d1,2,a,b\n", "twice"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("importer", "data", "problem"),
    UGLY_FILES,
    ids=[f"{importer} {number} {problem}" for number, (importer, _, problem) in enumerate(UGLY_FILES)],
)
def test_ugly_files_are_named_and_leave_nothing_behind(importer: str, data: bytes, problem: str) -> None:
    errors = [each for each in read(importer, data) if isinstance(each, RowError)]
    assert errors, "the file must be refused"
    assert problem in str(errors[0]) and errors[0].remedy and errors[0].expectation


# --- zbench ------------------------------------------------------------------------------


def scored_pair(a: str, b: str, **scores: float) -> dict[str, Any]:
    side = {"metadata": {"k": 1}}
    pair = {"pair_id": f"q-{a}-{b}", "query_id": "q", "query": "who"} | {
        f"document_{name}": {"document_id": each, "content": f"text of {each}", **side}
        for name, each in (("a", a), ("b", b))
    }
    return {"pair": pair} | {f"{name}_score": {"thought": "", "score": score} for name, score in scores.items()}


def test_zbench_scores_bring_texts_once_and_an_answer_of_each_model() -> None:
    pairs = [scored_pair("x", "y", openai=-1.0, gemini=0.5), scored_pair("y", "z", openai=0.0)]
    rows = read("zbench-scores", json.dumps({"scored_pairs": pairs}))
    assert [type(each) for each in rows[:5]] == [
        *(ImportedQuery, ImportedDocument, ImportedCandidate, ImportedDocument, ImportedCandidate)
    ]
    assert rows[1].metadata == {"k": 1}
    given = [each for each in rows if isinstance(each, ImportedPreference)]
    assert [(each.annotator, each.preference) for each in given] == [("openai", 1.0), ("gemini", 0.25), ("openai", 0.5)]
    assert sum(isinstance(each, ImportedCandidate) for each in rows) == 3
    lines = "".join(json.dumps(each) + "\n" for each in pairs)
    assert [type(each) for each in read("zbench-scores", lines)] == [type(each) for each in rows]
    (refused,) = read("zbench-scores", json.dumps({"scored_pairs": [scored_pair("x", "y", m=2.0)]}))
    assert refused.field == "m_score.score"


# --- Label Studio and Argilla ------------------------------------------------------------

PAIR = {"query": "who", "query_id": "q", "text1": "one", "text1_id": "x", "text2": "two", "text2_id": "y"}
SINGLE = {"question": "who", "passage": "one"}


def studio(data: Mapping[str, Any], kind: str, value: Mapping[str, Any], **annotation: Any) -> bytes:
    result = {"from_name": "control", "to_name": "text1", "type": kind, "value": value}
    given = {"id": 1, "completed_by": 4, "was_cancelled": False, "result": [result], **annotation}
    return json.dumps([{"id": 1, "data": data, "annotations": [given], "predictions": []}]).encode()


@pytest.mark.parametrize(
    ("kind", "value", "preference"),
    [
        ("pairwise", {"selected": "left"}, 1.0),
        ("pairwise", {"selected": "right"}, 0.0),
        ("pairwise", {"selected": "text2"}, 0.0),
        ("choices", {"choices": ["Text 1 is better"]}, 1.0),
        ("choices", {"choices": ["Tie"]}, 0.5),
        ("choices", {"choices": ["neither"]}, None),
    ],
)
def test_label_studio_comparisons(kind: str, value: Mapping[str, Any], preference: float | None) -> None:
    (found,) = answers("label-studio", studio(PAIR, kind, value))
    assert (found.a_id, found.b_id, found.preference, found.by_person) == ("x", "y", preference, True)
    assert (found.annotator, found.annotator_key) == ("annotator 4", "4")


@pytest.mark.parametrize(
    ("kind", "value"), [("rating", {"rating": 3}), ("number", {"number": 3}), ("choices", {"choices": ["3"]})]
)
def test_label_studio_ratings_make_ids_from_texts(kind: str, value: Mapping[str, Any]) -> None:
    rows = read("label-studio", studio(SINGLE, kind, value, completed_by={"id": 7, "email": "a@b.c"}))
    query, document, candidate, rating = rows
    assert (query.text, document.text) == ("who", "one")
    assert (candidate.query_id, candidate.document_id) == (query.id, document.id)
    assert (rating.query_id, rating.grade, rating.annotator) == (query.id, 3, "a@b.c")


def test_label_studio_skips_what_was_cancelled_and_reads_predictions_on_request() -> None:
    assert answers("label-studio", studio(PAIR, "pairwise", {"selected": "left"}, was_cancelled=True)) == []
    task = json.loads(studio(PAIR, "pairwise", {"selected": "left"}))
    task[0]["predictions"] = [{"model_version": "v1", "result": task[0]["annotations"][0]["result"]}]
    data = json.dumps(task)
    assert [each.annotator for each in answers("label-studio", data, predictions=True)] == ["annotator 4", "v1"]
    assert answers("label-studio", data, predictions=True)[1].by_person is False
    assert answers("label-studio", data, question="another") == []


FIELDS = {"query": "who", "document_a": "one", "document_b": "two"}
IDS = {"query_id": "q", "document_a_id": "x", "document_b_id": "y"}
USER = "5c1c9f0a-0000-4000-8000-000000000001"


@pytest.mark.parametrize(
    ("value", "preference"),
    [
        ("document_b", 0.0),
        ("tie", 0.5),
        ([{"value": "document_a", "rank": 1}, {"value": "document_b", "rank": 2}], 1.0),
        ([{"value": "document_a", "rank": 1}, {"value": "document_b", "rank": 1}], 0.5),
    ],
)
def test_argilla_comparisons_in_all_three_shapes(value: Any, preference: float) -> None:
    given = {"value": value, "user_id": USER}
    shapes: list[dict[str, Any]] = [
        {"fields": FIELDS, "metadata": IDS, "responses": {"winner": [given]}},
        {"fields": FIELDS, "metadata": IDS, "responses": [{"user_id": USER, "values": {"winner": {"value": value}}}]},
        {**FIELDS, **IDS, "winner.responses": [value], "winner.responses.users": [USER]},
    ]
    for shape in shapes:
        data = json.dumps([shape]).encode()
        assert detect(data) == "argilla"
        (found,) = answers("argilla", data)
        assert (found.query_id, found.a_id, found.b_id, found.preference) == ("q", "x", "y", preference)
        assert (found.annotator, found.annotator_key, found.by_person) == ("user 5c1c9f0a", USER, True)


def test_argilla_skips_drafts_and_reads_suggestions_on_request() -> None:
    record = {
        "fields": {"query": "who", "document": "one"},
        "responses": {"grade": [{"value": 1, "user_id": USER, "status": "draft"}, {"value": 2, "user_id": USER}]},
        "suggestions": {"grade": {"value": 4, "agent": "m"}},
    }
    assert [each.grade for each in answers("argilla", json.dumps([record]))] == [2]
    assert [each.grade for each in answers("argilla", json.dumps([record]), predictions=True)] == [2, 4]
    assert answers("argilla", json.dumps(record))[0].grade == 2, "JSON lines too"


# --- Hugging Face ------------------------------------------------------------------------

ROWS = [
    {"query_id": "q1", "query": "who", "document_id": "d1", "text": "one", "grade": 2, "metadata": '{"k": [1]}'},
    {"query_id": "q1", "query": "who", "document_id": "d2", "text": "two", "grade": None, "metadata": None},
]


def test_a_data_set_on_disk_is_read_from_a_folder_and_a_zip(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    (tmp_path / "train" / "dataset_info.json").write_text("{}")
    (tmp_path / "train" / "data-00000-of-00001.arrow").write_bytes(arrow(ROWS))
    (tmp_path / "train" / "cache-1.arrow").write_bytes(b"rubbish")
    assert detect_source(tmp_path) == "datasets-folder"
    plugin = make_importer(get_plugin("importer", "datasets-folder"), max_line_bytes=64 * KIB)
    rows = list(plugin.read(tmp_path))  # type: ignore[arg-type]
    assert rows == [
        ImportedQuery("q1", "who", (), line=1),
        ImportedDocument("d1", "one", {"k": [1]}, line=1),
        ImportedCandidate("q1", "d1", line=1),
        ImportedGrade("q1", "d1", 2, line=1),
        ImportedDocument("d2", "two", line=2),
        ImportedCandidate("q1", "d2", line=2),
    ]
    zipped = archive({"s/dataset_info.json": b"{}", "s/data-00000-of-00001.arrow": arrow(ROWS)})
    assert detect(zipped) == "datasets-folder" and read("datasets-folder", zipped) == rows
    parquet = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), parquet)
    assert read("datasets-folder", archive({"s/test-0.parquet": parquet.getvalue()})) == rows
    assert read("datasets-folder", archive({"s/test-0.parquet": parquet.getvalue()}), split="test") == rows


def test_what_the_library_saves_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    made = datasets.Dataset.from_list([{name: row[name] for name in row if name != "metadata"} for row in ROWS])
    datasets.DatasetDict({"train": made}).save_to_disk(str(tmp_path / "set"))
    found = preview_dataset(tmp_path / "set", importer="auto")
    assert (found.importer, found.queries, found.documents, found.grades) == ("datasets-folder", 1, 2, 1)


BOMB = b"\x00" * 700 * KIB
UGLY_FOLDERS: list[tuple[bytes, str]] = [
    (archive({"a.txt": b"x"}), "holds a.txt"),
    (archive({}), "holds nothing"),
    (b"PK\x03\x04 no archive", "not a readable zip"),
    (archive({"../../etc/data.arrow": arrow(ROWS)}), "leads out of the archive"),
    (archive({"/data.arrow": arrow(ROWS)}), "leads out of the archive"),
    (archive({"s/data.arrow": arrow(ROWS)[:-90]}), "not a readable Arrow file"),
    (archive({"s/data.arrow": b"nothing of the kind"}), "not a readable Arrow file"),
    (archive({"s/data.arrow": BOMB}), "not a readable Arrow file"),
    (archive({"s/data.parquet": BOMB}), "after decompression"),
    (archive({"s/data.parquet": b"PAR1PAR1"}), "not a readable Parquet"),
    (archive({"s/data.arrow": arrow([{"x": 1}])}), "of which no text"),
    (archive({"s/data.arrow": arrow([{**ROWS[0], "text": ""}])}), "is empty"),
    (archive({"s/data.arrow": arrow([{**ROWS[0], "text": "a\0b"}])}), "NUL"),
    (archive({"s/data.arrow": arrow([{**ROWS[0], "metadata": "{"}])}), "not JSON"),
    (archive({"s/data.arrow": arrow([{**ROWS[0], "grade": 1.5}])}), "a fraction"),
    (archive({"s/data.arrow": arrow(ROWS)})[:-30], "not a readable zip"),
]


@pytest.mark.parametrize(("data", "problem"), UGLY_FOLDERS, ids=[problem for _, problem in UGLY_FOLDERS])
def test_ugly_folders_are_named(data: bytes, problem: str) -> None:
    try:
        errors = [each for each in read("datasets-folder", data) if isinstance(each, RowError)]
    except RowError as error:
        errors = [error]
    assert errors and problem in str(errors[0]) and errors[0].remedy


@pytest.mark.django_db
def test_nothing_is_half_stored() -> None:
    """Every ugly file that a whole import refuses leaves the project as it was."""
    project = Project.objects.create(name="Ponds", slug="ponds")
    files = [(importer, data) for importer, data, _ in UGLY_FILES] + [
        ("datasets-folder", data) for data, _ in UGLY_FOLDERS
    ]
    for importer, data in files:
        options = {"max_line_bytes": 64 * KIB, "max_total_bytes": 512 * KIB}
        with pytest.raises(ImportFailed):
            import_dataset(project, io.BytesIO(data), importer=importer, filename="f", options=options)
    for model in (Query, Document, Candidate, Annotator, Judgment, RaterGrade, DatasetImport):
        assert not model.objects.exists(), model
