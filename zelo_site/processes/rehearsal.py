"""Runs the comparison screen's requests once on a connection, in a transaction that is rolled back.

`zelo_site.processes.warming` calls it in each web thread: a new connection has not read the tables' definitions yet, and a
new process has not run the code, which the first people to compare would wait for. Rejected: statements that read only,
because storing an answer is the slowest of the requests.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.http import HttpRequest
from django.test import RequestFactory

from labeling.annotation import http
from labeling.annotation.assignments import open_assignments
from labeling.annotation.instruction import confirm_read, instruction_hash
from labeling.models import Candidate, Document, Membership, Project, Query, Role
from labeling.pairs import store_pairs
from labeling.projects import create_project
from zelo_site.pages.annotation.views import compare

DOCUMENTS = 3
PATH = "/"  # the views never read it


def rehearse() -> None:
    """Open the comparison screen, ask for a pair, and answer it, as a made-up person in a made-up project.

    Nothing is committed, and what follows a commit, such as a hint to the rater, does not happen.
    """
    with transaction.atomic():
        try:
            project, user = _made_up()
            compare(_request(user), project.slug)
            shown = _sent(http.next_view, user, project, {})
            for item in shown["items"][:1]:
                message = {"key": str(uuid.uuid4()), "slot": item["slot"], "answer": "left_clearly", "seconds": 1.0}
                _sent(http.answer_view, user, project, message)
            connection.check_constraints()  # a commit would check them now
        finally:
            transaction.set_rollback(True)


def _made_up() -> tuple[Project, Any]:
    """A project with assignments, and an annotator who has read its instruction. Their names are unique, because the
    database makes a second writer of a name wait for the first.
    """
    unique = uuid.uuid4().hex
    user = get_user_model().objects.create(username=unique, password="!")
    project = create_project(unique)
    Membership.objects.create(project=project, user=user, role=Role.ANNOTATOR)
    confirm_read(project, user, seen=instruction_hash(project))
    query = Query.objects.create(project=project, external_id="q", text="query")
    documents = Document.objects.bulk_create(
        Document(project=project, external_id=str(number), text="text") for number in range(DOCUMENTS)
    )
    rows = Candidate.objects.bulk_create(Candidate(query=query, document=document) for document in documents)
    first, *others = sorted(row.pk for row in rows)
    pairs = store_pairs([first] * len(others), others, [query.pk] * len(others))
    open_assignments(pairs, reason="random")
    return project, user


def _request(user: Any, message: dict[str, Any] | None = None) -> HttpRequest:
    """A request as the middleware passes it on: a GET, or a POST of this message."""
    factory = RequestFactory()
    request: HttpRequest = (
        factory.get(PATH)
        if message is None
        else factory.post(PATH, json.dumps(message), content_type="application/json")
    )
    request.user = user
    request._dont_enforce_csrf_checks = True  # type: ignore[attr-defined]  # Django's own name for trusted requests
    return request


def _sent(view: Any, user: Any, project: Project, message: dict[str, Any]) -> dict[str, Any]:
    """The response to a message of the screen. Raises RuntimeError if it was refused."""
    response = view(_request(user, message), project.slug)
    if response.status_code != 200:
        raise RuntimeError(f"the rehearsal got {response.status_code}: {response.content[:200]!r}")
    found: dict[str, Any] = json.loads(response.content)
    return found
