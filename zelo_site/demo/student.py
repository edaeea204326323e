"""The last steps of `manage.py demo`: an embedding student learns from the panel's Elo, and is evaluated and served.

It learns from the training questions alone: the graded questions are the test, and dev questions are training questions that
are set aside, with Elo as their reference. Like the steps of `zelo_site.demo.steps`, each step skips finished work.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TextIO

from labeling.models import Project
from labeling.retrieval.precision import has_bfloat16
from labeling.stored_texts import stored_text
from scoring.models import Snapshot
from scoring.snapshots.freeze import SnapshotOptions, SnapshotRefused, freeze
from trainer.evaluation.gate import held_back_reason
from trainer.evaluation.leaderboard import Leaderboard, NotEvaluated, Row, leaderboard
from trainer.evaluation.metrics import NothingToMeasure
from trainer.models import Reranker, TrainingRun
from trainer.serving.registry import TRAINED
from workers.jobs.evaluation import EvaluationBusy, EvaluationRefused, order_evaluation, unfinished_evaluation
from workers.jobs.training import TrainingRefused, resume_training, start_training
from workers.models import Job
from zelo_site.cli.terminal import ProgressBar, duration, span, table
from zelo_site.demo.announcing import StoryRow, add_to_story
from zelo_site.demo.steps import SPLIT_BY, Teller, panel_judges

NAME = "lessons"
STUDENT = "the student"
# Searchers bring new questions to the same collection, so its documents are in all parts of the split.
FROZEN = SnapshotOptions(seed=1, split_by=SPLIT_BY, dev_share=0.25, test_share=0.0, shared_documents="keep")
# The upper half of MiniLM's six layers: the gradient ends there, which saves a third of the time.
LAYERS = (3, 4, 5)
ADAPTED = (
    "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense", "intermediate.dense",
    "output.dense",
)  # fmt: skip
# No trainer is named, so the demo trains with the recommended one. No folds, to end in minutes: the dev questions choose checkpoint and scale.
# 48 tokens hold half of the docstrings, and the first line of all. A step of four questions fits into one batch, so no text is computed twice.
LESSON: dict[str, Any] = {
    "base": "minilm", "epochs": 2, "queries_a_step": 4, "batch_size": 128, "max_length": 48, "learning_rate": 1e-3, "folds": 0,
    "targets": ",".join(f"{layer}.{name}" for layer in LAYERS for name in ADAPTED), "dev_rows": 1900,
    "dev_length": 48, "seed": 1,
}  # fmt: skip
POLL_S = 0.5
SPLIT = "test"
LEARNS = stored_text(
    "A small embedding model learns from the panel's Elo on the training questions; the test questions are hidden from it."
)
PROVES = stored_text(
    "The proof: the student ranks the test questions, which it has never seen, against its untrained base."
)

Tick = Callable[[], None]


class NoStudent(RuntimeError):
    """The training published no reranker; the message gives the reason."""


def show_student(project: Project, *, by: Any, tick: Tick, stream: TextIO | None = None) -> Reranker | None:
    """Run the missing steps (snapshot, training, evaluation) and draw their progress; None for a held-back student.

    Raises NoStudent. Each start retries a failed training once.
    """
    teller = Teller(project, stream)
    try:
        snapshot = frozen(project)
        run = TrainingRun.objects.filter(project=project, snapshot=snapshot).order_by("-pk").first()
        if run is None:
            run = start_training(project, snapshot, options=lesson(), by=by)
        elif run.state in (TrainingRun.State.FAILED, TrainingRun.State.CANCELLED):
            run = resume_training(run, by=by)
        add_to_story(project.pk, training=run.pk)
        teller.step(LEARNS)
        student = watch_training(run, tick=tick, stream=stream)
        teller.step(PROVES)
        prove(project, snapshot, tick=tick, stream=stream)
    except (SnapshotRefused, TrainingRefused, NothingToMeasure, EvaluationRefused) as error:
        raise NoStudent(str(error)) from error
    return student


def lesson() -> dict[str, Any]:
    """Return the training's options; bfloat16 where the processor multiplies it natively."""
    return {**LESSON, "precision": "bf16"} if has_bfloat16() else LESSON


def frozen(project: Project) -> Snapshot:
    """Return the demo's snapshot, created unless it exists."""
    known = Snapshot.objects.filter(projects=project, name=NAME).first()
    panel = [judge.pk for judge in panel_judges(project)]
    return known or freeze([project], name=NAME, options=FROZEN, panel=panel)


