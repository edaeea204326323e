"""Agreement of people with each other and with judges: kappa, alpha and plain agreement with intervals.

Measured on the pairs that people answered last, each half in either direction, so that which of its documents was imported first does
not matter. The two orders of a judge are averaged into one opinion. "Neither is
relevant" is a separate label; "cannot judge", verdicts and answers given after seeing others are left out. A
coefficient that cannot be computed has a reason. For pages and REST.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from labeling.access.annotators import names_told_apart
from labeling.models import Annotator, Project
from labeling.records import BoolArray, FloatArray
from scoring.annotators.agreement import FEWEST_COMMON, in_steps, turned_steps
from scoring.columns import copy_columns
from scoring.models import INDEPENDENT
from scoring.numerics.measures.agreement import Measured, alpha_interval, kappa_interval
from scoring.numerics.measures.metrics import Level, Mirror
from scoring.numerics.measures.sides import side, turned

LATEST_ANSWERS = 20_000
MOST_ITEMS = 5_000
MOST_COUPLES = 40
LEVELS: tuple[Level, ...] = ("nominal", "ordinal", "interval")

# The label of "neither is relevant" beside the sides 1, 0 and -1.
NEITHER = 2.0


class Undefined(enum.StrEnum):
    """The reason why a coefficient is undefined."""

    NO_OVERLAP = "no_overlap"
    FEW = "few"
    ONE_CATEGORY = "one_category"


@dataclass(frozen=True, slots=True)
class Coefficient:
    """A coefficient with its 95 % interval on `common` pairs, or the reason why it is `undefined`.

    `same`: share of the common pairs with the same label, None without any. It may exist where kappa does not.
    """

    value: float | None
    low: float | None
    high: float | None
    common: int
    same: float | None
    undefined: Undefined | None


@dataclass(frozen=True, slots=True)
class Couple:
    """Two annotators, the first one a person; Cohen's kappa of their labels."""

    first: str
    second: str
    second_is_person: bool
    kappa: Coefficient


@dataclass(frozen=True, slots=True)
class Alphas:
    """Krippendorff's alpha: nominal on the label, ordinal and interval on the preference."""

    nominal: Coefficient
    ordinal: Coefficient
    interval: Coefficient


@dataclass(frozen=True, slots=True)
class PeopleAgreement:
    """Agreement of all people who answered, on `pairs` pairs; `couples` with most common pairs first."""

    people: int
    judges: int
    pairs: int
    among_people: Alphas
    with_judges: Alphas
    couples: tuple[Couple, ...]
    couples_left: int


@dataclass(frozen=True, slots=True)
class AnswerTable:
    """`preference` in [0, 1] and `label` float64[annotators, pairs], NaN where missing; `is_person` bool[annotators]."""

    ids: tuple[int, ...]
    names: tuple[str, ...]
    is_person: BoolArray
    preference: FloatArray
    label: FloatArray


def people_agreement(project: Project, *, only: int | None = None, seed: int = 0) -> PeopleAgreement:
    """Return the agreement of all people; `only`: restrict couples to those with this annotator."""
    table = read_answers(project, only)
    people = np.flatnonzero(table.is_person)
    couples = _couples(table, only, seed)
    return PeopleAgreement(
        people=len(people),
        judges=len(table.names) - len(people),
        pairs=table.label.shape[1],
        among_people=_alphas(table, people, seed),
        with_judges=_alphas(table, np.arange(len(table.names)), seed),
        couples=couples[:MOST_COUPLES],
        couples_left=max(0, len(couples) - MOST_COUPLES),
    )


_ANSWERS = f"""
WITH asked AS (
    SELECT DISTINCT latest.pair_id FROM (
        SELECT answer.pair_id FROM labeling_live_judgment answer
        JOIN labeling_annotator person ON person.id = answer.annotator_id
        WHERE person.project_id = %s AND answer.by_person
          AND answer.kind <> 'cannot_judge' AND (%s::bigint IS NULL OR person.id = %s) AND {INDEPENDENT}
        ORDER BY answer.id DESC LIMIT %s
    ) latest
)
SELECT answer.pair_id, answer.annotator_id, COALESCE(avg(answer.preference), 'NaN')::float8
FROM asked JOIN labeling_live_judgment answer ON answer.pair_id = asked.pair_id
WHERE answer.kind <> 'cannot_judge' AND {INDEPENDENT}
GROUP BY 1, 2 ORDER BY 1, 2
"""


