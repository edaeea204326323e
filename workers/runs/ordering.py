"""Starts runs: checks what was ordered, stores the run and sends the hint that starts it; asks the last run's judges again."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, cast

from django.db import transaction
from django.utils.translation import gettext

from labeling import audit
from labeling.models import Annotator, Judgment, Pair, Project
from labeling.plugins import Judge, Sampler, get_plugin
from scoring.annotators.counted import UnknownJudge
from scoring.calibration.cross_query import are_linkable, is_across
from scoring.sampling.draw import comparable_query_ids
from scoring.sampling.named_pairs import NAMED, PairsUnknown, by_query, pairs_of
from workers.broker.hints import leave_hint
from workers.budgets.limits import NOT_ALLOWED, BadBudget, Budgets
from workers.budgets.operator_limits import rules_of
from workers.budgets.spend import set_size_of
from workers.judging.pausing import JudgeRetired, resume_troubled
from workers.models import Job, JudgingTask, Run
from workers.runs import cascade
from workers.runs.choices.queries import NoQueryChosen, QueryChoice, choose_queries
from workers.runs.choices.weights import Weights, set_weights
from workers.runs.estimate import ChosenJudge, estimate_run
from workers.runs.planning import CONFLICTS, RECORDED, UNCERTAIN, contradicting
from workers.runs.stages import stage_of_round

log = logging.getLogger(__name__)


class RunRefused(ValueError):
    """The run that was ordered cannot be carried out; the message says what to change."""


class NoJudges(LookupError):
    """The project has had no run, or all judges of its last one are paused."""


def start_run(
    project: Project,
    *,
    judges: Sequence[Annotator],
    by: Any = None,
    sampler: str = "cycles",
    sampler_options: Mapping[str, Any] | None = None,
    allocation: str = Run.Allocation.ALL,
    orders: str = Run.Orders.ONE,
    query_ids: Sequence[int] | None = None,
    queries: QueryChoice | None = None,
    judge_weights: Weights | None = None,
    pair_budget: int | None = None,
    call_budget: int | None = None,
    token_budget: int | None = None,
    cost_budget_micros: int | None = None,
    seed: int | None = None,
    cascade_threshold: float | None = None,
) -> Run:
    """Store a run and send the hint that starts it. `pair_budget` counts pairs over all queries; the other budgets limit
    the calls, the tokens read and written, and the money (in millionths of a dollar) of all its judges.

    In a cascade the first of `judges` judges every pair, and the others judge those on which its |preference - 0.5| is
    below `cascade_threshold` (default 0.2). Judges in trouble are resumed: a run begins with a trial of each; earlier runs that
    ended without their answers stay ended, and this one takes over what it needs of their open questions. `queries`
    chooses among `query_ids`, or among all. `judge_weights` changes how the project's fits weight judges; None leaves it.
    Raises RunRefused, UnknownPlugin or pydantic.ValidationError; nothing is stored then.
    """
    chosen = checked_sampler(sampler, sampler_options)
    _check_judges(project, judges)
    _check_order(allocation=allocation, orders=orders)
    _check_recorded(chosen, judges, allocation)
    query_ids = _named_queries(project, chosen, judges, _chosen_queries(project, query_ids, queries))
    budgets = Budgets(pair_budget, call_budget, token_budget, cost_budget_micros)
    _check_budgets(budgets)
    _check_seed(seed)
    threshold = _checked_threshold(allocation, judges, cascade_threshold)
    _check_queries(project, chosen, query_ids)
    _check_conflicts(project, chosen, judges, query_ids, allocation=allocation, orders=orders)
    expected = _estimated(project, judges, chosen, allocation, orders, budgets, threshold, query_ids)
    with transaction.atomic():
        if judge_weights is not None:
            set_weights(project, judge_weights, by=by)
        for judge in judges:
            resume_troubled(judge, by=by, continues_runs=False)
        run = Run.objects.create(
            project=project,
            created_by=by,
            query_ids=None if query_ids is None else sorted(query_ids),
            sampler=sampler,
            sampler_options=chosen.options.model_dump(mode="json"),
            allocation=allocation,
            cascade_first=judges[0] if threshold is not None else None,
            cascade_threshold=threshold,
            orders=orders,
            pair_budget=pair_budget,
            call_budget=call_budget,
            token_budget=token_budget,
            cost_budget_micros=cost_budget_micros,
            seed=secrets.randbits(62) if seed is None else seed,
            estimate=expected,
        )
        run.judges.set(judges)
        Job.objects.create(project=project, run=run, stage=stage_of_round(chosen), payload={"round": 1, "after": 0})
        _note_order(run, chosen, judges, by=by)
        transaction.on_commit(lambda: leave_hint("advance", run.pk))
    return run


def _estimated(
    project: Project,
    judges: Sequence[Annotator],
    sampler: Sampler,
    allocation: str,
    orders: str,
    budgets: Budgets,
    threshold: float | None,
    query_ids: Sequence[int] | None,
) -> dict[str, int]:
    """The expected spend of the run; empty for pairs across queries, whose number the fit decides, and for a plugin that
    raises: the run's first round stops with its error.
    """
    if is_across(sampler):
        return {}
    chosen = [ChosenJudge(get_plugin("judge", judge.plugin), judge.options) for judge in judges]
    try:
        found = estimate_run(
            project,
            chosen,
            sampler=sampler.name,
            sampler_options=sampler.options.model_dump(mode="json"),
            allocation=allocation,
            orders=orders,
            budgets=budgets,
            cascade_threshold=cascade.DEFAULT_THRESHOLD if threshold is None else threshold,
            query_ids=query_ids,
        )
    except Exception:
        log.exception("no estimate of a run of project %s with sampler %s", project.slug, sampler.name)
        return {}
    return found.figures


def _note_order(run: Run, sampler: Sampler, judges: Sequence[Annotator], *, by: Any) -> None:
    """A run on pairs across queries is a calibration, whoever ordered it."""
    budgets = ("pair_budget", "call_budget", "token_budget", "cost_budget_micros")
    given = {name: value for name in budgets if (value := getattr(run, name)) is not None}
    audit.note(
        "calibration.ordered" if is_across(sampler) else "run.started",
        project=run.project,
        actor=by,
        subject=f"run {run.pk}",
        judges=", ".join(judge.name for judge in judges)[:500],
        sampler=run.sampler,
        **given,
    )


def checked_sampler(name: str, options: Mapping[str, Any] | None) -> Sampler:
    """The sampler with these options. Raises UnknownPlugin or pydantic.ValidationError."""
    return cast(Sampler, get_plugin("sampler", name).from_dict(dict(options or {})))


def _check_judges(project: Project, judges: Sequence[Annotator]) -> None:
    for judge in judges:
        if judge.retired_at is not None:
            raise RunRefused(str(JudgeRetired(judge)))
        if endpoint := rules_of(judge.pk).barred_from:
            raise RunRefused(
                f"{NOT_ALLOWED % {'endpoint': endpoint}}; choose another one, or ask the server's operator"
            )
    if not judges:
        raise RunRefused("the run has no judges; choose at least one")
    for judge in judges:
        if judge.project_id != project.pk or judge.is_person:
            raise RunRefused(
                f"annotator {judge.name!r} is not a judge of project {project.slug!r}; choose one of its judges"
            )
    for judge in judges:
        if problems := cast(Judge, get_plugin("judge", judge.plugin)).problems(judge.options):
            raise RunRefused(f"judge {judge.name!r} is not available: {'; '.join(problems)}")


def _check_order(*, allocation: str, orders: str) -> None:
    if allocation not in Run.Allocation.values:
        raise RunRefused(f"allocation is {allocation!r}; expected one of {', '.join(Run.Allocation.values)}")
    if orders not in Run.Orders.values:
        raise RunRefused(f"orders is {orders!r}; expected one of {', '.join(Run.Orders.values)}")


def _check_recorded(sampler: Sampler, judges: Sequence[Annotator], allocation: str) -> None:
    if sampler.name != RECORDED:
        return
    if allocation == Run.Allocation.CASCADE:
        raise RunRefused(
            "a cascade chooses its pairs by the first judge's answers, which the others may not have recorded; choose the "
            "allocation all or rotate with the design recorded"
        )
    plugins = {judge.plugin: cast(Judge, get_plugin("judge", judge.plugin)) for judge in judges}
    if not any(plugin.recorded_pairs is not Judge.recorded_pairs for plugin in plugins.values()):
        raise RunRefused("no judge of the run has recorded answers; choose another design, or upload recorded answers")


def _chosen_queries(
    project: Project, query_ids: Sequence[int] | None, queries: QueryChoice | None
) -> Sequence[int] | None:
    """The queries that both choices hold; None for all."""
    try:
        return choose_queries(project, queries or QueryChoice(), among=query_ids)
    except NoQueryChosen as error:
        raise RunRefused(str(error)) from error


def _named_queries(
    project: Project, sampler: Sampler, judges: Sequence[Annotator], query_ids: Sequence[int] | None
) -> Sequence[int] | None:
    """The queries of the named pairs; `query_ids` as they are for any other design."""
    if sampler.name != NAMED:
        return query_ids
    pairs = pairs_of(sampler)
    if not pairs:
        raise RunRefused("the design named has no pairs; name pairs of candidate ids in its option pairs")
    if set_size_of([judge.pk for judge in judges]) > 2:
        raise RunRefused("named pairs need judges that read two documents a question; choose other judges")
    try:
        queries = sorted(by_query(project, pairs))
    except PairsUnknown as error:
        raise RunRefused(str(error)) from error
    if query_ids is not None and not set(queries) <= set(query_ids):
        raise RunRefused("some named pairs belong to queries that were not chosen; choose their queries as well")
    return queries


def _check_queries(project: Project, sampler: Sampler, query_ids: Sequence[int] | None) -> None:
    if not comparable_query_ids(project.pk, query_ids):
        raise RunRefused(
            f"project {project.slug!r} has no query with two candidates or more among those chosen; "
            "import documents or fill candidates first"
        )
    if is_across(sampler) and not are_linkable(project.pk, query_ids):
        raise RunRefused(
            f"project {project.slug!r} has fewer than two rated queries among those chosen; "
            "pairs across queries need strengths: judge pairs within queries first"
        )


def _check_conflicts(
    project: Project,
    sampler: Sampler,
    judges: Sequence[Annotator],
    query_ids: Sequence[int] | None,
    *,
    allocation: str,
    orders: str,
) -> None:
    """Refuse a run of `conflicts` that would ask nothing and yet end as complete."""
    if sampler.name != CONFLICTS:
        return
    run = Run(project=project, allocation=allocation, orders=orders)
    try:
        owed = contradicting(run, [judge.pk for judge in judges], comparable_query_ids(project.pk, query_ids))
    except UnknownJudge as error:
        raise RunRefused(str(error)) from error
    if any(map(len, owed.values())):
        return
    if allocation == Run.Allocation.ALL and orders == Run.Orders.BOTH:
        raise RunRefused(
            gettext(
                "no contradictory triple has a pair that these judges have not answered in both orders; choose other judges"
            )
        )
    raise RunRefused(
        gettext(
            "no contradictory triple has a pair that these judges owe with this allocation and order; choose every judge on every pair and both orders, or other judges"
        )
    )


def _check_seed(seed: int | None) -> None:
    if seed is not None and not 0 <= seed < 2**63:
        raise RunRefused(f"the seed is {seed}; expected 0 or more, below 2**63, or none")


def _check_budgets(budgets: Budgets) -> None:
    try:
        budgets.check()
    except BadBudget as error:
        raise RunRefused(str(error)) from error


def _checked_threshold(allocation: str, judges: Sequence[Annotator], threshold: float | None) -> float | None:
    """The cascade's threshold; None where there is no cascade."""
    if allocation != Run.Allocation.CASCADE:
        if threshold is not None:
            raise RunRefused(f"a threshold belongs to a cascade; the allocation is {allocation!r}")
        return None
    if len({judge.pk for judge in judges}) < 2:
        raise RunRefused("a cascade needs two judges or more, the cheap one first; choose another judge as well")
    if threshold is None:
        return cascade.DEFAULT_THRESHOLD
    if not 0.0 < threshold <= 0.5:
        raise RunRefused(f"the cascade's threshold is {threshold}; expected |preference - 0.5| above 0, at most 0.5")
    return threshold


