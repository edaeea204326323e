"""The serving application behind a real HTTP server, in a thread of the tests."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import uvicorn

from trainer.serving.batcher import RequestBatcher
from trainer.serving.model_cache import Artefact, WarmModels
from trainer.serving.server import RerankApp


def rerank_app(
    *,
    fetch: Any,
    service_key: str = "",
    service_keys: Callable[[], list[str]] | None = None,
    default: Artefact | None = None,
    **more: Any,
) -> RerankApp:
    batcher = RequestBatcher(threads=2, prepare_thread=lambda: torch.set_num_threads(1))
    models = WarmModels(budget_bytes=1 << 30, fetch=fetch)
    return RerankApp(
        models=models,
        batcher=batcher,
        service_keys=(lambda: [service_key]) if service_key else service_keys,
        default=default,
        **more,
    )


@contextlib.contextmanager
def serving(folder: Path, *, service_key: str = "") -> Iterator[str]:
    """One published reranker, called `tiny`; yields the server's address."""
    artefact = Artefact(name="tiny", location=str(folder))
    with served(rerank_app(fetch=lambda each: Path(each.location), service_key=service_key, default=artefact)) as url:
        yield url


@contextlib.contextmanager
def served(app: Any) -> Iterator[str]:
    """An application on a free port; yields its address."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        with running(app, sockets=[listening]):
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@contextlib.contextmanager
def running(app: Any, *, sockets: list[socket.socket]) -> Iterator[None]:
    """Uvicorn in a thread until the block ends."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": sockets}, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the server did not start")
        time.sleep(0.02)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=10)
