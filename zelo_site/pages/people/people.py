"""The people of a project: members and their figures, spot-check plans, and invitations.

Everyone who may read the project sees the tables; only owners can change things. `labeling.access.members` and
`scoring.spot_checks.plans` make the changes; each writes an audit log entry in the same transaction.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth import get_user_model
from django.db import transaction
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.cache import never_cache

from labeling.access.links import INVITATION_VALID
from labeling.access.members import (
    MOST_DAYS,
    BadInvitation,
    MembershipRefused,
    guests,
    invite,
    new_sign_in_link,
    open_invitations,
    remove_member,
    renew_invitation,
    resume_person,
    revoke_invitation,
    set_quota,
    set_role,
)
from labeling.annotation.rules import MOST_GOLD_ANSWERS, MOST_PAIRS_BEFORE_GOLD, BadRules, Rules, rules_of, set_rules
from labeling.models import GoldAnswer, GoldFeedback, Membership, Project, Role, SpotCheck
from scoring.annotators.people import PersonFigures, pairs_left, people_figures
from scoring.models import SpotCheckPlan
from scoring.spot_checks.draws import MOST_OVERLAP, MOST_PAIRS, BadPlan
from scoring.spot_checks.plans import plan_progress, plan_spot_checks, preview_spot_checks, withdraw_plan
from zelo_site.pages.forms import BadForm, CommaList, PageForm, chosen_or_404, one_of, shown_form, whole_number
from zelo_site.pages.scope import may_change, owned_project, visible_project
from zelo_site.templatetags.figures import count

DEFAULT_PAIRS = 50
DEFAULT_OVERLAP = 1
SHOWN_PLANS = 20
INVITATION_DAYS = (1, 7, 30)
MOST_QUOTA = 1_000_000


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
    left: int = 0
    may_get_link: bool = False

    @property
    def planned(self) -> int | None:
        """Return how many answers the person gives if all open pairs stay open for them; None for viewers."""
        if self.role not in {Role.OWNER, Role.ANNOTATOR}:
            return None
        done = self.figures.answers if self.figures else 0
        return min(done + self.left, self.quota) if self.quota is not None else done + self.left


class InviteForm(PageForm):
    """The role of an invitation, and the number of days it is valid."""

    role = forms.ChoiceField(label=gettext_lazy("Role"), choices=Role.choices)
    name = forms.CharField(label=gettext_lazy("Name"), max_length=150, required=False)
    days = forms.IntegerField(label=gettext_lazy("Valid for"), min_value=1, max_value=MOST_DAYS, required=False)


class RoleForm(PageForm):
    """A member's role."""

    role = forms.ChoiceField(label=gettext_lazy("Role"), choices=Role.choices)


class QuotaForm(PageForm):
    """A member's answer limit; empty for no limit."""

    quota = forms.IntegerField(label=gettext_lazy("answer limit"), min_value=0, max_value=MOST_QUOTA, required=False)


class PlanForm(PageForm):
    """A spot-check plan: the reason, the number of pairs, and the people per pair."""

    reason = forms.ChoiceField(label=gettext_lazy("Which pairs"), choices=SpotCheck.Reason.choices)
    pairs = forms.IntegerField(label=gettext_lazy("Pairs"), min_value=1, max_value=MOST_PAIRS, required=False)
    overlap = forms.IntegerField(
        label=gettext_lazy("People per pair"), min_value=1, max_value=MOST_OVERLAP, required=False
    )


