"""A worker as a process of its own, without Celery and its seconds of starting up; it can be told where to die.

Its processes are forked off a server that has everything loaded. `Workers` starts them, `work` is what they do: what
worker, reconciler and rating worker do in turn, until the run has ended.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import django
from django.apps import apps

if not apps.ready:
    django.setup()

from django.conf import settings
from django.db import connection
from django.db.models.functions import Now

from scoring.rating import rate_stale
from workers import failpoints
from workers.judging import batches, queue, recorder
from workers.models import JudgingTask, Run
from workers.monitoring import heartbeats
from workers.runs import advancing, transitions

LONGEST_S = 40.0


@dataclass(frozen=True)
class Order:
    """What a worker is to do: a run to its end, perhaps by way of cancelling it; and where it is to die."""

    run_id: int
    failpoint: str = ""
    cancel: bool = False
    environ: Mapping[str, str] = field(default_factory=dict)


def work(order: Order) -> None:
    os.environ.update(order.environ)
    failpoints.arm(order.failpoint)
    run = Run.objects.get(pk=order.run_id)
    if order.cancel:
        transitions.cancel_run(run)
    worker = heartbeats.process_name("w@host")
    deadline = time.monotonic() + LONGEST_S
    while run.state in Run.ACTIVE and time.monotonic() < deadline:
        recorder.recover()
        queue.reap()
        advancing.advance(run.pk)
        JudgingTask.objects.filter(run=run, state="open").update(next_at=Now())
        for judge in run.judges.all():
            batches.judge_open(judge.pk, worker=worker)
        rate_stale(run.project_id)
        run.refresh_from_db()


@contextlib.contextmanager
def workers(home: Path) -> Iterator[Workers]:
    """Workers on the tests' database, with a home of their own; none is left behind."""
    options = connection.settings_dict
    kept = dict(os.environ)
    os.environ |= {
        "ZELO_HOME": str(home),
        "DATABASE_URL": f"postgres://{options['USER']}@{quote(options['HOST'], safe='')}/{options['NAME']}",
        "BROKER_URL": settings.CELERY_BROKER_URL,
    }
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "tests.processes.worker_loaded"])
    started = Workers(context)
    try:
        assert started.run(os.getpid) == 0  # the server starts now, in this environment
        os.environ.clear()
        os.environ.update(kept)
        yield started
    finally:
        started.end()


@dataclass
class Workers:
    context: multiprocessing.context.ForkServerContext
    begun: list[multiprocessing.context.ForkServerProcess] = field(default_factory=list)

    def start(self, target: object = work, *order: object) -> multiprocessing.context.ForkServerProcess:
        """Start one, and leave it to itself."""
        process = self.context.Process(target=target, args=order)  # type: ignore[arg-type]
        self.begun.append(process)
        process.start()
        return process

    def run(self, target: object = work, *order: Order) -> int:
        """Run one to its end; returns its exit code, negative where a signal ended it."""
        process = self.start(target, *order)
        process.join(LONGEST_S + 20.0)
        assert process.exitcode is not None, "the worker does not end"
        return process.exitcode

    def end(self) -> None:
        for process in self.begun:
            if process.is_alive():
                process.kill()
                process.join()
