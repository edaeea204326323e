"""The steps of `manage.py demo`: import, retrieve, judge and score docstrings of the standard library.

A few questions get BM25 candidates and are judged at once, while a thread embeds the collection; then
every question gets hybrid candidates and is judged. Each step skips the work that the tables already
contain, so an interrupted demo resumes. The sample comes from `zelo_site.demo.sample`, the terminal output
from `zelo_site.cli.watch`.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from django.contrib.auth.models import User
from django.db import transaction

from labeling.access.annotators import get_judge
from labeling.collection import ProjectCollection
from labeling.importing.dataset import import_dataset
from labeling.models import Annotator, Candidate, Document, Judgment, Pair, Project, Query
from labeling.projects import create_project
from labeling.records import TextRecord
from labeling.retrieval.bm25 import BM25Index
from labeling.retrieval.embedder import load_embedder
from labeling.retrieval.hybrid import HybridOptions, HybridRetriever
from scoring.rating import stale_query_ids
from workers.models import Attempt, JudgingTask, Run
from workers.runs.ordering import start_run
from workers.runs.transitions import cancel_run
from zelo_site.cli.terminal import ProgressBar, duration
from zelo_site.cli.watch import LOCAL_JUDGES, quality_table, watch
from zelo_site.demo.announcing import announce_embedding, end_announcement
from zelo_site.demo.sample import Question, sample_documents, sample_questions

NAME = "How do I … in Python?"
INSTRUCTION = (
    "The documents explain parts of Python's standard library. Prefer the one that solves the problem asked about."
)
SAMPLE = "standard-library"

FIRST_QUESTIONS = 8
FIRST_CANDIDATES = 20
CANDIDATES = 40
FUSED = 200  # ranks fused from each retriever, so that an early candidate has a fused rank too
MAX_TOKENS = 64  # docstrings start with their topic: NDCG@10 is .279, or .281 with all 256 tokens in twice the time
NICENESS = 5
POLL_S = 0.25
STOP_S = 3.0
LEASES_END_S = 10.0

Tick = Callable[[], None]


class Interrupted(RuntimeError):
    """The embedding was stopped; its finished vectors are kept."""


# --- the project -------------------------------------------------------------------------


def find_demo() -> Project | None:
    """Return the demo's project, recognised by a mark on its questions even if it was renamed."""
    return Project.objects.filter(queries__metadata__sample=SAMPLE).order_by("id").distinct().first()


def make_demo(owner: User, questions: Sequence[Question]) -> Project:
    """Create a project with only these questions, so that its page exists at once."""
    with transaction.atomic():
        project = create_project(NAME, owner=owner, instruction=INSTRUCTION)
        Query.objects.bulk_create(
            [
                Query(
                    project=project,
                    external_id=each.id,
                    text=each.text,
                    domain=each.domain,
                    metadata={"domain": each.domain, "sample": SAMPLE},
                )
                for each in questions
            ]
        )
    return project


def import_documents(project: Project, *, stream: TextIO | None = None) -> None:
    """Import all documents of the sample in one transaction, unless they exist."""
    if Document.objects.filter(project=project).exists():
        return
    bar, began = ProgressBar("1 Import", stream), time.monotonic()
    bar.show(0, 1, "reading docstrings of the standard library")
    documents = sample_documents()
    with transaction.atomic():
        Document.objects.bulk_create(
            [
                Document(project=project, external_id=each.id, text=each.text, metadata=dict(each.metadata))
                for each in documents
            ],
            batch_size=2000,
        )
    questions = Query.objects.filter(project=project).count()
    bar.end(f"{len(documents):,} docstrings, {questions} questions in {duration(time.monotonic() - began)}")


def delete_demo(project: Project, *, tick: Tick = lambda: None) -> None:
    """Cancel the project's runs, wait for open calls, and delete the project with all its data."""
    for run in Run.objects.filter(project=project):
        cancel_run(run)
    deadline = time.monotonic() + LEASES_END_S
    while JudgingTask.objects.filter(run__project=project).exists() and time.monotonic() < deadline:
        tick()
        time.sleep(POLL_S)
    with transaction.atomic():
        # Judgments and attempts protect their annotator, so delete them first.
        Attempt.objects.filter(run__project=project).delete()
        Judgment.objects.filter(annotator__project=project).delete()
        Pair.objects.filter(a__query__project=project).delete()
        project.delete()


