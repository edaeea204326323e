"""The other servers of `serving.py`: our ranking process with keys of its own, and Infinity."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
Request = tuple[str, list[str]]
Score = Callable[[Request], list[float]]


@contextlib.contextmanager
def ranking_process(home: Path) -> Iterator[str]:
    """The address of a ranking process that checks the clients' keys itself, without the web server."""
    port = free_port()
    command = [
        sys.executable,
        str(ROOT / "manage.py"),
        "serve_rerank",
        "--keys",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    with (home / "direct.log").open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT)
    try:
        address = f"http://127.0.0.1:{port}"
        if not answers(address, process):
            raise RuntimeError(f"the ranking process does not answer: {(home / 'direct.log').read_text()[-500:]}")
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def infinity_server(python: str, folder: Path, engine: str) -> Iterator[Score | None]:
    """Infinity with the sequence-classification form as it is; None if the engine is not there."""
    with tempfile.TemporaryDirectory() as home:
        model = Path(home) / "bench"
        shutil.copytree(folder / "sequence_classification", model)
        if engine == "optimum":
            export_onnx(model)
        port = free_port()
        code = "from infinity_emb.cli import cli; cli()"
        options = ["--model-id", str(model), "--served-model-name", "bench", "--engine", engine, "--device", "cpu"]
        options += ["--dtype", "float32", "--port", str(port), "--host", "127.0.0.1", "--no-bettertransformer"]
        log = Path(home) / "log"
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"INFINITY_ANONYMOUS_USAGE_STATS": "0", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
        with log.open("w") as out:
            process = subprocess.Popen([python, "-c", code, "v2", *options], stdout=out, stderr=out, env=environment)
        try:
            address = f"http://127.0.0.1:{port}"
            yield infinity_client(address) if answers(address, process) else None
            if process.poll() is not None:
                print(f"Infinity with {engine} ended: {log.read_text().strip().splitlines()[-1:]}")
        finally:
            process.terminate()
            process.wait(timeout=30)


def answers(address: str, process: Any) -> bool:
    import httpx

    for _ in range(240):
        if process.poll() is not None:
            return False
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{address}/health").status_code == 200:
                return True
        time.sleep(0.5)
    return False


def infinity_client(address: str) -> Score:
    """Asks Infinity's /rerank; scores in the order of the documents."""
    import httpx

    own = threading.local()

    def ask(request: Request) -> list[float]:
        if not hasattr(own, "client"):
            own.client = httpx.Client(base_url=address, timeout=300)
        body = {"model": "bench", "query": request[0], "documents": request[1], "return_documents": False}
        answer = own.client.post("/rerank", json=body)
        answer.raise_for_status()
        scores = [0.0] * len(request[1])
        for row in answer.json()["results"]:
            scores[row["index"]] = row["relevance_score"]
        return scores

    return ask


def export_onnx(folder: Path) -> None:
    """Write the file for Infinity's ONNX engine twice: of a single one, optimum refuses the path that Infinity gives it."""
    from trainer.serving.forms.onnx_files import exported
    from trainer.serving.loading import classifier

    exported(classifier(folder, device="cpu"), folder / "onnx")
    shutil.copy(folder / "onnx" / "model.onnx", folder / "model.onnx")
