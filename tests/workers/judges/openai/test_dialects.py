"""The judge over HTTP before servers that differ from the API: it learns what they accept, and names what it cannot change."""

from __future__ import annotations

import itertools
import json
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from labeling.records import Failure, FailureKind, Verdict
from tests.factories.http_panel import KEY
from tests.factories.questions import comparison, failure, verdict
from tests.fake_judge.process import FakeJudge
from workers.endpoints import learned
from workers.endpoints.learned import Learned
from workers.judges.openai.http.remedies import SERVERS, UNKNOWN, server_of
from workers.judges.openai.http.statuses import failure_of_status, stated_limit, unsent_remedy
from workers.judges.openai.http.streams import BadStream, is_stream, read_stream
from workers.judges.openai.judge import OpenAIHttpJudge

pytestmark = pytest.mark.usefixtures("no_faults_left")

JudgeWith = Callable[..., OpenAIHttpJudge]


@pytest.fixture(autouse=True)
def nothing_learned() -> Iterator[None]:
    learned.forget_all()
    yield
    learned.forget_all()


_numbers = itertools.count()


@pytest.fixture
def speaks(fake: FakeJudge) -> Callable[..., str]:
    """Give a new model name this dialect; returns the name."""

    def give(*dialect: str) -> str:
        model = f"{'-'.join(dialect)}-{next(_numbers)}"
        fake.set_judge(model, dialect=list(dialect))
        return model

    return give


def calls_to(fake: FakeJudge, model: str) -> list[dict[str, Any]]:
    return [line for line in fake.ledger() if line["model"] == model]


# --- what is learned ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "dialect, options, sent, left_out",
    [
        (["openai_token_limit", "openai_temperature"], {}, {"max_completion_tokens": 1}, {"max_tokens", "temperature"}),
        (["max_tokens_only"], {"token_limit_field": "max_completion_tokens"}, {"max_tokens": 1}, set()),
        (["vllm_logprobs"], {}, {"top_logprobs": 5}, set()),
        (["fastapi_logprobs"], {}, {"top_logprobs": 5}, set()),
        (["no_seed", "no_stream"], {"seed": 7}, {}, {"seed", "stream"}),
        (["python_json_object"], {"mode": "reasoned"}, {"response_format": {"type": "json_object"}}, set()),
        (["no_response_format"], {"mode": "reasoned"}, {}, {"response_format"}),
        (["one_choice"], {"mode": "sampled", "votes": 3}, {}, {"n"}),
    ],
)
def test_a_rejected_parameter_is_changed_once_and_remembered(
    fake: FakeJudge, judge_with: JudgeWith, speaks: Callable[..., str], dialect: list[str], options: dict[str, Any],
    sent: dict[str, Any], left_out: set[str],
) -> None:  # fmt: skip
    model = speaks(*dialect)
    judge = judge_with(model=model, **options)
    usage = verdict(judge.judge([comparison()])).usage
    first = calls_to(fake, model)
    assert len([line for line in first if line["fault"]]) in {
        len(dialect),
        len(dialect) + (dialect == ["no_response_format"]),
    }
    assert len(usage.calls or (usage,)) == len([line for line in first if not line["fault"]]), "rejections cost nothing"
    verdict(judge_with(model=model, **options).judge([comparison("x", "y")]))
    later = calls_to(fake, model)[len(first) :]
    assert not [line for line in later if line["fault"]]
    assert all(line["parameters"][name] == value for line in later for name, value in sent.items())
    assert not any(left_out & set(line["parameters"]) for line in later)


@pytest.mark.parametrize("dialect", ["n_ignored", "one_choice"])
def test_votes_are_asked_one_by_one_where_n_is_ignored_or_rejected(
    fake: FakeJudge, judge_with: JudgeWith, speaks: Callable[..., str], dialect: str
) -> None:
    model = speaks(dialect)
    judge = judge_with(model=model, mode="sampled", votes=5)
    assert (judge.calls_per_comparison, judge.most_calls_per_comparison) == (1, 5)
    answer = verdict(judge.judge([comparison()]))
    answered = [line for line in calls_to(fake, model) if not line["fault"]]
    assert len(answer.usage.calls) == len(answered) == 5 and "of 5 votes" in answer.rationale
    assert (judge.calls_per_comparison, judge.most_calls_per_comparison) == (5, 5)
    before = len(calls_to(fake, model))
    verdict(judge.judge([comparison("x", "y")]))
    assert [line["parameters"].get("n") for line in calls_to(fake, model)[before:]] == [None] * 5


def test_an_endpoint_that_accepts_n_needs_one_call(judge_with: JudgeWith, speaks: Callable[..., str]) -> None:
    judge = judge_with(model=speaks(), mode="sampled", votes=5)
    verdict(judge.judge([comparison()]))
    assert (judge.calls_per_comparison, judge.most_calls_per_comparison) == (1, 1)


