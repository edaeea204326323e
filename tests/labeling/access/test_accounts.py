"""Accounts: what each change does, what it refuses, and that the last superuser stays."""

from __future__ import annotations

from typing import Any

import pytest

from labeling.access.accounts import (
    AccountRefused,
    activate_account,
    change_account,
    create_account,
    deactivate_account,
    find_account,
    reset_account,
    set_superuser,
)
from labeling.access.annotators import get_person
from labeling.access.links import find_link, make_link, redeem
from labeling.models import Annotator, AuditEntry
from tests.factories.rows import make_project, make_user

pytestmark = pytest.mark.django_db


def rename(user: Any, **names: str) -> dict[str, str]:
    user.refresh_from_db()
    return change_account(user, **{"username": user.username, "full_name": "", "email": "", **names})


def test_an_account_is_found_by_name_and_by_address() -> None:
    ada = create_account("ada", full_name="Ada Lovelace", email="Ada@example.org")
    assert find_account(" ada ") == find_account("ada@EXAMPLE.org") == ada
    assert find_account("ADA") == find_account("ada lovelace") == ada
    assert find_account("") is find_account("a\x00da") is find_account("b@example.org") is find_account("Ada L") is None
    assert not ada.has_usable_password()


def test_an_address_of_two_accounts_finds_neither() -> None:
    make_user(email="x@example.org")
    make_user(email="X@example.org")
    assert find_account("x@example.org") is None


def test_a_shown_name_finds_its_only_active_account_and_hides_no_sign_in_name_or_address() -> None:
    ada = create_account("ada", full_name="Ada", email="ada@example.org")
    for name in ("ada", "ADA@example.org"):
        create_account(f"other{len(name)}", full_name=name)
        assert find_account(name) == ada
    first, second = (create_account(name, full_name="Анна") for name in ("guest-1", "guest-2"))
    assert find_account("анна") is None
    deactivate_account(second)
    assert find_account("анна") == first


@pytest.mark.parametrize(
    ("names", "field", "message"),
    [
        ({"username": "Ada"}, "username", "taken"),
        ({"username": "two words"}, "username", "letters, digits"),
        ({"username": "ada@example.org"}, "username", "no @"),
        ({"username": ""}, "username", "letters, digits"),
        ({"email": "nobody"}, "email", "name@example.org"),
        ({"email": "ADA@example.org"}, "email", "another account"),
        ({"full_name": "x" * 151}, "full_name", "at most 150"),
    ],
)
def test_a_wrong_name_is_refused_at_its_field(names: dict[str, str], field: str, message: str) -> None:
    create_account("ada", email="ada@example.org")
    other = make_user("other")
    with pytest.raises(AccountRefused, match=message) as refused:
        rename(other, **names)
    assert refused.value.field == field
    other.refresh_from_db()
    assert other.username == "other"


def test_a_new_name_reaches_the_person_s_answers_and_the_audit_log() -> None:
    user = make_user("guest-1")
    person = get_person(make_project(), user)
    changed = rename(user, username="emmy", full_name="Emmy Noether")
    assert changed == {"username": "guest-1 → emmy", "full_name": " → Emmy Noether"}
    assert Annotator.objects.get(pk=person.pk).name == "Emmy Noether"
    assert AuditEntry.objects.filter(action="account.changed", subject="emmy").count() == 1
    assert rename(user, full_name="Emmy Noether") == {}
    assert AuditEntry.objects.filter(action="account.changed").count() == 1


def test_a_deactivated_user_s_link_opens_nothing_until_the_account_is_active_again() -> None:
    user = make_user()
    token = make_link(user)
    assert deactivate_account(user) and not deactivate_account(user)
    assert find_link(token) is None
    with pytest.raises(AccountRefused, match="activate the account first"):
        reset_account(user)
    assert activate_account(user) and not activate_account(user)
    assert find_link(token) is not None


def test_a_reset_ends_the_password_and_older_links() -> None:
    user = make_user(password="long and secret")
    before = make_link(user)
    new = reset_account(user)
    user.refresh_from_db()
    assert not user.has_usable_password()
    assert find_link(before) is None
    assert redeem(new) == user


def test_the_last_active_superuser_stays() -> None:
    first, second = create_account("first", is_superuser=True), make_user("second")
    for change in (lambda: deactivate_account(first), lambda: set_superuser(first, False)):
        with pytest.raises(AccountRefused, match="last active superuser"):
            change()
    assert set_superuser(second, True) and not set_superuser(second, True)
    assert deactivate_account(first)
    assert set_superuser(first, False)  # an inactive one is not counted
    second.refresh_from_db()
    assert second.is_staff and second.is_superuser


def test_a_newcomer_gets_a_name_to_sign_in_with() -> None:
    project = make_project()
    names = [redeem(make_link(project=project, role="viewer"), name=name).username for name in ("Ada L.", "ada l", "")]
    assert names[0] == "ada-l"
    assert names[1].startswith("ada-l-") and names[2].startswith("guest-")
