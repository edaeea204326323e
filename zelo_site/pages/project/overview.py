"""The top of a project's page: stages, progress, spend, workers and problems that need action.

Reads tables of all apps and changes none. `zelo_site.pages.project.project` shows it, and the pages'
fragments poll it every second, so it uses only a few indexed queries.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Exists, Q
from django.urls import reverse
from django.utils.translation import gettext as _

from labeling.models import Project
from scoring.models import Calibration, ProjectFit
from trainer.models import Evaluation, TrainingRun
from trainer.serving.registry import servable
from workers.budgets.limits import read_caps
from workers.budgets.spend import totals_of_project
from workers.models import JudgingTask, Run
from workers.monitoring.project_figures import SIZES, light_value
from workers.runs.progress import RunProgress, run_progress
from workers.runs.savings import Saving, read_saving
from workers.runs.stages import STAGES
from zelo_site.pages.project.attention.judges import judge_needs
from zelo_site.pages.project.attention.needs import Level, Need, most_urgent_first
from zelo_site.pages.project.attention.quality import score_needs
from zelo_site.pages.project.attention.server import server_needs
from zelo_site.pages.project.attention.work import FailureCount, work_needs
from zelo_site.pages.project.certainty import ProjectCertainty, last_certainty
from zelo_site.pages.project.queues import QueueState, broker_is_up, needed_queues, read_queues
from zelo_site.pages.project.sizes import Sizes, read_sizes

SIZES_KEPT_S = 30
# The page of each stage.
PAGES = {
    "import": "imports", "candidates": "queries", "pairs": "queries", "judging": "scorecard", "rating": "queries",
    "calibrate": "scale", "train": "training", "prove": "proof", "serve": "rerankers",
}  # fmt: skip


class StageState(enum.StrEnum):
    AHEAD = "ahead"
    NOW = "now"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class StageView:
    """One of the nine stages, as the stage list shows it."""

    number: int
    key: str
    label: str
    state: StageState
    detail: str
    address: str


@dataclass(frozen=True, slots=True)
class Spend:
    """Paid calls of a project; cost in millionths of a dollar."""

    calls: int
    input_tokens: int
    output_tokens: int
    cost_micros: int
    cap_micros: int | None


@dataclass(frozen=True, slots=True)
class Overview:
    project: Project
    sizes: Sizes
    run: Run | None
    progress: RunProgress | None
    stages: list[StageView]
    spend: Spend
    queues: list[QueueState]
    broker: bool
    needs: list[Need]
    certainty: ProjectCertainty | None
    saving: Saving | None

    @property
    def enough_recall(self) -> float | None:
        """The recall at which the last run stops early; None without early stopping."""
        return enough_recall(self.run)

    @property
    def is_live(self) -> bool:
        """Whether work in progress will change the figures."""
        return is_live(self.sizes, self.run)

    @property
    def urgent(self) -> list[Need]:
        """The problems that stop or endanger work, each in a box of its own."""
        return [need for need in self.needs if need.level > Level.NOTE]

    @property
    def notes(self) -> list[Need]:
        """The problems that can wait, in a list."""
        return [need for need in self.needs if need.level == Level.NOTE]


def is_live(sizes: Sizes, run: Run | None) -> bool:
    """Return whether work in progress will change the figures."""
    return bool(sizes.stale) or (run is not None and run.state in Run.ACTIVE)


def enough_recall(run: Run | None) -> float | None:
    """Return the recall at which a run stops early; None without early stopping."""
    stops_at = (run.sampler_options.get("enough_recall") if run else None) or 1.0
    return stops_at if stops_at < 1.0 else None


def read_overview(project: Project) -> Overview:
    """Return the project's current overview."""
    sizes = read_sizes(project)
    run = Run.objects.filter(project=project).order_by("-id").first()
    progress = run_progress(run) if run else None
    queues, broker, certainty = read_queues(needed_queues(run)), broker_is_up(), last_certainty(project)
    works = is_live(sizes, run)
    missing = [queue for queue in queues if not queue.workers]
    of_judges = judge_needs(project, run)
    failures = read_failures(run) if progress and progress.dead else []
    judged = light_value(project, SIZES, rows=sizes.most_rows, kept_s=SIZES_KEPT_S)
    return Overview(
        project=project,
        sizes=sizes,
        run=run,
        progress=progress,
        stages=read_stages(project, sizes, progress),
        spend=read_spend(project, run),
        queues=queues,
        broker=broker,
        needs=most_urgent_first(
            server_needs(broker=broker, missing=missing, works=works)
            + of_judges
            + work_needs(project, run, failures, explained={need.explains for need in of_judges})
            + score_needs(project, sizes, certainty, enough=enough_recall(run), is_live=works)
        ),
        certainty=certainty,
        saving=read_saving(project, judged or {}),
    )


