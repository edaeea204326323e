"""What scores rest on: the page of prior, relevance and scale, the judges' figures, and what leads there."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone, translation

from labeling.models import Annotator, Membership, Project, Query
from scoring.models import Calibration, JudgeFit, ProjectFit, QueryFit, Score
from tests.factories.pages import (
    candidates_of,
    judge,
    make_judge,
    make_pair,
    make_project,
    make_query,
    make_run,
    make_user,
    page,
    score,
)
from workers.models import ProjectFigure, Run
from zelo_site.pages.charts.geometry import reliability_dots
from zelo_site.report.build import build_report
from zelo_site.report.rendering import as_markdown

pytestmark = pytest.mark.django_db(transaction=True)


def fit_project(project: Project, **fields: Any) -> ProjectFit:
    """A prior chosen by cross-validation, and calibration up to date."""
    values = {"rater": "thurstone", "prior_precision": 0.0228, "cross_validated": True, "dispersion": 1.31}
    losses = [[0.0114, 0.52], [0.0228, 0.519], [0.0456, 0.5193]]
    return ProjectFit.objects.create(project=project, **{**values, "losses": losses, "pairs": 17_200, **fields})


def calibrate(project: Project, *, islands: int = 1, **known: Any) -> Calibration:
    """A calibration as it is stored: isotonic on grades, with pairs across queries."""
    parameters = {
        "source": "grades",
        "brier": 0.0962,
        "queries": 43,
        "reason": "",
        "reliability": [[0.0, 0.1, 0.043, 0.051, 900], [0.1, 0.2, 0.0, 0.0, 0], [0.9, 1.0, 0.93, 0.81, 7]],
        "pairs": 129,
        "judgments": 387,
        "islands": [{"queries": 2, "names": ["q-one", "q-two"]}],
        **known,
    }
    return Calibration.objects.create(
        project=project,
        version=project.calibration_version,
        method="isotonic",
        answers=4300,
        ece=0.0104,
        islands=islands,
        parameters=parameters,
    )


def with_biases(project: Project, biases: list[float], *, stderr: float = 0.1, text: str = "question") -> list[Query]:
    """Rated queries, each with its bias."""
    found = []
    for number, bias in enumerate(biases):
        query = make_query(project, text=f"{text} {number}")
        score(query, [1.0, 0.0, -1.0])
        QueryFit.objects.filter(query=query).update(bias=bias, bias_stderr=stderr, bias_island=0)
        found.append(query)
    return found


# --- the page ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "shown", "against"),
    [
        ("grades", "on 4,300 grades", "human grades"),
        ("people", "on 4,300 answers", "people’s answers"),
        ("model grades", "on 4,300 LLM grades", "LLM grades"),
    ],
)
def test_page_and_report_name_what_relevance_is_calibrated_against(
    source: str, shown: str, against: str, client: Client, project: Project
) -> None:
    with_biases(project, [0.31, -0.2])
    fit_project(project)
    calibrate(project, source=source)
    html = page(client, "scale", project.slug)
    assert shown in html and ("Fitted to LLM grades" in html) == (source == "model grades")
    assert f"- against: {against}\n" in as_markdown(build_report(project, snapshot=None))
    with translation.override("de"):
        assert "| 0,90 – 1,00 | 0,930 |" in as_markdown(build_report(project, snapshot=None))


def test_figures_of_the_scale_stand_on_the_page(client: Client, project: Project) -> None:
    with_biases(project, [0.31, -0.2])
    fit_project(project)
    calibrate(project)
    html = page(client, "scale", project.slug)
    assert "0.0228 <small>precision" in html
    assert "chosen by 5-fold cross-validation over 17,200 pairs" in html
    assert "0.010 <small>ECE" in html
    assert "Isotonic on 4,300 grades of 43 queries · Brier 0.096" in html
    assert "387 judgments on 129 pairs across queries connect all queries" in html
    assert "+0.31" in html and "± 0.20" in html
    assert ">+130<" in html  # 0.31 x 2.41 x 173.7
    assert "stale" not in html


def test_diagram_has_a_table_with_the_same_figures(client: Client, project: Project) -> None:
    with_biases(project, [0.1, 0.2])
    calibrate(project)
    html = page(client, "scale", project.slug)
    assert '<circle class="dot" cx="4.3" cy="94.9" r="4.0"/>' in html
    assert '<circle class="dot few" cx="93.0" cy="19.0" r="1.2"/>' in html
    assert html.count('<circle class="dot') == 2 + 2  # two bins with answers, two biases
    assert re.search(r"0\.9 – 1\.0</th><td class=\"number\">0\.930</td><td class=\"number\">0\.810</td>", html)


def test_dots_grow_with_their_answers() -> None:
    few, half, most = reliability_dots([(0.1, 0.2, 1), (0.5, 0.5, 250), (0.9, 0.8, 1000), (0.3, 0.3, 0)])
    assert (few.radius, half.radius, most.radius) == (1.2, 2.0, 4.0)
    assert (few.few, half.few) == (True, False)


def test_newer_answers_make_the_scale_stale(client: Client, project: Project) -> None:
    with_biases(project, [0.1, 0.2])
    fit_project(project)
    calibrate(project)
    Project.objects.filter(pk=project.pk).update(calibration_version=3)
    assert "Newer cross-query answers are available" in page(client, "scale", project.slug)


def test_islands_are_named(client: Client, project: Project) -> None:
    with_biases(project, [0.1, 0.2])
    islands = [{"queries": 40, "names": ["alpha", "beta"]}, {"queries": 1, "names": ["gamma"]}]
    calibrate(project, islands=4, unlinked=2, unlinked_names=["delta", "epsilon"])
    Calibration.objects.update(parameters={**Calibration.objects.get().parameters, "islands": islands})
    html = page(client, "scale", project.slug)
    assert "Queries have disconnected comparisons (4 groups)" in html
    assert "Largest group: 40 queries" in html
    for name in ("alpha, beta, …", "gamma", "2 queries without cross-query pairs", "delta, epsilon"):
        assert name in html


def test_why_relevance_is_uncalibrated(client: Client, project: Project) -> None:
    with_biases(project, [0.1, 0.2])
    calibrate(
        project, reason="7 answers are too few; grade more candidates until there are at least 20", reliability=[]
    )
    Calibration.objects.update(method="", ece=None, answers=0)
    html = page(client, "scale", project.slug)
    assert "7 answers are too few; grade more candidates until there are at least 20." in html
    assert "Import grades" in html
    assert '<svg class="reliability' not in html


def test_default_and_fixed_priors_are_called_so(client: Client, project: Project) -> None:
    with_biases(project, [0.1])
    assert "the model&#x27;s default, not cross-validated" in page(client, "scale", project.slug)
    Project.objects.filter(pk=project.pk).update(rater_options={"prior_precision": 0.5})
    html = page(client, "scale", project.slug)
    assert "set in the rater options" in html
    assert "0.5 <small>precision" in html


@pytest.mark.parametrize(
    ("sort", "first"),
    [("high", "question 2"), ("low", "question 1"), ("import", "question 0"), ("no-such", "question 2")],
)
def test_biases_come_in_the_order_asked_for(sort: str, first: str, client: Client, project: Project) -> None:
    with_biases(project, [0.0, -1.0, 1.0])
    html = page(client, "scale", project.slug, sort=sort)
    assert re.findall(r">(question \d)</a>", html)[0] == first


def test_fifty_biases_a_page_within_the_budget(
    client: Client, project: Project, django_assert_max_num_queries: Any
) -> None:
    with_biases(project, [0.01 * at for at in range(53)])
    fit_project(project)
    calibrate(project)
    with django_assert_max_num_queries(16):
        html = page(client, "scale", project.slug)
    assert "1–50 of 53" in html
    assert html.count('class="reach"') == 50
    assert page(client, "scale", project.slug, page=2).count('class="reach"') == 3


def test_long_and_hostile_names_keep_their_place(client: Client, project: Project) -> None:
    attack = "<script>alert(1)</script>" + "unbroken" * 400
    with_biases(project, [0.1, 0.2], text=attack)
    calibrate(project, islands=2, unlinked=1, unlinked_names=[attack])
    html = page(client, "scale", project.slug)
    assert "<script>alert" not in html
    assert "unbroken" * 40 not in html
    assert "style=" not in html


# --- empty states and who may see ------------------------------------------------------------


def test_empty_states_say_what_to_do_next(client: Client, project: Project) -> None:
    assert "Import queries" in page(client, "scale", project.slug)
    query = make_query(project)
    html = page(client, "scale", project.slug)
    assert "No scores yet" in html and "Choose judges" in html
    score(query, [1.0, 0.0, -1.0])
    html = page(client, "scale", project.slug)
    assert "A common scale needs at least two queries" in html
    assert "The project has not been calibrated." in html
    assert "Import TREC qrels" in html
    make_query(project)
    assert "Only one query has scores" in page(client, "scale", project.slug)


def test_scale_of_others_is_not_found(client: Client, owner: Any) -> None:
    theirs = make_project(make_user())
    assert client.get(reverse("scale", args=[theirs.slug])).status_code == 404
    assert client.post(reverse("scale", args=[theirs.slug])).status_code == 404
    assert client.get(reverse("agreement", args=[theirs.slug])).status_code == 404


def test_members_who_may_only_look_order_nothing(client: Client, owner: Any) -> None:
    theirs = make_project(make_user())
    Membership.objects.create(project=theirs, user=owner, role="viewer")
    with_biases(theirs, [0.1, 0.2])
    assert "order-calibration" not in page(client, "scale", theirs.slug)
    assert client.post(reverse("scale", args=[theirs.slug])).status_code == 403
    assert not Run.objects.exists()


# --- the button --------------------------------------------------------------------------------


def test_button_orders_pairs_across_queries_once(client: Client, project: Project) -> None:
    with_biases(project, [0.0, 0.0, 0.0])
    annotator = make_judge(project, name="the judge")
    make_run(project, state="finished").judges.set([annotator])
    html = page(client, "scale", project.slug)
    assert "Judge 3 pairs" in html  # three queries join in three pairs at most
    assert "the judge" in html
    address = reverse("scale", args=[project.slug])
    assert "cross-query pairs started" in client.post(address, follow=True).content.decode()
    run = Run.objects.get(sampler="cross-query")
    assert list(run.judges.all()) == [annotator]
    assert run.created_by is not None
    assert "are being judged" in client.post(address, follow=True).content.decode()
    assert Run.objects.filter(sampler="cross-query").count() == 1


def test_refusal_says_what_to_do(client: Client, project: Project) -> None:
    with_biases(project, [0.0, 0.0])
    assert "No judges yet. Start a run" in page(client, "scale", project.slug)
    answer = client.post(reverse("scale", args=[project.slug]), follow=True).content.decode()
    assert answer.count("No judges yet. Start a run") == 2
    assert not Run.objects.filter(sampler="cross-query").exists()


# --- the judges' figures -----------------------------------------------------------------------


@pytest.fixture
def panel(project: Project) -> list[Annotator]:
    """Two judges who answered twelve pairs alike and were measured against each other."""
    query = make_query(project, size=12)
    documents = candidates_of(query)
    judges = [make_judge(project, name="bm25"), make_judge(project, name="likelihood")]
    for at in range(12):
        pair = make_pair(documents[at], documents[(at + 1) % 12])
        for annotator in judges:
            judge(pair, annotator, 0.8 if at % 3 else 0.3)
    score(query, [1.1 - 0.2 * at for at in range(12)])
    for annotator, sharpness in zip(judges, (0.84, -0.61), strict=True):
        JudgeFit.objects.create(
            annotator=annotator, sharpness=sharpness, sharpness_stderr=0.05, position_bias=0.12,
            position_bias_stderr=0.02, dispersion=1.7, weight=0.13, votes=12, anchors=0,
        )  # fmt: skip
    fit_project(project, correlations=[[judges[0].pk, judges[1].pk, 0.94]])
    return judges


def test_judges_stand_with_their_intervals(client: Client, project: Project, panel: list[Annotator]) -> None:
    html = page(client, "agreement", project.slug)
    assert "+0.84" in html and "+0.74 – +0.94" in html
    assert "−0.61" in html and "contradicts people" in html
    assert "+0.12" in html and "+0.08 – +0.16" in html
    assert "1.70" in html and "0.13" in html
    assert "other judges" in html and "people and grades" not in html
    assert "alpha <b>1.00</b> on 12 sampled pairs" in html


def test_shared_errors_are_a_warning(client: Client, project: Project, panel: list[Annotator]) -> None:
    assert "bm25 and likelihood: residuals on common pairs correlate at +0.94" in page(
        client, "agreement", project.slug
    )
    ProjectFit.objects.update(correlations=[])
    ProjectFigure.objects.all().delete()
    assert "correlate at" not in page(client, "agreement", project.slug)


def test_anchored_judges_are_called_so(client: Client, project: Project, panel: list[Annotator]) -> None:
    JudgeFit.objects.update(anchors=40)
    Project.objects.filter(pk=project.pk).update(rater_options={"judge_weights": "anchored"})
    html = page(client, "agreement", project.slug)
    assert "people and grades" in html
    assert "Scores use these weights" in html


def test_nobody_to_compare_says_so(client: Client, project: Project) -> None:
    html = page(client, "agreement", project.slug)
    assert "No pair has answers from two annotators yet" in html
    assert "Measured when the prior is chosen" in html


def test_judges_page_asks_for_these_figures(client: Client, project: Project, panel: list[Annotator]) -> None:
    assert reverse("agreement", args=[project.slug]) in page(client, "scorecard", project.slug)


# --- what leads there --------------------------------------------------------------------------


def test_stage_is_done_only_while_the_calibration_stands(client: Client, project: Project) -> None:
    with_biases(project, [0.1, 0.2])
    stage = rf'class="(\w+)"[^>]*><a href="{reverse("scale", args=[project.slug])}">(?:<svg.*?</svg>|<span class="step">6</span>) Calibrate'

    def state() -> str:
        found = re.search(stage, page(client, "project", project.slug))
        assert found is not None
        return found[1]

    assert state() == "ahead"
    fit_project(project)
    calibrate(project, pairs=0)
    assert state() == "done"  # relevance alone
    Calibration.objects.update(method="")
    assert state() == "ahead"
    Calibration.objects.update(parameters={"pairs": 9})
    assert state() == "done"  # biases alone
    Project.objects.filter(pk=project.pk).update(calibration_version=1)
    assert state() == "now"


def test_paused_judges_and_failures_need_attention(client: Client, project: Project) -> None:
    query = with_biases(project, [0.1])[0]
    annotator = make_judge(project, name="drifting judge")
    judge(make_pair(*candidates_of(query)[:2]), annotator, 0.8)
    Annotator.objects.filter(pk=annotator.pk).update(paused_at=timezone.now(), pause_reason="drift")
    QueryFit.objects.update(error="NotConverged: gradient 1e-3")
    html = page(client, "project", project.slug)
    assert "drifting judge is paused" in html
    assert f'href="{reverse("scorecard", args=[project.slug])}">Open scorecard</a>' in html
    assert "1 query could not be fitted" in html
    assert query.text in page(client, "queries", project.slug, show="failed")
    assert "NotConverged: gradient 1e-3" in page(client, "query", project.slug, query.pk)


def test_query_says_what_its_scores_rest_on(client: Client, project: Project) -> None:
    query = with_biases(project, [0.31])[0]
    html = page(client, "query", project.slug, query.pk)
    assert "bias +0.31 ± 0.20" in html
    assert ">relevance " not in html
    QueryFit.objects.update(calibration_id=calibrate(project).pk, bias_island=1)
    assert ">relevance uncalibrated</a>" in page(client, "query", project.slug, query.pk)
    Score.objects.update(calibrated=True)
    html = page(client, "query", project.slug, query.pk)
    assert ">relevance calibrated</a>" in html
    assert "group 2 of queries" in html


def test_approximate_intervals_are_called_so(client: Client, project: Project) -> None:
    query = make_query(project, size=1001)
    score(query, [1.0 - at / 500 for at in range(1001)])
    assert "approximate intervals above 1,000 candidates" in page(client, "query", project.slug, query.pk)
    small = with_biases(project, [0.1])[0]
    assert "approximate above" not in page(client, "query", project.slug, small.pk)
