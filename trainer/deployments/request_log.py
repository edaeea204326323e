"""The log of deployments: what is stored of a request and its answer, how long, and how it becomes queries of the project.

The web server hands requests over after their answers (`trainer.deployments.recorder`). Texts are redacted before they
are stored; neither the key nor the user is stored.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils import timezone

from labeling.importing.bulk import store_rows
from labeling.models import Document, Query
from labeling.records import ImportedDocument, ImportedQuery
from trainer.deployments.redaction import redacted
from trainer.deployments.routing import Route
from trainer.models import Deployment, LoggedRequest
from trainer.serving.addresses import RERANK, SCORE, normal
from trainer.serving.protocols import RerankRefused, read_body, read_request
from trainer.serving.score_protocol import read_score_request

MOST_DOCUMENTS = 200
LONGEST_TEXT = 20_000
BEYOND = 500  # longer than what is redacted
MOST_REQUESTS = 10_000
MOST_IMPORTED = 1_000
_OLD = """
DELETE FROM trainer_loggedrequest WHERE deployment_id = %(id)s AND id <= (
    SELECT id FROM trainer_loggedrequest WHERE deployment_id = %(id)s ORDER BY id DESC OFFSET %(most)s LIMIT 1)
"""
_OLD_RESULTS = _OLD.replace("loggedrequest", "shadowresult")
_TRIMMED = " \t\n\r\v\f"


@dataclass(frozen=True, slots=True)
class Answered:
    """A ranking request with its answer: the query, the documents in the request's order, and the score of each returned."""

    query: str
    documents: tuple[str, ...]
    scores: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class ImportedRequests:
    """Result of an import of logged requests: new queries and documents, and requests whose query the project already has."""

    requests: int
    queries: int
    documents: int
    known: int


def answered(path: str, content: bytes, reply: bytes) -> Answered | None:
    """The contents of a request and its successful answer; None for addresses that rank nothing, and for several queries."""
    address = normal(path)
    try:
        body, _ = read_body(content)
        found = json.loads(reply)
        if address in RERANK:
            request = read_request(address, body)
            rows = found if isinstance(found, list) else found["results"]
            scores = {row["index"]: row["score" if isinstance(found, list) else "relevance_score"] for row in rows}
            return Answered(request.query, request.documents, scores)
        if address in SCORE:
            ((query, documents),) = read_score_request(body).groups
            return Answered(query, documents, {row["index"]: row["score"] for row in found["data"]})
    except (RerankRefused, ValueError, KeyError, TypeError):
        return None
    return None


def to_log(request: Answered, route: Route, *, milliseconds: int) -> LoggedRequest:
    """The row to store: at most MOST_DOCUMENTS, the best; texts shortened to LONGEST_TEXT and redacted."""
    assert route.deployment_id is not None
    best_first = sorted(range(len(request.documents)), key=lambda row: (-request.scores.get(row, -math.inf), row))
    query, count = _to_store(request.query)
    documents = []
    for row in sorted(best_first[:MOST_DOCUMENTS]):
        text, found = _to_store(request.documents[row])
        count += found
        documents.append({"text": text, "place": row + 1, "score": request.scores.get(row)})
    return LoggedRequest(
        deployment_id=route.deployment_id,
        reranker_id=route.version.reranker_id,
        is_variant=route.is_variant,
        query=query,
        documents=documents,
        redactions=count,
        milliseconds=milliseconds,
        expires_at=timezone.now() + timedelta(days=route.log_days),
    )


def _to_store(text: str) -> tuple[str, int]:
    """A text for the log, and how much of it was replaced. It is redacted before it is cut: half of a number is not found."""
    head = text[: LONGEST_TEXT + BEYOND]
    is_cut = len(head) < len(text)
    text, count = redacted(head)
    if is_cut:
        text = text[:-BEYOND]
    return text[:LONGEST_TEXT].replace("\x00", " ").encode("utf-8", "replace").decode(), count


def trim(deployment_id: int, *, most: int = MOST_REQUESTS) -> None:
    """Delete the oldest requests and shadow results of a deployment beyond `most` each."""
    with connection.cursor() as cursor:
        for statement in (_OLD, _OLD_RESULTS):
            cursor.execute(statement, {"id": deployment_id, "most": most})


def purge_due() -> int:
    """Delete the logged requests whose time is over; returns how many."""
    with transaction.atomic():
        return LoggedRequest.objects.filter(expires_at__lt=Now()).delete()[0]


def import_logged(deployment: Deployment, *, most: int = 100, by: Any = None) -> ImportedRequests:
    """Make the newest logged requests new queries of the project, with their documents as candidates.

    Requests of one query become one. A document whose text the project has is that document. Requests whose query the
    project has under another id are left out: its judgments and splits stay as they are.
    """
    with transaction.atomic():
        waiting = LoggedRequest.objects.select_for_update().filter(deployment=deployment, imported_at=None)
        rows = list(waiting.order_by("-id")[: min(most, MOST_IMPORTED)])
        grouped: dict[str, list[LoggedRequest]] = {}
        for row in rows:
            grouped.setdefault(row.query.strip(_TRIMMED), []).append(row)
        grouped.pop("", None)
        known = _known_queries(deployment, list(grouped))
        new = {text: found for text, found in grouped.items() if text not in known}
        created = documents = 0
        if new:
            summary = store_rows(
                deployment.project, _rows(deployment, new), source=f"requests of {deployment.name}", by=by
            )
            created, documents = summary.queries_created, summary.documents_created
        LoggedRequest.objects.filter(pk__in=[row.pk for row in rows]).update(imported_at=Now())
    left = sum(len(found) for text, found in grouped.items() if text in known)
    return ImportedRequests(len(rows), created, documents, left)


def _known_queries(deployment: Deployment, texts: Sequence[str]) -> set[str]:
    """The texts that are queries of the project already, but for those that were imported from a log."""
    found = Query.objects.filter(project=deployment.project, text__in=texts).exclude(external_id__startswith="log-")
    return set(found.values_list("text", flat=True))


def _rows(deployment: Deployment, grouped: Mapping[str, Sequence[LoggedRequest]]) -> Iterator[ImportedQuery]:
    known = _known_documents(
        deployment, [each["text"] for rows in grouped.values() for row in rows for each in row.documents]
    )
    for text, rows in grouped.items():
        documents: dict[str, ImportedDocument] = {}
        for row in rows:
            for each in row.documents:
                trimmed = each["text"].strip(_TRIMMED)
                name, stored = known.get(_hash(trimmed), (f"log-{_sha(trimmed)}", trimmed))
                if trimmed and name not in documents:
                    documents[name] = ImportedDocument(name, stored, rank=len(documents) + 1)
        if documents:
            metadata = {"source": "request log", "deployment": deployment.name}
            yield ImportedQuery(f"log-{_sha(text)}", text, tuple(documents.values()), metadata)


def _known_documents(deployment: Deployment, texts: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The id and text of the project's documents with these texts, by the hash of the text."""
    hashes = {_hash(text.strip(_TRIMMED)) for text in texts}
    stored = Document.objects.filter(project=deployment.project, text_hash__in=hashes).order_by("-id")
    return {key: (name, text) for key, name, text in stored.values_list("text_hash", "external_id", "text")}


def _hash(trimmed: str) -> str:
    """The hash that the database keeps of a document's text without the blanks around it."""
    return hashlib.md5(trimmed.encode(), usedforsecurity=False).hexdigest()


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]
