"""People before the comparison screen, for its tests: a project with slots, members who have read the instruction."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client

from labeling.access.annotators import get_person
from labeling.access.handles import assignment_of, handle_of
from labeling.annotation.assignments import open_assignments
from labeling.annotation.instruction import confirm_read, instruction_hash
from labeling.models import Annotator, Judgment, Membership, Project, Role, SpotCheck
from labeling.pairs import store_pairs
from tests.factories.rows import candidate_ids, make_member, make_project

Json = dict[str, Any]
committed = pytest.mark.django_db(transaction=True)


@dataclass
class Screen:
    """One person's screen: sends messages as the browser does."""

    project: Project
    user: Any
    client: Client = field(default_factory=Client)

    def __post_init__(self) -> None:
        self.client.force_login(self.user)

    @property
    def person(self) -> Annotator:
        return get_person(self.project, self.user)

    def post(self, verb: str, **message: Any) -> HttpResponse:
        address = f"/p/{self.project.slug}/compare/{verb}/"
        return self.client.post(address, json.dumps(message), content_type="application/json")

    def send(self, verb: str, **message: Any) -> Json:
        """A message that must succeed."""
        response = self.post(verb, **message)
        assert response.status_code == 200, (response.status_code, response.content.decode())
        found: Json = json.loads(response.content)
        return found

    def next(self) -> Json:
        return self.send("next")

    def answer(self, slot: int, choice: str = "left_clearly", **more: Any) -> Json:
        return self.send("answer", **{"key": str(uuid.uuid4()), "slot": slot, "answer": choice, **more})

    @property
    def last(self) -> int:
        """The slot of the person's last answer."""
        last = Judgment.objects.live().filter(annotator=self.person, spot_check__isnull=False).order_by("-id").first()
        assert last is not None
        return handle_of(last.spot_check.pk)

    def undo(self, slot: int | None = None) -> Json:
        return self.send("undo", key=str(uuid.uuid4()), slot=slot or self.last)

    def skip(self, slot: int) -> Json:
        return self.send("skip", key=str(uuid.uuid4()), slot=slot)


def slots_of(shown: Json) -> list[int]:
    """Slots of the items in an answer of the server."""
    return [item["slot"] for item in shown["items"]]


def make_compared(*, pairs: int = 6, overlap: int = 1, **rules: Any) -> Project:
    """A project whose first `pairs` pairs of one query are asked; no gold unless told otherwise."""
    documents = 2
    while documents * (documents - 1) // 2 < pairs:
        documents += 1
    project = make_project(queries=1, documents=documents)
    Project.objects.filter(pk=project.pk).update(**{"gold_every": 0, **rules})
    query = project.queries.get()
    ids = candidate_ids(query)
    both = [(a, b) for place, a in enumerate(ids) for b in ids[place + 1 :]][:pairs]
    stored = store_pairs([a for a, _ in both], [b for _, b in both], [query.pk] * len(both))
    open_assignments(stored, reason="random", overlap=overlap)
    project.refresh_from_db()
    return project


def make_screen(project: Project, *, role: str = Role.ANNOTATOR, quota: int | None = None) -> Screen:
    """A new member who has read the instruction."""
    user = make_member(project, role)
    Membership.objects.filter(project=project, user=user).update(quota=quota)
    confirm_read(project, user, seen=instruction_hash(project))
    return Screen(project, user)


def lapse(*slots: int) -> None:
    """The leases of these slots have run out."""
    SpotCheck.objects.filter(pk__in=map(assignment_of, slots)).update(lease_until="2020-01-01T00:00Z")
