"""Ranking over HTTP against `CrossEncoder.predict` in a loop and against Infinity, on the same artefact and the same texts.

The benchmark publishes a student of MiniLM after a short training (100 steps) and runs the whole server in its own home. Publishing
times the forms of the reranker on lists of English from the documentation of the standard library, and the server uses the
fastest that keeps the order; the loop is float32. Clients call the web server at /v1/rerank with a key.
Requests hold 12 or 75 kB of documents, 200 to 3,000 characters each. One client alternates with the loop; then 16 clients
send requests at once. The same form also runs in this process, without HTTP: `model_ratio_*` is its time over the loop's, the least
that a server of this form can reach, `first_pass_ratio_*` without the documents that are computed again, whose share is
`again_*`; `overhead_ms_12k` is the median difference of a request to it, `overhead_ms_12k_straight` that of a ranking process which checks keys
itself (`serve_rerank --keys`). The header Server-Timing says where the time went.

`--infinity PYTHON` (or ZELO_INFINITY_PYTHON) names the interpreter of an environment with infinity-emb, which then serves the same
sequence-classification form, by torch and, where that environment has optimum, by ONNX Runtime. Prints a table and, as the
last line, one JSON object.
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
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # instead of this folder, whose names would shadow packages

from benchmarks.serving_peers import infinity_server, ranking_process  # noqa: E402
from benchmarks.serving_world import MAX_LENGTH, served, trained_reranker  # noqa: E402

CLIENTS = 16
SHORTEST, LONGEST = 200, 3000  # characters of a document, log-uniform
SIZES_KB = (12, 75)
GATE_LISTS, AT_ONCE = 100, 8  # of few lists a single swapped pair would decide
LISTS, LIST_KB = 200, 15  # what publishing compares the forms on
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
Parts = dict[str, float]  # of the last request: the seconds, or of a response the milliseconds, of each part


@dataclass(frozen=True)
class Plan:
    """How many requests: in turns for one client by size, and of 16 clients by size (None: not measured)."""

    alone: dict[int, int]
    together: dict[int, int]
    loop: dict[int, int]
    check_s: float


FULL = Plan(alone={12: 30, 75: 12}, together={12: 96, 75: 32}, loop={12: 48, 75: 10}, check_s=20.0)
QUICK = Plan(alone={12: 7, 75: 4}, together={12: 32, 75: 8}, loop={12: 6, 75: 2}, check_s=6.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer requests")
    parser.add_argument("--infinity", default=os.environ.get("ZELO_INFINITY_PYTHON", ""), help="its interpreter")
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    found: dict[str, Any] = {}
    with served("zelo-serving-", lambda home, address: publish_reranker(home, address, plan)) as (published_one, _):
        headers, ask, folder, parts = published_one
        shown = forms_of(folder)
        loop, texts = predict_loop(folder / "merged"), words()
        found["order_kept"] = order_kept(ask, loop, [make_request(texts, 12, seed) for seed in range(GATE_LISTS)])
        print(f"{'documents':>10} {'clients':>8} {'product':>12} {'loop':>12} {'ratio':>7}")
        with in_process(folder, shown["form"]) as (own, own_parts):
            for kilobytes in SIZES_KB:
                requests = [make_request(texts, kilobytes, 100 + seed) for seed in range(plan.alone[kilobytes])]
                found |= one_client(f"{kilobytes}k", ask, loop, own, own_parts, requests)
            requests = [make_request(texts, 12, 100 + seed) for seed in range(3 * plan.alone[12])]
            found["overhead_ms_12k"] = overhead("web server and ranking process", ask, parts, own, own_parts, requests)
            with ranking_process(folder.parent) as address:
                told: Parts = {}
                straight = client(address, headers, told)
                for request in requests[:2]:
                    straight(request)
                found["overhead_ms_12k_straight"] = overhead(
                    "ranking process alone", straight, told, own, own_parts, requests
                )
        for kilobytes, number in plan.together.items():
            requests = [make_request(texts, kilobytes, 500 + seed) for seed in range(number)]
            product, peer = both_paces(ask, loop, requests, plan.loop[kilobytes])
            found[f"throughput_ratio_{kilobytes}k"] = product / peer
            found[f"kb_per_s_{kilobytes}k"] = product
            print(f"{kilobytes:>7} kB {CLIENTS:>8} {product:>7.1f} kB/s {peer:>7.1f} kB/s {product / peer:>7.2f}")
        found |= infinity(options.infinity, folder, texts, plan, ask)
    print(f"processor: {shown['processor']}; {os.cpu_count()} cores; form: {shown['form']}")
    print(json.dumps({key: round(value, 3) for key, value in sorted(found.items())}))


def forms_of(folder: Path) -> dict[str, Any]:
    """The choice that publishing made, shown as a table."""
    shown: dict[str, Any] = json.loads((folder / "manifest.json").read_text())["forms"]
    print(f"{'form':>10} {'ms / 1,000 tokens':>18} {'tau':>9} {'top 10':>7} {'logit':>9}  on {shown['lists']} lists")
    for each in shown["measured"]:
        figures = f"{each['ms']:>18.1f} {each['kendall_tau']:>9.5f} {each['same_top_ten']:>7.1%} {each['largest_difference']:>9.2g}"
        print(f"{each['form']:>10} {figures if each['ms'] else ' ' * 46}  {each['problem']}")
    return shown


def order_kept(product: Score, peer: Score, requests: Sequence[Request]) -> int:
    """1 if the product's order passes the gate of publishing, against the loop; also asked at once, so that pairs are mixed."""
    exact = [peer(request) for request in requests]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        together = list(pool.map(product, requests))
    problem = agreed([*exact, *exact], [*[product(request) for request in requests], *together]).problem()
    if problem:
        print(f"the served order differs from the loop's: {problem}")
    return int(not problem)


