"""The steps of `manage.py demo`: import, judge by weak judges, replay the recorded panel, compare.

The sample brings its questions, candidates and the panel's answers along (`zelo_site.demo.sample.panel`). Each step skips the work
that the tables already contain, so an interrupted demo resumes. `zelo_site.demo.student` trains and proves; the terminal
output comes from `zelo_site.cli.watch`, the page's from `zelo_site.demo.announcing`.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from django.contrib.auth.models import User
from django.db import transaction
from django.utils.functional import cached_property

from labeling.access.annotators import get_judge
from labeling.importing.dataset import import_dataset
from labeling.models import Annotator, Candidate, Document, Judgment, Pair, Project, Query
from labeling.projects import change_project, create_project
from scoring.rating import stale_query_ids
from workers.jobs.recorded_judges import recorded_judges, store_recording
from workers.models import Attempt, JudgingTask, Run
from workers.runs.ordering import start_run
from workers.runs.planning import RECORDED
from workers.runs.transitions import cancel_run
from zelo_site.cli.terminal import ProgressBar, duration
from zelo_site.cli.watch import LOCAL_JUDGES, watch
from zelo_site.demo.announcing import begin_step
from zelo_site.demo.sample import sample_documents
from zelo_site.demo.sample.panel import Panel, sample_panel

NAME = "How do I … in Python?"
INSTRUCTION = (
    "The documents explain parts of Python's standard library. Prefer the one that solves the problem asked about."
)
SAMPLE = "standard-library"
SPLIT_BY, TEST = "split", "test"

WEAK_DEGREE = 4  # pairs of a candidate that the weak judges answer, as many as the panel answered
MAX_TOKENS = 64  # docstrings start with their topic: all 256 tokens gain .002 NDCG@10 in twice the time
POLL_S = 0.25
LEASES_END_S = 10.0

Tick = Callable[[], None]


class BadQuestions(ValueError):
    """There are not so many test questions."""


class Teller:
    """Tells each step in one sentence, in the terminal and on the project's page."""

    def __init__(self, project: Project, stream: TextIO | None = None) -> None:
        self._project, self._stream = project, stream

    def step(self, sentence: str) -> None:
        """Begin a step."""
        begin_step(self._project.pk, sentence)
        if self._stream is not None:
            self._stream.write(f"\n{sentence}\n")
            self._stream.flush()


# --- the project -------------------------------------------------------------------------


def chosen_panel(questions: int) -> Panel:
    """Return the panel with the first `questions` test questions (0: all) and as large a share of the others.

    Raises BadQuestions.
    """
    panel = sample_panel()
    wanted = panel.test_ids
    test = [each.id for each in panel.questions if each.id in wanted]
    others = [each.id for each in panel.questions if each.id not in wanted]
    if not 0 <= questions <= len(test):
        raise BadQuestions(f"--questions is {questions}; pass 1 to {len(test)}, or 0 for all")
    if questions in (0, len(test)):
        return panel
    kept = max(1, round(len(others) * questions / len(test)))
    return panel.only({*test[:questions], *others[:kept]})


def find_demo() -> Project | None:
    """Return the demo's project, recognised by a mark on its questions even if it was renamed."""
    return Project.objects.filter(queries__metadata__sample=SAMPLE).order_by("id").distinct().first()


def make_demo(owner: User, panel: Panel) -> Project:
    """Create a project with only the panel's questions, so that its page exists at once."""
    test = panel.test_ids
    with transaction.atomic():
        project = create_project(NAME, owner=owner, instruction=INSTRUCTION)
        Query.objects.bulk_create(
            [
                Query(
                    project=project,
                    external_id=each.id,
                    text=each.text,
                    domain=each.domain,
                    metadata={"domain": each.domain, "sample": SAMPLE} | ({SPLIT_BY: TEST} if each.id in test else {}),
                )
                for each in sorted(panel.questions, key=lambda each: each.id not in test)
            ]
        )
    return project


def import_documents(project: Project, *, stream: TextIO | None = None) -> None:
    """Import all documents of the sample, the questions' candidates and the grades in one transaction, unless they exist."""
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
        panel = panel_of(project)
        found = panel.found({each.id: each.text for each in documents})
        candidates = _store_candidates(project, found.candidates)
        _import_grades(project, panel)
    upload_panel(project)
    questions = len(panel.questions)
    bar.end(f"{len(documents):,} docstrings, {questions} questions in {duration(time.monotonic() - began)}")
    bar = ProgressBar("2 Candidates", stream)
    bar.end(f"{candidates:,}: the first stage's best of each question, BM25 and embeddings fused by rank")
    if found.left_out and stream is not None:
        stream.write(
            f"             {found.left_out:,} of {found.left_out + found.known:,} recorded answers are about docstrings that "
            "this Python version words differently; they are left out\n"
        )


def panel_of(project: Project) -> Panel:
    """Return the part of the panel about the project's questions."""
    return sample_panel().only(set(project.queries.values_list("external_id", flat=True)))


