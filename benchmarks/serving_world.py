"""The world of `serving.py` and `swap.py`: the whole server in a home of its own, and rerankers from MiniLM."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
MAX_LENGTH = 128  # tokens of query and document
STEPS, QUESTIONS, CHARACTERS = 100, 60, 200  # of a short training: of each document the first characters
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


def random_reranker(folder: Path, *, seed: int = 0) -> Path:
    """A folder with MiniLM's random LoRA weights and a random head, published."""
    import torch
    from peft import LoraConfig, get_peft_model

    from trainer.bases import cross_encoder, load_base

    base = load_base("minilm")
    model = cross_encoder(base, max_length=MAX_LENGTH)
    torch.manual_seed(seed)
    lora = LoraConfig(
        r=8, target_modules=list(base.lora_targets), modules_to_save=list(base.saved_modules), init_lora_weights=False
    )
    get_peft_model(model.model, lora).save_pretrained(str(folder / "adapter"))
    return _published(folder / "adapter", folder / "out", name=f"bench {seed}")


def trained_reranker(folder: Path, *, check: Callable[[Path], dict[str, Any]]) -> Path:
    """A folder with a student of a short training in the world of `training.py`, published; `check` measures its forms.

    Its logits are as far apart as those of a reranker that has learned something: with random weights they are close together, and
    `bf16-refined` computes more documents again.
    """
    import numpy as np

    from benchmarks.training import judged, learned_from
    from benchmarks.training_world import make_world
    from trainer.training.pointwise import Pointwise

    world = make_world()
    questions = [
        replace(each, documents=tuple(text[:CHARACTERS] for text in each.documents))
        for each in (world.training[at] for at in np.random.default_rng(0).permutation(len(world.training))[:QUESTIONS])
    ]
    data = learned_from(questions, judged(questions, over_http=False, seed=0), seed=0)
    options = {"max_length": MAX_LENGTH, "max_steps": STEPS, "eval_steps": STEPS, "epochs": 20, "batch_size": 16}
    (folder / "training").mkdir(parents=True)
    student = Pointwise.from_dict(options).train(data, folder / "training", lambda kind, **values: None)
    return _published(student.adapter, folder / "out", name="bench", check=check)


def _published(adapter: Path, out: Path, *, name: str, check: Callable[[Path], dict[str, Any]] | None = None) -> Path:
    from trainer.publishing.export import ModelCard, publish

    made = publish(adapter, base="minilm", out=out, card=ModelCard(name=name), max_length=MAX_LENGTH, check=check)
    return Path(made.folder)
