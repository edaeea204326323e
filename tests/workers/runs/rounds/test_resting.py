"""Queries that are still being answered are fitted again after a rest; those without open questions at once."""

from __future__ import annotations

import pytest

from labeling.records import Verdict
from scoring.rating import rate_stale, stale_query_ids
from tests.factories.rows import make_project, make_run
from workers.judging import queue
from workers.models import Run
from workers.runs.rounds import resting

# The rater reads in a transaction of its own.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]


def answer(run: Run, count: int) -> None:
    tasks = queue.claim(annotator_id=run.judges.get().pk, worker="w@host:1", limit=count)
    queue.finish([(task, Verdict(0.3)) for task in tasks])


def test_a_query_rests_after_a_fit_until_its_last_question_is_answered() -> None:
    run = make_run(make_project(queries=1, documents=4))
    (query,) = run.project.queries.values_list("id", flat=True)

    def rated() -> int:
        return rate_stale(run.project_id, resting=resting.resting_query_ids).queries

    answer(run, 1)
    assert rated() == 1, "the first answers are shown at once"
    answer(run, 1)
    assert resting.resting_query_ids(run.project_id) == [query] and rated() == 0
    assert stale_query_ids(run.project_id) == [query], "it is still known to be stale"
    assert rate_stale(run.project_id).queries == 1, "without a rest, as where no judge is asking"
    answer(run, 1)
    assert rated() == 0
    answer(run, 100)
    assert resting.resting_query_ids(run.project_id) == [] and rated() == 1


def test_a_rest_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(make_project(queries=1, documents=4))
    for _ in range(2):
        answer(run, 1)
        rate_stale(run.project_id, resting=lambda project_id: ())
    answer(run, 1)
    assert resting.resting_query_ids(run.project_id)
    monkeypatch.setattr(resting, "REST_S", 0.0)
    assert not resting.resting_query_ids(run.project_id)