def test_many_questions_at_once_learn_together(
    fake: FakeJudge, judge_with: JudgeWith, speaks: Callable[..., str]
) -> None:
    model = speaks("openai_token_limit", "openai_temperature")
    answers = judge_with(model=model).judge([comparison(f"text {i}", "crow") for i in range(20)])
    assert all(isinstance(answer, Verdict) for answer in answers)
    assert len([line for line in calls_to(fake, model) if not line["fault"]]) == 20


def test_what_is_learned_expires_and_merges_to_the_more_careful(monkeypatch: pytest.MonkeyPatch) -> None:
    learned.learn("e", "m", Learned(response_format="none", most_top_logprobs=8, n="works"))
    theirs = Learned(response_format="json_object", most_top_logprobs=5, n="ignored", omitted=frozenset({"seed"}))
    stored = learned.exchange("e", {"m": {**theirs.as_json(), "at": learned.recall("e", "m").at}, "broken": 7})
    assert learned.recall("e", "m") == Learned("", frozenset({"seed"}), "none", 5, n="ignored")
    assert list(stored) == ["m"] and Learned.from_json(json.loads(json.dumps(stored))["m"]) == learned.recall("e", "m")
    assert learned.recall("e", "other") == learned.recall("elsewhere", "m") == Learned()
    monkeypatch.setattr(learned, "EXPIRES_S", 0.0)
    assert learned.recall("e", "m") == Learned() and learned.exchange("e", stored) == {}


# --- what cannot be changed --------------------------------------------------------------


@pytest.mark.parametrize(
    "dialect, mode, kind, remedy",
    [
        ("python_overflow", "reasoned", FailureKind.CONTEXT_OVERFLOW, "--n_ctx"),
        ("python_context", "logprob", FailureKind.CONTEXT_OVERFLOW, "lower max_document_tokens"),
        ("tgi_context", "reasoned", FailureKind.CONTEXT_OVERFLOW, "--max-total-tokens"),
        ("other_validation", "logprob", FailureKind.BAD_REQUEST, "does not accept messages"),
        ("no_logprobs", "logprob", FailureKind.BAD_REQUEST, "--logits_all true, or use the mode 'reasoned'"),
        ("unknown_model", "logprob", FailureKind.BAD_REQUEST, "correct the judge's model 'unknown_model-"),
        ("website", "logprob", FailureKind.BAD_REQUEST, "usually ends with /v1"),
        ("streams_and_stops", "reasoned", FailureKind.UNPARSEABLE, "streams although `stream` is false"),
    ],
)
def test_a_request_that_no_change_helps_fails_once_with_its_remedy(
    fake: FakeJudge, judge_with: JudgeWith, speaks: Callable[..., str], dialect: str, mode: str, kind: FailureKind,
    remedy: str,
) -> None:  # fmt: skip
    model = speaks(dialect)
    answer = failure(judge_with(model=model, mode=mode).judge([comparison()]))
    assert (answer.kind, answer.retryable) == (kind, False), answer
    assert remedy in answer.message
    assert len(calls_to(fake, model)) == 1
    if dialect != "streams_and_stops":
        assert answer.usage.input_tokens == answer.usage.cost_micros == 0, "it reached no model"


@pytest.mark.parametrize(
    "status, text, kind",
    [
        (500, "The server had an error", FailureKind.UNAVAILABLE),
        (500, "the upstream stream was reset: invalid state", FailureKind.UNAVAILABLE),
        (503, "Service unavailable: no response_format worker is not supported", FailureKind.UNAVAILABLE),
        (500, "CUDA out of memory", FailureKind.UNAVAILABLE),
        (500, "ValueError: index 512 is out of bounds for axis 0 with size 512", FailureKind.CONTEXT_OVERFLOW),
        (500, "the request exceeds the available context size", FailureKind.CONTEXT_OVERFLOW),
        (500, "input length exceeds the context length", FailureKind.CONTEXT_OVERFLOW),
        (400, "The input (61709 tokens) is longer than the model's context length (40960 tokens).", FailureKind.CONTEXT_OVERFLOW),
        (500, "{'loc': ('body', 'messages', 0, 'content'), 'msg': 'Field required'}", FailureKind.BAD_REQUEST),
        (500, "Context size has been exceeded.", FailureKind.CONTEXT_OVERFLOW),
        (500, "operands could not be broadcast together with shapes (1,32000) (0,32000)", FailureKind.CONTEXT_OVERFLOW),
        (400, "This model's maximum prompt length is 131072 but the request contains 200000 tokens.", FailureKind.CONTEXT_OVERFLOW),
        (400, "Range of input length should be [1, 30720]", FailureKind.CONTEXT_OVERFLOW),
        (400, "max_tokens must be at least 1, got -20.", FailureKind.CONTEXT_OVERFLOW),
        (500, "create() got an unexpected keyword argument 'chat_template_kwargs'", FailureKind.BAD_REQUEST),
        (424, "Request failed during generation: Server error", FailureKind.UNAVAILABLE),
        (498, "Flex tier capacity exceeded", FailureKind.UNAVAILABLE),
        (404, "DeploymentNotFound: The API deployment for this resource does not exist", FailureKind.BAD_REQUEST),
    ],
)  # fmt: skip
def test_a_server_error_is_an_outage_only_if_the_request_did_not_cause_it(
    status: int, text: str, kind: FailureKind
) -> None:
    found = failure_of_status(status, {}, json.dumps({"error": {"message": text}}))
    assert (found.kind, found.retryable) == (kind, kind is FailureKind.UNAVAILABLE)
    assert "; " in str(found), "every message has its remedy"


