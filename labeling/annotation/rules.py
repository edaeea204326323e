"""How people compare in a project: how often gold comes, what it shows and decides, what is kept from them.

One verb behind page, REST and command line; `labeling.annotation.context` reads what is stored here for every message.
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
    """A rule has a value that cannot be used."""


@dataclass(frozen=True, slots=True)
class Rules:
    """`gold_every`: about so many pairs to a gold one, 0 for none; whoever has `gold_answers` of them and fewer than
    the share `gold_accuracy` as expected (within `gold_tolerance`) is paused. `show_others_after`: only where that gives
    no known answer away. `hidden_metadata`: names left out.
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
    """What holds now."""
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
    """Whether showing others' answers would tell what is gold: it is asked, and its answers are kept secret.

    Shown after gold too, they all but name the answer; left out there alone, the gap says which pairs are gold.
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
            "others' answers would give away the known ones of gold pairs, which are hidden; tell people what was "
            "expected (gold_feedback open), ask no gold (gold_every 0), or do not show others' answers"
        )
    names = rules.hidden_metadata
    if len(names) > MOST_HIDDEN or any(not name.strip() or len(name) > 200 or "\x00" in name for name in names):
        raise BadRules(f"hidden_metadata holds {len(names)} names; expected up to {MOST_HIDDEN} of 1 to 200 characters")