def agreed(exact: Sequence[list[float]], found: Sequence[list[float]]) -> Any:
    """The agreement of the scores of lists, as publishing measures it."""
    import numpy as np

    from trainer.serving.forms.order_gate import agreement

    return agreement([logits(np.array(each)) for each in exact], [logits(np.array(each)) for each in found])


def logits(scores: Any) -> Any:
    import numpy as np

    return np.log(scores / (1.0 - scores))


def in_turns(sides: Sequence[Score], requests: Sequence[Request]) -> tuple[list[list[float]], list[list[list[float]]]]:
    """Seconds and scores of each side for each request; the sides take turns, and in being first."""
    times: list[list[float]] = [[] for _ in sides]
    scores: list[list[list[float]]] = [[] for _ in sides]
    for number, request in enumerate(requests):
        for turn in range(len(sides)):
            side = (number + turn) % len(sides)
            begun = time.perf_counter()
            scores[side].append(sides[side](request))
            times[side].append(time.perf_counter() - begun)
    return times, scores


def one_client(
    size: str, ask: Score, loop: Score, own: Score, parts: Parts, requests: Sequence[Request]
) -> dict[str, float]:
    """Median latencies of the product, of the loop and of the same form in this process, and their ratios."""
    seen: list[Parts] = []
    times, scores = in_turns([ask, loop, noted(own, parts, seen)], requests)
    product, peer, alone = map(statistics.median, times)
    first = statistics.median(each["tokens"] + each["first"] for each in seen)
    again = statistics.mean(each["share"] for each in seen)
    print(f"{size:>10} {1:>8} {1000 * product:>9.0f} ms {1000 * peer:>9.0f} ms {product / peer:>7.2f}")
    told = f"first pass alone {first / peer:.2f}; {again:.0%} of the documents are computed again"
    print(f"{'':>10} {'no HTTP':>8} {1000 * alone:>9.0f} ms {'':>12} {alone / peer:>7.2f}  {told}")
    return {
        f"p50_ratio_{size}": product / peer,
        f"p50_ms_{size}": 1000 * product,
        f"model_ratio_{size}": alone / peer,
        f"first_pass_ratio_{size}": first / peer,
        f"again_{size}": again,
        f"tau_{size}": agreed(scores[1], scores[0]).kendall_tau,
    }


def noted(score: Score, parts: Parts, seen: list[Parts]) -> Score:
    """The same, which also keeps the parts of each request."""

    def score_and_note(request: Request) -> list[float]:
        found = score(request)
        seen.append(dict(parts))
        return found

    return score_and_note


