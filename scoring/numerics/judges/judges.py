"""Judges that differ: sharpness, position bias and dispersion of each, with intervals.

    P(judge j prefers a) = F( s_j (theta_a - theta_b) + c_j x ),    x = 1 where a was shown first, else -1

With anchors (people, gold answers), strengths are first fitted on the anchors' answers alone and each
judge is measured against those: a judge that contradicts them gets a negative sharpness, so that
its votes count turned round. Votes then weigh what predicts the anchors' answers best, which sees
through judges that agree because they make the same errors. Without anchors, strengths and judges are fitted in turn, which judges
that share their errors can mislead; `JudgeEstimates.correlated` says when. `votes` does the fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize

from labeling.records import BoolArray, ComparisonColumns, Fit, FloatArray, IntArray
from scoring.numerics.fitting.comparisons import aggregate_pairs, check_columns
from scoring.numerics.fitting.fit import fit_queries
from scoring.numerics.fitting.likelihood import AVERAGING, log_likelihood, probability, score_and_curvature
from scoring.numerics.fitting.prior import choose_prior
from scoring.numerics.fitting.votes import VoteTerms, fit_votes

PASSES = 6

# The prior of a judge: sharpness 1, no position bias (mean, deviation).
SHARPNESS_PRIOR = (1.0, 1.0)
POSITION_PRIOR = (0.0, 0.5)

_VOTE_COLUMNS = ("a", "b", "preference", "weight", "judge", "swapped")

# A judge's weight changes only for a gain in log-likelihood that is unlikely by chance.
GAIN = 1.0
WEIGHT_LIMITS = (1e-3, 1.0)
MOST_REWEIGHED = 12

CORRELATION_WARNING = 0.2
MINIMUM_COMMON_PAIRS = 30


class NoAnchorAnswers(ValueError):
    """The anchors' answers share no candidates with the pairs that judges answered."""


@dataclass(frozen=True, slots=True)
class JudgeEstimates:
    """One entry a judge, in the order of `judge` int64[J] (numbers as in the columns), anchors left out.

    `sharpness` has mean square 1 over judges; `position_bias` > 0 favours what is shown first, in the
    model's units; `dispersion` is 1 for plain votes at the model's word, less for steadier answers; `weight`
    is what a vote counts in the fit. `answers` int64[J] says on how many votes the figures rest.
    `correlation` float64[J, J]: of residuals on common pairs, NaN where there are too few.
    """

    judge: IntArray
    sharpness: FloatArray
    sharpness_stderr: FloatArray
    position_bias: FloatArray
    position_bias_stderr: FloatArray
    dispersion: FloatArray
    weight: FloatArray
    answers: IntArray
    correlation: FloatArray
    anchored: bool

    def interval(self, index: int, *, z: float = 1.959964) -> tuple[float, float]:
        """95 % interval of one judge's sharpness."""
        width = z * float(self.sharpness_stderr[index])
        return float(self.sharpness[index]) - width, float(self.sharpness[index]) + width

    def correlated(self, threshold: float = CORRELATION_WARNING) -> list[tuple[int, int, float]]:
        """(judge, judge, correlation) of those that err together: their agreement proves little."""
        first, second = np.triu_indices(len(self.judge), 1)
        values = self.correlation[first, second]
        return [
            (int(self.judge[i]), int(self.judge[j]), float(r))
            for i, j, r in zip(first, second, values, strict=True)
            if r > threshold
        ]


@dataclass(frozen=True, slots=True)
class JudgeAwareFit:
    """Strengths that account for differences between judges, and the judges' estimates.

    `apart` float64[m]: the difference of each vote's candidates by all votes but itself, or by the anchors' votes (NaN if unknown).
    """

    fit: Fit
    judges: JudgeEstimates
    apart: FloatArray


