"""The judge over HTTP before a real server, llama-cpp-python's, with a GGUF of a few kilobytes made here.

The server is not among the requirements, because it is compiled. Install `llama-cpp-python[server]` and `gguf` into any environment and
name its Python in ZELO_LLAMA_PYTHON, or install them here.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labeling.records import Verdict
from tests.factories.questions import comparison, failure, verdict
from tests.factories.weights import tiny_gguf
from tests.factories.weights.tiny_chat_model import END, JSON, LETTER, TEMPLATE, save_tiny_chat_model
from workers.endpoints import learned
from workers.judges.openai.judge import OpenAIHttpJudge

pytestmark = pytest.mark.long

STARTS_IN_S = 120.0
CONTEXT = 8192
# llama-cpp-python shows no token of more than 32 bytes.
SHORT_ANSWER = '{"reasoning":"A.","score":0.5}'


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
            _wait_until_healthy(f"http://127.0.0.1:{port}/v1/models", process, log)
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
        "special": [END, LETTER, JSON],
        "template": TEMPLATE,
        "end": END,
    }
    (folder / "tokens.json").write_text(json.dumps(told))
    paths = [str(folder / name) for name in ("weights.npz", "tokens.json", "model.gguf")]
    made = subprocess.run([python, tiny_gguf.__file__, *paths], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return folder / "model.gguf"


def _wait_until_healthy(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + STARTS_IN_S
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(0.5)
    raise AssertionError(log.read_text(errors="replace")[-2000:])


@pytest.fixture
def ask(served: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    endpoint = {"name": "real", "base_url": served, "timeout_s": 120, "max_concurrency": 1}
    monkeypatch.setenv("ZELO_ENDPOINTS", json.dumps([endpoint]))
    learned.forget_all()

    def build(**options: Any) -> OpenAIHttpJudge:
        judge = OpenAIHttpJudge.from_dict({"endpoint": "real", "model": "tiny", "batch_deadline_s": 600, **options})
        assert isinstance(judge, OpenAIHttpJudge)
        return judge

    yield build
    learned.forget_all()


def test_logprob_reads_both_letters(ask: Any) -> None:
    answer = verdict(ask(mode="logprob", min_label_mass=0.5).judge([comparison()]))
    assert 0.5 < answer.preference < 1.0 and answer.usage.input_tokens > 50


def test_a_json_schema_that_the_server_rejects_teaches_another_format(ask: Any) -> None:
    judge = ask(mode="reasoned")
    answers = judge.judge([comparison("carp", "crow"), comparison("x", "y")])
    known = learned.recall(judge.channel().identity, "tiny")
    assert known.response_format in {"json_object", "none"}
    assert all(isinstance(each, Verdict) or each.kind.value == "unparseable" for each in answers), answers


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
