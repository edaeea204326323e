"""The project's published rerankers, and a form that ranks documents for a question with one of them.

The ranking server (`zelo_site.reranking`) does the ranking; the web process never loads a model.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django import forms
from django.db.models.fields.json import KT, KeyTransform
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from labeling.models import Document, Project, Query
from labeling.records import TextRecord
from labeling.retrieval.bm25 import BM25Index
from scoring.models import Snapshot
from scoring.numerics.measures.resampling import Interval
from trainer.models import Evaluation, Reranker
from trainer.publishing.manifests import ARTEFACTS, SENTENCE_TRANSFORMERS, is_embedding
from trainer.serving.forms.choice import Choice, choice_from
from trainer.serving.protocols import RerankRefused
from trainer.serving.registry import artefact_of, full_name, servable
from zelo_site.pages.forms import PageForm
from zelo_site.pages.scope import may_change, visible_project
from zelo_site.pages.texts import clipped, document_title
from zelo_site.reranking import pass_on

FORMS = (*ARTEFACTS, SENTENCE_TRANSFORMERS)
RANKED_AT_MOST = 50
SEARCHED_AT_MOST = 5000
TYPED_AT_MOST = 200
LONGEST_TEXT = 200_000
FEWEST_PLACES, MOST_PLACES = 3, 8


@dataclass(frozen=True, slots=True)
class Artefact:
    """One format of a published reranker in the list."""

    name: str
    bytes: int
    files: int


@dataclass(frozen=True, slots=True)
class Proved:
    """NDCG@10 on one held-out split against one reference."""

    snapshot_id: int
    snapshot: str
    split: str
    reference: str
    queries: int
    ndcg: Interval


@dataclass(frozen=True, slots=True)
class Shown:
    """A published reranker with its manifest and its evaluation results."""

    reranker: Reranker
    full_name: str
    base: str
    max_length: int | None
    parity: float | None
    artefacts: tuple[Artefact, ...]
    embeds: bool = False
    proofs: tuple[Proved, ...] = ()
    choice: Choice | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A document to rank; `before` is its input position, from 1."""

    title: str
    text: str
    before: int
    external_id: str = ""


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """A ranked document; `score` in [0, 1], `climbed` is the number of places up (negative: down)."""

    place: int
    document: Found
    score: float
    climbed: int


def rerankers_page(request: HttpRequest, slug: str) -> HttpResponse:
    """List the project's published rerankers, newest first."""
    project = visible_project(request, slug)
    published = list(servable().filter(project=project).select_related("project", "training_run"))
    proofs = _proofs(published, request.user)
    rows = [shown(each, proofs.get(each.pk, ())) for each in published]
    context = {
        "project": project,
        "rows": rows,
        "origin": f"{request.scheme}://{request.get_host()}",
        "may_change": may_change(request, project),
        "here": "rerankers",
    }
    return render(request, "zelo/rerankers/rerankers.html", context)


class TryForm(PageForm):
    """A question, and optional documents to rank for it."""

    query = forms.CharField(
        label=gettext_lazy("Question"),
        max_length=LONGEST_TEXT,
        error_messages={"required": gettext_lazy("Enter a question.")},
    )
    documents = forms.CharField(label=gettext_lazy("Documents"), max_length=LONGEST_TEXT, required=False)


def try_page(request: HttpRequest, slug: str, reranker_id: int) -> HttpResponse:
    """Show the form; a POST ranks the entered documents, or the project's documents that BM25 finds."""
    project = visible_project(request, slug)
    reranker = get_object_or_404(servable().select_related("project"), project=project, pk=reranker_id)
    context: dict[str, Any] = {"project": project, "shown": shown(reranker), "here": "rerankers"}
    if request.method == "POST":
        context["form"] = form = TryForm(request.POST)
        if form.is_valid():
            question, typed = form.cleaned_data["query"], form.cleaned_data["documents"]
            context |= _ranked(reranker, question, typed_documents(typed) or found_documents(project, question))
        else:
            context["problem"] = form.summary()
    else:
        first = Query.objects.filter(project=project).order_by("id").values_list("text", flat=True).first()
        context["form"] = TryForm(initial={"query": first or ""})
    return render(request, "zelo/rerankers/reranker_try.html", context)


