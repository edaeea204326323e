"""Stage 6: puts the scores of all queries on one scale and calibrates relevance against human answers.

`calibrate_project` fits one bias per query to the cross-query answers, and a map from score to relevance
to grades or people's answers. It stores a Calibration and rewrites Elo and relevance. Repeating it is
harmless, and the next call finishes an interrupted one. The pages show `project_calibration`.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from django.db.models.functions import Greatest

from labeling.models import Project, Query
from labeling.records import FloatArray, IntArray
from labeling.stored_texts import read_stored, stored_json, stored_text
from scoring.calibration.data import Answers, CalibrationData, Strengths, read_calibration_data
from scoring.calibration.relevance import ShownRelevance, above_threshold, map_to, shown_relevance
from scoring.columns import copy_columns
from scoring.models import Calibration, ProjectFit
from scoring.numerics.calibration.calibration import fit_biases
from scoring.numerics.calibration.elo import ELO_MEAN, ELO_PER_LOGIT
from scoring.numerics.calibration.relevance import RelevanceFit, TooFewAnswers, fit_relevance
from scoring.numerics.fitting.likelihood import LOGIT_SCALES
from scoring.project_fits import choose_project_fit, database_time, model_of, project_rater

QUERIES_AT_ONCE = 200
ISLANDS_NAMED = 20
QUERIES_NAMED = 10
NEVER_CALIBRATED = stored_text("the project has not been calibrated")


class NothingRated(ValueError):
    """The project has no scores to calibrate."""


@dataclass(frozen=True, slots=True)
class QueryBiases:
    """Biases in logits of the queries with cross-query answers, arrays of the same length.

    `query_ids` int64, `bias`, `stderr` float64, `island` int64 (0 is the largest); `pairs` were answered by
    `judgments` votes. `dispersion`, `sharpness` and `prior_precision` are those of the answers' fit.
    """

    query_ids: IntArray
    bias: FloatArray
    stderr: FloatArray
    island: IntArray
    pairs: int
    judgments: int
    dispersion: float
    sharpness: float
    prior_precision: float


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The result of a calibration; `version` is that of the project's cross-query judgments."""

    version: int
    pairs: int
    islands: int
    answers: int
    method: str
    ece: float | None


def calibrate_project(project_id: int) -> Calibrated:
    """Fit biases and relevance, store them, and rewrite the scores. Raises NothingRated, Project.DoesNotExist."""
    found = fit_calibration(project_id)
    apply_calibration(project_id)
    return found


# --- fitting -----------------------------------------------------------------------------


def fit_calibration(project_id: int) -> Calibrated:
    """Fit and store biases and relevance; `apply_calibration` then updates the scores."""
    project = Project.objects.get(pk=project_id)
    if not ProjectFit.objects.filter(project=project).exists():
        choose_project_fit(project_id)
    shared = ProjectFit.objects.get(project=project)
    began = database_time()
    data = read_calibration_data(project_id, judge_terms=shared.judge_terms)
    if not len(data.strengths.query_ids):
        raise NothingRated(
            f"project {project.slug!r} has no scores; start a run that judges pairs within queries first"
        )
    biases = query_biases(data, model=model_of(project_rater(project, shared)) or "bradley-terry")
    learned = learn_relevance(data.strengths, data.answers, biases)
    found = _summary(data, biases, learned.fit)
    parameters = _parameters(project, data, biases, learned)
    _store(project_id, shared, found, biases, parameters, began)
    return found


def query_biases(data: CalibrationData, *, model: str) -> QueryBiases | None:
    """Fit biases by maximum likelihood with fixed strengths; None without cross-query answers."""
    votes, strengths = data.votes, data.strengths
    if not len(votes.a):
        return None
    owner = strengths.owner
    linked = np.unique(owner[np.concatenate([votes.a, votes.b])])
    starts = np.append(strengths.starts[linked], strengths.starts[-1])
    if len(linked) < len(strengths.query_ids):
        votes, starts, logits = _only(data, linked)
    else:
        logits = strengths.logits
    found = fit_biases(votes, theta=logits / LOGIT_SCALES[model], starts=starts, model=model, require_connected=False)
    island = np.empty(len(linked), dtype=np.int64)
    names = strengths.names[linked]
    # In a tie of sizes by the texts, so that the order of import does not decide which queries are calibrated.
    for number, members in enumerate(sorted(found.islands, key=lambda own: (-len(own), sorted(names[own].tolist())))):
        island[members] = number
    return QueryBiases(
        query_ids=strengths.query_ids[linked],
        bias=found.bias * LOGIT_SCALES[model],
        stderr=found.stderr * LOGIT_SCALES[model],
        island=island,
        pairs=found.answers,
        judgments=data.judgments,
        dispersion=found.dispersion,
        sharpness=found.sharpness,
        prior_precision=found.prior_precision,
    )


