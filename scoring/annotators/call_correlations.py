"""Measures how strongly the preferences of one call about a set are correlated, judge by judge.

Called by `scoring.project_fits`, which stores the result; `scoring.columns` turns it into the weight of each vote. The
mathematics is in `scoring.numerics.judges.calls`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from labeling.models import Judgment
from scoring.columns import ProjectColumns, read_columns
from scoring.numerics.fitting.fit import fit_queries
from scoring.numerics.judges.calls import CallCorrelation, CallVotes, call_correlation
from scoring.sampling.draw import sampled_queries

# Each query inverts a matrix of its votes; so many pin the figure down to a hundredth.
MOST_QUERIES = 60


def measure_calls(project_id: int, *, model: str, prior_precision: float) -> dict[int, CallCorrelation]:
    """Return the correlation for each judge with enough calls about sets, by annotator id."""
    query_ids = _queries_with_sets(project_id)
    if not query_ids:
        return {}
    read = read_columns(query_ids)
    fit = fit_queries(
        read.columns, model=model, prior_precision=prior_precision, standard_errors=False, require_connected=False
    )
    judges = np.unique(read.columns.judge[read.calls > 0]).tolist()
    found = {
        int(read.annotator_ids[judge]): call_correlation(
            _votes_of(read, fit.theta, judge), model=model, prior_precision=prior_precision
        )
        for judge in judges
    }
    return {annotator: each for annotator, each in found.items() if each is not None}


def _queries_with_sets(project_id: int) -> list[int]:
    """Queries that were asked about in sets, drawn by their texts, in id order."""
    rows = Judgment.objects.live().filter(call__isnull=False, annotator__project_id=project_id)
    ids = rows.order_by().values_list("pair__query_id", flat=True).distinct()
    return sampled_queries(list(ids), MOST_QUERIES)


def _votes_of(read: ProjectColumns, theta: np.ndarray, judge: int) -> Sequence[CallVotes]:
    columns = read.columns
    starts = np.concatenate([[0], np.cumsum(columns.sizes)])
    found = []
    for query in range(columns.queries):
        rows = slice(columns.offsets[query], columns.offsets[query + 1])
        mine = (read.calls[rows] > 0) & (columns.judge[rows] == judge)
        found.append(
            CallVotes(
                a=columns.a[rows],
                b=columns.b[rows],
                preference=columns.preference[rows],
                weight=columns.weight[rows],
                call=np.where(mine, read.calls[rows], -1),
                theta=theta[starts[query] : starts[query + 1]],
            )
        )
    return found
