"""Endpoints: how they are defined and documented, and that their keys stay secret whatever an endpoint does."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from labeling.access.redaction import redact, without_key
from labeling.records import Failure, FailureKind, Verdict
from tests.factories.http_panel import KEY
from tests.factories.questions import comparison, failure, only
from tests.fake_judge.process import FakeJudge
from workers.endpoints.registry import Endpoint, EndpointsInvalid, KeyMissing, endpoint_problems, load_endpoints
from workers.judges.openai.judge import OpenAIHttpJudge

pytestmark = pytest.mark.usefixtures("no_faults_left")

# --- definitions and keys ----------------------------------------------------------------


def test_endpoints_come_from_json_and_toml_files(tmp_path: Path) -> None:
    toml = tmp_path / "endpoints.toml"
    toml.write_text('[[endpoints]]\nname = "local"\nbase_url = "http://localhost:8000/v1/"\n')
    as_json = tmp_path / "endpoints.json"
    as_json.write_text(json.dumps({"endpoints": [{"name": "local", "base_url": "http://localhost:8000/v1"}]}))
    for path in (toml, as_json):
        assert load_endpoints({"ZELO_ENDPOINTS": str(path)})["local"].base_url == "http://localhost:8000/v1"
    assert load_endpoints({}) == {}


@pytest.mark.parametrize(
    "text, problem",
    [
        ("[{]", "neither JSON nor TOML"),
        ("/nowhere/endpoints.json", "No such file"),
        ('[{"name": "x"}]', "0.base_url"),
        ('[{"name": "x", "base_url": "ftp://host"}]', "0.base_url"),
        ('[{"name": "x", "base_url": "http://user:secret-word@host/v1"}]', "a user, password"),
        ('[{"name": "x", "base_url": "http://host/v1", "api_key": "secret-word"}]', "0.api_key"),
        (
            '[{"name": "x", "base_url": "http://h/v1", "headers": {"X-A": "secret-word\\r\\nX-B: 1"}}]',
            "0.headers.X-A.*line breaks",
        ),
        (
            '[{"name": "x", "base_url": "http://h/v1", "headers": {"Content-Length": "1"}}]',
            "headers.*'Content-Length' cannot",
        ),
        (
            '[{"name": "x", "base_url": "http://h/v1", "headers": {"Transfer-Encoding": "a"}}]',
            "headers.*connection sets it",
        ),
        (
            '[{"name": "x", "base_url": "http://h/v1", "headers": {"A B": "secret-word"}}]',
            "headers.*not a valid header name",
        ),
        ('[{"name": "x", "base_url": "http://h/v1", "headers": {"A": "1", "a": "2"}}]', "headers.*given twice"),
        ('[{"name": "x", "base_url": "http://h/v1?code=1&code=2"}]', "query parameter twice"),
        ('[{"name": "x", "base_url": "http://h/v1?code="}]', "query.code: is empty"),
        (
            '[{"name": "x", "base_url": "http://h/v1", "headers": {"A": {"env": "X", "file": "/x"}}}]',
            "headers.A.*must be a text",
        ),
        (
            '[{"name": "x", "base_url": "http://h/v1", "api_key_env": "K", "headers": {"authorization": "x"}}]',
            "header of the key",
        ),
        ('[{"name": "x", "base_url": "http://h/v1?v=secret-word", "query": {"v": "1"}}]', "both give 'v'"),
        ('[{"name": "x", "base_url": "http://h/v1", "query": {"a&b": "secret-word"}}]', "query.*not a valid query"),
        ('[{"name": "x", "base_url": "http://h/v1", "key_header": "Host"}]', "0.key_header"),
        ('[{"name": "x", "base_url": "http://h/v1", "key_prefix": "a\\nb"}]', "0.key_prefix"),
        ('[{"name": "x", "base_url": "http://a/v1"}, {"name": "x", "base_url": "http://b/v1"}]', "two endpoints"),
    ],
)
def test_wrong_definition_says_where_and_shows_no_value(text: str, problem: str) -> None:
    with pytest.raises(EndpointsInvalid, match=problem) as error:
        load_endpoints({"ZELO_ENDPOINTS": text})
    assert "secret-word" not in str(error.value)


def test_key_is_read_from_a_file_and_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    endpoint = Endpoint(name="x", base_url="http://localhost/v1", api_key_file=secret)
    with pytest.raises(KeyMissing, match="cannot be read"):
        endpoint.api_key()
    secret.write_text(f"{KEY}\n")
    key = endpoint.api_key()
    assert key is not None and key.get_secret_value() == KEY
    assert KEY not in f"{key!r} {key} {endpoint!r} {endpoint.model_dump_json()}"


@pytest.mark.django_db  # an unknown name is also looked for in the database
def test_missing_key_and_unknown_endpoint_fail_every_comparison(
    judge_with: Callable[..., OpenAIHttpJudge], monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = judge_with(endpoint="elsewhere").judge([comparison(), comparison()])
    assert [answer.kind for answer in unknown if isinstance(answer, Failure)] == [FailureKind.BAD_REQUEST] * 2
    monkeypatch.setenv("FAKE_KEY", "")
    assert "FAKE_KEY is empty" in failure(judge_with().judge([comparison()])).message
    assert len(endpoint_problems()) == 1


def test_key_stays_out_of_logs_and_messages(
    fake: FakeJudge, judge_with: Callable[..., OpenAIHttpJudge], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    fake.order_faults("", "unauthorized", "html", "disconnect")
    answers = [only(judge_with().judge([comparison()])) for _ in range(4)]
    assert KEY not in caplog.text + repr(answers)


@pytest.mark.parametrize("mode", ["logprob", "reasoned", "sampled"])
def test_a_reply_that_repeats_the_key_is_kept_without_it(
    mode: str, fake: FakeJudge, define: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key of any form, in rationales, in refusals, and where a message cuts a reply short."""
    key = "plain-words-as-a-key-0123456789"
    monkeypatch.setenv("FAKE_KEY", key)
    said = {"reasoned": json.dumps({"reasoning": f"You sent {key}.", "score": 0.5})}.get(mode, "x" * 190 + key)

    fake.reply_with(json.dumps({"choices": [{"message": {"content": said}, "finish_reason": "stop"}]}))
    answer = only(OpenAIHttpJudge.from_dict({"endpoint": "fake", "model": "m", "mode": mode}).judge([comparison()]))
    assert key[:10] not in repr(answer)
    if mode == "reasoned":
        assert isinstance(answer, Verdict) and answer.rationale == "You sent [key]."


