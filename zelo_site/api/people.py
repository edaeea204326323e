"""REST of people: members, invitations, plans of spot checks, agreement, disagreements and their verdicts.

The verbs are those of the pages; they write the audit log.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any, Literal

from django.contrib.auth import get_user_model
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from ninja import Router, Schema, Status
from ninja.errors import HttpError
from pydantic import Field

from labeling.access.api_auth import owned_project_or_404, project_or_404
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
from labeling.models import Membership, Pair, Project
from scoring.annotators.adjudication import BadVerdict, DecidedMeanwhile, adjudicate, make_gold, undo_adjudication
from scoring.annotators.disagreements import Between, disagreements
from scoring.annotators.people import people_figures
from scoring.annotators.people_agreement import people_agreement
from scoring.models import SpotCheckPlan
from scoring.spot_checks.draws import BadPlan
from scoring.spot_checks.plans import plan_progress, plan_spot_checks, preview_spot_checks, withdraw_plan
from zelo_site.api.conventions.paging import Cursor, Limit, Number, paged
from zelo_site.api.estimates import EstimateOut
from zelo_site.api.projects import Text

router = Router(tags=["people"])


class MemberOut(Schema):
    """`answers` and what follows are None for a member who never compared; see scoring.annotators.people."""

    user_id: int
    username: str
    name: str
    role: str
    quota: int | None
    answers: int | None = None
    today: int | None = None
    seconds: float | None = None
    paused: bool = False
    pause_reason: str = ""
    gold: EstimateOut | None = None
    with_judges: EstimateOut | None = None


class MemberPatch(Schema):
    """Omitted fields stay as they are; `quota` null removes the limit; `paused` false resumes a paused person."""

    role: str | None = Field(None, max_length=20)
    quota: int | None = Field(None, ge=0, le=1_000_000)
    paused: Literal[False] | None = None


class InvitationIn(Schema):
    role: str = Field(max_length=20)
    name: Text = Field("", max_length=150)
    days: int = Field(INVITATION_VALID.days, ge=1, le=90)


class InvitationOut(Schema):
    id: int
    role: str
    name: str
    created_at: datetime
    expires_at: datetime


class NewInvitationOut(Schema):
    """`path` of the link on this server; shown only once."""

    role: str
    days: int
    path: str


@router.get("/projects/{slug}/members", response=list[MemberOut])
def list_members(request: HttpRequest, slug: str) -> Any:
    """The members of the project, with their work."""
    return _members(project_or_404(request, slug))


def _members(project: Project) -> list[dict[str, Any]]:
    figures = {each.user_id: each for each in people_figures(project)}
    rows = []
    for member in Membership.objects.filter(project=project).select_related("user").order_by("pk"):
        row: dict[str, Any] = {
            "user_id": member.user_id,
            "username": member.user.get_username(),
            "name": member.user.get_full_name() or member.user.get_username(),
            "role": member.role,
            "quota": member.quota,
        }
        if (work := figures.get(member.user_id)) is not None:
            row |= {name: getattr(work, name) for name in ("answers", "today", "seconds", "gold", "with_judges")}
            row |= {"paused": work.paused_at is not None, "pause_reason": work.pause_reason}
        rows.append(row)
    return rows


@router.patch("/projects/{slug}/members/{user_id}", response=MemberOut)
def patch_member(request: HttpRequest, slug: str, user_id: Number, body: MemberPatch) -> Any:
    """Change a member's role or quota, or resume a paused member; the last owner cannot lose the role."""
    project = owned_project_or_404(request, slug)
    user = _member_or_404(project, user_id)
    sent = body.dict(exclude_unset=True)
    try:
        with transaction.atomic():
            if sent.get("role") is not None:
                set_role(project, user, sent["role"], by=request.user)
            if "quota" in sent:
                set_quota(project, user, sent["quota"], by=request.user)
            if sent.get("paused") is False:
                resume_person(project, user, by=request.user)
    except (BadInvitation, MembershipRefused) as error:
        raise HttpError(422, str(error)) from error
    return next(row for row in _members(project) if row["user_id"] == user_id)


@router.delete("/projects/{slug}/members/{user_id}", response={204: None})
def delete_member(request: HttpRequest, slug: str, user_id: Number) -> Any:
    """Remove a member; their answers are kept."""
    project = owned_project_or_404(request, slug)
    user = _member_or_404(project, user_id)
    try:
        remove_member(project, user, by=request.user)
    except MembershipRefused as error:
        raise HttpError(422, str(error)) from error
    return Status(204, None)


def _member_or_404(project: Project, user_id: int) -> Any:
    user = get_user_model().objects.filter(membership__project=project, pk=user_id).first()
    if user is None:
        raise HttpError(404, f"project {project.slug!r} has no member {user_id}; GET .../members lists them")
    return user