def _only(data: CalibrationData, linked: IntArray) -> tuple[Any, IntArray, FloatArray]:
    """Return votes, starts and strengths of the linked queries only, renumbered."""
    strengths = data.strengths
    kept = np.isin(strengths.owner, linked)
    place = np.cumsum(kept) - 1
    sizes = np.diff(strengths.starts)[linked]
    votes = data.votes
    renumbered = type(votes)(
        a=place[votes.a],
        b=place[votes.b],
        preference=votes.preference,
        weight=votes.weight,
        judge=votes.judge,
        swapped=votes.swapped,
        offsets=votes.offsets,
        sizes=np.array([int(kept.sum())], dtype=np.int64),
    )
    return renumbered, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), strengths.logits[kept]


@dataclass(frozen=True, slots=True)
class Learned:
    """The map from score to relevance, or the `reason` why there is none. `mean_threshold`: see ShownRelevance."""

    fit: RelevanceFit | None
    reason: str = ""
    mean_threshold: float | None = None


def learn_relevance(strengths: Strengths, answers: Answers, biases: QueryBiases | None) -> Learned:
    """Learn the map from score to relevance, on queries on one scale only.

    Without biases, a query's threshold of "neither is relevant" puts it on the scale, if held-out answers are then predicted
    better than without.
    """
    bias = np.zeros(len(strengths.query_ids))
    usable = np.ones(len(strengths.query_ids), dtype=np.bool_)
    if biases is not None:
        place = np.searchsorted(strengths.query_ids, biases.query_ids)
        bias[place] = biases.bias
        usable[:] = False
        usable[place] = biases.island == 0
    owner = strengths.owner[answers.position]
    rows = np.flatnonzero(usable[owner])
    owner, outcome = owner[rows], answers.outcome[rows]
    scores = strengths.logits[answers.position[rows]] + bias[owner]
    try:
        plain = fit_relevance(scores, outcome, strengths.names[owner])
    except TooFewAnswers as error:
        return Learned(None, error.args[0])
    known = strengths.thresholds[np.isfinite(strengths.thresholds)]
    if biases is not None or not len(known):
        return Learned(plain)
    mean = float(known.mean())
    above = fit_relevance(above_threshold(scores, strengths.thresholds[owner], mean), outcome, strengths.names[owner])
    return Learned(above, mean_threshold=mean) if above.brier < plain.brier else Learned(plain)


def _summary(data: CalibrationData, biases: QueryBiases | None, relevance: RelevanceFit | None) -> Calibrated:
    linked = 0 if biases is None else len(biases.query_ids)
    islands = 0 if biases is None else int(biases.island.max()) + 1
    return Calibrated(
        version=data.version,
        pairs=0 if biases is None else biases.pairs,
        islands=islands + len(data.strengths.query_ids) - linked,
        answers=0 if relevance is None else relevance.answers,
        method="" if relevance is None else relevance.map.method,
        ece=None if relevance is None else float(relevance.ece),
    )


def _parameters(
    project: Project,
    data: CalibrationData,
    biases: QueryBiases | None,
    learned: Learned,
) -> dict[str, Any]:
    """Return the details of the Calibration row; the pages read them through `project_calibration`."""
    parameters: dict[str, Any] = {"source": "", "reason": stored_json(learned.reason), **_links(project, data, biases)}
    relevance = learned.fit
    if relevance is not None:
        bins = relevance.reliability
        columns = (bins.low, bins.high, bins.predicted, bins.observed, bins.count)
        parameters |= {
            "source": data.answers.source,
            "ungraded_as_zero": data.answers.ungraded_as_zero,
            "map": map_to(relevance.map),
            "reliability": [list(row) for row in zip(*(column.tolist() for column in columns), strict=True)],
            "brier": relevance.brier,
            "briers": relevance.briers,
            "queries": relevance.queries,
            "mean_threshold": learned.mean_threshold,
            "thresholds": int(np.isfinite(data.strengths.thresholds).sum()),
        }
    return parameters


def _links(project: Project, data: CalibrationData, biases: QueryBiases | None) -> dict[str, Any]:
    """Return pairs, judgments and the connected groups of queries with the names of their first queries."""
    if biases is None:
        return {"pairs": 0, "judgments": 0, "islands": [], "unlinked": len(data.strengths.query_ids)}
    sizes = np.bincount(biases.island)
    shown = [
        biases.query_ids[biases.island == each][:QUERIES_NAMED].tolist() for each in range(len(sizes))[:ISLANDS_NAMED]
    ]
    lone = np.setdiff1d(data.strengths.query_ids, biases.query_ids)
    wanted = [query for ids in shown for query in ids] + lone[:QUERIES_NAMED].tolist()
    names = dict(Query.objects.filter(project=project, pk__in=wanted).values_list("id", "external_id"))
    return {
        "pairs": biases.pairs,
        "judgments": biases.judgments,
        "dispersion": biases.dispersion,
        "sharpness": biases.sharpness,
        "bias_prior_precision": biases.prior_precision,
        "islands": [
            {"queries": int(size), "names": [names[query] for query in ids]}
            for size, ids in zip(sizes[:ISLANDS_NAMED], shown, strict=True)
        ],
        "unlinked": len(lone),
        "unlinked_names": [names[query] for query in lone[:QUERIES_NAMED].tolist()],
    }