def fit_with_judges(
    columns: ComparisonColumns,
    *,
    model: str = "thurstone",
    prior_precision: float = 0.1,
    anchors: Sequence[int] = (),
    passes: int = PASSES,
) -> JudgeAwareFit:
    """Fit strengths and judges together. `anchors`: judge numbers whose answers are taken as the truth's.

    Raises NoAnchorAnswers where anchors answered no pairs among candidates that judges also
    compared, and what `fit_queries` raises.
    """
    check_columns(columns)
    panel = _Panel.of(columns, anchors)
    if len(anchors):
        reference = _anchor_reference(columns, panel.is_anchor, model)
        state = _measure_judges(columns, panel, reference, model)
        if not state.answers.sum():
            raise NoAnchorAnswers(
                f"anchors {sorted(anchors)} compared no candidates that another judge compared; "
                "remove the anchors, or ask people to answer some of the judged pairs"
            )
        state = _reweigh(columns, panel, state, model, prior_precision)
        fit = fit_votes(columns, state.terms(columns, panel), model=model, prior_precision=prior_precision)
    else:
        state, fit, reference = _alternate(columns, panel, model, prior_precision, passes)
    return JudgeAwareFit(fit=fit, judges=_estimates(columns, panel, state, model, fit), apart=reference.mean)


@dataclass(frozen=True, slots=True)
class _Panel:
    """Judges renumbered 0 .. J - 1, anchors apart: `index` int64[m] is -1 for an anchor's vote."""

    judge: IntArray
    index: IntArray
    is_anchor: BoolArray
    position: FloatArray
    owner: IntArray

    @classmethod
    def of(cls, columns: ComparisonColumns, anchors: Sequence[int]) -> _Panel:
        is_anchor = np.isin(columns.judge, np.asarray(anchors, dtype=np.int64))
        judge = np.unique(columns.judge[~is_anchor])
        index = np.where(is_anchor, -1, np.searchsorted(judge, columns.judge))
        position = np.where(columns.swapped, -1.0, 1.0)
        owner = np.repeat(np.arange(columns.queries), np.diff(columns.offsets))
        return cls(judge, index, is_anchor, position, owner)


@dataclass(frozen=True, slots=True)
class _Reference:
    """The reference of each vote's difference: mean and variance float64[m]; NaN if unknown."""

    mean: FloatArray
    variance: FloatArray


@dataclass(frozen=True, slots=True)
class _State:
    """Estimates by judge; `scale` is what anchors' votes are multiplied by in the judges' units."""

    sharpness: FloatArray
    position: FloatArray
    dispersion: FloatArray
    weight: FloatArray
    stderr: FloatArray
    answers: IntArray
    scale: float

    def terms(self, columns: ComparisonColumns, panel: _Panel) -> VoteTerms:
        anchor = panel.is_anchor
        slope = np.where(anchor, self.scale, self.sharpness[panel.index])
        offset = np.where(anchor, 0.0, self.position[panel.index] * panel.position)
        return VoteTerms(slope, offset, columns.weight * np.where(anchor, 1.0, self.weight[panel.index]))


def _reweigh(columns: ComparisonColumns, panel: _Panel, state: _State, model: str, prior_precision: float) -> _State:
    """Vote weights under which the judges' strengths predict the anchors' answers best.

    1 / phi would be right if judges erred independently. Errors that two of them share on a candidate
    are invisible pair by pair and only show in fitted strengths, so that those are what is tried:
    each judge's weight is halved or doubled while that gains more than GAIN log-likelihood.
    """
    anchored = np.bincount(panel.owner[panel.is_anchor], minlength=columns.queries) > 0
    judged = _select(columns, anchored[panel.owner] & ~panel.is_anchor)
    answers = _select(columns, panel.is_anchor)
    judged_panel = _Panel.of(judged, ())
    who = np.searchsorted(panel.judge, judged_panel.judge)
    theta = np.zeros(int(columns.sizes.sum()))

    def gain_of(weight: FloatArray) -> float:
        nonlocal theta
        part = replace(state, sharpness=state.sharpness[who], position=state.position[who], weight=weight[who])
        terms = part.terms(judged, judged_panel)
        options = {"prior_precision": prior_precision, "tolerance": 1e-4, "standard_errors": False}
        theta = fit_votes(judged, terms, model=model, start=theta, **options).theta  # type: ignore[arg-type]
        return _scaled_likelihood(answers, theta, model)

    weight, best = state.weight.copy(), gain_of(state.weight)
    tried = np.argsort(-state.answers)[:MOST_REWEIGHED]
    tried = tried[state.answers[tried] >= MINIMUM_COMMON_PAIRS] if len(who) > 1 else tried[:0]
    improved = True
    while improved:
        improved = False
        for j in tried:
            for factor in (0.5, 2.0):
                while WEIGHT_LIMITS[0] <= (trial := _scaled(weight, j, factor))[j] / trial.max() <= 1.0:
                    value = gain_of(trial)
                    if value < best + GAIN:
                        break
                    weight, best, improved = trial, value, True
    return replace(state, weight=weight)


