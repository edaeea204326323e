"""The exporters of texts and grades: TREC qrels and a BEIR data set. Imports no Django."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import IO, Any

import pydantic

from labeling.importing.answers.rows import ExportedText
from labeling.plugins import Exporter, ExportFailed, register
from labeling.records import ImportedGrade
from scoring.exports.scores import word
from scoring.exports.zips import ZipFolder


@register
class TrecQrelsExport(Exporter):
    """The grades as `query 0 document grade`, those of documents that are not candidates included.

    Raises ExportFailed for an id with a blank, which the format does not allow, and for one that an import reads otherwise:
    the query id `#` begins a comment, and quotes around an id are taken off.
    """

    name = "trec-qrels"
    label = "TREC qrels (grades)"
    format_help = "Grades, those of documents that are not candidates included."
    suffix = ".qrels.txt"
    content_type = "text/plain; charset=utf-8"
    reads = "texts"

    def write(self, rows: Iterable[Any], stream: IO[bytes]) -> None:
        for row in rows:
            if isinstance(row, ImportedGrade):
                ids = (_plain(each) for each in (row.query_id, row.document_id))
                stream.write("{} 0 {} {}\n".format(*ids, row.grade).encode())


@register
class BeirExport(Exporter):
    """A zip with corpus.jsonl, queries.jsonl and the grades as qrels/<split>.tsv, as BEIR and MTEB read it.

    A document whose text begins with the title in its metadata is written with that title, so that an import restores it.
    """

    name = "beir"
    label = "BEIR (zip)"
    format_help = "All documents and queries, and the grades, as BEIR and MTEB read them."
    suffix = ".beir.zip"
    content_type = "application/zip"
    reads = "texts"

    class Options(Exporter.Options):
        split: str = pydantic.Field(
            default="test", pattern=r"^[A-Za-z0-9_-]{1,50}$", description="Name of the qrels file."
        )

    options: Options

    def write(self, rows: Iterable[Any], stream: IO[bytes]) -> None:
        files = {"document": "corpus.jsonl", "query": "queries.jsonl", "grade": f"qrels/{self.options.split}.tsv"}
        with ZipFolder(stream, files, {"grade": b"query-id\tcorpus-id\tscore\n"}) as folder:
            for row in rows:
                if isinstance(row, ExportedText):
                    line = json.dumps(_beir(row), ensure_ascii=False, allow_nan=False)
                    folder.write(row.kind, line.encode() + b"\n")
                else:
                    ids = (_cell(each) for each in (row.query_id, row.document_id))
                    folder.write("grade", "{}\t{}\t{}\n".format(*ids, row.grade).encode())


def _plain(identifier: str) -> str:
    if identifier == "#" or (len(identifier) > 1 and identifier[0] == identifier[-1] == '"'):
        raise ExportFailed(f"the id {identifier!r} would be read otherwise in a TREC file; export as BEIR instead")
    return word(identifier, "TREC file")


def _cell(identifier: str) -> str:
    """An id between tabs, in quotes where a CSV reader needs them or `#` would begin a comment."""
    if identifier != "#" and '"' not in identifier:
        return identifier
    return '"{}"'.format(identifier.replace('"', '""'))


def _beir(row: ExportedText) -> Mapping[str, Any]:
    if row.kind == "query":
        return {"_id": row.id, "text": row.text, "metadata": row.metadata}
    title, metadata, text = row.metadata.get("title"), dict(row.metadata), row.text
    if isinstance(title, str) and title and text == title:
        text = ""
    elif isinstance(title, str) and title and text.startswith(f"{title}\n"):
        text = text[len(title) + 1 :]
    else:
        title = ""
    if title:
        metadata.pop("title")
    return {"_id": row.id, "title": title, "text": text, "metadata": metadata}