def overhead(way: str, ask: Score, parts: Parts, own: Score, own_parts: Parts, requests: Sequence[Request]) -> float:
    """Median milliseconds of a request over the same form in this process; prints its parts."""
    served: list[Parts] = []
    alone: list[Parts] = []
    (product, model), _ = in_turns([noted(ask, parts, served), noted(own, own_parts, alone)], requests)
    whole = [1000 * (each - other) for each, other in zip(product, model, strict=True)]
    rows = {
        "client and web server": [
            1000 * each - own.get("forwarded", own["ranking"]) for each, own in zip(product, served, strict=True)
        ],
        "between the processes": [each.get("forwarded", each["ranking"]) - each["ranking"] for each in served],
        "ranking server": [each["ranking"] - each["tokens"] - each["model"] for each in served],
        "tokens, over its own": [
            each["tokens"] - 1000 * other["tokens"] for each, other in zip(served, alone, strict=True)
        ],
        "model, over its own": [
            each["model"] - 1000 * (other["first"] + other["again"]) for each, other in zip(served, alone, strict=True)
        ],
    }
    print(f"{way}: {statistics.median(whole):.1f} ms over the model's own time for 12 kB; medians of the parts:")
    for name, values in rows.items():
        print(f"{name:>30} {statistics.median(values):>6.1f} ms")
    return statistics.median(whole)


