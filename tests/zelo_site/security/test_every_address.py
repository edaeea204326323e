"""Every page and operation, asked by keys of each scope, by staff, superusers, removed members and deactivated users.

The rights of members stand in `tests/zelo_site/rights/`. Here no address needs a row of its own: a removed member finds
nothing of the project, a deactivated user signs in, and a superuser is refused nothing.
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
# Staff may start projects and look at the installation; the rest of the server is for superusers.
FOR_STAFF = {"new-project", "preview-import", "import-archive", "doctor", "plugins", "POST /projects", "POST /archives"}
# Nobody needs to sign in for these.
FOR_VISITORS = {
    "sign-in", "enter", "icon", "set-language", "health", "healthz", "readyz", "metrics", "unknown-address", "unknown-operation",
    "rerank-info", "rerank-models", "rerank-model", "rerank-model-short",
}  # fmt: skip
# Its change ends the session that asks.
ENDS_THE_SESSION = {"sign-out"}
Address = tuple[str, str, str]
_senders = itertools.count()


@pytest.fixture
def world() -> World:
    return make_world()


def pages(world: World, *methods: str) -> Iterator[Address]:
    """The name, the method and the path of every page, but for the one that ends the session."""
    known = {**world.known, "token": "no-token"}
    for name, named in EVERY_PAGE.items():
        if name not in ENDS_THE_SESSION:
            for method in methods:
                yield name, method, reverse(name, kwargs={key: known[key] for key in named})


def operations(world: World) -> Iterator[Address]:
    for operation, path in EVERY_OPERATION.items():
        yield operation, operation.partition(" ")[0], path.format(**world.known)


def is_of_a_project(address: Address) -> bool:
    """Whether the address names a project, or a row of one."""
    name, _, _ = address
    if name in EVERY_PAGE:
        return "slug" in EVERY_PAGE[name]
    named = set(re.findall(r"{(\w+)}", EVERY_OPERATION[name]))
    return bool(named) and not named & {"name", "key_id", "user_id", "limit_id", "archived"}


def answer_to(client: Client, address: Address, **headers: str) -> Any:
    """The response, whose changes are undone."""
    name, method, path = address
    body = ""
    if " " in name:
        described = DOCUMENT["paths"][EVERY_OPERATION[name]][method.lower()]
        content = described.get("requestBody", {}).get("content", {})
        if "application/json" in content:
            body = json.dumps(content["application/json"]["example"])
    kind = "application/json" if " " in name else "application/x-www-form-urlencoded"
    sender = f"198.51.100.{next(_senders) % 250}"  # guesses of keys are limited by address
    return undone(lambda: client.generic(method, path, body, kind, REMOTE_ADDR=sender, **headers))[0]


def ask(client: Client, address: Address, **headers: str) -> str:
    """What the client gets: let in, refused, not found, or sent to sign in."""
    answer = answer_to(client, address, **headers)
    if answer.status_code == 401 or (answer.status_code == 302 and answer.url.startswith(f"{reverse('sign-in')}?")):
        return "signs in"
    if answer.status_code >= 500 and answer.status_code != 503:
        return f"error {answer.status_code}"
    return {403: "refused", 404: "not found"}.get(answer.status_code, "let in")


def outcomes(client: Client, addresses: Iterator[Address], **headers: str) -> dict[str, set[str]]:
    """What the client gets, and where."""
    found: dict[str, set[str]] = {}
    for address in addresses:
        found.setdefault(ask(client, address, **headers), set()).add(address[0])
    return found


def test_a_deactivated_user_is_asked_to_sign_in(world: World) -> None:
    """With the session, and with the key, that were made before."""
    user = make_user("leaver", is_staff=True, is_superuser=True)
    Membership.objects.create(project_id=_project(world), user=user, role=Role.OWNER)
    key = f"Bearer {make_token(user, name='before', scopes=SCOPES)}"
    client = Client(raise_request_exception=False)
    client.force_login(user)
    make_user("stays", is_superuser=True)
    deactivate_account(user)
    found = outcomes(client, pages(world, "POST"))
    found.pop("signs in")
    assert set().union(*found.values()) <= FOR_VISITORS
    assert set(outcomes(client, operations(world), HTTP_AUTHORIZATION=key)) == {"signs in"}


def test_a_removed_member_finds_nothing_of_the_project_and_staff_may_only_start_others(world: World) -> None:
    user = make_user("leaver", is_staff=True)
    project = Membership.objects.create(project_id=_project(world), user=user, role=Role.OWNER).project
    client = Client(raise_request_exception=False)
    client.force_login(user)
    remove_member(project, user)
    every = [*pages(world, "GET"), *operations(world)]
    found = outcomes(client, filter(is_of_a_project, every))
    # A page that is only posted answers 405 to a GET, a body or file that does not fit 422; both before a project is looked up.
    let_in = found.pop("let in", set())
    assert set(found) == {"not found"}
    unread = [each for each in every if each[0] in let_in and is_of_a_project(each)]
    assert {answer_to(client, each).status_code for each in unread} <= {405, 422}
    stranger = world.client("stranger")
    others = [each for each in every if not is_of_a_project(each)]
    more = {each[0] for each in others if ask(client, each) != ask(stranger, each)}
    assert {"new-project", "POST /projects"} <= more <= FOR_STAFF


def test_a_superuser_is_refused_nothing(world: World) -> None:
    client = Client(raise_request_exception=False)
    client.force_login(make_user("root", is_staff=True, is_superuser=True))
    read = [each for each in (*pages(world, "GET"), *operations(world)) if each[1] == "GET"]
    found = outcomes(client, (each for each in read if each[0] not in IN_A_SNAPSHOT))
    assert set(found) <= {"let in", "not found", "signs in"}
    assert all(name.startswith("rerank-") for name in found.get("signs in", ()))


# --- keys --------------------------------------------------------------------------------


def bearer(user: Any, *scopes: str, **made: Any) -> dict[str, str]:
    return {"HTTP_AUTHORIZATION": f"Bearer {make_token(user, name='k', scopes=scopes, **made)}"}


def test_a_key_does_what_its_scopes_say(world: World) -> None:
    """`read` reads, `write` changes, `admin` changes who may do what: that scope is enough, and all others are not."""
    user = make_user("root", is_superuser=True)
    alone = {scope: bearer(user, scope) for scope in SCOPES}
    others = {scope: bearer(user, *(each for each in SCOPES if each != scope)) for scope in SCOPES}
    client = Client(raise_request_exception=False)
    for address in operations(world):
        name, method, _ = address
        if name in IN_A_SNAPSHOT:
            continue
        of_access = re.match(r"\w+ /(projects/{slug}/(members|invitations)|keys|endpoints|limits|users)(/|$)", name)
        needed = "read" if method == "GET" else "admin" if of_access else "write"
        assert ask(client, address, **others[needed]) == "refused", f"{name} without {needed}"
        if method != "GET":
            assert ask(client, address, **alone[needed]) != "refused", f"{name} with {needed} alone"


def test_a_key_opens_no_page(world: World) -> None:
    """But those for programs: of the comparison screen, of rerankers and of metrics."""
    key = bearer(make_user("root", is_superuser=True), *SCOPES)
    found = outcomes(Client(raise_request_exception=False), pages(world, "POST"), **key)
    found.pop("signs in")
    opened = {name for name in set().union(*found.values()) if not name.startswith(("compare-", "rerank-"))}
    assert opened <= {*FOR_VISITORS, "metrics"}


@pytest.mark.parametrize("why", ["expired", "revoked", "unknown"])
def test_a_key_that_is_not_valid_opens_nothing(why: str, world: World) -> None:
    key = bearer(world.users["owner"], *SCOPES)
    if why == "expired":
        ApiToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    elif why == "revoked":
        ApiToken.objects.all().delete()
    else:
        key = {"HTTP_AUTHORIZATION": "Bearer zelo_" + "x" * 43}
    asked = itertools.islice(operations(world), None if why == "expired" else 5)
    assert set(outcomes(Client(raise_request_exception=False), asked, **key)) == {"signs in"}


def _project(world: World) -> int:
    return Membership.objects.get(user=world.users["owner"], project__slug=world.known["slug"]).project_id