class RulesForm(PageForm):
    """The rules of annotation and gold checks; `gold_accuracy` is in per cent."""

    gold_every = forms.IntegerField(label=gettext_lazy("Gold interval"), min_value=0, max_value=MOST_PAIRS_BEFORE_GOLD)
    gold_answers = forms.IntegerField(label=gettext_lazy("Minimum answers"), min_value=1, max_value=MOST_GOLD_ANSWERS)
    gold_accuracy = forms.FloatField(label=gettext_lazy("Minimum accuracy (%)"), min_value=0, max_value=100)
    gold_tolerance = forms.FloatField(label=gettext_lazy("Tolerance"), min_value=0, max_value=1)
    lease_s = forms.IntegerField(label=gettext_lazy("Lease (seconds)"), min_value=10, max_value=7200)
    gold_feedback = forms.ChoiceField(label=gettext_lazy("Feedback after gold"), choices=GoldFeedback.choices)
    show_others_after = forms.BooleanField(required=False)
    hidden_metadata = CommaList(label=gettext_lazy("Hidden metadata"), required=False)

    @classmethod
    def of(cls, rules: Rules) -> dict[str, Any]:
        """Return the rules as initial values of the form."""
        values = dataclasses.asdict(rules)
        return values | {
            "gold_accuracy": round(100 * rules.gold_accuracy),
            "gold_tolerance": f"{rules.gold_tolerance:g}",
        }

    def rules(self) -> Rules:
        """Return the submitted rules. Raises BadForm."""
        values = self.checked()
        names = tuple(values["hidden_metadata"])
        return Rules(**{**values, "gold_accuracy": values["gold_accuracy"] / 100.0, "hidden_metadata": names})


@never_cache
def people_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the page; a POST is one of `ACTIONS`. Only the response to that POST shows a new invitation's link."""
    project = visible_project(request, slug)
    if request.method != "POST":
        return _page(request, project)
    project = owned_project(request, slug)
    action = ACTIONS.get(one_of(request.POST, "action", ACTIONS))
    if action is None:
        return _page(request, project, error=_("Unknown action. Use a button on this page."), status=422)
    try:
        with transaction.atomic():
            return action(request, project) or redirect("people", slug=project.slug)
    except (BadForm, BadInvitation, MembershipRefused, BadPlan, BadRules) as error:
        return _page(request, project, error=error, status=422)


