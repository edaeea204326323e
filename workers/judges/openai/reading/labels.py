"""P(A) and P(B) at the position of the label, from log-probabilities.

preference = P(A) / (P(A) + P(B)), each summed over the spellings of its label. Values that are null or infinite matter only on
a label. `tokens` reads the shapes. Imports no Django.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Literal

from workers.judges.openai.http.remedies import missing_label, no_logprobs, thinking_off
from workers.judges.openai.reading.failures import Asked, Cause, NoAnswer
from workers.judges.openai.reading.thinking import begins_thinking, final_text
from workers.judges.openai.reading.tokens import Position, Token, is_token_id, plain, positions_of
from workers.judges.openai.reading.votes import label_in

MissingLabel = Literal["fail", "floor"]

# A sum of probabilities may exceed 1 by rounding, the sampled token may be less likely than another by as many nats.
MOST_MASS = 1.02
MOST_NATS_BELOW = 0.25

_PADDING = "*_\"'`“”‘’„«»‹›「」『』【】《》()[]{}.:#"
_SPECIAL = re.compile(
    r"(?:<s>|<bos>|<\|(?:begin_of_text|startoftext|im_start|assistant|start|message|channel|end_header_id)\|>|\[gMASK\]|<sop>|"
    r"assistant|final|\s)*"
)


def listed_masses(position: Position, labels: Sequence[str], *, asked: Asked) -> tuple[dict[str, float], list[Token]]:
    """(the probability of each label over all its spellings, 0 where it is not listed; all listed tokens).

    Raises NoAnswer for ids of tokens, and for values of labels that are no log-probabilities.
    """
    tokens = position.tokens
    if any(map(is_token_id, (token.text for token in tokens))):
        message = "the log-probabilities name ids of tokens, not texts; turn return_tokens_as_token_ids off"
        raise asked.unreadable(Cause.TOKEN_IDS, message)
    spelled = _spellings(position, labels)
    for token in (each for found in spelled.values() for each in found):
        if not token.is_number and not token.is_absent:
            message = f"the log-probability of {token.text!r:.40} is {token.value!r:.40}; expected a number up to 0"
            raise asked.unreadable(Cause.BAD_LOGPROB, f"{message}; {no_logprobs()}")
    listed = [token for token in tokens if token.is_number and not token.is_absent]
    total = math.fsum(token.probability for token in listed)
    if total > MOST_MASS:
        message = f"the listed probabilities add up to {total:.3f}; they are not log-probabilities of one token"
        raise asked.unreadable(Cause.BAD_LOGPROB, f"{message}; {no_logprobs()}")
    return {label: math.fsum(each.probability for each in found) for label, found in spelled.items()}, listed


def preference_at(position: Position, *, least_mass: float, missing: MissingLabel, asked: Asked) -> float:
    """P(A) / (P(A) + P(B)). Raises NoAnswer if the two do not add up to `least_mass`, or one cannot be known."""
    masses, listed = listed_masses(position, "AB", asked=asked)
    total = math.fsum(token.probability for token in listed)
    absent = [label for label, mass in masses.items() if mass == 0.0]
    if absent:
        _fill(masses, absent, listed, missing=missing, asked=asked)
    a, b = masses["A"], masses["B"]
    others = total - math.fsum(mass for label, mass in masses.items() if label not in absent)
    mass = min(a + b, max(1.0 - others, 0.0)) if absent else a + b
    if mass < least_mass or a + b == 0.0:
        raise no_label(asked, "AB", mass, least_mass)
    return min(max(a / (a + b), 0.0), 1.0)


def no_label(asked: Asked, labels: Sequence[str], mass: float, least_mass: float) -> NoAnswer:
    """The failure of an answer that is none of the labels."""
    names, sum_of = " or ".join(labels), " + ".join(f"P({label})" for label in labels)
    return asked.unreadable(
        Cause.LABEL_MASS,
        f"the model did not answer {names}: {sum_of} is {mass:.3f}, expected at least {least_mass:g}; "
        f"if it thinks first, {thinking_off(asked.server, asked.mode)}",
    )


def _fill(
    masses: dict[str, float], absent: list[str], listed: list[Token], *, missing: MissingLabel, asked: Asked
) -> None:
    """Give the one label that is not listed its upper bound, or raise NoAnswer."""
    shown = sorted({token.text for token in listed})
    names = " and ".join(absent)
    if len(shown) < 2:
        message = f"the server lists no alternatives to {shown!r:.60}, so {names} cannot be known; {no_logprobs()}"
        raise asked.unreadable(Cause.NO_ALTERNATIVES, message)
    if len(absent) == 2:
        message = f"the model did not answer A or B: neither is among {shown!r:.200}; if it thinks first, "
        raise asked.unreadable(Cause.LABEL_MASS, message + thinking_off(asked.server, asked.mode))
    if missing == "fail":
        message = (
            f"no log-probability for {names} among {shown!r:.200}; {missing_label(len(shown), asked.top_logprobs)}"
        )
        raise asked.unreadable(Cause.MISSING_LABEL, message)
    [label] = absent
    winner = masses["B" if label == "A" else "A"]
    masses[label] = min(min(token.probability for token in listed), max(1.0 - winner, 0.0))


def _spellings(position: Position, labels: Sequence[str]) -> dict[str, list[Token]]:
    """The listed spellings of each label. "a" may be the article: lower case counts only if the model answered in it and
    all letters are listed.
    """
    spelled = [(plain(token.text).strip().strip(_PADDING).strip(), token) for token in position.tokens]
    found = {label: [token for text, token in spelled if text == label] for label in labels}
    lower = {label: [token for text, token in spelled if text == label.lower() != label] for label in labels}
    answered = plain(position.sampled.text).strip().strip(_PADDING).strip()
    if answered in {label.lower() for label in labels} and sum(map(bool, lower.values())) > 1:
        return {label: found[label] + lower[label] for label in labels}
    return found


# --- the position of the label -----------------------------------------------------------


def label_position(
    logprobs: Any, text: str, *, thinks: bool, asked: Asked, labels: Sequence[str] = ("A", "B")
) -> Position:
    """The first position that is not blank or special. Raises NoAnswer if thinking precedes it or it contradicts `text`.

    `thinks`: whether the message holds thinking in a field of its own, whose tokens some servers list first.
    """
    positions = positions_of(logprobs)
    if not positions:
        raise asked.unreadable(Cause.NO_LOGPROBS, f"the reply holds no log-probabilities; {no_logprobs(asked.server)}")
    spoken = "".join(plain(each.sampled.text) for each in positions)
    if begins_thinking(spoken) or begins_thinking(text) or (thinks and spoken.strip() != text.strip()):
        raise _thinks_first(asked)
    for position in positions:
        if not _SPECIAL.fullmatch(plain(position.sampled.text)):
            _check_sampled(position, text or spoken, asked, labels)
            return position
    message = f"the first token is {spoken!r:.40}, and the label would come after it; {no_logprobs()}"
    raise asked.unreadable(Cause.LABEL_MASS, message)


def _thinks_first(asked: Asked) -> NoAnswer:
    return asked.only_thinking("the model thinks before it answers, so its first token is not a label")


def _check_sampled(position: Position, text: str, asked: Asked, labels: Sequence[str]) -> None:
    """Raise NoAnswer if the text that came back is another letter, or its token cannot have been the likeliest."""
    sampled = position.sampled
    try:
        said = final_text(text)
    except ValueError:
        said = text
    token = plain(sampled.text).strip().strip(_PADDING).strip()
    first = plain(said).strip().lstrip(_PADDING).strip()
    if token.upper() in labels and first and label_in(plain(said), labels) != token.upper():
        message = f"the reply says {first!r:.40}, which is not the answer {token}, the token of its first log-probability; {no_logprobs()}"
        raise asked.unreadable(Cause.CONTRADICTION, message)
    if asked.varies:
        return
    likeliest = max((each.value for each in position.tokens if each.is_number), default=None)
    listed = [each.value for each in (sampled, *position.tokens) if each.text == sampled.text and each.is_number]
    if listed and likeliest is not None and min(listed) < likeliest - MOST_NATS_BELOW:
        message = (
            f"the model wrote {sampled.text!r:.20}, although another token has a higher log-probability; its "
            f"log-probabilities are those of another token or temperature; {no_logprobs()}"
        )
        raise asked.unreadable(Cause.CONTRADICTION, message)
