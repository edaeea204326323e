"""Changes the budgets of a run and the caps of a project, and resumes runs that had spent theirs.

Pages, REST and commands call the same functions, which write the audit log. `workers.budgets.limits` enforces the limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction

from labeling import audit
from labeling.models import Project
from workers.broker.hints import leave_hint
from workers.budgets.limits import Budgets, read_caps, standing
from workers.models import Caps, Job, Run

RUN_FIELDS = ("pair_budget", "call_budget", "token_budget", "cost_budget_micros")
CAP_FIELDS = ("calls", "tokens", "cost_micros")


class RunIsOver(ValueError):
    """The run was cancelled or failed, so its budget cannot be changed."""


def change_budgets(run: Run, changes: Mapping[str, int | None], *, by: Any = None) -> Run:
    """Change budgets of a run; those that are not in `changes` stay, None is no limit.

    A run that had ended because a budget was spent, or at the bound of its estimate, continues where it stopped; that bound
    is lifted. Raises BadBudget, RunIsOver.
    """
    changes = _known(changes, RUN_FIELDS)
    with transaction.atomic():
        run = Run.objects.select_for_update(no_key=True, of=("self",)).select_related("project").get(pk=run.pk)
        if run.state in (Run.State.CANCELLED, Run.State.FAILED):
            raise RunIsOver(f"run {run.pk} is {run.state}; start another one instead of changing its budget")
        before = {field: getattr(run, field) for field in RUN_FIELDS}
        for field, value in changes.items():
            setattr(run, field, value)
        Budgets.of(run).check()
        # An owner who sets the budgets overrides the estimate: it no longer limits the run.
        run.estimate = {name: value for name, value in run.estimate.items() if not name.startswith("question_")}
        run.save(update_fields=[*RUN_FIELDS, "estimate"])
        _note("run.budget", run.project, before, {**before, **changes}, by=by, subject=f"run {run.pk}")
        go_on(run)
    return run


def change_caps(project: Project, changes: Mapping[str, int | None], *, by: Any = None) -> Budgets:
    """Change the caps of a project on `calls`, `tokens` and `cost_micros`; those that are not named stay, None is no limit.

    Runs that had ended because of a cap continue where they stopped. Raises BadBudget.
    """
    changes = _known(changes, CAP_FIELDS)
    with transaction.atomic():
        caps, _ = Caps.objects.select_for_update().get_or_create(project=project)
        before = {field: getattr(caps, field) for field in CAP_FIELDS}
        after = {**before, **changes}
        Budgets(None, *after.values()).check()
        Caps.objects.filter(pk=caps.pk).update(**after)
        _note("project.caps", project, before, after, by=by, subject=project.slug)
        for run in Run.objects.filter(project=project, is_spent=True, state=Run.State.FINISHED).order_by("id"):
            go_on(run)
    return read_caps(project.pk)


def go_on(run: Run) -> bool:
    """Resume a run that had ended because a budget was spent, if it has budget now; it continues where it stopped."""
    if not run.is_spent or run.state != Run.State.FINISHED or not _may_go_on(run):
        return False
    with transaction.atomic():
        reason = run.reason
        spent = Run.objects.filter(pk=run.pk, is_spent=True, state=Run.State.FINISHED)
        if not spent.update(state=Run.State.JUDGING, reason="", is_spent=False, finished_at=None):
            return False
        interrupted = Job.objects.filter(run=run, state=Job.State.FINISHED, message=reason).order_by("-id").first()
        if interrupted is not None:
            Job.objects.filter(pk=interrupted.pk).update(state=Job.State.OPEN, message="", finished_at=None)
        run.refresh_from_db()
        judges = list(run.judges.values_list("id", flat=True))
        transaction.on_commit(lambda: leave_hint("advance", run.pk))
        for judge in judges:
            transaction.on_commit(lambda judge=judge: leave_hint("judge", judge))  # type: ignore[misc]
    return True


def _may_go_on(run: Run) -> bool:
    has_pairs = run.pair_budget is None or run.pairs_planned < run.pair_budget
    unfinished = run.tasks.filter(state="open").exists()
    return standing(run).may_ask and (has_pairs or unfinished)


def _known(changes: Mapping[str, int | None], fields: tuple[str, ...]) -> dict[str, int | None]:
    if unknown := sorted(set(changes) - set(fields)):
        raise TypeError(f"budgets {', '.join(unknown)} are unknown; expected {', '.join(fields)}")
    return dict(changes)


def _note(
    action: str, project: Project, before: Mapping[str, Any], after: Mapping[str, Any], *, by: Any, subject: str
) -> None:
    changed = {name: f"{_said(before[name])} → {_said(after[name])}" for name in before if before[name] != after[name]}
    if changed:
        audit.note(action, project=project, actor=by, subject=subject, **changed)


def _said(value: int | None) -> str:
    return "no limit" if value is None else f"{value:,}"
