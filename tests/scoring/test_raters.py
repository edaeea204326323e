"""The raters are ordinary plugins and add nothing to the fit but their options."""

from __future__ import annotations

import numpy as np
import pydantic
import pytest

from labeling.plugins import registered
from scoring.numerics.fitting.comparisons import votes_of_query
from scoring.numerics.fitting.fit import DisconnectedGraph, fit_queries
from scoring.raters import BradleyTerryRater, ThurstoneRater

VOTES = votes_of_query([0, 1, 2], [1, 2, 3], [0.9, 0.8, 0.4], size=5)


@pytest.mark.parametrize("rater", [ThurstoneRater, BradleyTerryRater])
def test_a_rater_is_registered_and_returns_the_fit_of_its_model(rater: type[ThurstoneRater]) -> None:
    assert registered("rater")[rater.name] is rater
    fit = rater.from_dict({"prior_precision": 0.3}).rate(VOTES)  # type: ignore[attr-defined]
    expected = fit_queries(VOTES, model=rater.name, prior_precision=0.3)
    assert np.array_equal(fit.theta, expected.theta)
    assert (fit.prior_precision, fit.logit_scale) == (0.3, expected.logit_scale)


def test_an_empty_precision_means_the_models_default() -> None:
    assert ThurstoneRater().rate(VOTES).prior_precision == pytest.approx(0.1)


def test_connected_graphs_can_be_demanded() -> None:
    with pytest.raises(DisconnectedGraph):
        ThurstoneRater.from_dict({"require_connected": True}).rate(VOTES)  # type: ignore[attr-defined]


@pytest.mark.parametrize("options", [{"prior_precision": -1}, {"prior_precision": float("nan")}, {"precision": 1}])
def test_wrong_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(pydantic.ValidationError):
        ThurstoneRater.from_dict(options)
