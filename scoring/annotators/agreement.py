"""Agreement of annotators: kappa, alpha, disagreement, gold accuracy, order flips, shared errors.

Measured on a seeded sample of rated queries, without cross-query answers, verdicts and answers given after seeing
others. Sharpness, bias and weight of judges are the stored results of `scoring.annotators.judge_sharpness`; the
measures come from `scoring.numerics.measures.metrics`. The pages use this module.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from django.db import connection

from labeling.access.annotators import names_told_apart
from labeling.models import Annotator, Project
from labeling.records import FloatArray, IntArray
from scoring.columns import ProjectColumns, read_columns
from scoring.models import INDEPENDENT, JudgeFit, ProjectFit
from scoring.numerics.judges.judge_checks import Z95, Estimate
from scoring.numerics.measures.metrics import cohen_kappa, krippendorff_alpha
from scoring.numerics.measures.sides import Share, agreement, flips, side, turned
from scoring.project_fits import sampled_query_ids

# Alpha counts pairs of distinct values, so preferences are rounded to this number of steps.
STEPS = 20
FEWEST_COMMON = 10


@dataclass(frozen=True, slots=True)
class AnnotatorFigures:
    """One annotator. `answers` and what follows them are of the sample; sides are compared, ties half.

    `with_others`: agreement with the mean of all other annotators' answers; `with_people`: of a model with
    people; `gold`: with gold answers; `flips`: pairs asked in both orders on which the sides differ.
    Estimates are None until measured; `anchored`: measured against people or grades. `weight` of a vote
    applies if the project weights judges.
    """

    annotator_id: int
    name: str
    is_person: bool
    answers: int
    with_others: Share
    with_people: Share
    gold: Share
    flips: Share
    sharpness: Estimate | None
    position_bias: Estimate | None
    dispersion: float | None
    weight: float | None
    anchored: bool


@dataclass(frozen=True, slots=True)
class AnnotatorPair:
    """Two annotators on their common pairs: Cohen's kappa of the sides taken (None: too few, or always one side)."""

    first: str
    second: str
    common: int
    kappa: float | None


@dataclass(frozen=True, slots=True)
class SharedErrors:
    """Two judges whose residuals correlate, so that their agreement proves less than it seems."""

    first: str
    second: str
    correlation: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """All annotators of a project on `pairs` sampled pairs. `alpha`: Krippendorff's, interval level, None if
    undefined; `disagreement`: share of pairs with two annotators or more on which some take opposite sides.
    """

    annotators: tuple[AnnotatorFigures, ...]
    kappas: tuple[AnnotatorPair, ...]
    alpha: float | None
    disagreement: Share
    shared_errors: tuple[SharedErrors, ...]
    pairs: int


def judge_figures(project: Project, *, seed: int = 0) -> Agreement:
    """Return the agreement of all annotators in the project."""
    read = read_columns(sampled_query_ids(project.pk, seed=seed), independent=True)
    ratings, flipped, counts = _ratings(read)
    people = set(Annotator.objects.filter(project=project, is_person=True).values_list("id", flat=True))
    names = names_told_apart(project)
    ids = read.annotator_ids.tolist()
    is_person = np.array([each in people for each in ids], dtype=np.bool_)
    fits = {fit.annotator_id: fit for fit in JudgeFit.objects.filter(annotator_id__in=ids)}
    gold = _gold(project.pk)
    annotators = tuple(
        _figures(
            ids[row],
            names[ids[row]],
            ratings=ratings,
            row=row,
            is_person=is_person,
            fit=fits.get(ids[row]),
            answers=int(counts[row]),
            flips=flipped[row],
            gold=gold.get(ids[row], Share(0.0, 0)),
        )
        for row in range(len(ids))
    )
    return Agreement(
        annotators=tuple(sorted(annotators, key=lambda each: (each.is_person, each.annotator_id))),
        kappas=_kappas(ratings, [names[each] for each in ids]),
        alpha=_number(krippendorff_alpha(in_steps(ratings), mirror=turned_steps)) if ratings.size else None,
        disagreement=_disagreement(ratings),
        shared_errors=_shared_errors(project, names),
        pairs=ratings.shape[1],
    )


def in_steps(preference: FloatArray) -> FloatArray:
    """Preferences as whole steps from 0 to STEPS; half-way ones go to the even step, whichever document is called a."""
    return np.round(np.round(preference * STEPS, 9))


def turned_steps(steps: FloatArray) -> FloatArray:
    """The steps of the same pairs with a and b exchanged."""
    return STEPS - steps


