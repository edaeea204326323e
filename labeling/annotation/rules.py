"""Rules for comparing in a project: frequency and consequences of gold, feedback, hidden metadata, length of a lease.

Pages, REST and the command line call `set_rules`; `labeling.annotation.context` reads the rules for every message.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from labeling import audit
from labeling.models import GoldFeedback, Project

MOST_PAIRS_BEFORE_GOLD = 1000
MOST_GOLD_ANSWERS = 1000
MOST_HIDDEN = 100


class BadRules(ValueError):
    """A rule has an invalid value."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a project.

    About one of `gold_every` pairs is gold, none for 0. A person with `gold_answers` answers to gold, of which less than
    the share `gold_accuracy` is right (within `gold_tolerance`), is paused. `show_others_after`: show others' answers
    after one's own, unless that gives gold away. `hidden_metadata`: keys that the screen leaves out.
    """

    gold_every: int = 10
    gold_feedback: str = GoldFeedback.HIDDEN.value
    gold_answers: int = 5
    gold_accuracy: float = 0.7
    gold_tolerance: float = 0.25
    show_others_after: bool = False
    hidden_metadata: tuple[str, ...] = ()
    lease_s: int = 300


def rules_of(project: Project) -> Rules:
    """The current rules of a project."""
    values = {field.name: getattr(project, field.name) for field in dataclasses.fields(Rules)}
    return Rules(**{**values, "hidden_metadata": tuple(map(str, project.hidden_metadata))})


def set_rules(project: Project, rules: Rules, *, by: Any = None) -> None:
    """Store all of it or nothing. Raises BadRules, which names the value and what is expected."""
    _check(rules)
    values = {field.name: getattr(rules, field.name) for field in dataclasses.fields(Rules)}
    values["hidden_metadata"] = list(rules.hidden_metadata)
    with transaction.atomic():
        stored = Project.objects.select_for_update(of=("self",)).get(pk=project.pk)
        changed = audit.changes({name: getattr(stored, name) for name in values}, values)
        if changed:
            Project.objects.filter(pk=project.pk).update(**values)
            audit.note("people.rules", project=project, actor=by, subject=project.slug, **changed)
    for name, value in values.items():
        setattr(project, name, value)


def gives_gold_away(gold_every: int, gold_feedback: str) -> bool:
    """Whether others' answers would give gold away: people get gold, and without feedback.

    Shown after a gold pair, they hint at its answer; left out there alone, the gap marks the pair as gold.
    """
    return gold_every > 0 and gold_feedback == GoldFeedback.HIDDEN


def _check(rules: Rules) -> None:
    for name, low, high in (
        ("gold_every", 0, MOST_PAIRS_BEFORE_GOLD),
        ("gold_answers", 1, MOST_GOLD_ANSWERS),
        ("gold_accuracy", 0, 1),
        ("gold_tolerance", 0, 1),
        ("lease_s", 10, 7200),
    ):
        value = getattr(rules, name)
        if not (math.isfinite(value) and low <= value <= high):
            raise BadRules(f"{name} is {value}; expected {low} to {high}")
    if rules.gold_feedback not in GoldFeedback.values:
        raise BadRules(
            f"gold_feedback is {rules.gold_feedback[:20]!r}; expected one of {', '.join(GoldFeedback.values)}"
        )
    if rules.show_others_after and gives_gold_away(rules.gold_every, rules.gold_feedback):
        raise BadRules(
            "others' answers would give away hidden gold answers; show feedback on gold (gold_feedback open), "
            "turn gold off (gold_every 0), or do not show others' answers"
        )
    names = rules.hidden_metadata
    if len(names) > MOST_HIDDEN or any(not name.strip() or len(name) > 200 or "\x00" in name for name in names):
        raise BadRules(f"hidden_metadata holds {len(names)} names; expected up to {MOST_HIDDEN} of 1 to 200 characters")
