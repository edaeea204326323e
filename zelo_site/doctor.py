"""What is configured, missing or unreachable, each with its remedy; the same for terminal and page.

Every check is a function that returns findings and never raises: one that breaks is itself a
finding. None prints a password, a key or an address that holds one.
"""

from __future__ import annotations

import enum
import importlib.util
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fsspec
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from labeling.plugins import load_plugins
from scoring.rating import stale_project_ids
from workers.broker.hints import broker_answers
from workers.endpoints.registry import endpoint_problems, load_endpoints
from workers.monitoring.heartbeats import alive
from zelo_site.templatetags.figures import decimals

LEAST_FREE_BYTES = 2 * 1024**3


class Health(enum.StrEnum):
    GOOD = "good"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `remedy` says what to do where `health` is not good."""

    name: str
    health: Health
    detail: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Every check, in the order in which a fault of one explains those of the next."""
    return [finding for check in CHECKS for finding in _guarded(check)]


def _guarded(check: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return check()
    except Exception as error:  # a check that breaks must not hide the others
        name = check.__name__.removeprefix("check_").replace("_", " ")
        return [
            Finding(
                name,
                Health.BAD,
                _("the check itself failed: %(error)s") % {"error": type(error).__name__},
                _("look into the log"),
            )
        ]


def check_database() -> list[Finding]:
    remedy = _("start the server with `make up`, or set DATABASE_URL to a PostgreSQL that answers")
    try:
        with connection.cursor() as cursor:
            cursor.execute("SHOW server_version")
            version = str(cursor.fetchone()[0])
    except DatabaseError as error:
        return [
            Finding(
                _("database"), Health.BAD, _("does not answer (%(error)s)") % {"error": type(error).__name__}, remedy
            )
        ]
    where = _("named by DATABASE_URL") if os.environ.get("DATABASE_URL") else _("embedded")
    return [Finding(_("database"), Health.GOOD, f"PostgreSQL {version}, {where}")]


def check_tables() -> list[Finding]:
    executor = MigrationExecutor(connection)
    missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if missing:
        detail = ngettext("%(n)s migration not applied", "%(n)s migrations not applied", len(missing)) % {
            "n": len(missing)
        }
        return [Finding(_("tables"), Health.BAD, detail, _("run `python manage.py migrate`"))]
    return [Finding(_("tables"), Health.GOOD, _("up to date"))]


def check_broker() -> list[Finding]:
    if broker_answers():
        where = _("named by BROKER_URL") if os.environ.get("BROKER_URL") else _("embedded")
        return [Finding(_("broker"), Health.GOOD, _("answers, %(where)s") % {"where": where})]
    remedy = _("start the server with `make up`, or set BROKER_URL to a Valkey or Redis that answers")
    return [Finding(_("broker"), Health.BAD, _("does not answer; judging waits, nothing is lost"), remedy)]


def check_workers() -> list[Finding]:
    living = list(alive())
    findings = []
    for queue, task in (
        ("rating", _("scores wait")),
        ("judging-cpu", _("nobody asks the judges of this machine")),
        ("judging-gpu", _("nobody asks language models loaded from a file")),
        ("judging-http", _("nobody asks judges over HTTP")),
        ("training", _("no reranker is trained")),
    ):
        serving = [worker.name for worker in living if queue in worker.queues.split(",")]
        name = _("workers, %(queue)s") % {"queue": queue}
        if serving:
            findings.append(Finding(name, Health.GOOD, ", ".join(serving)))
        else:
            remedy = _("run `python manage.py worker %(queue)s` (`make up` does)") % {"queue": queue}
            findings.append(Finding(name, Health.BAD, _("none alive; %(task)s") % {"task": task}, remedy))
    return findings


def check_backlog() -> list[Finding]:
    stale = len(stale_project_ids())
    if stale:
        detail = ngettext(
            "%(n)s project with answers that are not in the scores yet",
            "%(n)s projects with answers that are not in the scores yet",
            stale,
        ) % {"n": stale}
        return [
            Finding(_("scores"), Health.NOTE, detail, _("a rating worker or `python manage.py reconcile` sees to it"))
        ]
    return [Finding(_("scores"), Health.GOOD, _("every stored answer is in the scores"))]


def check_storage() -> list[Finding]:
    remedy = _("set STORAGE_URL to a folder or bucket that this process may write to")
    try:
        files, root = fsspec.core.url_to_fs(settings.STORAGE_URL)
        files.makedirs(root, exist_ok=True)
        probe = f"{root.rstrip('/')}/.doctor-{uuid.uuid4().hex}"
        with files.open(probe, "wb") as stream:
            stream.write(b"zelo")
        files.rm(probe)
    except Exception as error:  # every kind of storage has errors of its own
        return [
            Finding(
                _("storage"),
                Health.BAD,
                _("cannot be written to (%(error)s)") % {"error": type(error).__name__},
                remedy,
            )
        ]
    return [
        Finding(
            _("storage"), Health.GOOD, _("writable (%(kind)s)") % {"kind": settings.STORAGE_URL.partition("://")[0]}
        )
    ]


def check_home() -> list[Finding]:
    home = Path(settings.ZELO_HOME)
    if not home.is_dir() or not os.access(home, os.W_OK):
        return [
            Finding(
                _("home"),
                Health.BAD,
                _("%(folder)s is no writable folder") % {"folder": home},
                _("create it, or set ZELO_HOME to another"),
            )
        ]
    free = shutil.disk_usage(home).free
    if free < LEAST_FREE_BYTES:
        detail = _("%(size)s GiB free in %(folder)s") % {"size": decimals(free / 1024**3, 1), "folder": home}
        return [Finding(_("home"), Health.NOTE, detail, _("make room: the database stops when the disk is full"))]
    return [
        Finding(
            _("home"),
            Health.GOOD,
            _("%(folder)s, %(size)s GiB free") % {"folder": home, "size": decimals(free / 1024**3, 0)},
        )
    ]


def check_safety() -> list[Finding]:
    findings = []
    if settings.DEBUG:
        findings.append(
            Finding(
                _("debug"),
                Health.BAD,
                _("tracebacks are shown in the browser"),
                _("unset ZELO_DEBUG on a shared server"),
            )
        )
    if not settings.HTTPS and any(host not in {"localhost", "127.0.0.1", "[::1]"} for host in settings.ALLOWED_HOSTS):
        detail = _("other hosts may reach the server without TLS")
        findings.append(Finding(_("encryption"), Health.NOTE, detail, _("put TLS in front of it and set ZELO_HTTPS=1")))
    owners = get_user_model().objects.filter(is_superuser=True, is_active=True)
    if not owners.exists():
        findings.append(
            Finding(_("owner"), Health.NOTE, _("nobody owns the server yet"), _("run `python manage.py link`"))
        )
    return findings or [Finding(_("safety"), Health.GOOD, _("no debug pages, only hosts that are named, an owner"))]


def check_plugins() -> list[Finding]:
    modules = load_plugins(enabled=settings.ZELO_PLUGINS)
    broken = [
        Finding(
            _("plugin %(name)s") % {"name": module.name},
            Health.BAD,
            module.error,
            _("mend or uninstall %(module)s") % {"module": module.module},
        )
        for module in modules
        if module.error
    ]
    loaded = [module.name for module in modules if module.enabled and not module.error]
    return [
        *broken,
        Finding(
            _("plugins"), Health.GOOD, _("%(n)s modules: %(names)s") % {"n": len(loaded), "names": ", ".join(loaded)}
        ),
    ]


def check_endpoints() -> list[Finding]:
    problems = endpoint_problems()
    if problems:
        return [
            Finding(_("endpoints"), Health.BAD, problem, _("mend it and restart the workers")) for problem in problems
        ]
    names = sorted(load_endpoints())
    if not names:
        detail = _("no language model's endpoint is defined; the judges that need no network work without")
        return [Finding(_("endpoints"), Health.GOOD, detail)]
    return [Finding(_("endpoints"), Health.GOOD, ", ".join(names))]


def check_packages() -> list[Finding]:
    wanted = {
        "torch": _("local models and training"),
        "sentence_transformers": _("the embedding judge and dense retrieval"),
        "numba": _("fast rating"),
    }
    missing = {name: purpose for name, purpose in wanted.items() if importlib.util.find_spec(name) is None}
    findings = [
        Finding(
            _("package %(name)s") % {"name": name},
            Health.BAD,
            _("not installed; needed for %(purpose)s") % {"purpose": purpose},
            _("pip install -r requirements.txt"),
        )
        for name, purpose in missing.items()
    ]
    return findings or [Finding(_("packages"), Health.GOOD, _("everything that is needed is installed"))]


CHECKS: tuple[Callable[[], list[Finding]], ...] = (
    check_database,
    check_tables,
    check_broker,
    check_workers,
    check_backlog,
    check_storage,
    check_home,
    check_safety,
    check_plugins,
    check_endpoints,
    check_packages,
)