# --- storing -----------------------------------------------------------------------------


_LOCK_FITS = """
SELECT 1 FROM scoring_queryfit fit JOIN labeling_query query ON query.id = fit.query_id
WHERE query.project_id = %s ORDER BY fit.query_id FOR NO KEY UPDATE OF fit
"""

_STORE_BIASES = """
UPDATE scoring_queryfit fit
SET bias = found.bias / fit.logit_scale, bias_stderr = found.stderr / fit.logit_scale, bias_island = found.island,
    calibration_version = %s
FROM labeling_query query
LEFT JOIN unnest(%s::bigint[], %s::float8[], %s::float8[], %s::int[]) AS found (query_id, bias, stderr, island)
    ON found.query_id = query.id
WHERE query.id = fit.query_id AND query.project_id = %s
"""


def _store(
    project_id: int,
    shared: ProjectFit,
    found: Calibrated,
    biases: QueryBiases | None,
    parameters: dict[str, Any],
    began: datetime,
) -> None:
    """Replace the calibration of this version unless there is a newer one; skip an empty first one."""
    with transaction.atomic(), connection.cursor() as cursor:
        held = ProjectFit.objects.select_for_update().get(pk=shared.pk)
        before = Calibration.objects.filter(project_id=project_id)
        newer = before.filter(version__gt=found.version).exists()
        if not newer and (biases is not None or found.method or before.exists()):
            before.filter(version=found.version).delete()
            Calibration.objects.create(
                project_id=project_id,
                version=found.version,
                method=found.method,
                parameters=parameters,
                prior_precision=held.prior_precision,
                answers=found.answers,
                ece=found.ece,
                islands=found.islands,
            )
            _store_biases(cursor, project_id, found.version, biases)
        ProjectFit.objects.filter(pk=project_id).update(
            calibrated_version=Greatest(held.calibrated_version, found.version), calibrated_at=began
        )


def _store_biases(cursor: CursorWrapper, project_id: int, version: int, biases: QueryBiases | None) -> None:
    """Write every query's bias. Locks rows in the same order as the rater."""
    cursor.execute(_LOCK_FITS, [project_id])
    columns = ([], [], [], []) if biases is None else (biases.query_ids, biases.bias, biases.stderr, biases.island)
    cursor.execute(_STORE_BIASES, [version, *(np.asarray(each).tolist() for each in columns), project_id])


_BEHIND = """
SELECT fit.query_id, COALESCE(fit.bias, 0.0), COALESCE(fit.bias_island = 0, false), fit.logit_scale,
       COALESCE(fit.threshold * fit.logit_scale, 'NaN'::float8)
FROM scoring_queryfit fit JOIN labeling_query query ON query.id = fit.query_id
WHERE query.project_id = %s AND fit.calibration_id IS DISTINCT FROM %s
ORDER BY fit.query_id LIMIT %s FOR NO KEY UPDATE OF fit
"""

_SCORES = """
SELECT candidate.query_id, candidate.id, score.theta FROM labeling_candidate candidate
JOIN scoring_score score ON score.candidate_id = candidate.id
WHERE candidate.query_id = ANY(%s) ORDER BY candidate.query_id, candidate.id
"""

_SHOW = """
UPDATE scoring_score score SET elo = shown.elo, relevance = shown.relevance, calibrated = shown.calibrated
FROM unnest(%s::bigint[], %s::float8[], %s::float8[], %s::boolean[]) AS shown (candidate_id, elo, relevance, calibrated)
WHERE score.candidate_id = shown.candidate_id
"""


def apply_calibration(project_id: int, *, slice_s: float = math.inf) -> bool:
    """Apply the latest calibration to the scores of all queries, a chunk of queries per transaction.

    Stops after `slice_s` seconds between two chunks and returns False; True if nothing is left.
    """
    deadline = time.monotonic() + slice_s
    while _apply_chunk(project_id):
        if time.monotonic() > deadline:
            return False
    return True


