"""Signing in: one-time links, invitations, passwords; and that nothing is public by accident."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.urls import URLPattern, reverse

from labeling.access.links import BadLink, LinkRefused, ensure_owner, find_link, make_link, redeem
from labeling.models import AccessLink, Membership
from tests.factories.pages import example_address, make_project, make_user
from zelo_site import urls

pytestmark = pytest.mark.django_db
# Addresses that programs ask without a key: whether the ranking server works (it does not run here), and what is no address.
WITHOUT_KEY = {"health": 503, "unknown-address": 404, "unknown-operation": 404, "healthz": 200, "readyz": 200}
PUBLIC = {"sign-in", "enter", "set-language", "icon"}


def test_link_signs_in_once(client: Client) -> None:
    address = reverse("enter", args=[make_link(make_user("ada"))])
    assert "ada" in client.get(address).content.decode()
    assert client.post(address).status_code == 302
    assert client.get(reverse("projects")).status_code == 200
    assert Client().post(address).status_code == 404


def test_looking_at_a_link_does_not_use_it_up(client: Client) -> None:
    address = reverse("enter", args=[make_link(make_user())])
    for _ in range(3):
        assert client.get(address).status_code == 200
    assert client.post(address).status_code == 302


def test_expired_link_is_refused(client: Client) -> None:
    token = make_link(make_user(), valid_for=timedelta(seconds=-1))
    assert client.post(reverse("enter", args=[token])).status_code == 404
    with pytest.raises(LinkRefused, match="ask for a new one"):
        redeem(token)


def test_link_of_a_deactivated_user_is_refused() -> None:
    user = make_user()
    token = make_link(user)
    user.is_active = False
    user.save()
    assert find_link(token) is None


def test_unknown_token_is_refused(client: Client) -> None:
    assert client.get(reverse("enter", args=["no-such-token"])).status_code == 404


def test_database_keeps_only_the_hash() -> None:
    token = make_link(make_user())
    stored = AccessLink.objects.values_list("token_hash", flat=True).get()
    assert token not in stored
    assert len(stored) == 64


def test_link_that_leads_nowhere_is_refused() -> None:
    with pytest.raises(BadLink, match="project and a role"):
        make_link()


def test_invitation_makes_a_newcomer_a_member(client: Client) -> None:
    project = make_project()
    address = reverse("enter", args=[make_link(project=project, role="annotator")])
    assert project.name in client.get(address).content.decode()
    client.post(address, {"name": "Grace"})
    member = Membership.objects.get(project=project)
    assert (member.role, member.user.first_name) == ("annotator", "Grace")
    assert not member.user.has_usable_password()


@pytest.mark.parametrize("name", ["Anna", "Anna O'Brien", "Анна", "anna@example.org"])
def test_a_newcomer_signs_in_by_the_name_that_she_gave(client: Client, name: str) -> None:
    client.post(reverse("enter", args=[make_link(project=make_project(), role="annotator")]), {"name": name})
    password = "a long enough password"
    client.post(reverse("profile"), {"new_password1": password, "new_password2": password})
    client.post(reverse("sign-out"))
    assert client.post(reverse("sign-in"), {"username": name, "password": password}).status_code == 302


def test_invitation_takes_the_signed_in_visitor_along(client: Client) -> None:
    user, project = make_user(), make_project()
    client.force_login(user)
    client.post(reverse("enter", args=[make_link(project=project, role="viewer")]))
    assert Membership.objects.get(project=project).user == user


def test_invitation_does_not_lower_a_role(client: Client) -> None:
    user = make_user()
    project = make_project(user)
    client.force_login(user)
    client.post(reverse("enter", args=[make_link(project=project, role="viewer")]))
    assert Membership.objects.get(project=project).role == "owner"


@pytest.mark.django_db(transaction=True)
def test_two_browsers_at_once_use_a_link_once() -> None:
    token = make_link(make_user())
    outcomes: list[str] = []
    gate = threading.Barrier(4)

    def use() -> None:
        gate.wait()
        try:
            redeem(token)
            outcomes.append("in")
        except LinkRefused:
            outcomes.append("refused")
        finally:
            connection.close()

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["in", "refused", "refused", "refused"]


def test_first_owner_has_no_password_and_stays_the_same() -> None:
    owner = ensure_owner()
    assert owner.is_superuser
    assert not owner.has_usable_password()
    assert ensure_owner() == owner


def test_password_signs_in(client: Client) -> None:
    make_user("ada", password="correct horse")
    answer = client.post(reverse("sign-in"), {"username": "ada", "password": "correct horse"})
    assert answer.url == reverse("projects")  # type: ignore[attr-defined]


def test_wrong_password_does_not(client: Client) -> None:
    make_user("ada", password="correct horse")
    answer = client.post(reverse("sign-in"), {"username": "ada", "password": "wrong"})
    assert answer.status_code == 403
    assert "Wrong name or password" in answer.content.decode()


def test_guessing_is_locked_out(client: Client) -> None:
    make_user("ada", password="correct horse")
    for _ in range(12):
        answer = client.post(reverse("sign-in"), {"username": "ada", "password": "wrong"})
    assert answer.status_code in {403, 429}
    locked = client.post(reverse("sign-in"), {"username": "ada", "password": "correct horse"})
    assert locked.status_code in {403, 429}


def test_next_address_of_another_host_is_ignored(client: Client) -> None:
    make_user("ada", password="correct horse")
    sent = {"username": "ada", "password": "correct horse", "next": "https://evil.example/"}
    assert client.post(reverse("sign-in"), sent).url == reverse("projects")  # type: ignore[attr-defined]


def test_a_name_that_cannot_be_one_is_refused(owner: Any) -> None:
    answer = Client().post(reverse("sign-in"), {"username": "a\x00da", "password": "correct horse"})
    assert answer.status_code == 403


def test_a_name_too_long_does_not_use_up_the_invitation(owner: Any) -> None:
    token = make_link(project=make_project(owner), role="viewer")
    answer = Client().post(reverse("enter", args=[token]), {"name": "x" * 151})
    assert answer.status_code == 422 and answer.content.decode().count('name-error"') == 2
    assert Client().post(reverse("enter", args=[token]), {"name": "Grace"}).status_code == 302


def test_signing_out_needs_a_post(client: Client) -> None:
    client.force_login(make_user())
    assert client.get(reverse("sign-out")).status_code == 405
    client.post(reverse("sign-out"))
    assert client.get(reverse("projects")).status_code == 302


def test_first_password_is_set_without_an_old_one(client: Client) -> None:
    user = make_user("ada")
    user.set_unusable_password()
    user.save()
    client.force_login(user)
    sent = {"new_password1": "a long enough secret", "new_password2": "a long enough secret"}
    assert client.post(reverse("profile"), sent).status_code == 302
    user.refresh_from_db()
    assert user.check_password("a long enough secret")
    assert client.get(reverse("projects")).status_code == 200, "setting a password must not sign out"


def test_changing_a_password_asks_for_the_old_one(client: Client) -> None:
    user = make_user("ada", password="correct horse")
    client.force_login(user)
    client.post(reverse("profile"), {"new_password1": "another long one", "new_password2": "another long one"})
    user.refresh_from_db()
    assert user.check_password("correct horse")


def _pages() -> list[URLPattern]:
    return [pattern for pattern in urls.urlpatterns if isinstance(pattern, URLPattern)]


@pytest.mark.parametrize("pattern", _pages(), ids=lambda pattern: str(pattern.name))
def test_nothing_is_shown_to_strangers(pattern: URLPattern, client: Client) -> None:
    answer = client.get(example_address(pattern))
    if pattern.name in PUBLIC:
        assert answer.status_code in {200, 404, 405}
    elif pattern.name in WITHOUT_KEY:
        assert answer.status_code == WITHOUT_KEY[str(pattern.name)]
        assert (
            answer["Content-Type"] in {"application/json", "application/problem+json"}
            and "/p/" not in answer.content.decode()
        )
    elif pattern.name == "metrics":
        assert answer.status_code == 401 and "zelo_" not in answer.content.decode()
    elif str(pattern.name).startswith("rerank-"):  # for programs: a sign-in page is no answer to them
        assert answer.status_code in {401, 404, 405}  # 404: an address below /models that does not exist
    else:
        assert answer.status_code == 302
        assert answer.url.startswith(reverse("sign-in"))  # type: ignore[attr-defined]


def test_the_schema_is_for_those_who_may_ask(client: Client) -> None:
    schema = "/api/v1/openapi.json"
    assert [client.get(schema, headers=headers).status_code for headers in ({}, {"Authorization": "Bearer x"})] == [
        401,
        401,
    ]
    client.force_login(make_user())
    assert "paths" in client.get(schema).json()
