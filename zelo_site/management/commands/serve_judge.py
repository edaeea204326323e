"""`manage.py serve_judge MODEL`: serve a judge model with vLLM and the options that judging needs.

vLLM pins its own torch and transformers, so the command looks for it in a separate environment and never
imports it. If vLLM is missing, the command prints how to install it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

ROOT = Path(__file__).resolve().parents[3]
OWN_ENVIRONMENT = ROOT / ".venv-gpu" / "bin" / "vllm"
# Enough alternatives to include the label tokens in all their spellings.
LOG_PROBABILITIES = 20

HOW_TO_INSTALL = f"""vLLM was not found (searched ZELO_VLLM, {OWN_ENVIRONMENT.relative_to(ROOT)} and PATH).
vLLM needs a Linux host with a GPU and its own virtual environment, because its pins conflict with zelo's:

    python3 -m venv .venv-gpu
    .venv-gpu/bin/pip install -r requirements-gpu.txt

To use another host, install vLLM there, run the command that --dry-run prints, and set ZELO_ENDPOINTS to its address."""


class VllmMissing(CommandError):
    """vLLM is not installed in any searched place."""


@dataclass(frozen=True, slots=True)
class Serving:
    """Options for serving a model. `name` is the name that judges use; `extra` is passed to vLLM unchanged."""

    model: str
    name: str
    host: str = "127.0.0.1"
    port: int = 8000
    max_model_len: int = 4096
    gpus: int = 1
    extra: tuple[str, ...] = ()

    def command(self, vllm: str) -> list[str]:
        """Return the command line. Prefix caching halves the prefill of pairs that share their first document."""
        return [
            *(vllm, "serve", self.model),
            *("--served-model-name", self.name),
            *("--host", self.host, "--port", str(self.port)),
            *("--max-model-len", str(self.max_model_len)),
            *("--max-logprobs", str(LOG_PROBABILITIES)),
            "--enable-prefix-caching",
            *(("--tensor-parallel-size", str(self.gpus)) if self.gpus > 1 else ()),
            *self.extra,
        ]

    def endpoint(self) -> str:
        """Return the ZELO_ENDPOINTS definition of this server."""
        reached = f"[{self.host}]" if ":" in self.host else self.host
        row = {"name": "vllm", "base_url": f"http://{reached}:{self.port}/v1", "max_concurrency": 256, "timeout_s": 90}
        return json.dumps([row])


def find_vllm() -> str | None:
    """Return the vllm executable: ZELO_VLLM, that of .venv-gpu, or the first on PATH."""
    named = os.environ.get("ZELO_VLLM", "")
    places = [named] if named else [str(OWN_ENVIRONMENT), "vllm"]
    return next((found for place in places if (found := shutil.which(place))), None)


def _name_of(model: str) -> str:
    """Return the last part of a folder's path, or a hub model's own name."""
    return Path(model).resolve().name if Path(model).is_dir() else model


class Command(BaseCommand):
    help = (
        "Serve a judge model with vLLM, with prefix caching and label log-probabilities, on this host only by default."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("model", help="causal language model: hub name or folder")
        parser.add_argument("--name", default="", help="name that judges use (default: the model's name)")
        parser.add_argument(
            "--host", default="127.0.0.1", help="listen address; any other address exposes the server without a key"
        )
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument(
            "--max-model-len", type=int, default=4096, help="maximum tokens of query, documents and answer"
        )
        parser.add_argument("--gpus", type=int, default=1, help="number of GPUs to split the model across")
        parser.add_argument("--dry-run", action="store_true", help="print the command without running it")
        parser.add_argument(
            "--vllm-args", default="", metavar="ARGUMENTS", help="extra arguments for vllm serve, quoted"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        serving = Serving(
            model=options["model"],
            name=options["name"] or _name_of(options["model"]),
            host=options["host"],
            port=options["port"],
            max_model_len=options["max_model_len"],
            gpus=options["gpus"],
            extra=tuple(shlex.split(options["vllm_args"])),
        )
        vllm = find_vllm()
        if options["dry_run"]:
            self.stdout.write(shlex.join(serving.command(vllm or "vllm")))
            return
        if vllm is None:
            raise VllmMissing(HOW_TO_INSTALL)
        self.stderr.write(f"to use this model, set\n    export ZELO_ENDPOINTS={shlex.quote(serving.endpoint())}\n")
        self.stderr.write(f'    {{"endpoint": "vllm", "model": "{serving.name}", "mode": "logprob"}}\n')
        self.stderr.flush()
        # vLLM replaces this process, so it gets the signals and sets the exit status.
        os.execv(vllm, serving.command(vllm))
