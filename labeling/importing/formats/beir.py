"""The format `beir`: a folder or zip with corpus.jsonl, queries.jsonl and qrels/*.tsv. Imports no Django."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

import pydantic

from labeling.importing.archives import ZIP_MAGIC, DataFile, named_damage, open_files, refused
from labeling.importing.formats import fields
from labeling.importing.formats.line_importer import LineOptions, Row, RowImporter
from labeling.importing.formats.trec_qrels import TrecQrels
from labeling.importing.lines import RowError, numbered_lines
from labeling.importing.strict_json import BadJson, parse
from labeling.plugins import register
from labeling.records import ImportedDocument, ImportedGrade, ImportedQuery

_TEXTS = {"corpus.jsonl": "documents", "queries.jsonl": "queries"}
_GRADES = (".tsv", ".txt", ".qrels")
_SPREADSHEETS = (".xlsx", "xl/workbook.xml")


def _example() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, text in (
            ("set/corpus.jsonl", '{"_id": "d1", "title": "Goldfish", "text": "They grow as long as they live."}\n'),
            ("set/queries.jsonl", '{"_id": "q1", "text": "do goldfish grow"}\n'),
            ("set/qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t1\n"),
        ):
            archive.writestr(zipfile.ZipInfo(name), text)
    return stream.getvalue()


class BeirOptions(LineOptions):
    split: str = pydantic.Field(
        default="", max_length=100, description="The qrels file, for example test. Empty: all files in qrels."
    )
    judged_only: bool = pydantic.Field(default=False, description="Import only queries that have grades.")


@register
class Beir(RowImporter):
    """A BEIR data set: documents and queries without candidates, and grades, which count for recall.

    A document's text is its title and its text, as BEIR's own models read it; the title is metadata too.
    """

    name = "beir"
    label = "BEIR (folder or zip)"
    format_help = "A zip archive or a folder on the server with corpus.jsonl, queries.jsonl and qrels/*.tsv."
    example = _example()
    Options = BeirOptions
    options: BeirOptions

    @classmethod
    def recognises(cls, head: bytes, filename: str) -> float:
        return 0.6 + 0.35 * (b"corpus.jsonl" in head or b"queries.jsonl" in head) if head.startswith(ZIP_MAGIC) else 0.0

    def read_all(self, stream: IO[bytes] | Path, *, parts: bool = False) -> Iterator[Row | RowError]:
        with open_files(stream, self.options.max_total_bytes) as files:
            texts = [each for each in files if _name(each) in _TEXTS]
            grades = self._grade_files(files)
            _check_unread(files)
            if not texts and not grades:
                names = ", ".join(each.name for each in files[:5]) or "nothing"
                raise refused(
                    f"holds {names}",
                    expectation="corpus.jsonl, queries.jsonl or qrels/*.tsv",
                    remedy=_remedy(files),
                )
            _check_one_set(texts)
            judged = self._judged(grades) if self.options.judged_only else None
            for each in texts:
                yield from self._texts(each, judged)
            for each in grades:
                yield from self._grades(each)

    def _grade_files(self, files: list[DataFile]) -> list[DataFile]:
        found = [each for each in files if _are_grades(each) and _name(each).endswith(_GRADES)]
        if not self.options.split:
            return found
        chosen = [each for each in found if _stem(each) == self.options.split]
        if not chosen:
            names = ", ".join(_stem(each) for each in found) or "none"
            raise refused(
                f"has no qrels/{self.options.split[:80]}.tsv",
                expectation=f"one of the splits of the data set: {names}",
                remedy="change the option split, or leave it empty",
            )
        return chosen

    def _texts(self, file: DataFile, judged: set[str] | None) -> Iterator[Row | RowError]:
        are_queries = _TEXTS[_name(file)] == "queries"
        for line, body in self._lines(file):
            try:
                if isinstance(body, RowError):
                    raise body
                row = _text_row(body, line, are_queries=are_queries)
                if judged is None or not are_queries or row.id in judged:
                    yield row
            except RowError as error:
                yield _in_file(error, file)

    def _grades(self, file: DataFile) -> Iterator[ImportedGrade | RowError]:
        reader = TrecQrels()
        for line, body in self._lines(file):
            try:
                if isinstance(body, RowError):
                    raise body
                row = reader.parse_line(body, line)
                if row is not None:
                    yield row
            except RowError as error:
                yield _in_file(error, file)

    def _judged(self, files: list[DataFile]) -> set[str]:
        rows = (row for each in files for row in self._grades(each))
        return {row.query_id for row in rows if isinstance(row, ImportedGrade)}

    def _lines(self, file: DataFile) -> Iterator[tuple[int, bytes | RowError]]:
        with named_damage(file.name), file.open() as stream:
            yield from numbered_lines(stream, self.options.max_line_bytes, self.options.max_total_bytes)


def _name(file: DataFile) -> str:
    """The name in lower case, without its folder and without the ending of a compressed file."""
    return PurePosixPath(file.name).name.lower().removesuffix(".gz")


def _stem(file: DataFile) -> str:
    return PurePosixPath(_name(file)).stem


def _are_grades(file: DataFile) -> bool:
    return PurePosixPath(file.name).parent.name == "qrels" or _stem(file) == "qrels"


def _check_unread(files: list[DataFile]) -> None:
    """Refuse texts and grades in another format, which would be left out without a word."""
    stems = {_stem(each) for each in files if _name(each) in _TEXTS}
    for each in files:
        are_texts = _stem(each) in ("corpus", "queries") and _stem(each) not in stems
        if are_texts or (_are_grades(each) and _name(each).endswith((".csv", ".json", ".jsonl", ".parquet"))):
            raise refused(
                "is of another format",
                expectation="corpus.jsonl, queries.jsonl or qrels/*.tsv",
                remedy="write it in BEIR's format, or import each file alone as a table",
                file=each.name[:200],
            )


def _remedy(files: list[DataFile]) -> str:
    if any(each.name.endswith(_SPREADSHEETS) for each in files):
        return "export the sheet as CSV UTF-8"
    if len(files) == 1:
        return f"unpack the archive, and import {files[0].name} alone"
    return "choose the data set's own folder, or another format"


def _check_one_set(texts: list[DataFile]) -> None:
    folders = {str(PurePosixPath(each.name).parent) for each in texts}
    if len(folders) > 1:
        raise refused(
            f"holds {len(folders)} data sets ({', '.join(sorted(folders)[:5])})",
            expectation="one data set",
            remedy="import each of them into a project of its own",
        )


def _text_row(body: bytes, line: int, *, are_queries: bool) -> ImportedQuery | ImportedDocument:
    try:
        value = parse(body)
    except BadJson as error:
        raise fields.row_error(error, line) from None
    if not isinstance(value, dict):
        raise RowError(
            "is not an object", line=line, expectation="a JSON object", remedy='write {"_id": ..., "text": ...}'
        )
    identifier = fields.identifier(_id_of(value, line), "_id", line)
    metadata = _metadata(value.get("metadata"), line)
    title, text = value.get("title") or "", value.get("text")
    if are_queries:
        return ImportedQuery(identifier, fields.text(text, "text", line), (), metadata, line)
    if isinstance(title, str) and title.strip():
        metadata = {"title": title, **metadata}
        text = f"{title}\n{text or ''}".strip() if isinstance(text, str | None) else text
    return ImportedDocument(identifier, fields.text(text, "text", line), metadata, line=line)


def _id_of(value: Mapping[str, Any], line: int) -> Any:
    """The id, under `_id` or `id`."""
    for key in ("_id", "id"):
        if key in value:
            return value[key]
    raise RowError(
        "is missing", line=line, field="_id", expectation="the key '_id'", remedy='write {"_id": ..., "text": ...}'
    )


def _metadata(value: Any, line: int) -> Mapping[str, Any]:
    if value is None or isinstance(value, dict):
        return value or {}
    raise RowError(
        "is not an object",
        line=line,
        field="metadata",
        expectation="a JSON object",
        remedy="write {} or leave metadata out",
    )


def _in_file(error: RowError, file: DataFile) -> RowError:
    """The same error with the name of the file before its field."""
    where = f"{file.name}: {error.field}" if error.field else file.name
    return RowError(
        error.problem,
        line=error.line,
        field=where,
        expectation=error.expectation,
        remedy=error.remedy,
        ends_file=error.ends_file,
    )
