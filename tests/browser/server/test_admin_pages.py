"""The admin in a browser: each page in each look without a complaint, by keyboard, and an account from start to end."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from labeling.models import AuditEntry, Membership
from tests.browser.checks import Start, faults_in_looks
from tests.factories.world.changes import a_failed_question, a_key
from tests.factories.world.site import World, make_world
from workers.models import Worker

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

LISTS = (
    "workers_run", "workers_job", "auth_user", "labeling_membership", "labeling_accesslink", "labeling_apitoken",
    "workers_judgingtask", "workers_worker", "workers_endpointdefinition", "workers_endpointstate", "labeling_auditentry",
)  # fmt: skip


@pytest.fixture
def world() -> World:
    world = make_world()
    a_key(world)
    a_failed_question(world)
    Worker.objects.create(name="cpu@host:1", queues="judging-cpu", host="host", pid=1)
    world.users["admin"] = User.objects.create_superuser("admin", first_name="Grace Hopper")
    return world


@pytest.mark.parametrize(
    "lists", [LISTS[:2], pytest.param(LISTS[2:], marks=pytest.mark.long)], ids=["two lists", "others"]
)
def test_every_page_of_the_admin_looks_right(lists: tuple[str, ...], world: World, visit: Start) -> None:
    """Lists share one template; that all answer without inline styles and scripts, `test_admin` checks."""
    visited = visit(world.users["admin"])
    faults: dict[str, Any] = {}
    own = [reverse(f"admin:{name}") for name in ("index", "storage", "plugins", "auth_user_add")]
    for address in [*own, *(reverse(f"admin:{name}_changelist") for name in lists)]:
        page = visited.open(address)
        assert page.locator("h1").inner_text()
        name = address.strip("/").replace("/", "-")
        faults |= faults_in_looks(visited, name)
        if address.count("/") == 4 and page.locator("#result_list tbody th a").count():
            page.locator("#result_list tbody th a").first.click()
            page.wait_for_load_state()
            faults |= faults_in_looks(visited, f"{name}-row")
    assert faults == {}
    assert visited.complaints == []


def test_an_account_from_start_to_end(world: World, visit: Start) -> None:
    visited = visit(world.users["admin"])
    page = visited.open(reverse("admin:auth_user_add"))
    page.get_by_label("Sign-in name").fill("owner")
    page.get_by_role("button", name="Save").click()
    assert "taken" in page.locator(".errorlist").inner_text()
    page.get_by_label("Sign-in name").fill("emmy")
    page.get_by_label("E-mail address").fill("emmy@example.org")
    page.get_by_role("button", name="Save").click()
    link = page.locator("main, #main").get_by_text("One-time link of emmy").inner_text().rpartition(" ")[2]
    newcomer = visit()
    newcomer.page.goto(link)
    newcomer.page.get_by_role("button", name="Sign in").click()
    newcomer.page.wait_for_url("**/")
    newcomer.open(reverse("profile"))
    newcomer.page.get_by_label("Sign-in name").fill("noether")
    newcomer.page.get_by_role("button", name="Save names").click()
    newcomer.page.locator("#id_new_password1").fill("quite long enough 7")
    newcomer.page.locator("#id_new_password2").fill("quite long enough 7")
    newcomer.page.get_by_role("button", name="Save", exact=True).click()
    newcomer.page.get_by_role("button", name="Sign out", exact=True).click()
    newcomer.page.get_by_label("Name or e-mail address").fill("EMMY@example.org")
    newcomer.page.get_by_label("Password").fill("quite long enough 7")
    newcomer.page.get_by_role("main").get_by_role("button", name="Sign in").click()
    assert newcomer.open(reverse("profile")).get_by_text("noether").count()

    page = visited.open(reverse("admin:auth_user_changelist") + "?q=noether")
    page.locator(".action-select").check()
    page.locator("select[name=action]").select_option("deactivate")
    page.get_by_role("button", name="Run").click()
    page.wait_for_selector("text=1 changed.")
    newcomer.page.reload()
    assert "/sign-in/" in newcomer.page.url
    actions = AuditEntry.objects.filter(subject="noether").values_list("action", flat=True)
    assert {"account.changed", "account.password_set", "account.deactivated"} <= set(actions)


def test_by_keyboard_alone_a_member_is_removed_after_a_question(world: World, visit: Start) -> None:
    visited = visit(world.users["admin"])
    page = visited.open(reverse("admin:labeling_membership_changelist"))
    page.keyboard.press("/")
    page.keyboard.type("viewer")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=viewer**")
    page.locator(".action-select").focus()
    page.keyboard.press("Space")
    page.locator("select[name=action]").focus()
    page.keyboard.type("Remove")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Remove these members?")
    assert Membership.objects.filter(user=world.users["viewer"]).exists()
    page.get_by_role("button", name="Yes, continue").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("text=1 changed.")
    assert not Membership.objects.filter(user=world.users["viewer"]).exists()
    assert visited.complaints == []


def test_the_menu_opens_on_a_phone(world: World, visit: Start) -> None:
    page = visit(world.users["admin"], look="phone").open(reverse("admin:index"))
    assert not page.get_by_role("link", name="Users").is_visible()
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("link", name="Users").click()
    page.wait_for_url("**/auth/user/")
