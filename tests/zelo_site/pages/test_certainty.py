"""Certainty of the top ten, where next, the graph of comparisons, savings: what they say and what they order."""

from __future__ import annotations

import re
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db.models import F
from django.test import Client
from django.urls import reverse

from labeling.access.annotators import get_judge
from labeling.models import Project, Query
from labeling.plugins import get_plugin
from scoring.models import QueryFit
from scoring.sampling.certainty import next_pairs, top_certainty
from tests.factories.pages import (
    candidates_of,
    judge,
    make_judge,
    make_pair,
    make_project,
    make_query,
    make_user,
    page,
    score,
)
from workers.budgets.limits import Budgets
from workers.models import Attempt, JudgingTask, Run
from workers.monitoring.data_summary import judged_sizes
from workers.runs import advancing
from workers.runs.estimate import ChosenJudge, RunEstimate, estimate_run, gpu_hours
from workers.runs.savings import Saving, paper_calls, read_saving, saving_sentence
from zelo_site.cli.closing import closing_lines
from zelo_site.pages.charts.graph import tone_of
from zelo_site.pages.project import certainty

pytestmark = pytest.mark.django_db


@pytest.fixture
def query(project: Project) -> Query:
    """Fourteen documents, every neighbour compared; the last answer goes against the order."""
    query = make_query(project, size=14)
    candidates = candidates_of(query)
    annotator = make_judge(project)
    for at in range(13):
        judge(make_pair(candidates[at], candidates[at + 1]), annotator, 0.7 if at < 12 else 0.1)
    score(query, [1.3 - 0.2 * at for at in range(14)])
    return query


def answer_all(query: Query, preference: float) -> None:
    """Twenty more judges' worth of answers on every neighbouring pair."""
    annotators = [make_judge(query.project) for _ in range(20)]
    for pair in query.pairs.all():
        for annotator in annotators:
            judge(pair, annotator, preference)


# --- certainty -----------------------------------------------------------------------------


def test_certainty_rises_with_answers_and_is_one_for_ten_documents(query: Query) -> None:
    before = top_certainty([query.pk])[query.pk]
    answer_all(query, 0.9)
    assert 0.5 < before < top_certainty([query.pk])[query.pk] <= 1.0
    ten = make_query(query.project, size=10)
    score(ten, [0.1 * at for at in range(10)])
    assert top_certainty([ten.pk, make_query(query.project).pk]) == {ten.pk: 1.0}


def test_list_of_queries_shows_certainty_where_there_are_scores(client: Client, project: Project, query: Query) -> None:
    make_query(project, text="nobody judged this")
    rows = re.findall(r"<tr>.*?</tr>", page(client, "queries", project.slug), re.S)
    cell = '<td class="number" data-label="certainty">'
    assert f"{cell}{top_certainty([query.pk])[query.pk]:.2f}</td>" in rows[1]
    assert f"{cell}–</td>" in rows[2]


def test_certainty_is_computed_again_only_after_a_new_fit(query: Query) -> None:
    before = certainty.read_certainty(query.project)
    answer_all(query, 0.9)
    assert certainty.read_certainty(query.project) == before
    QueryFit.objects.filter(query=query).update(fitted_at=F("fitted_at") + timedelta(seconds=1))
    after = certainty.read_certainty(query.project)
    assert before is not None and after is not None and after.mean > before.mean


def test_project_shows_the_mean_once_its_figures_were_read(client: Client, project: Project, query: Query) -> None:
    Run.objects.create(project=project, state="finished", sampler_options={"enough_recall": 0.95})
    assert "Top-10 certainty" not in page(client, "project", project.slug)
    page(client, "project-figures", project.slug)
    html = page(client, "project", project.slug)
    assert "Top-10 certainty" in html
    assert f'<div class="big">{top_certainty([query.pk])[query.pk]:.2f}</div>' in html
    assert "mean over 1 query" in html
    assert "stops at 0.95" in html


def test_large_projects_are_sampled(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certainty, "SAMPLED", 3)
    for _ in range(7):
        score(make_query(project, size=3), [1.0, 0.0, -1.0])
    found = certainty.read_certainty(project)
    assert found is not None
    assert (found.mean, found.read, found.rated) == (1.0, 3, 7)


# --- where next ----------------------------------------------------------------------------


