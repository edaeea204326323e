"""The broker, the work queues and their live workers, as pages show them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from django.core.cache import cache

from workers.broker.client import broker_answers
from workers.broker.routing import judging_queue
from workers.models import Run, Worker
from workers.monitoring.heartbeats import alive

BROKER_CACHE_S = 3


@dataclass(frozen=True, slots=True)
class QueueState:
    """A work queue, its workers, and the command that starts a worker if there is none."""

    name: str
    workers: list[Worker] = field(default_factory=list)

    @property
    def command(self) -> str:
        return f"python manage.py worker {self.name}"


def broker_is_up() -> bool:
    """Return whether the broker answers, cached for a few seconds because a failing check is slow."""
    return bool(cache.get_or_set("zelo:broker", broker_answers, BROKER_CACHE_S))


def read_queues(names: Iterable[str]) -> list[QueueState]:
    """Return these queues with their live workers."""
    living = list(alive())
    return [QueueState(name, [worker for worker in living if name in worker.queues.split(",")]) for name in names]


def needed_queues(run: Run | None) -> list[str]:
    """Return the queues that the run's scores depend on."""
    plugins = run.judges.order_by().values_list("plugin", flat=True).distinct() if run else ()
    return ["rating", *(sorted({judging_queue(plugin) for plugin in plugins}) or ["judging-cpu"])]
