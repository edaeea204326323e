"""Heartbeats of workers, and their preparation before the first task.

The main process of every Celery worker writes a row every few seconds, by the database's clock. Pages and the reconciler
call `alive`.
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
from scoring.numerics.design import rounds
from scoring.numerics.fitting.fit import compile_kernels
from workers.judging.recorder import holder_name, recover
from workers.models import Worker
from workers.monitoring.gpus import gpus_as_json
from workers.stopping import is_stopping, leave

log = logging.getLogger(__name__)

BEAT_S = 5.0
ALIVE_S = 20
GPU_QUEUES = frozenset({"judging-gpu", "training"})
# A worker that ends deletes its row, and waits no longer than this for an unreachable database.
LAST_BEAT_S = 2.0
_stop = threading.Event()
_beating: threading.Thread | None = None


def process_name(hostname: str) -> str:
    """The name under which a process leases tasks; no other process on any host ever has the same."""
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
    """Workers with a recent heartbeat, by the database's clock."""
    return Worker.objects.filter(
        seen_at__gt=RawSQL("clock_timestamp() - make_interval(secs => %s)", [ALIVE_S])
    ).order_by("name")


def may_see_hosts(user: Any) -> bool:
    """Whether this user may see names of hosts and process ids: staff and owners of projects may."""
    return may_create(user)


def keep_beating(name: str, queues: str) -> threading.Thread:
    """Write heartbeats from a thread until `stop_beating`; an unreachable database is only logged."""

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
    """Before the first task: store the answers of crashed processes, compile the rater's kernels."""
    try:
        recover()
    except Error as error:  # each judging task and the reconciler try again
        log.warning("answers of crashed workers of this host are not stored yet: %s", error)
    finally:
        connection.close()  # the pool's processes must not inherit it
    if "rating" in sender.app.amqp.queues.consume_from:
        compile_kernels()
        rounds.compile_kernels()
    # Objects loaded by now stay: the collector need not scan them while calls wait, and forks keep sharing their memory.
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
    """The last step of a worker, after its pool has ended."""
    if is_stopping():
        if _beating is not None:
            _beating.join(LAST_BEAT_S)
        leave(sender.exitcode or 0)


@worker_process_init.connect
def _single_thread(**kwargs: Any) -> None:
    """One numerical thread for each process, since several share the cores."""
    os.environ["OMP_NUM_THREADS"] = "1"
