"""Every address that changes something writes its audit entry, by page and by REST, and the commands leave the same.

A new address fails here until it stands in a table: say which entries it leaves, or why it leaves none.
"""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from django.core.management import call_command
from django.db import connection, transaction
from django.http import HttpResponse
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from pytest_django import Settings

from labeling.models import AuditEntry, Project
from tests.factories.world.changes import (
    the_project,
)
from tests.factories.world.site import EVERY_OPERATION, EVERY_PAGE, World, make_world
from tests.zelo_site.audit.entries import (
    OUTSIDE,
    SETTINGS,
    Writes,
)
from tests.zelo_site.audit.operations import EXEMPT, OPERATIONS, READ_ONLY
from tests.zelo_site.audit.pages import PAGES
from zelo_site.pages.people.people import ACTIONS as ACTIONS_ON_PEOPLE
from zelo_site.templatetags.audit import ACTION_LABELS

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]


# --- the tables are complete -------------------------------------------------------------


def test_every_page_writes_an_entry_is_exempt_or_reads() -> None:
    writing = {each.address for each in PAGES}
    exempt = set(EXEMPT) & set(EVERY_PAGE)
    assert writing | exempt | READ_ONLY == set(EVERY_PAGE), "enter a new address in PAGES, EXEMPT or READ_ONLY"
    assert not writing & exempt and not READ_ONLY & (writing | exempt)


def test_every_operation_that_changes_writes_an_entry_or_is_exempt() -> None:
    writing = {each.address for each in OPERATIONS if not each.address.startswith("GET")}
    exempt = set(EXEMPT) & set(EVERY_OPERATION)
    changing = {operation for operation in EVERY_OPERATION if not operation.startswith("GET")}
    assert writing | exempt == changing, "enter a new operation in OPERATIONS or EXEMPT"
    assert not writing & exempt


def test_every_action_on_people_is_performed() -> None:
    performed = {each.sent["action"] for each in PAGES if each.address == "people"}
    assert performed == set(ACTIONS_ON_PEOPLE)


def test_every_action_in_the_source_has_a_label() -> None:
    root = Path(__file__).parents[3]
    written = {
        action
        for floor in ("labeling", "scoring", "trainer", "workers", "zelo_site")
        for file in (root / floor).rglob("*.py")
        for action in _noted(file)
    }
    assert {"run.started", "member.joined", "pair.gold"} <= written
    assert written <= set(ACTION_LABELS)


