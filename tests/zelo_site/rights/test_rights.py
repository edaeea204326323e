"""Every page and every operation of the REST interface, asked by everybody: who may do what.

A new address fails here until it stands in `pages.py` or `operations.py`: decide who it is for, and say so in one line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from django.urls import reverse

from tests.factories.world.site import EVERY_OPERATION, EVERY_PAGE, ROLES, Roles, World, make_world
from tests.zelo_site.rights.operations import OF_NOTHING, OPERATIONS
from tests.zelo_site.rights.pages import FORMS, MOVES, PAGES

pytestmark = pytest.mark.django_db

# They read in a snapshot of their own, which no test's transaction may surround.
COMMITTED = {"agreement", "report", "GET /projects/{slug}/agreement", "GET /projects/{slug}/report"}


@pytest.fixture
def world() -> World:
    world = make_world()
    world.sign_everybody_in()
    return world


def test_every_page_stands_in_the_table() -> None:
    assert set(EVERY_PAGE) == set(PAGES), "say in PAGES whom a new address is for"


def test_every_operation_stands_in_the_table() -> None:
    assert set(EVERY_OPERATION) == set(OPERATIONS), "say in OPERATIONS whom a new operation is for"


def outcomes(world: World, send: Callable[[Client], Any]) -> dict[str, str]:
    """What everybody got: let in, refused, not found, or sent to sign in. Owners come last: they change things."""
    return {role: _outcome(send(world.client(role))) for role in reversed(ROLES)}


def _outcome(answer: Any) -> str:
    if answer.status_code >= 500:
        return f"error {answer.status_code}"
    if answer.status_code == 401 or (answer.status_code == 302 and answer.url.startswith(f"{reverse('sign-in')}?")):
        return "signs in"
    return {403: "refused", 404: "not found"}.get(answer.status_code, "let in")


def check(found: dict[str, str], whom: Roles, *, of_a_project: bool) -> None:
    """Members outside `whom` may be refused or find nothing; who is no member must find nothing."""
    for role, outcome in found.items():
        if role in whom:
            assert outcome == "let in", f"{role}: {outcome}"
        elif role == "anonymous":
            assert outcome in {"signs in"}, f"{role}: {outcome}"
        elif role == "stranger" and of_a_project:
            assert outcome == "not found", f"{role}: {outcome}"
        else:
            assert outcome in {"refused", "not found"}, f"{role}: {outcome}"


def ask_for_page(name: str, method: str, world: World) -> None:
    named = EVERY_PAGE[name]
    known = {**world.known, **MOVES.get(name, {})}
    address = reverse(name, kwargs={key: known[key] for key in named})
    form = {field: value.format(**world.known) for field, value in FORMS.get(name, {}).items()}
    found = outcomes(world, lambda client: client.post(address, form) if method == "POST" else client.get(address))
    if name in {"sign-in", "enter", "icon", "healthz", "readyz"}:
        assert set(found.values()) == {"let in"}
    elif name in {"health", "unknown-address", "unknown-operation"}:
        assert set(found.values()) == {"error 503" if name == "health" else "not found"}
    elif name.startswith("rerank-"):
        assert set(found.values()) == {"signs in"}
    else:
        check(found, PAGES[name][method], of_a_project="slug" in named)


def ask_for_operation(operation: str, world: World) -> None:
    whom, body = OPERATIONS[operation]
    method, _, path = operation.partition(" ")
    address = "/api/v1" + path.format(**world.known)

    def send(client: Client) -> Any:
        if body == "file":
            return client.post(address, {"file": BytesIO(b"{}")})
        return client.generic(method, address, "" if body is None else json.dumps(body), "application/json")

    found = outcomes(world, send)
    if operation in OF_NOTHING:
        assert {found.pop(role) for role in whom} == {"not found"}
    check(
        found,
        whom,
        of_a_project=not {"{name}", "{key_id}", "{user_id}", "{limit_id}"} & set(re.findall(r"{\w+}", path))
        and "{" in path,
    )


def wrong(world: World, cases: Iterable[tuple[str, ...]], ask: Callable[..., None]) -> list[str]:
    """The cases whose outcome is another than the table's. All meet the same world: the changes of each are undone."""
    found = []
    for case in cases:
        try:
            with transaction.atomic():
                ask(*case, world)
                transaction.set_rollback(True)
        except AssertionError as error:
            found.append(f"{' '.join(reversed(case))}: {error}")
    return found


def test_a_page_is_for_whom_the_table_says(world: World) -> None:
    cases = [(name, method) for name, table in PAGES.items() for method in table if name not in COMMITTED]
    assert wrong(world, cases, ask_for_page) == []


def test_an_operation_is_for_whom_the_table_says(world: World) -> None:
    cases = [(operation,) for operation in OPERATIONS if operation not in COMMITTED]
    assert wrong(world, cases, ask_for_operation) == []


@pytest.mark.django_db(transaction=True)
def test_what_reads_in_a_snapshot_of_its_own_is_for_whom_the_table_says(world: World) -> None:
    for each in sorted(COMMITTED & PAGES.keys()):
        for method in PAGES[each]:
            ask_for_page(each, method, world)
    for each in sorted(COMMITTED & OPERATIONS.keys()):
        ask_for_operation(each, world)
