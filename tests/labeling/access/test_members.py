"""Members of a project: inviting, changing roles, removing, and that an owner is always left."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from labeling.access.annotators import get_person
from labeling.access.links import LinkRefused, find_link, make_link, redeem
from labeling.access.members import (
    BadInvitation,
    MembershipRefused,
    invite,
    open_invitations,
    remove_member,
    resume_person,
    revoke_invitation,
    role_of,
    set_role,
)
from labeling.models import AccessLink, Annotator, Document, Judgment, Membership, Project, Query, Role, SpotCheck
from tests.factories.rows import judge_pair, make_member, make_pair, make_project, make_user

pytestmark = pytest.mark.django_db


# --- roles -------------------------------------------------------------------------------


def test_a_role_is_that_of_the_membership() -> None:
    project = make_project()
    for role in Role:
        assert role_of(make_member(project, role), project) == role
    assert role_of(make_user(), project) is None


def test_a_superuser_owns_everything_and_a_deactivated_owner_nothing() -> None:
    project = make_project()
    gone = make_member(project, Role.OWNER)
    gone.is_active = False
    assert role_of(make_user(is_superuser=True), project) == Role.OWNER
    assert role_of(gone, project) is None


def test_annotators_see_that_their_project_is_there_and_nothing_in_it() -> None:
    project = make_project(queries=1)
    blind, viewer = make_member(project, Role.ANNOTATOR), make_member(project, Role.VIEWER)
    pair = make_pair(project.queries.get())
    judge_pair(pair, get_person(project, viewer))
    assert list(Project.objects.visible_to(blind)) == [project]
    for model in (Query, Document, Judgment, Annotator):
        assert not model.objects.visible_to(blind).exists()  # type: ignore[attr-defined]
        assert model.objects.visible_to(viewer).exists()  # type: ignore[attr-defined]


# --- invitations -------------------------------------------------------------------------


def test_an_invitation_holds_for_its_days_and_leads_in_with_its_role() -> None:
    project = make_project()
    invitation = invite(project, role="annotator", days=3)
    link = open_invitations(project).get()
    assert timedelta(days=2, hours=23) < link.expires_at - timezone.now() <= timedelta(days=3)
    newcomer = redeem(invitation.token, name="Grace")
    assert role_of(newcomer, project) == Role.ANNOTATOR
    assert not open_invitations(project).exists()


@pytest.mark.parametrize(("role", "days"), [("king", 7), ("", 7), ("viewer", 0), ("viewer", 91)])
def test_an_invitation_that_cannot_be_used_is_refused(role: str, days: int) -> None:
    with pytest.raises(BadInvitation, match="expected"):
        invite(make_project(), role=role, days=days)
    assert not AccessLink.objects.exists()


def test_a_revoked_invitation_leads_nowhere() -> None:
    project = make_project()
    token = invite(project, role="viewer").token
    link = open_invitations(project).get()
    assert not revoke_invitation(make_project(), link.pk), "an owner elsewhere revokes nothing here"
    assert revoke_invitation(project, link.pk)
    assert not revoke_invitation(project, link.pk)
    assert find_link(token) is None
    with pytest.raises(LinkRefused):
        redeem(token, name="Grace")


def test_expired_and_personal_links_are_no_open_invitations() -> None:
    project = make_project()
    make_link(project=project, role="viewer", valid_for=timedelta(seconds=-1))
    make_link(make_user())
    assert not open_invitations(project).exists()


# --- changing and removing -----------------------------------------------------------------


def test_the_last_owner_stays_an_owner() -> None:
    project = make_project()
    owner, gone = make_member(project, Role.OWNER), make_member(project, Role.OWNER)
    gone.is_active = False
    gone.save()
    for change in (lambda: set_role(project, owner, "viewer"), lambda: remove_member(project, owner)):
        with pytest.raises(MembershipRefused, match="make another member an owner first"):
            change()
    assert role_of(owner, project) == Role.OWNER


def test_an_owner_may_go_once_there_is_another() -> None:
    project = make_project()
    owner, heir = make_member(project, Role.OWNER), make_member(project, Role.VIEWER)
    set_role(project, heir, "owner")
    remove_member(project, owner)
    assert [role_of(user, project) for user in (owner, heir)] == [None, Role.OWNER]


def test_an_unknown_role_and_a_stranger_are_refused() -> None:
    project = make_project()
    with pytest.raises(BadInvitation, match="expected one of owner, annotator, viewer"):
        set_role(project, make_member(project), "king")
    with pytest.raises(MembershipRefused, match="invite them first"):
        remove_member(project, make_user())


def test_answers_of_somebody_who_was_removed_stay_and_their_leases_go() -> None:
    project = make_project(queries=1)
    user = make_member(project, Role.ANNOTATOR)
    person = get_person(project, user)
    query = project.queries.get()
    judge_pair(make_pair(query), person)
    held = SpotCheck.objects.create(
        pair=make_pair(query, 1, 2), holder=person, place=1, lease_until=timezone.now() + timedelta(minutes=5)
    )
    remove_member(project, user)
    held.refresh_from_db()
    assert (held.holder, held.lease_until) == (None, None)
    assert Judgment.objects.live().filter(annotator=person).count() == 1


def test_a_paused_person_goes_on_with_a_clean_slate() -> None:
    project = make_project()
    user = make_member(project, Role.ANNOTATOR)
    person = get_person(project, user)
    Annotator.objects.filter(pk=person.pk).update(paused_at=timezone.now(), pause_reason="2 of 5 gold answers right")
    assert resume_person(project, user)
    assert not resume_person(project, user)
    person.refresh_from_db()
    assert (person.paused_at, person.pause_reason) == (None, "")
    assert person.watched_from is not None


@pytest.mark.django_db(transaction=True)
def test_two_owners_who_remove_each_other_leave_one() -> None:
    project = make_project()
    owners = [make_member(project, Role.OWNER) for _ in range(2)]
    gate = threading.Barrier(2)

    def remove(user: object) -> None:
        gate.wait()
        try:
            remove_member(project, user)
        except MembershipRefused:
            pass
        finally:
            connection.close()

    threads = [threading.Thread(target=remove, args=[user]) for user in owners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Membership.objects.filter(project=project).count() == 1
