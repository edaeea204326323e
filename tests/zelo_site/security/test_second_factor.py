"""The second factor: a password alone opens nothing, codes work once, guessing waits, and another superuser can reset it."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from django_otp.oath import totp
from django_otp.plugins.otp_static.models import StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice
from pytest_django import Settings

from labeling.access.links import make_link
from labeling.access.second_factor import WrongCode, check_code, has_second_factor, new_device, turn_on
from labeling.models import AuditEntry
from tests.factories.api import Api
from tests.factories.pages import make_user

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse"
PAGE = "/second-factor/"


def code_of(user: Any, *, steps: int = 0) -> str:
    """The code that the user's app shows now, or some steps of 30 seconds later."""
    device = TOTPDevice.objects.get(user=user)
    return f"{totp(device.bin_key, device.step, device.t0, device.digits, device.drift + steps):06}"


def with_factor(name: str = "ada", **fields: Any) -> tuple[Any, list[str]]:
    user = make_user(name, password=PASSWORD, **fields)
    new_device(user)
    return user, turn_on(user, code_of(user))


def signed_in(name: str = "ada") -> Client:
    client = Client()
    assert client.post(reverse("sign-in"), {"username": name, "password": PASSWORD}).status_code == 302
    return client


def test_a_password_alone_opens_nothing_but_the_page_of_the_code() -> None:
    with_factor(is_superuser=True)
    client = signed_in()
    for address in ("/", "/profile/", "/admin/", "/endpoints/", "/docs/"):
        answer = client.get(address)
        assert answer.status_code == 302 and answer.url.startswith(PAGE), address
    bogus = {"HTTP_AUTHORIZATION": "Bearer zelo_bogus"}
    for headers in ({}, bogus):
        assert client.get("/api/v1/projects", **headers).status_code == 403
    assert client.post(reverse("profile"), {"new_password1": "x"}).url.startswith(PAGE)
    assert client.get(PAGE).status_code == 200


def test_the_code_signs_in_once_and_leads_on() -> None:
    user, _codes = with_factor()
    client = signed_in()
    code = code_of(user, steps=1)
    answer = client.post(PAGE, {"code": code, "next": "/jobs/"})
    assert (answer.status_code, answer.url) == (302, "/jobs/")
    assert client.get("/jobs/").status_code == 200
    other = signed_in()
    refused = other.post(PAGE, {"code": code})
    assert (refused.status_code, "was used before" in refused.content.decode()) == (422, True)
    assert other.get("/jobs/").status_code == 302


def test_a_one_time_link_needs_the_code_too() -> None:
    user, _codes = with_factor()
    client = Client()
    client.post(reverse("enter", args=[make_link(user)]))
    assert client.get("/").url.startswith(PAGE)


def test_each_backup_code_signs_in_once() -> None:
    _user, codes = with_factor()
    assert len(set(codes)) == 10
    for _ in range(2):
        client = signed_in()
        status = client.post(PAGE, {"code": codes[0]}).status_code
        assert client.get("/jobs/").status_code == (200 if status == 302 else 302)
    assert StaticToken.objects.count() == 9


def test_guessing_makes_the_right_code_wait() -> None:
    user, codes = with_factor()
    for _ in range(3):
        with pytest.raises(WrongCode):
            check_code(user, "000000")
    for right in (code_of(user, steps=1), codes[1]):
        with pytest.raises(WrongCode):
            check_code(user, right)


@pytest.mark.parametrize("code", ["a\x00b", "1" * 300, "", "\ud800", "12345x"])
def test_odd_codes_are_a_message(code: str) -> None:
    with_factor()
    answer = signed_in().post(PAGE, {"code": code.encode("utf-8", "replace")})
    assert (
        answer.status_code == 422 and 'class="error"' in answer.content.decode()
    ) or "errors" in answer.content.decode()


def test_setting_it_up_ends_sessions_that_were_never_asked_for_a_code() -> None:
    user = make_user("ada", password=PASSWORD)
    here, there = signed_in(), signed_in()
    page = here.get(PAGE).content.decode()
    assert "qrline" in page and TOTPDevice.objects.get(user=user).confirmed is False
    answer = here.post(PAGE, {"action": "on", "code": code_of(user)}).content.decode()
    assert all(token in answer for token in StaticToken.objects.values_list("token", flat=True))
    assert here.get("/jobs/").status_code == 200
    assert there.get("/jobs/").url.startswith(reverse("sign-in"))
    assert AuditEntry.objects.filter(action="account.second_factor_on", actor=user).count() == 1


def test_a_session_without_its_code_cannot_turn_it_off_or_read_codes() -> None:
    user, _codes = with_factor()
    client = signed_in()
    page = client.get(PAGE).content.decode()
    device = TOTPDevice.objects.get(user=user)
    assert "qrline" not in page and device.key not in page
    client.post(PAGE, {"action": "off", "code": "000000"})
    assert has_second_factor(user)


@pytest.mark.parametrize(
    ("demanded", "fields", "asked"),
    [
        ("", {"is_superuser": True}, False),
        ("SUPERUSERS", {"is_superuser": True}, True),
        ("SUPERUSERS", {"is_staff": True}, False),
        ("STAFF", {"is_staff": True}, True),
        ("STAFF", {}, False),
    ],
)
def test_the_operator_demands_it(demanded: str, fields: dict[str, bool], asked: bool, settings: Settings) -> None:
    settings.ZELO_SECOND_FACTOR = demanded
    user = make_user("ada", password=PASSWORD, **fields)
    client = signed_in()
    assert client.get("/jobs/").status_code == (302 if asked else 200)
    assert Api(user).get("/projects").status_code == 200, "keys need no code"
    if asked:
        client.get(PAGE)
        client.post(PAGE, {"action": "on", "code": code_of(user)})
        assert client.get("/jobs/").status_code == 200
        client.post(PAGE, {"action": "off", "code": code_of(user, steps=1)})
        assert has_second_factor(user)


def test_its_owner_turns_it_off_with_a_code() -> None:
    user, codes = with_factor()
    client = signed_in()
    client.post(PAGE, {"code": codes[0]})
    client.post(PAGE, {"action": "off", "code": codes[1]})
    assert not has_second_factor(user)
    assert signed_in().get("/jobs/").status_code == 200


def test_a_superuser_resets_it_and_nobody_else() -> None:
    user, _codes = with_factor()
    other = Api(make_user("eve"))
    address = f"/api/v1/users/{user.pk}/second-factor"
    assert other.client.delete(address, headers=other.headers).status_code == 403
    root = Api(make_user("root", is_superuser=True))
    assert root.client.delete(address, headers=root.headers).status_code == 204
    assert root.client.delete(address, headers=root.headers).status_code == 404
    entry = AuditEntry.objects.get(action="account.second_factor_off")
    assert (entry.actor_name, entry.subject) == ("root", "ada")
    assert signed_in().get("/jobs/").status_code == 200


def test_the_command_resets_it() -> None:
    user, _codes = with_factor()
    said = io.StringIO()
    call_command("second_factor", "ada", stdout=said)
    call_command("second_factor", "ada", "--reset", stdout=said)
    assert said.getvalue().splitlines() == [
        "ada has a second factor and 10 backup codes", "removed the second factor of ada",
    ]  # fmt: skip
    assert not has_second_factor(user)
