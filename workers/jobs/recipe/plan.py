"""The plan of a recipe before its start: which stages it has, why others are left out, and what the panel is expected to spend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from django.db.models import Count

from labeling.models import Annotator, Candidate, Project
from labeling.plugins import get_plugin
from labeling.stored_texts import stored_json, stored_text
from scoring.sampling.draw import comparable_query_ids
from scoring.snapshots.freeze import SnapshotOptions
from trainer.bases import load_base
from workers.budgets.ahead import LimitAhead
from workers.budgets.limits import Budgets
from workers.jobs.distillation import FEWEST_QUERIES
from workers.jobs.recipe.options import RecipeOptions
from workers.jobs.refinement.job import FEWEST_DEV_QUERIES
from workers.models import RecipeStage, Run
from workers.runs.estimate import ChosenJudge, RunEstimate, estimate_run, limits_before_their_end

Name = RecipeStage.Name
# Below, a tenth of the queries holds fewer than five out, on which a student of the panel is measured and weighed.
FEWEST_TO_DISTIL = 50
# Below, neither the dev split nor folds hold the five queries that choose a checkpoint.
FEWEST_TO_TRAIN = 10

BY_CHOICE = stored_text("the options leave it out")
FEW_TO_DISTIL = stored_text(
    "%(queries)s queries; a distilled student needs %(least)s, so the panel judges the whole design",
    one="%(queries)s query; a distilled student needs %(least)s, so the panel judges the whole design",
)
NOTHING_SAVED = stored_text(
    "the panel's own design asks %(own)s pairs, a distilled run %(distilled)s, so the panel judges the whole design"
)
NO_PAIRWISE_BASE = stored_text("base '%(base)s' cannot be loaded (%(error)s), so the panel judges the whole design")
ONE_QUERY = stored_text("there is one query, so there is nothing to compare across queries")
FEW_TO_TRAIN = stored_text(
    "%(queries)s queries; a student needs %(least)s, import more",
    one="%(queries)s query; a student needs %(least)s, import more",
)
FEW_DEV = stored_text(
    "%(queries)s dev queries choose the student; a refinement needs %(least)s, import more queries",
    one="%(queries)s dev query chooses the student; a refinement needs %(least)s, import more queries",
)
NO_STUDENT = stored_text("there is no student")


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """One stage: `reason` why it is left out, empty if it is not; pairs and calls of the panel, expected and at most, with
    their cost in millionths of a dollar. `seconds` of judging, None if the judges' speed is unknown.
    """

    name: str
    reason: str = ""
    pairs: int = 0
    calls: int = 0
    most_calls: int = 0
    cost_micros: int = 0
    most_cost_micros: int = 0
    is_priced: bool = True
    seconds: float | None = 0.0

    @property
    def label(self) -> str:
        """The stage's name in English."""
        return str(Name(self.name).label)


@dataclass(frozen=True, slots=True)
class Plan:
    """The stages of a recipe in order, the sums of what the panel is expected to spend, and the limits that it would reach."""

    queries: int
    stages: tuple[PlannedStage, ...]
    limits: tuple[LimitAhead, ...] = ()

    @property
    def calls(self) -> int:
        return sum(stage.calls for stage in self.stages)

    @property
    def most_calls(self) -> int:
        return sum(stage.most_calls for stage in self.stages)

    @property
    def cost_micros(self) -> int:
        return sum(stage.cost_micros for stage in self.stages)

    @property
    def most_cost_micros(self) -> int:
        return sum(stage.most_cost_micros for stage in self.stages)

    @property
    def is_priced(self) -> bool:
        """Whether every judge has a price; the costs leave out judges without one."""
        return all(stage.is_priced for stage in self.stages)

    @property
    def seconds(self) -> float | None:
        """Seconds of judging; None if the speed of a judge is unknown."""
        known = [stage.seconds for stage in self.stages]
        return None if None in known else sum(each for each in known if each is not None)

    def as_json(self) -> dict[str, Any]:
        """Plain values, with reasons as stored sentences."""
        rows = [{**asdict(stage), "reason": stored_json(stage.reason)} for stage in self.stages]
        sums = ("queries", "calls", "most_calls", "cost_micros", "most_cost_micros", "is_priced", "seconds")
        return {**{name: getattr(self, name) for name in sums}, "stages": rows}


