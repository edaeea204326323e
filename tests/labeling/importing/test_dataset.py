"""Import against a real PostgreSQL: all or nothing, idempotent, grades; previews."""

from __future__ import annotations

import gzip
import io
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, ClassVar

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from labeling import plugins
from labeling.importing import dataset
from labeling.importing.dataset import ImportFailed, ImportSummary, import_dataset, preview_dataset
from labeling.importing.staging import MANY_ROWS
from labeling.judgments import record_judgments
from labeling.models import (
    Annotator,
    AuditEntry,
    Candidate,
    Document,
    Pair,
    Project,
    Query,
    UnmatchedGrade,
    config_hash,
)
from labeling.records import ImportedDocument, ImportedGrade, ImportedQuery, NewJudgment
from labeling.retrieval.candidates import fill_candidates
from tests.labeling.importing.files import jsonl, load, row

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return Project.objects.create(name="Ponds", slug="ponds")


def qrels(project: Project, text: str) -> ImportSummary:
    return import_dataset(project, io.BytesIO(text.encode()), importer="trec-qrels", filename="qrels.txt")


def stored() -> tuple[int, int, int]:
    return Query.objects.count(), Document.objects.count(), Candidate.objects.count()


# --- storing -----------------------------------------------------------------------------


def test_queries_documents_and_candidates_are_stored_in_the_files_order(project: Project) -> None:
    first = row("q1", "d2", "d1", metadata={"year": 1999})
    first["documents"][0] |= {"rank": 2, "score": 7.5}
    first["query"]["metadata"] = {"domain": "biology"}
    summary = load(project, first, row("q2", "d1", "d3"), row("q3"))
    assert summary == ImportSummary(
        queries=3, documents=3, candidates=4, queries_created=3, documents_created=3, candidates_created=4
    )
    assert list(Query.objects.values_list("external_id", "text", "domain", "judged_version")) == [
        ("q1", "about q1", "biology", 0),
        ("q2", "about q2", "", 0),
        ("q3", "about q3", "", 0),
    ]
    assert list(Document.objects.values_list("external_id", "metadata")) == [
        ("d2", {"year": 1999}),
        ("d1", {"year": 1999}),
        ("d3", {}),
    ]
    assert list(
        Candidate.objects.values_list(
            "query__external_id", "document__external_id", "first_stage_rank", "first_stage_score", "grade"
        )
    ) == [
        ("q1", "d2", 2, 7.5, None),
        ("q1", "d1", None, None, None),
        ("q2", "d1", None, None, None),
        ("q2", "d3", None, None, None),
    ]


def test_the_same_file_again_changes_nothing(project: Project) -> None:
    rows = [row("q1", "d1", "d2", rank=1), row("q2", "d2")]
    load(project, *rows)
    before = list(Candidate.objects.values_list())
    again = load(project, *rows)
    assert again.changed_nothing
    assert (again.queries, again.documents, again.candidates, again.kept) == (2, 2, 3, 0)
    assert list(Candidate.objects.values_list()) == before


def test_a_path_a_compressed_file_and_a_stream_give_the_same(project: Project, tmp_path: Path) -> None:
    data = jsonl(row("q1", "d1")).getvalue()
    path = tmp_path / "set.jsonl.gz"
    path.write_bytes(gzip.compress(data))
    assert import_dataset(project, path).candidates_created == 1
    assert import_dataset(project, str(path)).changed_nothing
    assert import_dataset(project, io.BytesIO(data)).changed_nothing


def test_new_documents_of_a_known_query_are_added(project: Project) -> None:
    load(project, row("q1", "d1"))
    summary = load(project, row("q1", "d1", "d2"))
    assert (summary.queries_created, summary.documents_created, summary.candidates_created) == (0, 1, 1)


def test_two_projects_do_not_share_texts(project: Project) -> None:
    other = Project.objects.create(name="Other", slug="other")
    load(project, row("q1", "d1"))
    changed = row("q1", "d1")
    changed["documents"][0]["content"] = "another text"
    assert load(other, changed).documents_created == 1


