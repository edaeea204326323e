"""The exporters of scores: zbench's annotated JSONL and TREC runs. Imports no Django."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import IO, Any

import numpy as np
import pydantic

from labeling.plugins import Exporter, ExportFailed, register
from labeling.records import ExportedDocument, ExportedQuery
from scoring.numerics.calibration.elo import ELO_MEAN, ELO_PER_LOGIT


@register
class ZbenchAnnotatedJsonl(Exporter):
    """Queries with scored documents, best first, in the format of zbench's annotated data set.

    `score` is zbench's value: the strength in logits, Elo without its scale and centre. Other fields are
    Elo, relevance in [0, 1], theta and its standard error in the fitted model's units, and the number of
    distinct pairs. All of them are null for an unrated document. `rank` and `first_stage_score` are the first stage's,
    `grade` is a person's, so that an import of the file restores them.
    """

    name = "zbench-annotated-jsonl"
    label = "zbench annotated JSONL"
    format_help = "Queries with scored documents, best first; an import restores ranks, grades and metadata."
    suffix = ".jsonl"
    content_type = "application/x-ndjson"

    class Options(Exporter.Options):
        unrated: bool = pydantic.Field(
            default=True, description="Include documents without a score (zbench cannot read these)."
        )

    options: Options

    def write(self, rows: Iterable[ExportedQuery], stream: IO[bytes]) -> None:
        for row in rows:
            documents = [
                _annotated(document) for document in row.documents if self.options.unrated or document.elo is not None
            ]
            query: dict[str, Any] = {"id": row.id, "query": row.text}
            if row.metadata:
                query["metadata"] = row.metadata
            line = json.dumps({"query": query, "documents": documents}, ensure_ascii=False, allow_nan=False)
            stream.write(line.encode() + b"\n")


def _annotated(document: ExportedDocument) -> dict[str, Any]:
    return {
        "id": document.id,
        "content": document.text,
        "metadata": document.metadata,
        "score": None if document.elo is None else (document.elo - ELO_MEAN) / ELO_PER_LOGIT,
        "elo": document.elo,
        "relevance": document.relevance,
        "theta": document.theta,
        "stderr": document.stderr,
        "comparisons": document.comparisons,
        "rank": document.first_stage_rank,
        "first_stage_score": document.first_stage_score,
        "grade": document.grade,
    }


@register
class TrecRun(Exporter):
    """`query Q0 document rank elo tag`, best first, without unscored documents.

    Scores fall strictly even as 32-bit floats, in which trec_eval reads them, so that the order survives. Raises ExportFailed for an id that contains a space, which the format does not allow.
    """

    name = "trec-run"
    label = "TREC run"
    format_help = "Best first, without documents that have no score."
    suffix = ".trec"
    content_type = "text/plain; charset=utf-8"

    class Options(Exporter.Options):
        tag: str = pydantic.Field(default="zelo", pattern=r"^\S{1,80}$", description="Run name in the last column.")

    options: Options

    def write(self, rows: Iterable[ExportedQuery], stream: IO[bytes]) -> None:
        for row in rows:
            rated = [document for document in row.documents if document.elo is not None]
            scores = strictly_falling([document.elo or 0.0 for document in rated])
            for rank, (document, score) in enumerate(zip(rated, scores, strict=True), start=1):
                line = f"{word(row.id)} Q0 {word(document.id)} {rank} {score} {self.options.tag}\n"
                stream.write(line.encode())


def strictly_falling(scores: Sequence[float]) -> list[str]:
    """The scores, best first, as 32-bit floats of which each is smaller than the one before.

    A score that is not becomes the next smaller float, a difference of about 0.0001 at Elo 1500.
    """
    found: list[np.float32] = []
    for score in scores:
        value = np.float32(score)
        found.append(min(value, np.nextafter(found[-1], np.float32(-np.inf))) if found else value)
    return [np.format_float_positional(value, unique=True, trim="0") for value in found]


def word(identifier: str, form: str = "TREC run") -> str:
    """An id as a field of a TREC file. Raises ExportFailed for one with a blank, which would end the field."""
    if len(identifier.split()) == 1 and identifier == identifier.strip():
        return identifier
    raise ExportFailed(
        f"the id {identifier!r} contains a space, which a {form} does not allow; export as JSONL instead"
    )