def read_spend(project: Project, run: Run | None) -> Spend:
    """Return the spend of all runs and probes, and the nearer cap: the last run's or the project's."""
    spent = totals_of_project(project.pk)
    caps = [cap for cap in (run.cost_budget_micros if run else None, read_caps(project.pk).cost_micros) if cap]
    return Spend(spent.calls, spent.input_tokens, spent.output_tokens, spent.cost_micros, min(caps, default=None))


def read_failures(run: Run | None) -> list[FailureCount]:
    """Return the dead letters by reason, most frequent first."""
    dead = JudgingTask.objects.filter(run=run, state=JudgingTask.State.DEAD)
    rows = dead.values("reason").annotate(number=Count("pk")).order_by("-number", "reason")
    counted = [(row["reason"], row["number"]) for row in rows]
    return [
        FailureCount(reason, number, dead.filter(reason=reason).values_list("message", flat=True).first() or "")
        for reason, number in counted
    ]


def read_stages(project: Project, sizes: Sizes, progress: RunProgress | None) -> list[StageView]:
    """Return the nine stages; several may be active at once."""
    states = _stage_states(project, sizes, progress)
    return [
        StageView(
            stage.number, stage.key, stage.label, *states[stage.key], reverse(PAGES[stage.key], args=[project.slug])
        )
        for stage in STAGES
    ]


def _stage_states(project: Project, sizes: Sizes, progress: RunProgress | None) -> dict[str, tuple[StageState, str]]:
    running = progress is not None and not progress.is_over
    share = progress.answered / progress.planned if progress and progress.planned else 0.0
    trained = _later_stages(project)
    stale = bool(project.calibration_version) and not trained["fitted"]
    return {
        "import": _done_if(sizes.queries),
        "candidates": _done_if(sizes.candidates),
        "pairs": _done_if(sizes.pairs or (progress and progress.pairs)),
        "judging": (StageState.NOW, f"{int(100 * share)}\N{NO-BREAK SPACE}%") if running else _done_if(sizes.judgments),
        "rating": (StageState.NOW, _("live")) if running and sizes.rated_queries else _done_if(sizes.rated_queries),
        "calibrate": (StageState.NOW, _("stale")) if stale else _done_if(trained["calibrated"]),
        "train": (StageState.NOW, "") if trained["training"] else _done_if(trained["trained"]),
        "prove": _done_if(trained["proved"]),
        "serve": _done_if(trained["served"]),
    }


def _done_if(there_is: Any) -> tuple[StageState, str]:
    return (StageState.DONE if there_is else StageState.AHEAD, "")


def _later_stages(project: Project) -> dict[str, bool]:
    """Return which results of stages 6 to 9 exist, in one query. A calibration counts until a newer answer arrives."""
    runs = TrainingRun.objects.filter(project=project)
    latest = Calibration.objects.filter(project=project, version__gte=project.calibration_version)
    row = Project.objects.filter(pk=project.pk).values_list(
        Exists(latest.filter(~Q(method="") | Q(parameters__pairs__gt=0))),
        Exists(ProjectFit.objects.filter(project=project, calibrated_version__gte=project.calibration_version)),
        Exists(runs.filter(state=TrainingRun.State.RUNNING)),
        Exists(runs.filter(state=TrainingRun.State.FINISHED)),
        Exists(Evaluation.objects.filter(project=project)),
        Exists(servable().filter(project=project)),
    )
    return dict(zip(("calibrated", "fitted", "training", "trained", "proved", "served"), row.get(), strict=True))
