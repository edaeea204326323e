"""`manage.py serve_rerank`: run the ranking server; the web server forwards requests to it.

Without a folder, it serves every published reranker on a private socket (or with --host and --port on another host,
with the same ZELO_SECRET_KEY and STORAGE_URL). With a folder, it serves only that published reranker.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from trainer.publishing.manifests import ManifestBroken
from zelo_site.processes.listening import Exposed, add_listening_arguments, check_listening
from zelo_site.reranking import reranking_socket, service_keys

if TYPE_CHECKING:
    from trainer.serving.batcher import RequestBatcher
    from trainer.serving.model_cache import WarmModels
    from trainer.serving.operations.metrics import ServingMetrics
    from trainer.serving.published import LoadedModel

LOOPBACK = {"127.0.0.1", "::1", "localhost"}


class Command(BaseCommand):
    help = "Serve published rerankers over the rerank APIs of Cohere, Jina, Voyage, vLLM, TEI and llama.cpp."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", nargs="?", default="", help="folder of one published reranker to serve")
        parser.add_argument("--host", default="", help="listen address (default: the private socket)")
        add_listening_arguments(parser)
        parser.add_argument("--port", type=int, default=8100)
        parser.add_argument(
            "--memory-mb", type=int, default=0, help="memory limit for loaded models (0: half of the memory)"
        )
        parser.add_argument("--threads", type=int, default=0, help="compute threads (0: one per core, or one on a GPU)")
        parser.add_argument("--device", default="", help="cpu, cuda, ... (default: CUDA if available)")
        parser.add_argument(
            "--no-warm-up", action="store_true", help="do not load at the start what was loaded before the last stop"
        )
        parser.add_argument(
            "--dtype", default="float32", choices=["float32", "bfloat16"], help="precision of the weights"
        )
        parser.add_argument(
            "--keys",
            action="store_true",
            help="answer users' own keys too, checked in the database, so that clients need no web server",
        )
        parser.add_argument(
            "--form",
            default="auto",
            choices=["auto", "fp32", "packed", "bf16", "bf16-refined", "onnx", "onnx-int8", "openvino"],
            help="how a CPU computes a reranker (auto: the fastest form that keeps the order on this processor)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        import uvicorn

        try:
            check_listening(options["host"] or "localhost", options)
        except Exposed as error:
            raise CommandError(str(error)) from error
        app = _application(options)
        listening: dict[str, Any] = {"host": options["host"], "port": options["port"]}
        if not options["host"]:
            socket = reranking_socket()
            socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            socket.unlink(missing_ok=True)
            listening = {"uds": str(socket)}
        uvicorn.run(
            app, **listening, log_level="warning", access_log=False, timeout_keep_alive=90, timeout_graceful_shutdown=5
        )


def _application(options: dict[str, Any]) -> Any:
    """Return the ASGI application; torch is imported here, so that --help is fast."""
    import torch

    from trainer.serving.access.access_cache import ProcessAccess
    from trainer.serving.access.limits import KeyLimits
    from trainer.serving.model_cache import Artefact, NoMemory
    from trainer.serving.operations.metrics import ServingMetrics
    from trainer.serving.operations.warming import WarmUp
    from trainer.serving.protocols import model_id
    from trainer.serving.server import RerankApp

    device = options["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
    # One thread per forward pass, so that passes run in parallel instead of waiting for each other's threads.
    torch.set_num_threads(1)
    folder = Path(options["folder"]).absolute() if options["folder"] else None
    if folder is not None and not folder.is_dir():
        raise CommandError(f"{folder} is not a folder; pass the folder of a published reranker, with its manifest.json")
    metrics = ServingMetrics()
    models = _models(options, device, folder, metrics)
    default = None
    if folder is not None:
        try:
            with models.using(Artefact(name=model_id(folder.name), location=str(folder))) as model:
                default = Artefact(name=model_id(model.name), location=str(folder))
        except (ManifestBroken, NoMemory) as error:
            raise CommandError(str(error)) from error
    open_to_all = folder is not None and options["host"] in LOOPBACK
    remembered = folder is None and not options["no_warm_up"]
    return RerankApp(
        models=models,
        batcher=_batcher(options, device, metrics),
        service_keys=None if open_to_all else service_keys,
        default=default,
        metrics=metrics,
        metrics_keys=settings.ZELO_METRICS_KEYS,
        warm_up=WarmUp(Path(settings.ZELO_HOME) / "loaded_rerankers.json") if remembered else None,
        gate=ProcessAccess() if options["keys"] else None,
        limits=KeyLimits(concurrency=settings.ZELO_RERANK_REQUESTS, tokens_per_minute=settings.ZELO_RERANK_TOKENS),
    )


def _models(options: dict[str, Any], device: str, folder: Path | None, metrics: ServingMetrics) -> WarmModels:
    """The cache of loaded models; the model in `folder` is loaded from there, all others from the storage."""
    from trainer.serving.model_cache import WarmModels
    from trainer.serving.operations.warming import compute_once
    from trainer.serving.published import load_published
    from trainer.serving.registry import artefact_folder

    def load(path: Path) -> LoadedModel:
        model = load_published(
            path, device=device, dtype=options["dtype"], form=options["form"], cache=Path(settings.ZELO_CACHE)
        )
        compute_once(model)
        return model

    return WarmModels(
        budget_bytes=(options["memory_mb"] << 20) or _half_of_memory(device),
        fetch=lambda artefact: folder if folder and artefact.location == str(folder) else artefact_folder(artefact),
        load=load,
        watch=lambda artefact: metrics.loading(artefact.version or artefact.name),
    )


def _batcher(options: dict[str, Any], device: str, metrics: ServingMetrics) -> RequestBatcher:
    """The batcher, with one thread a core on a CPU."""
    import torch

    from trainer.serving.batcher import RequestBatcher

    cores = (os.cpu_count() or 1) if device.startswith("cpu") else 1
    return RequestBatcher(
        threads=options["threads"] or cores,
        most_wait_s=float(settings.ZELO_RERANK_WAIT_S),
        prepare_thread=lambda: torch.set_num_threads(1),
        observe=lambda model, pairs, seconds: metrics.computed(model.name, pairs, seconds, pads=model.pads),
    )


def _half_of_memory(device: str) -> int:
    import torch

    if device.startswith("cuda"):
        return int(torch.cuda.get_device_properties(device).total_memory) // 2
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
