"""The migrations that give gold answers a table of their own keep every gold row, and can be undone."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from labeling.annotation.assignments import open_assignments
from labeling.models import GoldAnswer, SpotCheck
from scoring.models import SpotCheckPlan
from tests.factories.rows import make_pair, make_project

BEFORE = [("labeling", "0008_told_and_desk_counts"), ("scoring", "0003_plans_adjudications")]
moving = import_module("scoring.migrations.0005_gold_rows_move")


def migrate(targets: list[tuple[str, str]]) -> Any:
    """Migrate to `targets`; the models as they are there."""
    executor = MigrationExecutor(connection)
    executor.migrate(targets)
    return MigrationExecutor(connection).loader.project_state(targets).apps


@pytest.fixture
def newest(transactional_db: None) -> Iterator[list[tuple[str, str]]]:
    """The newest migrations of all apps; the database is there again afterwards."""
    targets = MigrationExecutor(connection).loader.graph.leaf_nodes()
    yield targets
    migrate(targets)


@pytest.mark.long  # all migrations, back and forth
def test_gold_rows_of_an_older_home_are_kept(newest: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "BATCH", 2)
    project = make_project(queries=1, documents=4)
    query = project.queries.get()
    gold = [make_pair(query, 0, b).pk for b in (1, 2, 3)]
    open_assignments([make_pair(query, 1, 2).pk, gold[0]], reason="random")

    old = migrate(BEFORE)
    plan = old.get_model("scoring", "SpotCheckPlan").objects.create(
        project_id=project.pk, reason="gold", wanted=3, pairs=3, seed=1
    )
    rows = [
        old.get_model("labeling", "SpotCheck").objects.create(
            pair_id=pair, slot=None, reason="gold", gold_preference=preference, explanation=explanation
        )
        for pair, preference, explanation in zip(
            gold, (0.95, 0.5, 0.05), ("It names the year.", "", "why"), strict=True
        )
    ]
    plan.checks.set(rows[:2])
    created = [row.created_at for row in old.get_model("labeling", "SpotCheck").objects.filter(reason="gold")]

    migrate(newest)
    found = GoldAnswer.objects.values_list("pair_id", "preference", "explanation", "project_id")
    assert list(found) == [
        (gold[0], 0.95, "It names the year.", project.pk),
        (gold[1], 0.5, "", project.pk),
        (gold[2], 0.05, "why", project.pk),
    ]
    assert [answer.created_at for answer in GoldAnswer.objects.all()] == created
    assert SpotCheck.objects.filter(reason="random").count() == SpotCheck.objects.count() == 2
    (kept,) = SpotCheckPlan.objects.all()
    assert list(kept.gold.values_list("pair_id", flat=True)) == gold[:2]
    assert not kept.checks.exists()

    back = migrate(BEFORE)
    again = back.get_model("labeling", "SpotCheck").objects.filter(gold_preference__isnull=False).order_by("id")
    assert list(again.values_list("pair_id", "gold_preference", "slot", "plans")) == [
        (gold[0], 0.95, None, kept.pk),
        (gold[1], 0.5, None, kept.pk),
        (gold[2], 0.05, None, None),
    ]