def _noted(file: Path) -> Iterator[str]:
    """Actions that a file passes to `note`, or to a helper of its own that does, as literals."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        if "note" in getattr(node.func, "attr", getattr(node.func, "id", "")):
            texts = [each.value for each in ast.walk(node.args[0]) if isinstance(each, ast.Constant)]
            yield from (text for text in texts if re.fullmatch(r"[a-z_]+\.[a-z_]+", str(text)))


@pytest.mark.parametrize("floor", ["zelo_site/pages", "zelo_site/api", "zelo_site/management", "labeling/management"])
def test_no_page_endpoint_or_command_writes_an_entry_itself(floor: str) -> None:
    root = Path(__file__).parents[3]
    writers = [
        str(file)
        for file in (root / floor).rglob("*.py")
        if re.search(r"labeling\.audit|import audit\b|AuditEntry\.objects\.(bulk_)?create", file.read_text())
    ]
    assert writers == []


# --- and true ----------------------------------------------------------------------------


@pytest.fixture
def world(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    settings.STORAGE_URL = f"file://{tmp_path / 'stored'}"
    monkeypatch.setenv("ZELO_RERANKERS", OUTSIDE)
    settings.ZELO_WEBHOOK_HOSTS = ["hooks.example.org"]
    return make_world()


def test_each_leaves_exactly_its_entries(world: World) -> None:
    """All meet the same world, signed in once: what each changes is undone."""
    world.sign_everybody_in()
    wrong = []
    for each in (each for each in [*PAGES, *OPERATIONS] if not each.is_committed):
        cache.clear()
        same = replace(world, users={role: copy(user) for role, user in world.users.items()}, known={**world.known})
        try:
            with transaction.atomic():
                check_entries(each, same)
                transaction.set_rollback(True)
        except AssertionError as error:
            wrong.append(f"{each}: {error}")
    assert wrong == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("writes", [each for each in [*PAGES, *OPERATIONS] if each.is_committed], ids=str)
def test_what_commits_by_itself_leaves_exactly_its_entries(writes: Writes, world: World) -> None:
    check_entries(writes, world)


def check_entries(writes: Writes, world: World) -> None:
    writes.arrange(world)
    world.known.update(writes.kwargs or {})
    client = world.client(writes.by or "anonymous")
    latest = AuditEntry.objects.order_by("-id").values_list("id", flat=True).first() or 0
    answer = _ask(client, writes, world)
    assert answer.status_code < 400, answer.content.decode()[:500]
    if answer.streaming:
        b"".join(answer.streaming_content)
    entries = list(AuditEntry.objects.filter(id__gt=latest).order_by("id"))
    assert tuple(entry.action for entry in entries) == writes.entries
    assert set(writes.entries) <= set(ACTION_LABELS)
    for entry in entries:
        assert entry.subject or entry.project_id
        assert entry.actor_name
        if writes.by is not None and "account.deleted" not in writes.entries:  # an account that is gone leaves its name
            assert entry.actor == world.users[writes.by]


def _ask(client: Any, writes: Writes, world: World) -> HttpResponse:
    is_page = writes.address in EVERY_PAGE
    sent = {name: _value(value, world, as_text=is_page) for name, value in (writes.sent or {}).items()}
    if is_page:
        address = reverse(writes.address, kwargs={key: world.known[key] for key in EVERY_PAGE[writes.address]})
        return client.post(address, sent)
    method, _, path = writes.address.partition(" ")
    address = "/api/v1" + path.format(**world.known)
    if any(hasattr(value, "read") for value in sent.values()):
        return client.post(address, sent)
    return client.generic(method, address, "" if writes.sent is None else json.dumps(sent), "application/json")


def _value(value: Any, world: World, *, as_text: bool) -> Any:
    if callable(value):
        return value(world)
    if isinstance(value, str) and re.fullmatch(r"\{\w+\}", value):
        known = world.known[value[1:-1]]
        return str(known) if as_text else known
    return value


def test_a_page_that_only_reads_stores_nothing_of_a_post(world: World) -> None:
    stored = {}
    client = world.client("owner")
    for name in sorted(READ_ONLY - {"agreement", "report"}):
        address = reverse(name, kwargs={key: world.known[key] for key in EVERY_PAGE[name]})
        client.get(address)
        with CaptureQueriesContext(connection) as queries:
            client.post(address)
        changes = [each["sql"] for each in queries if re.match(r"\s*(INSERT|UPDATE|DELETE)\b", each["sql"])]
        if changes := [sql for sql in changes if "django_session" not in sql]:
            stored[name] = changes
    assert stored == {}


# --- page, REST and command leave the same entry -----------------------------------------


def _latest(action: str) -> tuple[str, dict[str, Any]]:
    entry = AuditEntry.objects.filter(action=action).order_by("-id").first()
    assert entry is not None
    return entry.subject, entry.details


@pytest.mark.django_db(transaction=True)
def test_page_rest_and_command_leave_the_same_entry(world: World) -> None:
    project, client = the_project(world), world.client("owner")
    found = []
    for change in (
        lambda: client.post(reverse("settings", args=[project.slug]), {**SETTINGS, "instruction": ""}),
        lambda: client.patch(f"/api/v1/projects/{project.slug}", '{"name": "renamed"}', "application/json"),
        lambda: call_command("configure", project.slug, name="renamed", stdout=io.StringIO()),
    ):
        Project.objects.filter(pk=project.pk).update(name="before", instruction="")
        change()
        found.append(_latest("project.changed"))
    assert found == [(project.slug, {"name": "before → renamed"})] * 3


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("command", "arguments", "action"),
    [
        ("project", ["Another"], "project.created"),
        ("token", ["owner"], "key.made"),
        ("link", ["owner"], "account.link_made"),
        ("spot_checks", ["{slug}", "--reason", "random", "--pairs", "1", "--overlap", "2"], "spot_checks.planned"),
        ("configure", ["{slug}", "--calls", "500"], "project.caps"),
        ("limits", ["set", "--calls", "500"], "limit.set"),
        ("limits", ["projects", "stored", "--only", "{slug}"], "endpoint.projects"),
        ("delete", ["query", "{slug}", "{query_id}", "--yes"], "query.deleted"),
        ("delete", ["restore", "{archived}"], "project.restored"),
        ("delete", ["purge", "{archived}", "--yes"], "project.purge_ordered"),
        ("retire", ["{slug}", "{annotator_id}"], "judge.retired"),
        ("archive", ["export", "{slug}", "{folder}/out.zelo.gz"], "project.exported"),
        ("batches", ["{slug}", "--cancel", "{batch_id}"], "batch.cancelled"),
        ("export", ["{slug}", "--to", "{folder}/out.jsonl"], "scores.exported"),
        ("export", ["{slug}", "--to", "{folder}/out.jsonl", "--format", "judgments"], "judgments.exported"),
    ],
)
def test_a_command_leaves_the_entry_without_a_name(
    command: str, arguments: list[str], action: str, world: World, tmp_path: Path
) -> None:
    known = {**world.known, "folder": tmp_path}
    latest = AuditEntry.objects.order_by("-id").values_list("id", flat=True).first() or 0
    call_command(command, *(each.format(**known) for each in arguments), stdout=io.StringIO())
    entries = AuditEntry.objects.filter(id__gt=latest)
    assert [(entry.action, entry.actor_name) for entry in entries] == [(action, "")]