def test_next_pairs_are_new_and_the_most_informative_come_first(query: Query) -> None:
    pairs = next_pairs(query.pk, 5)
    assert len(pairs) == 5
    drawn = set(query.pairs.values_list("a_id", "b_id"))
    assert not drawn & {(pair.a_id, pair.b_id) for pair in pairs}
    shrinkage = [pair.shrinkage for pair in pairs]
    assert shrinkage == sorted(shrinkage, reverse=True)
    assert 0 < sum(shrinkage) < 1


def test_where_next_names_pairs_and_what_they_take_away(client: Client, project: Project, query: Query) -> None:
    url = reverse("where-next", args=[project.slug, query.pk])
    html = client.get(url, headers={"HX-Request": "true"}).content.decode()
    assert html.count('<span class="shrinkage">') == 10
    assert "Queue 10 pairs" in html
    assert "<html" not in html
    assert "<html" in client.get(url).content.decode(), "it is a page where no script asks for it"
    assert url in page(client, "query", project.slug, query.pk)


def test_where_next_before_the_first_scores(client: Client, project: Project) -> None:
    html = page(client, "where-next", project.slug, make_query(project).pk)
    assert "first scores" in html
    assert "Queue" not in html


def test_button_queues_exactly_the_pairs_that_are_shown(client: Client, project: Project, query: Query) -> None:
    judges = [get_judge(project, "bm25"), get_judge(project, "query-likelihood")]
    last = Run.objects.create(project=project, state="finished", allocation="rotate", orders="both")
    last.judges.set(judges)
    shown = {(pair.a_id, pair.b_id) for pair in next_pairs(query.pk, 10)}
    answer = client.post(reverse("queue-next", args=[project.slug, query.pk]))
    assert answer.status_code == 302
    run = Run.objects.exclude(pk=last.pk).get()
    assert (run.sampler, run.pair_budget, run.query_ids) == ("uncertain", 10, [query.pk])
    assert (run.allocation, run.orders, set(run.judges.all())) == ("rotate", "both", set(judges))
    advancing.advance(run.pk)
    queued = JudgingTask.objects.filter(run=run).values_list("pair__a_id", "pair__b_id")
    assert set(queued) == shown
    html = page(client, "where-next", project.slug, query.pk)
    assert "10 pending pairs count as answered here" in html


def test_button_goes_on_with_a_cascade_as_it_was(client: Client, project: Project, query: Query) -> None:
    strong, cheap = get_judge(project, "bm25"), get_judge(project, "query-likelihood")
    last = Run.objects.create(project=project, allocation="cascade", cascade_first=cheap, cascade_threshold=0.1)
    last.judges.set([strong, cheap])
    client.post(reverse("queue-next", args=[project.slug, query.pk]))
    run = Run.objects.exclude(pk=last.pk).get()
    assert (run.cascade_first, run.cascade_threshold) == (cheap, 0.1)


def test_without_judges_the_button_leads_to_their_choice(client: Client, project: Project, query: Query) -> None:
    answer: Any = client.post(reverse("queue-next", args=[project.slug, query.pk]))
    assert answer.url == reverse("new-run", args=[project.slug])
    assert not Run.objects.exists()


def test_viewers_see_the_pairs_but_cannot_queue_them(client: Client, owner: Any) -> None:
    project = make_project(owner, role="viewer")
    query = make_query(project, size=12)
    score(query, [0.1 * at for at in range(12)])
    assert "queue-next" not in page(client, "where-next", project.slug, query.pk)
    assert client.post(reverse("queue-next", args=[project.slug, query.pk])).status_code == 403


@pytest.mark.parametrize("name", ["where-next", "graph"])
def test_queries_of_others_are_not_found(name: str, client: Client, owner: Any) -> None:
    theirs = make_project(make_user())
    query = make_query(theirs)
    assert client.get(reverse(name, args=[theirs.slug, query.pk])).status_code == 404
    mine = make_project(owner)
    assert client.get(reverse(name, args=[mine.slug, query.pk])).status_code == 404


# --- graph ---------------------------------------------------------------------------------


