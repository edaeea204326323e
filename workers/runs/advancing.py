"""Moves runs forward: a run alternates sampling pairs, judging them and rating, until it ends.

It ends when its sampler returns no more pairs or its budget is spent. `advance` is safe to call at any time and in
several processes: an advisory lock lets one process at a time move a run, and every step is a transaction that stores
how far it came. `workers.runs.planning` works out the questions of one round. In a large project the next round begins with
the queries that have their scores, while the judges answer the rest of the last one (`workers.runs.rounds.overlapping`).
"""

from __future__ import annotations

import logging
import time

from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now

from labeling.database import is_lost
from labeling.stored_texts import stored_text
from scoring.calibration.cross_query import is_across
from scoring.rating import stale_query_ids
from scoring.sampling.draw import comparable_query_ids
from workers import failpoints
from workers.broker.hints import leave_hint
from workers.budgets.limits import standing
from workers.judging import queue
from workers.judging.pausing import retired_judges
from workers.judging.trouble import troubled_judges
from workers.models import Job, JudgeTrouble, JudgingTask, Run
from workers.runs import cascade, gold_mixing, planning
from workers.runs.choices import judges as judge_choice
from workers.runs.closing import closing_of
from workers.runs.ordering import checked_sampler
from workers.runs.query_budgets import budgets_of_chunk, shares_of_round
from workers.runs.rounds import overlapping
from workers.runs.stages import stage_of_round
from workers.runs.transitions import move

log = logging.getLogger(__name__)

QUERIES_AT_ONCE = 50
PLANNING_SLICE_S = 5.0  # then the worker takes the next hint: scores are fitted while a large round is planned
LONGEST_SLICE_S = 30.0  # more than that, while the judges have nothing to do
STATISTICS_AFTER = (1, 8, 64, 512)
LONGEST_REASON = 2000

ASKED_IN_ROUND = stored_text("%(added)s questions in round %(round)s", one="%(added)s question in round %(round)s")
PAIRS_SPENT = stored_text("the budget of %(n)s pairs is spent", one="the budget of %(n)s pair is spent")
DESIGN_COMPLETE = stored_text("the design is complete")


def active_run_ids() -> list[int]:
    """Runs that may have something to do, in id order."""
    return list(Run.objects.filter(state__in=Run.ACTIVE).order_by("id").values_list("id", flat=True))


