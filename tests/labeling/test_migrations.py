"""Migrations: complete, linear, named for their content, and with a way back."""

from __future__ import annotations

import itertools
import re

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.special import RunPython, RunSQL

OURS = ("labeling", "scoring", "trainer", "workers", "zelo_site")


@pytest.fixture(scope="module")
def loader() -> MigrationLoader:
    return MigrationLoader(None)


@pytest.mark.django_db
def test_models_and_migrations_agree() -> None:
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


@pytest.mark.django_db
def test_every_migration_has_been_applied_to_the_tests_database() -> None:
    applied = MigrationLoader(connection)
    assert set(applied.graph.nodes) <= set(applied.applied_migrations)


@pytest.mark.parametrize("app", OURS)
def test_migrations_are_linear_and_numbered(app: str, loader: MigrationLoader) -> None:
    names = sorted(name for label, name in loader.disk_migrations if label == app)
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    assert len(loader.graph.leaf_nodes(app)) == 1
    for before, after in itertools.pairwise(names):
        assert (app, before) in loader.disk_migrations[app, after].dependencies


@pytest.mark.parametrize("app", OURS)
def test_migrations_are_named_for_their_content(app: str, loader: MigrationLoader) -> None:
    names = [name for label, name in loader.disk_migrations if label == app]
    assert not [name for name in names if re.search(r"auto|alter_|_and_more|\d{8}", name[5:])]


def test_migrations_that_are_not_schema_can_be_undone(loader: MigrationLoader) -> None:
    special = [
        (key, operation)
        for key, migration in loader.disk_migrations.items()
        if key[0] in OURS
        for operation in migration.operations
        if isinstance(operation, RunSQL | RunPython)
    ]
    assert special
    assert [key for key, operation in special if not operation.reversible] == []