# --- more of the last run's judges --------------------------------------------------------


def last_judges(project: Project) -> tuple[Run | None, list[Annotator]]:
    """Return the project's last run and its active judges, a cascade's first judge first."""
    run = Run.objects.filter(project=project).order_by("-id").first()
    if run is None:
        return None, []
    judges = run.judges.filter(paused_at__isnull=True).order_by("id")
    return run, sorted(judges, key=lambda judge: judge.pk != run.cascade_first_id)


def order_more(project: Project, query_ids: Sequence[int], *, pairs: int, by: Any) -> Run:
    """Start a run of the sampler `uncertain`, `pairs` for each query, as the project's last run was. Raises NoJudges, RunRefused."""
    last, judges = known_judges(project)
    return start_run(
        project,
        judges=judges,
        by=by,
        sampler=UNCERTAIN,
        sampler_options={"pairs": pairs},
        query_ids=query_ids,
        pair_budget=pairs * len(query_ids),
        orders=last.orders,
        **allocation_like(last, judges),
    )


def known_judges(project: Project) -> tuple[Run, list[Annotator]]:
    """Return the last run with its active judges. Raises NoJudges."""
    last, judges = last_judges(project)
    if last is None or not judges:
        raise NoJudges(gettext("No judges yet. Choose the judges for this run."))
    return last, judges


