"""Ranking over HTTP against `CrossEncoder.predict` in a loop, in-process, on the same artefact and the same texts.

The benchmark publishes a reranker from MiniLM with random LoRA weights and a random head and runs the whole server in its
own home. Clients call its web server at /v1/rerank with a key; the server checks keys and names and forwards the request
to the ranking process. Requests hold 12, 75 or 150 kB of documents, 200 to 3,000 characters each, of English from the
documentation of the standard library. One client alternates with the loop; then 16 clients send requests at once.
Scores are compared with the loop's. Prints a table and, as the last line, one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import itertools
import json
import os
import random
import re
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # instead of this folder, whose names would shadow packages

CLIENTS = 16
MAX_LENGTH = 128  # tokens of query and document
SHORTEST, LONGEST = 200, 3000  # characters of a document, log-uniform
SIZES_KB = (12, 75, 150)
TOLERANCE = 1e-4
SOURCES = (
    "argparse asyncio collections csv datetime decimal doctest email fractions functools heapq http.cookiejar inspect"
)
QUESTIONS = (
    "how is a date parsed from a text",
    "which class keeps its keys in the order of insertion",
    "how does a program read its command line",
    "what happens to a task when it is cancelled",
)

Request = tuple[str, list[str]]
Score = Callable[[Request], list[float]]


@dataclass(frozen=True)
class Plan:
    """How many requests: in turns for one client by size, and of 16 clients by size (None: not measured)."""

    alone: dict[int, int]
    together: dict[int, int]
    loop: dict[int, int]


FULL = Plan(alone={12: 30, 75: 12, 150: 8}, together={12: 96, 75: 32}, loop={12: 48, 75: 10})
QUICK = Plan(alone={12: 6, 75: 2, 150: 1}, together={12: 32, 75: 16}, loop={12: 8, 75: 2})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer requests")
    plan = QUICK if parser.parse_args().quick else FULL
    with served() as (ask, ask_directly, merged):
        loop = predict_loop(merged)
        texts = words()
        found: dict[str, Any] = {}
        ratios: list[float] = []
        equal(ask, loop, [make_request(texts, 12, seed) for seed in range(3)])
        print(f"{'documents':>10} {'clients':>8} {'product':>12} {'loop':>12} {'ratio':>7}")
        for kilobytes in SIZES_KB:
            requests = [make_request(texts, kilobytes, 100 + seed) for seed in range(plan.alone[kilobytes])]
            product, peer = in_turns(ask, loop, requests)
            ratios.append(product / peer)
            found |= {f"p50_ratio_{kilobytes}k": product / peer, f"p50_ms_{kilobytes}k": 1000 * product}
            print(f"{kilobytes:>7} kB {1:>8} {1000 * product:>9.0f} ms {1000 * peer:>9.0f} ms {product / peer:>7.2f}")
        requests = [make_request(texts, 12, 100 + seed) for seed in range(plan.alone[12])]
        direct, proxied = in_turns(ask_directly, ask, requests)
        found["proxy_ms_12k"] = 1000 * (proxied - direct)
        for kilobytes, number in plan.together.items():
            requests = [make_request(texts, kilobytes, 500 + seed) for seed in range(number)]
            product, peer = both_paces(ask, loop, requests, plan.loop[kilobytes])
            found[f"throughput_ratio_{kilobytes}k"] = product / peer
            found[f"kb_per_s_{kilobytes}k"] = product
            print(f"{kilobytes:>7} kB {CLIENTS:>8} {product:>7.1f} kB/s {peer:>7.1f} kB/s {product / peer:>7.2f}")
    found["p50_ratio"] = max(ratios)
    print(f"the web server adds {found['proxy_ms_12k']:.1f} ms to 12 kB asked of the ranking process itself")
    print(json.dumps({key: round(value, 3) for key, value in sorted(found.items())}))


def in_turns(product: Score, peer: Score, requests: Sequence[Request]) -> tuple[float, float]:
    """Median seconds of each, the same requests, one after the other and first in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for number, request in enumerate(requests):
        for side in (0, 1) if number % 2 else (1, 0):
            begun = time.perf_counter()
            (product, peer)[side](request)
            times[side].append(time.perf_counter() - begun)
    return statistics.median(times[0]), statistics.median(times[1])


