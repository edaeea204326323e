"""The method in order, and what moves a run through it.

`STAGES` is the spine of the product. A run alternates stages 3 to 5: sample pairs, judge them, rate;
until its sampler returns nothing more or its budget is spent. `advance` is safe to call at any time
and by several processes: an advisory lock lets one at a time move a run, and every step is a
transaction that says in the tables how far it came. What one round asks is worked out in `workers.runs.planning`.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import Exists, OuterRef
from django.db.models.functions import Now

from labeling import audit
from labeling.models import Annotator, Project
from labeling.plugins import Judge, Sampler, get_plugin
from labeling.stored_texts import stored_text
from scoring.calibration.cross_query import are_linkable, is_across
from scoring.rating import stale_query_ids
from scoring.sampling.draw import comparable_query_ids
from workers import failpoints
from workers.broker.hints import leave_hint
from workers.budgets.limits import BadBudget, Budgets, standing
from workers.judging import queue
from workers.models import Job, JudgingTask, Run
from workers.runs import cascade, gold_mixing, planning
from workers.runs.query_budgets import budgets_of_chunk, shares_of_round

log = logging.getLogger(__name__)

QUERIES_AT_ONCE = 50
LONGEST_REASON = 2000


@dataclass(frozen=True, slots=True)
class Stage:
    """One station of the method; `key` names it in jobs and addresses."""

    number: int
    key: str
    label: str


STAGES = tuple(
    Stage(number, key, label)
    for number, (key, label) in enumerate(
        [
            ("import", "Import"),
            ("candidates", "Candidates"),
            ("pairs", "Pairs"),
            ("judging", "Judging"),
            ("rating", "Scores"),
            ("calibrate", "Calibrate"),
            ("train", "Train"),
            ("prove", "Prove"),
            ("serve", "Serve"),
        ],
        start=1,
    )
)

ASKED_IN_ROUND = stored_text("%(added)s questions in round %(round)s")
PAIRS_SPENT = stored_text("the budget of %(n)s pairs is spent")
DESIGN_COMPLETE = stored_text("the design is complete")


class RunRefused(ValueError):
    """A run was ordered that cannot be carried out; the message says what to change."""


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
    pair_budget: int | None = None,
    call_budget: int | None = None,
    token_budget: int | None = None,
    cost_budget_micros: int | None = None,
    seed: int | None = None,
    cascade_threshold: float | None = None,
) -> Run:
    """Order a run and leave the hint that starts it. `pair_budget` counts pairs over all queries; the budgets of
    calls, of tokens read and written, and of money (in millionths of a dollar) bound what its judges are asked.

    In a cascade the first of `judges` is asked about every pair, the others where its |preference - 0.5| is below
    `cascade_threshold` (0.2 if none is given).
    Raises RunRefused, UnknownPlugin or pydantic.ValidationError; nothing is stored then.
    """
    chosen = _checked_sampler(sampler, sampler_options)
    _check_order(project, judges, allocation=allocation, orders=orders)
    _check_budgets(Budgets(pair_budget, call_budget, token_budget, cost_budget_micros))
    _check_seed(seed)
    threshold = _checked_threshold(allocation, judges, cascade_threshold)
    if not comparable_query_ids(project.pk, query_ids):
        raise RunRefused(
            f"project {project.slug!r} has no query with two candidates or more among those chosen; "
            "import documents or fill candidates first"
        )
    if is_across(chosen) and not are_linkable(project.pk, query_ids):
        raise RunRefused(
            f"project {project.slug!r} has fewer than two rated queries among those chosen; "
            "pairs across queries need strengths: judge pairs within queries first"
        )
    with transaction.atomic():
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
        )
        run.judges.set(judges)
        Job.objects.create(project=project, run=run, stage=_stage(chosen), payload={"round": 1, "after": 0})
        _note_order(run, chosen, judges, by=by)
        transaction.on_commit(lambda: leave_hint("advance", run.pk))
    return run


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


def _stage(sampler: Sampler) -> str:
    """The stage that a round of this sampler belongs to."""
    return "calibrate" if is_across(sampler) else "pairs"


def _checked_sampler(name: str, options: Mapping[str, Any] | None) -> Sampler:
    return cast(Sampler, get_plugin("sampler", name).from_dict(dict(options or {})))


def _check_order(project: Project, judges: Sequence[Annotator], *, allocation: str, orders: str) -> None:
    if not judges:
        raise RunRefused("a run without judges was ordered; choose at least one")
    for judge in judges:
        if judge.project_id != project.pk or judge.is_person:
            raise RunRefused(f"annotator {judge.name!r} is no judge of project {project.slug!r}; choose one that is")
    for judge in judges:
        if problems := cast(Judge, get_plugin("judge", judge.plugin)).problems(judge.options):
            raise RunRefused(f"judge {judge.name!r} cannot work now: {'; '.join(problems)}")
    if allocation not in Run.Allocation.values:
        raise RunRefused(f"allocation is {allocation!r}; expected one of {', '.join(Run.Allocation.values)}")
    if orders not in Run.Orders.values:
        raise RunRefused(f"orders is {orders!r}; expected one of {', '.join(Run.Orders.values)}")


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


def pause_run(run: Run, *, by: Any = None) -> bool:
    """Stop handing out tasks; those in flight are still answered. False where it was not judging."""
    with transaction.atomic():
        return _move_noted(run, [Run.State.PLANNED, Run.State.JUDGING], Run.State.PAUSED, by=by)


def resume_run(run: Run, *, by: Any = None) -> bool:
    """Hand out tasks again. False where the run was not paused."""
    with transaction.atomic():
        moved = _move_noted(run, [Run.State.PAUSED], Run.State.JUDGING, by=by)
        if moved:
            transaction.on_commit(lambda: _hint_all(run))
    return moved


def _hint_all(run: Run) -> None:
    leave_hint("advance", run.pk)
    for annotator_id in run.judges.values_list("id", flat=True):
        leave_hint("judge", annotator_id)


def cancel_run(run: Run, *, by: Any = None) -> bool:
    """End a run for good: open tasks go, answers and books stay. False where it had ended already."""
    with transaction.atomic():
        moved = _move_noted(run, [*Run.ACTIVE, Run.State.PAUSED], Run.State.CANCELLED, by=by)
        if moved:
            queue.drop_unfinished(run_id=run.pk)
            Job.objects.filter(run=run, state__in=[Job.State.OPEN, Job.State.LEASED]).update(
                state=Job.State.CANCELLED, lease_until=None, finished_at=Now()
            )
            run.refresh_from_db()
        failpoints.reach("cancel.before_commit")
    failpoints.reach("cancel.after_commit")
    return moved


def _move_noted(run: Run, before: Sequence[str], after: str, *, by: Any) -> bool:
    """As `_move`, with an entry in the audit log."""
    was = run.state
    moved = _move(run, before, after)
    if moved:
        done = "resumed" if after == Run.State.JUDGING else str(after)
        audit.note(f"run.{done}", project=run.project, actor=by, subject=f"run {run.pk}", before=str(was))
    return moved


def _move(run: Run, before: Sequence[str], after: str, **changes: Any) -> bool:
    """Change the state if it is still one of `before`; exactly one caller succeeds."""
    if after in (Run.State.FINISHED, Run.State.CANCELLED, Run.State.FAILED):
        changes["finished_at"] = Now()
    moved = Run.objects.filter(pk=run.pk, state__in=before).update(state=after, **changes) == 1
    run.refresh_from_db()
    return moved


def active_run_ids() -> list[int]:
    """Runs that may have something to do, in id order."""
    return list(Run.objects.filter(state__in=Run.ACTIVE).order_by("id").values_list("id", flat=True))


def advance(run_id: int) -> None:
    """Do the next thing that a run needs, if no other process is doing it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(hashtext('zelo.run'), %s)", [run_id])
        if not cursor.fetchone()[0]:
            return
    try:
        _advance(run_id)
    except (OperationalError, InterfaceError):
        raise  # the database is away; the reconciler asks again
    except Exception as error:
        log.exception("run %d cannot go on", run_id)
        _fail_run(run_id, error)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(hashtext('zelo.run'), %s)", [run_id])


