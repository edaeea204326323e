"""The world of `serving.py` and `swap.py`: the whole server in a home of its own, and rerankers from MiniLM.

The rerankers have random LoRA weights and a random head: what a benchmark of serving measures does not depend on what they know.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
MAX_LENGTH = 128  # tokens of query and document
Prepared = TypeVar("Prepared")


@contextlib.contextmanager
def served(prefix: str, prepare: Callable[[Path, str], Prepared]) -> Iterator[tuple[Prepared, Callable[[], None]]]:
    """The server in a new home: what `prepare(home, address)` made in its database, and what keeps its processes alive."""
    home = Path(tempfile.mkdtemp(prefix=prefix))
    home.chmod(0o711)  # PostgreSQL of root's runs as another user
    for name in ("DATABASE_URL", "BROKER_URL", "STORAGE_URL", "ZELO_RERANK_URL"):
        os.environ.pop(name, None)
    os.environ.update(ZELO_HOME=str(home), ZELO_LOG_LEVEL="ERROR", PYTHONPATH=str(ROOT))
    from zelo_site.environment import prepare_environment

    prepare_environment()
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connections

    from zelo_site.processes.services import ServiceSupervisor
    from zelo_site.processes.stack import RankingOnDemand, web_process
    from zelo_site.processes.supervisor import ProcessSupervisor

    try:
        with ServiceSupervisor(home):
            call_command("migrate", verbosity=0)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            prepared = prepare(home, f"http://127.0.0.1:{port}")
            ranking = RankingOnDemand()
            report = lambda line: print(line, file=sys.stderr)  # noqa: E731
            children = [web_process("127.0.0.1", port)]
            with ProcessSupervisor(children, home=home, watch=ranking.look, report=report) as processes:
                ranking.processes = processes
                processes.tick()
                yield prepared, processes.tick
            connections.close_all()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def published(folder: Path, *, seed: int = 0, check: Callable[[Path], dict[str, Any]] | None = None) -> Path:
    """MiniLM with random LoRA weights and a random head, published below the folder; `check` measures its forms."""
    import torch
    from peft import LoraConfig, get_peft_model

    from trainer.bases import cross_encoder, load_base
    from trainer.publishing.export import ModelCard, publish

    base = load_base("minilm")
    model = cross_encoder(base, max_length=MAX_LENGTH)
    torch.manual_seed(seed)
    lora = LoraConfig(
        r=8, target_modules=list(base.lora_targets), modules_to_save=list(base.saved_modules), init_lora_weights=False
    )
    get_peft_model(model.model, lora).save_pretrained(str(folder / "adapter"))
    made = publish(
        folder / "adapter",
        base="minilm",
        out=folder / "out",
        card=ModelCard(name=f"bench {seed}"),
        max_length=MAX_LENGTH,
        check=check,
    )
    return Path(made.folder)
