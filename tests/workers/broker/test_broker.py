"""The broker is killed with all its data: pages say so, and a worker works again within seconds of its return."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from labeling.access.annotators import get_judge
from labeling.models import Judgment
from tests.factories.rows import make_project, make_user
from tests.processes.worker_process import Workers, workers
from workers.broker import client, hints
from workers.management.commands.worker import celery_arguments
from workers.monitoring.heartbeats import alive
from workers.runs.ordering import start_run
from zelo_site.processes.services import ServiceSupervisor, service_urls

pytestmark = pytest.mark.django_db(transaction=True)

RETURN_S = 10.0


def _use_broker(broker_url: str, redis_url: str) -> Any:
    from django.conf import settings

    from zelo_site.celery import app

    settings.ZELO_REDIS_URL = redis_url
    os.environ["BROKER_URL"] = os.environ["CELERY_BROKER_URL"] = broker_url
    client.valkey.cache_clear()
    return app


def serve(broker_url: str, redis_url: str) -> None:
    """A Celery worker that rates and judges, in this process."""
    app = _use_broker(broker_url, redis_url)
    app.worker_main([*celery_arguments(["rating", "judging-cpu"], concurrency=1), "--pool", "solo"])


def reconcile(broker_url: str, redis_url: str) -> None:
    _use_broker(broker_url, redis_url)
    call_command("reconcile")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ServiceSupervisor]:
    """A broker of its own, beside the database of the tests."""
    environ = {"PATH": os.environ["PATH"], "DATABASE_URL": "postgres://elsewhere"}
    with ServiceSupervisor(tmp_path, environ=environ, restart_delays_s=(0.0, 0.0)) as supervisor:
        yield supervisor


@pytest.fixture
def staff(tmp_path: Path, broker: ServiceSupervisor, settings: Any, django_db_setup: None) -> Iterator[Workers]:
    """A worker and a reconciler at that broker; this process only looks at it."""
    services = service_urls(tmp_path, {"DATABASE_URL": "postgres://elsewhere"})
    with workers(tmp_path) as started:
        for target in (serve, reconcile):
            started.start(target, services.broker_url, services.redis_url)
        settings.ZELO_REDIS_URL = services.redis_url
        client.valkey.cache_clear()
        hints._silent_until = float("inf")  # leaves no hints itself
        yield started
    client.valkey.cache_clear()


def wait_until(is_so: Callable[[], bool], *, seconds: float) -> float:
    """The seconds that it took."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() < began + seconds, f"not within {seconds:.0f} s"
        time.sleep(0.1)
    return time.monotonic() - began


def jobs_page(client: Client) -> str:
    cache.clear()
    return client.get(reverse("jobs")).content.decode()


# Celery by itself would wait longer after each try: after a minute, half a minute.
@pytest.mark.parametrize("down_s", [2.5, pytest.param(60.0, marks=pytest.mark.long)])
def test_work_goes_on_within_ten_seconds_of_the_brokers_return(
    broker: ServiceSupervisor, staff: Workers, client: Client, down_s: float
) -> None:
    client.force_login(make_user(is_superuser=True))
    wait_until(lambda: {"rating", "reconciler"} <= {each.label for each in alive()}, seconds=60.0)
    assert "The broker is not responding" not in jobs_page(client)

    os.kill(broker.process_ids()["Valkey"], signal.SIGKILL)
    project = make_project(queries=1, documents=4)
    run = start_run(project, judges=[get_judge(project, "bm25")], sampler="all", seed=1)
    assert "The broker is not responding" in jobs_page(client)
    time.sleep(down_s)
    assert not Judgment.objects.exists()

    assert broker.revive()
    wait_until(lambda: Judgment.objects.filter(annotator__project=project).count() == 6, seconds=RETURN_S)
    assert "The broker is not responding" not in jobs_page(client)
    run.refresh_from_db()
    assert run.state in ("judging", "finished")
