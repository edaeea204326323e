"""The context of a comparison screen: the person, their rights and the project's rules, read in one query.

`labeling.annotation.actions` works on a `ScreenContext`; `labeling.annotation.http` and the pages find it by address
and user.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from django.db import connection

from labeling.access.annotators import get_person
from labeling.annotation.instruction import instruction_hash
from labeling.annotation.rules import gives_gold_away
from labeling.models import Project, Role


class ProjectNotVisible(LookupError):
    """The project does not exist, or the user may not see it."""


class MayNotCompare(PermissionError):
    """The user is a viewer of the project, and viewers cannot compare."""


@dataclass(frozen=True, slots=True)
class ScreenContext:
    """One person in one project, with the project's rules for comparing.

    `quota`: the largest number of answers, None without a limit; `paused`: the reason of a pause, or empty;
    `shows_others`: the screen shows others' answers after the person's own.
    """

    project_id: int
    person_id: int
    quota: int | None
    paused: str
    instruction_due: bool
    lease_s: int
    gold_every: int
    gold_feedback: str
    gold_answers: int
    gold_accuracy: float
    gold_tolerance: float
    shows_others: bool
    hidden_metadata: frozenset[str]


_RULES = (
    "lease_s", "gold_every", "gold_feedback", "gold_answers", "gold_accuracy", "gold_tolerance",
)  # fmt: skip
_FIND = f"""
SELECT project.id, project.instruction, membership.role, membership.quota, person.id, person.pause_reason,
       person.instruction_read, {", ".join(f"project.{rule}" for rule in _RULES)}, project.show_others_after,
       project.hidden_metadata
FROM labeling_project project
LEFT JOIN labeling_membership membership ON membership.project_id = project.id AND membership.user_id = %(user)s
LEFT JOIN labeling_annotator person ON person.project_id = project.id AND person.user_id = %(user)s
WHERE project.slug = %(slug)s AND project.archived_at IS NULL
"""


def find_screen_context(user: Any, slug: str) -> ScreenContext:
    """The user's context in a project; the first call creates their annotator. Raises ProjectNotVisible, MayNotCompare."""
    with connection.cursor() as cursor:
        cursor.execute(_FIND, {"user": user.pk, "slug": slug})
        row = cursor.fetchone()
    if row is None or (row[2] is None and not user.is_superuser):
        raise ProjectNotVisible(f"no project {slug!r} is visible to you; ask its owner for an invitation")
    if row[2] == Role.VIEWER and not user.is_superuser:
        raise MayNotCompare("viewers cannot compare; ask an owner of the project for the role annotator")
    project_id, instruction, _, quota, person_id, paused, read = row[:7]
    if person_id is None:
        person = get_person(Project.objects.get(pk=project_id), user)
        person_id, paused, read = person.pk, person.pause_reason, person.instruction_read
    due = read != instruction_hash(Project(instruction=instruction))
    rules = dict(zip(_RULES, row[7:-2], strict=True))
    shows_others = row[-2] and not gives_gold_away(rules["gold_every"], rules["gold_feedback"])
    hidden = frozenset(str(key).lower() for key in json.loads(row[-1]))
    return ScreenContext(
        project_id, person_id, quota, paused, due, shows_others=shows_others, hidden_metadata=hidden, **rules
    )