def both_paces(product: Score, peer: Score, requests: Sequence[Request], looped: int) -> tuple[float, float]:
    """kB a second of 16 clients and of the loop, which is measured before and after them on `looped` of the requests."""
    first = pace(peer, requests[: looped // 2], clients=1)
    together = pace(product, requests, clients=CLIENTS)
    last = pace(peer, requests[looped // 2 : looped], clients=1)
    sizes = [size(requests[: looped // 2]), size(requests[looped // 2 : looped])]
    return size(requests) / together, sum(sizes) / (first + last)


def pace(score: Score, requests: Sequence[Request], *, clients: int) -> float:
    """Seconds until all requests are answered; one client asks from this thread.

    torch gives a new thread the number of threads that was set last, here the one of a pass: the loop would compute on one core.
    """
    begun = time.perf_counter()
    if clients == 1:
        for request in requests:
            score(request)
        return time.perf_counter() - begun
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(score, requests))
    return time.perf_counter() - begun


def size(requests: Sequence[Request]) -> float:
    return sum(len(each) for _, documents in requests for each in documents) / 1000


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


def client(address: str, headers: dict[str, str], parts: Parts) -> Score:
    """Asks /v1/rerank; scores in the order of the documents. Each thread keeps a connection of its own.

    `parts` holds what the header Server-Timing of the last response said.
    """
    import httpx

    own = threading.local()

    def ask(request: Request) -> list[float]:
        if not hasattr(own, "client"):
            own.client = httpx.Client(base_url=address, headers=headers, timeout=300)
        body = {"query": request[0], "documents": request[1]}
        for _ in range(60):
            with contextlib.suppress(httpx.TransportError):
                answer = own.client.post("/v1/rerank", json=body)
                if answer.status_code != 503:
                    break
            time.sleep(0.5)  # it is starting
        answer.raise_for_status()
        parts.update(
            (name, float(ms)) for name, ms in re.findall(r"(\w+);dur=([\d.]+)", answer.headers["server-timing"])
        )
        scores = [0.0] * len(request[1])
        for row in answer.json()["results"]:
            scores[row["index"]] = row["relevance_score"]
        return scores

    return ask


@contextlib.contextmanager
def in_process(folder: Path, form: str) -> Iterator[tuple[Score, Parts]]:
    """The same form in this process, with the server's batcher, prepared as there, and no HTTP; and the parts of a request."""
    import torch

    from trainer.serving.batcher import RequestBatcher
    from trainer.serving.loading import load_reranker

    model = load_reranker(folder, device="cpu", form=form)
    model.prepare()
    batcher = RequestBatcher(threads=os.cpu_count() or 1, prepare_thread=lambda: torch.set_num_threads(1))
    parts: Parts = {}

    def score(request: Request) -> list[float]:
        begun = time.perf_counter()
        pairs = model.encode(*request).pairs
        encoded = time.perf_counter()
        found: list[float] = batcher.submit(model, pairs).result()
        first = time.perf_counter()
        rows = model.unsure(found)
        if rows:
            again = batcher.submit(model.exact, [pairs[row] for row in rows]).result()
            for row, logit in zip(rows, again, strict=True):
                found[row] = logit
        ended = time.perf_counter()
        parts.update(tokens=encoded - begun, first=first - encoded, again=ended - first, share=len(rows) / len(pairs))
        return found

    try:
        yield score, parts
    finally:
        batcher.close()


def infinity(python: str, folder: Path, texts: Sequence[str], plan: Plan, ask: Score) -> dict[str, float]:
    """Throughput of the product over Infinity's better engine, with 16 clients; nothing where it is not installed.

    Documents are cut to what the reranker reads: Infinity's ONNX engine reads up to 512 tokens whatever its tokenizer says.
    """
    if not python:
        print("Infinity was not measured: name the interpreter of an environment with infinity-emb by --infinity")
        return {}
    best: dict[int, float] = {}
    ours: dict[int, float] = {}
    for engine in ("torch", "optimum"):
        with infinity_server(python, folder, engine) as rival:
            if rival is None:
                continue
            for kilobytes, number in plan.together.items():
                requests = shortened(folder, [make_request(texts, kilobytes, 700 + seed) for seed in range(number)])
                own = size(requests) / pace(ask, requests, clients=CLIENTS)
                pace(rival, requests[:2], clients=1)
                theirs = size(requests) / pace(rival, requests, clients=CLIENTS)
                print(
                    f"{kilobytes:>7} kB {CLIENTS:>8} {own:>7.1f} kB/s {theirs:>7.1f} kB/s {own / theirs:>7.2f} Infinity, {engine}"
                )
                if theirs > best.get(kilobytes, 0.0):
                    best[kilobytes], ours[kilobytes] = theirs, own
    found = {f"infinity_throughput_ratio_{kilobytes}k": ours[kilobytes] / best[kilobytes] for kilobytes in best}
    return found | ({"infinity_throughput_ratio": min(found.values())} if found else {})


def shortened(folder: Path, requests: Sequence[Request]) -> list[Request]:
    """The requests with the part of each document that the reranker reads."""
    from transformers import AutoTokenizer

    from trainer.serving.plain_text import all_shortened

    tokenizer = AutoTokenizer.from_pretrained(str(folder / "sequence_classification"))
    found = []
    for query, documents in requests:
        room = MAX_LENGTH - len(tokenizer(query)["input_ids"]) - 1
        found.append((query, all_shortened(tokenizer, documents, room)))
    return found


def publish_reranker(home: Path, address: str, plan: Plan) -> tuple[dict[str, str], Score, Path, Parts]:
    """Publish and store a reranker: its key, how to ask the server for it, its folder, and the parts of the last request."""
    from django.contrib.auth import get_user_model

    from labeling.access.api_keys import make_token
    from labeling.projects import create_project
    from scoring.storage.files import storage
    from trainer.models import Reranker
    from trainer.publishing.manifests import MANIFEST, file_checksum
    from trainer.serving.forms.publication import check_forms
    from trainer.serving.registry import TRAINED

    texts = words()
    lists = [make_request(texts, LIST_KB, 10_000 + seed) for seed in range(LISTS)]
    folder = trained_reranker(home / "bench", check=lambda draft: check_forms(draft, lists, most_s=plan.check_s))
    owner = get_user_model().objects.create_superuser("owner")
    project = create_project("Serving", owner=owner)
    location = f"rerankers/{project.slug}/bench"
    storage().upload_folder(folder, location)
    checksum = file_checksum(folder / MANIFEST)
    Reranker.objects.create(project=project, name="bench", kind=TRAINED, location=location, checksum=checksum)
    token = make_token(owner, name="benchmark", scopes=["rerank"])
    parts: Parts = {}
    headers = {"authorization": f"Bearer {token}"}
    return headers, client(address, headers, parts), folder, parts


if __name__ == "__main__":
    main()
