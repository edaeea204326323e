"""Deletes a member's account. Memberships, keys and links go; answers stay, under the name of a former member.

Entries of the audit log keep the names that they were written with.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.db import transaction

from labeling import audit
from labeling.annotation.assignments import held_by, release
from labeling.models import AccessLink, Annotator, ApiToken, Judgment, Membership, Project, Role
from workers.deletion.targets import DeletionRefused
from workers.deletion.walk import Walk

FORMER = "former member"


def count_account(user: Any) -> dict[str, int]:
    """Counts of the rows deleted with an account (`memberships`, `keys`, `links`) and kept without its name (`judgments`)."""
    return {
        "memberships": Membership.objects.filter(user=user).count(),
        "keys": ApiToken.objects.filter(user=user).count(),
        "links": AccessLink.objects.filter(user=user).count(),
        "judgments": Judgment.objects.filter(annotator__user=user).count(),
    }


def delete_account(user: Any, *, by: Any = None) -> None:
    """Delete the account; its annotators are renamed to "former member". Raises DeletionRefused for a last owner."""
    with transaction.atomic():
        locked = get_user_model().objects.select_for_update().get(pk=user.pk)
        _check(locked)
        counts = count_account(locked)
        for person in Annotator.objects.filter(user=locked).select_related("project"):
            _free(person)
            person.name = f"{FORMER} {person.pk}"
            person.user = None
            person.save(update_fields=["name", "user"])
        name = locked.get_username()
        for project in Project.with_archived.filter(membership__user=locked):
            audit.note("member.removed", project=project, actor=by, subject=name, account="deleted")
        audit.note("account.deleted", project=None, actor=by, subject=name, **counts)
        Walk().delete(get_user_model().objects.filter(pk=locked.pk))


def _free(person: Annotator) -> None:
    release(list(held_by(person.pk).values()), person_id=person.pk)


def _check(user: Any) -> None:
    """Refuse where nobody could act any more: in a project, or on the server."""
    lonely = [
        member.project.slug
        for member in Membership.objects.filter(user=user, role=Role.OWNER).select_related("project")
        if not Membership.objects.filter(project=member.project, role=Role.OWNER, user__is_active=True)
        .exclude(user=user)
        .exists()
    ]
    if lonely:
        raise DeletionRefused(
            f"{user.get_username()!r} is the last owner of {', '.join(sorted(lonely))}; make another member an owner, or "
            "delete these projects and purge them first"
        )
    others = get_user_model().objects.filter(is_superuser=True, is_active=True).exclude(pk=user.pk)
    if user.is_superuser and not others.exists():
        raise DeletionRefused(f"{user.get_username()!r} is the last superuser; make another one first")
