"""The texts of the comparison screen: its keys and its script, in the visitor's language.

The script holds no sentence of its own; `texts()` hands all of them over. Placeholders stand in braces, and pairs
of texts ending in `_one` and `_other` are chosen by number.
"""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _


def keys() -> list[dict[str, Any]]:
    """Every key of the screen, for its help."""
    return [
        {"keys": ["1", "2"], "label": _("A is more relevant: clearly, slightly")},
        {"keys": ["3"], "label": _("both are as relevant as each other")},
        {"keys": ["4", "5"], "label": _("B is more relevant: slightly, clearly")},
        {"keys": ["0"], "label": _("neither is relevant")},
        {"keys": ["X"], "label": _("this pair cannot be judged; asks why")},
        {"keys": ["S"], "label": _("skip: you are not asked this pair again")},
        {"keys": ["U"], "label": _("undo your last answer and see its pair again")},
        {"keys": ["N"], "label": _("write a note that goes with your answer")},
        {"keys": ["M"], "label": _("unfold or fold the metadata")},
        {"keys": ["↑", "↓"], "label": _("scroll both documents")},
        {"keys": ["?"], "label": _("this list")},
    ]


def texts() -> dict[str, str]:
    """What the script says."""
    return _of_the_pair() | _of_sending() | _of_states() | _afterwards()


def _of_the_pair() -> dict[str, str]:
    """Above and below the documents, and aloud."""
    return {
        "better": _("Which document answers this better?"),
        "cross_over": _("Two queries, one document each"),
        "cross_question": _("Is A more relevant to its query than B to its own?"),
        "words_one": _("{n} word"),
        "words_other": _("{n} words"),
        "done": _("{done} of {quota}"),
        "done_open_one": _("{n} done"),
        "done_open_other": _("{n} done"),
        "pace": _("{seconds} s a pair"),
        "left": _("yours for {time}"),
        "left_over": _("Your time for this pair is over. Others may be asked it; your answer still counts."),
        "announce": _("Next pair. {question} {query} A: {a}. B: {b}."),
        "announce_back": _("Back to the last pair. {question} {query} A: {a}. B: {b}."),
        "elsewhere": _("This pair was answered in another tab. Here is the next one."),
        "note_kept": _("Your note goes with your answer."),
    }


def _of_sending() -> dict[str, str]:
    """What becomes of answers on their way, and of those taken back."""
    return {
        "saved": _("saved"),
        "sending": _("sending …"),
        "offline": _("offline"),
        "waiting_one": _("offline: {n} answer waits"),
        "waiting_other": _("offline: {n} answers wait"),
        "kept_one": _("{n} answer waits"),
        "kept_other": _("{n} answers wait"),
        "undo_none": _("There is no answer to take back."),
        "undo_sent": _("Taking back your last answer …"),
        "memory_only": _(
            "This browser keeps nothing for this page (its storage is full or blocked). "
            "Wait for “saved” before you close the tab."
        ),
        "refused": _("An answer could not be stored and was put aside: {error}"),
        "already": _("You answered a pair twice: your first answer stands, the later one was not stored."),
        "trouble": _("The server answers with an error ({status}). Your answers are kept here and sent again."),
    }


def _of_states() -> dict[str, str]:
    """What stands where a pair would, while there is none."""
    return {
        "loading_title": _("The next pair is on its way"),
        "loading_text": "",
        "offline_title": _("No connection"),
        "offline_text_none": _("The next pair comes as soon as the connection is back."),
        "offline_text_one": _("{n} answer waits here and is sent as soon as the connection is back."),
        "offline_text_other": _("{n} answers wait here and are sent as soon as the connection is back."),
        "nothing_left_title": _("Nothing is left to compare"),
        "nothing_left_text": _("You have answered everything there is for you. New pairs appear here by themselves."),
        "unplanned_title": _("No pair waits for you"),
        "unplanned_text": _(
            "An owner of the project plans the pairs that people compare. They appear here by themselves."
        ),
        "unplanned_text_owner": _(
            "Plan spot checks on the page People: which pairs, and how many. They appear here by themselves."
        ),
        "to_people": _("Plan spot checks"),
        "quota_reached_title": _("You are done"),
        "quota_reached_text": _("You have answered all pairs that were meant for you. Thank you."),
        "paused_title": _("Your comparing is paused"),
        "paused_text": _("An owner of the project can let you go on."),
        "instruction_title": _("First, the instruction"),
        "instruction_text": _("Read how to compare; it takes a minute. The pairs come right after."),
        "instruction_link": _("Read the instruction"),
        "signed_out_title": _("You are signed out"),
        "signed_out_text_none": _("Sign in again to go on."),
        "signed_out_text_one": _("{n} answer is kept in this browser. Sign in again and it is sent."),
        "signed_out_text_other": _("{n} answers are kept in this browser. Sign in again and they are sent."),
        "sign_in": _("Sign in"),
        "gone_title": _("Nothing here for you any more"),
        "gone_text": _("You are no longer an annotator of this project. Ask one of its owners."),
        "to_answers": _("See my answers"),
    }


def _afterwards() -> dict[str, str]:
    """What is known, and what others said, once an answer stands."""
    return {
        "known": _("The answer to this pair is known."),
        "other_tie": _("a tie"),
        "other_a": _("A"),
        "other_b": _("B"),
        "other_share": _("{side}, {percent} %"),
    }
