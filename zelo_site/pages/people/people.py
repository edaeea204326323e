"""The people of a project: members and their figures, spot-check plans, and invitations.

Everyone who may read the project sees the tables; only owners can change things. `labeling.access.members` and
`scoring.spot_checks.plans` make the changes; each writes an audit log entry in the same transaction.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.contrib.auth import get_user_model
from django.db import transaction
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.cache import never_cache

from labeling.access.links import INVITATION_VALID
from labeling.access.members import (
    BadInvitation,
    MembershipRefused,
    invite,
    open_invitations,
    remove_member,
    resume_person,
    revoke_invitation,
    set_quota,
    set_role,
)
from labeling.annotation.rules import BadRules, Rules, rules_of, set_rules
from labeling.models import GoldAnswer, Membership, Project, Role, SpotCheck
from scoring.annotators.people import PersonFigures, people_figures
from scoring.models import SpotCheckPlan
from scoring.spot_checks.draws import BadPlan
from scoring.spot_checks.plans import plan_progress, plan_spot_checks, preview_spot_checks, withdraw_plan
from zelo_site.pages.scope import may_change, owned_project, visible_project
from zelo_site.templatetags.figures import count

DEFAULT_PAIRS = 50
DEFAULT_OVERLAP = 1
SHOWN_PLANS = 20
INVITATION_DAYS = (1, 7, 30)


@dataclass(frozen=True, slots=True)
class Person:
    """A table row: a member, or a former member whose answers stay; `figures` is set if they have answers."""

    user_id: int | None
    name: str
    username: str
    role: str
    quota: int | None
    is_you: bool
    figures: PersonFigures | None


@never_cache
def people_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the page; a POST is one of `ACTIONS`. Only the response to that POST shows a new invitation's link."""
    project = visible_project(request, slug)
    if request.method != "POST":
        return _page(request, project)
    project = owned_project(request, slug)
    action = ACTIONS.get(request.POST.get("action", ""))
    if action is None:
        return _page(request, project, error=_("Unknown action. Use a button on this page."), status=422)
    try:
        with transaction.atomic():
            return action(request, project) or redirect("people", slug=project.slug)
    except (BadInvitation, MembershipRefused, BadPlan, BadRules) as error:
        return _page(request, project, error=str(error), status=422)


def _page(
    request: HttpRequest, project: Project, *, link: str = "", error: str = "", status: int = 200
) -> HttpResponse:
    is_owner = may_change(request, project)
    plans = plan_progress(project)
    sent = request.POST if request.POST.get("action") == "plan" else QueryDict()
    context = {
        "project": project,
        "people": read_people(request, project),
        "plans": plans[:SHOWN_PLANS],
        "plans_left": max(0, len(plans) - SHOWN_PLANS),
        "gold_pairs": GoldAnswer.objects.filter(project=project).count(),
        "invitations": open_invitations(project) if is_owner else [],
        "roles": [(role.value, role_label(role)) for role in Role],
        "reasons": reasons(),
        "chosen": {
            "reason": sent.get("reason", SpotCheck.Reason.RANDOM),
            "pairs": sent.get("pairs", DEFAULT_PAIRS),
            "overlap": sent.get("overlap", DEFAULT_OVERLAP),
        },
        "rules": rules_of(project),
        "expected_share": round(100 * project.gold_accuracy),
        "days": INVITATION_DAYS,
        "default_days": INVITATION_VALID.days,
        "new_link": link,
        "error": error,
        "may_change": is_owner,
        "here": "people",
    }
    return render(request, "zelo/people.html", context, status=status)


def role_label(role: str) -> str:
    """Return a role's label."""
    return {Role.OWNER: _("owner"), Role.ANNOTATOR: _("annotator"), Role.VIEWER: _("viewer")}[Role(role)]


def reasons() -> list[dict[str, str]]:
    """Return the reasons for choosing pairs, each with its purpose."""
    named = SpotCheck.Reason
    return [
        {"value": named.RANDOM, "label": _("at random"), "help": _("a random sample of answered pairs; measures judges without bias")},
        {"value": named.DISAGREEMENT, "label": _("judges disagree"), "help": _("pairs on which two judges differ most")},
        {"value": named.UNCERTAIN, "label": _("uncertain"), "help": _("pairs with the least certain scores")},
        {"value": named.CROSS_QUERY, "label": _("across queries"), "help": _("pairs that put queries on a common scale")},
        {"value": named.GOLD, "label": _("gold"), "help": _("pairs with known answers from grades or adjudication; check annotators")},
    ]  # fmt: skip


def read_people(request: HttpRequest, project: Project) -> list[Person]:
    """Return the members, owners first, then former members with answers."""
    figures = {each.user_id or -each.annotator_id: each for each in people_figures(project)}
    members = Membership.objects.filter(project=project).select_related("user")
    order = {Role.OWNER: 0, Role.ANNOTATOR: 1, Role.VIEWER: 2}
    rows = [
        Person(
            member.user_id,
            member.user.get_full_name() or member.user.get_username(),
            member.user.get_username(),
            member.role,
            member.quota,
            member.user_id == request.user.pk,
            figures.pop(member.user_id, None),
        )
        for member in sorted(members, key=lambda member: (order[Role(member.role)], member.pk))
    ]
    gone = [
        Person(each.user_id, each.name, "", "", None, each.user_id == request.user.pk, each)
        for each in figures.values()
        if each.answers
    ]
    return rows + gone


# --- owner actions ----------------------------------------------------------------------


def _invite(request: HttpRequest, project: Project) -> HttpResponse:
    days = _number(request.POST.get("days", ""), INVITATION_VALID.days)
    invitation = invite(project, role=request.POST.get("role", ""), days=days, by=request.user)
    link = request.build_absolute_uri(reverse("enter", args=[invitation.token]))
    return _page(request, project, link=link)


