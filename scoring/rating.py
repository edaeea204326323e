"""Stage 5: computes strengths, standard errors, Elo and relevance of queries whose judgments changed.

A query is stale if its `judged_version` is newer than its fit's, or if the project has a new prior or new
weights. A fit reads in one transaction snapshot, computes outside any transaction, and stores query by query,
never replacing a newer version. `workers.tasks` calls it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from django.db import connection, transaction

from labeling.database import is_lost
from labeling.models import Project
from labeling.records import Fit, FloatArray
from scoring.annotators.counted import counted_annotators, counted_votes
from scoring.calibration.relevance import ShownRelevance, shown_relevance
from scoring.columns import ProjectColumns, read_columns
from scoring.models import ProjectFit
from scoring.numerics.calibration.elo import ELO_MEAN, ELO_PER_LOGIT, elo_stderr
from scoring.outside_option import with_neither
from scoring.project_fits import project_rater
from scoring.raters import odds_of_first, rate
from scoring.same_texts import expanded, merged, same_texts

log = logging.getLogger(__name__)

QUERIES_AT_ONCE = 200
LONGEST_ERROR = 2000


@dataclass(frozen=True, slots=True)
class Rated:
    """`queries` were fitted from `judgments`, `failed` could not be; `unfinished`: stale queries may remain."""

    queries: int
    judgments: int
    failed: int = 0
    unfinished: bool = False

    def __add__(self, other: Rated) -> Rated:
        return Rated(
            queries=self.queries + other.queries,
            judgments=self.judgments + other.judgments,
            failed=self.failed + other.failed,
            unfinished=self.unfinished or other.unfinished,
        )


_STALE = """
FROM labeling_query query LEFT JOIN scoring_queryfit fit ON fit.query_id = query.id
LEFT JOIN scoring_projectfit shared ON shared.project_id = query.project_id
WHERE (query.judged_version > COALESCE(fit.judged_version, 0) OR fit.project_version < shared.version)
    AND NOT EXISTS (SELECT 1 FROM labeling_project archived
                    WHERE archived.id = query.project_id AND archived.archived_at IS NOT NULL)
"""


def stale_query_ids(
    project_id: int, *, limit: int | None = None, among: Sequence[int] | None = None, without: Sequence[int] = ()
) -> list[int]:
    """Return the stale queries of a project (of `among`, if given, and not of `without`), the oldest fits first.

    Queries with new answers come before those with an older prior.
    """
    wanted = None if among is None else list(among)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT query.id {_STALE} AND query.project_id = %s AND (%s::bigint[] IS NULL OR query.id = ANY(%s)) "
            "AND query.id <> ALL(%s::bigint[]) ORDER BY query.judged_version > COALESCE(fit.judged_version, 0) DESC, fit.fitted_at NULLS FIRST, query.id "
            "LIMIT %s",
            [project_id, wanted, wanted, list(without), limit],
        )
        return [row[0] for row in cursor.fetchall()]


def stale_project_ids() -> list[int]:
    """Return the projects with at least one stale query."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT DISTINCT query.project_id {_STALE}")
        return sorted(row[0] for row in cursor.fetchall())


def rate_stale(
    project_id: int, *, slice_s: float = math.inf, resting: Callable[[int], Sequence[int]] = lambda project_id: ()
) -> Rated:
    """Fit every stale query of the project in chunks; the scores of a finished chunk are visible at once.

    `resting` returns the queries of a project that wait for a later call. Stops after `slice_s` seconds between two chunks and reports that it is unfinished.
    """
    deadline = time.monotonic() + slice_s
    rated = Rated(queries=0, judgments=0)
    while stale := stale_query_ids(project_id, limit=QUERIES_AT_ONCE, without=resting(project_id)):
        rated += rate_queries(project_id, stale)
        if len(stale) < QUERIES_AT_ONCE:
            break
        if time.monotonic() > deadline:
            return rated + Rated(queries=0, judgments=0, unfinished=True)
    return rated


