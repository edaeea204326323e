"""The judge over HTTP before a real server, `transformers serve`, with a model of a few kilobytes.

The server needs fastapi, which is not among the requirements. Install `transformers[serving]` into any environment and name its
Python in ZELO_SERVE_PYTHON, or install fastapi here. Seen with transformers 5.23: it ignores `n`, `logprobs` and
`response_format` without a word.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from labeling.records import FailureKind, Verdict
from tests.factories.questions import comparison, failure, verdict
from tests.factories.weights.tiny_chat_model import save_tiny_chat_model
from tests.processes.model_server import wait_until_healthy
from workers.endpoints import learned
from workers.judges.openai.judge import OpenAIHttpJudge

pytestmark = pytest.mark.long

STARTS_IN_S = 180.0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """(base_url, model) of a running server."""
    python = os.environ.get("ZELO_SERVE_PYTHON", sys.executable)
    check = [python, "-c", "import fastapi, uvicorn, transformers.cli.transformers"]
    if subprocess.run(check, capture_output=True).returncode:
        pytest.skip(
            f"{python} cannot run `transformers serve`: install transformers[serving], or set ZELO_SERVE_PYTHON"
        )
    folder = tmp_path_factory.mktemp("model")
    save_tiny_chat_model(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [python, "-m", "transformers.cli.transformers", "serve", "--port", port, "--device", "cpu"]
    log = folder / "serve.log"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=environment) as process:
        try:
            wait_until_healthy(f"http://127.0.0.1:{port}/health", process, log, timeout_s=STARTS_IN_S)
            yield f"http://127.0.0.1:{port}/v1", str(folder)
        finally:
            process.terminate()


@pytest.fixture
def ask(served: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    base_url, model = served
    endpoint = {"name": "real", "base_url": base_url, "timeout_s": 120, "max_concurrency": 2}
    monkeypatch.setenv("ZELO_ENDPOINTS", json.dumps([endpoint]))
    learned.forget_all()

    def build(**options: Any) -> OpenAIHttpJudge:
        values = {"endpoint": "real", "model": model, "batch_deadline_s": 600, **options}
        judge = OpenAIHttpJudge.from_dict(values)
        assert isinstance(judge, OpenAIHttpJudge)
        return judge

    yield build
    learned.forget_all()


def test_reasoned_answers_with_a_score(ask: Any) -> None:
    answer = verdict(ask(mode="reasoned").judge([comparison()]))
    assert (answer.preference, answer.rationale) == (0.75, "A answers it.")
    assert answer.usage.input_tokens > 50


def test_sampled_votes_one_by_one_because_the_server_ignores_n(ask: Any) -> None:
    judge = ask(mode="sampled", votes=5)
    answers = judge.judge([comparison("carp", "crow"), comparison("x", "y")])
    assert all(isinstance(answer, Verdict) and len(answer.usage.calls) == 5 for answer in answers), answers
    assert judge.calls_per_comparison == 5


def test_logprob_fails_once_and_names_a_mode_that_works(ask: Any) -> None:
    answer = failure(ask(mode="logprob").judge([comparison()]))
    assert (answer.kind, answer.retryable) == (FailureKind.LABEL_MASS, False)
    assert "no log-probabilities" in answer.message and "'reasoned'" in answer.message


def test_an_unknown_model_is_named_although_the_server_says_nothing(ask: Any) -> None:
    """This server answers 500 and "Internal Server Error", which looks like any outage."""
    answer = failure(ask(mode="reasoned", model="no/such-model").judge([comparison()]))
    assert (answer.kind, answer.usage.input_tokens) == (FailureKind.UNAVAILABLE, 0)
    assert "unknown model (here 'no/such-model')" in answer.message