@router.get("/projects/{slug}/invitations", response=list[InvitationOut])
def list_invitations(
    request: HttpRequest, response: HttpResponse, slug: str, cursor: Cursor = "", limit: Limit = 100
) -> Any:
    """Unused links that are still valid."""
    rows = open_invitations(owned_project_or_404(request, slug))
    return paged(request, response, rows, cursor=cursor, limit=limit, newest=True)


@router.post("/projects/{slug}/invitations", response={201: NewInvitationOut})
def post_invitation(request: HttpRequest, slug: str, body: InvitationIn) -> Any:
    """Make a link with which one person can join."""
    project = owned_project_or_404(request, slug)
    try:
        made = invite(project, role=body.role, days=body.days, name=body.name, by=request.user)
    except BadInvitation as error:
        raise HttpError(422, str(error)) from error
    return Status(201, {"role": made.role, "days": made.days, "path": f"/enter/{made.token}/"})


@router.delete("/projects/{slug}/invitations/{link_id}", response={204: None})
def delete_invitation(request: HttpRequest, slug: str, link_id: Number) -> Any:
    """Revoke an unused link."""
    project = owned_project_or_404(request, slug)
    if not revoke_invitation(project, link_id, by=request.user):
        raise HttpError(404, f"project {slug!r} has no open invitation {link_id}; GET .../invitations lists them")
    return Status(204, None)


class RulesIn(Schema):
    """See labeling.annotation.rules.Rules; what is left out stays."""

    gold_every: int | None = None
    gold_feedback: str | None = None
    gold_answers: int | None = None
    gold_accuracy: float | None = None
    gold_tolerance: float | None = None
    show_others_after: bool | None = None
    hidden_metadata: list[Text] | None = None
    lease_s: int | None = None


class RulesOut(Schema):
    gold_every: int
    gold_feedback: str
    gold_answers: int
    gold_accuracy: float
    gold_tolerance: float
    show_others_after: bool
    hidden_metadata: list[str]
    lease_s: int


@router.get("/projects/{slug}/rules", response=RulesOut)
def get_rules(request: HttpRequest, slug: str) -> Any:
    """The rules by which people compare."""
    return dataclasses.asdict(rules_of(project_or_404(request, slug)))


@router.patch("/projects/{slug}/rules", response=RulesOut)
def patch_rules(request: HttpRequest, slug: str, body: RulesIn) -> Any:
    """Change the rules by which people compare; they apply from the next pair."""
    project = owned_project_or_404(request, slug)
    sent = {name: value for name, value in body.dict(exclude_unset=True).items() if value is not None}
    if "hidden_metadata" in sent:
        sent["hidden_metadata"] = tuple(sent["hidden_metadata"])
    rules: Rules = dataclasses.replace(rules_of(project), **sent)
    try:
        set_rules(project, rules, by=request.user)
    except BadRules as error:
        raise HttpError(422, str(error)) from error
    return dataclasses.asdict(rules)


# --- what people are asked ---------------------------------------------------------------


class PlanIn(Schema):
    """`reason`: random, disagreement, uncertain, cross_query or gold; `overlap` people judge each pair."""

    reason: str = Field(max_length=20)
    pairs: int = 50
    overlap: int = 1
    seed: int = Field(0, ge=0, lt=2**31)


class PlannedOut(Schema):
    plan_id: int
    pairs: int
    wanted: int
    slots: int


class PreviewOut(Schema):
    pairs: int
    wanted: int
    slots: int
    seconds: float
    measured: bool
    hours: float


class PlanOut(Schema):
    plan_id: int
    reason: str
    pairs: int
    overlap: int
    asked: int
    answered: int
    left: int
    withdrawn: bool
    created_at: datetime


@router.get("/projects/{slug}/spot-checks", response=list[PlanOut])
def list_plans(request: HttpRequest, slug: str) -> Any:
    """The plans of spot checks with their progress, newest first."""
    return [
        {
            "plan_id": each.plan.pk,
            "reason": each.plan.reason,
            "pairs": each.plan.pairs,
            "overlap": each.plan.overlap,
            "asked": each.asked,
            "answered": each.answered,
            "left": each.left,
            "withdrawn": each.plan.withdrawn_at is not None,
            "created_at": each.plan.created_at,
        }
        for each in plan_progress(project_or_404(request, slug))
    ]


@router.post("/projects/{slug}/spot-checks", response={201: PlannedOut})
def post_plan(request: HttpRequest, slug: str, body: PlanIn) -> Any:
    """Choose pairs for people and open their slots."""
    project = owned_project_or_404(request, slug)
    try:
        planned = plan_spot_checks(project, **body.dict(), by=request.user)
    except BadPlan as error:
        raise HttpError(422, str(error)) from error
    return Status(
        201,
        {
            "plan_id": planned.plan.pk,
            "pairs": planned.pairs,
            "wanted": planned.wanted,
            "slots": planned.slots,
        },
    )