def test_graph_draws_every_pair_in_the_colour_of_its_preference(client: Client, project: Project, query: Query) -> None:
    run = Run.objects.create(project=project, state="judging")
    first, _, third = candidates_of(query)[:3]
    JudgingTask.objects.create(run=run, pair=make_pair(first, third), annotator=make_judge(project))
    html = page(client, "graph", project.slug, query.pk)
    tones = re.findall(r'<line class="([a-z-]+)"', html)
    assert tones == ["waiting"] + 12 * ["mild"] + ["sure-against"], "what contradicts the order lies on top"
    assert html.count("<circle") == 14
    assert "ranks 13 and 14: 0.10 for the higher-ranked" in html
    assert "ranks 1 and 3: waiting for an answer" in html


def test_graph_says_the_same_in_words(client: Client, project: Project, query: Query) -> None:
    html = page(client, "graph", project.slug, query.pk)
    assert 'role="group" aria-label="14 documents on a circle, by Elo' in html
    rows = re.findall(r"<tr><td.*?</tr>", html, re.S)
    assert len(rows) == 14
    assert "against the order" in rows[13]
    assert "against the order" not in rows[0]


def test_graph_without_pairs_says_so(client: Client, project: Project) -> None:
    assert "No comparisons yet" in page(client, "graph", project.slug, make_query(project).pk)


@pytest.mark.parametrize(
    ("for_higher", "tone"),
    [(1.0, "sure"), (0.8, "sure"), (0.6, "mild"), (0.5, "tie"), (0.3, "mild-against"), (0.0, "sure-against")],
)
def test_tone_follows_the_preference(for_higher: float, tone: str) -> None:
    assert tone_of(for_higher) == tone


def test_graph_and_where_next_need_no_inline_style(client: Client, project: Project, query: Query) -> None:
    for name in ("graph", "where-next"):
        html = page(client, name, project.slug, query.pk)
        assert " style=" not in html
        assert "<style" not in html
        assert not re.search(r"<script(?![^>]*src=)", html)


# --- savings ---------------------------------------------------------------------------------


def spend(project: Project, calls: int, *, cost_micros: int = 0) -> Run:
    run = Run.objects.create(project=project, state="finished", reason="the design is complete")
    annotator = make_judge(project)
    Attempt.objects.bulk_create(
        Attempt(run=run, annotator=annotator, task_id=task, fence=1, cost_micros=cost_micros) for task in range(calls)
    )
    return run


def test_paper_asks_three_judges_about_four_pairs_a_candidate_or_all_there_are() -> None:
    assert paper_calls({100: 2}) == 2 * 3 * 400
    assert paper_calls({5: 1, 2: 10}) == 3 * (10 + 10)


def test_saving_counts_judged_queries_only_and_prices_what_was_not_asked(
    client: Client, project: Project, query: Query
) -> None:
    make_query(project, size=50)
    assert read_saving(project, judged_sizes(project)) is None
    spend(project, 42, cost_micros=1_000_000)
    saving = read_saving(project, judged_sizes(project))
    assert saving == Saving(calls=42, paper_calls=3 * 56, cost_micros=42_000_000)
    assert (saving.saved_calls, saving.share, saving.saved_micros) == (126, 0.75, 126_000_000)
    html = page(client, "project", project.slug)
    assert "75\N{NO-BREAK SPACE}% fewer than three judges" in html
    assert "about $126.00 saved" in html


def test_more_calls_than_the_paper_are_no_saving() -> None:
    text = saving_sentence(Saving(calls=200, paper_calls=168, cost_micros=0))
    assert text == "200 calls, 32 more than 168 (three judges on four pairs per candidate)"


def test_closing_lines_tell_end_saving_and_certainty(project: Project, query: Query) -> None:
    lines = closing_lines(project, spend(project, 42)).splitlines()
    assert lines[0] == "run ended: the design is complete"
    assert lines[1] == "42 calls instead of 168 (three judges on four pairs per candidate): 75% saved"
    assert lines[2].startswith(f"top-10 certainty: {top_certainty([query.pk])[query.pk]:.2f} ")


# --- estimates and the form ------------------------------------------------------------------


def estimated(project: Project, *names: str, sampler: str = "cycles", **order: Any) -> RunEstimate:
    judges = [ChosenJudge(get_plugin("judge", name), {}) for name in names]
    order = {"allocation": "all", "orders": "one", "sampler_options": {}, "budgets": Budgets(), **order}
    return estimate_run(project, judges, sampler=sampler, **order)