def _proofs(published: Sequence[Reranker], user: Any) -> dict[int, tuple[Proved, ...]]:
    """Return the results by reranker, latest first, without values per query or snapshots that `user` may not see."""
    rows = (
        Evaluation.objects.filter(
            reranker__in=published, split__in=("test", "heldout"), snapshot__in=Snapshot.objects.visible_to(user)
        )
        .annotate(queries=KT("metrics__queries"), ndcg=KeyTransform("ndcg@10", KeyTransform("all", "metrics")))
        .values_list("reranker_id", "snapshot_id", "snapshot__name", "split", "reference", "queries", "ndcg")
        .order_by("-created_at", "-id")
    )
    found: dict[int, tuple[Proved, ...]] = {}
    for pk, snapshot_id, snapshot, split, reference, queries, ndcg in rows:
        proved = Proved(snapshot_id, snapshot, split, reference, int(queries), Interval(**ndcg))
        found[pk] = (*found.get(pk, ()), proved)
    return found


def shown(reranker: Reranker, proofs: tuple[Proved, ...] = ()) -> Shown:
    """Return a reranker's list entry; missing manifest fields stay empty."""
    manifest = reranker.manifest if isinstance(reranker.manifest, dict) else {}
    files = manifest.get("files") or {}
    parts = {name: [files[path] for path in files if path.startswith(f"{name}/")] for name in FORMS}
    differences = (manifest.get("parity") or {}).get("largest_difference") or {}
    return Shown(
        reranker=reranker,
        full_name=full_name(reranker),
        base=str((manifest.get("base") or {}).get("name", "")),
        max_length=manifest.get("max_length"),
        parity=max(differences.values(), default=None),
        artefacts=tuple(
            Artefact(name, sum(each.get("bytes", 0) for each in records), len(records))
            for name, records in parts.items()
            if records
        ),
        embeds=is_embedding(manifest),
        proofs=proofs,
        choice=choice_from(manifest.get("forms")),
    )


def typed_documents(text: str) -> list[Found]:
    """Split documents at empty lines, or at line ends if there are none."""
    parts = [part.strip() for part in text.replace("\r\n", "\n").split("\n\n")]
    if len(parts) == 1:
        parts = [line.strip() for line in parts[0].split("\n")]
    kept = [part for part in parts if part][:TYPED_AT_MOST]
    return [Found(title=clipped(part, 110), text=part, before=place) for place, part in enumerate(kept, start=1)]


def found_documents(project: Project, question: str) -> list[Found]:
    """Return the candidates of the query with this text, or the documents that BM25 finds in the project."""
    stored = Document.objects.filter(candidates__query__project=project, candidates__query__text=question)
    documents = list(stored.order_by("candidates__first_stage_rank", "id").distinct()[:RANKED_AT_MOST])
    if not documents:
        documents = _searched(
            list(Document.objects.filter(project=project).order_by("id")[:SEARCHED_AT_MOST]), question
        )
    return [
        Found(
            title=document_title(each.text, each.metadata),
            text=each.text,
            before=place,
            external_id=each.external_id,
        )
        for place, each in enumerate(documents, start=1)
    ]


def _searched(documents: Sequence[Document], question: str) -> list[Document]:
    by_id = {each.pk: each for each in documents}
    index = BM25Index([TextRecord(id=each.pk, text=each.text) for each in documents])
    return [by_id[number] for number, __ in index.top(question, RANKED_AT_MOST)]


def _ranked(reranker: Reranker, question: str, documents: Sequence[Found]) -> dict[str, Any]:
    if not documents:
        return {"problem": _("No document shares a word with the question. Enter documents to rank.")}
    body = {"query": question, "documents": [each.text for each in documents], "return_documents": False}
    try:
        reply = pass_on(artefact_of(reranker), "/v1/rerank", json.dumps(body).encode())
    except RerankRefused as error:
        return {"problem": f"{error}"}
    answer = reply.body
    if reply.status != 200:
        return {
            "problem": answer.get(
                "message", _("the ranking server answered %(status)s; see its log") % {"status": reply.status}
            )
        }
    rows = [
        RankedDocument(
            place=place,
            document=documents[row["index"]],
            score=row["relevance_score"],
            climbed=documents[row["index"]].before - place,
        )
        for place, row in enumerate(answer["results"], start=1)
    ]
    return {"ranked": rows, "places": places_apart([row.score for row in rows]), "meta": answer["meta"]}


def places_apart(scores: Sequence[float]) -> int:
    """Return the decimals that distinguish neighbouring scores, FEWEST_PLACES to MOST_PLACES."""
    gaps = [abs(above - below) for above, below in itertools.pairwise(scores) if above != below]
    needed = math.ceil(-math.log10(min(gaps))) if gaps else 0
    return min(max(needed, FEWEST_PLACES), MOST_PLACES)