def read_answers(project: Project, only: int | None = None) -> AnswerTable:
    """Return the labels of everybody on the pairs that people answered last."""
    rows = copy_columns(
        _ANSWERS,
        [project.pk, only, only, LATEST_ANSWERS],
        [("pair", "i8"), ("annotator", "i8"), ("preference", "f8")],
    )
    ids, of_row = np.unique(rows["annotator"].astype(np.int64), return_inverse=True)
    pairs, pair = np.unique(rows["pair"].astype(np.int64), return_inverse=True)
    is_person = dict(Annotator.objects.filter(pk__in=ids.tolist()).values_list("id", "is_person"))
    names = names_told_apart(project)
    preference = np.full((len(ids), len(pairs)), np.nan)
    label = preference.copy()
    given = rows["preference"].astype(np.float64)
    preference[of_row, pair] = given
    label[of_row, pair] = np.where(np.isnan(given), NEITHER, side(given))
    return AnswerTable(
        ids=tuple(ids.tolist()),
        names=tuple(names[each] for each in ids.tolist()),
        is_person=np.array([is_person[each] for each in ids.tolist()], dtype=np.bool_),
        preference=preference,
        label=label,
    )


def _couples(table: AnswerTable, only: int | None, seed: int) -> tuple[Couple, ...]:
    """Return all couples that contain a person, once each; those without common pairs come last."""
    found = []
    for first in np.flatnonzero(table.is_person).tolist():
        for second in range(len(table.names)):
            if first == second or (table.is_person[second] and second < first):
                continue
            if only is not None and only not in (table.ids[first], table.ids[second]):
                continue
            one, other = sorted((first, second), key=lambda row: table.names[row])
            kappa = _kappa(table.label[one], table.label[other], seed)
            found.append(Couple(table.names[first], table.names[second], bool(table.is_person[second]), kappa))
    return tuple(sorted(found, key=lambda each: (not each.second_is_person, -each.kappa.common)))


def _kappa(first: FloatArray, second: FloatArray, seed: int) -> Coefficient:
    both = ~(np.isnan(first) | np.isnan(second))
    x, y = first[both], second[both]
    same = float(np.mean(x == y)) if len(x) else None
    if len(x) < FEWEST_COMMON:
        return _undefined(len(x), same)
    return _coefficient(kappa_interval(x, y, rng=np.random.default_rng(seed), mirror=turned), same)


def _alphas(table: AnswerTable, rows: np.ndarray, seed: int) -> Alphas:
    """Return alpha of these annotators on at most MOST_ITEMS pairs that two or more of them answered."""
    label, preference = table.label[rows], in_steps(table.preference[rows])
    shared = np.flatnonzero((~np.isnan(label)).sum(axis=0) >= 2)
    if len(shared) > MOST_ITEMS:
        shared = np.sort(np.random.default_rng(seed).choice(shared, MOST_ITEMS, replace=False))
    label, preference = label[:, shared], preference[:, shared]
    same = _same(label)
    found = {
        level: _alpha(label, level, same, seed, turned)
        if level == "nominal"
        else _alpha(preference, level, same, seed, turned_steps)
        for level in LEVELS
    }
    return Alphas(found["nominal"], found["ordinal"], found["interval"])


def _alpha(ratings: FloatArray, level: Level, same: float | None, seed: int, mirror: Mirror) -> Coefficient:
    items = int(((~np.isnan(ratings)).sum(axis=0) >= 2).sum())
    if items < FEWEST_COMMON:
        return _undefined(items, same)
    return _coefficient(alpha_interval(ratings, level=level, rng=np.random.default_rng(seed), mirror=mirror), same)


def _same(label: FloatArray) -> float | None:
    """Return the share of couples of answers with the same label."""
    agree = total = 0.0
    for value in (-1.0, 0.0, 1.0, NEITHER):
        count = (label == value).sum(axis=0)
        agree += float((count * (count - 1)).sum())
    number = (~np.isnan(label)).sum(axis=0)
    total = float((number * (number - 1)).sum())
    return agree / total if total else None


def _undefined(common: int, same: float | None) -> Coefficient:
    return Coefficient(None, None, None, common, same, Undefined.FEW if common else Undefined.NO_OVERLAP)


def _coefficient(found: Measured, same: float | None) -> Coefficient:
    if np.isnan(found.value):
        return Coefficient(None, None, None, found.count, same, Undefined.ONE_CATEGORY)
    return Coefficient(found.value, found.low, found.high, found.count, same, None)