def _advance(run_id: int) -> None:
    failpoints.reach("advance.locked")
    run = Run.objects.filter(pk=run_id, state__in=Run.ACTIVE).first()
    if run is None:
        return
    _move(run, [Run.State.PLANNED], Run.State.JUDGING, started_at=Now())
    job = Job.objects.filter(run=run, stage__in=["pairs", "calibrate"], state=Job.State.OPEN).first()
    stands = standing(run)
    if stands.reason:
        _end_spent(run, stands.reason)
    elif not stands.may_ask:
        return  # the answers of calls in flight bring it back here
    elif job is not None:
        plan_round(run, job)
    elif not cascade.escalate(run) and not _is_busy(run):
        _start_round(run)


def _end_spent(run: Run, reason: str) -> None:
    """Finish a run that may ask nothing more. Its open questions stay: another run of these judges takes them over."""
    with transaction.atomic():
        if _move(run, [Run.State.JUDGING], Run.State.FINISHED, reason=reason, is_spent=True):
            Job.objects.filter(run=run, state=Job.State.OPEN).update(
                state=Job.State.FINISHED, message=reason, finished_at=Now()
            )
            transaction.on_commit(lambda: leave_hint("calibrate", run.project_id))


def _fail_run(run_id: int, error: Exception) -> None:
    """A sampler that raises or draws nonsense would do so for ever: end the run and say why."""
    reason = f"{type(error).__name__}: {error}".replace("\x00", " ")[:LONGEST_REASON]
    run = Run.objects.filter(pk=run_id).first()
    if run is None:
        return
    with transaction.atomic():
        if _move(run, [*Run.ACTIVE], Run.State.FAILED, reason=reason):
            queue.drop_unfinished(run_id=run.pk)
            Job.objects.filter(run=run, state=Job.State.OPEN).update(
                state=Job.State.FAILED, error=reason, finished_at=Now()
            )


