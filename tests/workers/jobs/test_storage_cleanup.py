"""Half-written folders are taken away beside other work, and a storage that is away holds up none of it."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
from pytest_django import Settings

from scoring.storage.files import Storage, storage
from tests.factories.rows import make_tasks
from tests.factories.working import claim, end_lease
from tests.processes.write_and_die import write_and_die
from workers import reconciler
from workers.jobs import storage_cleanup
from workers.models import JudgingTask

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]


@pytest.fixture(autouse=True)
def own_folders(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.STORAGE_URL = f"file://{tmp_path / 'storage'}"
    settings.ZELO_HOME = tmp_path / "home"
    monkeypatch.setattr(storage_cleanup, "_again_at", -math.inf)


def test_a_storage_that_is_away_keeps_no_question_waiting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_and_die("snapshots/gone")
    tries: list[str] = []

    def away(self: Storage, path: str) -> None:
        tries.append(path)
        raise ConnectionRefusedError("nobody answers")

    tasks = make_tasks(1)
    end_lease(*claim(tasks[0], 1))
    with monkeypatch.context() as broken, caplog.at_level(logging.WARNING):
        broken.setattr(Storage, "remove", away)
        reconciler.reconcile_once()
        reconciler.reconcile_once()
    assert JudgingTask.objects.get().state == "open"
    assert tries == ["snapshots/gone"], "it is not asked again at once"
    assert "nobody answers" in caplog.text
    assert storage().names("snapshots/gone") == ["rows.parquet"]
    monkeypatch.setattr(storage_cleanup, "_again_at", -math.inf)  # a minute later
    reconciler.reconcile_once()
    assert storage().names("snapshots/gone") == []
