"""Adjusted p-values against scipy's and a textbook example."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from scoring.numerics.measures.metrics import MetricInput
from scoring.numerics.measures.multiple_tests import benjamini_hochberg, benjamini_yekutieli, holm


def test_they_equal_scipy_and_the_textbook() -> None:
    p = np.random.default_rng(0).random(9) ** 2
    assert benjamini_hochberg(p) == pytest.approx(false_discovery_control(p))
    assert benjamini_yekutieli(p) == pytest.approx(false_discovery_control(p, method="by"))
    assert holm([0.04, 0.01, 0.03, 0.005]).tolist() == pytest.approx([0.06, 0.03, 0.06, 0.02])
    assert holm([]).tolist() == [] and holm([0.7, 0.9]).tolist() == [1.0, 1.0]
    with pytest.raises(MetricInput, match=r"in \[0, 1\]"):
        holm([1.2])
