"""The top of a project's page: stages, progress, spend, workers and problems that need action.

Reads tables of all apps and changes none. `zelo_site.pages.project.project` shows it, and the pages'
fragments poll it every second, so it uses only a few indexed queries.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from django.core.cache import cache
from django.db import connection
from django.db.models import Count, Exists, Q
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from labeling.models import Annotator, Project, Query
from scoring.models import Calibration, ProjectFit, Score
from trainer.models import Evaluation, TrainingRun
from trainer.serving.registry import servable
from workers.broker.client import broker_answers
from workers.broker.routing import judging_queue
from workers.budgets.limits import read_caps
from workers.budgets.spend import totals_of_project
from workers.models import JudgingTask, Run, Worker
from workers.monitoring.heartbeats import alive
from workers.runs.progress import RunProgress, run_progress
from workers.runs.savings import Saving, recent_saving
from workers.runs.stages import STAGES
from zelo_site.pages.project.certainty import ProjectCertainty, last_certainty
from zelo_site.pages.project.trouble import TroubleView, paused_judges, read_troubles
from zelo_site.templatetags.figures import count

BROKER_CACHE_S = 3
FEW_COMPARISONS = 4


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
    detail: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Counts of a project. `judgments` and `pairs` count those in the last fits; `waiting_for_people`
    counts pairs with at least one unanswered spot check.
    """

    queries: int
    candidates: int
    graded: int
    rated_queries: int
    islands: int
    judgments: int
    pairs: int
    stale: int
    failed_fits: int
    waiting_for_people: int


@dataclass(frozen=True, slots=True)
class Attention:
    """A problem that needs action, with its remedy."""

    count: int
    text: str
    remedy: str
    address: str = ""


@dataclass(frozen=True, slots=True)
class QueueState:
    """A work queue, its workers, and the command that starts a worker if there is none."""

    name: str
    workers: list[Worker] = field(default_factory=list)

    @property
    def command(self) -> str:
        return f"python manage.py worker {self.name}"


@dataclass(frozen=True, slots=True)
class FailureCount:
    reason: str
    count: int
    example: str

    @property
    def label(self) -> str:
        """The reason in words, as in `JudgingTask.get_reason_display`."""
        return self.reason.replace("_", " ")


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
    failures: list[FailureCount]
    attention: list[Attention]
    certainty: ProjectCertainty | None
    saving: Saving | None
    troubles: list[TroubleView]

    @property
    def enough_recall(self) -> float | None:
        """The recall at which the last run stops early; None without early stopping."""
        stops_at = (self.run.sampler_options.get("enough_recall") if self.run else None) or 1.0
        return stops_at if stops_at < 1.0 else None

    @property
    def is_live(self) -> bool:
        """Whether work in progress will change the figures."""
        return bool(self.sizes.stale) or (self.run is not None and self.run.state in Run.ACTIVE)

    @property
    def missing_queues(self) -> list[QueueState]:
        return [queue for queue in self.queues if not queue.workers]

    @property
    def says_commands(self) -> bool:
        """Whether work is waiting for a worker, so that the page shows a warning at the top."""
        return self.broker and self.is_live and bool(self.missing_queues)

    @property
    def needs(self) -> int:
        return len(self.attention)


def read_overview(project: Project) -> Overview:
    """Return the project's current overview."""
    sizes = read_sizes(project)
    run = Run.objects.filter(project=project).order_by("-id").first()
    progress = run_progress(run) if run else None
    failures = read_failures(run) if progress and progress.dead else []
    queues, paused = read_queues(needed_queues(run)), paused_judges(project)
    return Overview(
        project=project,
        sizes=sizes,
        run=run,
        progress=progress,
        stages=read_stages(project, sizes, progress),
        spend=read_spend(project, run),
        queues=queues,
        broker=broker_is_up(),
        failures=failures,
        attention=read_attention(project, sizes, failures, paused),
        certainty=last_certainty(project),
        saving=recent_saving(project),
        troubles=read_troubles(project, run, paused),
    )


_SIZES = """
SELECT
    (SELECT count(*) FROM labeling_query WHERE project_id = %(project)s),
    (SELECT count(*) FROM labeling_candidate c JOIN labeling_query q ON q.id = c.query_id
     WHERE q.project_id = %(project)s),
    (SELECT count(*) FROM labeling_candidate c JOIN labeling_query q ON q.id = c.query_id
     WHERE q.project_id = %(project)s AND c.grade IS NOT NULL),
    fits.*,
    (SELECT count(*) FROM labeling_query q LEFT JOIN scoring_queryfit f ON f.query_id = q.id
     WHERE q.project_id = %(project)s AND q.judged_version > COALESCE(f.judged_version, 0)),
    (SELECT count(DISTINCT pair_id) FROM labeling_spotcheck WHERE project_id = %(project)s
     AND judgment_id IS NULL AND slot IS NOT NULL)
FROM (
    SELECT count(*), count(*) FILTER (WHERE f.islands > 1), COALESCE(sum(f.judgments), 0)::bigint,
           COALESCE(sum(f.pairs), 0)::bigint, count(*) FILTER (WHERE f.error <> '')
    FROM scoring_queryfit f JOIN labeling_query q ON q.id = f.query_id WHERE q.project_id = %(project)s
) fits
"""