def _scaled(weight: FloatArray, index: int, factor: float) -> FloatArray:
    """The weights with one multiplied, brought back to mean 1."""
    changed = weight.copy()
    changed[index] *= factor
    return np.asarray(changed / changed.mean())


def _select(columns: ComparisonColumns, rows: BoolArray) -> ComparisonColumns:
    """The votes where `rows` is true; queries keep their places."""
    owner = np.repeat(np.arange(columns.queries), np.diff(columns.offsets))
    counts = np.bincount(owner[rows], minlength=columns.queries)
    votes = {name: getattr(columns, name)[rows] for name in _VOTE_COLUMNS}
    return ComparisonColumns(**votes, offsets=np.concatenate([[0], np.cumsum(counts)]), sizes=columns.sizes)


def _scaled_likelihood(answers: ComparisonColumns, theta: FloatArray, model: str) -> float:
    """Log-likelihood of answers under F(k (theta_a - theta_b)) at the best k: order counts, scale does not."""
    shift = np.repeat(np.cumsum(answers.sizes) - answers.sizes, np.diff(answers.offsets))
    d = theta[answers.a + shift] - theta[answers.b + shift]

    def loss(log_scale: float) -> float:
        return -log_likelihood(np.exp(log_scale) * d, answers.preference, answers.weight, model=model)

    return -float(optimize.minimize_scalar(loss, bounds=(-4.0, 3.0), method="bounded", options={"xatol": 1e-3}).fun)


def _alternate(
    columns: ComparisonColumns, panel: _Panel, model: str, prior_precision: float, passes: int
) -> tuple[_State, Fit, _Reference]:
    """Strengths given judges, judges given strengths, `passes` times; then the strengths again."""
    judges = len(panel.judge)
    ones, none = np.ones(judges), np.zeros(judges)
    state = _State(ones, none, ones, ones, np.zeros((judges, 2)), np.zeros(judges, dtype=np.int64), 1.0)
    theta: FloatArray | None = None
    for _ in range(passes):
        fit = fit_votes(
            columns,
            state.terms(columns, panel),
            model=model,
            prior_precision=prior_precision,
            tolerance=1e-5,
            start=theta,
            standard_errors=False,
        )
        theta = fit.theta
        reference = _without_itself(columns, panel, state, fit, model, prior_precision)
        state = _measure_judges(columns, panel, reference, model)
    terms = state.terms(columns, panel)
    return state, fit_votes(columns, terms, model=model, prior_precision=prior_precision, start=theta), reference


def _without_itself(
    columns: ComparisonColumns, panel: _Panel, state: _State, fit: Fit, model: str, prior_precision: float
) -> _Reference:
    """Posterior mean and variance of each vote's difference by all votes but itself, to first order.

    A vote moves the strengths towards itself: where candidates have few votes, a judge that guesses would seem sharp,
    and the more so the more votes it gave.
    """
    terms = state.terms(columns, panel)
    d = _differences(columns, panel, fit)
    score, h = score_and_curvature(terms.slope * d + terms.offset, columns.preference, terms.weight, model=model)
    variance = np.empty(len(d))
    for query in range(columns.queries):
        rows = slice(columns.offsets[query], columns.offsets[query + 1])
        a, b, size = columns.a[rows], columns.b[rows], int(columns.sizes[query])
        information = terms.slope[rows] ** 2 * h[rows]
        precision = np.diag(np.full(size, max(prior_precision, 1e-9)))
        for one, other, sign in ((a, a, 1.0), (b, b, 1.0), (a, b, -1.0), (b, a, -1.0)):
            np.add.at(precision, (one, other), sign * information)
        inverse = np.linalg.inv(precision)
        variance[rows] = inverse[a, a] + inverse[b, b] - 2.0 * inverse[a, b]
    kept = np.maximum(1.0 - terms.slope**2 * h * variance, 1e-3)
    phi = float(
        (score**2 / np.maximum(terms.weight, 1e-12)).sum()
        / max((h * kept / np.maximum(terms.weight, 1e-12)).sum(), 1e-12)
    )
    return _Reference(d - variance * terms.slope * score / kept, max(phi, 1e-3) * variance / kept)


