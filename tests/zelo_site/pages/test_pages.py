"""The pages that join floors: who sees what, what they say, what they cost, what their buttons do."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import URLPattern, reverse
from django.utils import timezone

from labeling.annotation.assignments import open_assignments
from labeling.models import Document, Membership, Pair, Project, Query
from scoring.models import QueryFit, Score
from tests.factories.pages import (
    candidates_of,
    example_address,
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
from workers.models import JudgingTask, Run, Spend
from workers.monitoring.data_summary import few_comparisons
from workers.monitoring.heartbeats import beat
from zelo_site import urls

pytestmark = pytest.mark.django_db


@pytest.fixture
def query(project: Project) -> Query:
    """Three documents, d0 far ahead; one judge agreed twice and once went against the fit."""
    query = make_query(project)
    d0, d1, d2 = candidates_of(query)
    annotator = make_judge(project)
    judge(make_pair(d0, d1), annotator, 0.9)
    judge(make_pair(d0, d2), annotator, 0.2, swapped=True, rationale="names the <b>marathon</b>")
    judge(make_pair(d1, d2), annotator, 0.6)
    score(query, [1.0, 0.0, -1.0])
    return query


# --- who sees what -----------------------------------------------------------------------

_OF_A_PROJECT = [
    pattern for pattern in urls.urlpatterns if isinstance(pattern, URLPattern) and "slug" in pattern.pattern.converters
]


@pytest.mark.parametrize("pattern", _OF_A_PROJECT, ids=lambda pattern: str(pattern.name))
def test_projects_of_others_are_not_found(pattern: URLPattern, client: Client, owner: Any) -> None:
    theirs = make_project(make_user())
    query = make_query(theirs)
    pair = make_pair(*candidates_of(query)[:2])
    address = example_address(pattern, slug=theirs.slug, query_id=query.pk, pair_id=pair.pk, run_id=make_run(theirs).pk)
    changes = {
        "move-run",
        "export-archive",
        "estimate",
        "mark-gold",
        "ask-pair",
        "query-views",
        "move-training",
        "move-distillation",
        "move-recipe",
        "move-webhook",
        "send-delivery",
        "move-deployment",
        "move-refinement",
        "new-trial",
        "cancel-teaching",
    }
    assert (client.post if pattern.name in changes else client.get)(address).status_code == 404


@pytest.mark.parametrize("name", ["query", "query-ranking", "matrix"])
def test_query_of_others_is_not_found_under_ones_own_project(name: str, client: Client, project: Project) -> None:
    theirs = make_query(make_project(make_user()))
    assert client.get(reverse(name, args=[project.slug, theirs.pk])).status_code == 404


def test_pair_of_others_is_not_found_under_ones_own_project(client: Client, project: Project) -> None:
    pair = make_pair(*candidates_of(make_query(make_project(make_user())))[:2])
    assert client.get(reverse("pair", args=[project.slug, pair.pk])).status_code == 404


def test_document_of_another_query_is_not_opened(client: Client, project: Project, query: Query) -> None:
    other = candidates_of(make_query(project))[0]
    answer = client.get(reverse("query", args=[project.slug, query.pk]), {"document": other.pk})
    assert answer.status_code == 404


@pytest.mark.parametrize("role", ["viewer", "annotator"])
def test_members_who_may_only_look_start_nothing(role: str, client: Client, owner: Any) -> None:
    project = make_project(make_user())
    Membership.objects.create(project=project, user=owner, role=role)
    run = make_run(project)
    assert client.get(reverse("project", args=[project.slug])).status_code == (200 if role == "viewer" else 302)
    assert client.get(reverse("import", args=[project.slug])).status_code == 403
    assert client.post(reverse("new-run", args=[project.slug])).status_code == 403
    assert client.post(reverse("move-run", args=[project.slug, run.pk, "cancel"])).status_code == 403
    assert client.get(reverse("new-project")).status_code == 403
    run.refresh_from_db()
    assert run.state == "judging"


def test_doctor_is_for_staff(client: Client, owner: Any) -> None:
    assert client.get(reverse("doctor")).status_code == 403


# --- what every page keeps to ------------------------------------------------------------


def _every_page(client: Client, project: Project, query: Query) -> dict[str, str]:
    pair = query.pairs.first()
    assert pair is not None
    document = candidates_of(query)[0].pk
    return {
        "projects": page(client, "projects"),
        "project": page(client, "project", project.slug),
        "figures": page(client, "project-figures", project.slug),
        "queries": page(client, "queries", project.slug),
        "query": page(client, "query", project.slug, query.pk, document=document),
        "matrix": page(client, "matrix", project.slug, query.pk),
        "pair": page(client, "pair", project.slug, pair.pk),
        "import": page(client, "import", project.slug),
        "new": page(client, "new-project"),
        "run": page(client, "new-run", project.slug),
        "jobs": page(client, "jobs"),
        "profile": page(client, "profile"),
    }


def test_markup_obeys_the_security_policy(client: Client, project: Project, query: Query) -> None:
    make_run(project)
    for name, html in _every_page(client, project, query).items():
        assert not re.search(r"<[^>]+\sstyle\s*=", html), f"{name} has a style attribute"
        assert not re.search(r"<style\b", html), f"{name} has a style element"
        assert not re.search(r"<[^>]+\son\w+\s*=", html), f"{name} has an event attribute"
        for script in re.findall(r"<script\b[^>]*>", html):
            assert "src=" in script or 'type="application/json"' in script, f"{name} has an inline script"


def test_policy_allows_no_inline_code(client: Client, project: Project) -> None:
    policy = client.get(reverse("project", args=[project.slug])).headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy


def test_texts_are_escaped_everywhere(client: Client, project: Project) -> None:
    attack = "<script>alert(1)</script>"
    query = make_query(project, text=attack, words=attack)
    d0, d1, _ = candidates_of(query)
    d0.document.metadata = {attack: attack, "title": attack}
    d0.document.save()
    judge(make_pair(d0, d1), make_judge(project, name=attack), 0.9, rationale=attack)
    score(query, [1.0, 0.0, -1.0])
    for name, html in _every_page(client, project, query).items():
        assert attack not in html, name


def test_long_texts_keep_their_place(client: Client, project: Project) -> None:
    query = make_query(project, text="word " * 5000, words="long " * 5000)
    score(query, [1.0, 0.0, -1.0])
    assert len(page(client, "query", project.slug, query.pk)) < 60_000
    assert len(page(client, "queries", project.slug)) < 20_000


# --- what they cost ----------------------------------------------------------------------


def test_list_of_projects_costs_the_same_for_many(
    client: Client, owner: Any, django_assert_max_num_queries: Any
) -> None:
    for _ in range(12):
        score(make_query(make_project(owner)), [1.0, 0.0, -1.0])
    with django_assert_max_num_queries(4):
        assert "3 candidates" not in page(client, "projects")


def test_list_of_queries_costs_the_same_for_many(
    client: Client, project: Project, django_assert_max_num_queries: Any
) -> None:
    for _ in range(30):
        score(make_query(project), [1.0, 0.0, -1.0])
    page(client, "queries", project.slug)  # measures their figures
    with django_assert_max_num_queries(8):
        page(client, "queries", project.slug)


def test_project_page_stays_within_its_budget(
    client: Client, project: Project, query: Query, django_assert_max_num_queries: Any
) -> None:
    make_run(project)
    with django_assert_max_num_queries(
        23
    ):  # one of them, for an active run: is an endpoint down? two: what waits or failed
        page(client, "project", project.slug)


def test_thousand_candidates_are_shown_a_hundred_at_a_time(
    client: Client, project: Project, django_assert_max_num_queries: Any
) -> None:
    query = make_query(project, size=1000)
    score(query, [1.0 - at / 500 for at in range(1000)])
    with django_assert_max_num_queries(14):
        html = page(client, "query", project.slug, query.pk)
    assert html.count("data-moves") == 100
    assert "1–100 of 1,000" in html
    last = page(client, "query", project.slug, query.pk, page=10)
    assert 'class="rank">1000<' in last


# --- project page ------------------------------------------------------------------------


def test_stages_show_how_far_the_project_is(client: Client, project: Project, query: Query) -> None:
    make_run(project, planned=4)
    html = page(client, "project", project.slug)
    assert re.search(r'class="done"><a href="[^"]*"><svg class="icon".*?</svg> Import', html)
    assert re.search(r'class="now" aria-current="step"><a href="[^"]*">.* Judging <span class="detail">100\s%', html)
    assert re.search(r'class="ahead"><a href="[^"]*"><span class="step">7</span> Train', html)


def test_missing_worker_is_named_with_its_command(client: Client, project: Project, query: Query) -> None:
    make_run(project)
    html = page(client, "project", project.slug)
    assert "python manage.py worker judging-cpu" in html
    assert "python manage.py worker rating" in html


def test_living_worker_is_shown_and_asks_for_nothing(client: Client, project: Project, query: Query) -> None:
    make_run(project)
    beat("judging@here", "judging-cpu,judging-gpu")
    beat("rating@here", "rating")
    html = page(client, "project", project.slug)
    assert "judging@here" in html
    assert "python manage.py worker" not in html


@pytest.mark.usefixtures("broker_down")
def test_dead_broker_is_said_aloud(client: Client, project: Project, query: Query) -> None:
    assert "The broker is not responding" in page(client, "project", project.slug)


def test_failures_stand_by_reason_and_can_be_asked_again(client: Client, project: Project, query: Query) -> None:
    run = make_run(project)
    annotator = make_judge(project, name="gpt", plugin="openai-http")
    for pair, reason in zip(query.pairs.all(), ["timeout", "timeout", "refusal"], strict=True):
        JudgingTask.objects.create(
            run=run, pair=pair, annotator=annotator, state="dead", reason=reason, message=f"a {reason} happened"
        )
    html = page(client, "project", project.slug)
    assert "2 questions got no answer: timeout" in html and "1 question got no answer: refusal" in html
    assert "a timeout happened" in html
    retry = reverse("move-run", args=[project.slug, run.pk, "retry"])
    told = client.post(retry, {"reason": "timeout"}, follow=True).content.decode()
    assert "Retrying 2 questions." in told
    assert JudgingTask.objects.filter(state="open").count() == 2
    assert "Retrying 1 question." in client.post(retry, follow=True).content.decode()


def test_islands_need_attention(client: Client, project: Project, query: Query) -> None:
    QueryFit.objects.update(islands=2)
    assert "1 query has disconnected comparisons" in page(client, "project", project.slug)
    assert query.text in page(client, "queries", project.slug, show="islands")


def test_pairs_that_wait_for_people_need_somebody(client: Client, project: Project, query: Query) -> None:
    make_run(project, state="finished")
    assert "nothing to do" in page(client, "project", project.slug)
    first, second = Pair.objects.filter(query=query).order_by("id").values_list("pk", flat=True)[:2]
    open_assignments([first], reason="random", overlap=2)
    html = page(client, "project", project.slug)
    assert "1 pair waits for people" in html and reverse("people", args=[project.slug]) in html
    open_assignments([second], reason="random")
    assert "2 pairs wait for people" in page(client, "project", project.slug)


def test_calls_of_other_runs_are_told_from_those_of_the_last(client: Client, project: Project, query: Query) -> None:
    for number in (1, 2):
        run = make_run(project, state="finished", planned=5)
        Spend.objects.create(run=run, annotator_id=number, shard=0, calls=5 * number)
    assert "10 in the last run, the rest in earlier runs and checks" in page(client, "project", project.slug)
    Run.objects.order_by("id").first().delete()  # type: ignore[union-attr]
    html = page(client, "project", project.slug)
    assert "<p>10 calls" in html and "in the last run" not in html


def test_more_calls_than_answers_are_explained_by_all_that_may_be_their_cause(
    client: Client, project: Project, query: Query
) -> None:
    run = make_run(project, state="finished", planned=5)
    spend = Spend.objects.create(run=run, annotator_id=1, shard=0, calls=5)
    why = "repeated votes, failed calls and retries need extra calls"
    assert why not in page(client, "project", project.slug)
    Spend.objects.filter(pk=spend.pk).update(calls=15)
    assert why in page(client, "project", project.slug)


def test_unchanged_live_part_is_not_sent_again(client: Client, project: Project, query: Query) -> None:
    address = reverse("project-live", args=[project.slug])
    found = re.search(r"live/\?v=(\w+)", client.get(address).content.decode())
    assert found is not None
    assert client.get(address, {"v": found[1]}).status_code == 204
    make_run(project)
    assert client.get(address, {"v": found[1]}).status_code == 200


@pytest.mark.parametrize(("action", "state"), [("pause", "paused"), ("cancel", "cancelled")])
def test_buttons_move_the_run(action: str, state: str, client: Client, project: Project) -> None:
    run = make_run(project)
    client.post(reverse("move-run", args=[project.slug, run.pk, action]))
    run.refresh_from_db()
    assert run.state == state


def test_paused_run_resumes(client: Client, project: Project) -> None:
    run = make_run(project, state="paused")
    client.post(reverse("move-run", args=[project.slug, run.pk, "resume"]))
    run.refresh_from_db()
    assert run.state == "judging"


def test_button_that_comes_too_late_changes_nothing_and_says_so(client: Client, project: Project) -> None:
    run = make_run(project, state="finished")
    answer = client.post(reverse("move-run", args=[project.slug, run.pk, "pause"]), follow=True)
    assert "already finished" in answer.content.decode()


def test_empty_states_say_what_to_do_next(client: Client, owner: Any) -> None:
    assert "invitation link" in page(client, "projects")
    get_user_model().objects.update(is_staff=True)
    assert "Create project" in page(client, "projects")
    project = make_project(owner)
    assert "Import queries" in page(client, "project", project.slug)
    assert "Import queries" in page(client, "queries", project.slug)
    query = make_query(project)
    assert "Choose judges" in page(client, "project", project.slug)
    assert "No comparisons yet" in page(client, "matrix", project.slug, query.pk)
    bare = Query.objects.create(project=project, external_id="bare", text="bare")
    assert "No candidates yet" in page(client, "query", project.slug, bare.pk)


# --- query page --------------------------------------------------------------------------


def test_documents_are_ranked_with_their_intervals(client: Client, project: Project, query: Query) -> None:
    html = page(client, "query", project.slug, query.pk)
    order = re.findall(r"document number (\d)</a>", html)
    assert order == ["0", "1", "2"]
    assert "<b>1919</b> <span>± 164</span>" in html  # 1.96 x 0.2 x 418.7
    assert "Relevance is uncalibrated" in html
    assert "first-stage rank 1" in html


def test_calibrated_relevance_is_called_so(client: Client, project: Project, query: Query) -> None:
    Score.objects.update(calibrated=True)
    assert "Relevance is calibrated" in page(client, "query", project.slug, query.pk)


def test_unrated_documents_come_last(client: Client, project: Project, query: Query) -> None:
    best = candidates_of(query)[0]
    Score.objects.filter(candidate=best).delete()
    html = page(client, "query", project.slug, query.pk)
    assert re.findall(r"document number (\d)</a>", html) == ["1", "2", "0"]
    assert "not compared yet" in html


@pytest.mark.parametrize(
    ("fields", "flag"),
    [({"undefeated": True}, "undefeated"), ({"winless": True}, "winless"), ({"comparisons": 1}, "few comparisons")],
)
def test_flags(fields: dict[str, Any], flag: str, client: Client, project: Project, query: Query) -> None:
    assert flag not in page(client, "query", project.slug, query.pk)
    Score.objects.filter(candidate=candidates_of(query)[2]).update(**fields)
    assert page(client, "query", project.slug, query.pk).count(f">{flag}<") == 1


def test_equal_texts_are_one_possible_opponent(client: Client, project: Project, query: Query) -> None:
    """Of three documents with two texts, each can meet one text only."""
    Document.objects.filter(candidates__in=candidates_of(query)[1:]).update(text="twice")
    Score.objects.filter(candidate__query=query).update(comparisons=1)
    assert "few comparisons" not in page(client, "query", project.slug, query.pk)
    assert few_comparisons(project) == 0
    Document.objects.filter(candidates=candidates_of(query)[2]).update(text="another")
    assert page(client, "query", project.slug, query.pk).count(">few comparisons<") == 3
    assert few_comparisons(project) == 3


def test_only_the_smaller_islands_are_flagged(client: Client, project: Project, query: Query) -> None:
    Score.objects.filter(candidate=candidates_of(query)[2]).update(island=1)
    QueryFit.objects.update(islands=2)
    assert page(client, "query", project.slug, query.pk).count(">island<") == 1


def test_unchanged_ranking_costs_no_candidates(
    client: Client, project: Project, query: Query, django_assert_max_num_queries: Any
) -> None:
    address = reverse("query-ranking", args=[project.slug, query.pk])
    found = re.search(r"v=([-\d.]+)", client.get(address).content.decode())
    assert found is not None
    with django_assert_max_num_queries(5):
        assert client.get(address, {"v": found[1]}).status_code == 204
    judge(query.pairs.first(), make_judge(project, name="another"), 0.4)  # type: ignore[arg-type]
    assert client.get(address, {"v": found[1]}).status_code == 200


def test_reasons_stand_with_what_the_fit_expected_odd_ones_first(
    client: Client, project: Project, query: Query
) -> None:
    best = candidates_of(query)[0]
    html = page(client, "query", project.slug, query.pk, document=best.pk)
    assert "2 answers, 1 against the fit" in html
    # F(2) = (1 + erf 2) / 2 = 0.9977; the answer was 0.2.
    assert "expected 1.00, off by −0.80" in html
    # F(1) = 0.9214; the answer was 0.9.
    assert "expected 0.92, off by −0.02" in html
    assert html.index("off by −0.80") < html.index("off by −0.02")
    assert "names the &lt;b&gt;marathon" in html


def test_reasons_are_turned_to_the_document_asked_about(client: Client, project: Project, query: Query) -> None:
    last = candidates_of(query)[2]
    html = page(client, "query", project.slug, query.pk, document=last.pk)
    # It was b in both pairs: 0.2 and 0.6 for a are 0.8 and 0.4 for it; swapped, it was shown first.
    assert "<b>0.80</b>" in html
    assert "<b>0.40</b>" in html
    assert "shown first · expected 0.00, off by +0.80" in html


def test_superseded_answers_are_no_reasons(client: Client, project: Project, query: Query) -> None:
    best = candidates_of(query)[0]
    query.pairs.first().judgments.update(superseded_at=timezone.now())  # type: ignore[union-attr]
    assert "1 answer, 1 against" in page(client, "query", project.slug, query.pk, document=best.pk)


def test_pair_shows_both_documents_and_every_answer(client: Client, project: Project, query: Query) -> None:
    pair = query.pairs.order_by("id")[1]
    html = page(client, "pair", project.slug, pair.pk)
    assert "document number 0" in html
    assert "document number 2" in html
    assert "B shown first" in html
    assert "the fit expects 1.00 for A" in html


def test_cross_query_pair_shows_both_queries(client: Client, project: Project, query: Query) -> None:
    other = make_query(project, text="another question")
    pair = make_pair(candidates_of(query)[0], candidates_of(other)[0])
    judge(pair, make_judge(project, name="across"), 0.7)
    html = page(client, "pair", project.slug, pair.pk)
    assert query.text in html
    assert "another question" in html
    opened = page(client, "query", project.slug, query.pk, document=candidates_of(query)[0].pk)
    assert "another query" in opened


def test_matrix_is_mirrored_and_says_what_was_not_asked(client: Client, project: Project, query: Query) -> None:
    query.pairs.last().delete()  # type: ignore[union-attr]
    html = page(client, "matrix", project.slug, query.pk)
    cells = re.findall(r'<rect class="([a-z-]+)"[^>]*><title>([^<]*)</title>', html)
    assert len(cells) == 2 * query.pairs.count()  # one a judged cell, each pair twice
    assert ("sure", "1. document number 0\nover 2. document number 1\n0.90") in cells
    assert ("sure-against", "2. document number 1\nover 1. document number 0\n0.10") in cells
    assert html.count('fill="url(#not-asked)"') == 1
    assert all(reverse("pair", args=[project.slug, pair.pk]) in html for pair in query.pairs.all())


def test_matrix_can_be_sorted_by_first_stage(client: Client, project: Project, query: Query) -> None:
    score(query, [-1.0, 0.0, 1.0])
    assert ">1. document number 2" not in page(client, "matrix", project.slug, query.pk, sort="first-stage")
    assert ">1. document number 2<" in page(client, "matrix", project.slug, query.pk)
    assert ">1. document number 0<" in page(client, "matrix", project.slug, query.pk, sort="first-stage")


def test_search_finds_queries_by_their_text(client: Client, project: Project) -> None:
    make_query(project, text="alpha centauri")
    make_query(project, text="beta blocker")
    html = page(client, "queries", project.slug, q="CENTAURI")
    assert "alpha centauri" in html
    assert "beta blocker" not in html
    assert "No results" in page(client, "queries", project.slug, q="gamma\x00 ray")