def _is_busy(run: Run) -> bool:
    """Whether answers or scores are still to come before the next round can be sampled.

    What another active run asks the same judges about the same queries counts: it is not asked twice.
    """
    tasks = JudgingTask.objects.filter(state__in=[JudgingTask.State.OPEN, JudgingTask.State.LEASED])
    shared = tasks.filter(run__state__in=Run.ACTIVE, run__project_id=run.project_id, annotator__in=run.judges.all())
    if run.query_ids is not None:
        shared = shared.filter(pair__query__in=run.query_ids)
    if tasks.filter(run=run).exists() or shared.exists():
        return True
    if stale_query_ids(run.project_id, limit=1, among=run.query_ids):
        leave_hint("rate", run.project_id)
        return True
    return False


def _start_round(run: Run) -> None:
    payload = {"round": run.round + 1, "after": 0}
    stage = _stage(_checked_sampler(run.sampler, run.sampler_options))
    job = Job.objects.create(project_id=run.project_id, run=run, stage=stage, payload=payload)
    plan_round(run, job)


def plan_round(run: Run, job: Job) -> None:
    """Sample one round, some queries a transaction; a repeat goes on where the last one stopped."""
    sampler = _checked_sampler(run.sampler, run.sampler_options)
    judges = (
        [run.cascade_first_id] if run.cascade_first_id else list(run.judges.order_by("id").values_list("id", flat=True))
    )
    queries = comparable_query_ids(run.project_id, run.query_ids)
    planned_before = job.payload.get("planned_before", run.tasks_planned)
    if "shares" not in job.payload and not is_across(sampler):
        number = int(job.payload["round"])
        job.payload["shares"] = shares_of_round(run, sampler, judges, queries=queries, round_number=number)
    while ahead := [query for query in queries if query > job.payload["after"]]:
        chunk = ahead if is_across(sampler) else ahead[:QUERIES_AT_ONCE]
        with transaction.atomic():
            # No key: a claim books its attempt under this run meanwhile.
            if not Run.objects.select_for_update(no_key=True).filter(pk=run.pk, state__in=Run.ACTIVE).exists():
                return  # paused or cancelled meanwhile; the job says where to go on
            shares, number = job.payload.get("shares"), int(job.payload["round"])
            budgets = budgets_of_chunk(run, judges, shares=shares, chunk=chunk, ahead=len(ahead))
            if is_across(sampler):
                budget = sum(budgets.values())
                planning.plan_across(run, sampler, judges, query_ids=chunk, budget=budget, round_number=number)
            else:
                budgets = gold_mixing.keep_room(run, budgets)
                planning.plan_queries(run, sampler, judges, budgets=budgets, round_number=number)
                gold_mixing.top_up(run, chunk)
            job.payload = {**job.payload, "after": chunk[-1], "planned_before": planned_before}
            job.done, job.total = len(queries) - len(ahead) + len(chunk), len(queries)
            job.save(update_fields=["payload", "done", "total"])
            run.refresh_from_db()
            failpoints.reach("plan.before_commit")
        failpoints.reach("plan.after_commit")
        for judge in judges:
            leave_hint("judge", judge)
    failpoints.reach("plan.before_end")
    _end_round(run, job, added=run.tasks_planned - planned_before)


def _end_round(run: Run, job: Job, *, added: int) -> None:
    with transaction.atomic():
        Job.objects.filter(pk=job.pk, state=Job.State.OPEN).update(
            state=Job.State.FINISHED,
            finished_at=Now(),
            message=ASKED_IN_ROUND % {"added": added, "round": job.payload["round"]},
        )
        if added:
            Run.objects.filter(pk=run.pk).update(round=int(job.payload["round"]))
        elif not _is_busy(run):
            spent = run.pair_budget is not None and run.pairs_planned >= run.pair_budget
            reason = PAIRS_SPENT % {"n": run.pair_budget} if spent else DESIGN_COMPLETE
            if _move(run, [Run.State.JUDGING], Run.State.FINISHED, reason=reason, is_spent=spent):
                transaction.on_commit(lambda: leave_hint("calibrate", run.project_id))


def runs_to_advance(project_id: int) -> list[int]:
    """Runs of a project that wait for nothing but the next round."""
    unfinished = JudgingTask.objects.filter(
        run=OuterRef("pk"), state__in=[JudgingTask.State.OPEN, JudgingTask.State.LEASED]
    )
    rows = Run.objects.filter(project_id=project_id, state__in=Run.ACTIVE).exclude(Exists(unfinished))
    return list(rows.order_by("id").values_list("id", flat=True))
