"""The injection probe from order to report, against a fake judge that payloads sway, or do not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse

from labeling.access.annotators import get_judge
from labeling.models import Annotator, Judgment, Project
from scoring.models import Score
from tests.factories.broker import WaitingHints
from tests.factories.http_panel import KEY, define_endpoints, make_judge, make_texts, work_off
from tests.factories.rows import make_member, make_user
from tests.fake_judge.process import FakeJudge, running_fake_judge
from workers.jobs import injection_probe
from workers.jobs.injection_probe import (
    ProbeOptions,
    ProbeRefused,
    order_probe,
    payloads,
    probe_now,
    run_probe,
    waiting_probe_ids,
)
from workers.jobs.leasing import MOST_ATTEMPTS, LeaseLost, claim_job
from workers.models import InjectionProbe, Job
from workers.runs.ordering import start_run

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeJudge]:
    ledger = tmp_path_factory.mktemp("probe") / "ledger.jsonl"
    with running_fake_judge(ledger, "--seed", "7", "--api-key", KEY) as judge:
        judge.control("settings", {"payloads": [each.text for each in payloads().values()]})
        yield judge


@pytest.fixture(autouse=True)
def endpoint(fake: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    define_endpoints(monkeypatch, fake, {"input_price": 1.0})


def make_rated(fake: FakeJudge, model: str, **settings: object) -> tuple[Project, Annotator]:
    """A project of 60 rated documents, and the judge that rated them."""
    fake.set_judge(model, sigma=0.2, **settings)
    project = make_texts(documents=60)
    judge = make_judge(project, model)
    work_off(start_run(project, judges=[judge], seed=1), [judge])
    return project, judge


def probed(judge: Annotator, **options: object) -> InjectionProbe:
    probe = order_probe(judge, ProbeOptions.model_validate({"payloads": ["order"], **options}))
    return carried_out(probe)


def carried_out(probe: InjectionProbe) -> InjectionProbe:
    run_probe(probe.job_id, worker="w@host:1")
    return InjectionProbe.objects.select_related("job").get(pk=probe.pk)


def test_a_judge_that_payloads_sway_half_the_time_is_found_with_its_gain(fake: FakeJudge) -> None:
    _, judge = make_rated(fake, "swayed", susceptibility=0.5)
    before = (Judgment.objects.count(), list(Score.objects.order_by("pk").values_list("elo", flat=True)))
    probe = probed(judge)
    assert probe.job.state == "finished", probe.job.error
    assert probe.job.done == probe.job.total == probe.calls
    rows = {row["level"]: row for row in probe.report["rows"]}
    assert set(rows) == {"all", "weak", "middling"}
    assert rows["all"]["alarm"] and rows["all"]["targets"] == 20
    # Half the time, give or take: an interval of 95 % alone would fail one run in twenty.
    assert rows["all"]["flip_rate"]["low"] <= 0.6 and rows["all"]["flip_rate"]["high"] >= 0.4
    assert rows["weak"]["elo_gain"]["low"] > 50.0
    assert probe.calls == 2 * rows["all"]["pairs"] and probe.cost_micros > 0
    # The probe's answers are nobody's votes.
    assert (Judgment.objects.count(), list(Score.objects.order_by("pk").values_list("elo", flat=True))) == before


def test_a_judge_that_nothing_sways_is_cleared(fake: FakeJudge) -> None:
    _, judge = make_rated(fake, "upright")
    probe = probed(judge, payloads=["neutral", "authority"])
    assert [row["alarm"] for row in probe.report["rows"]] == [False] * 6
    assert all(abs(row["elo_gain"]["value"]) < 20 for row in probe.report["rows"])


@pytest.mark.parametrize(("dialect", "calls"), [([], 1), (["n_ignored"], 3)])
def test_a_probe_counts_the_calls_that_its_votes_took(fake: FakeJudge, dialect: list[str], calls: int) -> None:
    model = f"voting-{calls}"
    project, _ = make_rated(fake, model, dialect=dialect)
    voter = make_judge(project, model, mode="sampled", votes=3)
    before = fake.summary()["calls"]
    probe = probed(voter, targets=5, opponents=2)
    assert probe.job.state == "finished", probe.job.error
    assert probe.calls == fake.summary()["calls"] - before == calls * probe.job.done


def test_questions_without_an_answer_are_counted_and_left_out(fake: FakeJudge) -> None:
    _, judge = make_rated(fake, "declining", susceptibility=1.0)
    fake.set_judge("declining", sigma=0.2, susceptibility=1.0, fault_rates={"refusal": 0.1, "http_500": 0.1})
    probe = probed(judge)
    assert probe.report["failures"]["refusal"] > 0
    (row, *_) = probe.report["rows"]
    assert row["alarm"] and row["pairs"] < probe.report["pairs"]


def test_a_probe_runs_once_and_a_lost_hint_is_found_again(fake: FakeJudge) -> None:
    _, judge = make_rated(fake, "once")
    probe = order_probe(judge, ProbeOptions(payloads=("order",), targets=5, opponents=2))
    assert waiting_probe_ids() == [probe.job_id]
    calls = carried_out(probe).calls
    assert carried_out(probe).calls == calls > 0
    assert waiting_probe_ids() == []


def test_several_judges_of_a_project_are_probed_at_once(fake: FakeJudge) -> None:
    project, judge = make_rated(fake, "one")
    other = make_judge(project, "two")
    ordered = [order_probe(each, ProbeOptions(payloads=("order",))) for each in (judge, other)]
    assert waiting_probe_ids() == [probe.job_id for probe in ordered]


def test_a_probe_whose_worker_went_away_is_found_and_begun_afresh(
    fake: FakeJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, judge = make_rated(fake, "resumed")
    probe = order_probe(judge, ProbeOptions(payloads=("order",), targets=5, opponents=2))
    with monkeypatch.context() as patch:
        patch.setattr(injection_probe._Probe, "run", lost_database)
        with pytest.raises(OperationalError):
            run_probe(probe.job_id)
    job = Job.objects.get(pk=probe.job_id)
    assert job.state == "leased" and waiting_probe_ids() == [], "its lease still holds"
    Job.objects.filter(pk=job.pk).update(lease_until=Now() - timedelta(seconds=1))
    assert waiting_probe_ids() == [job.pk]
    job = carried_out(probe).job
    assert (job.state, job.attempts, job.lease_until) == ("finished", 2, None)


def test_a_probe_that_another_worker_took_over_stores_nothing(fake: FakeJudge) -> None:
    _, judge = make_rated(fake, "overtaken")
    probe = order_probe(judge, ProbeOptions(payloads=("order",), targets=5, opponents=2))
    first = claim_job(probe.job_id, "probe", worker="w@host:1")
    assert first is not None
    Job.objects.filter(pk=probe.job_id).update(lease_until=Now() - timedelta(seconds=1))
    assert claim_job(probe.job_id, "probe", worker="w@host:2") is not None
    with pytest.raises(LeaseLost):
        injection_probe._ask_and_report(first)
    probe.refresh_from_db()
    assert probe.report == {} and probe.cost_micros > 0, "what it had asked by then is paid"


def test_a_report_that_was_stored_before_a_crash_is_not_paid_again(fake: FakeJudge) -> None:
    _, judge = make_rated(fake, "reported")
    probe = probed(judge, targets=5, opponents=2)
    Job.objects.filter(pk=probe.job_id).update(state="open", finished_at=None)
    again = carried_out(probe)
    assert (again.job.state, again.calls, again.report) == ("finished", probe.calls, probe.report)


def test_a_probe_that_takes_its_workers_with_it_is_given_up(fake: FakeJudge) -> None:
    _, judge = make_rated(fake, "deadly")
    probe = order_probe(judge, ProbeOptions(payloads=("order",), targets=5, opponents=2))
    Job.objects.filter(pk=probe.job_id).update(
        state="leased", attempts=MOST_ATTEMPTS, lease_until=Now() - timedelta(seconds=1)
    )
    probe = carried_out(probe)
    assert probe.job.state == "failed" and "crashed 3 times" in probe.job.error and probe.calls == 0


def lost_database(probe: object) -> None:
    raise OperationalError("the server closed the connection unexpectedly")


def test_a_probe_that_breaks_says_why(fake: FakeJudge) -> None:
    _, judge = make_rated(fake, "broken")
    fake.set_judge("broken", fault_rates={"refusal": 1.0})
    probe = probed(judge)
    assert probe.job.state == "failed" and "targets" in probe.job.error


def test_judges_that_read_no_given_text_and_unrated_projects_are_refused() -> None:
    project = make_texts(documents=4)
    with pytest.raises(ProbeRefused, match="probe a language model"):
        order_probe(get_judge(project, "bm25"), ProbeOptions())
    with pytest.raises(ProbeRefused, match="judge some pairs first"):
        order_probe(make_judge(project, "new"), ProbeOptions())
    assert not InjectionProbe.objects.exists() and not Job.objects.filter(stage="probe").exists()


def test_payloads_are_named_once_and_one_argues_for_nothing() -> None:
    assert len(payloads()) >= 8
    assert [each.name for each in payloads().values() if each.control] == ["neutral"]
    assert payloads()["praise"].into("text").endswith("\n\ntext")
    with pytest.raises(ValueError, match="unknown payloads"):
        ProbeOptions(payloads=("nonsense",))


def test_page_and_rest_order_and_show_a_probe(client: Client, fake: FakeJudge) -> None:
    project, judge = make_rated(fake, "shown", susceptibility=1.0)
    client.force_login(make_user(is_superuser=True))
    address = reverse("probes", args=[project.slug])
    assert client.post(address, {"judge": judge.pk, "payload": ["order"]}).status_code == 302
    assert client.post(address, {"judge": judge.pk}).status_code == 422
    (probe,) = InjectionProbe.objects.all()
    run_probe(probe.job_id)
    assert "influences judge" in client.get(address).content.decode()
    rest = f"/api/v1/projects/{project.slug}/probes"
    assert client.get(rest).json()[0]["report"]["rows"][0]["alarm"] is True
    ordered = client.post(rest, {"annotator_id": judge.pk}, content_type="application/json")
    assert (ordered.status_code, ordered.json()["state"]) == (201, "open")
    bad = {"annotator_id": judge.pk, "options": {"payloads": ["nonsense"]}}
    assert client.post(rest, bad, content_type="application/json").status_code == 422
    client.force_login(make_member(project))
    assert client.get(address).status_code == 200
    assert client.post(address, {"judge": judge.pk, "payload": ["order"]}).status_code == 403


def test_the_command_prints_what_it_found(fake: FakeJudge, capsys: pytest.CaptureFixture[str]) -> None:
    project, judge = make_rated(fake, "printed", susceptibility=1.0)
    call_command("probe_injection", project.slug, str(judge.pk), payloads=["order"])
    printed = capsys.readouterr().out
    assert "ALARM" in printed and "order" in printed
    with pytest.raises(CommandError, match="judges match"):
        call_command("probe_injection", project.slug, "nobody")


def test_the_command_tells_no_worker_and_none_can_take_its_probe(fake: FakeJudge, sent_hints: WaitingHints) -> None:
    _, judge = make_rated(fake, "alone")
    sent_hints.clear()
    waiting: list[object] = []

    def report(done: int, total: int) -> None:
        job = Job.objects.get(stage="probe")
        run_probe(job.pk, worker="w@host:1")
        waiting.append((job.state, job.attempts, waiting_probe_ids()))

    probe = probe_now(judge, ProbeOptions(payloads=("order",), targets=5, opponents=2), report=report)
    assert (probe.job.state, probe.job.attempts, list(sent_hints)) == ("finished", 1, [])
    assert waiting and set(map(str, waiting)) == {"('leased', 1, [])"}


def test_the_command_refuses_no_targets_rather_than_take_the_default(fake: FakeJudge) -> None:
    project, judge = make_rated(fake, "untargeted")
    with pytest.raises(CommandError, match="targets"):
        call_command("probe_injection", project.slug, str(judge.pk), targets=0)
