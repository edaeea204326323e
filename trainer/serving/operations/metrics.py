"""The metrics of the serving process, in Prometheus' text format. Imports no Django.

Counters live in this process and start at 0 with it, as Prometheus expects. A label `model` holds names of models that
were found, never what a client sent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest
from prometheus_client.registry import CollectorRegistry

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
LOAD_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
TOKENS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384)


class ServingMetrics:
    """Counts what the serving process does; `text` is the response of GET /metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter(
            "requests", "Requests, by address, model and status.", "address", "model", "status"
        )
        self.seconds = self._histogram("request_seconds", "Time to the answer.", SECONDS, "address", "model")
        self.in_progress = Gauge("zelo_rerank_in_progress", "Requests in progress.", registry=self.registry)
        self.documents = self._counter("documents", "Texts that were scored or embedded.", "model")
        self.truncated = self._counter("truncated_documents", "Documents that were truncated.", "model")
        self.batch_pairs = self._histogram("batch_pairs", "Pairs in one pass.", SIZES, "model")
        self.batch_tokens = self._histogram("batch_tokens", "Tokens in one pass, without padding.", TOKENS, "model")
        self.padding = self._counter("padding_tokens", "Tokens of padding that were computed.", "model")
        self.pass_seconds = self._histogram("pass_seconds", "Time of one pass.", SECONDS, "model")
        self.loads = self._counter("model_loads", "Models that were loaded, by result.", "model", "result")
        self.load_seconds = self._histogram("model_load_seconds", "Time to load a model.", LOAD_SECONDS, "model")
        self.background = self._counter("background_requests", "Shadow requests, by result.", "result")
        self._waiting = Gauge("zelo_rerank_waiting_tokens", "Tokens in the queue.", registry=self.registry)
        self._ready = Gauge("zelo_rerank_ready", "1 once the warm-up is over.", registry=self.registry)
        self._loaded = Gauge(
            "zelo_rerank_model_bytes", "Memory of each loaded model.", ["model"], registry=self.registry
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"zelo_rerank_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"zelo_rerank_{name}", text, labels, buckets=buckets, registry=self.registry)

    def text(self, *, waiting_tokens: int, models: Sequence[Mapping[str, object]], is_ready: bool) -> bytes:
        """All metrics in Prometheus' text format. `models`: those in memory, as `WarmModels.state` lists them."""
        self._waiting.set(waiting_tokens)
        self._ready.set(is_ready)
        self._loaded.clear()
        for each in models:
            self._loaded.labels(str(each["name"])).set(float(str(each["bytes"])))
        return generate_latest(self.registry)

    def answered(self, address: str, model: str, status: int, seconds: float) -> None:
        """Count one request."""
        self.requests.labels(address, model, str(status)).inc()
        self.seconds.labels(address, model).observe(seconds)

    def computed(self, model: str, pairs: Sequence[Sized], seconds: float, *, pads: bool = True) -> None:
        """Count one pass. `pads`: whether the model pads pairs to the longest of a pass."""
        lengths = [len(each) for each in pairs]
        self.batch_pairs.labels(model).observe(len(lengths))
        self.batch_tokens.labels(model).observe(sum(lengths))
        self.padding.labels(model).inc(max(lengths, default=0) * len(lengths) - sum(lengths) if pads else 0)
        self.pass_seconds.labels(model).observe(seconds)

    @contextmanager
    def loading(self, model: str) -> Iterator[None]:
        """Count the loading of a model, with its time and whether it succeeded."""
        began = time.monotonic()
        try:
            yield
        except BaseException:
            self.loads.labels(model, "failed").inc()
            raise
        self.loads.labels(model, "loaded").inc()
        self.load_seconds.labels(model).observe(time.monotonic() - began)