def rate_queries(project_id: int, query_ids: Sequence[int]) -> Rated:
    """Fit these queries with the project's rater and replace their scores.

    A query that cannot be fitted keeps its scores and stores the reason in `QueryFit.error`. It blocks no other
    query: a failed chunk is halved until the failing queries are alone.
    """
    # Read the version first, so that a change of the rater in between leaves these fits stale.
    shared = ProjectFit.objects.filter(project_id=project_id).first() or ProjectFit(project_id=project_id, version=0)
    project = Project.with_archived.get(pk=project_id)
    read = read_columns(query_ids)
    if not len(read.query_ids):
        return Rated(queries=0, judgments=0)
    try:
        read = counted_votes(project, read)
        whole = with_neither(
            read,
            says=shared.says_neither,
            counted=counted_annotators(project),
            odds=odds_of_first(project.rater, shared.judge_terms),
        )
        repeated = same_texts(read.query_ids.tolist())
        one = merged(whole.read, repeated)
        fit = expanded(rate(project_rater(project, shared), one.read, shared.judge_terms), one, whole.read)
        fit, thresholds = whole.stripped(fit, read, repeated)
        store_fit(read, fit, shared=shared, rater=project.rater, thresholds=thresholds)
    except Exception as error:
        if is_lost(error):
            raise  # the database is unavailable; the fit is not at fault
        if len(read.query_ids) > 1:
            ids = read.query_ids.tolist()
            middle = len(ids) // 2
            return rate_queries(project_id, ids[:middle]) + rate_queries(project_id, ids[middle:])
        log.warning("query %d cannot be rated: %s: %s", read.query_ids[0], type(error).__name__, error)
        _store_failure(read, error, shared=shared, rater=project.rater)
        return Rated(queries=0, judgments=0, failed=1)
    return Rated(queries=len(read.query_ids), judgments=len(read.columns.a))


_STORE_FAILURE = """
INSERT INTO scoring_queryfit (query_id, rater, prior_precision, logit_scale, dispersion, gradient_norm, iterations,
    islands, pairs, judgments, calibration_version, project_version, judged_version, error, fitted_at)
SELECT id, %s, 0, 1, 0, 0, 0, 0, 0, 0, 0, %s, %s, %s, clock_timestamp() FROM labeling_query WHERE id = %s
ON CONFLICT (query_id) DO UPDATE SET project_version = EXCLUDED.project_version,
    judged_version = EXCLUDED.judged_version, error = EXCLUDED.error, fitted_at = EXCLUDED.fitted_at
WHERE scoring_queryfit.judged_version <= EXCLUDED.judged_version
"""


def _store_failure(read: ProjectColumns, error: Exception, *, shared: ProjectFit, rater: str) -> None:
    """Store why the only query of `read` has no fit of this version; the next judgment triggers a retry."""
    reason = f"{type(error).__name__}: {error}".replace("\x00", " ")[:LONGEST_ERROR]
    with transaction.atomic(), connection.cursor() as cursor:
        versions = [shared.version, int(read.judged_versions[0])]
        cursor.execute(_STORE_FAILURE, [rater, *versions, reason, int(read.query_ids[0])])


_STORE_FITS = """
INSERT INTO scoring_queryfit (query_id, rater, prior_precision, logit_scale, dispersion, gradient_norm, iterations,
    islands, pairs, judgments, threshold, calibration_version, calibration_id, project_version, judged_version, error,
    fitted_at)
SELECT fit.query_id, %s, %s, %s, fit.dispersion, fit.gradient_norm, fit.iterations, fit.islands, fit.pairs,
    fit.judgments, NULLIF(fit.threshold, 'NaN'), 0, %s, %s, fit.judged_version, '', clock_timestamp()
FROM unnest(%s::bigint[], %s::float8[], %s::float8[], %s::int[], %s::int[], %s::int[], %s::int[], %s::float8[],
    %s::bigint[])
    AS fit (query_id, dispersion, gradient_norm, iterations, islands, pairs, judgments, threshold, judged_version)
JOIN labeling_query query ON query.id = fit.query_id
ORDER BY fit.query_id
ON CONFLICT (query_id) DO UPDATE SET rater = EXCLUDED.rater, prior_precision = EXCLUDED.prior_precision,
    logit_scale = EXCLUDED.logit_scale, dispersion = EXCLUDED.dispersion, gradient_norm = EXCLUDED.gradient_norm,
    iterations = EXCLUDED.iterations, islands = EXCLUDED.islands, pairs = EXCLUDED.pairs,
    judgments = EXCLUDED.judgments, threshold = EXCLUDED.threshold, judged_version = EXCLUDED.judged_version, error = '',
    bias = scoring_queryfit.bias * scoring_queryfit.logit_scale / EXCLUDED.logit_scale,
    bias_stderr = scoring_queryfit.bias_stderr * scoring_queryfit.logit_scale / EXCLUDED.logit_scale,
    calibration_id = EXCLUDED.calibration_id, project_version = EXCLUDED.project_version,
    fitted_at = EXCLUDED.fitted_at
WHERE (scoring_queryfit.judged_version, scoring_queryfit.project_version)
    <= (EXCLUDED.judged_version, EXCLUDED.project_version)
RETURNING query_id, COALESCE(bias, 0.0), COALESCE(bias_island = 0, false)
"""

