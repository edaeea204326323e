"""Judge plugin `openai-http`: any language model behind an OpenAI-compatible endpoint.

Builds prompts with `workers.judges.prompting`, calls through `.client` and reads replies with `.answers`. Each error
becomes a Failure of its own kind, never a vote. Imports no Django.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pydantic

from labeling.plugins import Judge, register
from labeling.records import Collection, Comparison, Failure, FailureKind, Usage, Verdict
from labeling.retrieval.model_names import ModelName
from workers.endpoints.conversation import Conversation
from workers.endpoints.event_loop import run
from workers.endpoints.failures import Excused, NotAsked
from workers.endpoints.gates import Channel, Gate, Outcome, SharedGate
from workers.endpoints.registry import Endpoint, EndpointsInvalid, KeyMissing, UnknownEndpoint, get_endpoint
from workers.judges.examples import MOST_EXAMPLES, Examples
from workers.judges.openai.answers import Answer, MissingLabel, NoAnswer, clamp, read_logprobs, read_score, read_votes
from workers.judges.openai.client import CallFailed, CallNotMade, Completion, connection_to, outcome_of, redact
from workers.judges.prompting import (
    Cutter,
    Limits,
    Prompt,
    approximate_tokens,
    build_prompt,
    cutter_of,
    frame_of,
    prompt_hash,
)

log = logging.getLogger(__name__)

Mode = Literal["logprob", "reasoned", "sampled"]

REASONED_TOKENS = 120  # of two or three short sentences and a score
VOTE_TOKENS = 8

SCORE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "reasoning": {"type": "string", "description": "Two or three short sentences that weigh both documents."},
        "score": {"type": "number", "minimum": -1, "maximum": 1},
    },
    "required": ["reasoning", "score"],
    "additionalProperties": False,
}

# Fields that the modes set themselves; `extra_body` must not contain them.
RESERVED = {"model", "messages", "n", "stream", "logprobs", "top_logprobs", "response_format", "temperature"}
RESERVED |= {"max_tokens", "max_completion_tokens", "seed"}


class EndpointOptions(Judge.Options):
    """What every judge that asks a model over HTTP can be given; a judge adds its modes."""

    endpoint: str = pydantic.Field(min_length=1, description="Name of an endpoint that the operator has defined.")
    model: str = pydantic.Field(min_length=1, max_length=200, description="The model's name at that endpoint.")
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
            raise ValueError(f"may not set {', '.join(taken)}; use the options of these names")
        return value


class OpenAIOptions(EndpointOptions):
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
    examples: Examples = pydantic.Field(
        default=(), max_length=MOST_EXAMPLES, description="People's answers to other queries, shown in the prompt."
    )
    min_label_mass: float = pydantic.Field(
        default=0.8, ge=0, le=1, description="Smallest P(A) + P(B) that counts as an answer in the mode logprob."
    )
    missing_label: MissingLabel = pydantic.Field(
        default="fail", description="A label outside the alternatives: fail, or floor (the least of them)."
    )


@dataclass
class _Made:
    """The results of the calls of one comparison: replies, and failures in the order of time."""

    completions: list[Completion] = field(default_factory=list)
    failed: list[CallFailed] = field(default_factory=list)

    @property
    def booked(self) -> list[CallFailed]:
        """The failed calls that count: calls that were made, and that no rate limit rejected unpaid."""
        return [each for each in self.failed if each.paid or not _is_rate_limited(each)]

    @property
    def error(self) -> CallFailed:
        """The most informative failure: of a call that was made, rather than of one that was not made or was rejected."""
        return min(self.failed, key=lambda each: (isinstance(each, CallNotMade), _is_rate_limited(each)))


def _is_rate_limited(error: CallFailed) -> bool:
    return isinstance(error, CallNotMade) or error.kind is FailureKind.RATE_LIMITED


@register
class OpenAIHttpJudge(Judge):
    """Asks a model once for each comparison, all comparisons of a batch at the same time.

    Thread-safe: all threads share the endpoint's connections and limits.
    """

    name = "openai-http"
    label = "Language model over HTTP (OpenAI API)"
    batch_size = 64
    resource = "http"
    added_options = frozenset({"examples"})
    Options = OpenAIOptions  # type: ignore[assignment]  # endpoint and model have no default
    options: OpenAIOptions

    def __init__(self, options: Judge.Options | None = None) -> None:
        super().__init__(options)
        self.form: Literal["letter", "score"] = "score" if self.options.mode == "reasoned" else "letter"
        self.prompt_hash = self.hash_of_prompts()
        self.model_revision = self.options.model
        self._limits = Limits(self.options.max_document_tokens, self.options.max_query_tokens)

    @property
    def calls_per_comparison(self) -> int:
        """How many paid calls one comparison takes."""
        return self.options.votes if self.options.mode == "sampled" and not self.options.votes_in_one_call else 1

    @property
    def answer_tokens(self) -> tuple[float, int]:
        """Tokens that one call writes: expected, and the limit that is sent with it."""
        if self.options.mode == "reasoned":
            return min(REASONED_TOKENS, self.options.max_output_tokens), self.options.max_output_tokens
        if self.options.mode == "sampled":
            votes = self.options.votes if self.options.votes_in_one_call else 1
            return float(votes), votes * min(VOTE_TOKENS, self.options.max_output_tokens)
        return 1.0, 1

    def frame(self, instruction: str) -> str:
        """The text of its prompts around query and documents."""
        return frame_of(instruction, self.form, self.options.examples)

    @classmethod
    def problems(cls, options: Mapping[str, Any]) -> list[str]:
        """Says where the endpoint is not defined. Keys are checked by the workers only."""
        try:
            get_endpoint(str(options.get("endpoint", "")))
        except (UnknownEndpoint, EndpointsInvalid) as error:
            return [str(error)]
        return []

    def prepare(self, collection: Collection) -> None:
        """Load the tokenizer, if one is named; the collection is not used."""
        cutter_of(self.options.tokenizer)

    def channel(self) -> Channel:
        """The channel under which its calls are counted. Raises UnknownEndpoint, EndpointsInvalid, KeyMissing."""
        return get_endpoint(self.options.endpoint).channel(self.options.model)

    def converse(self) -> Conversation:
        """Ask one by one, within the limits that all workers share. Raises UnknownEndpoint, EndpointsInvalid, KeyMissing."""
        endpoint = get_endpoint(self.options.endpoint)
        key = endpoint.api_key()
        cut = cutter_of(self.options.tokenizer)

        async def ask(comparison: Comparison, gate: SharedGate) -> Verdict | Failure:
            prompt = self.prompt(comparison, cut)
            deadline = time.monotonic() + self.options.batch_deadline_s
            return await self._judge_one(comparison, prompt, endpoint, key, deadline, gate)

        return Conversation(ask)

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict | Failure]:
        answers: dict[int, Verdict | Failure] = {}
        self.judge_each(comparisons, answers.__setitem__)
        return [answers[place] for place in range(len(comparisons))]

    def judge_each(self, comparisons: Sequence[Comparison], report: Callable[[int, Verdict | Failure], None]) -> None:
        """Report each answer, on the loop of `run`, as soon as its last call has returned."""
        try:
            endpoint = get_endpoint(self.options.endpoint)
            key = endpoint.api_key()
        except (UnknownEndpoint, EndpointsInvalid, KeyMissing) as error:
            for place in range(len(comparisons)):
                report(place, Failure(FailureKind.BAD_REQUEST, str(error), retryable=False))
            return
        run(self._judge_all(comparisons, endpoint, key, cutter_of(self.options.tokenizer), report))

    async def _judge_all(
        self,
        comparisons: Sequence[Comparison],
        endpoint: Endpoint,
        key: pydantic.SecretStr | None,
        cut: Cutter,
        report: Callable[[int, Verdict | Failure], None],
    ) -> None:
        deadline = time.monotonic() + self.options.batch_deadline_s
        # In order of the first document, so that a server with a prefix cache gets equal prefixes in a row.
        prompts = [self.prompt(comparison, cut) for comparison in comparisons]
        order = sorted(range(len(prompts)), key=lambda index: prompts[index].prefix_key)

        async def judge_and_tell(place: int) -> None:
            report(place, await self._judge_one(comparisons[place], prompts[place], endpoint, key, deadline))

        await asyncio.gather(*(asyncio.create_task(judge_and_tell(place)) for place in order))

    async def _judge_one(
        self,
        comparison: Comparison,
        prompt: Prompt,
        endpoint: Endpoint,
        key: pydantic.SecretStr | None,
        deadline: float,
        gate: Gate | None = None,
    ) -> Verdict | Failure:
        """One verdict or failure; an error of one comparison never affects another. No returned text contains the
        endpoint's key.
        """
        started = time.monotonic()
        estimate = approximate_tokens(prompt.system) + approximate_tokens(prompt.user)
        made = _Made()
        try:
            await self._ask(prompt, endpoint, estimate=estimate, deadline=deadline, into=made, gate=gate)
            if made.failed:
                return self._unanswered(made, endpoint, estimate, time.monotonic() - started, gate)
            verdict = self.verdict(comparison, [completion.body for completion in made.completions])
        except Exception as error:
            usage = self._usage(endpoint, made, estimate, time.monotonic() - started)
            if isinstance(error, NoAnswer):
                return Failure(error.kind, redact(str(error), key), error.retryable, usage=usage)
            message = redact(f"{type(error).__name__}: {error}", key)
            log.error(
                "a comparison by %s at %s broke off: %s\n%s",
                self.options.model,
                endpoint.name,
                message,
                redact(traceback.format_exc(), key),
            )
            return Failure(FailureKind.JUDGE_ERROR, message, retryable=False, usage=usage)
        usage = self._usage(endpoint, made, estimate, time.monotonic() - started)
        rationale = redact(verdict.rationale, key)
        return replace(verdict, rationale=rationale, truncated=prompt.truncated, usage=usage)

    def hash_of_prompts(self) -> str:
        """SHA-256 (hex) over the files of its prompts."""
        return prompt_hash(self.form, examples=bool(self.options.examples))

    def prompt(self, comparison: Comparison, cut: Cutter) -> Prompt:
        """The prompt of one comparison."""
        return build_prompt(comparison, form=self.form, limits=self._limits, cut=cut, examples=self.options.examples)

    def verdict(self, comparison: Comparison, bodies: list[dict[str, Any]]) -> Verdict:
        """The verdict on a comparison in these replies. Raises NoAnswer."""
        answer = self._read(bodies)
        first = clamp(answer.preference_of_first) if self.options.clamp else answer.preference_of_first
        return Verdict(preference=comparison.preference_of_a(first), rationale=answer.rationale)

    def _unanswered(
        self, made: _Made, endpoint: Endpoint, estimate: int, latency_s: float, gate: Gate | None
    ) -> Failure:
        """The failure of a comparison of which at least one call failed, with the cost of all that were made."""
        error, usage = made.error, self._usage(endpoint, made, estimate, latency_s)
        if isinstance(
            error, CallNotMade
        ):  # then no call failed; if no call was made either, the comparison was not asked
            kind = Failure if made.completions else NotAsked
            return kind(error.kind, str(error), True, error.retry_after_s, usage)
        kind = _blame(error, gate, is_unpaid=not (made.completions or made.booked))
        return kind(error.kind, str(error), error.retryable, error.retry_after_s, usage)

    async def _ask(
        self,
        prompt: Prompt,
        endpoint: Endpoint,
        *,
        estimate: int,
        deadline: float,
        into: _Made,
        gate: Gate | None,
    ) -> None:
        """Make the calls of one comparison concurrently; `into` collects every result, even if one raises."""
        connection = connection_to(endpoint)
        request = self.request(prompt)

        async def call() -> None:
            try:
                into.completions.append(
                    await connection.complete(request, tokens=estimate, deadline=deadline, gate=gate)
                )
            except CallFailed as error:
                into.failed.append(error)

        outcomes = await asyncio.gather(*(call() for _ in range(self.calls_per_comparison)), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    def request(self, prompt: Prompt) -> dict[str, Any]:
        """The body of the request in this judge's mode."""
        options = self.options
        body: dict[str, Any] = {
            **options.extra_body,
            "model": options.model,
            "messages": [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}],
        }
        if options.send_temperature:
            default = 1.0 if options.mode == "sampled" else 0.0
            body["temperature"] = default if options.temperature is None else options.temperature
        if options.seed is not None:
            body["seed"] = options.seed
        if options.mode == "logprob":
            body |= {"logprobs": True, "top_logprobs": options.top_logprobs, options.token_limit_field: 1}
        elif options.mode == "sampled":
            votes = options.votes if options.votes_in_one_call else 1
            body |= {options.token_limit_field: min(VOTE_TOKENS, options.max_output_tokens)} | (
                {"n": votes} if votes > 1 else {}
            )
        else:
            body[options.token_limit_field] = options.max_output_tokens
            if options.response_format == "json_schema":
                schema = {"name": "comparison", "strict": True, "schema": SCORE_SCHEMA}
                body["response_format"] = {"type": "json_schema", "json_schema": schema}
            elif options.response_format == "json_object":
                body["response_format"] = {"type": "json_object"}
        return body

    def _read(self, bodies: list[dict[str, Any]]) -> Answer:
        if self.options.mode == "sampled":
            return read_votes(list(bodies), votes=self.options.votes)
        if self.options.mode == "reasoned":
            return read_score(bodies[0])
        return read_logprobs(bodies[0], least_mass=self.options.min_label_mass, missing=self.options.missing_label)

    def _usage(self, endpoint: Endpoint, made: _Made, estimate: int, latency_s: float) -> Usage:
        """Tokens and cost as the endpoint states them, estimated where it states none; call by call where there were
        several. A prompt that went out may be charged for although nothing came back.
        """
        calls = [self._usage_of(endpoint, completion, estimate) for completion in made.completions]
        for failure in made.booked:
            unanswered = estimate if failure.paid else 0
            calls.append(Usage(unanswered, 0, endpoint.cost_micros(unanswered, 0)))
        return Usage(
            sum(call.input_tokens for call in calls),
            sum(call.output_tokens for call in calls),
            sum(call.cost_micros for call in calls),
            latency_s,
            tuple(calls) if len(calls) > 1 else (),
        )

    def _usage_of(self, endpoint: Endpoint, completion: Completion, estimate: int) -> Usage:
        row = completion.body.get("usage")
        inputs, outputs = _count(row, "prompt_tokens", estimate), _count(row, "completion_tokens", 1)
        return Usage(inputs, outputs, endpoint.cost_micros(inputs, outputs), completion.latency_s)


def _blame(error: CallFailed, gate: Gate | None, *, is_unpaid: bool) -> type[Failure]:
    """Whether the endpoint or the question caused a failed call. Without a shared gate it is always the question."""
    if gate is None:
        return Failure
    if error.kind is FailureKind.RATE_LIMITED:
        return NotAsked if is_unpaid else Excused
    return Excused if outcome_of(error) is Outcome.OUTAGE and gate.excuses(reached=error.reached) else Failure


def _count(usage: Any, name: str, otherwise: int) -> int:
    """The stated count of tokens, or our own count if it is not plausible."""
    value = usage.get(name) if isinstance(usage, dict) else None
    plausible = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
    return value if plausible else otherwise  # type: ignore[return-value]