def test_missing_first_stage_ranks_are_filled_in_and_known_ones_kept(project: Project) -> None:
    load(project, row("q1", "d1"), row("q2", "d2", rank=3))
    summary = load(project, row("q1", "d1", rank=4, metadata={"new": 1}), row("q2", "d2", rank=5))
    assert list(Candidate.objects.values_list("first_stage_rank", flat=True)) == [4, 3]
    assert summary.kept == 2  # d1's metadata, d2's rank
    assert Document.objects.get(external_id="d1").metadata == {}
    assert "2 differ from the project" in str(summary)


@pytest.mark.parametrize("what", ["query", "document"])
def test_a_changed_text_under_a_known_id_is_refused_by_name(project: Project, what: str) -> None:
    load(project, row("q1", "d1", "d2"))
    changed = row("q1", "d1", "d2")
    if what == "query":
        changed["query"]["query"] = "another question"
    else:
        changed["documents"][1]["content"] = "another text"
    with pytest.raises(ImportFailed, match="has a different text in the project") as caught:
        load(project, row("q0", "d0"), changed)
    assert caught.value.line == 2
    assert repr("q1" if what == "query" else "d2") in caught.value.problem
    assert not Query.objects.filter(external_id="q0").exists()


def test_a_file_replaces_what_has_changed_but_no_text_with_judgments(project: Project) -> None:
    load(project, row("q1", "d1", "d2", "d3", rank=1), row("q2", "d4"))
    changed = [row("q1", "d1", rank=2, metadata={"new": 1}), row("q2", "d4")]
    changed[1]["query"]["query"], changed[1]["documents"][0]["content"] = "another question", "another text"
    summary = load(project, *changed, replaces=True)
    assert summary.replaced == 4 and "4 texts, metadata and first-stage ranks replaced" in str(summary)
    assert Query.objects.get(external_id="q2").text == "another question"
    assert Document.objects.get(external_id="d4").text == "another text"
    assert Document.objects.get(external_id="d1").metadata == {"new": 1}
    assert Candidate.objects.get(document__external_id="d1").first_stage_rank == 2
    assert load(project, *changed, replaces=True).changed_nothing
    assert AuditEntry.objects.latest("id").details == {"replaced": 4}

    a, b = Candidate.objects.filter(query__external_id="q1").order_by("id")[:2]
    judge = Annotator.objects.create(project=project, name="judge", plugin="bm25", config_hash=config_hash(n=1))
    pair = Pair.objects.create(a=a, b=b, query_id=a.query_id)
    record_judgments([NewJudgment(pair.pk, judge.pk, False, 0.75)])
    judged = row("q1", "d2", "d3")
    for document in judged["documents"]:
        document["content"] += " changed"
    with pytest.raises(ImportFailed, match="'d2' has a different text"):
        load(project, judged, replaces=True)
    assert load(project, judged, replaces=True, leave_out_bad_rows=True).replaced == 1
    assert Document.objects.get(external_id="d3").text == "text of d3 changed"
    judged["query"]["query"] = "another question"
    with pytest.raises(ImportFailed, match="the query 'q1' has a different text"):
        load(project, judged, replaces=True)


def test_many_rows_come_through_several_batches(project: Project) -> None:
    seen: list[int] = []
    rows = [row(f"q{number}", *(f"d{number}-{i}" for i in range(100))) for number in range(60)]
    assert MANY_ROWS < 6000
    assert load(project, *rows, progress=seen.append).candidates_created == 6000
    assert stored() == (60, 6000, 6000)
    assert seen == sorted(seen) and 0 < len(seen) < 10


def test_an_import_takes_few_statements_whatever_its_size(project: Project) -> None:
    with CaptureQueriesContext(
        connection,
    ) as small:
        load(project, row("q1", "d1"))
    with CaptureQueriesContext(connection) as large:
        load(project, *(row(f"q{n}", *(f"d{n}-{i}" for i in range(9))) for n in range(2, 100)))
    assert len(large) == len(small)


