"""The exporters of tasks for other annotation tools: Label Studio and Argilla, comparisons and ratings. Imports no Django.

The importers `label-studio` and `argilla` read the answers back, because each task keeps the imported ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import IO, Any

import pydantic

from labeling.importing.answers.rows import ExportedPair
from labeling.plugins import Exporter, register
from labeling.records import ExportedQuery


class _Options(Exporter.Options):
    predictions: bool = pydantic.Field(
        default=False, description="Include the panel's answers as predictions, which people then see."
    )


class _Tasks(Exporter):
    """A JSON array, written task by task."""

    Options = _Options
    options: _Options
    suffix = ".json"
    content_type = "application/json"

    def write(self, rows: Iterable[Any], stream: IO[bytes]) -> None:
        joint = b"[\n"
        for row in rows:
            for task in self.tasks(row):
                stream.write(joint + json.dumps(task, ensure_ascii=False, allow_nan=False).encode())
                joint = b",\n"
        stream.write(b"[]\n" if joint == b"[\n" else b"\n]\n")

    def tasks(self, row: Any) -> Iterator[dict[str, Any]]:
        raise NotImplementedError


def _pair(row: ExportedPair) -> tuple[dict[str, str], dict[str, str]]:
    """Texts and ids of a comparison."""
    texts = {"query": row.query, "document_a": row.a, "document_b": row.b}
    return texts, {"query_id": row.query_id, "document_a_id": row.a_id, "document_b_id": row.b_id}


def _ratings(row: ExportedQuery) -> Iterator[tuple[dict[str, str], dict[str, str], float | None]]:
    """Texts, ids and relevance of each candidate."""
    for document in row.documents:
        texts = {"query": row.text, "document": document.text}
        yield texts, {"query_id": row.id, "document_id": document.id}, document.relevance


@register
class LabelStudioPairs(_Tasks):
    """Judged pairs as tasks for a Pairwise control named `winner` over the texts document_a and document_b."""

    name = "label-studio-pairs"
    label = "Label Studio tasks: comparisons"
    format_help = "Judged pairs, for a Pairwise control over document_a and document_b."
    suffix = ".label-studio-pairs.json"
    reads = "pairs"

    def tasks(self, row: ExportedPair) -> Iterator[dict[str, Any]]:
        texts, ids = _pair(row)
        task: dict[str, Any] = {"data": texts | ids}
        if self.options.predictions and row.preference is not None and row.preference != 0.5:
            side = "left" if row.preference > 0.5 else "right"
            task["predictions"] = [
                _result("winner", "document_a,document_b", "pairwise", {"selected": side}, abs(2 * row.preference - 1))
            ]
        yield task


@register
class LabelStudioRatings(_Tasks):
    """Candidates as tasks for a Rating control named `grade` over the text `document`."""

    name = "label-studio-ratings"
    label = "Label Studio tasks: ratings"
    format_help = "Candidates, for a Rating control over document."
    suffix = ".label-studio-ratings.json"

    def tasks(self, row: ExportedQuery) -> Iterator[dict[str, Any]]:
        for texts, ids, relevance in _ratings(row):
            task: dict[str, Any] = {"data": texts | ids}
            if self.options.predictions and relevance is not None:
                stars = {"rating": 1 + round(4 * relevance)}
                task["predictions"] = [_result("grade", "document", "rating", stars, relevance)]
            yield task


def _result(name: str, to_name: str, kind: str, value: dict[str, Any], score: float) -> dict[str, Any]:
    result = {"from_name": name, "to_name": to_name, "type": kind, "value": value}
    return {"model_version": "zelo", "score": score, "result": [result]}


@register
class ArgillaPairs(_Tasks):
    """Judged pairs as records with the fields query, document_a and document_b, and a label question `winner`."""

    name = "argilla-pairs"
    label = "Argilla records: comparisons"
    format_help = "Judged pairs, for a label question named winner."
    suffix = ".argilla-pairs.json"
    reads = "pairs"

    def tasks(self, row: ExportedPair) -> Iterator[dict[str, Any]]:
        texts, ids = _pair(row)
        suggestion = None
        if self.options.predictions and row.preference is not None:
            value = "tie" if row.preference == 0.5 else "document_a" if row.preference > 0.5 else "document_b"
            suggestion = {"winner": {"value": value, "score": abs(2 * row.preference - 1), "agent": "zelo"}}
        yield _record(f"{row.query_id}/{row.a_id}/{row.b_id}", texts, ids, suggestion)


@register
class ArgillaRatings(_Tasks):
    """Candidates as records with the fields query and document, and a rating question `grade` of 0 to 4."""

    name = "argilla-ratings"
    label = "Argilla records: ratings"
    format_help = "Candidates, for a rating question named grade."
    suffix = ".argilla-ratings.json"

    def tasks(self, row: ExportedQuery) -> Iterator[dict[str, Any]]:
        for texts, ids, relevance in _ratings(row):
            suggestion = None
            if self.options.predictions and relevance is not None:
                suggestion = {"grade": {"value": round(4 * relevance), "score": relevance, "agent": "zelo"}}
            yield _record(f"{row.id}/{ids['document_id']}", texts, ids, suggestion)


def _record(
    name: str, texts: dict[str, str], ids: dict[str, str], suggestions: dict[str, Any] | None
) -> dict[str, Any]:
    """A record as `rg.Dataset.records.from_json` reads it."""
    return {
        "id": name,
        "fields": texts,
        "metadata": ids,
        "suggestions": suggestions or {},
        "responses": {},
        "vectors": {},
    }