@pytest.mark.parametrize(
    "text, most",
    [
        ("Requested sample logprobs of 20, which is greater than max allowed: 5", 5),
        ("body.top_logprobs: Input should be less than or equal to 5", 5),
        ("The range of supported values for logprobs is [0, 20).", 19),
        ("top_logprobs must be between 0 and 11", 11),
        ("`top_n_tokens` must be less than 6", 5),
        ("You are not allowed to request more than 5 logprobs", 5),
        ("Invalid value for 'top_logprobs': must be in range 0..5", 5),
        ("logprobs are not supported", None),
    ],
)
def test_the_limit_in_an_error_is_read(text: str, most: int | None) -> None:
    assert stated_limit(text) == most


# --- streams -----------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["streams", "streams_without_type"])
@pytest.mark.parametrize("mode", ["logprob", "reasoned", "sampled"])
def test_a_complete_stream_is_the_answer_that_it_adds_up_to(
    judge_with: JudgeWith, speaks: Callable[..., str], dialect: str, mode: str
) -> None:
    whole = verdict(judge_with(model=speaks(), mode=mode, votes=4).judge([comparison()]))
    streamed = verdict(judge_with(model=speaks(dialect), mode=mode, votes=4).judge([comparison()]))
    if mode != "sampled":  # votes are drawn by the model's name
        assert streamed.preference == pytest.approx(whole.preference)
        assert streamed.rationale == whole.rationale
    assert (streamed.usage.input_tokens, len(streamed.usage.calls)) == (whole.usage.input_tokens, 0)


@pytest.mark.parametrize(
    "content",
    [b"data: {}\n\n", b"data: [DONE]\n\n", b"data: {\n\ndata: [DONE]\n\n", b'data: {"choices": 5}\n\ndata: [DONE]\n\n',
     b'data: {"choices": [{"index": 0, "delta": {"content": "A"}}]}\n\ndata: [DONE]\n\n',
     b'data: {"choices": [{"delta": 5}]}\n\ndata: [DONE]\n\n', b""],
)  # fmt: skip
def test_a_stream_that_is_not_complete_is_no_answer(content: bytes) -> None:
    with pytest.raises(BadStream, match="streams although"):
        read_stream(content)


def test_a_stream_that_a_gateway_ends_once_more_is_complete() -> None:
    ended = b"data: " + CHUNK + b"\n\n" + b"data: [DONE]\n\n" * 2
    assert read_stream(ended)["choices"][0]["message"]["content"] == "A"


CHUNK = json.dumps({"choices": [{"index": 0, "delta": {"content": "A"}, "finish_reason": "stop"}]}).encode()


@pytest.mark.parametrize(
    "content, content_type, streams",
    [
        (CHUNK, "text/event-stream", False), (b"\xef\xbb\xbf" + CHUNK, "text/event-stream; charset=utf-8", False),
        (json.dumps(json.loads(CHUNK), indent=1).encode(), "application/json", False), (CHUNK + b"\n", "application/json", False),
        (CHUNK + b"\n" + CHUNK + b"\n", "application/x-ndjson", True), (b"\x1e" + CHUNK + b"\n\x1e" + CHUNK, "application/json-seq", True),
        (b"data: " + CHUNK, "application/json", True), (b"", "text/event-stream", True),
    ],
)  # fmt: skip
def test_a_whole_reply_is_no_stream_and_objects_one_after_another_are_one(
    content: bytes, content_type: str, streams: bool
) -> None:
    """An endpoint that streams in any form is named once; it is not asked again."""
    assert is_stream(content_type, content) is streams


# --- addresses and servers ---------------------------------------------------------------


