"""Lost links: an invitation is replaced, a guest gets a new sign-in link, and nobody enters another owner's projects."""

from __future__ import annotations

import pytest

from labeling.access.links import LinkRefused, find_link, redeem
from labeling.access.members import (
    MembershipRefused,
    guests,
    invite,
    new_sign_in_link,
    open_invitations,
    remove_member,
    renew_invitation,
)
from labeling.models import AuditEntry, Membership, Project
from tests.factories.pages import make_project, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return make_project(make_user("owner"))


def owner_of(project: Project) -> object:
    return Membership.objects.get(project=project, role="owner").user


def test_a_renewed_invitation_replaces_the_lost_one(project: Project) -> None:
    owner = owner_of(project)
    lost = invite(project, role="annotator", name="Ada Lovelace", by=owner)
    found = renew_invitation(project, open_invitations(project).get().pk, by=owner)
    assert found is not None and (found.role, found.name) == ("annotator", "Ada Lovelace")
    assert find_link(lost.token) is None
    user = redeem(found.token)
    assert (user.get_full_name(), user.get_username()) == ("Ada Lovelace", "ada-lovelace")
    assert renew_invitation(project, 999_999, by=owner) is None
    actions = AuditEntry.objects.filter(action__startswith="member.").order_by("id").values_list("action", flat=True)
    assert list(actions) == ["member.invited", "member.invitation_revoked", "member.invited", "member.joined"]


def test_newcomers_may_give_another_name(project: Project) -> None:
    user = redeem(invite(project, role="viewer", name="Ada", by=owner_of(project)).token, name="Augusta Ada")
    assert user.get_full_name() == "Augusta Ada"


def test_a_guest_gets_a_new_link_that_ends_the_earlier_one_and_goes_with_the_membership(project: Project) -> None:
    owner = owner_of(project)
    guest = redeem(invite(project, role="annotator", by=owner).token, name="Grace")
    first = new_sign_in_link(project, guest, by=owner)
    second = new_sign_in_link(project, guest, by=owner)
    with pytest.raises(LinkRefused):
        redeem(first)
    assert redeem(second) == guest
    third = new_sign_in_link(project, guest, by=owner)
    remove_member(project, guest, by=owner)
    with pytest.raises(LinkRefused):
        redeem(third)


def test_no_link_to_accounts_that_open_more_than_ones_own_projects(project: Project) -> None:
    owner = owner_of(project)
    members = {name: make_user(name) for name in ("password", "staff", "elsewhere", "gone", "guest")}
    for user in members.values():
        Membership.objects.create(project=project, user=user, role="annotator")
    members["password"].set_password("long enough and secret")
    members["staff"].is_staff = True
    members["gone"].is_active = False
    Membership.objects.create(project=make_project(make_user()), user=members["elsewhere"], role="viewer")
    for name, user in members.items():
        user.save()
        if name != "guest":
            with pytest.raises(MembershipRefused):
                new_sign_in_link(project, user, by=owner)
    assert guests(list(members.values()), by=owner) == {members["guest"].pk}
    superuser = make_user(is_superuser=True)
    assert guests(list(members.values()), by=superuser) == {members["guest"].pk, members["elsewhere"].pk}
