"""Worked examples for the instruction page: two documents, the right answer and its explanation.

A project's own examples are gold pairs with an explanation, which `labeling.annotation.gold` never asks. A project
without any shows three general examples.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.translation import gettext as _

from labeling.annotation.answer_scale import answer_labels, nearest_step
from labeling.annotation.gold import example_pairs
from labeling.models import GoldAnswer, Project

LONGEST = 1200


@dataclass(frozen=True, slots=True)
class WorkedExample:
    """One example; `answer` is one of the screen's values, `label` its text and `why` its explanation."""

    query: str
    left: str
    right: str
    answer: str
    label: str
    why: str


def worked_examples(project: Project) -> list[WorkedExample]:
    """Return the project's own examples, or the general ones if it has none."""
    known = (
        GoldAnswer.objects.filter(pair__in=example_pairs(project.pk))
        .select_related("pair__query", "pair__a__document", "pair__b__document")
        .order_by("id")
    )
    labels = answer_labels()
    return [_of_gold(gold, labels) for gold in known] or general_examples()


def _of_gold(gold: GoldAnswer, labels: dict[str, str]) -> WorkedExample:
    pair = gold.pair
    answer = nearest_step(gold.preference)
    return WorkedExample(
        query=_cut(pair.query.text if pair.query else ""),
        left=_cut(pair.a.document.text),
        right=_cut(pair.b.document.text),
        answer=answer,
        label=labels[answer],
        why=gold.explanation,
    )


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def general_examples() -> list[WorkedExample]:
    """Return three examples: a clear answer, a tie and a slight preference."""
    labels = answer_labels()
    given = [
        (
            _("how long does cooked rice keep in the fridge"),
            _("Put cooked rice in the fridge within an hour, in a closed box. It keeps three to four days there."),
            _("Rice is the staple food of more than half of the world's people, and is cooked in many ways."),
            "left_clearly",
            _("A answers the question. B shares its words and subject but does not answer it."),
        ),
        (
            _("train bicycles allowed at weekends"),
            _("On Saturdays and Sundays bicycles travel in the last coach, as long as there is room."),
            _("At weekends you can take your bicycle along in the last coach; there is no booking, first come first served."),
            "tie",
            _("Both say the same. Length and style do not matter, only how much a document helps with the query."),
        ),
        (
            _("fever in small children when to see a doctor"),
            _("See a doctor if a child under three months has a temperature above 38 °C, or if fever lasts three days."),
            _("Fever often comes with infections. Let your child drink a lot; if in doubt, ask your doctor."),
            "left_slightly",
            _("Both help. A gives the exact limits, B only general advice, so A is slightly better."),
        ),
    ]  # fmt: skip
    return [WorkedExample(query, left, right, answer, labels[answer], why) for query, left, right, answer, why in given]