def both_paces(product: Score, peer: Score, requests: Sequence[Request], looped: int) -> tuple[float, float]:
    """kB a second of 16 clients and of the loop, which is measured before and after them on `looped` of the requests."""
    first = pace(peer, requests[: looped // 2], clients=1)
    together = pace(product, requests, clients=CLIENTS)
    last = pace(peer, requests[looped // 2 : looped], clients=1)
    sizes = [size(requests[: looped // 2]), size(requests[looped // 2 : looped])]
    return size(requests) / together, sum(sizes) / (first + last)


def pace(score: Score, requests: Sequence[Request], *, clients: int) -> float:
    """Seconds until all requests are answered."""
    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(score, requests))
    return time.perf_counter() - begun


def size(requests: Sequence[Request]) -> float:
    return sum(len(each) for _, documents in requests for each in documents) / 1000


def equal(product: Score, peer: Score, requests: Sequence[Request]) -> None:
    """Stop where the two do not score alike; also asked at once, so that pairs are mixed."""
    expected = [peer(request) for request in requests]
    with ThreadPoolExecutor(len(requests)) as pool:
        together = list(pool.map(product, requests))
    for number, scores in enumerate(expected):
        for found in (product(requests[number]), together[number]):
            worst = max(abs(a - b) for a, b in zip(found, scores, strict=True))
            if worst > TOLERANCE:
                raise SystemExit(f"scores differ by {worst:.2g}; expected at most {TOLERANCE:g}")


def words() -> list[str]:
    """English from the documentation of the standard library."""
    texts = []
    for name in SOURCES.split():
        module = importlib.import_module(name)
        members = [module, *(value for _, value in inspect.getmembers(module, inspect.isclass))]
        texts += [inspect.getdoc(each) or "" for member in members for each in (member, *vars(member).values())]
    return re.findall(r"\S+", " ".join(dict.fromkeys(text for text in texts if len(text) > 200)))


def make_request(texts: Sequence[str], kilobytes: int, seed: int) -> Request:
    """A question and documents of so many kB together."""
    rng = random.Random(seed)
    documents: list[str] = []
    left = kilobytes * 1000
    while left > 0:
        length = min(left, int(SHORTEST * (LONGEST / SHORTEST) ** rng.random()))
        start = rng.randrange(len(texts))
        text = " ".join(itertools.islice(itertools.cycle(texts), start, start + LONGEST // 2))[:length]
        documents.append(text)
        left -= length
    return rng.choice(QUESTIONS), documents


def predict_loop(merged: Path) -> Score:
    """`CrossEncoder.predict` as its documentation shows it, with torch's own number of threads."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(merged), device="cpu")
    return lambda request: model.predict([(request[0], each) for each in request[1]], show_progress_bar=False).tolist()


@contextlib.contextmanager
def served() -> Iterator[tuple[Score, Score, Path]]:
    """The server in a new home with one published reranker; how to ask it, how to ask its ranking process, the model."""
    home = Path(tempfile.mkdtemp(prefix="zelo-serving-"))
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

    from zelo_site.services import ServiceSupervisor
    from zelo_site.stack import RankingOnDemand, web_process
    from zelo_site.supervisor import ProcessSupervisor

    try:
        with ServiceSupervisor(home):
            call_command("migrate", verbosity=0)
            token = publish_reranker(home)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            ranking = RankingOnDemand()
            report = lambda line: print(line, file=sys.stderr)  # noqa: E731
            children = [web_process("127.0.0.1", port)]
            with ProcessSupervisor(children, home=home, watch=ranking.look, report=report) as processes:
                ranking.processes = processes
                processes.tick()
                headers = {"authorization": f"Bearer {token}"}
                yield (
                    client(f"http://127.0.0.1:{port}", headers),
                    direct_client(),
                    next(home.glob("storage/*/*/*/merged")),
                )
            connections.close_all()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def client(address: str, headers: dict[str, str], *, transport: Any = None) -> Score:
    """Asks /v1/rerank; scores in the order of the documents. Each thread keeps a connection of its own."""
    import httpx

    own = threading.local()

    def ask(request: Request) -> list[float]:
        if not hasattr(own, "client"):
            own.client = httpx.Client(
                base_url=address, headers=headers, timeout=300, transport=transport and transport()
            )
        body = {"query": request[0], "documents": request[1]}
        for _ in range(60):
            with contextlib.suppress(httpx.TransportError):
                answer = own.client.post("/v1/rerank", json=body)
                if answer.status_code != 503:
                    break
            time.sleep(0.5)  # it is starting
        answer.raise_for_status()
        scores = [0.0] * len(request[1])
        for row in answer.json()["results"]:
            scores[row["index"]] = row["relevance_score"]
        return scores

    return ask


def direct_client() -> Score:
    """Asks the ranking process itself, as the web server does."""
    from dataclasses import asdict

    import httpx

    from trainer.models import Reranker
    from trainer.rerankers import artefact_of
    from zelo_site.reranking import ARTEFACT_HEADER, reranking_socket, service_key

    artefact = artefact_of(Reranker.objects.select_related("project").get())
    headers = {"authorization": f"Bearer {service_key()}", ARTEFACT_HEADER: json.dumps(asdict(artefact))}
    return client("http://rank", headers, transport=lambda: httpx.HTTPTransport(uds=str(reranking_socket())))


def publish_reranker(home: Path) -> str:
    """MiniLM with random LoRA weights and a random head, published and stored; returns a key that may rank."""
    import torch
    from django.contrib.auth import get_user_model
    from peft import LoraConfig, get_peft_model

    from labeling.projects import create_project
    from labeling.tokens import make_token
    from scoring.storage import storage
    from trainer.bases import cross_encoder, load_base
    from trainer.export import ModelCard, publish
    from trainer.models import Reranker
    from trainer.rerankers import TRAINED

    base = load_base("minilm")
    model = cross_encoder(base, max_length=MAX_LENGTH)
    torch.manual_seed(0)
    lora = LoraConfig(
        r=8, target_modules=list(base.lora_targets), modules_to_save=list(base.saved_modules), init_lora_weights=False
    )
    get_peft_model(model.model, lora).save_pretrained(str(home / "adapter"))
    published = publish(
        home / "adapter", base="minilm", out=home / "reranker", card=ModelCard(name="bench"), max_length=MAX_LENGTH
    )
    owner = get_user_model().objects.create_superuser("owner")
    project = create_project("Serving", owner=owner)
    location = f"rerankers/{project.slug}/bench"
    storage().upload_folder(published.folder, location)
    Reranker.objects.create(project=project, name="bench", kind=TRAINED, location=location, checksum=published.checksum)
    return make_token(owner, name="benchmark", scopes=["rerank"])


if __name__ == "__main__":
    main()