# --- candidates --------------------------------------------------------------------------


def first_candidates(project: Project, *, stream: TextIO | None = None) -> list[int]:
    """Retrieve BM25 candidates for the first questions; return the query ids."""
    bar = ProgressBar("2 Candidates", stream)
    queries = ProjectCollection(project.pk).queries()[:FIRST_QUESTIONS]
    index = BM25Index(list(ProjectCollection(project.pk).documents()))
    Candidate.objects.bulk_create(
        [
            Candidate(query_id=query.id, document_id=document, first_stage_rank=rank, first_stage_score=score)
            for query in queries
            for rank, (document, score) in enumerate(index.top(query.text, FIRST_CANDIDATES), start=1)
        ],
        ignore_conflicts=True,
    )
    _import_grades(project)
    bar.end(f"{len(queries)} first questions by BM25")
    return [query.id for query in queries]


def all_candidates(project: Project) -> int:
    """Retrieve and rank hybrid candidates for every question; existing candidates stay and get new ranks.

    Returns the number of candidates.
    """
    collection = ProjectCollection(project.pk)
    queries, documents = collection.queries(), list(collection.documents())
    retriever = HybridRetriever(HybridOptions(depth=FUSED, max_tokens=MAX_TOKENS))
    with transaction.atomic():
        for query, ranking in zip(queries, retriever.retrieve(queries, documents, 2 * FUSED), strict=True):
            _store_ranking(query.id, ranking)
    _import_grades(project)
    return Candidate.objects.filter(query__project=project).count()


def _store_ranking(query_id: int, ranking: Sequence[tuple[int, float]]) -> None:
    """Add the best CANDIDATES of a fused ranking to the existing candidates, and rank all of them by it."""
    present = {each.document_id: each for each in Candidate.objects.filter(query_id=query_id)}
    chosen = [row for place, row in enumerate(ranking) if place < CANDIDATES or row[0] in present]
    new = []
    for rank, (document, score) in enumerate(chosen, start=1):
        if document not in present:
            new.append(Candidate(query_id=query_id, document_id=document))
        candidate = present.get(document) or new[-1]
        candidate.first_stage_rank, candidate.first_stage_score = rank, score
    Candidate.objects.bulk_create(new)
    Candidate.objects.bulk_update(present.values(), ["first_stage_rank", "first_stage_score"])


def _import_grades(project: Project) -> None:
    """Import the hand-made grades of the candidates; judges cannot see them."""
    candidates = Candidate.objects.filter(query__project=project)
    known = set(candidates.values_list("query__external_id", "document__external_id"))
    lines = [
        f"{question.id} 0 {name} {grade}\n"
        for question in sample_questions()
        for name, grade in question.grades.items()
        if (question.id, name) in known
    ]
    if not lines:
        return  # a few first questions may have no graded candidate yet
    import_dataset(project, io.BytesIO("".join(lines).encode()), importer="trec-qrels", filename="sample grades")


