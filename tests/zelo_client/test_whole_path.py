"""The README's path with the client alone, against a whole server of its own: import, judge, score, train, evaluate, rerank."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.factories.weights.tiny_models import save_tiny_bert
from tests.processes.installation import ROOT, last_line, manage
from zelo_client import Zelo

pytestmark = pytest.mark.long
STARTS_WITHIN_S = 240.0


@pytest.fixture
def server(environment: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """The address of a running server, which may load any model."""
    environment["ZELO_MODELS"] = "*"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path / "up.log"
    with log.open("w") as written:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "up", "--port", str(port), "--judging", "1"],
            env=environment, cwd=ROOT, stdout=written, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        until = time.monotonic() + STARTS_WITHIN_S
        while "one-time sign-in link" not in log.read_text():
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def written(folder: Path) -> tuple[Path, Path]:
    """Candidates and grades; the documents that repeat their query's word most are best."""
    rows, grades = [], []
    for n in range(30):
        word = f"word{n}"
        texts = [" ".join([word] * (4 - m) + ["filler"] * m) for m in range(4)]
        documents = [{"id": f"d{n}-{m}", "content": text} for m, text in enumerate(texts)]
        rows.append({"query": {"id": f"q{n}", "query": f"what is {word}"}, "documents": documents})
        grades += [f"q{n} 0 d{n}-{m} {3 - m}" for m in range(4)]
    (folder / "candidates.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "grades.txt").write_text("\n".join(grades))
    return folder / "candidates.jsonl", folder / "grades.txt"


def test_the_client_goes_the_whole_path(server: str, environment: dict[str, str], tmp_path: Path) -> None:
    key = last_line(manage(environment, "token", "owner", "--scopes", "read", "write", "rerank"), 120)
    key = re.findall(r"zelo_\S+", key)[-1]
    candidates, grades = written(tmp_path)
    base = str(save_tiny_bert(tmp_path / "base"))
    with Zelo(server, key) as zelo:
        slug = zelo.create_project("Words", instruction="Prefer texts about the word.").slug
        assert zelo.import_file(slug, candidates).candidates == 120
        assert zelo.import_file(slug, grades, importer="trec-qrels").grades == 120
        estimate = zelo.estimate(slug, ["bm25", "query-likelihood"])
        run = zelo.wait(zelo.run(slug, ["bm25", "query-likelihood"], seed=1), timeout_s=300)
        assert 0 < run.answered <= estimate.most_calls
        (found,) = zelo.scores(slug, "q3")
        assert len(found.scores) == 4 and zelo.comparisons(found.scores[0].candidate)
        snapshot = zelo.snapshot(slug, "First", seed=1, dev_share=0.0, test_share=0.3)
        training = zelo.wait(
            zelo.train(
                slug, snapshot, trainer="pointwise", base=base, max_steps=6, eval_steps=3, max_length=32, rank=4,
                threads=1,
            ),
            timeout_s=400,
        )  # fmt: skip
        if training.state == "held_back":
            training = zelo.publish(training)
        board = zelo.prove(slug, snapshot)
        assert len(board.rows) >= 3 and all("ndcg@10" in row.metrics for row in board.rows)
        ranked = zelo.rerank(zelo.rerankers(slug)[0].model, "what is word3", ["word3 word3", "filler"])
        assert {each.index for each in ranked} == {0, 1}
        assert all(0.0 <= each.relevance_score <= 1.0 for each in ranked)
    home = Path(environment["ZELO_HOME"])
    files = list(home.rglob("*"))
    assert {"logs", "storage", "snapshots", "training", "spool", "uploads"} <= {
        path.name for path in files if path.is_dir()
    }
    assert [path for path in files if is_open(path)] == []  # the home itself lets PostgreSQL's user pass, under root


def is_open(path: Path) -> bool:
    """Whether other users of the host may read or enter a file or folder."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:  # it was a temporary one
        return False
    return not (stat.S_ISLNK(mode) or stat.S_ISSOCK(mode)) and bool(mode & 0o077)