def allocation_like(last: Run, judges: Sequence[Annotator]) -> dict[str, Any]:
    """Return the allocation of a run with these judges of the last run; a cascade needs its first judge."""
    is_cascade = last.allocation == Run.Allocation.CASCADE and len(judges) > 1 and judges[0].pk == last.cascade_first_id
    if last.allocation == Run.Allocation.CASCADE and not is_cascade:
        return {"allocation": Run.Allocation.ALL}
    return {"allocation": last.allocation, "cascade_threshold": last.cascade_threshold if is_cascade else None}


def ask_again(project: Project, pair: Pair, *, by: Any) -> Run:
    """Start a run that asks the last run's judges about the pair in each order that they owe. Raises NoJudges, RunRefused."""
    _, judges = known_judges(project)
    answered = set(Judgment.objects.live().filter(pair=pair, annotator__in=judges).values_list("annotator", "swapped"))
    asked = JudgingTask.objects.filter(pair=pair, annotator__in=judges, run__state__in=Run.ACTIVE)
    answered |= set(asked.values_list("annotator", "swapped"))
    if len(answered) == 2 * len(judges):
        raise RunRefused(
            gettext(
                "every judge of the last run has answered in both orders, or is being asked; ask a person, or start a run of other judges"
            )
        )
    return start_run(
        project,
        judges=judges,
        by=by,
        sampler=NAMED,
        sampler_options={"pairs": [[pair.a_id, pair.b_id]]},
        orders=Run.Orders.BOTH,
        pair_budget=1,
    )