def watch_training(run: TrainingRun, *, tick: Tick, stream: TextIO | None = None) -> Reranker | None:
    """Draw the progress until the training ends; its reranker, or None if it was held back. Raises NoStudent."""
    bar, began = ProgressBar(f"7 Train ({run.trainer})", stream), time.monotonic()
    while run.state in (TrainingRun.State.PLANNED, TrainingRun.State.RUNNING):
        progress = run.progress
        bar.show(int(progress.get("step", 0)), int(progress.get("steps", 0)) or 1, _training_note(progress))
        tick()
        time.sleep(POLL_S)
        run.refresh_from_db()
    if run.state == TrainingRun.State.HELD_BACK:
        bar.end("held back")
        return None
    student = run.rerankers.filter(kind=TRAINED).first()
    if student is None:
        bar.end(run.state)
        raise NoStudent(
            f"{run.error or f'the training is {run.state}'}; to retry, start the demo again or run "
            f"`python manage.py train {run.project.slug} --resume {run.pk}`"
        )
    bar.end(f"{run.progress.get('step', 0):,} steps in {duration(time.monotonic() - began)}, best on the dev questions")
    return student


def _training_note(progress: dict[str, Any]) -> str:
    if not progress.get("loss"):
        warm = progress.get("warm_start")
        return f"warm start: {warm['step']:,} of {warm['steps']:,} steps" if warm else "loading the model"
    note = f"loss {progress['loss'][-1][1]:.4f}"
    if progress.get("ndcg"):
        note += f" · NDCG@10 {progress['ndcg'][-1][1]:.3f}"
    return note + (f" · {duration(progress['eta_s'])} left" if progress.get("eta_s") else "")


def prove(project: Project, snapshot: Snapshot, *, tick: Tick, stream: TextIO | None = None) -> None:
    """Evaluate all rerankers on the held-out questions, unless an evaluation is newer than the training."""
    if _is_proved(project, snapshot):
        return
    bar = ProgressBar("8 Prove", stream)
    job = unfinished_evaluation(project)
    while job is None:
        try:
            job = order_evaluation(project, snapshot, SPLIT)
        except EvaluationBusy:  # the training's worker has ordered one meanwhile
            job = unfinished_evaluation(project)
    while job.state in (Job.State.OPEN, Job.State.LEASED):
        bar.show(job.done, job.total or 1, job.message)
        tick()
        time.sleep(POLL_S)
        job.refresh_from_db()
    bar.end(job.message if job.state == Job.State.FINISHED else f"{job.state}: {job.error}")


def _is_proved(project: Project, snapshot: Snapshot) -> bool:
    try:
        rows = board(project, snapshot).rows
    except NotEvaluated:
        return False
    return (
        any(row.kind == TRAINED for row in rows) or not Reranker.objects.filter(project=project, kind=TRAINED).exists()
    )


def board(project: Project, snapshot: Snapshot) -> Leaderboard:
    """Return the demo's leaderboard against human grades. Raises NotEvaluated."""
    return leaderboard(project, snapshot, SPLIT, "grades")


def closing_table(project: Project) -> str:
    """Return the leaderboard of the held-out questions as a table, with a verdict on the trained reranker."""
    found = board(project, frozen(project))
    text = table(["ranker", "NDCG@10", "95 % interval", "vs BM25"], [_row(row) for row in found.rows])
    return f"{text}\n{found.queries} graded test questions, none used in training (their documents were: all questions share one collection)\n{verdict(found, held_back(project))}"


def student_rows(project: Project) -> list[StoryRow]:
    """Return the rows of the untrained base and the student for the page's table, after the evaluation."""
    kinds = {TRAINED: "student", "base": "baseline"}
    rows = [row for row in board(project, frozen(project)).rows if row.kind in kinds]
    found = []
    for row in sorted(rows, key=lambda row: row.kind == TRAINED):
        own = row.metrics["ndcg@10"]
        name = STUDENT if row.kind == TRAINED else row.name
        found.append(StoryRow(name, kinds[row.kind], own.estimate, own.low, own.high))
    return found


def _row(row: Row) -> list[str]:
    own, bm25 = row.metrics["ndcg@10"], row.against.get("bm25")
    change = f"{bm25.test.difference.estimate:+z.3f} ({bm25.verdict})" if bm25 else ""
    name = STUDENT if row.kind == TRAINED else row.name
    return [name, f"{own.estimate:.3f}", span(own, ".3f"), change]


def held_back(project: Project) -> TrainingRun | None:
    """Return the demo's training if it was held back."""
    run = TrainingRun.objects.filter(project=project, snapshot=frozen(project)).order_by("-pk").first()
    return run if run is not None and run.state == TrainingRun.State.HELD_BACK else None


def verdict(found: Leaderboard, refused: TrainingRun | None = None) -> str:
    """Return a sentence that compares the trained reranker with the baselines, or says why it was held back."""
    if refused is not None:
        return f"the student is held back and not served: {held_back_reason(refused.gate)}"
    student = next((row for row in found.rows if row.kind == TRAINED), None)
    if student is None:
        raise NoStudent("the student could not be evaluated; see the leaderboard page for the reason")
    words = {"better": "better than", "worse": "worse than", "not told apart": "not significantly different from"}
    comparisons = [
        f"{words[each.verdict]} {name}"
        for kind, name in (("base", "its untrained base"), ("first_stage", "the first stage"), ("bm25", "BM25"))
        if (each := student.against.get(kind))
    ]
    return f"the student is {', '.join(comparisons)}"