def _page(
    request: HttpRequest, project: Project, *, link: str = "", error: Exception | str | None = None, status: int = 200
) -> HttpResponse:
    is_owner = may_change(request, project)
    plans = plan_progress(project)
    action = one_of(request.POST, "action", ACTIONS) if error else ""
    sent = {action: request.POST}
    refused = error if isinstance(error, BadForm) else None
    rules = rules_of(project)
    context = {
        "project": project,
        "people": read_people(request, project),
        "plans": plans[:SHOWN_PLANS],
        "plans_left": max(0, len(plans) - SHOWN_PLANS),
        "gold_pairs": GoldAnswer.objects.filter(project=project).count(),
        "invitations": open_invitations(project) if is_owner else [],
        "roles": [(role.value, role_label(role)) for role in Role],
        "reasons": reasons(),
        "sent": action,
        "invite_form": shown_form(InviteForm, sent.get("invite"), refused, auto_id="invite-%s"),
        "plan_form": shown_form(
            PlanForm,
            sent.get("plan"),
            refused,
            initial={"reason": SpotCheck.Reason.RANDOM, "pairs": DEFAULT_PAIRS, "overlap": DEFAULT_OVERLAP},
        ),
        "rules_form": shown_form(RulesForm, sent.get("rules"), refused, initial=RulesForm.of(rules)),
        "refused_user": whole_number(request.POST, "user") if action in {"role", "quota"} else None,
        "role_form": shown_form(RoleForm, sent.get("role"), refused),
        "quota_form": shown_form(QuotaForm, sent.get("quota"), refused),
        "rules": rules,
        "expected_share": round(100 * project.gold_accuracy),
        "days": INVITATION_DAYS,
        "default_days": INVITATION_VALID.days,
        "new_link": link,
        "error": error,
        "may_change": is_owner,
        "here": "people",
    }
    return render(request, "zelo/people/people.html", context, status=status)


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
    left = pairs_left(project)
    members = Membership.objects.filter(project=project).select_related("user")
    is_owner = may_change(request, project)
    linkable = guests([member.user for member in members], by=request.user) if is_owner else set()
    order = {Role.OWNER: 0, Role.ANNOTATOR: 1, Role.VIEWER: 2}
    rows = [
        Person(
            member.user_id,
            member.user.get_full_name() or member.user.get_username(),
            member.user.get_username(),
            member.role,
            member.quota,
            member.user_id == request.user.pk,
            own := figures.pop(member.user_id, None),
            left.of(own.annotator_id if own else None),
            member.user_id in linkable,
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
    values = InviteForm(request.POST, auto_id="invite-%s").checked()
    days = values["days"] or INVITATION_VALID.days
    invitation = invite(project, role=values["role"], days=days, name=values["name"], by=request.user)
    return _shown_link(request, project, invitation.token)


def _shown_link(request: HttpRequest, project: Project, token: str) -> HttpResponse:
    return _page(request, project, link=request.build_absolute_uri(reverse("enter", args=[token])))


def _renew(request: HttpRequest, project: Project) -> HttpResponse | None:
    invitation = renew_invitation(project, whole_number(request.POST, "link") or 0, by=request.user)
    if invitation is not None:
        return _shown_link(request, project, invitation.token)
    messages.warning(request, _("That invitation was already used or has expired."))
    return None


def _sign_in_link(request: HttpRequest, project: Project) -> HttpResponse:
    return _shown_link(request, project, new_sign_in_link(project, _member(request, project), by=request.user))


def _revoke(request: HttpRequest, project: Project) -> None:
    if revoke_invitation(project, whole_number(request.POST, "link") or 0, by=request.user):
        messages.success(request, _("Invitation revoked."))
    else:
        messages.warning(request, _("That invitation was already used or has expired."))


def _set_role(request: HttpRequest, project: Project) -> None:
    user = _member(request, project)
    role = RoleForm(request.POST, auto_id=f"%s-{user.pk}").checked()["role"]
    set_role(project, user, role, by=request.user)
    messages.success(
        request, _("%(name)s now has the role %(role)s.") % {"name": _name(user), "role": role_label(role)}
    )


def _remove(request: HttpRequest, project: Project) -> None:
    user = _member(request, project)
    remove_member(project, user, by=request.user)
    messages.success(request, _("%(name)s is no longer a member; their answers stay.") % {"name": _name(user)})


def _quota(request: HttpRequest, project: Project) -> None:
    user = _member(request, project)
    quota = QuotaForm(request.POST, auto_id=f"%s-{user.pk}").checked()["quota"]
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
    withdraw_plan(chosen_or_404(plans, request.POST, "plan"), by=request.user)
    messages.success(
        request,
        _("Unanswered pairs withdrawn. Existing answers and current assignments still count."),
    )


def _rules(request: HttpRequest, project: Project) -> None:
    set_rules(project, RulesForm(request.POST).rules(), by=request.user)
    messages.success(request, _("Saved. The new rules apply from the next pair."))


ACTIONS: dict[str, Callable[[HttpRequest, Project], HttpResponse | None]] = {
    "invite": _invite,
    "revoke": _revoke,
    "renew": _renew,
    "sign_in_link": _sign_in_link,
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
    except (BadForm, BadPlan) as error:
        context["error"] = str(error)
    return render(request, "zelo/people/parts/plan_preview.html", context)


def read_plan(sent: QueryDict) -> dict[str, Any]:
    """Return the submitted reason, pairs and overlap. Raises BadForm."""
    values = PlanForm(sent).checked()
    return {
        "reason": values["reason"],
        "pairs": values["pairs"] or DEFAULT_PAIRS,
        "overlap": values["overlap"] or DEFAULT_OVERLAP,
    }


def _member(request: HttpRequest, project: Project) -> Any:
    members = get_user_model().objects.filter(membership__project=project)
    return chosen_or_404(members, request.POST, "user")


def _name(user: Any) -> str:
    return str(user.get_full_name() or user.get_username())