def plan_recipe(project: Project, judges: Sequence[Annotator], options: RecipeOptions) -> Plan:
    """The plan of a recipe with this panel. Writes nothing."""
    queries = len(comparable_query_ids(project.pk))
    undistilled = _why_nothing_is_distilled(project, options, queries)
    untrained = FEW_TO_TRAIN % {"queries": queries, "least": FEWEST_TO_TRAIN} if queries < FEWEST_TO_TRAIN else ""
    panel = _Panel(project, judges)
    stages = [
        *_judging_stages(panel, options, queries, undistilled),
        panel.stage(
            Name.CALIBRATION,
            options.calibration_pairs * queries,
            _why_uncalibrated(options, queries),
            allocation=Run.Allocation.ALL,
        ),
        PlannedStage(Name.STUDENT, untrained),
        panel.stage(
            Name.REFINEMENT,
            options.refinement_pairs * _training_queries(queries),
            _why_unrefined(options, queries, untrained=bool(untrained)),
        ),
        PlannedStage(Name.PROOF, NO_STUDENT if untrained else ""),
    ]
    return Plan(queries, tuple(stages), tuple(panel.limits()))


def _judging_stages(panel: _Panel, options: RecipeOptions, queries: int, undistilled: str) -> list[PlannedStage]:
    if undistilled:
        return [
            PlannedStage(Name.PANEL, undistilled),
            PlannedStage(Name.DISTILLATION, undistilled),
            panel.stage(Name.DESIGN, _own_design(panel.project, options)),
        ]
    return [
        panel.stage(Name.PANEL, options.panel_pairs * queries),
        PlannedStage(Name.DISTILLATION),
        panel.stage(Name.DESIGN, options.review_pairs * queries),
    ]


def _why_nothing_is_distilled(project: Project, options: RecipeOptions, queries: int) -> str:
    if options.distill == "never":
        return BY_CHOICE
    try:
        load_base(options.pairwise_base)
    except (OSError, ValueError) as error:
        return NO_PAIRWISE_BASE % {"base": options.pairwise_base, "error": str(error)[:300]}
    if options.distill == "always":
        return FEW_TO_DISTIL % {"queries": queries, "least": FEWEST_QUERIES} if queries < FEWEST_QUERIES else ""
    if queries < FEWEST_TO_DISTIL:
        return FEW_TO_DISTIL % {"queries": queries, "least": FEWEST_TO_DISTIL}
    own, distilled = _own_design(project, options), (options.panel_pairs + options.review_pairs) * queries
    return NOTHING_SAVED % {"own": own, "distilled": distilled} if own <= distilled else ""


def _own_design(project: Project, options: RecipeOptions) -> int:
    """Pairs of the design that the panel judges alone."""
    own = Candidate.objects.filter(query__project=project, query__excluded_at=None)
    rows = own.order_by().values("query").annotate(n=Count("pk"))
    sizes = rows.filter(n__gte=2).values_list("n", flat=True)
    return sum(int(min(options.pairs_per_candidate * size, size * (size - 1) // 2)) for size in sizes)


def _why_uncalibrated(options: RecipeOptions, queries: int) -> str:
    if not options.calibration_pairs:
        return BY_CHOICE
    return ONE_QUERY if queries < 2 else ""


def _why_unrefined(options: RecipeOptions, queries: int, *, untrained: bool) -> str:
    if not options.refinement_pairs:
        return BY_CHOICE
    if untrained:
        return NO_STUDENT
    dev = round(queries * SnapshotOptions().dev_share)
    if dev < FEWEST_DEV_QUERIES and not options.split_by:
        return FEW_DEV % {"queries": dev, "least": FEWEST_DEV_QUERIES}
    return ""


def _training_queries(queries: int) -> int:
    shares = SnapshotOptions()
    return round(queries * (1.0 - shares.dev_share - shares.test_share))


class _Panel:
    """The panel of a recipe, which knows what so many pairs cost it."""

    def __init__(self, project: Project, judges: Sequence[Annotator]) -> None:
        self.project = project
        self._judges = [ChosenJudge(get_plugin("judge", judge.plugin), judge.options) for judge in judges]
        self._estimates: list[RunEstimate] = []

    def stage(
        self, name: str, pairs: int, reason: str = "", *, allocation: str = Run.Allocation.ROTATE
    ) -> PlannedStage:
        """A stage with so many pairs; nothing is spent where there is a reason to leave it out."""
        if reason or not pairs or not self._judges:
            return PlannedStage(name, reason)
        found = estimate_run(
            self.project,
            self._judges,
            sampler="adaptive",
            sampler_options={"pairs_per_candidate": 10_000.0},
            allocation=allocation,
            orders=Run.Orders.ONE,
            budgets=Budgets(pairs, None, None, None),
        )
        self._estimates.append(found)
        return PlannedStage(
            name,
            pairs=found.pairs,
            calls=found.calls,
            most_calls=found.most_calls,
            cost_micros=found.cost_micros,
            most_cost_micros=found.most_cost_micros,
            is_priced=found.is_priced,
            seconds=found.seconds,
        )

    def limits(self) -> list[LimitAhead]:
        """The caps and the operator's limits that the stages together would reach."""
        return limits_before_their_end(self.project, self._judges, self._estimates)
