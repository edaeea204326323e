"""Every page and operation, asked by keys of each scope, by staff, superusers, removed members and deactivated users.

The rights of members stand in `tests/zelo_site/test_rights.py`. Here an address is compared with itself: a removed member finds
what a stranger finds, a deactivated user what a visitor finds, and a superuser is refused nothing.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from labeling.access.accounts import deactivate_account
from labeling.access.api_keys import SCOPES, make_token
from labeling.access.members import remove_member
from labeling.models import ApiToken, Membership, Role
from tests.factories.pages import make_user
from tests.factories.world.second import undone
from tests.factories.world.site import EVERY_OPERATION, EVERY_PAGE, World, make_world
from zelo_site.api.root import api

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]

DOCUMENT = json.loads(json.dumps(api.get_openapi_schema()))
# They read in a snapshot of their own, which no transaction may surround, and are asked only by those whom they refuse.
IN_A_SNAPSHOT = {"agreement", "report", "GET /projects/{slug}/agreement", "GET /projects/{slug}/report"}
# Staff may start projects; the rest of the server is for superusers.
FOR_STAFF = {"new-project", "preview-import", "import-archive", "POST /projects", "POST /archives"}
# Their changes end a session or the account that asks.
ENDS_THE_SESSION = {"sign-out"}
Address = tuple[str, str, str]
_senders = itertools.count()


@pytest.fixture
def world() -> World:
    return make_world()


def addresses(world: World) -> Iterator[Address]:
    """The name, the method and the path of every page and operation."""
    known = {**world.known, "token": "no-token"}
    for name, named in EVERY_PAGE.items():
        if name not in ENDS_THE_SESSION:
            for method in ("GET", "POST"):
                yield name, method, reverse(name, kwargs={key: known[key] for key in named})
    for operation, path in EVERY_OPERATION.items():
        yield operation, operation.partition(" ")[0], path.format(**known)


def ask(client: Client, address: Address, **headers: str) -> str:
    """What the client gets: let in, refused, not found, or sent to sign in; its changes are undone."""
    name, method, path = address
    body = ""
    if " " in name:
        described = DOCUMENT["paths"][EVERY_OPERATION[name]][method.lower()]
        content = described.get("requestBody", {}).get("content", {})
        if "application/json" in content:
            body = json.dumps(content["application/json"]["example"])
    kind = "application/json" if " " in name else "application/x-www-form-urlencoded"
    sender = f"198.51.100.{next(_senders) % 250}"  # guesses of keys are limited by address
    answer, _ = undone(lambda: client.generic(method, path, body, kind, REMOTE_ADDR=sender, **headers))
    if answer.status_code == 401 or (answer.status_code == 302 and answer.url.startswith(f"{reverse('sign-in')}?")):
        return "signs in"
    if answer.status_code >= 500 and answer.status_code != 503:
        return f"error {answer.status_code}"
    return {403: "refused", 404: "not found"}.get(answer.status_code, "let in")


def differences(world: World, one: Client, other: Client, **headers: str) -> list[str]:
    """The addresses at which the two clients do not get the same."""
    found = []
    for address in addresses(world):
        first, second = ask(one, address, **headers), ask(other, address)
        if first != second:
            found.append(f"{address[1]} {address[0]}: {first}, but {second}")
    return found


def test_a_deactivated_user_gets_what_a_visitor_gets(world: World) -> None:
    """With the session and with the key that were made before."""
    user = make_user("leaver", is_staff=True, is_superuser=True)
    Membership.objects.create(project_id=_project(world), user=user, role=Role.OWNER)
    key = make_token(user, name="before", scopes=SCOPES)
    client = Client(raise_request_exception=False)
    client.force_login(user)
    make_user("stays", is_superuser=True)
    deactivate_account(user)
    assert differences(world, client, Client(), HTTP_AUTHORIZATION=f"Bearer {key}") == []


def test_a_removed_member_gets_what_a_stranger_gets(world: World) -> None:
    user = make_user("leaver")
    project = Membership.objects.create(project_id=_project(world), user=user, role=Role.OWNER).project
    client = Client(raise_request_exception=False)
    client.force_login(user)
    remove_member(project, user)
    assert differences(world, client, world.client("stranger")) == []


def test_staff_may_start_projects_and_nothing_else(world: World) -> None:
    client = Client(raise_request_exception=False)
    client.force_login(make_user("clerk", is_staff=True))
    found = differences(world, client, world.client("stranger"))
    assert {each.partition(" ")[2].partition(":")[0] for each in found} <= FOR_STAFF
    assert {"new-project", "POST /projects"} <= {each.partition(" ")[2].partition(":")[0] for each in found}


def test_a_superuser_is_refused_nothing(world: World) -> None:
    client = Client(raise_request_exception=False)
    client.force_login(make_user("root", is_staff=True, is_superuser=True))
    for address in addresses(world):
        name, method, _ = address
        if name in IN_A_SNAPSHOT or (name in EVERY_PAGE and method == "POST"):
            continue
        outcome = ask(client, address)
        assert outcome in {"let in", "not found"} or name.startswith("rerank-"), f"{method} {name}: {outcome}"


# --- keys --------------------------------------------------------------------------------


def bearer(user: Any, *scopes: str, **made: Any) -> dict[str, str]:
    return {"HTTP_AUTHORIZATION": f"Bearer {make_token(user, name='k', scopes=scopes, **made)}"}


def test_a_key_does_what_its_scopes_say(world: World) -> None:
    """`read` reads, `write` changes, `admin` changes who may do what; each scope alone."""
    user = make_user("root", is_superuser=True)
    keys = {scope: bearer(user, scope) for scope in SCOPES}
    client = Client(raise_request_exception=False)
    for operation, path in EVERY_OPERATION.items():
        method = operation.partition(" ")[0]
        address = (operation, method, path.format(**world.known))
        if operation in IN_A_SNAPSHOT:
            continue
        opened = {scope for scope, key in keys.items() if ask(client, address, **key) != "refused"}
        is_admin = re.match(r"/api/v1/(projects/{slug}/(members|invitations)|keys|endpoints|users)(/|$)", path)
        assert opened == {"read" if method == "GET" else "admin" if is_admin else "write"}, operation


def test_a_key_opens_no_page(world: World) -> None:
    """But those for programs: of the comparison screen, of rerankers and of metrics."""
    key = bearer(make_user("root", is_superuser=True), *SCOPES)
    client, visitor = Client(raise_request_exception=False), Client(raise_request_exception=False)
    opened = {
        address[0]
        for address in addresses(world)
        if address[0] in EVERY_PAGE and ask(client, address, **key) != ask(visitor, address)
    }
    assert {name for name in opened if not name.startswith(("compare-", "rerank-"))} <= {"metrics"}


@pytest.mark.parametrize("why", ["expired", "revoked", "unknown"])
def test_a_key_that_is_not_valid_opens_nothing(why: str, world: World) -> None:
    key = bearer(world.users["owner"], *SCOPES)
    if why == "expired":
        ApiToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    elif why == "revoked":
        ApiToken.objects.all().delete()
    else:
        key = {"HTTP_AUTHORIZATION": "Bearer zelo_" + "x" * 43}
    client = Client(raise_request_exception=False)
    for operation, path in EVERY_OPERATION.items():
        address = (operation, operation.partition(" ")[0], path.format(**world.known))
        assert ask(client, address, **key) == "signs in", operation


def _project(world: World) -> int:
    return Membership.objects.get(user=world.users["owner"], project__slug=world.known["slug"]).project_id
