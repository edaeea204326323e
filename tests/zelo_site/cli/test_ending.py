"""How commands that ask judges end: interrupted, or without answers; what they leave, and their exit codes."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from labeling.models import Annotator, Judgment, Project
from tests.factories.http_panel import KEY, define_endpoints, make_texts, work_off
from tests.fake_judge.process import FakeJudge, running_fake_judge
from tests.processes.installation import manage, own_environment
from workers.jobs.leasing import INTERRUPTED
from workers.jobs.trial import waiting_trial_ids
from workers.models import JudgeTrial, Run
from zelo_site.management.commands import run as run_command

pytestmark = pytest.mark.django_db(transaction=True)

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeJudge]:
    with running_fake_judge(
        tmp_path_factory.mktemp("ending") / "ledger.jsonl", "--seed", "5", "--api-key", KEY
    ) as judge:
        judge.set_judge("broken", fault_rates={"null_logprobs": 1.0})
        judge.set_judge("hanging", fault_rates={"hang": 1.0})
        yield judge


@pytest.fixture
def environment(fake: FakeJudge, tmp_path: Path) -> dict[str, str]:
    """That of a command on the tests' database, with a home of its own."""
    home = tmp_path / "home"
    home.mkdir()
    options = connection.settings_dict
    endpoint = {"name": "fake", "base_url": fake.base_url, "api_key_env": "FAKE_KEY", "limits_per_model": True}
    return own_environment(home) | {
        "DATABASE_URL": f"postgres://{options['USER']}@{quote(options['HOST'], safe='')}/{options['NAME']}",
        "BROKER_URL": settings.CELERY_BROKER_URL,
        "ZELO_ENDPOINTS": json.dumps([endpoint]),
        "FAKE_KEY": KEY,
    }


def judge_of(model: str) -> str:
    return "openai-http:" + json.dumps({"endpoint": "fake", "model": model})


def interrupt(process: subprocess.Popen[str], when: Callable[[], bool]) -> str:
    """Send Ctrl-C once `when` holds; returns all output."""
    deadline = time.monotonic() + PATIENCE_S
    while not when():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=PATIENCE_S)[0]


def test_a_run_that_is_interrupted_is_paused_and_its_command_says_how_to_resume_it(environment: dict[str, str]) -> None:
    project = make_texts(documents=6)
    command = manage(environment, "run", "--project", project.slug, "--judges", judge_of("fine"))
    said = interrupt(command, Run.objects.filter(project=project).exists)
    run = Run.objects.get(project=project)
    assert (command.returncode, run.state) == (130, Run.State.PAUSED), said
    assert f"stopped; run {run.pk} is paused: resume it on the page of project {project.slug}" in said
    assert "Traceback" not in said


def test_a_trial_that_is_interrupted_has_failed_and_is_not_paid_for_again(
    environment: dict[str, str], fake: FakeJudge
) -> None:
    project = make_texts(queries=2, documents=4)
    command = manage(environment, "try_judge", project.slug, "--judges", judge_of("hanging"))
    said = interrupt(command, lambda: fake.summary()["in_flight"] > 1)  # this question is one itself
    trial = JudgeTrial.objects.select_related("job").get(project=project)
    assert command.returncode == 130 and "Traceback" not in said, said
    assert (trial.job.state, trial.job.error) == ("failed", INTERRUPTED)
    assert trial.calls > 0 and waiting_trial_ids() == []


@pytest.mark.parametrize(
    ("models", "state", "answers"), [(["broken"], Run.State.FAILED, 0), (["broken", "fine"], Run.State.FINISHED, 6)]
)
def test_a_run_without_the_answers_of_a_judge_exits_with_an_error_that_says_why(
    fake: FakeJudge, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], models: list[str],
    state: str, answers: int,
) -> None:  # fmt: skip
    define_endpoints(monkeypatch, fake, {"limits_per_model": True})
    project = make_texts(documents=4)
    monkeypatch.setattr(run_command, "working", lambda: contextlib.nullcontext(lambda: work(project)))
    arguments = ["--judges", *map(judge_of, models), "--sampler", "all"]
    with pytest.raises(
        CommandError, match=r"finished without answers of .*the reply holds no log-probabilities"
    ) as end:
        call_command("run", "--project", project.slug, *arguments)
    run = Run.objects.get(project=project)
    assert (end.value.returncode, run.state, Judgment.objects.count()) == (1, state, answers)
    assert "is paused: its trial failed: none of the first 5 questions" in capsys.readouterr().out


def work(project: Project) -> None:
    work_off(Run.objects.get(project=project), list(Annotator.objects.judges().filter(project=project)), rounds=1)


def test_the_progress_of_a_run_that_has_ended_shows_how_long_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    project = make_texts(documents=4)
    now = timezone.now()
    Run.objects.create(
        project=project, state=Run.State.FINISHED, pairs_planned=600, tasks_planned=600,
        started_at=now - timedelta(hours=1), finished_at=now - timedelta(minutes=50),
    )  # fmt: skip
    call_command("progress", project.slug)
    assert "600 judgments on 600 pairs in 10 min (1/s)" in capsys.readouterr().out
