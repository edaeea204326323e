"""Chooses the parameters that all fits of a project share: the prior's precision and judges' weights.

Both are measured on a seeded sample of queries, which takes about a second for any size of project.
`scoring.rating` fits with `project_rater`; `workers.jobs.calibration` decides when to choose again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from django.db import connection, transaction
from django.db.models import F
from django.dispatch import receiver

from labeling.models import Project
from labeling.plugins import Rater, get_plugin
from labeling.signals import rater_changed
from scoring.annotators.call_correlations import measure_calls
from scoring.annotators.counted import counted_votes
from scoring.annotators.judge_sharpness import JudgePanel, measure_judges
from scoring.annotators.student_weights import student_ids, student_terms, votes_of
from scoring.columns import in_name_order, only_votes, read_columns
from scoring.models import JudgeFit, ProjectFit
from scoring.numerics.fitting.likelihood import LOGIT_SCALES
from scoring.numerics.fitting.prior import PriorChoice, choose_prior
from scoring.numerics.judges.calls import CallCorrelation
from scoring.outside_option import who_says_neither
from scoring.same_texts import distinct

SAMPLED_JUDGMENTS = 40_000
GROWTH = 1.5

# `chosen_at` of a project whose choice is outdated.
NEVER = datetime.fromtimestamp(0, tz=UTC)

# A smaller change of the prior changes strengths by less than the rounding on a page, so no refit is needed.
SAME_LOG_PRIOR = 0.05
SAME_TERM = 0.02
SAME_CORRELATION = 0.05


@dataclass(frozen=True, slots=True)
class Chosen:
    """The project's new choice; `changed` means that its queries need a refit."""

    version: int
    prior_precision: float | None
    cross_validated: bool
    changed: bool


@receiver(rater_changed)
def forget_project_fit(sender: type[Project], project_id: int, rater: str, **kwargs: Any) -> None:
    """Mark every fit of the project as stale and its prior, judges' weights and biases as outdated."""
    forgotten: dict[str, Any] = {
        "rater": rater,
        "prior_precision": None,
        "cross_validated": False,
        "judge_terms": {},
        "judgments": 0,
        "chosen_at": NEVER,
        "calibrated_at": None,
    }
    if not ProjectFit.objects.filter(project_id=project_id).update(version=F("version") + 1, **forgotten):
        ProjectFit.objects.create(project_id=project_id, version=1, **forgotten)


def project_rater(project: Project, shared: ProjectFit | None = None) -> Rater:
    """Return the project's rater with the chosen prior, unless its options set one."""
    plugin = get_plugin("rater", project.rater)
    options = dict(project.rater_options)
    if shared is None:
        shared = ProjectFit.objects.filter(project=project).first()
    free = "prior_precision" in plugin.Options.model_fields and options.get("prior_precision") is None
    if free and shared is not None and shared.rater == project.rater and shared.prior_precision is not None:
        options["prior_precision"] = shared.prior_precision
    return cast(Rater, plugin.from_dict(options))


def model_of(rater: Rater) -> str | None:
    """Return the likelihood of a built-in rater; None for a third-party rater."""
    model = getattr(rater, "model", None)
    return model if model in LOGIT_SCALES else None


def choose_project_fit(project_id: int) -> Chosen:
    """Choose the prior by cross-validation, measure the judges, and store both.

    Keeps a prior that the project's options set, and the rater's default if there are too few pairs.
    A third-party rater gets no prior.
    """
    project = Project.objects.get(pk=project_id)
    plain = cast(Rater, get_plugin("rater", project.rater).from_dict(project.rater_options))
    model = model_of(plain)
    before = database_time()
    students = student_ids([project_id])
    choice = _choose(project, plain, model, students)
    panel = measure_judges(project, model=model or "bradley-terry", prior_precision=_precision(choice, plain))
    calls = measure_calls(project_id, model=model or "bradley-terry", prior_precision=_precision(choice, plain))
    terms = _terms(panel, plain)
    if model is not None and students:
        sample = counted_votes(project, read_columns(sampled_query_ids(project_id)))
        terms = terms | student_terms(sample, students, model=model, prior_precision=_precision(choice, plain))
    return _store(project, choice=choice, panel=panel, terms=terms, calls=calls, before=before)


def _terms(panel: JudgePanel, plain: Rater) -> dict[str, list[float]]:
    """Return the judges' terms in fits by this rater, see ProjectFit."""
    if panel.anchors and getattr(plain.options, "judge_weights", "equal") == "anchored":
        return panel.terms
    return panel.bias_terms if takes_out_bias(plain) else {}


def takes_out_bias(rater: Rater) -> bool:
    """Whether scores by this rater leave out position biases that are sure."""
    return getattr(rater.options, "position_bias", "kept") == "removed"


def stored_terms(project: Project) -> dict[str, list[float]]:
    """Return the judges' terms in the stored scores, see ProjectFit."""
    return ProjectFit.objects.filter(project=project).values_list("judge_terms", flat=True).first() or {}


def _choose(project: Project, plain: Rater, model: str | None, students: Sequence[int]) -> PriorChoice | None:
    """Return the prior chosen on the votes of all but students, or None if there is nothing to choose."""
    if model is None or getattr(plain.options, "prior_precision", None) is not None:
        return None
    sample = sampled_query_ids(project.pk)
    if not sample:
        return None
    read = counted_votes(project, read_columns(sample))
    if students:
        read = only_votes(read, ~votes_of(read, students))
    return choose_prior(in_name_order(distinct(read).read), model=model, threads=1)