def _differences(columns: ComparisonColumns, panel: _Panel, fit: Fit) -> FloatArray:
    shift = fit.starts[panel.owner]
    return fit.theta[columns.a + shift] - fit.theta[columns.b + shift]


def _anchor_reference(columns: ComparisonColumns, is_anchor: BoolArray, model: str) -> _Reference:
    """Posterior mean and variance of each vote's difference, from the anchors' answers alone.

    Only if anchors compared both candidates and the two are connected.
    """
    pairs = aggregate_pairs(_select(columns, is_anchor))
    choice = choose_prior(pairs, model=model)
    fit = fit_queries(pairs, model=model, prior_precision=choice.prior_precision)
    mean, variance = np.full(len(columns.a), np.nan), np.full(len(columns.a), np.nan)
    for query in np.flatnonzero(np.diff(pairs.offsets)):
        rows = slice(columns.offsets[query], columns.offsets[query + 1])
        own = slice(fit.starts[query], fit.starts[query + 1])
        known = pairs.of_query(int(query))
        theta, component, touched = fit.theta[own], fit.component[own], fit.comparisons[own] > 0
        _, h = score_and_curvature(theta[known.a] - theta[known.b], known.preference, known.weight, model=model)
        precision = np.diag(np.full(len(theta), choice.prior_precision))
        np.add.at(precision, (known.a, known.a), h)
        np.add.at(precision, (known.b, known.b), h)
        np.add.at(precision, (known.a, known.b), -h)
        np.add.at(precision, (known.b, known.a), -h)
        inverse = np.linalg.inv(precision)
        a, b = columns.a[rows], columns.b[rows]
        usable = touched[a] & touched[b] & (component[a] == component[b])
        spread = fit.dispersion[query] * (inverse[a, a] + inverse[b, b] - 2.0 * inverse[a, b])
        mean[rows] = np.where(usable, theta[a] - theta[b], np.nan)
        variance[rows] = np.where(usable, spread, np.nan)
    return _Reference(mean, variance)


def _measure_judges(columns: ComparisonColumns, panel: _Panel, reference: _Reference, model: str) -> _State:
    """Regress each judge's votes on the reference; normalise to mean s^2 = 1 and weigh by 1 / phi."""
    judges = len(panel.judge)
    sharpness, position, dispersion = np.ones(judges), np.zeros(judges), np.ones(judges)
    stderr, answers = np.zeros((judges, 2)), np.zeros(judges, dtype=np.int64)
    usable = ~panel.is_anchor & np.isfinite(reference.mean) & (columns.weight > 0.0)
    for j in range(judges):
        rows = np.flatnonzero(usable & (panel.index == j))
        found = _regress(
            columns.preference[rows],
            columns.weight[rows],
            reference.mean[rows],
            reference.variance[rows],
            panel.position[rows],
            model,
        )
        (sharpness[j], position[j]), stderr[j], dispersion[j] = found
        answers[j] = len(rows)
    scale = float(np.sqrt(np.mean(sharpness**2))) or 1.0
    weight = 1.0 / np.maximum(dispersion, 1e-3)
    weight = weight / weight.mean() if judges else weight
    return _State(
        sharpness / scale, position, dispersion, weight, stderr / np.array([scale, 1.0]), answers, 1.0 / scale
    )