def _ratings(read: ProjectColumns) -> tuple[FloatArray, list[Share], IntArray]:
    """Return mean preferences by annotator and pair, float64[J, P] with NaN; flips; answers int64[J]."""
    columns = read.columns
    _, pair = np.unique(read.pair_ids, return_inverse=True)
    shape = (2, len(read.annotator_ids), int(pair.max(initial=-1)) + 1)
    by_order = np.full(shape, np.nan)
    by_order[columns.swapped.astype(np.int64), columns.judge, pair] = columns.preference
    counts = np.bincount(columns.judge, minlength=len(read.annotator_ids))
    flipped = [flips(by_order[0, row], by_order[1, row]) for row in range(shape[1])]
    given = ~np.isnan(by_order)
    total = np.where(given, by_order, 0.0).sum(axis=0)
    number = given.sum(axis=0)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan), flipped, counts


def _mean_of(ratings: FloatArray) -> FloatArray:
    """Return column means without NaN; NaN for an empty column."""
    given = ~np.isnan(ratings)
    number = given.sum(axis=0)
    return np.where(number > 0, np.where(given, ratings, 0.0).sum(axis=0) / np.maximum(number, 1), np.nan)


def _figures(
    annotator_id: int,
    name: str,
    *,
    ratings: FloatArray,
    row: int,
    is_person: np.ndarray,
    fit: JudgeFit | None,
    answers: int,
    flips: Share,
    gold: Share,
) -> AnnotatorFigures:
    others = np.delete(ratings, row, axis=0)
    people = ratings[is_person]
    return AnnotatorFigures(
        annotator_id=annotator_id,
        name=name,
        is_person=bool(is_person[row]),
        answers=answers,
        with_others=agreement(ratings[row], _mean_of(others)),
        with_people=Share(0.0, 0) if is_person[row] else agreement(ratings[row], _mean_of(people)),
        gold=gold,
        flips=flips,
        sharpness=_estimate(fit.sharpness, fit.sharpness_stderr, fit.votes) if fit else None,
        position_bias=_estimate(fit.position_bias, fit.position_bias_stderr, fit.votes) if fit else None,
        dispersion=fit.dispersion if fit else None,
        weight=fit.weight if fit else None,
        anchored=bool(fit and fit.anchors),
    )


def _estimate(value: float | None, stderr: float | None, votes: int) -> Estimate | None:
    if value is None or stderr is None:
        return None
    return Estimate(value, value - Z95 * stderr, value + Z95 * stderr, votes)


def _kappas(ratings: FloatArray, names: list[str]) -> tuple[AnnotatorPair, ...]:
    sides = side(ratings)
    found = []
    for i in range(len(names)):
        for j in range(i + 1, len(names)):
            both = ~(np.isnan(sides[i]) | np.isnan(sides[j]))
            enough = both.sum() >= FEWEST_COMMON
            kappa = _number(cohen_kappa(sides[i, both], sides[j, both], mirror=turned)) if enough else None
            found.append(AnnotatorPair(names[i], names[j], int(both.sum()), kappa))
    return tuple(found)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _disagreement(ratings: FloatArray) -> Share:
    sides = side(ratings)
    shared = (~np.isnan(sides)).sum(axis=0) >= 2
    split = (sides == 1.0).any(axis=0) & (sides == -1.0).any(axis=0)
    return Share(float((split & shared).sum()), int(shared.sum()))


def _shared_errors(project: Project, names: dict[int, str]) -> tuple[SharedErrors, ...]:
    """Return the stored measurement of the project's judges without deleted annotators."""
    shared = ProjectFit.objects.filter(project=project).first()
    rows = shared.correlations if shared is not None else []
    return tuple(
        SharedErrors(names[int(i)], names[int(j)], float(r)) for i, j, r in rows if int(i) in names and int(j) in names
    )


# People who saw the expected answer may have corrected theirs, so only their first answer measures accuracy.
_GOLD = f"""
SELECT answer.annotator_id, gold.preference, answer.preference
FROM labeling_goldanswer gold JOIN labeling_judgment answer ON answer.pair_id = gold.pair_id
JOIN labeling_annotator annotator ON annotator.id = answer.annotator_id
WHERE annotator.project_id = %s AND answer.kind = 'preference'
  AND (answer.superseded_at IS NULL
       OR EXISTS (SELECT 1 FROM labeling_told seen WHERE seen.judgment_id = answer.id))
  AND {INDEPENDENT}
"""


def _gold(project_id: int) -> dict[int, Share]:
    """Return the agreement with gold answers by annotator."""
    with connection.cursor() as cursor:
        cursor.execute(_GOLD, [project_id])
        rows = np.array(cursor.fetchall(), dtype=np.float64).reshape(-1, 3)
    return {
        int(annotator): agreement(rows[rows[:, 0] == annotator, 1], rows[rows[:, 0] == annotator, 2])
        for annotator in np.unique(rows[:, 0])
    }
