"""Chooses checkpoint and scale of an adapter on held-out queries, with the base as the first candidate. Pure.

Weights W + a dW with a between 0 (the base) and 1: weight-space ensembling, Wortsman et al., arXiv 2109.01903. The choice
follows the one-standard-error rule (Breiman et al., *Classification and Regression Trees*, 1984, section 3.4.3), towards the
base: a few held-out queries otherwise favour a checkpoint by chance. The best of several candidates is favoured more often, so its
gain is measured by what chance gives to the largest of as many (Westfall and Young, *Resampling-Based Multiple Testing*, 1993).
Imports no Django.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from labeling.records import FloatArray

SCALES = (0.0, 0.25, 0.5, 0.75, 1.0)
FEWEST_QUERIES = 5
SURE = 1.645  # standard errors of a gain that chance gives once in twenty (one-sided), of a single candidate
FLIPS = 2000


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen checkpoint (position in the list of checkpoints) and scale; the base where `scale` is 0.

    `gain` and `stderr` are those of NDCG@10 against the base over `queries` held-out queries; `best_gain` and `best_stderr` those
    of the best candidate, also where it is not sure enough to be kept.
    """

    checkpoint: int
    scale: float
    gain: float
    stderr: float
    queries: int
    best_gain: float = 0.0
    best_stderr: float = 0.0

    @property
    def base_won(self) -> bool:
        return self.scale == 0.0


def choose(values: FloatArray, scales: Sequence[float] = SCALES) -> Choice:
    """The checkpoint and the scale to keep.

    `values` float64[queries, checkpoints, scales]: NDCG@10 of each held-out query; `scales` begins with 0, whose values are
    the base's. The base is kept unless the best mean gain exceeds `largest_by_chance` of its standard errors. Of the candidates whose
    own gain does, and lies within one standard error (of the paired difference) of the best, the smallest scale is kept, and there the
    best checkpoint.
    """
    base = Choice(0, 0.0, 0.0, 0.0, len(values))
    if len(values) < FEWEST_QUERIES:
        return base
    gains = values - values[:, :, :1]
    means = gains.mean(axis=0)
    best = np.unravel_index(int(np.argmax(means)), means.shape)
    own = gains[:, best[0], best[1]]
    best_gain, best_stderr = float(means[best]), _stderr(own)
    sure = largest_by_chance(gains.reshape(len(gains), -1))
    if best_gain <= 0.0 or best_gain <= sure * best_stderr:
        return replace(base, best_gain=best_gain, best_stderr=best_stderr)
    behind = own[:, None, None] - gains
    close = behind.mean(axis=0) <= np.apply_along_axis(_stderr, 0, behind)
    close &= (means > sure * np.apply_along_axis(_stderr, 0, gains)) & (np.asarray(scales) > 0.0)[None, :]
    place = int(np.flatnonzero(close.any(axis=0))[0])
    checkpoint = int(np.argmax(np.where(close[:, place], means[:, place], -np.inf)))
    chosen = gains[:, checkpoint, place]
    return replace(
        Choice(checkpoint, float(scales[place]), float(chosen.mean()), _stderr(chosen), len(values)),
        best_gain=best_gain,
        best_stderr=best_stderr,
    )


def largest_by_chance(gains: FloatArray) -> float:
    """The standard errors that the largest mean gain exceeds once in twenty where no candidate gains; SURE at least.

    `gains` float64[queries, candidates]. The signs of each query's gains are flipped together, FLIPS times, so that the candidates
    stay as alike as they are.
    """
    rng = np.random.default_rng(0)
    kept = gains[:, gains.std(axis=0) > 0.0]
    if not kept.shape[1]:
        return SURE
    count = len(kept)
    signs = rng.choice((-1.0, 1.0), (FLIPS, count))
    means = signs @ kept / count
    spread = np.sqrt(np.maximum((kept**2).mean(axis=0) - means**2, 1e-18) / (count - 1))
    return max(SURE, float(np.quantile((means / spread).max(axis=1), 0.95)))


def _stderr(values: FloatArray) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("inf")
