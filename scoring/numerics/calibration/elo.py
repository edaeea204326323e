"""Converts strengths to Elo and relevance in [0, 1].

Strengths are first put into logits (`logit_scale`, 1 for Bradley-Terry and 2.41 for Thurstone), so
that 400 Elo points are odds of ten to one in either model. `calibration` replaces the relevance
given here wherever grades or human answers exist.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from labeling.records import FloatArray
from scoring.numerics.fitting.likelihood import LOGIT_SCALES

ELO_MEAN = 1500.0
ELO_PER_LOGIT = 400.0 / math.log(10.0)

__all__ = ["ELO_MEAN", "ELO_PER_LOGIT", "LOGIT_SCALES", "elo_from_strength", "elo_stderr", "uncalibrated_relevance"]


def elo_from_strength(theta: npt.ArrayLike, bias: npt.ArrayLike = 0.0, *, logit_scale: float) -> FloatArray:
    """1500 + (400 / ln 10) c (theta + bias); theta and bias in the model's units, broadcast."""
    return ELO_MEAN + ELO_PER_LOGIT * _logits(theta, bias, logit_scale)


def elo_stderr(stderr: npt.ArrayLike, *, logit_scale: float) -> FloatArray:
    """Standard errors of strengths, in Elo points."""
    return ELO_PER_LOGIT * logit_scale * np.asarray(stderr, dtype=np.float64)


def uncalibrated_relevance(theta: npt.ArrayLike, bias: npt.ArrayLike = 0.0, *, logit_scale: float) -> FloatArray:
    """expit(c (theta + bias)) in [0, 1]: a rank-preserving stand-in, to be labelled uncalibrated."""
    return np.asarray(expit(_logits(theta, bias, logit_scale)), dtype=np.float64)


def _logits(theta: npt.ArrayLike, bias: npt.ArrayLike, logit_scale: float) -> FloatArray:
    return logit_scale * (np.asarray(theta, dtype=np.float64) + np.asarray(bias, dtype=np.float64))
