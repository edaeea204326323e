"""`NoAnswer`: why a reply is no answer, what would help, and whether a retry can; `Asked`: how the question was put.

The other modules of this folder raise it. Imports no Django.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from labeling.records import FailureKind
from workers.judges.openai.http.remedies import UNKNOWN, Server, raise_the_limit, server_of, thinking_off

Mode = Literal["logprob", "reasoned", "sampled"]
SHOWN_CHARACTERS = 200

_UNSTORABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


class Cause(enum.StrEnum):
    """Why a reply is no answer, finer than `FailureKind`."""

    NO_CHOICES = "no choices"
    STREAM = "a piece of a stream"
    BROKEN_OFF = "the server broke off"
    FILTERED = "filtered"
    REFUSED = "refused"
    TOOL = "a tool was called"
    CUT_OFF = "cut off"
    THINKING = "only thinking"
    EMPTY = "empty"
    UNKNOWN_ENDING = "unknown finish_reason"
    TWO_TURNS = "continued after its turn"
    NO_SCORE = "no score"
    BAD_SCORE = "score out of range"
    CONTRADICTION = "contradiction"
    MENTION = "answer only mentioned"
    NO_VOTE = "no vote"
    FEW_VOTES = "too few votes"
    NO_LOGPROBS = "no log-probabilities"
    NO_ALTERNATIVES = "no alternatives"
    TOKEN_IDS = "token ids"
    BAD_LOGPROB = "not a log-probability"
    MISSING_LABEL = "label not listed"
    LABEL_MASS = "neither A nor B"


class NoAnswer(Exception):
    """The model's reply holds no usable answer. `retryable`: whether asking the same again can help."""

    def __init__(self, kind: FailureKind, message: str, *, retryable: bool, cause: Cause | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.retryable = retryable
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Asked:
    """The settings of a question, as far as failures depend on them.

    `varies`: whether the same question can get another answer (a temperature above 0 and no seed). `token_limit`: the
    output tokens that the request allowed. `conceal` removes the endpoint's key from kept text, before it is shortened.
    """

    mode: Mode
    varies: bool = False
    token_limit: int | None = None
    max_output_tokens: int | None = None
    top_logprobs: int | None = None
    response_format: str | None = None
    server: Server = UNKNOWN
    conceal: Callable[[str], str] = str

    def at(self, body: Any) -> Asked:
        """The same with the kind of server that this body shows, if none is known."""
        return replace(self, server=server_of("", {}, body)) if self.server is UNKNOWN else self

    def shown(self, text: str) -> str:
        """The beginning of a text for a message."""
        return storable(self.conceal(text))[:SHOWN_CHARACTERS]

    # --- failures that several readers raise ---

    def unreadable(self, cause: Cause, message: str) -> NoAnswer:
        """A failure of what the model wrote: in the mode logprob of kind label_mass, which no retry changes."""
        if self.mode == "logprob":
            return NoAnswer(FailureKind.LABEL_MASS, message, retryable=False, cause=cause)
        return NoAnswer(FailureKind.UNPARSEABLE, message, retryable=self.varies, cause=cause)

    def broken(self, cause: Cause, message: str) -> NoAnswer:
        """A failure of the server rather than of the answer: a retry can help at any temperature."""
        return NoAnswer(FailureKind.UNPARSEABLE, message, retryable=True, cause=cause)

    def cut_off(self, text: str) -> NoAnswer:
        remedy = raise_the_limit(self.mode, self.token_limit, self.max_output_tokens, self.server)
        message = f"the answer was cut off ({self.shown(text)!r}); {remedy}"
        kind = FailureKind.LABEL_MASS if self.mode == "logprob" else FailureKind.UNPARSEABLE
        return NoAnswer(kind, message, retryable=False, cause=Cause.CUT_OFF)

    def only_thinking(self, message: str) -> NoAnswer:
        """The thinking came first or took all tokens; the next one would, too."""
        remedy = thinking_off(self.server, self.mode)
        if self.mode == "reasoned":
            remedy = f"raise max_output_tokens, or {remedy}"
        kind = FailureKind.LABEL_MASS if self.mode == "logprob" else FailureKind.UNPARSEABLE
        return NoAnswer(kind, f"{message}; {remedy}", retryable=False, cause=Cause.THINKING)

    def refused(self, text: str) -> NoAnswer:
        message = f"the model refused: {storable(self.conceal(text))[:300]}"
        return NoAnswer(FailureKind.REFUSAL, message, retryable=False, cause=Cause.REFUSED)


def storable(text: str) -> str:
    """The text without characters that a database rejects: NUL, other controls and lone surrogates."""
    return _UNSTORABLE.sub(" ", text).strip()
