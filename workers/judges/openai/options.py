"""Options of the judges that ask a language model over HTTP. Imports no Django."""

from __future__ import annotations

import os
from typing import Any, Literal

import pydantic

from labeling.annotation.criteria import MOST_CRITERIA, Criteria, check_names
from labeling.plugins import Judge
from labeling.retrieval.model_names import ModelName
from labeling.stored_texts import stored_text
from workers.judges.examples import MOST_EXAMPLES, Examples
from workers.judges.openai.answers import MissingLabel

Mode = Literal["logprob", "reasoned", "sampled"]

# Fields that the modes set themselves; `extra_body` must not contain them.
RESERVED = {"model", "messages", "n", "stream", "logprobs", "top_logprobs", "response_format", "temperature"}
RESERVED |= {"max_tokens", "max_completion_tokens", "seed"}
# Fields that change how a model answers, and neither its price class, nor tools, nor who else gets the texts.
ALLOWED = {
    "add_generation_prompt", "chat_template_kwargs", "enable_thinking", "frequency_penalty",
    "guided_choice", "guided_json", "guided_regex", "include_reasoning", "length_penalty",
    "logit_bias", "min_p", "num_ctx", "presence_penalty", "prompt_mode", "reasoning",
    "reasoning_effort", "reasoning_format", "repetition_penalty", "safe_prompt", "skip_special_tokens", "stop",
    "stop_token_ids", "structured_outputs", "think", "thinking", "thinking_budget", "top_k", "top_p", "verbosity",
}  # fmt: skip
MORE_ALLOWED = "ZELO_EXTRA_BODY"
FIELDS_NOT_ALLOWED = stored_text("may not set %(names)s; the operator can allow more fields in ZELO_EXTRA_BODY")
RESERVED_FIELDS = stored_text("may not set %(names)s; use the options of these names")
REASONED_CRITERIA = stored_text("criteria need the mode 'reasoned'; set it, or remove the criteria")
REASONED_NEITHER = stored_text("neither needs the mode 'reasoned' without criteria; set the mode, or remove neither")
ONE_CALL = stored_text("delivery 'batch' sends one request a question; set votes_in_one_call, or delivery 'live'")


Delivery = Literal["live", "batch"]
DELIVERY = "batch: send files of questions; about half the price, answers within a day."


class EndpointOptions(Judge.Options):
    """Options of every judge that calls a model over HTTP; a judge adds its modes."""

    endpoint: str = pydantic.Field(
        min_length=1,
        description="Name of an endpoint that the operator has defined.",
        json_schema_extra={"suggest": "endpoint"},
    )
    model: str = pydantic.Field(
        min_length=1,
        max_length=200,
        description="The model's name at that endpoint.",
        json_schema_extra={"suggest": "endpoint-model"},
    )
    mode: str = "logprob"
    temperature: float | None = pydantic.Field(
        default=None, ge=0, le=2, description="Empty: 1 in the mode sampled, otherwise 0."
    )
    send_temperature: bool = pydantic.Field(default=True, description="Off for models that accept no temperature.")
    seed: int | None = pydantic.Field(default=None, ge=0, description="Sent to endpoints that support seeds.")
    top_logprobs: int = pydantic.Field(default=20, ge=2, le=100, description="Alternatives read in the mode logprob.")
    max_output_tokens: int = pydantic.Field(
        default=512, ge=1, le=65536, description="Most output tokens in the mode reasoned."
    )
    token_limit_field: Literal["max_tokens", "max_completion_tokens"] = pydantic.Field(
        default="max_tokens", description="The endpoint's name for the limit of output tokens."
    )
    response_format: Literal["json_schema", "json_object", "none"] = pydantic.Field(
        default="json_schema", description="How the mode reasoned asks for JSON."
    )
    max_document_tokens: int = pydantic.Field(
        default=1024, ge=1, le=1_000_000, description="Longest document in tokens; the rest is cut off."
    )
    max_query_tokens: int = pydantic.Field(
        default=512, ge=1, le=1_000_000, description="Longest query in tokens; the rest is cut off."
    )
    tokenizer: ModelName = pydantic.Field(
        default="", description="Hub name or folder with tokenizer.json; empty: four bytes count as a token."
    )
    batch_deadline_s: float = pydantic.Field(
        default=150.0,
        gt=0,
        le=3600,
        description="Time limit of a batch in seconds; keep it below the lease of the tasks. Calls that would exceed it are not made.",
    )
    extra_body: dict[str, Any] = pydantic.Field(
        default_factory=dict, description='Further fields of the request, e.g. {"chat_template_kwargs": ...} of vLLM.'
    )

    @pydantic.field_validator("extra_body")
    @classmethod
    def _adds_only(cls, value: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(RESERVED & set(value)):
            raise ValueError(RESERVED_FIELDS % {"names": ", ".join(taken)})
        more = {name.strip() for name in os.environ.get(MORE_ALLOWED, "").split(",")} - {""}
        # vLLM hands these on to the function that also takes the template.
        template = value.get("chat_template_kwargs")
        nested = {"chat_template"} & set(template) if isinstance(template, dict) else set()
        if refused := sorted((set(value) - ALLOWED | nested) - more):
            raise ValueError(FIELDS_NOT_ALLOWED % {"names": ", ".join(refused)})
        return value


class OpenAIOptions(EndpointOptions):
    """Options of `openai-http`."""

    mode: Mode = pydantic.Field(
        default="logprob",
        description="logprob: one token, its probabilities; reasoned: a short reasoning and a score; sampled: votes.",
    )
    clamp: bool = pydantic.Field(
        default=False, description="Round to win, tie or loss, as the paper does; costs accuracy."
    )
    votes: int = pydantic.Field(default=5, ge=1, le=128, description="Votes of the mode sampled.")
    votes_in_one_call: bool = pydantic.Field(
        default=True, description="Ask for all votes with `n`; off: a call for each vote, where `n` is ignored."
    )
    min_label_mass: float = pydantic.Field(
        default=0.8, ge=0, le=1, description="Smallest P(A) + P(B) that counts as an answer in the mode logprob."
    )
    missing_label: MissingLabel = pydantic.Field(
        default="fail", description="A label outside the alternatives: fail, or floor (the least of them)."
    )
    delivery: Delivery = pydantic.Field(default="live", description=DELIVERY)
    examples: Examples = pydantic.Field(
        default=(), max_length=MOST_EXAMPLES, description="People's answers to other queries, shown in the prompt."
    )
    criteria: Criteria = pydantic.Field(
        default=(),
        max_length=MOST_CRITERIA,
        description="Mode reasoned: a score for each criterion, combined by the weights; name, description, weight.",
    )

    neither: bool = pydantic.Field(
        default=False, description="Mode reasoned: the model may also answer that neither document is relevant."
    )
    criteria_from: Literal["", "project"] = pydantic.Field(
        default="", description="project: the criteria are those of the project's rubric when the judge is chosen."
    )

    @pydantic.model_validator(mode="after")
    def _criteria_have_scores(self) -> OpenAIOptions:
        if self.criteria and self.mode != "reasoned":
            raise ValueError(REASONED_CRITERIA % {})
        check_names(self.criteria)
        if self.neither and (self.mode != "reasoned" or self.criteria):
            raise ValueError(REASONED_NEITHER % {})
        return self

    @pydantic.model_validator(mode="after")
    def _one_call_in_batches(self) -> OpenAIOptions:
        if self.delivery == "batch" and self.mode == "sampled" and not self.votes_in_one_call:
            raise ValueError(ONE_CALL % {})
        return self