def _apply_chunk(project_id: int) -> int:
    """Update a chunk of scores and return its size. Locks the fits, so that the rater cannot write meanwhile."""
    with transaction.atomic(), connection.cursor() as cursor:
        shown = shown_relevance(project_id)
        cursor.execute(_BEHIND, [project_id, shown.calibration_id, QUERIES_AT_ONCE])
        fits = cursor.fetchall()
        if not fits:
            return 0
        ids = [row[0] for row in fits]
        cursor.execute(_SHOW, _shown_arrays(shown, fits, ids))
        cursor.execute(
            "UPDATE scoring_queryfit SET calibration_id = %s WHERE query_id = ANY(%s)", [shown.calibration_id, ids]
        )
    return len(fits)


def _shown_arrays(shown: ShownRelevance, fits: list[tuple[Any, ...]], ids: list[int]) -> list[list[Any]]:
    scores = copy_columns(_SCORES, [ids], [("query", "i8"), ("id", "i8"), ("theta", "f8")])
    row = np.searchsorted(np.array(ids), scores["query"].astype(np.int64))
    bias, scale, threshold = (np.array([fit[i] for fit in fits], dtype=np.float64) for i in (1, 3, 4))
    on_main = np.array([fit[2] for fit in fits], dtype=np.bool_)
    logits = scale[row] * (scores["theta"].astype(np.float64) + bias[row])
    relevance, calibrated = shown.of(logits, on_main[row], threshold[row])
    elo = ELO_MEAN + ELO_PER_LOGIT * logits
    return [scores["id"].tolist(), elo.tolist(), relevance.tolist(), calibrated.tolist()]


# --- showing -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """A bin of a reliability diagram: mean `predicted` and `observed` relevance of `count` answers."""

    low: float
    high: float
    predicted: float
    observed: float
    count: int


@dataclass(frozen=True, slots=True)
class Island:
    """A connected group of queries with comparable scores; `names` of the first few."""

    queries: int
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProjectCalibration:
    """The state of a project's scale. `version` 0: never calibrated; `stale`: there are newer answers.

    `calibrated`: relevance is calibrated against `answers` of `queries` queries from `source` ("grades" or
    "people") by `method`; `ece`, `brier` and `bins` are of held-out queries. Otherwise `reason` says what
    is missing. `pairs` across queries were answered by `judgments`. `islands` are connected groups, largest
    first; `islands_count` counts all, including single queries (`unlinked`). `thresholds`: queries with a threshold from
    answers "neither is relevant", where the map uses them, else 0.
    The prior is that of the project's fits; `prior_losses` lists (precision, log-loss) as tried.
    """

    version: int
    stale: bool
    created_at: datetime | None
    calibrated: bool
    method: str
    source: str
    ungraded_as_zero: bool
    answers: int
    queries: int
    ece: float | None
    brier: float | None
    bins: tuple[ReliabilityBin, ...]
    reason: str
    pairs: int
    judgments: int
    islands: tuple[Island, ...]
    islands_count: int
    unlinked: int
    unlinked_names: tuple[str, ...]
    thresholds: int
    prior_precision: float | None
    prior_cross_validated: bool
    prior_losses: tuple[tuple[float, float], ...]


def project_calibration(project: Project) -> ProjectCalibration:
    """Return the latest calibration and prior of a project for display."""
    row = Calibration.objects.filter(project=project).order_by("-version").first()
    shared = ProjectFit.objects.filter(project=project).first()
    wanted = Project.objects.values_list("calibration_version", flat=True).get(pk=project.pk)
    known: dict[str, Any] = row.parameters if row is not None else {}
    return ProjectCalibration(
        version=row.version if row is not None else 0,
        stale=wanted > (shared.calibrated_version if shared is not None else 0),
        created_at=row.created_at if row is not None else None,
        calibrated=bool(row is not None and row.method),
        method=row.method if row is not None else "",
        source=known.get("source", ""),
        ungraded_as_zero=known.get("ungraded_as_zero", False),
        answers=row.answers if row is not None else 0,
        queries=known.get("queries", 0),
        ece=row.ece if row is not None else None,
        brier=known.get("brier"),
        bins=tuple(ReliabilityBin(*values) for values in known.get("reliability", ())),
        reason=read_stored(known.get("reason", "")) if row is not None else NEVER_CALIBRATED,
        pairs=known.get("pairs", 0),
        judgments=known.get("judgments", 0),
        islands=tuple(Island(each["queries"], tuple(each["names"])) for each in known.get("islands", ())),
        islands_count=row.islands if row is not None else 0,
        unlinked=known.get("unlinked", 0),
        unlinked_names=tuple(known.get("unlinked_names", ())),
        thresholds=known.get("thresholds", 0) if known.get("mean_threshold") is not None else 0,
        prior_precision=shared.prior_precision if shared is not None else None,
        prior_cross_validated=shared is not None and shared.cross_validated,
        prior_losses=tuple((a, b) for a, b in shared.losses) if shared is not None else (),
    )
