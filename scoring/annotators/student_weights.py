"""Weights of the votes of a panel's students in a project, for fits and designs.

`scoring.project_fits` measures and stores it with the judges' weights; the mathematics is in
`scoring.numerics.judges.student_weight`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from labeling.models import Annotator
from labeling.plugins import Judge, registered
from labeling.records import BoolArray
from scoring.columns import ProjectColumns, in_name_order
from scoring.models import ProjectFit
from scoring.numerics.judges.student_weight import START, choose_student_weight
from scoring.same_texts import distinct


def student_plugins() -> list[str]:
    """Names of the judges that are students of other judges."""
    found = registered("judge").items()
    return [name for name, plugin in found if issubclass(plugin, Judge) and plugin.learns_from_panel]


def student_ids(project_ids: Sequence[int]) -> list[int]:
    """The annotators of these projects that are students of other judges."""
    students = Annotator.objects.filter(project__in=project_ids, plugin__in=student_plugins())
    return list(students.order_by("id").values_list("id", flat=True))


def votes_of(read: ProjectColumns, annotators: Sequence[int]) -> BoolArray:
    """A mask of the votes by these annotators, bool[m]."""
    return np.asarray(np.isin(read.annotator_ids, list(annotators))[read.columns.judge])


def student_terms(
    read: ProjectColumns, students: Sequence[int], *, model: str, prior_precision: float
) -> dict[str, list[float]]:
    """(sharpness, position bias, weight) by annotator id of the students that voted, as `ProjectFit.judge_terms`."""
    voted = sorted(set(students) & set(read.annotator_ids.tolist()))
    if not voted:
        return {}
    columns = in_name_order(distinct(read).read)
    found = choose_student_weight(
        columns,
        np.isin(read.annotator_ids, voted)[columns.judge],
        model=model,
        prior_precision=prior_precision,
        rng=np.random.default_rng(0),
        threads=1,
    )
    return {str(student): [1.0, 0.0, found.weight] for student in voted}


def guides_of(project_id: int, judges: Sequence[int]) -> dict[int, float]:
    """Weight of a vote by id of the students whose answers guide a run of other judges; empty where a student judges."""
    students = student_ids([project_id])
    if set(students) & set(judges):
        return {}
    terms = ProjectFit.objects.filter(project=project_id).values_list("judge_terms", flat=True).first() or {}
    return {student: float(terms.get(str(student), (1.0, 0.0, START))[2]) for student in students}
