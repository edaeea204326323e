"""The exporters of training sets for sentence-transformers: pairs with a score, triplets, and lists. Imports no Django.

The columns are those that its losses read: pairs for CosineSimilarityLoss and a CrossEncoder's BinaryCrossEntropyLoss, triplets
for MultipleNegativesRankingLoss, lists for LambdaLoss and ListNetLoss. Documents without comparisons have no label.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

import pydantic

from labeling.plugins import Exporter, register
from labeling.records import ExportedDocument, ExportedQuery


class _TrainingSet(Exporter):
    content_type = "application/x-ndjson"

    def write(self, rows: Iterable[ExportedQuery], stream: IO[bytes]) -> None:
        for row in rows:
            for item in self.items(row):
                stream.write(json.dumps(item, ensure_ascii=False, allow_nan=False).encode() + b"\n")

    def items(self, row: ExportedQuery) -> Iterator[Mapping[str, Any]]:
        raise NotImplementedError


@register
class TrainingPairs(_TrainingSet):
    """A line for each scored document: query, document and its relevance in [0, 1] as the label."""

    name = "st-pairs"
    label = "sentence-transformers: pairs with score"
    format_help = "Query, document and relevance of each scored document."
    suffix = ".pairs.jsonl"

    def items(self, row: ExportedQuery) -> Iterator[Mapping[str, Any]]:
        for document in _scored(row):
            yield {"query": row.text, "document": document.text, "label": document.relevance}


@register
class TrainingTriplets(_TrainingSet):
    """Query, a relevant document, and a less relevant one: the best documents against the worst, best first.

    A triplet needs a difference of `margin` in relevance. Each positive meets `negatives` documents, the hardest first.
    """

    name = "st-triplets"
    label = "sentence-transformers: triplets"
    format_help = "Query, a relevant document and a less relevant one."
    suffix = ".triplets.jsonl"

    class Options(Exporter.Options):
        positives: int = pydantic.Field(default=3, ge=1, le=100, description="Most positives of a query.")
        negatives: int = pydantic.Field(default=5, ge=1, le=100, description="Most negatives of a positive.")
        margin: float = pydantic.Field(default=0.3, gt=0.0, le=1.0, description="Least difference in relevance.")

    options: Options

    def items(self, row: ExportedQuery) -> Iterator[Mapping[str, Any]]:
        scored = _scored(row)
        for positive in scored[: self.options.positives]:
            most = (positive.relevance or 0.0) - self.options.margin
            lower = [each for each in scored if each.relevance is not None and each.relevance <= most]
            for negative in lower[: self.options.negatives]:
                yield {"anchor": row.text, "positive": positive.text, "negative": negative.text}


@register
class TrainingLists(_TrainingSet):
    """A line for each query: its scored documents, best first, and their relevances in [0, 1]."""

    name = "st-lists"
    label = "sentence-transformers: lists"
    format_help = "Each query with its scored documents and their relevances."
    suffix = ".lists.jsonl"

    def items(self, row: ExportedQuery) -> Iterator[Mapping[str, Any]]:
        if scored := _scored(row):
            yield {
                "query": row.text,
                "docs": [document.text for document in scored],
                "labels": [document.relevance for document in scored],
            }


def _scored(row: ExportedQuery) -> list[ExportedDocument]:
    """Documents with comparisons, best first."""
    return [document for document in row.documents if document.elo is not None and document.relevance is not None]