def _store_candidates(project: Project, names: Mapping[str, tuple[str, ...]]) -> int:
    queries = dict(project.queries.values_list("external_id", "id"))
    documents = dict(Document.objects.filter(project=project).values_list("external_id", "id"))
    rows = [
        Candidate(
            query_id=queries[query], document_id=documents[name], first_stage_rank=rank, first_stage_score=1.0 / rank
        )
        for query, own in names.items()
        for rank, name in enumerate(own, start=1)
    ]
    Candidate.objects.bulk_create(rows, batch_size=5000)
    return len(rows)


def _import_grades(project: Project, panel: Panel) -> None:
    """Import the grades of the test questions' candidates; judges cannot see them."""
    known = set(
        Candidate.objects.filter(query__project=project).values_list("query__external_id", "document__external_id")
    )
    test = panel.test_ids
    lines = [
        f"{query} 0 {name} {grade}\n"
        for query, own in panel.grades.items()
        if query in test
        for name, grade in own.items()
        if (query, name) in known
    ]
    import_dataset(project, io.BytesIO("".join(lines).encode()), importer="trec-qrels", filename="sample grades")


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


# --- judging -----------------------------------------------------------------------------


class DemoRuns:
    """The demo's runs, each started unless it exists: weak judges, then the panel on the test and on the other questions."""

    def __init__(self, project: Project) -> None:
        self._project = project

    @cached_property
    def graded(self) -> list[int]:
        """Ids of the test questions."""
        return self._of_split(True)

    @cached_property
    def training(self) -> list[int]:
        """Ids of the questions to learn from."""
        return self._of_split(False)

    def _of_split(self, is_test: bool) -> list[int]:
        rows = self._project.queries.order_by("id")
        rows = rows.filter(metadata__split=TEST) if is_test else rows.exclude(metadata__has_key=SPLIT_BY)
        return list(rows.values_list("id", flat=True))

    def weak(self) -> Run:
        """Judges that need no network, on the test questions."""
        found = self._run("cycles", self.graded)
        if found is not None:
            return found
        return start_run(
            self._project,
            judges=weak_judges(self._project),
            query_ids=self.graded,
            sampler_options={"degree": WEAK_DEGREE},
            seed=1,
        )

    def panel(self) -> Run:
        """Every judge of the panel on every recorded pair of the test questions."""
        found = self._run(RECORDED, self.graded)
        return found or self._recorded_run(self.graded, Run.Allocation.ALL)

    def lessons(self) -> Run:
        """One judge of the panel on each recorded pair of the other questions."""
        found = self._run(RECORDED, self.training)
        return found or self._recorded_run(self.training, Run.Allocation.ROTATE)

    def _run(self, sampler: str, query_ids: Sequence[int]) -> Run | None:
        return Run.objects.filter(project=self._project, sampler=sampler, query_ids=list(query_ids)).first()

    def _recorded_run(self, query_ids: Sequence[int], allocation: str) -> Run:
        judges = panel_judges(self._project) or upload_panel(self._project)
        return start_run(
            self._project, judges=judges, query_ids=query_ids, sampler=RECORDED, allocation=allocation, seed=2
        )


def weak_judges(project: Project) -> list[Annotator]:
    """Return the judges that need no network."""
    options = {"embedding": {"max_tokens": MAX_TOKENS}}
    return [get_judge(project, name, options.get(name)) for name in LOCAL_JUDGES]


def panel_judges(project: Project) -> list[Annotator]:
    """Return the judges of the recorded panel, none before the upload."""
    return next(iter(recorded_judges(project).values()), [])


def upload_panel(project: Project) -> list[Annotator]:
    """Upload the sample's recorded answers as a user would; return their judges."""
    lines = io.BytesIO(b"".join(panel_of(project).lines()))
    return list(store_recording(project, lines, filename="recorded panel").judges.values())


def judge_weakly(project: Project, *, tick: Tick, stream: TextIO | None = None) -> None:
    """Run the weak judges over the test questions to the end. Raises RunStopped."""
    _watch(DemoRuns(project).weak(), "3-5 Weak", tick=tick, stream=stream)


def judge_by_panel(project: Project, *, tick: Tick, stream: TextIO | None = None) -> None:
    """Replay the panel on all questions; afterwards only its answers count in the scores. Raises RunStopped."""
    runs = DemoRuns(project)
    with transaction.atomic():
        replays = [runs.panel(), runs.lessons()]
    for run, label in zip(replays, ("3-5 Panel", "3-5 Lessons"), strict=True):
        _watch(run, label, tick=tick, stream=stream)
    names = ", ".join(str(judge.pk) for judge in panel_judges(project))
    change_project(project, rater_options={**project.rater_options, "judges": names})
    while stale_query_ids(project.pk, limit=1):
        tick()
        time.sleep(POLL_S)


def _watch(run: Run, label: str, *, tick: Tick, stream: TextIO | None) -> None:
    if run.state != Run.State.FINISHED or stale_query_ids(run.project_id, limit=1):
        watch(run, bar=ProgressBar(label, stream), tick=tick)