def test_estimate_of_a_design_by_rounds_is_its_end(project: Project) -> None:
    make_query(project, size=20)
    make_query(project, size=4)
    options = {"pairs_per_candidate": 3.0}
    assert estimated(project, "bm25", sampler="adaptive", sampler_options=options).pairs == 60 + 6


@pytest.mark.parametrize(
    ("order", "calls"),
    [
        ({"allocation": "all", "orders": "one"}, [80, 80]),
        ({"allocation": "all", "orders": "both"}, [160, 160]),
        ({"allocation": "rotate", "orders": "both"}, [80, 80]),
        ({"allocation": "informative", "orders": "both"}, [80, 80]),
        ({"allocation": "cascade", "orders": "one"}, [80, 32]),
        ({"allocation": "cascade", "orders": "both"}, [160, 64]),
    ],
)
def test_estimate_follows_allocation_and_orders(project: Project, order: dict[str, str], calls: list[int]) -> None:
    make_query(project, size=20)
    found = estimated(project, "bm25", "query-likelihood", **order)
    assert [judge.calls for judge in found.judges] == calls
    assert found.pairs == 80


def test_estimate_stays_within_every_budget(project: Project) -> None:
    make_query(project, size=20)
    found = estimated(project, "bm25", "query-likelihood", budgets=Budgets(calls=40))
    assert (found.pairs, found.calls, found.paper_calls, found.saved_share) == (20, 40, 240, pytest.approx(5 / 6))
    assert estimated(project, "bm25", budgets=Budgets(pairs=7, calls=40)).calls == 7


@pytest.mark.parametrize(
    ("model", "billions"), [("Qwen/Qwen3-4B", 4.0), ("qwen3-0.6b-instruct", 0.6), ("Qwen3-30B-A3B", 3.0)]
)
def test_gpu_hours_follow_the_size_in_a_models_name(model: str, billions: float) -> None:
    tokens = 1130 * 2 * 44.8e6
    assert gpu_hours(model, tokens) == pytest.approx(billions / 4.0 * 505.5, rel=0.01)
    assert gpu_hours("gpt-4.1-mini", tokens) is None


def test_form_takes_budgets_in_calls_tokens_and_dollars(client: Client, project: Project) -> None:
    make_query(project, size=4)
    sent = {"judge": ["bm25"], "sampler": "cycles", "allocation": "all", "orders": "one",
            "call_budget": "12", "token_budget": "9000", "cost_budget": "$2.50"}  # fmt: skip
    assert client.post(reverse("new-run", args=[project.slug]), sent).status_code == 302
    run = Run.objects.get()
    assert (run.call_budget, run.token_budget, run.cost_budget_micros) == (12, 9000, 2_500_000)


@pytest.mark.parametrize(
    ("name", "value"), [("call_budget", "0"), ("token_budget", "many"), ("cost_budget", "0.0"), ("cost_budget", "-1")]
)
def test_form_names_a_budget_that_makes_no_sense(client: Client, project: Project, name: str, value: str) -> None:
    make_query(project, size=4)
    sent = {"judge": ["bm25"], "sampler": "cycles", name: value}
    answer = client.post(reverse("new-run", args=[project.slug]), sent)
    assert answer.status_code == 422
    html = answer.content.decode()
    assert f'value="{value}" aria-invalid="true" aria-describedby="{name}-error"' in html
    assert f'<span class="error" id="{name}-error">' in html
    assert not Run.objects.exists()


def test_form_offers_only_designs_that_stand_by_themselves(client: Client, project: Project) -> None:
    make_query(project, size=4)
    html = page(client, "new-run", project.slug)
    offered = Counter(re.findall(r'name="sampler" value="([a-z-]+)"', html))
    assert {"cycles", "adaptive", "all"} <= set(offered)
    assert not {"uncertain", "cross-query"} & set(offered)


@pytest.mark.parametrize(
    ("option", "named"),
    [
        (["--dollars", "0"], "--dollars is 0.0"),
        (["--dollars", "nan"], "--dollars is nan"),
        (["--sampler-options", "degree=4"], "which is not JSON"),
        (["--sampler-options", "[4]"], "pass a JSON object"),
    ],
)
def test_command_refuses_a_bad_budget_before_it_starts_anything(option: list[str], named: str, tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text("{}")
    with pytest.raises(CommandError, match=re.escape(named)):
        call_command("run", str(file), *option)
    assert not Project.objects.exists()