_STORE_SCORES = """
INSERT INTO scoring_score (candidate_id, theta, stderr, elo, elo_stderr, relevance, calibrated, comparisons, island,
    undefeated, winless, judged_version, fitted_at)
SELECT score.*, clock_timestamp()
FROM unnest(%s::bigint[], %s::float8[], %s::float8[], %s::float8[], %s::float8[], %s::float8[], %s::boolean[],
    %s::int[], %s::int[], %s::boolean[], %s::boolean[], %s::bigint[]) AS score
ORDER BY 1
ON CONFLICT (candidate_id) DO UPDATE SET theta = EXCLUDED.theta, stderr = EXCLUDED.stderr, elo = EXCLUDED.elo,
    elo_stderr = EXCLUDED.elo_stderr, relevance = EXCLUDED.relevance, calibrated = EXCLUDED.calibrated,
    comparisons = EXCLUDED.comparisons, island = EXCLUDED.island, undefeated = EXCLUDED.undefeated,
    winless = EXCLUDED.winless, judged_version = EXCLUDED.judged_version, fitted_at = EXCLUDED.fitted_at
"""


def store_fit(
    read: ProjectColumns, fit: Fit, *, shared: ProjectFit, rater: str, thresholds: FloatArray | None = None
) -> None:
    """Replace the scores of the fitted queries unless there is a newer fit.

    `thresholds` float64[Q]: strengths of the outside options in theta's units, NaN or None for none.
    """
    columns = read.columns
    thresholds = np.full(len(read.query_ids), np.nan) if thresholds is None else thresholds
    with transaction.atomic(), connection.cursor() as cursor:
        shown = shown_relevance(shared.project_id)
        cursor.execute(
            _STORE_FITS,
            [
                rater,
                fit.prior_precision,
                fit.logit_scale,
                shown.calibration_id,
                shared.version,
                read.query_ids.tolist(),
                fit.dispersion.tolist(),
                fit.gradient_norm.tolist(),
                fit.iterations.tolist(),
                _islands(fit, columns.sizes).tolist(),
                _distinct_pairs(read).tolist(),
                np.diff(columns.offsets).tolist(),
                thresholds.tolist(),
                read.judged_versions.tolist(),
            ],
        )
        stored = {query: (bias, on_main) for query, bias, on_main in cursor.fetchall()}
        cursor.execute(_STORE_SCORES, _score_arrays(read, fit, stored, shown, thresholds))


def _score_arrays(
    read: ProjectColumns,
    fit: Fit,
    stored: dict[int, tuple[float, bool]],
    shown: ShownRelevance,
    thresholds: FloatArray,
) -> list[list[object]]:
    """Return score columns of the queries in `stored`, given each bias and whether it is in the largest group."""
    owner = np.repeat(np.arange(read.columns.queries), read.columns.sizes)
    found = [stored.get(query, (0.0, False)) for query in read.query_ids.tolist()]
    bias, on_main = np.array([each[0] for each in found]), np.array([each[1] for each in found])
    kept = np.isin(owner, np.flatnonzero(np.isin(read.query_ids, list(stored))))
    logits = fit.logit_scale * (fit.theta + bias[owner])
    relevance, calibrated = shown.of(logits, on_main[owner], fit.logit_scale * thresholds[owner])
    values = [
        read.candidate_ids,
        fit.theta,
        fit.stderr,
        ELO_MEAN + ELO_PER_LOGIT * logits,
        elo_stderr(fit.stderr, logit_scale=fit.logit_scale),
        relevance,
        calibrated,
        fit.comparisons,
        fit.component,
        fit.undefeated,
        fit.winless,
        read.judged_versions[owner],
    ]
    return [value[kept].tolist() for value in values]


def _islands(fit: Fit, sizes: np.ndarray) -> np.ndarray:
    """Return the number of connected components of each query, int64[Q]; 0 without candidates."""
    counts = np.zeros(len(sizes), dtype=np.int64)
    np.maximum.at(counts, np.repeat(np.arange(len(sizes)), sizes), fit.component + 1)
    return counts


def _distinct_pairs(read: ProjectColumns) -> np.ndarray:
    """Return the number of distinct answered pairs, int64[Q]; rows are sorted by pair within a query."""
    offsets = read.columns.offsets
    if not len(read.pair_ids):
        return np.zeros(len(offsets) - 1, dtype=np.int64)
    first = np.append(True, read.pair_ids[1:] != read.pair_ids[:-1])
    running = np.append(0, np.cumsum(first))
    return np.diff(running[offsets])
