"""Fixtures: an owner and a project with judges, failures and answers."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User

from labeling.models import Annotator, Candidate, Project
from labeling.records import FailureKind
from tests.factories.pages import (
    candidates_of,
    judge,
    make_judge,
    make_pair,
    make_project,
    make_query,
    make_run,
    make_user,
)
from tests.factories.rows import make_probe
from workers.models import JudgingTask


@pytest.fixture
def owner() -> User:
    return make_user("ada", is_superuser=True)


@pytest.fixture
def project(owner: User) -> Project:
    """Two judges on graded documents, one of them paused; a failure of every kind; one probe that found something."""
    project = make_project(owner)
    query = make_query(
        project, size=12, text="why does a heart enzyme rise after a marathon, and for how long does it stay up"
    )
    documents = candidates_of(query)
    judges = [
        make_judge(project, name="gpt-4.1 · reasoned with a rather long name", plugin="openai-http"),
        make_judge(project, name="Qwen3-4B", plugin="openai-http"),
    ]
    for at, candidate in enumerate(documents):
        Candidate.objects.filter(pk=candidate.pk).update(grade=3 - at // 4)
        for other in documents[at + 1 : at + 4]:
            for number, annotator in enumerate(judges):
                judge(
                    make_pair(candidate, other) if not number else pair_of(candidate, other),
                    annotator,
                    0.8 - 0.4 * (number * at % 2),
                )
    fail_in_every_way(project, judges[0])
    Annotator.objects.filter(pk=judges[1].pk).update(
        paused_at="2026-01-02T03:04:05Z", pause_reason="its accuracy on known pairs fell from 91% to 48%"
    )
    make_probe(judges[0], report=found(), calls=400)
    return project


def pair_of(a: Candidate, b: Candidate) -> Any:
    return a.pairs_as_a.get(b=b)


def fail_in_every_way(project: Project, annotator: Annotator) -> None:
    run = make_run(project, planned=20)
    for kind, pair in zip(FailureKind, annotator.judgments.order_by("id"), strict=False):
        JudgingTask.objects.create(
            run=run, pair=pair.pair, annotator=annotator, swapped=True, state="dead", reason=kind.value,
            message=f"endpoint 'openai': HTTP 400: {kind.value} and then an explanation that goes on for quite a while",
        )  # fmt: skip


def found() -> dict[str, Any]:
    """A report as `workers.jobs.injection_probe` writes it."""
    share = {"value": 0.48, "low": 0.39, "high": 0.57, "count": 131}
    gain = {"value": 212.0, "low": 160.0, "high": 265.0, "count": 20}
    row = {"level": "all", "targets": 20, "pairs": 200, "toward": 63, "away": 2, "flip_rate": share, "elo_gain": gain}
    swayed = {**row, "payload": "order", "shift": gain, "p_value": 0.00005, "alarm": True}
    calm = {**row, "payload": "neutral", "flip_rate": None, "shift": gain, "p_value": 0.41, "alarm": False}
    return {"rows": [swayed, calm], "failures": {"refusal": 3}, "targets": 20, "pairs": 200}
