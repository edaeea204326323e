"""Judge plugin `setwise`: asks a model which of k documents is the best, so that one call yields many preferences.

In the mode `logprob` the probabilities of all k letters give a preference for each pair of the set; in the mode `json` a
ranking does, or the best document alone, k - 1 preferences. After setwise prompting (Zhuang et al. 2024, arXiv 2310.09497).
The errors of one call are correlated: `scoring.numerics.judges.calls` measures how strongly, and that decides their weight.
Imports no Django.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any, Literal

import pydantic

from labeling.plugins import register
from labeling.records import Comparison, PlacedPreference, Verdict
from workers.endpoints.registry import Access
from workers.judges.openai.answers import Asked, MissingLabel, read_logprobs
from workers.judges.openai.http.remedies import UNKNOWN, Server
from workers.judges.openai.judge import OpenAIHttpJudge
from workers.judges.openai.many_labels import preferences_of_masses, read_label_masses, read_ranking
from workers.judges.openai.options import DELIVERY, Delivery, EndpointOptions
from workers.judges.prompting import AnswerForm, Cutter, Prompt, build_prompt, prompt_hash
from workers.judges.set_prompting import (
    LETTERS,
    MOST_DOCUMENTS,
    SetForm,
    build_set_prompt,
    set_frame_of,
    set_prompt_hash,
)

# The tokens of a ranking of a few letters, as JSON.
RANKING_TOKENS = 40.0


class SetwiseOptions(EndpointOptions):
    """Options of `setwise`."""

    mode: Literal["logprob", "json"] = pydantic.Field(
        default="logprob", description="logprob: the probabilities of all letters; json: a ranking, as text."
    )
    documents: int = pydantic.Field(default=4, ge=3, le=MOST_DOCUMENTS, description="Most documents of one call.")
    min_label_mass: float = pydantic.Field(
        default=0.8, ge=0, le=1, description="Smallest sum of the letters' probabilities that counts as an answer."
    )
    missing_label: MissingLabel = pydantic.Field(
        default="floor",
        description="A letter outside the alternatives: fail, or floor (less likely than those listed).",
    )
    delivery: Delivery = pydantic.Field(default="live", description=DELIVERY)


def ranking_schema(labels: list[str]) -> dict[str, Any]:
    """The JSON schema of a ranking of these letters."""
    letter = {"type": "string", "enum": labels}
    return {
        "type": "object",
        "properties": {"best": letter, "ranking": {"type": "array", "items": letter}},
        "required": ["best", "ranking"],
        "additionalProperties": False,
    }


@register
class SetwiseJudge(OpenAIHttpJudge):
    """Asks once for each set. A pair is a set of two; a pair across queries gets the prompt of `openai-http`."""

    name = "setwise"
    label = "Language model over HTTP, best of several documents (setwise)"
    Options = SetwiseOptions  # type: ignore[assignment]  # endpoint and model have no default
    options: SetwiseOptions  # type: ignore[assignment]  # the two judges share EndpointOptions alone

    added_options = frozenset()

    @property
    def _set_form(self) -> SetForm:
        return "ranking" if self.options.mode == "json" else "set_letter"

    @property
    def _pair_form(self) -> AnswerForm:
        return "ranking" if self.options.mode == "json" else "letter"

    def hash_of_prompts(self) -> str:
        parts = prompt_hash(self._pair_form), set_prompt_hash(self._set_form)
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    @property
    def set_size(self) -> int:
        return self.options.documents

    @property
    def calls_per_comparison(self) -> int:
        return 1

    @property
    def answer_tokens(self) -> tuple[float, int]:
        if self.options.mode == "json":
            return min(RANKING_TOKENS, self.options.max_output_tokens), self.options.max_output_tokens
        most = self._label_limit(1)
        return float(most), most

    def frame(self, instruction: str) -> str:
        return set_frame_of(instruction, self._set_form, self.options.documents)

    def prompt(self, comparison: Comparison, cut: Cutter) -> Prompt:
        if comparison.cross_query:
            return build_prompt(comparison, form=self._pair_form, limits=self._limits, cut=cut)
        return build_set_prompt(comparison, form=self._set_form, limits=self._limits, cut=cut)

    def request(self, prompt: Prompt) -> dict[str, Any]:
        body = super().request(prompt)
        if self.options.mode == "json" and self.options.response_format == "json_schema":
            schema = {
                "name": "ranking",
                "strict": True,
                "schema": ranking_schema(list(LETTERS[: prompt.documents])),
            }
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def asked(self, access: Access, server: Server = UNKNOWN) -> Asked:
        asked = super().asked(access, server)
        return replace(asked, mode="reasoned" if self.options.mode == "json" else "logprob")

    def verdict(self, comparison: Comparison, bodies: list[dict[str, Any]], asked: Asked) -> Verdict:
        if comparison.documents:
            return Verdict.on_set(self._placed(bodies[0], len(comparison.documents), asked))
        options = self.options
        if options.mode == "json":
            [answer] = read_ranking(bodies[0], LETTERS[:2], asked=asked)
            first = answer.preference if answer.one == 0 else 1.0 - answer.preference
        else:
            least, missing = options.min_label_mass, options.missing_label
            first = read_logprobs(bodies[0], least_mass=least, missing=missing, asked=asked).preference_of_first
        return Verdict(preference=comparison.preference_of_a(first))

    def _placed(self, body: dict[str, Any], count: int, asked: Asked) -> list[PlacedPreference]:
        labels, options = LETTERS[:count], self.options
        if options.mode == "json":
            return read_ranking(body, labels, asked=asked)
        least, missing = options.min_label_mass, options.missing_label
        return preferences_of_masses(read_label_masses(body, labels, least_mass=least, missing=missing, asked=asked))
