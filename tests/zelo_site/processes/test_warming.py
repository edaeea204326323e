"""The warm-up of a web process: the requests of the comparison screen run, and nothing of them stays."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.apps import apps
from django.core.cache import cache
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

from zelo_site.processes import rehearsal
from zelo_site.processes.rehearsal import rehearse
from zelo_site.processes.warming import warm

pytestmark = pytest.mark.django_db(transaction=True)


def rows() -> dict[str, int]:
    return {model._meta.label: model._base_manager.count() for model in apps.get_models() if model._meta.managed}


def test_a_rehearsal_stores_an_answer_and_keeps_nothing() -> None:
    before = rows()
    with CaptureQueriesContext(
        connection,
    ) as ran:
        rehearse()
    stored = [each["sql"] for each in ran if "INSERT INTO labeling_submission" in each["sql"]]
    assert len(stored) == 1, "no answer was stored"
    assert rows() == before
    assert not connection.in_atomic_block


def test_a_rehearsal_leaves_no_hint_to_the_rater(monkeypatch: pytest.MonkeyPatch) -> None:
    from labeling.signals import judgments_recorded

    heard: list[Any] = []
    judgments_recorded.connect(lambda **sent: heard.append(sent), weak=False, dispatch_uid="warming")
    try:
        rehearse()
    finally:
        judgments_recorded.disconnect(dispatch_uid="warming")
    assert heard == []


def test_a_refusal_is_an_error_and_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows()
    monkeypatch.setattr(rehearsal, "confirm_read", lambda *args, **kwargs: True)  # the instruction stays unread
    monkeypatch.setattr(rehearsal.http, "next_view", rehearsal.http.heartbeat_view)
    with pytest.raises(RuntimeError, match="422"):
        rehearse()
    assert rows() == before


def test_every_thread_rehearses_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    seen: list[str] = []

    def noted() -> None:
        rehearse()
        seen.append(threading.current_thread().name)
        connections.close_all()

    monkeypatch.setattr(rehearsal, "rehearse", noted)
    before = rows()
    with caplog.at_level(logging.INFO), ThreadPoolExecutor(3) as threads:
        warm(threads, 3)
    assert len(set(seen)) == 3
    assert "cold" not in caplog.text and "without a rehearsal" not in caplog.text
    assert rows() == before
    cache.clear()
