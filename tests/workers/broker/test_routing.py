"""Which worker a question waits for: judges say what they need, and each queue has its own worker."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from celery import current_app
from django.core.management import CommandError, call_command

from labeling import plugins
from labeling.plugin_checks import check_plugin
from tests.factories.broker import WaitingHints
from tests.factories.rows import make_judges, make_project, make_tasks
from tests.factories.stubs.plugins import LongerJudge
from workers import stopping
from workers.broker.hints import leave_hint
from workers.broker.routing import QUEUES, judging_queue
from workers.judging import batches, queue
from workers.management.commands import worker
from workers.models import JudgingTask
from workers.monitoring import gpus
from zelo_site.processes import stack

pytestmark = pytest.mark.usefixtures("stub_plugins")


class RemoteJudge(LongerJudge):
    """Prefers the longer document, from afar."""

    name = "test-remote"
    resource = "http"


@pytest.mark.parametrize(
    ("plugin", "expected"),
    [
        ("bm25", "judging-cpu"),
        ("embedding", "judging-cpu"),
        ("transformers-local", "judging-gpu"),
        ("openai-http", "judging-http"),
        ("not-installed", "judging-cpu"),
    ],
)
def test_judges_are_asked_where_their_resource_is(plugin: str, expected: str) -> None:
    assert judging_queue(plugin) == expected
    assert expected in QUEUES


@pytest.mark.django_db
def test_hints_follow_the_judge(sent_hints: WaitingHints, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plugins._registry, ("judge", "test-remote"), RemoteJudge)
    project = make_project(queries=1)
    near, far = make_judges(project)[0], make_judges(project, plugin="test-remote")[0]
    for judge in (near, far):
        assert leave_hint("judge", judge.pk)
    leave_hint("rate", project.pk)
    assert sent_hints.queues() == [("judge", "judging-cpu"), ("judge", "judging-http"), ("rate", "rating")]


def test_every_task_that_no_judge_decides_has_its_queue_in_the_settings() -> None:
    current_app.loader.import_default_modules()
    names = [name for name in current_app.tasks if name.startswith("workers.")]
    assert {"workers.tasks.judge", "workers.tasks.rate"} <= set(names)
    for name in names:
        assert current_app.amqp.router.route({}, name)["queue"].name in QUEUES


@pytest.mark.parametrize(
    ("queues", "expected"),
    [
        (["rating"], ["--pool", "solo"]),
        (["judging-http"], ["--pool", "threads", "--concurrency", "8"]),
        (["judging-gpu"], ["--pool", "prefork", "--concurrency", "1"]),
        (["rating", "judging-http"], ["--pool", "threads", "--concurrency", "8"]),
    ],
)
def test_queues_are_served_by_a_pool_that_suits_them(queues: list[str], expected: list[str]) -> None:
    assert worker.pool_arguments([QUEUES[name] for name in queues], 0) == expected


def test_one_worker_serves_several_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(worker.os, "execv", lambda _, command: commands.append(command))
    call_command("worker", "judging-cpu", "judging-gpu", "judging-cpu", "--concurrency", "3", "--name", "east")
    (command,) = commands
    assert command[command.index("-Q") + 1] == "judging-cpu,judging-gpu"
    assert command[command.index("-n") + 1] == "east@%h"
    assert command[-2:] == ["--concurrency", "3"]
    with pytest.raises(CommandError, match="invalid choice: 'judging'"):
        call_command("worker", "judging")


@pytest.mark.parametrize("with_gpu", [True, False])
def test_the_stack_serves_every_queue_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, with_gpu: bool) -> None:
    if with_gpu:
        tool = tmp_path / "nvidia-smi"
        tool.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 81559, 12, 0'\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    served = [name for child in stack.worker_processes() for name in child.command if name in QUEUES]
    assert sorted(served) == sorted(QUEUES)
    assert ("judging-gpu" in {child.name for child in stack.worker_processes()}) is with_gpu


def test_a_gpu_that_is_hidden_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not gpus.has_gpu()


@pytest.mark.django_db
def test_worker_that_is_told_to_stop_hands_back_what_it_has_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    class StoppedJudge(LongerJudge):
        """Its worker is told to stop while it answers the first batch."""

        name = "test-stopped"

        def judge(self, comparisons: Any) -> Any:
            stopping.note_stopping()
            return super().judge(comparisons)

    monkeypatch.setitem(plugins._registry, ("judge", StoppedJudge.name), StoppedJudge)
    tasks = make_tasks(6)
    judge = tasks[0].annotator
    type(judge).objects.filter(pk=judge.pk).update(plugin=StoppedJudge.name)
    judge.refresh_from_db()
    monkeypatch.setattr(batches, "STORED_AT_ONCE", 2)
    claimed = queue.claim(annotator_id=judge.pk, worker="w@host:1", limit=6)
    try:
        assert batches.judge_claimed(judge, claimed) == 2
        assert set(JudgingTask.objects.values_list("state", "attempts")) == {("open", 0)}
        assert batches.judge_open(judge.pk, worker="w@host:1") == 0
    finally:
        stopping.note_stopping(False)
    assert JudgingTask.objects.count() == 4


def test_processes_of_the_pool_hear_that_the_worker_stops() -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(reading, 1)
        os._exit(7 if stopping.is_stopping() else 1)
    try:
        stopping.note_stopping()
        os.write(writing, b"!")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    finally:
        stopping.note_stopping(False)
        os.close(reading)
        os.close(writing)


def test_a_judge_with_an_unknown_resource_is_told_by_the_conformance_suite() -> None:
    class Odd(LongerJudge):
        """Longer, from the moon."""

        name = "test-odd-resource"
        resource = "moon"  # type: ignore[assignment]

    assert any("resource is 'moon'" in violation for violation in check_plugin(Odd))
