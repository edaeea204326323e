"""Stored figures of projects: what is stored is what the definition gives, and a large project leaves the work to a worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from labeling.models import Candidate, Project
from scoring.models import Score
from scoring.rating import rate_stale
from tests.factories.rows import make_judges, make_project, make_run
from tests.factories.working import judge_all
from workers.judging.failures import failed_calls, failed_tasks
from workers.models import JudgingTask, ProjectFigure
from workers.monitoring import project_figures
from workers.monitoring.project_figures import FIGURES, Figure, measure_wanted, read_figure
from workers.runs.progress import _judges_with_tasks

# Columns are read in a transaction of their own.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]


@pytest.fixture
def project() -> Project:
    """Three graded queries with answers of two judges and scores; one document has few comparisons."""
    project = make_project(queries=3, documents=5)
    for candidate in Candidate.objects.filter(query__project=project):
        Candidate.objects.filter(pk=candidate.pk).update(grade=candidate.pk % 3, first_stage_rank=1 + candidate.pk % 5)
    judge_all(make_run(project, judges=make_judges(project, 2)))
    rate_stale(project.pk)
    first = Score.objects.filter(candidate__query__project=project).order_by("pk")[0]
    Score.objects.filter(pk=first.pk).update(comparisons=2)
    return project


@pytest.fixture
def hints(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The hints that readers leave."""
    left: list[tuple[str, int]] = []
    monkeypatch.setattr(project_figures, "leave_hint", lambda task, subject: left.append((task, subject)))
    return left


def counted(figure: Figure[Any], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The projects for which a figure is computed from now on."""
    asked: list[int] = []

    def compute(project: Project) -> Any:
        asked.append(project.pk)
        return figure.compute(project)

    watched = Figure(figure.name, compute, figure.holds, figure.grows)
    monkeypatch.setattr(project_figures, "FIGURES", FIGURES | {figure.name: watched})
    return asked


@pytest.mark.parametrize("name", FIGURES)
def test_a_stored_figure_is_the_definition_s(name: str, project: Project) -> None:
    figure = FIGURES[name]
    first = read_figure(project, figure, kept_s=3600)
    again = read_figure(project, figure, kept_s=3600)
    assert again.at == first.at is not None
    assert again.value == first.value == figure.compute(project)
    assert first.value, "an empty figure proves nothing"


@pytest.mark.parametrize("name", [name for name, figure in FIGURES.items() if figure.grows])
def test_a_large_project_leaves_the_first_measurement_to_a_worker(
    name: str, project: Project, monkeypatch: pytest.MonkeyPatch, hints: list[tuple[str, int]]
) -> None:
    monkeypatch.setattr(project_figures, "MANY_ROWS", 3)
    asked = counted(FIGURES[name], monkeypatch)
    figure = project_figures.FIGURES[name]
    missing = read_figure(project, figure, kept_s=30)
    assert (missing.value, missing.at, asked) == (None, None, [])
    assert ("measure", project.pk) in hints
    assert not measure_wanted(project.pk, until=time.monotonic() + 60)
    assert asked == [project.pk]
    assert read_figure(project, figure, kept_s=30).value == FIGURES[name].compute(project)
    assert not measure_wanted(project.pk, until=time.monotonic() + 60)
    assert asked == [project.pk], "what nobody asked for is not measured"


def test_an_old_figure_is_shown_with_its_age_until_a_worker_has_renewed_it(
    project: Project, monkeypatch: pytest.MonkeyPatch, hints: list[tuple[str, int]]
) -> None:
    asked = counted(project_figures.CARDS, monkeypatch)
    figure = project_figures.FIGURES["cards"]
    read_figure(project, figure, kept_s=30)
    old = timezone.now() - timedelta(hours=1)
    ProjectFigure.objects.update(took_ms=5_000, measured_at=old)
    shown = read_figure(project, figure, kept_s=30)
    assert (shown.at, len(asked)) == (old, 1)
    assert hints.count(("measure", project.pk)) == 1
    assert not measure_wanted(project.pk, until=time.monotonic() + 60)
    assert len(asked) == 2
    renewed = read_figure(project, figure, kept_s=30)
    assert renewed.at is not None and renewed.at > old


def test_a_figure_that_takes_a_moment_is_measured_by_its_reader(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = counted(project_figures.ELO, monkeypatch)
    figure = project_figures.FIGURES["elo"]
    read_figure(project, figure, kept_s=30)
    ProjectFigure.objects.update(took_ms=1, measured_at=timezone.now() - timedelta(seconds=31))
    read_figure(project, figure, kept_s=30)
    assert len(asked) == 2


def test_what_another_version_stored_is_measured_again(project: Project) -> None:
    read_figure(project, FIGURES["elo"], kept_s=30)
    ProjectFigure.objects.update(value={"low": "none"})
    assert read_figure(project, FIGURES["elo"], kept_s=30).value == FIGURES["elo"].compute(project)


def test_a_worker_stops_at_its_time_and_says_that_figures_are_left(project: Project) -> None:
    for name in FIGURES:
        ProjectFigure.objects.create(project=project, name=name)
    assert measure_wanted(project.pk, until=time.monotonic() - 1)
    assert not measure_wanted(project.pk, until=time.monotonic() + 60)
    assert not ProjectFigure.objects.filter(measured_at=None).exists()


def test_judges_with_tasks_are_those_with_one_that_is_not_dead(project: Project) -> None:
    judges = make_judges(project, 5)[2:]
    run = make_run(project, judges=judges)
    assert _judges_with_tasks(run) == tuple(judge.name for judge in judges)
    JudgingTask.objects.filter(annotator=judges[0]).update(state="dead", reason="timeout")
    JudgingTask.objects.filter(annotator=judges[1]).delete()
    assert _judges_with_tasks(run) == (judges[2].name,)


@pytest.mark.parametrize(
    ("rows", "index"),
    [
        (lambda project: failed_tasks(project), "judging_task_failed"),
        (lambda project: failed_calls(project), "attempt_failed"),
        (lambda project: failed_calls(project, reason="timeout"), "attempt_failed"),
    ],
)
def test_failures_are_found_by_an_index_of_their_own(
    rows: Callable[[Project], Any], index: str, project: Project
) -> None:
    """Small tables are read whole, so the plan is asked for without that choice."""
    make_run(project, judges=make_judges(project, 6)[2:])
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE workers_judgingtask, workers_attempt, workers_run")
        cursor.execute("SET enable_seqscan = off")
        try:
            assert index in rows(project).explain()
        finally:
            cursor.execute("RESET enable_seqscan")
