"""Judge plugin `openai-http`: any language model behind an OpenAI-compatible endpoint.

Builds prompts with `workers.judges.prompting`, calls through `.http.client` and reads replies with `.answers`. Each error
becomes a Failure of its own kind, never a vote. Imports no Django.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from labeling.access.redaction import without_key
from labeling.annotation.criteria import Criteria, schema_of
from labeling.plugins import Judge, register
from labeling.records import AnswerKind, Collection, Comparison, Failure, FailureKind, Usage, Verdict
from workers.endpoints import learned
from workers.endpoints.conversation import Conversation
from workers.endpoints.event_loop import run
from workers.endpoints.failures import Excused, NotAsked
from workers.endpoints.gates import Channel, Gate, Outcome, SharedGate
from workers.endpoints.learned import Learned
from workers.endpoints.registry import Access, Endpoint, EndpointsInvalid, KeyMissing, UnknownEndpoint, get_endpoint
from workers.judges.openai.answers import (
    Answer,
    Asked,
    NoAnswer,
    clamp,
    read_criteria,
    read_logprobs,
    read_score,
    read_score_or_neither,
    read_votes,
)
from workers.judges.openai.batched import BatchedQuestions
from workers.judges.openai.http.calls import Calls
from workers.judges.openai.http.client import Completion, connection_to, without_secrets
from workers.judges.openai.http.remedies import UNKNOWN, Server
from workers.judges.openai.http.statuses import CallFailed, CallNotMade, outcome_of
from workers.judges.openai.options import OpenAIOptions
from workers.judges.openai.reading.usage import tokens_used
from workers.judges.prompting import (
    AnswerForm,
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

REASONED_TOKENS = 120  # of two or three short sentences and a score
CRITERION_TOKENS = 10  # of its name and score
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
NEITHER_SCHEMA: dict[str, Any] = {
    **SCORE_SCHEMA,
    "properties": {
        **SCORE_SCHEMA["properties"],
        "neither": {"type": "boolean", "description": "Whether neither document helps with the need behind the query."},
    },
    "required": ["reasoning", "score", "neither"],
}


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
class OpenAIHttpJudge(BatchedQuestions, Judge):
    """Asks a model once for each comparison, all comparisons of a batch at the same time.

    Thread-safe: all threads share the endpoint's connections and limits.
    """

    name = "openai-http"
    label = "Language model over HTTP (OpenAI API)"
    batch_size = 64
    resource = "http"
    added_options = frozenset({"examples", "delivery", "criteria", "criteria_from", "neither"})
    Options = OpenAIOptions  # type: ignore[assignment]  # endpoint and model have no default
    options: OpenAIOptions

    def __init__(self, options: Judge.Options | None = None) -> None:
        super().__init__(options)
        self._criteria: Criteria = getattr(self.options, "criteria", ())  # the judges of sets and grades have none
        self._neither: bool = getattr(self.options, "neither", False)
        scored: AnswerForm = "score_or_neither" if self._neither else "score"
        scores: AnswerForm = "criteria" if self._criteria else scored
        self.form: AnswerForm = scores if self.options.mode == "reasoned" else "letter"
        self.prompt_hash = self.hash_of_prompts()
        self.model_revision = self.options.model
        self._limits = Limits(self.options.max_document_tokens, self.options.max_query_tokens)

    @property
    def calls_per_comparison(self) -> int:
        """The number of paid calls of one comparison, as far as the endpoint is known to accept `n`."""
        return self.options.votes if self._votes_one_by_one(unless_known=False) else 1

    @property
    def most_calls_per_comparison(self) -> int:
        """The most paid calls that one comparison can take; budgets reserve so many. An endpoint may ignore `n`."""
        return self.options.votes if self._votes_one_by_one(unless_known=True) else 1

    def _votes_one_by_one(self, *, unless_known: bool) -> bool:
        """Whether each vote takes a call. `unless_known`: where the endpoint has not been seen to accept `n`, it does."""
        if self.options.mode != "sampled" or self.options.votes == 1:
            return False
        if not self.options.votes_in_one_call:
            return True
        known = self._learned().n
        return known == "ignored" or (unless_known and known != "works")

    def _learned(self) -> Learned:
        try:
            return learned.recall(self.channel().identity, self.options.model)
        except (LookupError, ValueError):  # it cannot be called, which its answers report
            return Learned()

    @property
    def answer_tokens(self) -> tuple[float, int]:
        """Tokens that one call writes: expected, and the limit that is sent with it."""
        if self.options.mode == "reasoned":
            written = REASONED_TOKENS + CRITERION_TOKENS * len(self._criteria)
            return min(written, self.options.max_output_tokens), self.options.max_output_tokens
        if self.options.mode == "sampled":
            votes = self.options.votes if self.calls_per_comparison == 1 else 1
            return float(votes), votes * self._label_limit(min(VOTE_TOKENS, self.options.max_output_tokens))
        most = self._label_limit(1)
        return float(most), most

    def _label_limit(self, tokens: int) -> int:
        """The limit of output tokens that is sent for a letter: this endpoint may accept no smaller one."""
        return max(tokens, self._learned().least_tokens)

    def frame(self, instruction: str) -> str:
        """The text of its prompts around query and documents."""
        return frame_of(instruction, self.form, self.options.examples, self._criteria)

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
        access = endpoint.access()
        cut = cutter_of(self.options.tokenizer)

        async def ask(comparison: Comparison, gate: SharedGate) -> Verdict | Failure:
            prompt = self.prompt(comparison, cut)
            deadline = time.monotonic() + self.options.batch_deadline_s
            return await self._judge_one(comparison, prompt, endpoint, access, deadline, gate)

        return Conversation(ask)

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict | Failure]:
        answers: dict[int, Verdict | Failure] = {}
        self.judge_each(comparisons, answers.__setitem__)
        return [answers[place] for place in range(len(comparisons))]

    def judge_each(self, comparisons: Sequence[Comparison], report: Callable[[int, Verdict | Failure], None]) -> None:
        """Report each answer, on the loop of `run`, as soon as its last call has returned."""
        try:
            endpoint = get_endpoint(self.options.endpoint)
            access = endpoint.access()
        except (UnknownEndpoint, EndpointsInvalid, KeyMissing) as error:
            for place in range(len(comparisons)):
                report(place, Failure(FailureKind.BAD_REQUEST, str(error), retryable=False))
            return
        run(self._judge_all(comparisons, endpoint, access, cutter_of(self.options.tokenizer), report))

    async def _judge_all(
        self,
        comparisons: Sequence[Comparison],
        endpoint: Endpoint,
        access: Access,
        cut: Cutter,
        report: Callable[[int, Verdict | Failure], None],
    ) -> None:
        deadline = time.monotonic() + self.options.batch_deadline_s
        # In order of the first document, so that a server with a prefix cache gets equal prefixes in a row.
        prompts = [self.prompt(comparison, cut) for comparison in comparisons]
        order = sorted(range(len(prompts)), key=lambda index: prompts[index].prefix_key)

        async def judge_and_tell(place: int) -> None:
            report(place, await self._judge_one(comparisons[place], prompts[place], endpoint, access, deadline))

        await asyncio.gather(*(asyncio.create_task(judge_and_tell(place)) for place in order))

    async def _judge_one(
        self,
        comparison: Comparison,
        prompt: Prompt,
        endpoint: Endpoint,
        access: Access,
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
            bodies = [completion.body for completion in made.completions]
            verdict = self.verdict(comparison, bodies, self.asked(access, made.completions[0].server))
        except Exception as error:
            usage = self._usage(endpoint, made, estimate, time.monotonic() - started)
            if isinstance(error, NoAnswer):
                return Failure(error.kind, without_secrets(str(error), access), error.retryable, usage=usage)
            message = without_secrets(f"{type(error).__name__}: {error}", access)
            log.error(
                "a comparison by %s at %s broke off: %s\n%s",
                self.options.model,
                endpoint.name,
                message,
                without_secrets(traceback.format_exc(), access),
            )
            return Failure(FailureKind.JUDGE_ERROR, message, retryable=False, usage=usage)
        usage = self._usage(endpoint, made, estimate, time.monotonic() - started)
        return replace(verdict, truncated=prompt.truncated, usage=usage)

    def hash_of_prompts(self) -> str:
        """SHA-256 (hex) over the files of its prompts."""
        return prompt_hash(self.form, examples=bool(self.options.examples))

    def prompt(self, comparison: Comparison, cut: Cutter) -> Prompt:
        """The prompt of one comparison."""
        shown, criteria = self.options.examples, self._criteria
        return build_prompt(comparison, form=self.form, limits=self._limits, cut=cut, examples=shown, criteria=criteria)

    def verdict(self, comparison: Comparison, bodies: list[dict[str, Any]], asked: Asked) -> Verdict:
        """The verdict on a comparison in these replies. Raises NoAnswer."""
        answer = self._read(bodies, asked)
        if answer.neither:
            return Verdict(preference=None, kind=AnswerKind.BOTH_IRRELEVANT, rationale=answer.rationale)
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
        """Make the calls of one comparison; `into` collects every result, even if one raises."""
        try:
            calls = Calls(
                connection_to(endpoint), self.options.model, estimate, deadline, gate, into.completions, into.failed
            )
        except KeyMissing as error:
            into.failed.append(CallFailed(FailureKind.BAD_REQUEST, str(error), retryable=False, reached=False))
            return
        request = self.request(prompt)
        if self.options.mode == "sampled" and self.options.votes_in_one_call and self.options.votes > 1:
            await calls.ask_for_votes(request, votes=self.options.votes)
        else:
            await calls.ask(request, times=self.options.votes if self.options.mode == "sampled" else 1)

    def request(self, prompt: Prompt) -> dict[str, Any]:
        """The body of the request in this judge's mode."""
        options = self.options
        body: dict[str, Any] = {
            **options.extra_body,
            "model": options.model,
            "stream": False,
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
                asked = (
                    schema_of(self._criteria) if self._criteria else NEITHER_SCHEMA if self._neither else SCORE_SCHEMA
                )
                schema = {"name": "comparison", "strict": True, "schema": asked}
                body["response_format"] = {"type": "json_schema", "json_schema": schema}
            elif options.response_format == "json_object":
                body["response_format"] = {"type": "json_object"}
        return body

    def _read(self, bodies: list[dict[str, Any]], asked: Asked) -> Answer:
        options = self.options
        if options.mode == "sampled":
            return read_votes(list(bodies), votes=options.votes, asked=asked)
        if options.mode == "reasoned" and self._criteria:
            return read_criteria(bodies[0], self._criteria, asked=asked)
        if options.mode == "reasoned":
            return (read_score_or_neither if self._neither else read_score)(bodies[0], asked=asked)
        return read_logprobs(bodies[0], least_mass=options.min_label_mass, missing=options.missing_label, asked=asked)

    def asked(self, access: Access, server: Server = UNKNOWN) -> Asked:
        """The settings with which this judge asks its questions. At temperature 0, or with a seed, a retry returns the same answer. Texts that
        are kept lose all secrets, before they are shortened.
        """
        options = self.options
        default = 1.0 if options.mode == "sampled" else 0.0
        temperature = default if options.temperature is None else options.temperature
        omitted = self._learned().omitted  # what the endpoint does not accept is not sent
        is_seeded = options.seed is not None and "seed" not in omitted
        limits = {"logprob": self._label_limit(1)}
        limits["sampled"] = self._label_limit(min(VOTE_TOKENS, options.max_output_tokens))
        return Asked(
            options.mode,
            varies=not is_seeded and (temperature > 0 or not options.send_temperature or "temperature" in omitted),
            token_limit=limits.get(options.mode, options.max_output_tokens),
            max_output_tokens=options.max_output_tokens,
            top_logprobs=options.top_logprobs,
            response_format=options.response_format,
            server=server,
            conceal=lambda text: without_key(text, *access.secrets),
        )

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
        inputs, outputs = tokens_used(completion.body, estimate=estimate)
        return Usage(inputs, outputs, endpoint.cost_micros(inputs, outputs), completion.latency_s)


def _blame(error: CallFailed, gate: Gate | None, *, is_unpaid: bool) -> type[Failure]:
    """Whether the endpoint or the question caused a failed call. Without a shared gate it is always the question."""
    if gate is None:
        return Failure
    if error.kind is FailureKind.RATE_LIMITED:
        return NotAsked if is_unpaid else Excused
    return Excused if outcome_of(error) is Outcome.OUTAGE and gate.excuses(reached=error.reached) else Failure