def _precision(choice: PriorChoice | None, plain: Rater) -> float:
    if choice is not None and choice.cross_validated:
        return choice.prior_precision
    return float(getattr(plain, "prior_precision", 0.1)) or 1e-4


_SAMPLE = """
WITH drawn AS (
    SELECT fit.query_id, sum(fit.judgments) OVER (ORDER BY hashtextextended(query.text, %(seed)s), fit.query_id)
           - fit.judgments AS before
    FROM scoring_queryfit fit JOIN labeling_query query ON query.id = fit.query_id
    WHERE query.project_id = %(project)s AND fit.judgments > 0
)
SELECT query_id FROM drawn WHERE before < %(most)s ORDER BY query_id
"""


def sampled_query_ids(project_id: int, *, most: int = SAMPLED_JUDGMENTS, seed: int = 0) -> list[int]:
    """Return random rated queries with up to `most` judgments in total; the same seed gives the same queries."""
    with connection.cursor() as cursor:
        cursor.execute(_SAMPLE, {"project": project_id, "most": most, "seed": seed})
        return [row[0] for row in cursor.fetchall()]


def database_time() -> datetime:
    """Return the database's current time, which all processes share."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        return cast(datetime, cursor.fetchone()[0])


_JUDGMENTS = """
SELECT COALESCE(sum(fit.judgments), 0)::bigint FROM scoring_queryfit fit
JOIN labeling_query query ON query.id = fit.query_id WHERE query.project_id = %s
"""


def fitted_judgments(project_id: int) -> int:
    """Return the number of judgments in the project's fits."""
    with connection.cursor() as cursor:
        cursor.execute(_JUDGMENTS, [project_id])
        return int(cursor.fetchone()[0])


def _store(
    project: Project,
    *,
    choice: PriorChoice | None,
    panel: JudgePanel,
    terms: dict[str, list[float]],
    calls: dict[int, CallCorrelation],
    before: datetime,
) -> Chosen:
    precision = choice.prior_precision if choice is not None and choice.cross_validated else None
    values: dict[str, Any] = {
        "rater": project.rater,
        "prior_precision": precision,
        "cross_validated": precision is not None,
        "dispersion": None if choice is None else choice.dispersion,
        "losses": [] if choice is None else list(zip(choice.grid.tolist(), choice.losses.tolist(), strict=True)),
        "pairs": 0 if choice is None else choice.pairs,
        "correlations": [list(each) for each in panel.correlations],
        "judgments": fitted_judgments(project.pk),
        "chosen_at": before,
    }
    with transaction.atomic():
        shared, _ = ProjectFit.objects.select_for_update().get_or_create(
            project=project, defaults={"version": 0, "rater": project.rater, "chosen_at": before}
        )
        if not Project.objects.filter(
            pk=project.pk, rater=project.rater, rater_options=project.rater_options
        ).exists():  # changed during the computation, so it is outdated
            return Chosen(shared.version, shared.prior_precision, shared.cross_validated, changed=False)
        changed = shared.rater != project.rater or not _alike(shared.prior_precision, precision)
        changed = changed or not _same_terms(shared.judge_terms, terms) or not _same_calls(calls)
        says = who_says_neither(project.pk)
        changed = changed or says != shared.says_neither
        if changed:
            values |= {"version": shared.version + 1, "judge_terms": terms, "says_neither": says}
        else:
            values["prior_precision"] = shared.prior_precision
        ProjectFit.objects.filter(pk=project.pk).update(**values)
        _store_judges(panel, calls if changed else {})
    return Chosen(
        version=int(values.get("version", shared.version)),
        prior_precision=values["prior_precision"],
        cross_validated=bool(values["cross_validated"]),
        changed=changed,
    )


def _alike(first: float | None, second: float | None) -> bool:
    if first is None or second is None:
        return first is second
    return abs(math.log(first / second)) <= SAME_LOG_PRIOR


def _same_terms(first: Mapping[str, Sequence[float]], second: Mapping[str, Sequence[float]]) -> bool:
    if first.keys() != second.keys():
        return False
    return all(abs(x - y) <= SAME_TERM for judge in first for x, y in zip(first[judge], second[judge], strict=True))


def _same_calls(calls: Mapping[int, CallCorrelation]) -> bool:
    """Whether the weights that these correlations give are those of the stored fits."""
    stored = dict(JudgeFit.objects.filter(annotator__in=calls).values_list("annotator_id", "call_correlation"))
    known = {judge: stored.get(judge) for judge in calls}
    return all(
        before is not None and abs(before - calls[judge].correlation) <= SAME_CORRELATION
        for judge, before in known.items()
    )


def _store_judges(panel: JudgePanel, calls: Mapping[int, CallCorrelation]) -> None:
    for figures in panel.judges:
        JudgeFit.objects.update_or_create(annotator_id=figures.annotator_id, defaults=figures.columns())
    for judge, each in calls.items():
        error = each.stderr if math.isfinite(each.stderr) else None
        found = {"call_correlation": each.correlation, "call_correlation_stderr": error, "calls": each.calls}
        JudgeFit.objects.update_or_create(annotator_id=judge, defaults=found)
