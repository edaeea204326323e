"""Exports scores as zbench's annotated JSONL or TREC runs, streamed query by query.

`export_scores` reads candidates with their live scores in one consistent pass and passes each query
to an exporter plugin. The command line, the API and the pages call it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, cast

import numpy as np
import pydantic
from django.db import transaction

from labeling import audit
from labeling.models import Candidate, Project
from labeling.plugins import Exporter, get_plugin, register
from labeling.records import ExportedDocument, ExportedQuery
from scoring.known_scores import known
from scoring.numerics.calibration.elo import ELO_MEAN, ELO_PER_LOGIT


class ExportFailed(ValueError):
    """The format cannot represent a value."""


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
                line = f"{_word(row.id)} Q0 {_word(document.id)} {rank} {score} {self.options.tag}\n"
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


def _word(identifier: str) -> str:
    if len(identifier.split()) == 1 and identifier == identifier.strip():
        return identifier
    raise ExportFailed(
        f"the id {identifier!r} contains a space, which a TREC run does not allow; export as JSONL instead"
    )


def export_scores(
    project: Project,
    exporter_name: str,
    stream: IO[bytes],
    *,
    options: Mapping[str, Any] | None = None,
    by: Any = None,
) -> int:
    """Write the project's live scores; return the number of queries.

    Queries are in import order, documents best first, ties by document id, unrated ones last. One
    consistent read through a server-side cursor; memory holds one query at a time. Raises
    UnknownPlugin, pydantic.ValidationError for options, ExportFailed.
    """
    exporter = cast(Exporter, get_plugin("exporter", exporter_name).from_dict(dict(options or {})))
    written = itertools.count()
    with transaction.atomic():
        exporter.write(_counted(exported_queries(project), written), stream)
        queries = next(written)
        audit.note("scores.exported", project=project, actor=by, subject=exporter_name, queries=queries)
    return queries


def _counted(rows: Iterator[ExportedQuery], counter: itertools.count[int]) -> Iterator[ExportedQuery]:
    for row in rows:
        next(counter)
        yield row


_COLUMNS = (
    "query_id",
    "query__external_id",
    "query__text",
    "query__metadata",
    "document__external_id",
    "document__text",
    "document__metadata",
    "score__theta",
    "score__stderr",
    "score__elo",
    "score__relevance",
    "score__comparisons",
    "grade",
    "first_stage_rank",
    "first_stage_score",
)


def exported_queries(project: Project) -> Iterator[ExportedQuery]:
    """Yield the project's queries that have candidates. Must run inside a transaction."""
    rows = Candidate.objects.filter(query__project=project).order_by("query_id").values_list(*_COLUMNS)
    for _, group in itertools.groupby(rows.iterator(chunk_size=500), key=lambda row: row[0]):
        of_query = list(group)
        documents = sorted((_document(row) for row in of_query), key=_best_first)
        _, external_id, text, metadata = of_query[0][:4]
        yield ExportedQuery(id=external_id, text=text, metadata=metadata, documents=tuple(documents))


def _document(row: tuple[Any, ...]) -> ExportedDocument:
    named = known(dict(zip(_COLUMNS, row, strict=True)))
    external_id, text, metadata, theta, stderr, elo, relevance, comparisons, grade, rank, score = list(named.values())[
        4:
    ]
    return ExportedDocument(
        id=external_id,
        text=text,
        metadata=metadata,
        theta=theta,
        stderr=stderr,
        elo=elo,
        relevance=relevance,
        comparisons=comparisons or 0,
        grade=grade,
        first_stage_rank=rank,
        first_stage_score=score,
    )


def _best_first(document: ExportedDocument) -> tuple[bool, float, str]:
    """Return the sort key: unrated last, ties by id in code point order for any database collation."""
    return document.elo is None, -(document.elo or 0.0), document.id
