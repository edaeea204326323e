"""Progress of a run in the terminal, and the closing table; `run`, `progress` and `demo` share it."""

from __future__ import annotations

import time
from collections.abc import Callable

from labeling.models import Project
from scoring.quality import Quality, ranking_quality
from scoring.rating import stale_query_ids
from workers.endpoints.limiter import endpoint_states
from workers.models import EndpointState, JudgeTrouble, Run
from workers.runs.progress import RunProgress, run_progress
from zelo_site.cli.terminal import ProgressBar, duration, span, table

LOCAL_JUDGES = ("bm25", "query-likelihood", "embedding")
POLL_S = 0.5
PAUSED = "the run is paused; resume it on the project's page"


class RunStopped(RuntimeError):
    """A run was cancelled or failed."""


def watch(run: Run, *, bar: ProgressBar, tick: Callable[[], None] = lambda: None) -> RunProgress:
    """Draw the run's progress until it has ended and its scores are fitted; calls `tick` on each update.

    Raises RunStopped if it was cancelled or failed.
    """
    began, trouble, pauses = time.monotonic(), _Trouble(run), _Pauses()
    while not (progress := run_progress(run)).is_over:
        note = f"{progress.rate:,.0f}/s · {duration(progress.eta_s)} left"
        if progress.waits_for:
            note = f"{', '.join(progress.waits_for)} not answering; retrying{_endpoint_note(run.project)}"
        if progress.dead:
            note += f" · {progress.dead:,} failed"
        if paused := run.judges.filter(paused_at__isnull=False).count():
            note += f" · {paused} judge{'s' * (paused > 1)} paused; see the scorecard"
        if progress.state == Run.State.PAUSED:
            note = PAUSED
        for line in [*trouble.new_lines(), *pauses.new_lines(progress)]:
            bar.end(line)
        bar.show(progress.answered, progress.planned, note)
        tick()
        time.sleep(POLL_S)
    while stale_query_ids(run.project_id, limit=1):
        tick()
        time.sleep(POLL_S)
    seconds = _length_s(run, time.monotonic() - began)
    if progress.state != Run.State.FINISHED:
        bar.end(f"{progress.state}: {progress.reason}")
        raise RunStopped(f"run {run.pk} is {progress.state} ({progress.reason or 'no reason given'})")
    bar.end(
        f"{progress.answered:,} judgments on {progress.pairs:,} pairs in {duration(seconds)} "
        f"({progress.answered / max(seconds, 0.001):,.0f}/s)" + (f", {progress.dead:,} failed" if progress.dead else "")
    )
    return progress


def _length_s(run: Run, watched_s: float) -> float:
    """Return the seconds that the run took, which may have begun, and ended, before anybody watched it."""
    if run.started_at is None or run.finished_at is None:
        return watched_s
    return (run.finished_at - run.started_at).total_seconds()


def quality_table(project: Project) -> str:
    """Return a table of NDCG@10 with intervals per ranking, or a message without grades."""
    rows = ranking_quality(project)
    if not rows:
        return "No grades were imported, so rankings cannot be evaluated. Add grades with --qrels."
    text = table(["order", "NDCG@10", "95 % interval", "queries"], [_row(each) for each in rows])
    return f"{text}\nof {rows[0].of_queries:,} queries with a relevant document, linear gain, bootstrap over queries"


def _row(quality: Quality) -> list[str]:
    value = quality.ndcg
    return [quality.order, f"{value.estimate:.3f}", span(value, ".3f"), f"{quality.queries:,}"]


class _Trouble:
    """Judges of a run that came into trouble while it is watched, each reported once."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._told: set[int] = set()

    def new_lines(self) -> list[str]:
        """Return a line for each judge in trouble that was not reported yet."""
        rows = JudgeTrouble.objects.filter(annotator__in=self._run.judges.all()).exclude(pk__in=self._told)
        found = list(rows.select_related("annotator").order_by("pk"))
        self._told |= {each.pk for each in found}
        return [f"{each.annotator.name} is paused: {each.annotator.pause_reason}" for each in found]


class _Pauses:
    """Pauses of a run that is watched, each reported once, since without a terminal no note is drawn."""

    def __init__(self) -> None:
        self._is_paused = False

    def new_lines(self, progress: RunProgress) -> list[str]:
        """Return a line if the run was paused since the last call."""
        before, self._is_paused = self._is_paused, progress.state == Run.State.PAUSED
        return [PAUSED] if self._is_paused and not before else []


def _endpoint_note(project: Project) -> str:
    """Return what is wrong with the endpoints that do not work, and when they are tried next."""
    down = [each for each in endpoint_states(project) if each.state != EndpointState.Mode.CLOSED and each.last_error]
    return "".join(f" · {each.last_error}; next try in {each.wait_s:.0f} s" for each in down[:2])
