"""The questions of the judge `openai-http` as lines of a batch, and the lines of a result as answers. Imports no Django."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from labeling.records import Comparison, Failure, FailureKind, Usage, Verdict
from workers.endpoints.batching import BatchApi, BatchLimits, BatchLine, BatchQuestion
from workers.endpoints.failures import NotAsked
from workers.endpoints.registry import Access, Endpoint, KeyMissing, get_endpoint
from workers.judges.openai.answers import NoAnswer
from workers.judges.openai.http.adaptation import adapted
from workers.judges.openai.http.batch_client import BatchClient
from workers.judges.openai.http.client import without_secrets
from workers.judges.openai.http.remedies import server_of
from workers.judges.openai.http.statuses import failure_of_status
from workers.judges.openai.reading.usage import tokens_used
from workers.judges.prompting import Prompt, approximate_tokens, cutter_of

# The most that a server's chat template adds to a prompt. A text has no more tokens than bytes (byte fallback).
MOST_TEMPLATE_TOKENS = 64


class BatchedQuestions:
    """Implements `workers.endpoints.batching.BatchingJudge`; a base of the judges that ask over HTTP."""

    options: Any
    answer_tokens: Any
    prompt: Any
    request: Any
    verdict: Any
    asked: Any
    _learned: Any

    @property
    def is_batched(self) -> bool:
        return getattr(self.options, "delivery", "live") == "batch"

    def batch_channel(self) -> tuple[str, str, BatchLimits, BatchApi]:
        endpoint = get_endpoint(self.options.endpoint)
        endpoint.access()
        return endpoint.name, self.options.model, endpoint.batch_limits, BatchClient(endpoint)

    def batch_question(self, comparison: Comparison) -> BatchQuestion:
        """The request of one comparison. Its bounds count a token for each byte, and all output that it may write."""
        prompt = self._prompt_of(comparison)
        inputs = len((prompt.system + prompt.user).encode(errors="replace")) + MOST_TEMPLATE_TOKENS
        outputs = self.answer_tokens[1]
        cost = get_endpoint(self.options.endpoint).batch_cost_micros(inputs, outputs)
        # In a batch `n` is sent as it was asked for: one line cannot be repeated for each vote.
        body = adapted(self.request(prompt), replace(self._learned(), n=""))
        return BatchQuestion(body, inputs, outputs, cost)

    def batch_answer(self, comparison: Comparison, line: BatchLine) -> Verdict | Failure:
        """Read as a live reply is; tokens at the price of batches."""
        endpoint, prompt = get_endpoint(self.options.endpoint), self._prompt_of(comparison)
        access = _access(endpoint)
        if not line.status:
            message = without_secrets(f"{line.code}: {line.message}", access)
            return Failure(FailureKind.UNAVAILABLE, message, retryable=True)
        server = server_of(endpoint.base_url, {}, line.body)
        if line.status != 200:
            content = json.dumps(line.body)
            error = failure_of_status(line.status, {}, content, server=server, model=self.options.model)
            kind = NotAsked if error.kind is FailureKind.RATE_LIMITED else Failure
            return kind(error.kind, without_secrets(str(error), access), error.retryable)
        estimate = approximate_tokens(prompt.system) + approximate_tokens(prompt.user)
        inputs, outputs = tokens_used(line.body, estimate=estimate)
        usage = Usage(inputs, outputs, endpoint.batch_cost_micros(inputs, outputs))
        try:
            verdict: Verdict = self.verdict(comparison, [line.body], self.asked(access, server))
        except NoAnswer as error:
            return Failure(error.kind, without_secrets(str(error), access), error.retryable, usage=usage)
        return replace(verdict, truncated=prompt.truncated, usage=usage)

    def _prompt_of(self, comparison: Comparison) -> Prompt:
        prompt: Prompt = self.prompt(comparison, cutter_of(self.options.tokenizer))
        return prompt


def _access(endpoint: Endpoint) -> Access:
    """The secrets to conceal; none where the key has gone since, for an answer that was paid for is stored all the same."""
    try:
        return endpoint.access()
    except KeyMissing:
        return Access(None, (), (), ())
