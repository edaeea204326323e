"""Orders by the Elo of chosen judges: of all, of some, or of all with judges weighted by their measured sharpness.

Nothing is stored. The demo's table and whoever compares panels use it; `scoring.quality` measures the orders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from labeling.models import Project
from labeling.plugins import Rater, get_plugin
from labeling.records import Fit
from scoring.columns import ProjectColumns, only_votes, read_columns
from scoring.numerics.fitting.likelihood import LOGIT_SCALES
from scoring.numerics.judges.judges import fit_with_judges
from scoring.project_fits import model_of, stored_terms
from scoring.raters import rate
from scoring.same_texts import Merged, distinct, expanded


def elo_of(project: Project, query_ids: Sequence[int], judges: Sequence[int] | None = None) -> dict[int, float]:
    """Return the strength by candidate id from the votes of these judges alone (None: of all), weighted as in the stored scores."""
    read = read_columns(query_ids)
    if judges is not None:
        read = only_votes(read, np.isin(read.annotator_ids, list(judges))[read.columns.judge])
    one = distinct(read)
    return _strengths(read, one, rate(_rater(project), one.read, stored_terms(project)))


def judge_aware_elo(project: Project, query_ids: Sequence[int]) -> dict[int, float]:
    """Return the strength by candidate id from all votes, judges weighted by their sharpness, without grades or people.

    Judges are measured against their joint strengths, which shared errors can mislead.
    """
    read = read_columns(query_ids)
    model = model_of(_rater(project)) or next(iter(LOGIT_SCALES))
    one = distinct(read)
    return _strengths(read, one, fit_with_judges(one.read.columns, model=model).fit)


def _rater(project: Project) -> Rater:
    return cast(Rater, get_plugin("rater", project.rater).from_dict(dict(project.rater_options)))


def _strengths(read: ProjectColumns, one: Merged, of_texts: Fit) -> dict[int, float]:
    fit = expanded(of_texts, one, read)
    compared = fit.comparisons > 0
    found: Mapping[int, float] = dict(
        zip(read.candidate_ids[compared].tolist(), fit.theta[compared].tolist(), strict=True)
    )
    return dict(found)
