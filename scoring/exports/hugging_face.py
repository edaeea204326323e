"""The exporter `hugging-face`: a folder of Parquet files with a data set card, for `datasets.load_dataset`. Imports no Django.

Parquet needs its rows at once a row group, and a zip one file at a time, so texts go to temporary files first.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from typing import IO, Any, cast

import pydantic

from labeling.importing.answers.rows import ExportedText
from labeling.plugins import Exporter, register
from labeling.records import ExportedDocument, ExportedQuery, ImportedGrade
from scoring.exports.parquet import write_parquet
from scoring.exports.zips import ZipFolder

_IN_MEMORY = 16 * 1024 * 1024
_FILES = {
    "card": "README.md",
    "corpus": "corpus/test-00000-of-00001.parquet",
    "queries": "queries/test-00000-of-00001.parquet",
    "grades": "grades/test-00000-of-00001.parquet",
    "candidates": "candidates/test-00000-of-00001.parquet",
}


@register
class HuggingFace(Exporter):
    """A zip of a data set repository: the configurations corpus, queries, grades and candidates, and a card that describes them.

    Candidates have the first stage's rank and score, a person's grade, and elo, relevance, stderr and comparisons, which are
    null for a document without comparisons. Unpack it, then `load_dataset("FOLDER", "candidates", split="test")`. The importer
    `datasets-folder` reads it back.
    """

    name = "hugging-face"
    label = "Hugging Face data set (zip)"
    format_help = "Corpus, queries, grades and scored candidates as Parquet, with a data set card."
    suffix = ".dataset.zip"
    content_type = "application/zip"
    reads = "everything"

    class Options(Exporter.Options):
        title: str = pydantic.Field(
            default="Relevance scores",
            min_length=1,
            max_length=200,
            pattern=r"^[^\n\r]+$",
            description="Title of the card.",
        )
        license: str = pydantic.Field(
            default="unknown",
            pattern=r"^[A-Za-z0-9.+-]{1,50}$",
            description="Licence of the texts, as the hub spells it.",
        )

    options: Options

    def write(self, rows: Iterable[Any], stream: IO[bytes]) -> None:
        names = [name for name in _FILES if name != "card"]
        counts = dict.fromkeys(names, 0)
        with ExitStack() as stack:
            drafts = {name: stack.enter_context(_draft()) for name in names}
            _spread(rows, drafts, counts)
            folder = stack.enter_context(ZipFolder(stream, _FILES))
            folder.write("card", self._card(counts).encode())
            for name, draft in drafts.items():
                draft.seek(0)
                write_parquet(map(json.loads, draft), folder.member(name), _schema(name))

    def _card(self, counts: dict[str, int]) -> str:
        configurations = "".join(
            f"- config_name: {name}\n  data_files:\n  - split: test\n    path: {_FILES[name]}\n"
            + ("  default: true\n" if name == "candidates" else "")
            for name in counts
        )
        sizes = "\n".join(f"| {name} | {count:,} |" for name, count in counts.items())
        return _CARD.format(
            title=json.dumps(self.options.title, ensure_ascii=False),
            heading=self.options.title,
            license=self.options.license,
            configurations=configurations,
            sizes=sizes,
        )


_CARD = """---
pretty_name: {title}
license: {license}
task_categories:
- text-ranking
tags:
- relevance
- reranking
configs:
{configurations}---

# {heading}

Queries with candidate documents, and relevance that was fitted to pairwise judgments.

| configuration | rows |
|---|---|
{sizes}

- `corpus`: `document_id`, `text`, `metadata` (JSON).
- `queries`: `query_id`, `query`, `metadata` (JSON).
- `grades`: `query_id`, `document_id`, `grade`, those of documents that are not candidates included.
- `candidates`: `query_id`, `document_id`; `first_stage_rank` and `first_stage_score` of the retriever; `grade` of people;
  `elo` (mean 1500, 400 points are odds of 10 to 1), `relevance` in [0, 1], `stderr` in the units of the fitted model, and
  `comparisons`, the number of distinct pairs. A document that was compared with nothing has no `elo` and no `relevance`.
"""


def _draft() -> IO[bytes]:
    return cast(IO[bytes], tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))


def _spread(rows: Iterable[Any], drafts: dict[str, IO[bytes]], counts: dict[str, int]) -> None:
    """Write each text, grade and candidate as a JSON line of its file."""
    for row in rows:
        if isinstance(row, ExportedText):
            is_query = row.kind == "query"
            names = ("query_id", "query") if is_query else ("document_id", "text")
            text = {names[0]: row.id, names[1]: row.text, "metadata": _json(row.metadata)}
            _add(drafts, counts, "queries" if is_query else "corpus", text)
        elif isinstance(row, ImportedGrade):
            grade = {"query_id": row.query_id, "document_id": row.document_id, "grade": row.grade}
            _add(drafts, counts, "grades", grade)
        else:
            for document in row.documents:
                _add(drafts, counts, "candidates", _candidate(row, document))


def _add(drafts: dict[str, IO[bytes]], counts: dict[str, int], name: str, values: dict[str, Any]) -> None:
    drafts[name].write(_json(values).encode() + b"\n")
    counts[name] += 1


def _candidate(row: ExportedQuery, document: ExportedDocument) -> dict[str, Any]:
    return {
        "query_id": row.id,
        "document_id": document.id,
        "first_stage_rank": document.first_stage_rank,
        "first_stage_score": document.first_stage_score,
        "grade": document.grade,
        "elo": document.elo,
        "relevance": document.relevance,
        "stderr": document.stderr,
        "comparisons": document.comparisons,
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _schema(name: str) -> Any:
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    columns: dict[str, list[tuple[str, Any]]] = {
        "corpus": [("document_id", text), ("text", text), ("metadata", text)],
        "queries": [("query_id", text), ("query", text), ("metadata", text)],
        "grades": [("query_id", text), ("document_id", text), ("grade", pa.int32())],
        "candidates": [
            *(("query_id", text), ("document_id", text), ("first_stage_rank", pa.int32())),
            *(("first_stage_score", number), ("grade", pa.int32()), ("elo", number), ("relevance", number)),
            *(("stderr", number), ("comparisons", pa.int32())),
        ],
    }
    return pa.schema(columns[name])
