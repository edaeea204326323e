"""Invitations, keys, sessions and sign-in as an attacker or a departing colleague would use them."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from labeling.access.api_keys import BadExpiry, find_token, make_token
from labeling.access.links import find_link, make_link
from labeling.access.members import invite, open_invitations
from labeling.models import ApiToken, AuditEntry, Membership, Role
from tests.factories.api import Api
from tests.factories.pages import make_project, make_user
from zelo_site.models import SignInSession

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse"


# --- invitations -------------------------------------------------------------------------


def test_invitation_ends_with_its_makers_right_to_invite() -> None:
    maker, project = make_user("maker"), make_project()
    member = Membership.objects.create(project=project, user=maker, role=Role.OWNER)
    token = invite(project, role="viewer", by=maker).token
    assert find_link(token) is not None
    for field, value, restored in (("role", Role.VIEWER, Role.OWNER),):
        Membership.objects.filter(pk=member.pk).update(**{field: value})
        assert find_link(token) is None
        assert not open_invitations(project).exists()
        Membership.objects.filter(pk=member.pk).update(**{field: restored})
    maker.is_active = False
    maker.save()
    assert find_link(token) is None
    maker.is_active = True
    maker.save()
    assert find_link(token) is not None
    member.delete()
    assert find_link(token) is None


def test_redeeming_is_audited_with_the_maker(client: Client) -> None:
    maker, project, guest = make_user("maker"), make_project(), make_user("guest")
    Membership.objects.create(project=project, user=maker, role=Role.OWNER)
    client.force_login(guest)
    for action in ("member.joined", "member.invitation_used"):
        client.post(reverse("enter", args=[invite(project, role="viewer", by=maker).token]))
        entry = AuditEntry.objects.get(action=action)
        assert (entry.subject, entry.details["made_by"]) == ("guest", "maker")


def test_sign_in_link_needs_a_press(client: Client) -> None:
    page = client.get(reverse("enter", args=[make_link(make_user())])).content.decode()
    assert "<button" in page
    assert "data-submit-now" not in page
    assert "_auth_user_id" not in client.session


# --- keys --------------------------------------------------------------------------------


def test_key_ends_on_its_day_and_records_its_use() -> None:
    token = make_token(make_user(), name="k", days=30)
    key = ApiToken.objects.get()
    assert timedelta(days=29) < key.expires_at - timezone.now() <= timedelta(days=30)  # type: ignore[operator]
    assert key.used_at is None
    assert find_token(token) is not None
    assert ApiToken.objects.get().used_at is not None
    ApiToken.objects.update(expires_at=timezone.now())
    assert find_token(token) is None
    for days in (0, 367):
        with pytest.raises(BadExpiry, match="expected 1 to 366"):
            make_token(make_user(f"u{days}"), name="k", days=days)


def test_keys_made_in_the_browser_and_over_rest_expire_unless_chosen(client: Client) -> None:
    user = make_user()
    client.force_login(user)
    client.post(reverse("tokens"), {"name": "a", "scope": "read", "days": "30"})
    client.post(reverse("tokens"), {"name": "b", "scope": "read", "days": ""})
    assert [key.expires_at is None for key in ApiToken.objects.order_by("id")] == [False, True]
    Api(user).post("/keys", {"name": "c", "scopes": ["read"]})
    assert ApiToken.objects.get(name="c").expires_at is not None


def test_changes_of_access_need_the_scope_admin() -> None:
    owner = make_user(is_superuser=True)
    project = make_project(owner)
    changes = [
        ("POST", f"/projects/{project.slug}/invitations", {"role": "owner"}),
        ("PATCH", f"/projects/{project.slug}/members/{owner.pk}", {"role": "owner"}),
        ("DELETE", f"/projects/{project.slug}/members/{owner.pk}", None),
        ("POST", "/keys", {"name": "more", "scopes": ["read"]}),
        ("DELETE", "/keys/1", None),
        ("POST", "/endpoints", {}),
        ("POST", "/users", {}),
        ("PATCH", f"/users/{owner.pk}", {}),
        ("DELETE", f"/users/{owner.pk}", None),
    ]
    for scopes, refused in ((("read", "write"), True), (("read", "write", "admin"), False)):
        api = Api(owner, *scopes)
        for method, path, body in changes:
            response = api.client.generic(
                method, f"/api/v1{path}", "{}" if body is None else json.dumps(body),
                content_type="application/json", headers=api.headers,
            )  # fmt: skip
            assert (response.status_code == 403 and "'admin'" in response.content.decode()) == refused, (method, path)
    moved = Api(owner, "read", "write")
    response = moved.client.post("/api/v1/keys", {}, "application/json", headers=moved.headers, SCRIPT_NAME="/below")
    assert response.status_code == 403, "a server below a prefix checks the same addresses"
    assert Api(owner, "read", "write").get(f"/projects/{project.slug}/members").status_code == 200


def test_keys_end_with_a_new_password_by_choice(client: Client) -> None:
    user = make_user("ada", password=PASSWORD)
    client.force_login(user)
    passwords = [PASSWORD, "another long one", "a third long one"]
    for old, new, chosen, left in ((0, 1, {}, 1), (1, 2, {"revoke_keys": "on"}, 0)):
        make_token(user, name="k") if not ApiToken.objects.exists() else None
        sent = {"old_password": passwords[old], "new_password1": passwords[new], "new_password2": passwords[new]}
        assert client.post(reverse("profile"), {**sent, **chosen}).status_code == 302
        assert ApiToken.objects.count() == left


# --- sessions and sign-in ----------------------------------------------------------------


def _signed_in(browser: str) -> Client:
    client = Client(HTTP_USER_AGENT=browser)
    assert client.post(reverse("sign-in"), {"username": "ada", "password": PASSWORD}).status_code == 302
    return client


def _is_in(client: Client) -> bool:
    return client.get(reverse("profile")).status_code == 200


def test_sessions_are_listed_and_ended() -> None:
    make_user("ada", password=PASSWORD)
    make_user("eve", password=PASSWORD)
    here, there, elsewhere = (_signed_in(name) for name in ("Firefox", "Chrome", "Safari"))
    page = here.get(reverse("profile")).content.decode()
    assert all(name in page for name in ("Firefox", "Chrome", "Safari", "127.0.0.1"))
    assert there.session.session_key not in page
    row = SignInSession.objects.get(browser="Chrome")
    eve = Client()
    eve.post(reverse("sign-in"), {"username": "eve", "password": PASSWORD})
    eve.post(reverse("sessions"), {"session": row.pk})
    assert _is_in(there)
    here.post(reverse("sessions"), {"session": row.pk})
    assert (_is_in(here), _is_in(there), _is_in(elsewhere), _is_in(eve)) == (True, False, True, True)
    here.post(reverse("sessions"), {"action": "others"})
    assert (_is_in(here), _is_in(elsewhere), _is_in(eve)) == (True, False, True)
    assert AuditEntry.objects.filter(action="account.session_ended").count() == 2


def test_a_new_password_ends_other_sessions() -> None:
    make_user("ada", password=PASSWORD)
    here, there = _signed_in("Firefox"), _signed_in("Chrome")
    sent = {"old_password": PASSWORD, "new_password1": "another long one", "new_password2": "another long one"}
    here.post(reverse("profile"), sent)
    assert (_is_in(here), _is_in(there)) == (True, False)


@pytest.mark.parametrize("by", ["name", "address"])
def test_guessing_is_limited_by_name_and_by_address(by: str) -> None:
    make_user("ada", password=PASSWORD)
    for number in range(11):
        name, address = ("ada", f"203.0.113.{number}") if by == "name" else (f"user-{number}", "203.0.113.1")
        Client(REMOTE_ADDR=address).post(reverse("sign-in"), {"username": name, "password": "wrong"})
    address = "198.51.100.1" if by == "name" else "203.0.113.1"
    sent = {"username": "ada", "password": PASSWORD}
    assert Client(REMOTE_ADDR=address).post(reverse("sign-in"), sent).status_code in {403, 429}


@pytest.mark.parametrize("name", ["a\x00da", "a" * 300, "\ud800", ""])
def test_odd_names_are_a_message(client: Client, name: str) -> None:
    response = client.post(reverse("sign-in"), {"username": name.encode("utf-8", "replace"), "password": "wrong"})
    assert response.status_code == 403
    assert "Wrong name or password" in response.content.decode()


def test_short_passwords_are_refused(client: Client) -> None:
    client.force_login(make_user("ada", password=PASSWORD))
    sent = {"old_password": PASSWORD, "new_password1": "k8#qz!9wx", "new_password2": "k8#qz!9wx"}
    response = client.post(reverse("profile"), sent)
    assert "at least 10 characters" in response.content.decode()


# --- headers -----------------------------------------------------------------------------


def test_private_responses_are_stored_nowhere(client: Client) -> None:
    user = make_user()
    project = make_project(user)
    client.force_login(user)
    for address in (
        reverse("projects"),
        reverse("profile"),
        reverse("project", args=[project.slug]),
        "/api/v1/projects",
    ):
        policy = client.get(address)["Cache-Control"]
        assert "private" in policy and ("no-store" in policy or "no-cache" in policy), address
    assert "no-store" in client.get("/no-such-page/")["Cache-Control"]


def test_no_page_loosens_the_content_security_policy(client: Client, settings: Any) -> None:
    client.force_login(make_user(is_superuser=True))
    for address in (reverse("projects"), reverse("sign-in"), "/api/v1/docs", "/no-such-page/"):
        policy = client.get(address)["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "script-src 'self';" in policy + ";", address
        assert "unsafe" not in policy and "http" not in policy, address
