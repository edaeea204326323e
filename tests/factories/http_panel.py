"""What tests of whole runs over HTTP share: an endpoint that leads to the fake judge, judges, and a worker's loop."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from django.db.models.functions import Now

from labeling.access.annotators import get_judge
from labeling.models import Annotator, Candidate, Document, Project, Query
from labeling.projects import create_project
from scoring.rating import rate_stale
from tests.fake_judge.process import FakeJudge
from workers.judging import batches
from workers.models import JudgingTask, Run
from workers.runs.advancing import advance

KEY = "sk-very-secret-0123456789"
WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "jetty", "knoll", "ledge"]
WORDS += ["marsh", "north", "orbit", "prism"]


def define_endpoints(monkeypatch: pytest.MonkeyPatch, fake: FakeJudge, *changes: dict[str, Any]) -> None:
    """One endpoint for each of `changes` (by default one named `fake`), all leading to the fake judge."""
    base = {"name": "fake", "base_url": fake.base_url, "api_key_env": "FAKE_KEY", "timeout_s": 20.0}
    monkeypatch.setenv("FAKE_KEY", KEY)
    monkeypatch.setenv("ZELO_ENDPOINTS", json.dumps([base | change for change in changes or ({},)]))
    batches.prepared_judge.cache_clear()


def make_judge(project: Project, model: str, **options: Any) -> Annotator:
    """A judge of the project that asks the fake judge under this model name."""
    return get_judge(project, "openai-http", {"endpoint": "fake", "model": model, **options}, name=model)


def make_texts(*, queries: int = 1, documents: int = 100) -> Project:
    """A project whose documents are all different texts of about equal length."""
    project = create_project("over http")
    for number in range(queries):
        query = Query.objects.create(project=project, external_id=f"q{number}", text=f"what about {WORDS[number % 16]}")
        rows = [
            Document(
                project=project,
                external_id=f"q{number}-d{place}",
                text=f"{WORDS[place % 16]} {WORDS[place // 16 % 16]} {number:04d} {place:04d} says something of its own.",
            )
            for place in range(documents)
        ]
        made = Document.objects.bulk_create(rows)
        Candidate.objects.bulk_create(
            Candidate(query=query, document=each, first_stage_rank=place + 1) for place, each in enumerate(made)
        )
    return project


def work_off(run: Run, judges: Sequence[Annotator], *, rounds: int = 20) -> Run:
    """What the workers do, in this process: plan, judge, rate, until the run has ended. Nothing waits for its retry."""
    for _ in range(rounds):
        advance(run.pk)
        JudgingTask.objects.filter(run=run, state="open").update(next_at=Now())
        for judge in judges:
            batches.judge_open(judge.pk, worker="w@host:1")
        rate_stale(run.project_id)
        run.refresh_from_db()
        if run.state not in Run.ACTIVE:
            break
    return run
