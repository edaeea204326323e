"""What an operator sees of the serving process: metrics, readiness, warm-up, loading on request, requests in the background."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from tests.processes.serve import served
from trainer.serving.batcher import RequestBatcher
from trainer.serving.model_cache import Artefact, WarmModels
from trainer.serving.operations.background import in_background
from trainer.serving.operations.metrics import ServingMetrics
from trainer.serving.operations.warming import WarmUp
from trainer.serving.server import ARTEFACT_HEADER, BACKGROUND_HEADER, RerankApp

BODY = {"query": "goldfish", "documents": ["a pond with goldfish", "bread", "water in a long text " * 20]}
METRICS_KEY = "a key of the scraper"


@contextmanager
def watched(folder: Path, **options: Any) -> Iterator[str]:
    """A serving process as `serve_rerank` builds it; `fetch` of other artefacts may be given."""
    metrics = ServingMetrics()
    fetch = options.pop("fetch", lambda artefact: folder)
    batcher = RequestBatcher(
        threads=1,
        prepare_thread=lambda: torch.set_num_threads(1),
        observe=lambda model, pairs, seconds: metrics.computed(model.name, pairs, seconds),
    )
    models = WarmModels(budget_bytes=1 << 30, fetch=fetch, watch=lambda artefact: metrics.loading(artefact.name))
    with served(RerankApp(models=models, batcher=batcher, metrics=metrics, **options)) as url:
        yield url


def named(name: str) -> dict[str, str]:
    return {ARTEFACT_HEADER: json.dumps({"name": name, "location": name})}


def scrape(url: str, **headers: str) -> dict[tuple[str, ...], float]:
    answer = httpx.get(f"{url}/metrics", headers=headers)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(answer.text)
    return {(each.name, *each.labels.values()): each.value for family in families for each in family.samples}


def test_metrics_count_requests_passes_loads_and_padding(published_encoder: Path) -> None:
    with watched(published_encoder) as url:
        for _ in range(3):
            assert httpx.post(f"{url}/v1/rerank", json=BODY, headers=named("fish")).status_code == 200
        assert httpx.post(f"{url}/v1/rerank/", json={"query": 1}, headers=named("fish")).status_code == 422
        assert httpx.post(f"{url}/nothing", json=BODY, headers=named("fish")).status_code == 404
        found = scrape(url)
    assert found["zelo_rerank_requests_total", "/v1/rerank", "fish", "200"] == 3
    assert found["zelo_rerank_requests_total", "/v1/rerank", "", "422"] == 1  # refused before its model was looked up
    assert not any("/nothing" in key for key in found)
    assert found["zelo_rerank_request_seconds_count", "/v1/rerank", "fish"] == 3
    assert found["zelo_rerank_model_loads_total", "fish", "loaded"] == 1
    (model,) = {key[1] for key in found if key[0] == "zelo_rerank_documents_total"}
    assert found["zelo_rerank_documents_total", model] == 9
    assert found["zelo_rerank_batch_pairs_sum", model] == 9 and found["zelo_rerank_padding_tokens_total", model] >= 0
    assert found["zelo_rerank_waiting_tokens",] == 0 and found["zelo_rerank_ready",] == 1
    assert found["zelo_rerank_model_bytes", model] > 0


def test_models_of_two_projects_with_one_name_are_counted_apart(published_encoder: Path) -> None:
    with watched(published_encoder) as url:
        for project in ("carp", "pike"):
            artefact = {
                "name": f"{project}/search",
                "location": project,
                "checksum": project,
                "version": f"{project}/v1",
            }
            headers = {ARTEFACT_HEADER: json.dumps(artefact)}
            assert httpx.post(f"{url}/v1/rerank", json=BODY, headers=headers).json()["model"] == f"{project}/search"
        found = scrape(url)
    for project in ("carp", "pike"):
        assert found["zelo_rerank_model_bytes", f"{project}/v1"] > 0
        assert found["zelo_rerank_documents_total", f"{project}/v1"] == 3
        assert found["zelo_rerank_requests_total", "/v1/rerank", f"{project}/search", "200"] == 1


def test_failed_loads_are_counted(published_encoder: Path, tmp_path: Path) -> None:
    with watched(published_encoder, fetch=lambda artefact: tmp_path) as url:
        assert httpx.post(f"{url}/v1/rerank", json=BODY, headers=named("broken")).status_code == 503
        assert scrape(url)["zelo_rerank_model_loads_total", "broken", "failed"] == 1


def test_metrics_need_a_key_where_ranking_does(published_encoder: Path) -> None:
    keys = {"service_keys": lambda: ["secret"], "metrics_keys": [METRICS_KEY]}
    with watched(published_encoder, **keys) as url:
        assert httpx.get(f"{url}/metrics").status_code == 401
        for key in ("secret", METRICS_KEY):
            assert scrape(url, authorization=f"Bearer {key}")
        headers = {"authorization": f"Bearer {METRICS_KEY}", **named("fish")}
        assert httpx.post(f"{url}/v1/rerank", json=BODY, headers=headers).status_code == 401
        assert httpx.post(f"{url}/warm", headers=headers).status_code == 401


def test_a_process_is_ready_once_what_was_loaded_before_is_loaded_again(
    published_encoder: Path, tmp_path: Path
) -> None:
    remembered = tmp_path / "loaded.json"
    may_load = threading.Event()

    def fetch(artefact: Artefact) -> Path:
        assert may_load.wait(30)
        if artefact.name == "deleted":
            raise FileNotFoundError(artefact.location)
        return published_encoder

    may_load.set()
    with watched(published_encoder, fetch=fetch, warm_up=WarmUp(remembered)) as url:
        assert httpx.get(f"{url}/readyz").status_code == 200
        for name in ("fish", "carp"):
            assert httpx.post(f"{url}/v1/rerank", json=BODY, headers=named(name)).status_code == 200
    entries = json.loads(remembered.read_text())
    assert [each["name"] for each in entries] == ["fish", "carp"]
    remembered.write_text(json.dumps([*entries, {"name": "deleted", "location": "deleted"}]))
    may_load.clear()
    with watched(published_encoder, fetch=fetch, warm_up=WarmUp(remembered)) as url:
        assert httpx.get(f"{url}/healthz").status_code == 200
        for path in ("/readyz", "/health"):
            answer = httpx.get(f"{url}{path}")
            assert (answer.status_code, answer.json()["status"]) == (503, "loading")
        may_load.set()
        until = time.monotonic() + 30
        while httpx.get(f"{url}/readyz").status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.05)
        found = scrape(url)
    assert {key[1] for key in found if key[0] == "zelo_rerank_model_loads_total"} == {"fish", "carp", "deleted"}


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"location": "x"}]'])
def test_a_damaged_list_of_loaded_models_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / "loaded.json").write_text(text)
    assert WarmUp(tmp_path / "loaded.json").is_over


def test_warm_loads_a_model_before_a_request_needs_it(published_encoder: Path) -> None:
    with watched(published_encoder) as url:
        answer = httpx.post(f"{url}/warm", headers=named("fish"), timeout=30)
        assert answer.status_code == 200 and answer.json()["model"] == "fish"
        assert scrape(url)["zelo_rerank_model_loads_total", "fish", "loaded"] == 1
        assert httpx.post(f"{url}/v1/rerank", json=BODY, headers=named("fish")).status_code == 200
        assert scrape(url)["zelo_rerank_model_loads_total", "fish", "loaded"] == 1


def test_background_requests_get_the_same_scores_and_load_nothing(published_encoder: Path) -> None:
    with watched(published_encoder) as url:
        quiet = named("fish") | {BACKGROUND_HEADER: "1"}
        assert httpx.post(f"{url}/v1/rerank", json=BODY, headers=quiet).status_code == 503
        expected = httpx.post(f"{url}/v1/rerank", json=BODY, headers=named("fish")).json()["results"]
        found = httpx.post(f"{url}/v1/rerank", json=BODY, headers=quiet).json()["results"]
        for one, other in zip(expected, found, strict=True):
            assert one["index"] == other["index"]
            assert one["relevance_score"] == pytest.approx(other["relevance_score"], abs=1e-5)
        assert scrape(url)["zelo_rerank_background_requests_total", "computed"] == 1


class _Held:
    """A model that computes nothing until it may, and notes the lengths of the pairs of each pass."""

    batch_tokens = 1
    pads = True

    def __init__(self) -> None:
        self.may_compute = threading.Event()
        self.began = threading.Event()
        self.passes: list[list[int]] = []

    def logits(self, pairs: Any) -> list[float]:
        self.began.set()
        assert self.may_compute.wait(30)
        self.passes.append([len(pair) for pair in pairs])
        return [float(len(pair)) for pair in pairs]


def test_background_requests_wait_for_all_others_and_run_in_small_passes() -> None:
    model: Any = _Held()
    batcher = RequestBatcher(threads=1)
    others = [batcher.submit(model, [range(300)]) for _ in range(3)]  # type: ignore[list-item]
    assert model.began.wait(30)
    with ThreadPoolExecutor(1) as pool:
        quiet = pool.submit(asyncio.run, in_background(batcher, model, [range(200)] * 5))
        model.may_compute.set()
        assert quiet.result(timeout=30) == [200.0] * 5
    assert all(each.done() for each in others)
    assert model.passes[:3] == [[300]] * 3
    assert sum(map(sum, model.passes[3:])) == 1000 and max(map(sum, model.passes)) <= 512
    batcher.close()
