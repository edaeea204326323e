"""Warms a web process before its first request: addresses, templates, languages, and in each thread a database connection
on which the requests of the comparison screen have run once.

People who all come at once would otherwise wait for what each process and each thread does once.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from concurrent.futures import Executor

log = logging.getLogger(__name__)

# The first pages of most visitors, and those that must be fast.
TEMPLATES = (
    "annotation/compare.html", "annotation/instruction.html", "annotation/my_answers.html", "zelo/account/sign_in.html",
    "zelo/account/link.html", "zelo/project/projects.html", "zelo/project/project.html", "zelo/queries/queries.html",
    "zelo/queries/query.html", "zelo/people/people.html", "404.html",
)  # fmt: skip
PATIENCE_S = 5.0


def warm(threads: Executor, count: int) -> None:
    """Load what requests need, and connect each of the `count` threads. Never raises: a cold process works too."""
    try:
        _load()
        _connect(threads, count)
    except Exception:
        log.exception("the web process could not warm up")


def _load() -> None:
    from django.conf import settings
    from django.middleware.csrf import get_token
    from django.template.loader import get_template
    from django.test import RequestFactory
    from django.urls import get_resolver, reverse
    from django.utils import translation

    from labeling.annotation import screen_texts

    for language, _name in settings.LANGUAGES:
        with translation.override(language):  # a resolver keeps its addresses by language
            reverse("sign-in")
            screen_texts.texts()
    get_resolver().resolve(reverse("sign-in"))
    for name in TEMPLATES:
        get_template(name)
    get_token(RequestFactory().get("/"))


def _connect(threads: Executor, count: int) -> None:
    """Open a connection in every thread: each waits for all others, so that none takes two of the tasks."""
    from django.db import DatabaseError, connection

    from zelo_site.processes.rehearsal import rehearse

    together = threading.Barrier(count)

    def connect() -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(PATIENCE_S)
        try:
            rehearse()
        except DatabaseError:  # the database is starting, or its tables are about to be migrated
            log.info("a web thread starts without a rehearsal", exc_info=True)
            connection.close()

    for each in [threads.submit(connect) for _ in range(count)]:
        each.result(4 * PATIENCE_S)
