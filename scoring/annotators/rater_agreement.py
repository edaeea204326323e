"""The agreement of the raters who graded documents: counts, exact agreement, leniency and weighted kappa for each of them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from django.db import connection
from django.db.models import Count

from labeling.models import Annotator, Project, RaterGrade
from scoring.numerics.measures.metrics import cohen_kappa
from scoring.numerics.measures.sides import Share

FEWEST_COMMON = 10


@dataclass(frozen=True, slots=True)
class RaterFigures:
    """One rater. Comparisons are with each other rater of the same document.

    `same`: equal grades; `leniency`: the rater's grade minus the other's, on average; `kappa`: Cohen's with quadratic weights.
    The last two are None below FEWEST_COMMON comparisons, and kappa where every grade is the same.
    """

    annotator_id: int
    name: str
    is_person: bool
    grades: int
    same: Share
    leniency: float | None
    kappa: float | None


_COMMON = """
SELECT one.annotator_id, one.grade, other.grade, count(*)
FROM labeling_ratergrade one
JOIN labeling_annotator rater ON rater.id = one.annotator_id AND rater.project_id = %s
JOIN labeling_ratergrade other ON other.query_external_id = one.query_external_id
    AND other.document_external_id = one.document_external_id AND other.annotator_id <> one.annotator_id
JOIN labeling_annotator second ON second.id = other.annotator_id AND second.project_id = rater.project_id
GROUP BY 1, 2, 3 ORDER BY 1
"""


def rater_figures(project: Project) -> list[RaterFigures]:
    """The figures of every rater of the project, by name."""
    graded = RaterGrade.objects.filter(annotator__project=project).order_by().values_list("annotator_id")
    counts = dict(graded.annotate(n=Count("pk")))
    with connection.cursor() as cursor:
        cursor.execute(_COMMON, [project.pk])
        cells = {rater: list(rows) for rater, rows in itertools.groupby(cursor.fetchall(), key=lambda row: row[0])}
    raters = Annotator.objects.filter(pk__in=counts).order_by("name", "pk")
    return [_figures(rater, counts[rater.pk], cells.get(rater.pk, [])) for rater in raters]


def _figures(rater: Annotator, grades: int, cells: list[tuple[int, int, int, int]]) -> RaterFigures:
    own, others, times = (np.array([cell[place] for cell in cells], dtype=np.int64) for place in (1, 2, 3))
    common = int(times.sum())
    same = Share(float(times[own == others].sum()), common)
    leniency = kappa = None
    if common >= FEWEST_COMMON:
        leniency = float(np.average(own - others, weights=times))
        found = cohen_kappa(np.repeat(own, times), np.repeat(others, times), weights="quadratic")
        kappa = None if np.isnan(found) else float(found)
    return RaterFigures(rater.pk, rater.name, rater.is_person, grades, same, leniency, kappa)