def advance(run_id: int) -> None:
    """Do the next step of a run, unless another process is at it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(hashtext('zelo.run'), %s)", [run_id])
        if not cursor.fetchone()[0]:
            return
    try:
        _advance(run_id)
    except Exception as error:
        if is_lost(error):
            raise  # the database is unreachable; the reconciler tries again
        log.exception("run %d failed", run_id)
        _fail_run(run_id, error)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(hashtext('zelo.run'), %s)", [run_id])


def _advance(run_id: int) -> None:
    failpoints.reach("advance.locked")
    run = Run.objects.filter(pk=run_id, state__in=Run.ACTIVE).first()
    if run is None:
        return
    move(run, [Run.State.PLANNED], Run.State.JUDGING, started_at=Now())
    job = Job.objects.filter(run=run, stage__in=["pairs", "calibrate"], state=Job.State.OPEN).first()
    stands = standing(run)
    if stands.reason:
        _end_spent(run, stands.reason)
    elif not stands.may_ask:
        return  # the answers of calls in flight lead to the next `advance`
    elif not planning_judges(run):
        if not JudgingTask.objects.filter(run=run, state=JudgingTask.State.LEASED).exists():
            _finish(run, DESIGN_COMPLETE)
    elif job is not None:
        plan_round(run, job)
    elif not cascade.escalate(run):
        if not _is_busy(run):
            _start_round(run)
        elif overlapping.may_begin(run, planning_judges(run), at_once=QUERIES_AT_ONCE):
            _start_round(run, overlaps=True)


def _end_spent(run: Run, reason: str) -> None:
    """Finish a run whose budget is spent. Its open tasks stay: another run of these judges takes them over."""
    with transaction.atomic():
        if move(run, [Run.State.JUDGING], Run.State.FINISHED, reason=reason, is_spent=True):
            Job.objects.filter(run=run, state=Job.State.OPEN).update(
                state=Job.State.FINISHED, message=reason, finished_at=Now()
            )
            transaction.on_commit(lambda: leave_hint("calibrate", run.project_id))


def _fail_run(run_id: int, error: Exception) -> None:
    """End a run with its error: a sampler that raises would do so at every retry."""
    reason = f"{type(error).__name__}: {error}".replace("\x00", " ")[:LONGEST_REASON]
    run = Run.objects.filter(pk=run_id).first()
    if run is None:
        return
    with transaction.atomic():
        if move(run, [*Run.ACTIVE], Run.State.FAILED, reason=reason):
            queue.drop_unfinished(run_id=run.pk)
            Job.objects.filter(run=run, state=Job.State.OPEN).update(
                state=Job.State.FAILED, error=reason, finished_at=Now()
            )


def _is_busy(run: Run) -> bool:
    """Whether the next round has to wait for answers or scores.

    Tasks of other active runs for the same judges and queries count, so that no question is asked twice. Those of a
    judge in trouble do not: nobody asks them.
    """
    in_trouble = Exists(JudgeTrouble.objects.filter(annotator=OuterRef("annotator")))
    waiting = Q(state=JudgingTask.State.OPEN) & ~in_trouble
    tasks = JudgingTask.objects.filter(Q(state=JudgingTask.State.LEASED) | waiting)
    shared = tasks.filter(run__state__in=Run.ACTIVE, run__project_id=run.project_id, annotator__in=run.judges.all())
    if run.query_ids is not None:
        shared = shared.filter(pair__query__in=run.query_ids)
    if tasks.filter(run=run).exists() or shared.exists():
        return True
    if stale_query_ids(run.project_id, limit=1, among=run.query_ids):
        leave_hint("rate", run.project_id)
        return True
    return False


def planning_judges(run: Run) -> list[int]:
    """The judges for which a round plans questions: all but retired ones and those in trouble; the first alone in a cascade."""
    idle = {*troubled_judges(run), *retired_judges(run)}
    judges = [run.cascade_first_id] if run.cascade_first_id else run.judges.order_by("id").values_list("id", flat=True)
    return [judge for judge in judges if judge not in idle]


def _start_round(run: Run, *, overlaps: bool = False) -> None:
    payload = {"round": run.round + 1, "after": 0, **({"overlaps": True} if overlaps else {})}
    stage = stage_of_round(checked_sampler(run.sampler, run.sampler_options))
    job = Job.objects.create(project_id=run.project_id, run=run, stage=stage, payload=payload)
    plan_round(run, job)


def plan_round(run: Run, job: Job) -> None:
    """Sample one round, some queries in each transaction; a repeat continues where the last call stopped.

    Stops after some seconds with a hint for the rest, and in an overlapping round at queries that are not ready.
    """
    overlaps, deadline = job.payload.get("overlaps", False), time.monotonic() + PLANNING_SLICE_S
    if overlaps and not overlapping.is_ready(run, after=job.payload["after"], at_once=QUERIES_AT_ONCE):
        return
    sampler = checked_sampler(run.sampler, run.sampler_options)
    judges = planning_judges(run)
    queries = comparable_query_ids(run.project_id, run.query_ids)
    planned_before = job.payload.get("planned_before", run.tasks_planned)
    panel = judge_choice.panel_of(run, judges)
    if "pilot" not in job.payload:
        is_design = not is_across(sampler) and sampler.name not in (*planning.GOES_ON, *planning.EXACT)
        job.payload["pilot"] = judge_choice.pilot_of(run, queries, panel) if is_design else []
        job.payload["begins"] = not run.round or judge_choice.was_pilot(run)
    if "shares" not in job.payload and not is_across(sampler):
        number = 1 if job.payload["begins"] else int(job.payload["round"])
        job.payload["shares"] = shares_of_round(run, sampler, judges, queries=queries, round_number=number)
    waiting = len(queries) - len(job.payload["pilot"] or queries)  # for the judges to be measured
    queries = job.payload["pilot"] or queries
    while ahead := [query for query in queries if query > job.payload["after"]]:
        chunk = ahead if is_across(sampler) else ahead[:QUERIES_AT_ONCE]
        with transaction.atomic():
            # Without a lock on the key: claims insert attempts of this run meanwhile.
            if not Run.objects.select_for_update(no_key=True).filter(pk=run.pk, state__in=Run.ACTIVE).exists():
                return  # paused or cancelled meanwhile; the job stores where to continue
            shares, number = job.payload.get("shares"), int(job.payload["round"])
            budgets = budgets_of_chunk(run, judges, shares=shares, chunk=chunk, ahead=len(ahead) + waiting)
            if is_across(sampler):
                budget = sum(budgets.values())
                planning.plan_across(
                    run, sampler, judges, query_ids=chunk, budget=budget, round_number=number, panel=panel
                )
            else:
                mixes = sampler.name not in planning.EXACT  # nobody has recorded, or named, the known pairs
                budgets = gold_mixing.keep_room(run, budgets) if mixes else budgets
                begins = job.payload["begins"]
                planning.plan_queries(
                    run, sampler, judges, budgets=budgets, round_number=number, begins=begins, panel=panel
                )
                if mixes:
                    gold_mixing.top_up(run, chunk)
            job.payload = {**job.payload, "after": chunk[-1], "planned_before": planned_before}
            job.done, job.total = len(queries) - len(ahead) + len(chunk), len(queries)
            job.save(update_fields=["payload", "done", "total"])
            run.refresh_from_db()
            failpoints.reach("plan.before_commit")
        failpoints.reach("plan.after_commit")
        for judge in judges:
            leave_hint("judge", judge)
        if len(ahead) > len(chunk):
            _refresh_statistics(-(-(len(queries) - len(ahead) + len(chunk)) // QUERIES_AT_ONCE))
            if time.monotonic() > deadline + (0.0 if _has_questions(run) else LONGEST_SLICE_S):
                leave_hint("advance", run.pk)
                return
            if overlaps and not overlapping.is_ready(run, after=chunk[-1], at_once=QUERIES_AT_ONCE):
                return
    failpoints.reach("plan.before_end")
    _end_round(run, job, added=run.tasks_planned - planned_before)


def _has_questions(run: Run) -> bool:
    """Whether the judges have questions left while more of the round are planned."""
    return JudgingTask.objects.filter(run=run, state=JudgingTask.State.OPEN).exists()


def _refresh_statistics(slices: int) -> None:
    """Let PostgreSQL look at pairs and tasks after the 1st, 8th, 64th ... slice of a round.

    Autovacuum does so within a minute at best. Until then the planner knows nothing of a new table, and reads all pairs for each
    slice.
    """
    if slices in STATISTICS_AFTER:
        with connection.cursor() as cursor:
            cursor.execute(
                "ANALYZE (SKIP_LOCKED) labeling_pair (query_id), workers_judgingtask (pair_id, run_id, state)"
            )


def _end_round(run: Run, job: Job, *, added: int) -> None:
    with transaction.atomic():
        Job.objects.filter(pk=job.pk, state=Job.State.OPEN).update(
            state=Job.State.FINISHED,
            finished_at=Now(),
            message=ASKED_IN_ROUND % {"added": added, "round": job.payload["round"]},
        )
        if added or job.payload.get("pilot"):
            Run.objects.filter(pk=run.pk).update(round=int(job.payload["round"]))
        elif not _is_busy(run):
            spent = run.pair_budget is not None and run.pairs_planned >= run.pair_budget
            reason = PAIRS_SPENT % {"n": run.pair_budget} if spent else DESIGN_COMPLETE
            _finish(run, reason, is_spent=spent)


def _finish(run: Run, reason: str, *, is_spent: bool = False) -> None:
    """End a run that has nothing left to ask; where a judge gave no answers, with that as the reason."""
    with transaction.atomic():
        closing = closing_of(run)
        if closing is None:
            moved = move(run, [Run.State.JUDGING], Run.State.FINISHED, reason=reason, is_spent=is_spent)
        else:
            moved = move(run, [Run.State.JUDGING], closing.state, reason=closing.reason, is_unanswered=True)
            Job.objects.filter(run=run, state=Job.State.OPEN).update(
                state=Job.State.FINISHED, message=closing.reason, finished_at=Now()
            )
        if moved:
            transaction.on_commit(lambda: leave_hint("calibrate", run.project_id))


def runs_to_advance(project_id: int) -> list[int]:
    """Active runs of a project without unfinished tasks, which wait for their next round, or with a round that is planned."""
    unfinished = JudgingTask.objects.filter(
        run=OuterRef("pk"), state__in=[JudgingTask.State.OPEN, JudgingTask.State.LEASED]
    )
    planned = Job.objects.filter(run=OuterRef("pk"), stage="pairs", state=Job.State.OPEN)
    active = Run.objects.filter(project_id=project_id, state__in=Run.ACTIVE)
    rows = active.filter(Exists(planned) | ~Exists(unfinished))
    return list(rows.order_by("id").values_list("id", flat=True))
