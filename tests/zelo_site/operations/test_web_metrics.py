"""Requests of web pages: counted by status and view, and summed over the web processes of a host."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from tests.factories.rows import make_user
from tests.processes.installation import ROOT, free_port

SITE = "tests.zelo_site.operations.counting_site"


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Every sample by its name and label values."""
    families = text_string_to_metric_families(text)
    return {(each.name, *each.labels.values()): each.value for family in families for each in family.samples}


@pytest.mark.django_db
def test_requests_are_counted_by_status_and_view(client: Client) -> None:
    client.force_login(make_user("operator", is_superuser=True))

    def counts() -> tuple[float, float]:
        found = samples(client.get("/metrics").content.decode())
        missing = found.get(("django_http_responses_total_by_status_total", "404"), 0)
        return missing, found.get(("django_http_requests_latency_seconds_by_view_method_count", "GET", "projects"), 0)

    before = counts()
    assert client.get("/").status_code == 200
    assert client.get("/projects/no-such-project/").status_code == 404
    assert counts() == (before[0] + 1, before[1] + 1)


def test_the_requests_of_all_web_processes_are_added_up() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "gunicorn", f"{SITE}:application()", "--bind", f"127.0.0.1:{port}", "--workers", "2",
        "--config", f"python:{SITE}", "--log-level", "warning", "--graceful-timeout", "2",
    ]  # fmt: skip
    server = subprocess.Popen(command, cwd=ROOT)
    try:
        processes: set[str] = set()
        asked, until = 0, time.monotonic() + 60
        while len(processes) < 2:
            assert time.monotonic() < until, "two processes answer"
            with contextlib.suppress(httpx.TransportError):  # not listening yet
                processes.add(httpx.get(f"{url}/process").text)
                asked += 1
        answer = httpx.get(f"{url}/counted")
        folder = Path(answer.headers["X-Folder"])
        assert folder.stat().st_mode & 0o777 == 0o700
        found = samples(answer.text)
        assert found["django_http_requests_latency_seconds_by_view_method_count", "GET", "process"] == asked
    finally:
        server.terminate()
        assert server.wait(20) == 0
    assert not folder.exists()