def read_sizes(project: Project) -> Sizes:
    with connection.cursor() as cursor:
        cursor.execute(_SIZES, {"project": project.pk})
        queries, candidates, graded, rated, islands, judgments, pairs, failed, stale, asked = cursor.fetchone()
    return Sizes(queries, candidates, graded, rated, islands, judgments, pairs, stale, failed, asked)


def broker_is_up() -> bool:
    """Return whether the broker answers, cached for a few seconds because a failing check is slow."""
    return bool(cache.get_or_set("zelo:broker", broker_answers, BROKER_CACHE_S))


def read_queues(names: Iterable[str]) -> list[QueueState]:
    """Return these queues with their live workers."""
    living = list(alive())
    return [QueueState(name, [worker for worker in living if name in worker.queues.split(",")]) for name in names]


def needed_queues(run: Run | None) -> list[str]:
    """Return the queues that the run's scores depend on."""
    plugins = run.judges.order_by().values_list("plugin", flat=True).distinct() if run else ()
    return ["rating", *(sorted({judging_queue(plugin) for plugin in plugins}) or ["judging-cpu"])]


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
    pages = {"calibrate": "scale", "train": "training", "prove": "proof", "serve": "rerankers"} if sizes.queries else {}
    addresses = {stage: reverse(page, args=[project.slug]) for stage, page in pages.items()}
    return [
        StageView(stage.number, stage.key, stage.label, *states[stage.key], address=addresses.get(stage.key, ""))
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


def read_attention(
    project: Project, sizes: Sizes, failures: list[FailureCount], paused: list[Annotator]
) -> list[Attention]:
    """Return the problems that need action, most urgent first."""
    found = []
    dead = sum(failure.count for failure in failures)
    if dead:
        text = ngettext("%(n)s question got no answer", "%(n)s questions got no answer", dead) % {"n": count(dead)}
        failed = reverse("failures", args=[project.slug])
        found.append(Attention(dead, text, _("see the reasons, fix the cause, then retry"), failed))
    found += _paused_judges(project, paused)
    if sizes.failed_fits:
        found.append(
            Attention(
                sizes.failed_fits,
                ngettext("%(n)s query could not be fitted", "%(n)s queries could not be fitted", sizes.failed_fits)
                % {"n": count(sizes.failed_fits)},
                _("see their pages for the reason; their previous scores stay"),
                "?show=failed",
            )
        )
    if sizes.islands:
        text = ngettext(
            "%(n)s query has disconnected comparisons", "%(n)s queries have disconnected comparisons", sizes.islands
        ) % {"n": count(sizes.islands)}
        found.append(
            Attention(
                sizes.islands,
                text,
                _("scores of disconnected groups cannot be compared; judge more pairs"),
                "?show=islands",
            )
        )
    few = _few_comparisons(project)
    if few and not sizes.stale:
        text = ngettext(
            "%(n)s document has fewer than %(least)s comparisons",
            "%(n)s documents have fewer than %(least)s comparisons",
            few,
        ) % {"n": count(few), "least": FEW_COMPARISONS}
        found.append(Attention(few, text, _("the score intervals are wide; start another run")))
    if waiting := sizes.waiting_for_people:
        text = ngettext("%(n)s pair waits for people", "%(n)s pairs wait for people", waiting) % {"n": count(waiting)}
        remedy = _("compare the pairs yourself, or invite annotators")
        found.append(Attention(waiting, text, remedy, reverse("people", args=[project.slug])))
    return found


def _paused_judges(project: Project, judges: list[Annotator]) -> list[Attention]:
    """Return a problem for judges that are paused until a person resumes them."""
    names = [judge.name for judge in judges]
    if not names:
        return []
    shown = ", ".join(names[:3])
    if len(names) > 3:
        shown = _("%(names)s and %(n)s more") % {"names": shown, "n": count(len(names) - 3)}
    text = ngettext("%(names)s is paused", "%(names)s are paused", len(names)) % {"names": shown}
    remedy = _("see the reason on the scorecard, then resume")
    return [Attention(len(names), text, remedy, reverse("scorecard", args=[project.slug]))]


def _few_comparisons(project: Project) -> int:
    """Return the number of rated documents with fewer opponents than possible, up to FEW_COMPARISONS."""
    rated = Score.objects.filter(candidate__query__project=project)
    unsure = rated.filter(comparisons__gt=0, comparisons__lt=FEW_COMPARISONS)
    met = unsure.values("candidate__query", "comparisons").annotate(documents=Count("pk")).order_by()
    sizes = dict(
        Query.objects.filter(pk__in=[each["candidate__query"] for each in met])
        .annotate(size=Count("candidates"))
        .values_list("pk", "size")
    )
    return sum(each["documents"] for each in met if each["comparisons"] < sizes[each["candidate__query"]] - 1)
