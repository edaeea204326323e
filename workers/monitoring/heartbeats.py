"""Workers say that they are alive, and warm up what must not be slow when it is first needed.

The main process of every Celery worker writes a row each few seconds by the database's clock;
`alive` is what pages and the reconciler ask.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import socket
import threading
from typing import Any

from celery.signals import worker_init, worker_process_init, worker_ready, worker_shutdown, worker_shutting_down
from django.db import Error, connection
from django.db.models import QuerySet
from django.db.models.expressions import RawSQL

from labeling.projects import may_create
from scoring.numerics.design import adaptive
from scoring.numerics.fitting.fit import compile_kernels
from workers.judging.recorder import holder_name, recover
from workers.models import Worker
from workers.monitoring.gpus import gpus_as_json
from workers.stopping import is_stopping, leave

log = logging.getLogger(__name__)

BEAT_S = 5.0
ALIVE_S = 20
GPU_QUEUES = frozenset({"judging-gpu", "training"})
# A worker that ends takes its row away; a database that is away is not waited for.
LAST_BEAT_S = 2.0
_stop = threading.Event()
_beating: threading.Thread | None = None


def process_name(hostname: str) -> str:
    """The name a process leases tasks under; no other process, on whatever host, ever has the same."""
    return holder_name(f"{hostname}:{os.getpid()}")


def beat(name: str, queues: str) -> None:
    """Write one heartbeat, with the state of the GPUs where the worker may use them."""
    gpus = gpus_as_json() if GPU_QUEUES.intersection(queues.split(",")) else []
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO workers_worker (name, queues, host, pid, gpus) VALUES (%s, %s, %s, %s, %s) "
            "ON CONFLICT (name) DO UPDATE SET queues = EXCLUDED.queues, host = EXCLUDED.host, pid = EXCLUDED.pid, "
            "gpus = EXCLUDED.gpus, seen_at = clock_timestamp(), "
            "started_at = CASE WHEN workers_worker.pid = EXCLUDED.pid THEN workers_worker.started_at "
            "ELSE clock_timestamp() END",
            [name, queues, socket.gethostname(), os.getpid(), json.dumps(gpus)],
        )


def alive() -> QuerySet[Worker]:
    """Workers heard of within the last seconds, by the database's clock."""
    return Worker.objects.filter(
        seen_at__gt=RawSQL("clock_timestamp() - make_interval(secs => %s)", [ALIVE_S])
    ).order_by("name")


def may_see_hosts(user: Any) -> bool:
    """Whether names of hosts and process ids are this user's affair: staff, and owners of projects, who order the work."""
    return may_create(user)


def keep_beating(name: str, queues: str) -> threading.Thread:
    """Beat from a thread of its own until `stop_beating`; an unreachable database is only logged."""

    def loop() -> None:
        while not _stop.is_set():
            try:
                beat(name, queues)
            except Error as error:
                log.warning("heartbeat of %s not stored: %s", name, error)
                connection.close()
            _stop.wait(BEAT_S)
        with contextlib.suppress(Error):
            Worker.objects.filter(pk=name).delete()
        connection.close()

    _stop.clear()
    thread = threading.Thread(target=loop, name="heartbeat", daemon=True)
    thread.start()
    return thread


def stop_beating() -> None:
    _stop.set()


@worker_init.connect
def _prepare(sender: Any, **kwargs: Any) -> None:
    """Before the first task: what killed predecessors left is stored, the rater's kernels are compiled."""
    try:
        recover()
    except Error as error:  # each judging task and the reconciler look again
        log.warning("what dead workers of this host left is not stored yet: %s", error)
    finally:
        connection.close()  # the pool's processes must not inherit it
    if "rating" in sender.app.amqp.queues.consume_from:
        compile_kernels()
        adaptive.compile_kernels()
    # What is loaded by now stays: the collector need not walk through it while calls wait, and forks go on sharing it.
    gc.collect()
    gc.freeze()


@worker_ready.connect
def _start(sender: Any, **kwargs: Any) -> None:
    queues = ",".join(sorted(queue.name for queue in sender.task_consumer.queues))
    global _beating
    _beating = keep_beating(sender.hostname, queues)


@worker_shutting_down.connect
def _end(**kwargs: Any) -> None:
    stop_beating()


@worker_shutdown.connect
def _leave(sender: Any, **kwargs: Any) -> None:
    """The last thing that a worker does once its pool has come to an end."""
    if is_stopping():
        if _beating is not None:
            _beating.join(LAST_BEAT_S)
        leave(sender.exitcode or 0)


@worker_process_init.connect
def _single_thread(**kwargs: Any) -> None:
    """Several processes share the cores: one numerical thread each."""
    os.environ["OMP_NUM_THREADS"] = "1"