# --- all or nothing ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        b"{\n",
        b'{"query": {"id": "q9", "query": "w"}, "documents": [{"id": "d", "content": "a\\u0000"}]}\n',
        b'{"query": {"id": "q9", "query": "w"}, "documents": [{"id": "d", "content": "\\ud800"}]}\n',
        b'{"query": {"id": "q9", "query": "w"}, "documents": [{"id": "d", "content": NaN}]}\n',
        b'{"query": {"id": "q9", "query": "w"}, "documents": [{"id": "d", "content": ""}]}\n',
        b'{"query": {"id": "q9", "query": "\xff"}, "documents": []}\n',
        b'{"query": {"id": "q1", "query": "about q1"}, "documents": []}\n',
        b'{"query": {"id": "q9", "query": "w"}, "documents": [{"id": "d1", "content": "other"}]}\n',
        b"[" * 100_000 + b"\n",
        b" " * 3_000_000 + b"{}\n",
    ],
)
def test_a_bad_line_is_named_with_its_file_and_nothing_is_stored(project: Project, bad: bytes, settings: Any) -> None:
    settings.ZELO_MAX_LINE_BYTES = 2_000_000
    data = jsonl(row("q1", "d1"), row("q2", "d2")).getvalue() + bad
    with pytest.raises(ImportFailed) as caught:
        import_dataset(project, io.BytesIO(data), filename="bad.jsonl")
    assert (caught.value.file, caught.value.line) == ("bad.jsonl", 3)
    assert str(caught.value).startswith("bad.jsonl, line 3")
    assert caught.value.remedy
    assert stored() == (0, 0, 0)


def test_an_error_after_thousands_of_good_lines_leaves_nothing(project: Project) -> None:
    good = jsonl(*(row(f"q{number}", *(f"d{number}-{i}" for i in range(100))) for number in range(60))).getvalue()
    with pytest.raises(ImportFailed, match="line 61"):
        import_dataset(project, io.BytesIO(good + b"oops\n"), filename="f")
    assert stored() == (0, 0, 0)
    assert load(project, row("q1", "d1")).queries_created == 1  # the connection is usable again


@pytest.mark.parametrize("importer", ["zbench-jsonl", "trec-qrels"])
def test_a_file_without_rows_is_an_error(project: Project, importer: str) -> None:
    with pytest.raises(ImportFailed, match=r"^empty.txt: holds no rows"):
        import_dataset(project, io.BytesIO(b"\n\n"), importer=importer, filename="empty.txt")


def test_an_unknown_importer_is_named(project: Project) -> None:
    with pytest.raises(plugins.UnknownPlugin, match="trec-qrels"):
        import_dataset(project, io.BytesIO(b""), importer="parquet")


class Careless(plugins.Importer):
    """Lets through what the database refuses."""

    name = "careless"
    label = "Careless"
    rows: ClassVar[list[Any]] = []

    def read(self, stream: IO[bytes]) -> Iterator[ImportedQuery | ImportedGrade]:
        yield from self.rows


