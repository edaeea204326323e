"""Texts of the comparison screen in the visitor's language: its keys and its script's messages.

The script has no texts of its own: `texts()` passes them all. Placeholders are in braces; the script chooses between
keys that end in `_one` and `_other` by number.
"""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _

from labeling.models import Project


def keys() -> list[dict[str, Any]]:
    """Return every key of the screen with its label, for the help dialog."""
    return [
        {"keys": ["1", "2"], "label": _("A is more relevant: clearly, slightly")},
        {"keys": ["3"], "label": _("both are equally relevant")},
        {"keys": ["4", "5"], "label": _("B is more relevant: slightly, clearly")},
        {"keys": ["0"], "label": _("neither is relevant")},
        {"keys": ["X"], "label": _("you cannot judge this pair; choose a reason")},
        {"keys": ["S"], "label": _("skip this pair; you do not see it again")},
        {"keys": ["U"], "label": _("undo your last answer and show its pair")},
        {"keys": ["N"], "label": _("add a note to your answer")},
        {"keys": ["M"], "label": _("show or hide the metadata")},
        {"keys": ["↑", "↓"], "label": _("scroll both documents")},
        {"keys": ["?"], "label": _("show this list")},
    ]


# Keys of the rubric's criteria, in their order: letters that the screen does not use otherwise.
CRITERIA_KEYS = "QWERTADF"


def criteria(project: Project) -> list[dict[str, str]]:
    """Return the criteria of the project's rubric as buttons: key, name and description."""
    rows = zip(CRITERIA_KEYS, project.rubric, strict=False)
    return [{"key": key, "name": each["name"], "help": each.get("description", "")} for key, each in rows]


def texts() -> dict[str, str]:
    """Return all texts of the script by name."""
    return _of_the_pair() | _of_sending() | _of_states() | _afterwards()


def _of_the_pair() -> dict[str, str]:
    """Return the texts around the documents, and those for screen readers."""
    return {
        "better": _("Which document answers this better?"),
        "cross_over": _("Two queries, one document each"),
        "cross_question": _("Is A more relevant to its query than B to its own?"),
        "words_one": _("{n} word"),
        "words_other": _("{n} words"),
        "done": _("{done} of {quota}"),
        "done_open_one": _("{n} done"),
        "done_open_other": _("{n} done"),
        "pace": _("{seconds} s per pair"),
        "left": _("Reserved for {time}"),
        "left_over": _("Reservation expired. Others may get this pair, but your answer still counts."),
        "announce": _("Next pair. {question} {query} A: {a}. B: {b}."),
        "announce_back": _("Back to the last pair. {question} {query} A: {a}. B: {b}."),
        "elsewhere": _("You answered this pair in another tab. Here is the next one."),
        "note_kept": _("Your note is sent with your answer."),
    }


def _of_sending() -> dict[str, str]:
    """Return the texts about sending and undoing answers."""
    return {
        "saved": _("saved"),
        "sending": _("sending …"),
        "offline": _("offline"),
        "waiting_one": _("offline: {n} unsent answer"),
        "waiting_other": _("offline: {n} unsent answers"),
        "kept_one": _("{n} unsent answer"),
        "kept_other": _("{n} unsent answers"),
        "undo_none": _("There is no answer to undo."),
        "undo_sent": _("Undoing your last answer …"),
        "memory_only": _(
            "This browser cannot keep your answers because its storage is full or blocked. "
            "Wait for “saved” before you close the tab."
        ),
        "refused": _("The server rejected an answer and did not save it: {error}"),
        "already": _("You answered a pair twice. Your first answer counts; the second one was not saved."),
        "trouble": _("The server returned an error ({status}). This page keeps your answers and retries."),
    }


def _of_states() -> dict[str, str]:
    """Return the texts shown when there is no pair."""
    return {
        "loading_title": _("Loading the next pair"),
        "loading_text": "",
        "offline_title": _("No connection"),
        "offline_text_none": _("The next pair loads when you are online again."),
        "offline_text_one": _("This page sends {n} answer when you are online again."),
        "offline_text_other": _("This page sends {n} answers when you are online again."),
        "nothing_left_title": _("Nothing left to compare"),
        "nothing_left_text": _("You have answered all your pairs. New pairs appear here automatically."),
        "unplanned_title": _("No pairs yet"),
        "unplanned_text": _("Pairs appear here after a project owner plans spot checks."),
        "unplanned_text_owner": _("Plan spot checks on the People page; their pairs then appear here."),
        "to_people": _("Plan spot checks"),
        "quota_reached_title": _("You are done"),
        "quota_reached_text": _("You have answered all pairs assigned to you. Thank you."),
        "paused_title": _("You are paused"),
        "paused_text": _("Ask a project owner to resume your access."),
        "instruction_title": _("Read the instruction first"),
        "instruction_text": _("It takes about a minute; then the pairs appear."),
        "instruction_link": _("Read instruction"),
        "signed_out_title": _("You are signed out"),
        "signed_out_text_none": _("Sign in again to continue."),
        "signed_out_text_one": _("This browser has {n} unsent answer. Sign in again to send it."),
        "signed_out_text_other": _("This browser has {n} unsent answers. Sign in again to send them."),
        "sign_in": _("Sign in"),
        "gone_title": _("You don’t have access"),
        "gone_text": _("You are no longer an annotator of this project. Ask a project owner for access."),
        "to_answers": _("See my answers"),
    }


def _afterwards() -> dict[str, str]:
    """Return the texts about the known answer and the other answers, shown after an answer."""
    return {
        "known": _("This pair has a known answer."),
        "other_tie": _("a tie"),
        "other_a": _("A"),
        "other_b": _("B"),
        "other_share": _("{side}, {percent} %"),
    }
