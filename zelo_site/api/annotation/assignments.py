"""REST of comparing: a person's next pairs, answers, skips and undo, blind and reserved as on the comparison screen.

The operations call `labeling.annotation.actions`, as the screen does: no ids, ranks, scores or grades come with a pair, a pair
is leased to one person, and a repeated key gets the stored response. They need the role annotator or owner.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from typing import Any

from django.http import HttpRequest
from ninja import Router, Schema, Status
from ninja.errors import HttpError
from pydantic import Field

from labeling.access.api_auth import member_project_or_404
from labeling.access.handles import handle_of
from labeling.annotation import http
from labeling.annotation.actions import extend_leases, next_items, skip_pair, submit_answer, undo_last
from labeling.annotation.answer_scale import ANSWERS, CANNOT_JUDGE_REASONS
from labeling.annotation.context import ScreenContext, find_screen_context
from labeling.annotation.instruction import confirm_read, instruction_hash
from labeling.annotation.worked_examples import worked_examples
from labeling.models import Project
from zelo_site.api.conventions.paging import Number
from zelo_site.api.projects import Text

router = Router(tags=["comparing"])


class KeyIn(Schema):
    """`key`: a UUID made for this request; send it again with a repeated request, which then changes nothing."""

    key: uuid.UUID = Field(examples=["6f0c1f0a-7b6e-4a53-9f3e-2f6b8a0f6c11"])


class AnswerIn(KeyIn):
    """`answer`: GET .../instruction lists the answers. `reason`: with `cannot_judge` alone. `seconds`: how long it took."""

    answer: Text = Field(max_length=40, examples=["left_clearly"])
    reason: Text = Field("", max_length=40)
    note: Text = Field("", max_length=http.LONGEST_NOTE)
    seconds: float | None = Field(None, ge=0, allow_inf_nan=False)


class SideOut(Schema):
    query: str
    text: str
    metadata: dict[str, Any]
    words: int


class AssignmentOut(Schema):
    """A pair that is leased to you for `lease_s` seconds; `slot` names it in further requests."""

    slot: int
    cross_query: bool
    left: SideOut
    right: SideOut
    lease_s: float
    note: str


class ProgressOut(Schema):
    done: int
    quota: int | None
    left: int | None
    seconds_per_pair: float | None
    today: int


class NextOut(Schema):
    """`state`: open, paused, instruction, quota_reached or nothing_left; `last`: the slot that an undo may name."""

    items: list[AssignmentOut]
    state: str
    message: str
    last: int | None
    progress: ProgressOut
    retry_after_s: float


class FeedbackOut(Schema):
    correct: bool
    text: str


class OtherOut(Schema):
    who: str
    preference_left: float | None
    rationale: str


class AnsweredOut(NextOut):
    """`stored`: answer, extra (after the lease had ended) or already. `others`: where the project shows others' answers."""

    stored: str
    feedback: FeedbackOut | None
    others: list[OtherOut] | None


class LeasesIn(Schema):
    slots: list[Number] = Field(max_length=100)


class LeasesOut(Schema):
    """Slot to seconds of the leases that you still hold."""

    lease_s: dict[str, float]


class ExampleOut(Schema):
    query: str
    left: str
    right: str
    answer: str
    label: str
    why: str


class InstructionOut(Schema):
    """Confirm having read it with POST and `seen`; a changed instruction must be read again."""

    instruction: str
    seen: str
    is_read: bool
    answers: list[str]
    reasons: list[str]
    examples: list[ExampleOut]


class InstructionIn(Schema):
    seen: Text = Field(max_length=100)


@router.get("/projects/{slug}/instruction", response=InstructionOut)
def get_instruction(request: HttpRequest, slug: str) -> Any:
    """The instruction, the possible answers and worked examples."""
    return _instruction(*_context(request, slug))


@router.post("/projects/{slug}/instruction", response=InstructionOut)
def post_instruction(request: HttpRequest, slug: str, body: InstructionIn) -> Any:
    """Confirm that you have read the instruction `seen`; 409 if it has changed."""
    project, _ = _context(request, slug)
    if not confirm_read(project, request.user, seen=body.seen):
        raise HttpError(409, "the instruction was changed while you read; GET it again")
    return _instruction(*_context(request, slug))


@router.post("/projects/{slug}/assignments", response=NextOut)
def post_next(request: HttpRequest, slug: str) -> Any:
    """Your next pairs, up to two; each is leased to you. Asking again returns the same ones."""
    _, context = _context(request, slug)
    return json.loads(next_items(context))


@router.post("/projects/{slug}/assignments/leases", response=LeasesOut)
def post_leases(request: HttpRequest, slug: str, body: LeasesIn) -> Any:
    """Renew leases while a person still reads."""
    _, context = _context(request, slug)
    with _refusals():
        kept = extend_leases(context, list(map(http.named_assignment, body.slots)))
    return {"lease_s": {str(handle_of(assignment)): seconds for assignment, seconds in kept.items()}}


@router.post("/projects/{slug}/assignments/{slot}/answer", response={201: AnsweredOut})
def post_answer(request: HttpRequest, slug: str, slot: Number, body: AnswerIn) -> Any:
    """Answer a pair of yours; the response holds your next pairs."""
    _, context = _context(request, slug)
    with _refusals():
        answer = http.read_answer({"slot": slot, **body.dict(exclude={"key"})})
        return Status(201, json.loads(submit_answer(context, answer, key=body.key)))


@router.post("/projects/{slug}/assignments/{slot}/skip", response=NextOut)
def post_skip(request: HttpRequest, slug: str, slot: Number, body: KeyIn) -> Any:
    """Skip a pair; other people get it."""
    _, context = _context(request, slug)
    with _refusals():
        return json.loads(skip_pair(context, http.named_assignment(slot), key=body.key))


@router.post("/projects/{slug}/assignments/{slot}/undo", response=NextOut)
def post_undo(request: HttpRequest, slug: str, slot: Number, body: KeyIn) -> Any:
    """Undo your last answer, the one to this slot; its pair comes first again."""
    _, context = _context(request, slug)
    with _refusals():
        return json.loads(undo_last(context, http.named_assignment(slot), key=body.key))


def _context(request: HttpRequest, slug: str) -> tuple[Project, ScreenContext]:
    project = member_project_or_404(request, slug)
    with _refusals():
        return project, find_screen_context(request.user, project.slug)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """The screen's refusals under the same statuses."""
    try:
        yield
    except tuple(http.REFUSALS) as error:
        status = next(found for kind, (found, _) in http.REFUSALS.items() if isinstance(error, kind))
        raise HttpError(status, str(error)) from error


def _instruction(project: Project, context: ScreenContext) -> dict[str, Any]:
    return {
        "instruction": project.instruction,
        "seen": instruction_hash(project),
        "is_read": not context.instruction_due,
        "answers": list(ANSWERS),
        "reasons": list(CANNOT_JUDGE_REASONS),
        "examples": worked_examples(project),
    }
