"""Log lines as JSON, and one request id from the web server through the broker's message to the worker's lines."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from celery import current_app
from celery.app.trace import build_tracer
from django.test import Client

from labeling.access.links import make_link
from labeling.records import Failure, FailureKind
from tests.factories.rows import make_project, make_tasks, make_user
from tests.factories.working import claim
from workers.broker.hints import leave_hint
from workers.broker.request_ids import HEADER, bind_request_id, current_request_id, forget_request_id
from workers.judging import queue
from zelo_site.operations.logs import json_formatter

ID = "f3b0c442-98fc-1c14"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the root logger writes, as JSON."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(json_formatter())
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield stream
    root.removeHandler(handler)
    root.setLevel(before)


def parsed(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_its_text_its_logger_its_time_and_the_traceback(lines: io.StringIO) -> None:
    bind_request_id(ID)
    try:
        raise ValueError("no such thing\nat all")
    except ValueError:
        logging.getLogger("zelo.test").exception("it failed for %s", "anna", extra={"status": 3, "request": object()})
    finally:
        forget_request_id()
    [line] = parsed(lines)
    assert (line["event"], line["level"], line["logger"], line["request_id"]) == (
        "it failed for anna", "error", "zelo.test", ID,
    )  # fmt: skip
    assert "ValueError: no such thing\nat all" in line["exception"] and line["timestamp"].endswith("Z")
    assert line["status"] == 3 and "request" not in line


@pytest.mark.django_db
def test_each_response_has_an_id_and_only_a_trusted_proxy_gives_it(client: Client, settings: Any) -> None:
    ours = [client.get("/healthz", headers={"x-request-id": ID})["X-Request-ID"] for _ in range(2)]
    assert ID not in ours and len(set(ours)) == 2
    settings.ZELO_TRUSTED_PROXIES = ["127.0.0.1"]
    behind = Client()
    assert behind.get("/healthz", headers={"x-request-id": ID})["X-Request-ID"] == ID
    for unusable in ("short", "x" * 65, 'with "quotes" inside'):
        assert behind.get("/healthz", headers={"x-request-id": unusable})["X-Request-ID"] != unusable
    assert current_request_id() == ""


@pytest.mark.django_db
def test_a_request_logs_its_route_but_no_secret(settings: Any, lines: io.StringIO) -> None:
    settings.ZELO_LOG = "json"
    token = make_link(make_user())
    answer = Client().get(f"/enter/{token}/")
    [line] = [each for each in parsed(lines) if each["logger"] == "zelo.access"]
    assert line["route"] == "enter/<str:token>/" and line["status"] == answer.status_code and line["ms"] >= 0
    assert line["request_id"] == answer["X-Request-ID"] and token not in lines.getvalue()
    assert Client(enforce_csrf_checks=True).post(f"/enter/{token}/").status_code == 403
    [refused] = [each for each in parsed(lines) if each["logger"] == "django.security.csrf"]
    assert "/enter/<str:token>/" in refused["event"] and token not in lines.getvalue()


@pytest.mark.django_db
def test_a_message_carries_the_id_of_its_request_to_the_worker(sent_hints: Any, lines: io.StringIO) -> None:
    project = make_project(owner=make_user())
    bind_request_id(ID)
    leave_hint("rate", project.pk)
    forget_request_id()
    [headers] = sent_hints.headers()
    assert headers[HEADER] == ID
    seen: list[str] = []

    @current_app.task(name="tests.note_the_id")
    def note_the_id() -> None:
        seen.append(current_request_id())

    carry_out = build_tracer(
        note_the_id.name, note_the_id, app=current_app
    )  # as a worker does with a message's headers
    for number, more in enumerate([{HEADER: ID}, {}]):
        carry_out(f"task-{number}", (), {}, {"id": f"task-{number}", "headers": {}, **more})
    assert seen == [ID, ""] and current_request_id() == ""


@pytest.mark.django_db
def test_every_failed_call_is_logged_with_its_reason(stub_plugins: None, lines: io.StringIO) -> None:
    [task] = make_tasks(1)
    [claimed] = claim(task, limit=1)
    queue.fail([(claimed, Failure(FailureKind.REFUSAL, "the model\nrefuses", retryable=False))])
    [line] = [each for each in parsed(lines) if "failed" in each["event"]]
    assert line["event"] == f"call of judge {task.annotator_id} failed: refusal: the model refuses"
    assert (line["judge"], line["run"], line["task"]) == (task.annotator_id, task.run_id, task.pk)
    assert line["reason"] == "refusal" and line["retryable"] is False