def _revoke(request: HttpRequest, project: Project) -> None:
    if revoke_invitation(project, _number(request.POST.get("link", "")), by=request.user):
        messages.success(request, _("Invitation revoked."))
    else:
        messages.warning(request, _("That invitation was already used or has expired."))


def _set_role(request: HttpRequest, project: Project) -> None:
    user, role = _member(request, project), request.POST.get("role", "")
    set_role(project, user, role, by=request.user)
    messages.success(
        request, _("%(name)s now has the role %(role)s.") % {"name": _name(user), "role": role_label(role)}
    )


def _remove(request: HttpRequest, project: Project) -> None:
    user = _member(request, project)
    remove_member(project, user, by=request.user)
    messages.success(request, _("%(name)s is no longer a member; their answers stay.") % {"name": _name(user)})


def _quota(request: HttpRequest, project: Project) -> None:
    user, given = _member(request, project), request.POST.get("quota", "").strip()
    if given and not (given.isascii() and given.isdigit() and len(given) < 10):
        raise MembershipRefused(f"the quota is {given[:20]!r}; enter a whole number, or leave it empty for no quota")
    quota = int(given) if given else None
    set_quota(project, user, quota, by=request.user)
    if quota is None:
        messages.success(request, _("%(name)s has no quota.") % {"name": _name(user)})
    else:
        messages.success(
            request,
            ngettext("%(name)s has a quota of %(n)s answer.", "%(name)s has a quota of %(n)s answers.", quota)
            % {"name": _name(user), "n": count(quota)},
        )


def _resume(request: HttpRequest, project: Project) -> None:
    user = _member(request, project)
    if resume_person(project, user, by=request.user):
        messages.success(request, _("%(name)s resumed; earlier gold results reset.") % {"name": _name(user)})


def _plan(request: HttpRequest, project: Project) -> None:
    order = read_plan(request.POST)
    planned = plan_spot_checks(project, **order, seed=secrets.randbits(31), by=request.user)
    text = ngettext("Planned %(n)s pair.", "Planned %(n)s pairs.", planned.pairs) % {"n": count(planned.pairs)}
    if planned.pairs < planned.wanted:
        text += " " + _("No more pairs of this kind exist.")
    messages.success(request, text)


def _withdraw(request: HttpRequest, project: Project) -> None:
    plans = SpotCheckPlan.objects.visible_to(request.user).filter(project=project)
    plan = get_object_or_404(plans, pk=_number(request.POST.get("plan", "")))
    withdraw_plan(plan, by=request.user)
    messages.success(
        request,
        _("Unanswered pairs withdrawn. Existing answers and current assignments still count."),
    )


def _rules(request: HttpRequest, project: Project) -> None:
    rules = read_rules(request.POST)
    set_rules(project, rules, by=request.user)
    messages.success(request, _("Saved. The new rules apply from the next pair."))


def read_rules(sent: QueryDict) -> Rules:
    """Return the submitted rules. Raises BadRules for a value that is not a number."""
    try:
        return Rules(
            gold_every=int(sent.get("gold_every", "")),
            gold_feedback=sent.get("gold_feedback", ""),
            gold_answers=int(sent.get("gold_answers", "")),
            gold_accuracy=float(sent.get("gold_accuracy", "")) / 100.0,
            gold_tolerance=float(sent.get("gold_tolerance", "")),
            show_others_after="show_others_after" in sent,
            hidden_metadata=tuple(name.strip() for name in sent.get("hidden_metadata", "").split(",") if name.strip()),
            lease_s=int(sent.get("lease_s", "")),
        )
    except ValueError as error:
        raise BadRules(f"a rule is not a number: {error}; fill in every field") from error


ACTIONS: dict[str, Callable[[HttpRequest, Project], HttpResponse | None]] = {
    "invite": _invite,
    "revoke": _revoke,
    "role": _set_role,
    "remove": _remove,
    "quota": _quota,
    "resume": _resume,
    "plan": _plan,
    "withdraw": _withdraw,
    "rules": _rules,
}


def plan_preview(request: HttpRequest, slug: str) -> HttpResponse:
    """Return a fragment with the pairs and the hours of work that the current form values would plan."""
    project = owned_project(request, slug)
    context: dict[str, Any] = {"project": project}
    try:
        order = read_plan(request.GET)
        context["preview"] = preview_spot_checks(project, **order)
        context["is_gold"] = order["reason"] == SpotCheck.Reason.GOLD
    except BadPlan as error:
        context["error"] = str(error)
    return render(request, "zelo/parts/plan_preview.html", context)


def read_plan(sent: QueryDict) -> dict[str, Any]:
    """Return the submitted reason, pairs and overlap. Raises BadPlan for a value that is not a number."""
    order: dict[str, Any] = {"reason": sent.get("reason", "")}
    for name, default in (("pairs", DEFAULT_PAIRS), ("overlap", DEFAULT_OVERLAP)):
        given = sent.get(name, "").strip()
        if given and not (given.isascii() and given.isdigit() and len(given) < 10):
            raise BadPlan(f"{name} is {given[:20]!r}; enter a whole number")
        order[name] = int(given) if given else default
    return order


def _member(request: HttpRequest, project: Project) -> Any:
    members = get_user_model().objects.filter(membership__project=project)
    return get_object_or_404(members, pk=_number(request.POST.get("user", "")))


def _name(user: Any) -> str:
    return str(user.get_full_name() or user.get_username())


def _number(given: str, default: int = 0) -> int:
    return int(given) if given.isascii() and given.isdigit() and len(given) < 18 else default