def test_azure_is_asked_with_its_header_and_version_and_both_stay_secret(
    fake: FakeJudge, define: Callable[..., None], judge_with: JudgeWith, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("GATEWAY", "gateway-secret-1")
    root = fake.base_url.removesuffix("/v1")
    define(
        base_url=f"{root}/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21&subscription=query-secret-1",
        key_header="api-key",
        headers={"X-Gateway": {"env": "GATEWAY"}, "OpenAI-Organization": "org-secret-1"},
    )
    answer = verdict(judge_with(model="azure").judge([comparison()]))
    sent = fake.ledger()[-1]["sent"]
    assert sent["path"].endswith("?api-version=2024-10-21&subscription=query-secret-1")
    assert (sent["x-gateway"], sent["openai-organization"]) == ("gateway-secret-1", "org-secret-1")
    monkeypatch.setenv("GATEWAY", "gateway-secret-2")  # read at each call, as keys are
    verdict(judge_with(model="azure").judge([comparison()]))
    assert fake.ledger()[-1]["sent"]["x-gateway"] == "gateway-secret-2"
    for secret in (KEY, "gateway-secret-1", "query-secret-1", "org-secret-1"):
        assert secret not in caplog.text + repr(answer)
    monkeypatch.setenv("GATEWAY", "")
    missing = failure(judge_with(model="azure").judge([comparison()]))
    assert "headers.X-Gateway: environment variable GATEWAY is empty" in missing.message


def test_an_error_that_repeats_a_header_is_shown_without_it(
    define: Callable[..., None], judge_with: JudgeWith, fake: FakeJudge
) -> None:
    define(base_url=f"{fake.base_url}/nowhere?code=query-secret-1")
    answer = failure(judge_with().judge([comparison()]))
    assert "no route POST" in answer.message and "query-secret-1" not in answer.message
    assert "just before /chat/completions, usually with /v1" in answer.message


@pytest.mark.parametrize(
    "base_url, remedy",
    [
        ("http://127.0.0.1:{free}/v1", "nothing listens at 127.0.0.1:{free}"),
        ("http://no-such-host.invalid/v1", "no host has the name in no-such-host.invalid"),
    ],
)
def test_a_connection_that_fails_says_what_to_correct_and_costs_nothing(
    fake: FakeJudge, define: Callable[..., None], judge_with: JudgeWith, base_url: str, remedy: str
) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        ports = {"free": held.getsockname()[1]}
        define(base_url=base_url.format(**ports))
        answer = failure(judge_with().judge([comparison()]))
    assert (answer.kind, answer.retryable) == (FailureKind.UNAVAILABLE, True)
    assert remedy.format(**ports) in answer.message
    assert answer.usage.input_tokens == 0


@pytest.mark.parametrize(
    "said, remedy",
    [
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate", "SSL_CERT_FILE"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)", "write http:// in base_url"),
        ("[Errno -3] Temporary failure in name resolution", "no host has the name in gpu:8000"),
        ("[Errno 113] No route to host", "no network route to gpu:8000"),
        ("All connection attempts failed", "nothing listens at gpu:8000"),
        ("", "check that the server runs"),
    ],
)
def test_every_reason_of_a_failed_connection_has_its_remedy(said: str, remedy: str) -> None:
    assert remedy in unsent_remedy(OSError(said), "gpu:8000")


@pytest.mark.parametrize(
    "base_url, headers, body, name",
    [
        ("https://x.openai.azure.com/openai/deployments/g", {}, None, "azure"),
        ("https://api.openai.com/v1", {}, None, "openai"),
        ("http://localhost:11434/v1", {}, None, "ollama"),
        ("http://gpu:8000/v1", {"server": "llama.cpp"}, None, "llama.cpp"),
        ("http://gpu:8000/v1", {}, {"timings": {}, "choices": [{}]}, "llama.cpp"),
        ("http://gpu:8000/v1", {}, {"system_fingerprint": "fp_ollama"}, "ollama"),
        ("http://gpu:8000/v1", {}, {"choices": [{"matched_stop": 1}]}, "sglang"),
        ("http://gpu:8000/v1", {}, {"prompt_logprobs": None}, "vllm"),
        ("http://gpu:8000/v1", {}, {"id": "chatcmpl-4f1c0bd2-5a3c-4c1e-9d0a-0123456789ab"}, "llama-cpp-python"),
    ],
)
def test_servers_are_recognised(base_url: str, headers: dict[str, str], body: Any, name: str) -> None:
    assert server_of(base_url, headers, body) is SERVERS[name]
    assert server_of("http://gpu:8000/v1", {}, {"id": "chatcmpl-1"}) is UNKNOWN


def test_a_failure_is_an_instance_that_can_be_stored(judge_with: JudgeWith, speaks: Callable[..., str]) -> None:
    answer = failure(judge_with(model=speaks("python_overflow")).judge([comparison()]))
    assert type(answer) is Failure and len(answer.message) < 1000
