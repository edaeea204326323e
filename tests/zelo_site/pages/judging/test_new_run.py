"""The page of a new run: what it remembers, its presets, its choice of queries, its judges as cards, their weights."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client
from django.urls import reverse

from labeling.access.annotators import get_judge
from labeling.models import Candidate, Project, Query, SpotCheck
from scoring.models import QueryFit
from tests.factories.api import Api
from tests.factories.pages import candidates_of, judge, make_pair, make_query, page, score
from workers.models import Run
from workers.runs.choices.presets import UnknownPreset, get_preset
from workers.runs.choices.queries import NoQueryChosen, QueryChoice, choose_queries
from workers.runs.choices.weights import advise_weights
from workers.runs.ordering import start_run

pytestmark = pytest.mark.django_db


def form_values(shown: str) -> dict[str, Any]:
    """What a browser would send of this form, without options of judges that are not chosen."""
    sent: dict[str, Any] = {"judge": re.findall(r'name="judge" value="([^"]+)" id="[^"]+" checked', shown)}
    for name, value in re.findall(
        r'<input (?:type="hidden" )?(?:id="[^"]*" )?name="([^"]+)"[^>]* value="([^"]*)"', shown
    ):
        if name not in {"csrfmiddlewaretoken", "judge", "row"} and not name.startswith(("judge-", "name-")):
            sent[name] = value
    sent |= dict(re.findall(r'type="radio" name="(sampler)" value="([^"]+)" id="[^"]+" checked', shown))
    sent |= dict(re.findall(r'type="checkbox" name="(as_in_run)" value="(\d+)"[^>]* checked', shown))
    for name, options in re.findall(r'<select id="[^"]*" name="([^"]+)"[^>]*>(.*?)</select>', shown, re.DOTALL):
        chosen = re.findall(r'<option value="([^"]*)" selected', options)
        sent[name] = chosen[0] if chosen else re.findall(r'<option value="([^"]*)"', options)[0]
    for name in re.findall(r'<input type="checkbox" id="(sampler-[^"]+)"[^>]* checked', shown):
        sent[name] = "on"
    return sent


def queries_of(run: Run) -> set[int]:
    return set(run.query_ids or [])


def test_a_first_run_is_adaptive_with_one_judge_a_pair(client: Client, project: Project) -> None:
    make_query(project, size=4)
    sent = form_values(page(client, "new-run", project.slug))
    assert (sent["sampler"], sent["allocation"], sent["orders"]) == ("adaptive", "rotate", "one")
    assert client.post(reverse("new-run", args=[project.slug]), sent).status_code == 302
    run = Run.objects.get()
    assert (run.sampler, run.allocation, run.query_ids) == ("adaptive", "rotate", None)
    assert set(run.judges.values_list("plugin", flat=True)) == {"bm25", "query-likelihood", "embedding"}


def test_the_form_comes_as_the_last_run_was_and_starts_another_like_it(client: Client, project: Project) -> None:
    first, second = make_query(project, size=4), make_query(project, size=4)
    strong, cheap = get_judge(project, "bm25", {"k1": 0.7}, name="strong"), get_judge(project, "query-likelihood")
    last = start_run(
        project, judges=[cheap, strong], sampler="cycles", sampler_options={"degree": 4}, allocation="cascade",
        cascade_threshold=0.15, orders="both", query_ids=[first.pk], call_budget=500, cost_budget_micros=2_500_000,
    )  # fmt: skip
    shown = page(client, "new-run", project.slug)
    assert f"Filled in like run {last.pk}." in shown
    sent = form_values(shown) | {"first": f"@{cheap.pk}"}
    assert f'value="@{cheap.pk}" id="first-@{cheap.pk}" checked' in shown
    assert sent["cost_budget"] == "2.5"
    assert client.post(reverse("new-run", args=[project.slug]), sent).status_code == 302
    run = Run.objects.order_by("-id")[0]
    for field in (
        "sampler",
        "sampler_options",
        "allocation",
        "cascade_threshold",
        "orders",
        "call_budget",
        "cost_budget_micros",
    ):
        assert getattr(run, field) == getattr(last, field), field
    assert (run.cascade_first, set(run.judges.all()), queries_of(run)) == (cheap, {strong, cheap}, {first.pk})
    assert second.pk not in queries_of(run)


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("quick", ("adaptive", "rotate", 2.0, 20)),
        ("paper", ("cycles", "all", None, None)),
        ("cheapest", ("adaptive", "rotate", 4.0, None)),
    ],
)
def test_presets_fill_the_form_and_the_command_alike(
    preset: str, expected: tuple[Any, ...], client: Client, project: Project
) -> None:
    Query.objects.bulk_create(Query(project=project, external_id=f"x{n}", text=f"filler {n}") for n in range(5))
    for number in range(25):
        make_query(project, size=3, text=f"question {number}")
    sent = form_values(page(client, "new-run", project.slug, preset=preset))
    assert client.post(reverse("new-run", args=[project.slug]), sent).status_code == 302
    run = Run.objects.get()
    queries = None if run.query_ids is None else len(run.query_ids)
    assert (run.sampler, run.allocation, run.sampler_options.get("pairs_per_candidate"), queries) == expected
    assert (run.sampler_options.get("enough_recall") == 0.95) == (preset == "cheapest")
    settings = get_preset(preset).settings
    ordered = start_run(
        project, judges=[get_judge(project, "bm25")], sampler=settings.sampler, sampler_options=settings.sampler_options,
        allocation=settings.allocation, queries=settings.queries,
    )  # fmt: skip
    assert (ordered.sampler_options, ordered.query_ids) == (run.sampler_options, run.query_ids)


def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(UnknownPreset, match="expected one of quick, paper, cheapest"):
        get_preset("fast")


def test_only_people_opens_pairs_and_asks_no_judge(client: Client, project: Project) -> None:
    make_query(project, size=4)
    shown = page(client, "new-run", project.slug, preset="people")
    assert 'name="judge"' not in shown
    sent = {"preset": "people", "pairs": "3", "overlap": "2"}
    summary = client.post(reverse("estimate", args=[project.slug]), sent).content.decode()
    assert ">6</div>" in summary and "comparisons of 3 pairs" in summary
    assert client.post(reverse("new-run", args=[project.slug]), sent).status_code == 302
    assert SpotCheck.objects.filter(project=project).count() == 6
    assert not Run.objects.exists()
    refused = client.post(reverse("new-run", args=[project.slug]), {"preset": "people", "pairs": "0", "overlap": "1"})
    assert refused.status_code == 422 and 'id="pairs-error"' in refused.content.decode()


# --- the queries ----------------------------------------------------------------------------


def test_queries_are_chosen_by_text_sample_certainty_and_earlier_run(project: Project) -> None:
    sure, unsure, bare = (make_query(project, size=3, text=text) for text in ("Heart one", "heart two", "lung"))
    score(sure, [3.0, 0.0, -3.0])
    score(unsure, [0.0, 0.0, 0.0])
    QueryFit.objects.update(judgments=3)
    for query in (sure, unsure):
        first, second, third = candidates_of(query)
        for a, b in ((first, second), (second, third)):
            make_pair(a, b)
    assert choose_queries(project, QueryChoice()) is None
    assert choose_queries(project, QueryChoice(text="HEART")) == [sure.pk, unsure.pk]
    assert choose_queries(project, QueryChoice(text="heart"), among=[unsure.pk, bare.pk]) == [unsure.pk]
    assert choose_queries(project, QueryChoice(certainty_below=0.5)) == [bare.pk], "every top ten of three is certain"
    one = choose_queries(project, QueryChoice(sample=1))
    assert one is not None and len(one) == 1 and one == choose_queries(project, QueryChoice(sample=1))
    run = Run.objects.create(project=project, query_ids=[bare.pk])
    assert choose_queries(project, QueryChoice(as_in_run=run.pk)) == [bare.pk]
    for choice in (QueryChoice(text="nowhere"), QueryChoice(as_in_run=run.pk + 1)):
        with pytest.raises(NoQueryChosen):
            choose_queries(project, choice)


def test_the_summary_follows_the_chosen_queries(client: Client, project: Project) -> None:
    make_query(project, size=4, text="heart")
    make_query(project, size=4, text="lung")
    sent = {"judge": ["bm25"], "sampler": "all", "allocation": "all", "orders": "one", "query_text": "lung"}
    address = reverse("estimate", args=[project.slug])
    assert "6 pairs of 1 query" in client.post(address, sent).content.decode().replace("\n", " ")
    assert "no query with two candidates" in client.post(address, sent | {"query_text": "liver"}).content.decode()
    refused = client.post(reverse("new-run", args=[project.slug]), sent | {"certainty_below": "2"})
    assert refused.status_code == 422 and 'id="certainty_below-error"' in refused.content.decode()


def test_rest_and_command_choose_queries_and_presets_as_the_page_does(
    owner: Any, project: Project, capsys: Any
) -> None:
    heart = make_query(project, size=3, text="heart")
    make_query(project, size=3, text="lung")
    api, base = Api(owner), f"/projects/{project.slug}/runs"
    found = api.get(f"{base}/presets").json()
    assert [each["key"] for each in found["presets"]] == ["quick", "paper", "cheapest"]
    assert found["judge_weights"] == "equal" and "no gold answers" in found["reason"]
    body = {key: found["presets"][2][key] for key in ("sampler", "sampler_options", "allocation", "orders")}
    body |= {"judges": [{"plugin": "bm25"}], "queries": {"text": "heart"}}
    assert api.post(f"{base}/estimate", body).json()["queries"] == 1
    run = Run.objects.get(pk=api.post(base, body).json()["run_id"])
    assert (run.sampler_options["enough_recall"], run.query_ids) == (0.95, [heart.pk])
    refused = api.post(base, body | {"queries": {"text": "liver"}})
    assert refused.status_code == 422 and "no query with two candidates" in refused.json()["detail"]
    for option in (["--sample", "0"], ["--certainty-below", "3"]):
        with pytest.raises(CommandError, match=option[0]):
            call_command("run", "--project", project.slug, "--judges", "bm25", *option)


# --- judges ---------------------------------------------------------------------------------


def test_judges_of_the_project_are_cards_with_their_figures(client: Client, project: Project) -> None:
    query = make_query(project, size=3)
    model = get_judge(
        project, "openai-http", {"endpoint": "none", "model": "gpt-5", "mode": "reasoned"}, name="the large one"
    )
    other = get_judge(project, "bm25")
    first, second, __ = candidates_of(query)
    pair = make_pair(first, second)
    judge(pair, model, 0.9)
    judge(pair, other, 0.8)
    shown = page(client, "new-run", project.slug, like=model.pk)
    card = shown[shown.index(f'id="judge-@{model.pk}"') : shown.index(f'id="judge-@{other.pk}"')]
    for part in ("checked", "the large one", "gpt-5 · reasoned", "100", "Test this judge", "Copy and change"):
        assert part in card, part
    sent = {"judge": [f"@{other.pk}"], "sampler": "all", "allocation": "all", "orders": "one"}
    assert client.post(reverse("new-run", args=[project.slug]), sent).status_code == 302
    assert list(Run.objects.get().judges.all()) == [other]


def test_a_card_is_copied_into_a_row_that_can_be_changed(client: Client, project: Project) -> None:
    make_query(project, size=3)
    stored = get_judge(project, "bm25", {"k1": 0.7})
    sent = {"judge": [f"@{stored.pk}"], "another": f"@{stored.pk}"}
    shown = client.post(reverse("new-run", args=[project.slug]), sent).content.decode()
    assert 'name="judge" value="bm25~2" id="judge-bm25~2" checked' in shown
    assert 'name="judge-bm25~2-k1" value="0.7"' in shown
    assert f'id="judge-@{stored.pk}" checked' not in shown


def test_a_retired_judge_of_an_old_page_is_refused(client: Client, project: Project) -> None:
    make_query(project, size=3)
    sent = {"judge": ["@999999"], "sampler": "all", "allocation": "all", "orders": "one"}
    answer = client.post(reverse("new-run", args=[project.slug]), sent)
    assert answer.status_code == 422 and "has been retired or deleted" in answer.content.decode()


# --- weights --------------------------------------------------------------------------------


def test_judges_are_weighted_as_soon_as_grades_measure_them_and_the_reason_is_shown(
    client: Client, project: Project
) -> None:
    query = make_query(project, size=3)
    sent = {"judge": ["bm25", "query-likelihood"], "sampler": "all", "allocation": "rotate", "orders": "one"}
    estimate = reverse("estimate", args=[project.slug])
    equal = client.post(estimate, sent | {"judge_weights": "equal"}).content.decode()
    assert "Equal judges" in equal and "no gold answers, people’s answers or grades measure" in equal
    Candidate.objects.filter(query=query).update(grade=1)
    shown = form_values(page(client, "new-run", project.slug))
    assert shown["judge_weights"] == "anchored"
    weighted = client.post(estimate, sent | {"judge_weights": "anchored"}).content.decode()
    assert "Weighted judges" in weighted and "3 graded documents measure the judges" in weighted
    assert client.post(reverse("new-run", args=[project.slug]), sent | {"judge_weights": "anchored"}).status_code == 302
    project.refresh_from_db()
    assert project.rater_options["judge_weights"] == "anchored"
    assert str(advise_weights(project).reason) == "the project’s settings say so"


def test_a_run_without_a_word_on_weights_changes_no_settings(project: Project) -> None:
    make_query(project, size=3)
    start_run(project, judges=[get_judge(project, "bm25")])
    project.refresh_from_db()
    assert "judge_weights" not in project.rater_options
