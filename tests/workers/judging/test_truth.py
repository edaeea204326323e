"""Truth recovery and whole runs over HTTP: the fake judge knows hidden qualities, the fit has to find them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau

from labeling.importing.dataset import import_dataset
from labeling.models import Candidate, Judgment, Project
from labeling.projects import create_project
from scoring.models import Score
from scoring.quality import graded_queries, measure
from tests.factories.http_panel import KEY, define_endpoints, make_judge, make_texts, work_off
from tests.fake_judge.process import FakeJudge, running_fake_judge
from tests.fake_judge.quality import HiddenQuality, quality_key
from workers.models import Run
from workers.monitoring.scorecard import scorecard
from workers.runs.ordering import start_run

pytestmark = pytest.mark.django_db(transaction=True)
DATA = Path(os.environ.get("ZELO_DATA", "")) / "trec_dl19"


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeJudge]:
    ledger = tmp_path_factory.mktemp("truth") / "ledger.jsonl"
    with running_fake_judge(ledger, "--seed", "11", "--api-key", KEY) as judge:
        yield judge


@pytest.fixture(autouse=True)
def endpoint(fake: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    define_endpoints(monkeypatch, fake, {"max_concurrency": 64, "input_price": 1.0})


def tau(project: Project, *, seed: int = 11, spread: float = 1.5) -> float:
    """Kendall's tau of the scores with what the fake judge holds to be true, mean over queries."""
    hidden = HiddenQuality(seed=seed, spread=spread)
    found = []
    for query in project.queries.all():
        rows = Score.objects.filter(candidate__query=query).values_list("theta", "candidate__document__text")
        theta, truth = zip(*[(theta, hidden.of(text, query.text)) for theta, text in rows], strict=True)
        found.append(kendalltau(theta, truth).statistic)
    return float(np.mean(found))


# The design is drawn by the rows' keys, which differ from run to run: noisy judges gave .868 and more.
@pytest.mark.parametrize(("sigma", "least"), [pytest.param(0.2, 0.95, marks=pytest.mark.long), (1.0, 0.85)])
def test_four_hundred_pairs_of_a_hundred_documents_recover_the_truth(
    fake: FakeJudge, sigma: float, least: float
) -> None:
    project = make_texts(documents=100)
    judges = []
    for number in range(3):
        fake.set_judge(f"judge-{sigma}-{number}", sigma=sigma, uniform=0.02)
        judges.append(make_judge(project, f"judge-{sigma}-{number}"))
    run = work_off(start_run(project, judges=judges, seed=1), judges)
    assert (run.state, run.pairs_planned, run.tasks_planned) == ("finished", 400, 1200)
    assert Judgment.objects.count() == 1200
    assert tau(project) >= least


def test_a_cascade_over_http_spends_strong_calls_on_close_pairs_alone(fake: FakeJudge) -> None:
    project = make_texts(documents=30)
    fake.set_judge("cheap", sigma=0.8)
    fake.set_judge("strong", sigma=0.1)
    cheap, strong = make_judge(project, "cheap"), make_judge(project, "strong")
    order = {"allocation": "cascade", "cascade_threshold": 0.25, "seed": 1}
    run = work_off(start_run(project, judges=[cheap, strong], **order), [cheap, strong])
    assert run.state == "finished"
    called = fake.summary()["by_model"]
    assert called["cheap"] == 120
    close = {
        pair
        for pair, preference in Judgment.objects.filter(annotator=cheap).values_list("pair_id", "preference")
        if abs(preference - 0.5) < 0.25
    }
    assert called["strong"] == len(close) < 120
    assert set(Judgment.objects.filter(annotator=strong).values_list("pair_id", flat=True)) == close


def test_the_scorecard_finds_the_leanings_that_the_judge_has(fake: FakeJudge) -> None:
    project = make_texts(documents=60)
    fake.set_judge("leaning", position_bias=0.5, sigma=0.2)
    fake.set_judge("upright", sigma=0.2)
    judges = [make_judge(project, name) for name in ("leaning", "upright")]
    work_off(start_run(project, judges=judges, orders="both", seed=1), judges)
    leaning, upright = (scorecard(judge) for judge in judges)
    assert leaning.position is not None and leaning.position.low > 0.03
    assert upright.position is not None and not upright.position.excludes_zero
    assert leaning.flips is not None and upright.flips is not None
    assert leaning.flips.low > upright.flips.high
    assert leaning.calls.cost_micros > 0 and leaning.calls.latency_p50 is not None


# --- real texts --------------------------------------------------------------------------

MODES = ["logprob", "reasoned", "sampled"]
QUALITIES = {"weak": 1.6, "middling": 0.8, "strong": 0.2}


@pytest.fixture
def dl19(fake: FakeJudge) -> Project:
    """TREC DL 2019; the hidden quality of a passage follows its grade, 1.2 logits a grade."""
    if not DATA.is_dir():
        pytest.skip("set ZELO_DATA to a folder that holds trec_dl19")
    project = create_project("dl19")
    for name, importer in (("candidates_judged100.jsonl", "zbench-jsonl"), ("qrels.txt", "trec-qrels")):
        path = DATA / name
        with path.open("rb") as stream:
            import_dataset(project, stream, importer=importer, filename=name)
    rows = Candidate.objects.filter(query__project=project).values_list("document__text", "query__text", "grade")
    quality = {quality_key(text, query): 1.2 * (grade or 0) for text, query, grade in rows}
    fake.control("settings", {"quality": quality})
    return project


@pytest.mark.long
@pytest.mark.parametrize("mode", MODES)
def test_three_judges_of_different_quality_on_real_texts(fake: FakeJudge, dl19: Project, mode: str) -> None:
    judges = []
    for name, sigma in QUALITIES.items():
        model = f"{mode}-{name}"
        fake.set_judge(model, sigma=sigma, fault_rates={"http_500": 0.01})
        judges.append(make_judge(dl19, model, mode=mode, votes=5, max_document_tokens=4000, max_query_tokens=4000))
    queries = list(dl19.queries.order_by("id").values_list("id", flat=True))[:12]
    run = work_off(start_run(dl19, judges=judges, query_ids=queries, seed=1), judges, rounds=60)
    assert run.state == Run.State.FINISHED
    cards = [scorecard(judge) for judge in judges]
    right = [card.gold.value for card in cards if card.gold]
    assert right == sorted(right) and right[-1] >= 0.9
    graded = [query for query in graded_queries(dl19.pk) if query.query_id in queries]
    elo = dict(Score.objects.filter(comparisons__gt=0).values_list("candidate_id", "elo"))
    assert measure("Elo", elo, graded).ndcg.estimate >= 0.9
