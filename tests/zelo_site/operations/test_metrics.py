"""Metrics: figures of the database in Prometheus' format, for those who may see every project."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from labeling.access.api_keys import make_token
from labeling.records import FailureKind
from tests.factories.rows import judge_pair, make_judges, make_pair, make_project, make_run, make_tasks, make_user
from tests.factories.working import claim
from workers.archives import data_files, importing
from workers.deletion import job as deletion
from workers.deletion.retention import PASSING_STAGES
from workers.jobs import candidates, distillation, evaluation, injection_probe, training, trial
from workers.jobs.recipe import job as recipe
from workers.jobs.refinement import job as refinement
from workers.jobs.teaching import job as teaching
from workers.models import Job
from workers.monitoring.heartbeats import beat

pytestmark = pytest.mark.django_db

ORDERS = (
    candidates, distillation, evaluation, injection_probe, training, trial, recipe, refinement, teaching,
)  # fmt: skip
SECRET = "a secret of the scraper, long enough"


def scrape(client: Client, **headers: str) -> dict[tuple[str, ...], float]:
    """Every sample by its name and label values, in the order of the labels' names."""
    answer = client.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.content
    families = text_string_to_metric_families(answer.content.decode())
    return {(each.name, *each.labels.values()): each.value for family in families for each in family.samples}


def test_queues_workers_and_spend_are_those_of_the_database(client: Client, settings: Any, stub_plugins: None) -> None:
    settings.ZELO_METRICS_KEYS = [SECRET]
    tasks = make_tasks(3)
    beat("judging-cpu@here", "judging-cpu,judging-gpu")
    claim(tasks[0], limit=1)
    found = scrape(client, authorization=f"Bearer {SECRET}")
    assert found["zelo_queue_due", "judging-cpu"] == 2 and found["zelo_queue_in_flight", "judging-cpu"] == 1
    assert found["zelo_queue_workers", "judging-cpu"] == 1 and found["zelo_queue_workers", "rating"] == 0
    assert found["zelo_worker_up", "judging-cpu,judging-gpu", "judging-cpu@here"] == 1
    judge = tasks[0].annotator
    assert found["zelo_judge_calls_total", judge.name, judge.project.slug] == 1
    assert found["zelo_home_free_bytes",] > 0 and found["zelo_rerank_up",] == 0


def test_scores_that_lack_an_answer_are_due(client: Client, settings: Any, stub_plugins: None) -> None:
    settings.ZELO_METRICS_KEYS = [SECRET]
    project = make_project(queries=1)
    [judge] = make_judges(project)
    make_run(project, judges=[judge])
    judge_pair(make_pair(project.queries.get()), judge)
    assert scrape(client, authorization=f"Bearer {SECRET}")["zelo_queue_due", "rating"] == 1


def test_series_that_alerts_watch_for_growth_begin_at_zero(client: Client, settings: Any) -> None:
    settings.ZELO_METRICS_KEYS = [SECRET]
    found = scrape(client, authorization=f"Bearer {SECRET}")
    stages = [*PASSING_STAGES, *(each.STAGE for each in (*ORDERS, data_files, importing, deletion))]
    assert {found["zelo_jobs", str(stage), "failed"] for stage in stages} == {0}
    assert {found["zelo_dead_letters", kind] for kind in FailureKind} == {0}
    assert found["zelo_webhook_deliveries", "failed"] == 0
    Job.objects.create(project=make_project(), stage="import", state=Job.State.OPEN)
    Job.objects.create(project=make_project(), stage="train", state=Job.State.FAILED)
    found = scrape(client, authorization=f"Bearer {SECRET}")
    assert found["zelo_jobs", "train", "failed"] == 1
    assert found["zelo_queue_due", "judging-cpu"] == 1, "an import waits for a worker too"


def test_only_the_operator_reads_metrics(client: Client, settings: Any) -> None:
    settings.ZELO_METRICS_KEYS = [SECRET]
    owner, operator = make_user("owner"), make_user("operator", is_superuser=True)
    make_project(owner=owner)
    refused = ["", f"Bearer {SECRET[:-1]}", f"Bearer {make_token(owner, name='k')}"]
    refused.append(f"Bearer {make_token(operator, name='k', scopes=['rerank'])}")
    for header in refused:
        answer = client.get("/metrics", headers={"authorization": header})
        assert answer.status_code == 401 and b"ZELO_METRICS_KEY" in answer.content
    assert scrape(client, authorization=f"Bearer {make_token(operator, name='k')}")
    client.force_login(owner)
    assert client.get("/metrics").status_code == 403
    client.force_login(operator)
    assert scrape(client)
