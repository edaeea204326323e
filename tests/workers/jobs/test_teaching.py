"""Teaching of judges: the split, the examples, both judges on held-out pairs, the calls that are counted, and what is refused."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from labeling.access.annotators import get_judge
from labeling.models import Annotator, GoldAnswer, Judgment, Project, Query
from labeling.projects import create_project
from tests.factories.http_panel import KEY, define_endpoints, make_judge
from tests.factories.rows import answer_queries, make_user
from tests.fake_judge.process import FakeJudge, running_fake_judge
from workers.budgets.changes import change_caps
from workers.budgets.spend import totals_of_project
from workers.jobs import leasing
from workers.jobs.teaching import job as teaching_job
from workers.jobs.teaching.job import (
    cancel_teaching,
    order_teaching,
    reason_of,
    run_teaching,
    teach_now,
    waiting_teaching_ids,
)
from workers.jobs.teaching.plan import TeachingOptions, TeachingRefused, split_answers
from workers.jobs.teaching.verdict import BETTER, FAILS, NOT_SHOWN, WORSE, Answered, verdict_on
from workers.models import Attempt, Job, JudgeTeaching
from zelo_site.cli.judge_arguments import make_judges, read_judges
from zelo_site.cli.management.commands import teach_judge

pytestmark = pytest.mark.django_db(transaction=True)

# The fake judge errs on these at random (quality counts nothing), but follows the examples in what they prefer in length.
LEARNER: dict[str, Any] = {"scale": 0.0, "sigma": 1.0, "learns": 8.0}


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeJudge]:
    ledger = tmp_path_factory.mktemp("teaching") / "ledger.jsonl"
    with running_fake_judge(ledger, "--seed", "5", "--api-key", KEY) as judge:
        judge.set_judge("learner", **LEARNER)
        judge.set_judge("stubborn", **{**LEARNER, "learns": 0.0})
        judge.set_judge("broken", fault_rates={"null_logprobs": 1.0})
        yield judge


@pytest.fixture(autouse=True)
def endpoint(fake: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    define_endpoints(monkeypatch, fake, {"input_price": 1.0, "limits_per_model": True})


def answered_project(*, queries: int = 24, pairs: int = 3, same_text: bool = False) -> Project:
    """A project whose people always prefer the shorter document."""
    project = create_project("taught")
    answer_queries(project, queries=queries, pairs=pairs, same_text=same_text)
    return project


def row(old: float | None, taught: float | None, query: int) -> Answered:
    return Answered(query, 1.0, old, taught, "cut off" if None in (old, taught) else "")


@pytest.mark.parametrize(
    ("rows", "verdict", "says"),
    [
        (
            [row(0.1, 0.9, q) for q in range(8)],
            BETTER,
            "the taught judge is better: it agrees with people on 100% of 8",
        ),
        ([row(0.9, 0.1, q) for q in range(8)], WORSE, "the taught judge is worse"),
        ([row(0.9, 0.9, q) for q in range(8)], NOT_SHOWN, "no improvement is shown"),
        ([row(0.1, 0.9, q) for q in range(2)] + [row(0.9, 0.9, q) for q in range(2, 8)], NOT_SHOWN, "no improvement"),
        ([row(0.1, 0.9, q % 5) for q in range(50)], FAILS, "both judges answered pairs of 5 held-out queries only"),
        (
            [row(0.1, None, q) for q in range(8)],
            FAILS,
            "the taught judge answered none of the first 8 questions: cut off",
        ),
        ([row(None, 0.1, q) for q in range(8)], FAILS, "the judge without examples answered none of the first 8"),
        (
            [row(0.1, 0.9, q) for q in range(8)] + [row(0.9, None, q) for q in range(4)],
            FAILS,
            "the taught judge left 4 of 12 questions unanswered, the judge without examples 0: cut off",
        ),
    ],
)
def test_the_verdict_follows_from_the_answers(rows: list[Answered], verdict: str, says: str) -> None:
    found = verdict_on(rows, np.random.default_rng(0))
    assert found["verdict"] == verdict and found["reason"].startswith(says), found["reason"]


def test_a_judge_that_learns_from_examples_is_recommended_and_its_calls_are_counted(fake: FakeJudge) -> None:
    project = answered_project()
    judge = make_judge(project, "learner")
    before = fake.summary()["calls"]
    teaching = order_teaching(judge, TeachingOptions(examples=6, pairs=30))
    assert waiting_teaching_ids() == [teaching.job_id]
    run_teaching(teaching.job_id, worker="w@host:1")
    teaching.refresh_from_db()
    report, taught = teaching.report, teaching.taught
    assert teaching.job.pk and Job.objects.get(pk=teaching.job_id).error == ""
    assert report["verdict"] == BETTER, reason_of(teaching)
    assert report["taught"] > 0.95 and report["old"] < 0.8 and report["difference"]["low"] > 0
    assert taught is not None and taught.pk != judge.pk
    examples = taught.options["examples"]
    held_out = {each["query"] for each in teaching.held_out}
    assert len(examples) == 6 and not held_out & {each["query_id"] for each in examples}
    assert {each["preference"] > 0.5 for each in examples} == {True, False}, "A and B in turn"
    assert any(each["why"] == "Short is good." for each in examples)
    assert teaching.calls == fake.summary()["calls"] - before == 2 * len(teaching.rows) == 60
    assert totals_of_project(project.pk).cost_micros == teaching.cost_micros > 0
    usage = report["usage"]
    assert usage["taught"]["input_tokens"] > 2 * usage["old"]["input_tokens"] > 0
    assert usage["old"]["cost_micros"] + usage["taught"]["cost_micros"] == teaching.cost_micros
    assert not Judgment.objects.filter(by_person=False).exists() and not Attempt.objects.exists()


def test_a_judge_that_learns_nothing_is_not_recommended() -> None:
    project = answered_project(queries=12, pairs=2)
    teaching = teach_now(make_judge(project, "stubborn"), TeachingOptions(examples=2, pairs=12))
    assert teaching.report["verdict"] == NOT_SHOWN, reason_of(teaching)
    assert teaching.report["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}


def test_queries_of_equal_text_and_ties_never_help_the_split() -> None:
    project = answered_project(queries=14, pairs=1)
    Query.objects.filter(external_id__in=["taught-0", "taught-1", "taught-2"]).update(text="The  same question")
    GoldAnswer.objects.filter(pair__query__external_id="taught-3").update(preference=0.52)
    with pytest.raises(TeachingRefused, match=r"answered pairs of 11 different queries .* teaching needs 12, half to"):
        split_answers(project, TeachingOptions())
    Query.objects.filter(external_id="taught-2").update(text="Another question")
    for seed in range(4):
        split = split_answers(project, TeachingOptions(seed=seed))
        texts = [set(_texts(each)) for each in (split.teaching, split.held_out)]
        assert not texts[0] & texts[1] and len(split.teaching) + len(split.held_out) == 13
    assert [each.query for each in split_answers(project, TeachingOptions(pairs=6)).held_out] == [
        each.query for each in split_answers(project, TeachingOptions()).held_out[:6]
    ]


def _texts(answers: Any) -> list[str]:
    found = Query.objects.filter(pk__in=[each.query for each in answers]).values_list("text", flat=True)
    return [" ".join(text.split()).casefold() for text in found]


def test_what_cannot_be_taught_is_refused_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = create_project("nothing answered")
    with pytest.raises(TeachingRefused, match=r"people have answered no pair .* plan spot checks"):
        order_teaching(make_judge(empty, "learner"))
    with pytest.raises(TeachingRefused, match="about one query, so none can be held out"):
        order_teaching(make_judge(answered_project(queries=3, same_text=True), "learner"))
    project = answered_project(queries=12, pairs=1)
    judge = make_judge(project, "learner")
    with pytest.raises(TeachingRefused, match=r"has no option 'examples'.* teach a judge of openai-http"):
        order_teaching(get_judge(project, "bm25"))
    Annotator.objects.filter(pk=judge.pk).update(paused_at="2026-01-01T00:00Z", pause_reason="it drifted")
    judge.refresh_from_db()
    with pytest.raises(TeachingRefused, match=r"is paused \(it drifted\); resume it"):
        order_teaching(judge)
    Annotator.objects.filter(pk=judge.pk).update(paused_at=None, pause_reason="")
    judge.refresh_from_db()
    order_teaching(judge)
    with pytest.raises(TeachingRefused, match="is being taught already; wait for job"):
        order_teaching(judge)
    monkeypatch.setenv("ZELO_ENDPOINTS", "[]")
    with pytest.raises(TeachingRefused, match=r"is not available: .*'fake'"):
        order_teaching(make_judge(project, "another"))
    assert JudgeTeaching.objects.count() == 1


def test_a_cap_stops_the_teaching_before_it_is_overspent() -> None:
    project = answered_project(queries=12, pairs=1)
    judge = make_judge(project, "learner")
    change_caps(project, {"calls": 11})
    teaching = teach_now(judge, TeachingOptions(examples=2))
    assert (
        teaching.job.state == "failed" and "CapReached" in teaching.job.error and "raise it first" in teaching.job.error
    )
    assert teaching.calls == 8 <= 11 and len(teaching.rows) == 4
    change_caps(project, {"calls": 8})
    with pytest.raises(TeachingRefused, match="cap of 8 calls is spent"):
        order_teaching(judge)


def test_a_judge_that_answers_nothing_costs_a_handful_of_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teaching_job, "CALLS_AT_ONCE", 5)
    teaching = teach_now(make_judge(answered_project(queries=40, pairs=1), "broken"), TeachingOptions())
    assert (teaching.report["verdict"], teaching.calls) == (FAILS, 10)
    assert "the judge without examples answered none of the first 5 questions: " in reason_of(teaching)


def test_a_worker_that_takes_over_asks_only_the_rest(fake: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    project = answered_project(queries=40, pairs=1)
    teaching = order_teaching(make_judge(project, "learner"), TeachingOptions(examples=3))
    before = fake.summary()["calls"]
    report, seen = leasing.report_progress, []

    def crash(claim: Any, done: int, total: int) -> None:
        report(claim, done, total)
        seen.append(done)
        if done:
            raise leasing.LeaseLost("the worker was killed")

    monkeypatch.setattr(teaching_job, "report_progress", crash)
    run_teaching(teaching.job_id, worker="w@host:1")
    monkeypatch.setattr(teaching_job, "report_progress", report)
    # The project goes on meanwhile; the questions stay those that were chosen.
    GoldAnswer.objects.all().delete()
    Job.objects.filter(pk=teaching.job_id).update(lease_until="2026-01-01T00:00Z")
    run_teaching(teaching.job_id, worker="w@host:2")
    teaching.refresh_from_db()
    assert seen == [0, 16] and teaching.report["verdict"] == BETTER and len(teaching.rows) == 20
    assert teaching.calls == fake.summary()["calls"] - before == 40
    assert Annotator.objects.judges().filter(project=project).count() == 2


def test_the_command_prints_both_judges_and_the_advice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(teach_judge, "database", contextlib.nullcontext)
    project = answered_project(queries=24, pairs=1)
    make_judge(project, "learner")
    said = StringIO()
    saved = tmp_path / "taught.json"
    call_command("teach_judge", project.slug, "learner", "--examples", "4", "--save", str(saved), stdout=said)
    taught = JudgeTeaching.objects.get().taught
    again = make_judges(project, read_judges({"judges": [], "judges_file": saved}))
    assert again == [taught]
    assert taught is not None and f"Use judge {taught.pk}" in said.getvalue()
    assert "4 examples in the prompt. The taught judge is better: it agrees" in said.getvalue()
    with pytest.raises(CommandError, match=r"0 judges match 'none'; choose one of: .*learner"):
        call_command("teach_judge", project.slug, "none", stdout=said)
    with pytest.raises(CommandError, match="examples"):
        call_command("teach_judge", project.slug, "learner", "--examples", "99", stdout=said)


def test_page_and_rest_order_a_teaching_and_show_the_verdict(client: Client) -> None:
    project = answered_project(queries=24, pairs=1)
    judge = make_judge(project, "learner")
    client.force_login(make_user(is_superuser=True))
    wrong = client.post(f"/p/{project.slug}/teachings/", {"judge": judge.pk, "examples": "99", "pairs": "6"})
    assert wrong.status_code == 422 and not JudgeTeaching.objects.exists()
    made = client.post(
        f"/api/v1/projects/{project.slug}/judges/{judge.pk}/teachings", {"examples": 3}, content_type="application/json"
    )
    assert made.status_code == 201 and made.json()["state"] == "open" and made.json()["report"] == {}
    address = f"/p/{project.slug}/teachings/{made.json()['id']}/"
    assert "Choosing the examples" in client.get(address).content.decode()
    run_teaching(made.json()["job_id"], worker="w@host:1")
    found = client.get(f"/api/v1/projects/{project.slug}/teachings/{made.json()['id']}").json()
    assert found["report"]["verdict"] == BETTER and found["report"]["reason"].startswith("the taught judge is better")
    assert found["taught"]["plugin"] == "openai-http" and len(found["taught"]["options"]["examples"]) == 3
    assert len(found["rows"]) == found["report"]["pairs"] == 12
    page = client.get(f"/p/{project.slug}/teachings/").content.decode()
    assert f"Use “learner + 3 examples ({found['id']})” in the next run." in page and "3 examples in the prompt" in page
    assert "People prefer A." in page and "People prefer B." in page and KEY not in page
    answer = client.post(
        f"/p/{project.slug}/teachings/", {"judge": judge.pk, "examples": "2", "pairs": "6"}, follow=True
    )
    assert "Teaching of learner started." in answer.content.decode()


def test_a_cancelled_teaching_asks_nothing_more() -> None:
    project = answered_project(queries=12, pairs=2)
    teaching = order_teaching(make_judge(project, "learner"), TeachingOptions(examples=2, pairs=12))
    assert cancel_teaching(teaching) and not cancel_teaching(teaching)
    assert waiting_teaching_ids() == []
    run_teaching(teaching.job_id, worker="w@host:1")
    teaching.refresh_from_db()
    assert (teaching.job.state, teaching.calls, teaching.rows) == ("cancelled", 0, [])
