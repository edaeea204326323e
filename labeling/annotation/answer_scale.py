"""The answer scale of people: five steps from A to B, "neither" and "cannot judge".

Each answer has a name, which messages and pages send, a key and a label; a step stands for a preference too. The
comparison screen, own answers, gold by hand and verdicts use it.
"""

from __future__ import annotations

from django.utils.translation import gettext as _

from labeling.records import AnswerKind

# P(the left document is the more relevant) that each step stands for.
PREFERENCES = {"left_clearly": 0.95, "left_slightly": 0.75, "tie": 0.5, "right_slightly": 0.25, "right_clearly": 0.05}
CLEAR = PREFERENCES["left_clearly"]

# Answers that take no side.
KINDS = {"neither": AnswerKind.BOTH_IRRELEVANT, "cannot_judge": AnswerKind.CANNOT_JUDGE}

ANSWERS = (*PREFERENCES, *KINDS)
KEYS = dict(zip(ANSWERS, "123450X", strict=True))
BY_KEY = {key: answer for answer, key in KEYS.items()}

CANNOT_JUDGE_REASONS = ("language", "expertise", "broken", "other")


def nearest_step(preference: float) -> str:
    """The step nearest to P(left is the more relevant)."""
    return min(PREFERENCES, key=lambda step: abs(PREFERENCES[step] - preference))


def answer_labels() -> dict[str, str]:
    """The label of each answer, in the visitor's language."""
    return {
        "left_clearly": _("A, clearly"),
        "left_slightly": _("A, slightly"),
        "tie": _("Tie"),
        "right_slightly": _("B, slightly"),
        "right_clearly": _("B, clearly"),
        "neither": _("neither is relevant"),
        "cannot_judge": _("cannot judge"),
    }


def step_buttons() -> list[dict[str, str]]:
    """The five steps from A to B, as buttons: value, key, label and the CSS classes of the side."""
    labels = answer_labels()
    sides = ("is-a strong-side", "is-a", "", "is-b", "is-b strong-side")
    return [
        {"value": step, "key": KEYS[step], "label": labels[step], "side": side}
        for step, side in zip(PREFERENCES, sides, strict=True)
    ]


def reason_buttons() -> list[dict[str, str]]:
    """The reasons why somebody cannot judge a pair, as buttons: value, key and label."""
    labels = {
        "language": _("I do not read this language"),
        "expertise": _("I lack the expertise"),
        "broken": _("A text is broken or missing"),
        "other": _("Another reason"),
    }
    return [
        {"value": reason, "key": str(at), "label": labels[reason]} for at, reason in enumerate(CANNOT_JUDGE_REASONS, 1)
    ]