class Embedding:
    """Embeds the collection in a low-priority thread.

    The vectors go to the shared cache, which retriever and judge read; `stop` keeps the finished ones.
    """

    def __init__(self, queries: Sequence[TextRecord], documents: Sequence[TextRecord]) -> None:
        self._queries = [query.text for query in queries]
        self._documents = [document.text for document in documents]
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="embedding", daemon=True)
        self.done, self.total = 0, len(self._documents)

    def __enter__(self) -> Embedding:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(STOP_S)  # loading a model cannot be interrupted, and needs no cleanup

    def watch(self, *, tick: Tick, stream: TextIO | None = None) -> None:
        """Draw the progress until all documents are embedded; re-raises the thread's error."""
        bar, began = ProgressBar("2 Candidates", stream), time.monotonic()
        while self._thread.is_alive():
            bar.show(self.done, self.total, "docstrings embedded")
            tick()
            self._thread.join(POLL_S)
        bar.end(f"{self.done:,} docstrings embedded, {duration(time.monotonic() - began)} later")
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            with contextlib.suppress(OSError):  # only Linux has a priority per thread
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
            embedder = load_embedder(max_tokens=MAX_TOKENS)
            self._note(0, self.total)
            # One torch thread: such small batches lose more at barriers than a second core gains, and three
            # times as much while the judges need that core.
            embedder.encode(self._queries, role="query")
            embedder.encode(self._documents, progress=self._note)
        except BaseException as error:
            self._error = error

    def _note(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        if self._stopped.is_set():
            raise Interrupted("embedding stopped")


# --- judging -----------------------------------------------------------------------------


def demo_judges(project: Project) -> list[Annotator]:
    """Return the judges that need no network; they share the retriever's embeddings."""
    options = {"embedding": {"max_tokens": MAX_TOKENS}}
    return [get_judge(project, name, options.get(name)) for name in LOCAL_JUDGES]


def begin(project: Project, *, stream: TextIO | None = None) -> Run:
    """Return the run over the first questions, started unless it exists."""
    run = Run.objects.filter(project=project, query_ids__isnull=False).order_by("id").first()
    if run is not None:
        return run
    with transaction.atomic():
        first = first_candidates(project, stream=stream)
        return start_run(project, judges=demo_judges(project), query_ids=first, seed=1)


def whole_run(project: Project) -> Run | None:
    """Return the run over all questions, or None; if it exists, all candidates exist."""
    return Run.objects.filter(project=project, query_ids__isnull=True).order_by("id").first()


def judge_all(project: Project, *, stream: TextIO | None = None) -> Run:
    """Create candidates for every question and the run over them in one transaction."""
    bar = ProgressBar("2 Candidates", stream)
    with transaction.atomic():
        count = all_candidates(project)
        run = start_run(project, judges=demo_judges(project), seed=2)
    bar.end(f"{count:,} by BM25 and embeddings, rank fusion")
    return run


def show_demo(project: Project, *, tick: Tick, stream: TextIO | None = None) -> None:
    """Run the remaining steps and draw their progress until all questions are judged and rated.

    Raises RunStopped if a run was cancelled.
    """
    import_documents(project, stream=stream)
    run = whole_run(project) or _begun_run(project, tick=tick, stream=stream)
    if run.state != Run.State.FINISHED or stale_query_ids(project.pk, limit=1):
        watch(run, bar=ProgressBar("3-5 Judging", stream), tick=tick)


def _begun_run(project: Project, *, tick: Tick, stream: TextIO | None) -> Run:
    """Judge the first questions while the collection is embedded, then start the run over all questions."""
    announce_embedding(project.pk)
    collection = ProjectCollection(project.pk)
    try:
        first = begin(project, stream=stream)
        with Embedding(collection.queries(), list(collection.documents())) as embedding:

            def tick_and_announce() -> None:
                announce_embedding(project.pk, done=embedding.done, total=embedding.total)
                tick()

            watch(first, bar=ProgressBar("3-5 Judging", stream), tick=tick_and_announce)
            embedding.watch(tick=tick_and_announce, stream=stream)
        return judge_all(project, stream=stream)
    finally:
        end_announcement(project.pk)


# --- evaluation --------------------------------------------------------------------------


def proof(project: Project) -> str:
    """Return the closing table, including the BM25 order of the same candidates."""
    return quality_table(project, also={"BM25": bm25_order(project)})


def bm25_order(project: Project) -> dict[int, float]:
    """Return the BM25 score by candidate id."""
    collection = ProjectCollection(project.pk)
    index = BM25Index(list(collection.documents()))
    scores: dict[int, float] = {}
    for query in collection.queries():
        rows = list(Candidate.objects.filter(query_id=query.id).order_by("id").values_list("id", "document_id"))
        values = index.scores(query.text, [document for _, document in rows])
        scores |= {pk: value for (pk, _), value in zip(rows, values.tolist(), strict=True)}
    return scores
