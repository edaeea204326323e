"""Published estimates: Agresti's baseball, Stigler's citations, college ice hockey, Guilford's vegetables,
and Evalica's scores of the LLMFAO votes. Needs ZELO_DATA.
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize, special

from labeling.records import Fit, FloatArray
from scoring.numerics.fitting.comparisons import votes_of_query
from scoring.numerics.fitting.fit import fit_queries

DATA = Path(os.environ.get("ZELO_DATA", "/nonexistent"))
pytestmark = pytest.mark.skipif(not (DATA / "bt_classics").is_dir(), reason="ZELO_DATA has no bt_classics")


def read(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def fit_games(games: list[tuple[str, str, float, float]], *, model: str = "bradley-terry") -> tuple[list[str], Fit]:
    """Fit without a prior rows of (one, other, share won by one, weight), each a vote of its own."""
    names = sorted({name for game in games for name in game[:2]})
    index = {name: i for i, name in enumerate(names)}
    columns = votes_of_query(
        [index[game[0]] for game in games],
        [index[game[1]] for game in games],
        [game[2] for game in games],
        size=len(names),
        weight=[game[3] for game in games],
        judge=np.arange(len(games)),
    )
    return names, fit_queries(columns, model=model, prior_precision=0.0)


def by_name(names: list[str], fit: Fit, *, zero: str) -> dict[str, float]:
    return {name: float(theta - fit.theta[names.index(zero)]) for name, theta in zip(names, fit.theta, strict=True)}


def test_baseball_abilities_are_those_of_the_textbook() -> None:
    games = []
    for row in read("bt_classics/baseball1987.csv"):
        won, lost = float(row["home.wins"]), float(row["away.wins"])
        games.append((row["home.team"], row["away.team"], won / (won + lost), won + lost))
    names, fit = fit_games(games)
    expected = json.loads((DATA / "bt_classics/reference.json").read_text())[
        "baseball1987_bt_log_ability_ref_Baltimore"
    ]
    assert by_name(names, fit, zero="Baltimore") == pytest.approx(expected, abs=1e-7)


def test_citation_abilities_are_those_of_stigler() -> None:
    rows = [row for row in read("bt_classics/citations.csv") if row["cited"] != row["citing"]]
    names, fit = fit_games([(row["cited"], row["citing"], 1.0, float(row["count"])) for row in rows])
    expected = json.loads((DATA / "bt_classics/reference.json").read_text())["citations_bt_ref_Biometrika"]
    assert by_name(names, fit, zero="Biometrika") == pytest.approx(expected, abs=1e-7)


def test_ice_hockey_strengths_match_the_krach_table() -> None:
    games = [(r["visitor"], r["opponent"], float(r["result"]), 1.0) for r in read("bt_classics/icehockey_2009_10.csv")]
    names, fit = fit_games(games)
    with (DATA / "bt_classics/icehockey_reference_krach.tsv").open(encoding="utf-8") as stream:
        reference = {row["team"]: float(row["bt_logstrength"]) for row in csv.DictReader(stream, delimiter="\t")}
    assert len(reference) == 58
    assert dict(zip(names, fit.theta.tolist(), strict=True)) == pytest.approx(reference, abs=2e-6)


def vegetables() -> tuple[list[str], FloatArray]:
    rows = read("bt_classics/vegetables_guilford1954.csv")
    names = [row[""] for row in rows]
    return names, np.array([[float(row[name]) for name in names] for row in rows])


def probit_estimate(share: FloatArray) -> FloatArray:
    """Maximum likelihood with a plain probit, P = Phi(s_column - s_row), by a general-purpose optimiser."""
    first, second = np.triu_indices(len(share), 1)
    p = share[first, second]

    def loss(s: FloatArray) -> float:
        d = s[second] - s[first]
        return -float(p @ special.log_ndtr(d) + (1.0 - p) @ special.log_ndtr(-d))

    found = optimize.minimize(loss, np.zeros(len(share)), method="BFGS", options={"gtol": 1e-9}).x
    return np.asarray(found - found[0])


def test_vegetables_match_the_probit_estimate() -> None:
    names, share = vegetables()
    rows = [(names[j], names[i], float(share[i, j]), 1.0) for i in range(len(names)) for j in range(i + 1, len(names))]
    found, fit = fit_games(rows, model="thurstone")
    strengths = by_name(found, fit, zero="Turn")
    # F(d) = Phi(sqrt(2) d): a probit unit is 1 / sqrt 2 of ours.
    probits = np.sqrt(2.0) * np.array([strengths[name] for name in names])
    np.testing.assert_allclose(probits, probit_estimate(share), atol=1e-5)
    np.testing.assert_allclose(probits[1:], [0.54, 0.69, 1.01, 1.14, 1.17, 1.43, 1.48, 1.67], atol=0.006)


def test_llmfao_strengths_equal_evalica() -> None:
    share = {"left": 1.0, "right": 0.0, "tie": 0.5}
    votes = [(row["left"], row["right"], share[row["winner"]], 1.0) for row in read("llmfao/comparisons.csv")]
    names, fit = fit_games(votes)
    golden = {r["item"]: float(r["score"]) for r in read("llmfao/golden.csv") if r["algorithm"] == "bradley_terry"}
    expected = np.log([golden[name] for name in names])
    np.testing.assert_allclose(fit.theta, expected - expected.mean(), atol=1e-6)