@pytest.mark.parametrize(
    "careless",
    [
        ImportedQuery("q", "NUL \x00", ()),
        ImportedQuery("q", "half \ud800", (), line=4),
        ImportedQuery("q" * 501, "long id", ()),
        ImportedQuery("q\n1", "line end in an id", ()),
        ImportedGrade("q", " d", 1),
        ImportedQuery("q", "what", (ImportedDocument("d", "text", rank=-1),)),
        ImportedQuery("q", "what", (ImportedDocument("d", "text", {"x": float("nan")}),)),
    ],
)
def test_what_a_careless_plugin_lets_through_is_an_import_failure(
    project: Project, careless: ImportedQuery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(plugins._registry, ("importer", "careless"), Careless)
    monkeypatch.setattr(Careless, "rows", [ImportedQuery("good", "good", ()), careless])
    with pytest.raises(ImportFailed, match=r"^file\.bin"):
        import_dataset(project, io.BytesIO(b""), importer="careless", filename="file.bin")
    assert stored() == (0, 0, 0)


# --- bad rows left out -------------------------------------------------------------------


def test_bad_rows_are_left_out_by_option_and_counted_by_reason(project: Project) -> None:
    load(project, row("q0", "known"))
    empty = row("q1", "d1") | {"documents": [{"id": "e", "content": ""}, {"id": "d1", "content": "text of d1"}]}
    other = row("q3") | {"documents": [{"id": name, "content": "another text"} for name in ("known", "d1")]}
    data = jsonl(empty, row("q1", "d2"), row("q2", "d1", "d3"), other).getvalue() + b"oops\n"
    with pytest.raises(ImportFailed, match="line 1"):
        import_dataset(project, io.BytesIO(data), filename="f")
    summary = import_dataset(project, io.BytesIO(data), filename="f", leave_out_bad_rows=True)
    # q3 has the document "d1" with a different text than line 1, and "known" with another text than the project.
    assert [(each.count, each.lines) for each in summary.left_out] == [
        (1, (1,)),
        (1, (2,)),
        (1, (4,)),
        (1, (5,)),
        (1, (4,)),
    ]
    assert "line 5" in str(summary) and "at least one visible character" in summary.left_out[0].reason
    assert list(Candidate.objects.order_by("id").values_list("query__external_id", "document__external_id")) == [
        ("q0", "known"), ("q1", "d1"), ("q2", "d1"), ("q2", "d3"),
    ]  # fmt: skip
    assert summary.candidates == 3
    again = import_dataset(project, io.BytesIO(data), filename="f", leave_out_bad_rows=True)
    assert again.changed_nothing and again.left_out == summary.left_out


def test_a_damaged_file_or_one_without_good_rows_is_refused_all_the_same(project: Project) -> None:
    packed = gzip.compress(jsonl(*(row(f"q{number}", f"d{number}") for number in range(500))).getvalue())
    with pytest.raises(ImportFailed, match="damaged or truncated"):
        import_dataset(project, io.BytesIO(packed[:-200]), filename="f", leave_out_bad_rows=True)
    with pytest.raises(ImportFailed, match=r"holds no good rows; 2 left out.*line 1, 2"):
        import_dataset(project, io.BytesIO(b"{\n{\n"), filename="f", leave_out_bad_rows=True)
    assert stored() == (0, 0, 0)


def test_texts_that_differ_only_in_blanks_around_them_are_the_same(project: Project) -> None:
    first, second = row("q1", "d"), row("q2", "d")
    second["documents"][0]["content"] = "\u00a0text of d \n"
    load(project, first, second)
    assert load(project, second | {"query": {"id": "q2", "query": "about q2\n"}}).changed_nothing


# --- two at once -------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_two_imports_at_once_share_documents_and_neither_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both files hold the same documents, in opposite orders: without the lock they would deadlock."""
    project = Project.objects.create(name="Ponds", slug="ponds")
    names = [f"d{number}" for number in range(3000)]
    files = [jsonl(row("q1", *names)), jsonl(row("q2", *reversed(names)))]

    both_are_staged = threading.Barrier(2, timeout=20)
    move = dataset.move

    def move_together(*arguments: Any, **options: Any) -> ImportSummary:
        both_are_staged.wait()
        return move(*arguments, **options)

    monkeypatch.setattr(dataset, "move", move_together)

    def run(file: io.BytesIO) -> ImportSummary:
        try:
            return import_dataset(project, file, filename="f")
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        summaries = list(pool.map(run, files))
    assert stored() == (2, 3000, 6000)
    assert sum(summary.documents_created for summary in summaries) == 3000
    assert sum(summary.candidates_created for summary in summaries) == 6000


# --- grades ------------------------------------------------------------------------------


def test_grades_go_to_candidates_and_those_of_other_documents_are_kept(project: Project) -> None:
    load(project, row("q1", "d1", "d2"), row("q2", "d1"))
    file = "q1 0 d1 3\nq1 0 d2 -1\nq9 0 d1 2\nq2 0 d2 1\nq1 0 d1 3\n"
    summary = qrels(project, file)
    assert (summary.grades, summary.grades_created, summary.grades_unmatched) == (4, 4, 2)
    assert list(Candidate.objects.values_list("grade", flat=True)) == [3, 0, None]
    assert "2 grades of documents that are not candidates" in str(summary)
    assert qrels(project, file).changed_nothing
    assert qrels(project, "q2 0 d2 2\n").grades_changed == 1
    load(project, row("q2", "d2"), row("q9", "d1"))
    assert list(Candidate.objects.order_by("id").values_list("grade", flat=True)) == [3, 0, None, 2, 2]
    assert not UnmatchedGrade.objects.exists()


def test_grades_wait_for_queries_and_retrieved_candidates(project: Project) -> None:
    """D9: grades come first, then texts without candidates, then the retriever finds some of them."""
    assert qrels(project, "q1 0 d1 2\nq1 0 missing 1\n").grades_created == 2
    load(project, {"query": {"id": "q1", "query": "text of d1"}, "documents": []}, row("other", "d1", "d2"))
    fill_candidates(project, retriever="bm25")
    assert Candidate.objects.get(query__external_id="q1", document__external_id="d1").grade == 2
    assert UnmatchedGrade.objects.get().document_external_id == "missing"


def test_grades_again_change_nothing_and_corrected_ones_replace(project: Project) -> None:
    load(project, row("q1", "d1", "d2"))
    qrels(project, "q1 0 d1 3\nq1 0 d2 1\n")
    assert qrels(project, "q1 0 d1 3\nq1 0 d2 1\n").changed_nothing
    assert qrels(project, "q1 0 d1 2\n").grades_changed == 1
    assert list(Candidate.objects.values_list("grade", flat=True)) == [2, 1]


def test_grades_of_another_data_set_are_refused(project: Project) -> None:
    load(project, row("q1", "d1"))
    with pytest.raises(ImportFailed, match=r"none of its grades \(2\)"):
        qrels(project, "x 0 d1 1\ny 0 d1 2\n")


def test_grades_of_another_project_are_not_touched(project: Project) -> None:
    other = Project.objects.create(name="Other", slug="other")
    load(project, row("q1", "d1"))
    load(other, row("q1", "d1"))
    qrels(other, "q1 0 d1 1\n")
    assert Candidate.objects.get(query__project=project).grade is None


# --- preview -----------------------------------------------------------------------------


def test_a_preview_shows_first_rows_and_every_error_and_stores_nothing() -> None:
    rows = [row("q1", "d1"), row("q2", "d2", "d3"), row("q1"), row("q3", "d1")]
    rows[3]["documents"][0]["content"] = "changed"
    data = jsonl(*rows).getvalue() + b"{\n" + jsonl(row("q4")).getvalue()
    preview = preview_dataset(io.BytesIO(data), filename="f.jsonl", rows=1)
    assert [item.id for item in preview.rows if isinstance(item, ImportedQuery)] == ["q1"]
    assert [(error.line, error.field) for error in preview.errors] == [
        (3, "query.id"),
        (4, "documents[0].content"),
        (5, ""),
    ]
    assert (preview.queries, preview.candidates, preview.complete) == (3, 3, True)
    assert stored() == (0, 0, 0)


def test_a_preview_lists_fifty_errors_and_counts_all_by_reason() -> None:
    bad = jsonl({"query": {"id": "q", "query": "x"}, "documents": [{"id": "d", "content": ""}]}).getvalue()
    preview = preview_dataset(io.BytesIO(b"oops\n" * 1000 + bad), filename="f")
    assert len(preview.errors) == 50 and preview.complete
    assert [(each.count, each.lines[0]) for each in preview.reasons] == [(1000, 1), (1, 1001)]
    assert not preview_dataset(io.BytesIO(b"oops\n" * 1000), filename="f", most_counted=999).complete


def test_a_preview_of_an_empty_file_says_so() -> None:
    assert "holds no rows" in str(preview_dataset(io.BytesIO(b""), filename="f").errors[0])


# --- real data ---------------------------------------------------------------------------


@pytest.mark.skipif("ZELO_DATA" not in os.environ, reason="needs the real data sets: set ZELO_DATA")
def test_trec_dl19_and_its_grades_come_in_whole(project: Project) -> None:
    folder = Path(os.environ["ZELO_DATA"]) / "trec_dl19"
    summary = import_dataset(project, folder / "candidates_judged100.jsonl")
    assert (summary.queries, summary.candidates) == (43, Candidate.objects.count())
    grades = import_dataset(project, folder / "qrels.txt", importer="trec-qrels")
    assert (grades.grades, grades.grades_created) == (9260, 9260)
    assert grades.grades_unmatched == 9260 - summary.candidates == UnmatchedGrade.objects.count()
    assert not Candidate.objects.filter(grade__isnull=True).exists()
