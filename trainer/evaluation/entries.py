"""Enters everything that an evaluation compares as a `Reranker` row, and turns a row into an order.

Each evaluation enters the baselines itself: first stage, BM25, the untrained base, each judge alone, and Elo as the upper
bound for a model trained on it. People enter external rerankers and TREC run files of the systems they use today.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

import numpy as np
from django.db import transaction

from labeling import audit
from labeling.models import Annotator, Candidate, Project
from labeling.stored_texts import stored_text
from scoring.quality import judge_order, judge_strengths
from scoring.storage.files import ChecksumMismatch, storage
from trainer.bases import MINILM, load_base
from trainer.evaluation.external.rerankers import VARIABLE, outside_endpoint
from trainer.evaluation.metrics import EvaluationQuery
from trainer.evaluation.model_orders import student_order, untrained_order
from trainer.evaluation.rankers import (
    BM25,
    Elo,
    FirstStage,
    Order,
    Outside,
    RunFile,
    Strengths,
)
from trainer.evaluation.run_files import Run, read_run
from trainer.models import Reranker
from trainer.serving.registry import artefact_folder, artefact_of

FIRST_STAGE, BM25_KIND, BASE, JUDGE, ELO = "first_stage", "bm25", "base", "judge", "elo"
OUTSIDE, RUN_FILE = "outside", "run_file"
LONGEST_NAME = 200
UNTRAINED_BASE = stored_text("untrained base (%(base)s)")
RESERVED = ("BM25", "Elo", "first stage")
_NEVER_IMPORTED = re.compile("[\0\ud800-\udfff]")  # the database takes no NUL and no lone surrogate


class EntryRefused(ValueError):
    """The reranker cannot be entered; the message says what to change."""


class NameTaken(EntryRefused):
    """The name is already taken by another reranker of the project or reserved for a baseline."""


def enter_baselines(project: Project, *, bases: Sequence[str] = (MINILM,)) -> list[Reranker]:
    """Create or rename the baseline rows that every trained reranker is compared with, and return them.

    If another reranker of the project has the name, a number is appended.
    """
    rows = [("BM25", BM25_KIND, ""), ("Elo", ELO, "")]
    if Candidate.objects.filter(query__project=project, first_stage_rank__isnull=False).exists():
        rows.append(("first stage", FIRST_STAGE, ""))
    rows += [(UNTRAINED_BASE % {"base": base}, BASE, base) for base in dict.fromkeys(bases)]
    judges = list(Annotator.objects.judges().filter(project=project, judgments__isnull=False).distinct().order_by("pk"))
    alike = Counter(judge.name for judge in judges)
    rows += [
        (judge_order(judge.name) + (f" ({judge.pk})" if alike[judge.name] > 1 else ""), JUDGE, str(judge.pk))
        for judge in judges
    ]
    return [
        Reranker.objects.update_or_create(
            project=project,
            kind=kind,
            location=location,
            defaults={"name": _free_name(project, name, kind=kind, location=location)},
        )[0]
        for name, kind, location in rows
    ]


def _free_name(project: Project, name: str, *, kind: str, location: str) -> str:
    """`name`, with a number appended if another row of the project has it."""
    others = Reranker.objects.filter(project=project).exclude(kind=kind, location=location)
    endings = itertools.chain([""], (f" ({number})" for number in itertools.count(2)))
    names = (name[: LONGEST_NAME - len(ending)] + ending for ending in endings)
    return next(each for each in names if not others.filter(name=each).exists())


def enter_outside(project: Project, endpoint: str, *, by: Any = None) -> Reranker:
    """An outside reranker that the operator defined. Raises UnknownOutside, OutsideInvalid, NameTaken."""
    found = outside_endpoint(endpoint)
    entered = Reranker.objects.filter(project=project, kind=OUTSIDE, location=found.name).first()
    if entered is not None:
        return entered
    _check_free(project, found.name, remedy=f"ask the operator to rename the endpoint in {VARIABLE}")
    with transaction.atomic():
        reranker = Reranker.objects.create(project=project, kind=OUTSIDE, location=found.name, name=found.name)
        _note_entered(reranker, by)
    return reranker


def _note_entered(reranker: Reranker, by: Any) -> None:
    audit.note("reranker.entered", project=reranker.project, actor=by, subject=reranker.name, kind=reranker.kind)


def _check_free(project: Project, name: str, *, remedy: str) -> None:
    """Raise NameTaken if the project has a reranker of that name or the name is reserved for a baseline."""
    other = Reranker.objects.filter(project=project, name=name).first()
    if other is not None:
        raise NameTaken(f"the project already has a reranker {name!r} ({other.kind}); {remedy}")
    if name in RESERVED or name.startswith(("untrained base ", "judge ")):
        raise NameTaken(f"{name!r} is the name of a baseline; {remedy}")


def enter_run_file(project: Project, name: str, stream: IO[bytes], *, by: Any = None) -> Reranker:
    """A TREC run under a name of its own. Raises EntryRefused, NameTaken, RowError."""
    if not name.strip() or len(name) > LONGEST_NAME or _NEVER_IMPORTED.search(name):
        raise EntryRefused(f"name is {name[:40]!r}; expected 1 to {LONGEST_NAME} characters of text")
    _check_free(project, name, remedy="choose another name")
    content = stream.read()
    run = read_run(io.BytesIO(content))
    prefix = f"{project.slug}/"
    names = {name for each in run if not _NEVER_IMPORTED.search(each) for name in (each, each.removeprefix(prefix))}
    known = set(project.queries.filter(external_id__in=names).values_list("external_id", flat=True))
    if not known:
        raise EntryRefused(
            f"none of the run's queries ({len(run):,}), such as {next(iter(run))!r}, belongs to this project; expected the "
            "ids that were imported"
        )
    with transaction.atomic():
        reranker = Reranker.objects.create(project=project, kind=RUN_FILE, name=name)
        reranker.location = f"runs/{project.pk}/{reranker.pk}.trec"
        reranker.checksum = storage().write_bytes(reranker.location, content)
        reranker.manifest = {"queries": len(run), "known_queries": len(known)}
        reranker.save()
        _note_entered(reranker, by)
    return reranker


def order_of(reranker: Reranker, queries: Sequence[EvaluationQuery]) -> Order:
    """The order of a row, ready to score these queries."""
    makers: Mapping[str, Callable[[], Order]] = {
        FIRST_STAGE: FirstStage,
        BM25_KIND: BM25,
        ELO: Elo,
        BASE: lambda: untrained_order(load_base(reranker.location)),
        JUDGE: lambda: _judge(reranker, queries),
        OUTSIDE: lambda: Outside(outside_endpoint(reranker.location)),
        RUN_FILE: lambda: _run_file(reranker, queries),
    }
    return makers[reranker.kind]() if reranker.kind in makers else _trained(reranker)


def _judge(reranker: Reranker, queries: Sequence[EvaluationQuery]) -> Order:
    ids = np.concatenate([query.candidate_ids for query in queries]) if queries else np.zeros(0, dtype=np.int64)
    query_ids = sorted(set(Candidate.objects.filter(pk__in=ids.tolist()).values_list("query_id", flat=True)))
    return Strengths(judge_strengths(reranker.project, query_ids).get(int(reranker.location), {}))


def _run_file(reranker: Reranker, queries: Sequence[EvaluationQuery]) -> Order:
    try:
        content = storage().read_bytes(reranker.location)
    except FileNotFoundError as error:
        raise ChecksumMismatch(f"the file of {reranker.name!r} is missing in the storage; enter it again") from error
    if hashlib.sha256(content).hexdigest() != reranker.checksum:
        raise ChecksumMismatch(f"the file of {reranker.name!r} was changed or damaged in the storage; enter it again")
    return RunFile(_by_query(read_run(io.BytesIO(content)), reranker.project, queries))


def _by_query(run: Run, project: Project, queries: Sequence[EvaluationQuery]) -> Run:
    """The run's rankings by `EvaluationQuery.id`; it may name a query by the imported id, or by "project/id" as in shared snapshots.

    Where a run has both, each counts as it is. An id that the project itself has is not that of another project's query.
    """
    foreign = [query.id for query in queries if query.project not in ("", project.slug)]
    taken = set(project.queries.filter(external_id__in=foreign).values_list("external_id", flat=True))
    found: Run = {}
    for query in queries:
        own = query.imported_id or query.id
        names = [query.id, f"{query.project or project.slug}/{own}"]
        if query.project in ("", project.slug):
            names.append(own)
        elif query.id in taken:
            names.remove(query.id)
        name = next((each for each in names if each in run), None)
        if name is not None:
            found[query.id] = run[name]
    return found


def _trained(reranker: Reranker) -> Order:
    """The order of a published reranker, loaded as the serving process loads it."""
    return student_order(artefact_folder(artefact_of(reranker)))
