"""The judge over HTTP before a real server, llama-cpp-python's, with a GGUF of a few kilobytes made here.

The server is not among the requirements, because it is compiled. Install `llama-cpp-python[server]` and `gguf` into any environment and
name its Python in ZELO_LLAMA_PYTHON, or install them here.
"""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labeling.records import Comparison, TextRecord
from tests.factories.questions import comparison, failure, verdict
from tests.factories.weights import tiny_gguf
from tests.factories.weights.tiny_chat_model import (
    ANSWER,
    END,
    LOGIT_A,
    LOGIT_B,
    LOGITS_OF_GRADES,
    NORM,
    RANKING,
    SPECIAL,
    TEMPLATE,
    save_tiny_chat_model,
)
from tests.processes.model_server import wait_until_healthy
from workers.endpoints import learned
from workers.judges.openai.grade import GradeJudge
from workers.judges.openai.judge import OpenAIHttpJudge
from workers.judges.openai.setwise import SetwiseJudge

pytestmark = pytest.mark.long

STARTS_IN_S = 120.0
CONTEXT = 8192


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base_url of a running server."""
    python = os.environ.get("ZELO_LLAMA_PYTHON", sys.executable)
    check = [python, "-c", "import gguf, llama_cpp.server.app"]
    if subprocess.run(check, capture_output=True).returncode:
        pytest.skip(
            f"{python} cannot run llama-cpp-python's server: install llama-cpp-python[server] and gguf, or set ZELO_LLAMA_PYTHON"
        )
    folder = tmp_path_factory.mktemp("gguf")
    model = _model(folder, python)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [python, "-m", "llama_cpp.server", "--model", str(model), "--port", port, "--n_ctx", str(CONTEXT)]
    log = folder / "serve.log"
    with (
        log.open("wb") as output,
        subprocess.Popen([*command, "--logits_all", "true"], stdout=output, stderr=output) as process,
    ):
        try:
            wait_until_healthy(f"http://127.0.0.1:{port}/v1/models", process, log, timeout_s=STARTS_IN_S)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def _model(folder: Path, python: str) -> Path:
    """The tiny chat model as GGUF."""
    from safetensors.numpy import load_file

    save_tiny_chat_model(folder, positions=CONTEXT)
    np.savez(folder / "weights.npz", **load_file(folder / "model.safetensors"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    ids = {**tokenizer["model"]["vocab"], **{each["content"]: each["id"] for each in tokenizer["added_tokens"]}}
    told = {
        "tokens": sorted(ids, key=ids.__getitem__),
        "special": list(SPECIAL),
        "plain": [*ANSWER, *RANKING],
        "template": TEMPLATE,
        "end": END,
    }
    (folder / "tokens.json").write_text(json.dumps(told))
    paths = [str(folder / name) for name in ("weights.npz", "tokens.json", "model.gguf")]
    made = subprocess.run([python, tiny_gguf.__file__, *paths], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return folder / "model.gguf"


@pytest.fixture
def ask(served: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    endpoint = {"name": "real", "base_url": served, "timeout_s": 120, "max_concurrency": 1}
    monkeypatch.setenv("ZELO_ENDPOINTS", json.dumps([endpoint]))
    learned.forget_all()

    def build(kind: type[OpenAIHttpJudge] = OpenAIHttpJudge, **options: Any) -> OpenAIHttpJudge:
        judge = kind.from_dict({"endpoint": "real", "model": "tiny", "batch_deadline_s": 600, **options})
        assert isinstance(judge, OpenAIHttpJudge)
        return judge

    yield build
    learned.forget_all()


def test_logprob_reads_both_letters(ask: Any) -> None:
    answer = verdict(ask(mode="logprob", min_label_mass=0.5).judge([comparison()]))
    assert 0.5 < answer.preference < 1.0 and answer.usage.input_tokens > 50


def test_reasoned_reads_the_score_after_the_server_rejected_the_schema(ask: Any) -> None:
    judge = ask(mode="reasoned")
    answers = [
        verdict([each]) for each in judge.judge([comparison("carp", "crow"), comparison("x", "y", swapped=True)])
    ]
    assert [each.preference for each in answers] == [0.75, 0.25]
    assert {each.rationale for each in answers} == {"A answers it."}
    assert learned.recall(judge.channel().identity, "tiny").response_format in {"json_object", "none"}


def test_setwise_reads_a_ranking_and_the_probabilities_of_letters(ask: Any) -> None:
    documents = tuple(TextRecord(20 + place, text) for place, text in enumerate(("carp", "crow", "clay")))
    query = TextRecord(1, "what is a goldfish")
    question = Comparison(1, query, query, *documents[:2], documents=documents)
    ranked = verdict(ask(SetwiseJudge, mode="json").judge([question]))
    assert {(each.one, each.other): each.preference for each in ranked.placed} == {
        (1, 0): 1.0,
        (1, 2): 1.0,
        (0, 2): 1.0,
    }
    letters = verdict(ask(SetwiseJudge, mode="logprob", min_label_mass=0.5).judge([question]))
    found = {(each.one, each.other): each.preference for each in letters.placed}
    assert found[0, 1] == pytest.approx(1 / (1 + math.exp(NORM * (LOGIT_B - LOGIT_A))), abs=0.01)


def test_a_grade_is_the_mean_of_its_labels(ask: Any) -> None:
    answer = verdict(ask(GradeJudge, min_label_mass=0.5).judge([comparison()]))
    weights = {int(grade): math.exp(NORM * logit) for grade, logit in LOGITS_OF_GRADES.items()}
    mean = sum(grade * weight for grade, weight in weights.items()) / sum(weights.values())
    assert [each.value for each in answer.grades] == pytest.approx([mean / 3] * 2, abs=0.02)
    assert answer.preference == pytest.approx(0.5)


def test_sampled_votes_come_one_by_one(ask: Any) -> None:
    judge = ask(mode="sampled", votes=5)
    answer = verdict(judge.judge([comparison()]))
    assert len(answer.usage.calls) == 5 == judge.calls_per_comparison


def test_a_prompt_beyond_the_context_is_named(ask: Any) -> None:
    long = "word " * 4000
    answer = failure(
        ask(mode="reasoned", response_format="none", max_document_tokens=9000).judge([comparison(long, long)])
    )
    assert answer.kind.value == "context_overflow" and "lower max_document_tokens" in answer.message
