"""What tests of batches at a provider share: a judge whose questions go out in batches, and a worker's loop."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.db.models.functions import Now

from labeling.models import Annotator, Project
from scoring.rating import rate_stale
from tests.factories.http_panel import define_endpoints, make_judge, make_texts
from tests.fake_judge.process import FakeJudge
from workers.judging import batches, trouble
from workers.judging.provider_batches import following
from workers.models import JudgingTask, ProviderBatch, Run
from workers.runs.advancing import advance
from workers.runs.ordering import start_run

LONGEST_WAIT_S = 0.25  # longer than a poll of FAST
FAST = {"batch_poll_s": 0.1, "batch_wait_s": 0.0, "input_price": 100.0, "output_price": 400.0}


def batch_run(
    monkeypatch: pytest.MonkeyPatch,
    fake: FakeJudge,
    *,
    documents: int = 6,
    endpoint: Any = None,
    trial: int = 25,
    **order: Any,
) -> tuple[Run, Annotator]:
    """A run over all pairs of one query, whose judge wants its questions in batches; `trial`: size of its first batch."""
    monkeypatch.setattr(trouble, "TRIAL", trial)
    monkeypatch.setattr(trouble, "PROVEN", 1)
    monkeypatch.setattr(
        following, "BYTES_A_SECOND", 8_000.0
    )  # on a busy machine an upload takes longer than `batch_poll_s`
    define_endpoints(monkeypatch, fake, {**FAST, **(endpoint or {})})
    project: Project = make_texts(documents=documents)
    judge = make_judge(project, "batched", delivery="batch")
    return start_run(project, judges=[judge], **{"sampler": "all", "seed": 1, **order}), judge


def step(run: Run, judge: Annotator) -> None:
    """One round of what the workers do; nothing waits for its retry."""
    advance(run.pk)
    JudgingTask.objects.filter(run=run, state="open").update(next_at=Now())
    batches.judge_open(judge.pk, worker="w@host:1")
    rate_stale(run.project_id)
    skip_waits()


def skip_waits() -> None:
    """Long waits of batches, after an error or for what may be on its way to the provider, are over now: the clock of
    their rows goes forward. The fake provider has received a request as soon as its caller has an answer or an error."""
    for batch in ProviderBatch.objects.filter(
        state__in=ProviderBatch.OUT, next_at__gt=Now() + timedelta(seconds=LONGEST_WAIT_S)
    ):
        wait = ProviderBatch.objects.values_list(F("next_at") - Now(), flat=True).get(pk=batch.pk)
        changes = {} if batch.intended_at is None else {"intended_at": batch.intended_at - wait}
        ProviderBatch.objects.filter(pk=batch.pk).update(next_at=batch.next_at - wait, **changes)


def work_until(run: Run, judge: Annotator, *, limit_s: float = 90.0, until: Any = None) -> Run:
    """Work until the run has ended, or until `until()`."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        step(run, judge)
        run.refresh_from_db()
        if until() if until is not None else run.state not in Run.ACTIVE:
            return run
        time.sleep(0.03)
    rows = list(ProviderBatch.objects.values("state", "message", "provider_status", "tries"))
    raise AssertionError(f"run {run.pk} is still {run.state}: {rows}")


def out() -> ProviderBatch:
    """The one batch that is at the provider."""
    return ProviderBatch.objects.get(state__in=ProviderBatch.OUT)