@pytest.mark.parametrize("status", [200, 400, 502])
def test_a_raw_error_that_repeats_the_key_is_shown_without_it(
    status: int, fake: FakeJudge, define: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "plain-words-as-a-key-0123456789"
    monkeypatch.setenv("FAKE_KEY", key)

    fake.reply_with("x" * (110 if status == 200 else 390) + key, status=status)
    answer = failure(OpenAIHttpJudge.from_dict({"endpoint": "fake", "model": "m"}).judge([comparison()]))
    assert key[:10] not in answer.message and "xxx" in answer.message


def test_text_that_looks_like_a_key_is_redacted() -> None:
    shown = redact("Incorrect API key provided: sk-abc****wxyz. Authorization: Bearer abc.def")
    assert "sk-abc" not in shown and "abc.def" not in shown
    assert redact("risk-averse tasks") == "risk-averse tasks"


# --- documentation -----------------------------------------------------------------------


def documented(language: str) -> list[str]:
    page = Path(__file__).resolve().parents[3] / "docs" / "judges.md"
    return [block.partition("```")[0] for block in page.read_text().split(f"```{language}\n")[1:]]


def test_versions_and_names_of_the_caller_are_no_secrets_and_all_other_values_are() -> None:
    headers = {
        "anthropic-version": "2023-06-01",
        "X-Title": "Fish retrieval benchmark",
        "X-Gateway": "gateway-secret-1",
    }
    rows = [{"name": "x", "base_url": "http://h/v1?api-version=2024-10-21&code=query-secret-1", "headers": headers}]
    access = load_endpoints({"ZELO_ENDPOINTS": json.dumps(rows)})["x"].access()
    text = "A is from 2023-06-01 and names the Fish retrieval benchmark; gateway-secret-1 query-secret-1 2024-10-21"
    assert without_key(text, *access.secrets) == (
        "A is from 2023-06-01 and names the Fish retrieval benchmark; [key] [key] 2024-10-21"
    )


def test_documented_endpoints_can_be_loaded(tmp_path: Path) -> None:
    [example] = documented("toml")
    (tmp_path / "endpoints.toml").write_text(example)
    assert list(load_endpoints({"ZELO_ENDPOINTS": str(tmp_path / "endpoints.toml")})) == [
        "openai",
        "gemini",
        "anthropic",
        "azure",
        "vllm",
    ]


def test_documentation_names_every_kind_of_failure() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "judges.md").read_text()
    assert [kind for kind in FailureKind if f"| `{kind.value}` |" not in page] == []
