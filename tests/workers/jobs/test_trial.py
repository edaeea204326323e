"""Trials of judges: what is asked, what is shown without keys, the verdict, and the calls that are counted."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from io import StringIO
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from labeling.models import Candidate, Document, Judgment, Pair
from tests.factories.http_panel import KEY, define_endpoints, make_judge, make_texts
from tests.factories.rows import make_user
from tests.fake_judge.process import FakeJudge, running_fake_judge
from workers.budgets.spend import totals_of_project
from workers.jobs.trial import choose_questions, order_trial, reason_of, run_trial, try_now
from workers.jobs.trial_verdict import DOUBTFUL, FAILS, WORKS, Tried, verdict_on
from workers.models import Attempt, JudgeTrial
from zelo_site.cli.management.commands import try_judge

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeJudge]:
    ledger = tmp_path_factory.mktemp("trial") / "ledger.jsonl"
    with running_fake_judge(ledger, "--seed", "5", "--api-key", KEY) as judge:
        judge.set_judge("broken", fault_rates={"null_logprobs": 1.0})
        yield judge


@pytest.fixture(autouse=True)
def endpoint(fake: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    define_endpoints(monkeypatch, fake, {"input_price": 1.0, "limits_per_model": True})


def tried(*preferences: float | None, known: float | None = None, swapped: Any = None) -> list[Tried]:
    return [
        Tried("refusal" if p is None else "preference", "no", p, place % 2 == 1 if swapped is None else swapped, known)
        for place, p in enumerate(preferences)
    ]


@pytest.mark.parametrize(
    ("answers", "verdict", "says"),
    [
        (tried(None, None, None), FAILS, "none of 3 questions was answered: no"),
        (tried(0.9, None, None), FAILS, "2 of 3 questions were not answered"),
        (tried(0.9, 0.2, None), DOUBTFUL, "1 of 3 questions were not answered"),
        (tried(0.9, 0.1, 0.9, 0.1, 0.9), DOUBTFUL, "it preferred the document shown first in all 5 answers"),
        (tried(0.1, 0.9, 0.1, 0.9, 0.1), DOUBTFUL, "it preferred the document shown second in all 5 answers"),
        (tried(0.5, 0.5, 0.5, 0.5, 0.5), DOUBTFUL, "it called all 5 pairs a tie"),
        (tried(0.1, 0.2, 0.9, known=1.0), DOUBTFUL, "it agrees with 1 of 3 known answers"),
        (tried(0.9, 0.8, 0.1, known=1.0), WORKS, "it answered all 3 questions, and agrees with 2 of 3 known answers"),
        (tried(0.9, 0.9, 0.2, 0.1, 0.9), WORKS, "it answered all 5 questions"),
    ],
)
def test_the_verdict_follows_from_the_answers(answers: list[Tried], verdict: str, says: str) -> None:
    found = verdict_on(answers)
    assert found.verdict == verdict and found.reason.startswith(says)


def test_a_trial_asks_real_and_known_pairs_and_shows_all_but_the_key(fake: FakeJudge, client: Client) -> None:
    project = make_texts(queries=4, documents=6)
    for place, candidate in enumerate(Candidate.objects.order_by("id")):
        Candidate.objects.filter(pk=candidate.pk).update(grade=place % 3)
    judge = make_judge(project, "fine")
    before = fake.summary()["calls"]
    trial = order_trial(judge)
    run_trial(trial.job_id, worker="w@host:1")
    client.force_login(make_user(is_superuser=True))
    found = client.get(f"/api/v1/projects/{project.slug}/trials/{trial.pk}").json()
    rows = found["report"]["rows"]
    assert found["state"] == "finished" and found["calls"] == len(rows) == 10 == fake.summary()["calls"] - before
    assert sum(row["known"] is not None for row in rows) >= 5
    assert {row["swapped"] for row in rows} == {True, False}
    (call,) = rows[0]["exchanges"]
    assert json.loads(call["request"])["model"] == "fine" and rows[0]["a"] in call["request"]
    assert call["status"] == 200 and "choices" in json.loads(call["reply"])
    assert rows[0]["preference"] is not None and rows[0]["cost_micros"] > 0 and rows[0]["latency_s"] > 0
    page = client.get(f"/p/{project.slug}/trials/").content.decode()
    assert KEY not in json.dumps(found) + page and "Raw answer" in page
    assert not Judgment.objects.exists() and not Pair.objects.exists() and not Attempt.objects.exists()
    assert totals_of_project(project.pk).cost_micros == found["cost_micros"] > 0
    try_now(judge)
    trial.refresh_from_db()
    assert all(row["exchanges"] == [] for row in trial.report["rows"]), "only the latest keeps its raw answers"


def test_a_judge_that_fails_is_not_asked_everything_and_says_why(fake: FakeJudge) -> None:
    trial = try_now(make_judge(make_texts(queries=2, documents=4), "broken"))
    assert (trial.report["verdict"], trial.calls) == (FAILS, 5)
    assert reason_of(trial).startswith("none of 5 questions was answered: the reply holds no log-probabilities")
    assert "use the mode 'sampled' or 'reasoned'" in reason_of(trial)
    assert '"logprobs": null' in trial.report["rows"][0]["exchanges"][0]["reply"]


@pytest.mark.parametrize(("dialect", "calls"), [([], 1), (["n_ignored"], 5)])
def test_calls_are_those_that_were_made_whether_or_not_the_endpoint_gives_all_votes_at_once(
    fake: FakeJudge, dialect: list[str], calls: int
) -> None:
    model = f"voter-{calls}"
    fake.set_judge(model, dialect=dialect)
    judge = make_judge(make_texts(queries=2, documents=4), model, mode="sampled", votes=5)
    before = fake.summary()["calls"]
    trial = try_now(judge)
    assert trial.report["verdict"] != FAILS, reason_of(trial)
    assert trial.calls == fake.summary()["calls"] - before == calls * len(trial.report["rows"])
    assert totals_of_project(judge.project_id).calls == trial.calls


def test_the_command_prints_the_verdict_and_exits_with_an_error_where_a_judge_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(try_judge, "database", contextlib.nullcontext)
    project = make_texts(queries=2, documents=4)
    said = StringIO()
    options = '{"endpoint": "fake", "model": "MODEL"}'
    call_command(
        "try_judge", project.slug, "--judges", f"openai-http:{options.replace('MODEL', 'fine')}", "--raw", stdout=said
    )
    assert "5 calls, " in said.getvalue() and '"messages"' in said.getvalue()
    with pytest.raises(CommandError, match="the test failed"):
        call_command(
            "try_judge", project.slug, "--judges", f"openai-http:{options.replace('MODEL', 'broken')}", stdout=said
        )
    reason = "fails: none of 5 questions was answered: the reply holds no log-probabilities"
    assert reason in said.getvalue() and "use the mode 'sampled' or 'reasoned'" in said.getvalue()
    assert JudgeTrial.objects.count() == 2 and KEY not in said.getvalue()


def test_no_question_is_about_two_equal_texts(fake: FakeJudge) -> None:
    """Whatever their grades say, only the position could decide it."""
    project = make_texts(queries=2, documents=3)
    for query in project.queries.all():
        first, second, third = query.candidates.order_by("id")
        Document.objects.filter(pk=second.document_id).update(text=f"{first.document.text}\n")
        for candidate, grade in ((first, 0), (second, 3), (third, 3)):
            Candidate.objects.filter(pk=candidate.pk).update(grade=grade)
    judge = make_judge(project, "fine")
    for seed in range(5):
        asked = choose_questions(judge, np.random.default_rng(seed))
        assert any(each.known is not None for each in asked)
        assert all(each.comparison.a.text.strip() != each.comparison.b.text.strip() for each in asked)
    Document.objects.filter(project=project).update(text="the same")
    trial = order_trial(judge)
    run_trial(trial.job_id, worker="w@host:1")
    trial.job.refresh_from_db()
    assert trial.job.state == "failed" and "different texts" in trial.job.error