def _regress(
    p: FloatArray, m: FloatArray, d: FloatArray, variance: FloatArray, x: FloatArray, model: str
) -> tuple[FloatArray, FloatArray, float]:
    """(s, c), their standard errors and phi, from P = F(s d + c x), under the priors above.

    d is known up to `variance`, which flattens the curve by sqrt(1 + 2 s^2 v) (Thurstone; exact for a
    normal d): without that a judge would seem blunter where anchors are few.
    """
    centre = np.array([SHARPNESS_PRIOR[0], POSITION_PRIOR[0]])
    ridge = np.array([SHARPNESS_PRIOR[1], POSITION_PRIOR[1]]) ** -2.0
    beta, phi = centre.copy(), 1.0
    hessian = np.diag(ridge)
    for _ in range(50):
        flat = 1.0 / np.sqrt(1.0 + AVERAGING[model] * beta[0] ** 2 * variance)
        design = np.stack([d * flat**3, x * flat], axis=1)
        score, h = score_and_curvature((beta[0] * d + beta[1] * x) * flat, p, m, model=model)
        gradient = design.T @ score - phi * ridge * (beta - centre)
        hessian = design.T @ (h[:, None] * design) + phi * np.diag(ridge)
        step = np.linalg.solve(hessian, gradient)
        beta = beta + np.clip(step, -1.0, 1.0)
        if len(p) > 2:
            phi = float(
                np.clip(score @ (score / np.maximum(m, 1e-12)) / max(h.sum() * (1.0 - 2.0 / len(p)), 1e-12), 1e-3, 1e3)
            )
        if np.abs(step).max() < 1e-9:
            break
    return beta, np.sqrt(phi * np.diag(np.linalg.inv(hessian))), phi


def _estimates(columns: ComparisonColumns, panel: _Panel, state: _State, model: str, fit: Fit) -> JudgeEstimates:
    return JudgeEstimates(
        judge=panel.judge,
        sharpness=state.sharpness,
        sharpness_stderr=state.stderr[:, 0],
        position_bias=state.position,
        position_bias_stderr=state.stderr[:, 1],
        dispersion=state.dispersion,
        weight=state.weight,
        answers=state.answers,
        correlation=_residual_correlation(columns, panel, state, model, fit),
        anchored=bool(panel.is_anchor.any()),
    )


def _residual_correlation(columns: ComparisonColumns, panel: _Panel, state: _State, model: str, fit: Fit) -> FloatArray:
    """Correlation of judges' residuals on the pairs that both answered, at the fitted strengths.

    Fitting pulls residuals of J judges on one pair apart by about -1 / (J - 1) of what the pair's own
    strengths absorb, so that a positive value is a sign of shared errors.
    """
    judges = len(panel.judge)
    rows = np.flatnonzero(~panel.is_anchor)
    terms = state.terms(columns, panel)
    d = _differences(columns, panel, fit)
    residual = columns.preference - probability(terms.slope * d + terms.offset, model=model)
    turned = columns.a > columns.b
    residual = np.where(turned, -residual, residual) * np.sign(terms.slope)
    low, high = np.minimum(columns.a, columns.b), np.maximum(columns.a, columns.b)
    keys = (panel.owner * (int(columns.sizes.max(initial=1)) + 1) + low) * (
        int(columns.sizes.max(initial=1)) + 1
    ) + high
    _, pair = np.unique(keys[rows], return_inverse=True)
    table = np.full((judges, int(pair.max(initial=-1)) + 1), np.nan)
    table[panel.index[rows], pair] = residual[rows]
    found = np.full((judges, judges), np.nan)
    np.fill_diagonal(found, 1.0)
    for i in range(judges):
        for j in range(i):
            both = ~np.isnan(table[i]) & ~np.isnan(table[j])
            if both.sum() >= MINIMUM_COMMON_PAIRS:
                x, y = table[i, both], table[j, both]
                if x.std() > 0.0 and y.std() > 0.0:
                    found[i, j] = found[j, i] = float(np.corrcoef(x, y)[0, 1])
    return found