@router.post("/projects/{slug}/spot-checks/preview", response=PreviewOut)
def post_preview(request: HttpRequest, slug: str, body: PlanIn) -> Any:
    """Count the pairs of a plan and the hours of people's time; stores nothing."""
    try:
        return preview_spot_checks(owned_project_or_404(request, slug), **body.dict())
    except BadPlan as error:
        raise HttpError(422, str(error)) from error


@router.delete("/projects/{slug}/spot-checks/{plan_id}", response={204: None})
def delete_plan(request: HttpRequest, slug: str, plan_id: Number) -> Any:
    """Withdraw the unanswered pairs of a plan; answers are kept."""
    project = owned_project_or_404(request, slug)
    plan = SpotCheckPlan.objects.filter(project=project, pk=plan_id).first()
    if plan is None:
        raise HttpError(404, f"project {slug!r} has no plan {plan_id}; GET .../spot-checks lists them")
    withdraw_plan(plan, by=request.user)
    return Status(204, None)


# --- agreement and verdicts --------------------------------------------------------------


class CoefficientOut(Schema):
    """`undefined`: no_overlap, few or one_category, where there is no value."""

    value: float | None
    low: float | None
    high: float | None
    common: int
    same: float | None
    undefined: str | None


class AlphasOut(Schema):
    nominal: CoefficientOut
    ordinal: CoefficientOut
    interval: CoefficientOut


class CoupleOut(Schema):
    first: str
    second: str
    second_is_person: bool
    kappa: CoefficientOut


class PeopleAgreementOut(Schema):
    people: int
    judges: int
    pairs: int
    among_people: AlphasOut
    with_judges: AlphasOut
    couples: list[CoupleOut]
    couples_left: int


@router.get("/projects/{slug}/people/agreement", response=PeopleAgreementOut)
def get_people_agreement(request: HttpRequest, slug: str) -> Any:
    """Kappa and alpha of people with each other and with judges, with 95 % intervals."""
    return people_agreement(project_or_404(request, slug))


class OpinionsOut(Schema):
    mean: float | None
    low: float | None
    high: float | None
    count: int


class DisagreementOut(Schema):
    pair_id: int
    gap: float
    decided: bool
    people: OpinionsOut
    judges: OpinionsOut


class VerdictIn(Schema):
    """`answer`: 1 to 5 from A clearly to B clearly, 0 for neither. `seen`: the `verdict_id` that you know, 0 for none;
    if the pair has another one, nothing is changed (409). Without `seen`, the verdict is replaced in any case.
    """

    answer: str = Field(max_length=1)
    note: Text = Field("", max_length=2000)
    gold: bool = False
    seen: int | None = Field(None, ge=0, lt=2**63)


class VerdictOut(Schema):
    pair_id: int
    verdict_id: int
    preference: float | None
    changed: bool


@router.get("/projects/{slug}/disagreements", response=list[DisagreementOut])
def list_disagreements(
    request: HttpRequest, slug: str, between: Between = Between.ANYBODY, decided: bool = False
) -> Any:
    """Pairs on which annotators disagree, the widest gap first, up to 1,000."""
    return disagreements(project_or_404(request, slug), between=between, decided=decided)


@router.put("/projects/{slug}/pairs/{pair_id}/verdict", response=VerdictOut)
def put_verdict(request: HttpRequest, slug: str, pair_id: Number, body: VerdictIn) -> Any:
    """Decide a pair; the same verdict again changes nothing."""
    project = owned_project_or_404(request, slug)
    pair = _pair_or_404(request, project, pair_id)
    try:
        with transaction.atomic():
            made = adjudicate(pair, request.user, body.answer, note=body.note, seen=body.seen)
            if body.gold:
                make_gold(pair, by=request.user)
    except BadVerdict as error:
        raise HttpError(422, str(error)) from error
    except DecidedMeanwhile as error:
        raise HttpError(409, str(error)) from error
    decided = made.adjudication
    return {
        "pair_id": pair_id,
        "verdict_id": decided.pk,
        "preference": decided.judgment.preference,
        "changed": made.changed,
    }


@router.delete("/projects/{slug}/pairs/{pair_id}/verdict", response={204: None})
def delete_verdict(request: HttpRequest, slug: str, pair_id: Number) -> Any:
    """Withdraw a verdict; its author's earlier answer counts again. 404 if there is no verdict."""
    project = owned_project_or_404(request, slug)
    pair = _pair_or_404(request, project, pair_id)
    if not undo_adjudication(pair, by=request.user):
        raise HttpError(404, f"pair {pair_id} has no verdict")
    return Status(204, None)


def _pair_or_404(request: HttpRequest, project: Project, pair_id: int) -> Pair:
    pair = Pair.objects.visible_to(request.user).filter(pk=pair_id, a__query__project=project).first()
    if pair is None:
        raise HttpError(404, f"project {project.slug!r} has no pair {pair_id}; GET .../disagreements lists some")
    return pair
