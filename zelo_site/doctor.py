"""Health checks of the installation, each with a remedy; the terminal and the page share them.

Every check is a function that returns findings; an exception in a check becomes a finding.
No finding contains a password, a key or an address with one.
"""

from __future__ import annotations

import enum
import importlib.util
import os
import shutil
import stat
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
from workers.broker.client import broker_answers
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
    """The result of one check; `remedy` says how to fix it unless `health` is GOOD."""

    name: str
    health: Health
    detail: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Return the findings of all checks; a failure often explains the failures after it."""
    return [finding for check in CHECKS for finding in _guarded(check)]


def _guarded(check: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return check()
    except Exception as error:  # one broken check must not hide the others
        name = check.__name__.removeprefix("check_").replace("_", " ")
        return [
            Finding(
                name,
                Health.BAD,
                _("the check failed: %(error)s") % {"error": type(error).__name__},
                _("see the server log"),
            )
        ]


def check_database() -> list[Finding]:
    remedy = _("start the server with `make up`, or set DATABASE_URL to a running PostgreSQL")
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
    where = _("from DATABASE_URL") if os.environ.get("DATABASE_URL") else _("embedded")
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
        where = _("from BROKER_URL") if os.environ.get("BROKER_URL") else _("embedded")
        return [Finding(_("broker"), Health.GOOD, _("connected, %(where)s") % {"where": where})]
    remedy = _("start the server with `make up`, or set BROKER_URL to a running Valkey or Redis")
    return [
        Finding(
            _("broker"), Health.BAD, _("does not answer; judging is paused until it does, and no work is lost"), remedy
        )
    ]


def check_workers() -> list[Finding]:
    living = list(alive())
    findings = []
    for queue, task in (
        ("rating", _("scores are not updated")),
        ("judging-cpu", _("local judges do not run")),
        ("judging-gpu", _("local language models do not run")),
        ("judging-http", _("HTTP judges do not run")),
        ("training", _("rerankers are not trained")),
    ):
        serving = [worker.name for worker in living if queue in worker.queues.split(",")]
        name = _("workers, %(queue)s") % {"queue": queue}
        if serving:
            findings.append(Finding(name, Health.GOOD, ", ".join(serving)))
        else:
            remedy = _("run `python manage.py worker %(queue)s`, or start everything with `make up`") % {"queue": queue}
            findings.append(Finding(name, Health.BAD, _("none running; %(task)s") % {"task": task}, remedy))
    return findings


def check_backlog() -> list[Finding]:
    stale = len(stale_project_ids())
    if stale:
        detail = ngettext(
            "%(n)s project has answers that its scores do not include yet",
            "%(n)s projects have answers that their scores do not include yet",
            stale,
        ) % {"n": stale}
        return [
            Finding(_("scores"), Health.NOTE, detail, _("start a rating worker, or run `python manage.py reconcile`"))
        ]
    return [Finding(_("scores"), Health.GOOD, _("scores include every stored answer"))]


def check_storage() -> list[Finding]:
    remedy = _("set STORAGE_URL to a folder or bucket that the server can write to")
    try:
        files, root = fsspec.core.url_to_fs(settings.STORAGE_URL)
        files.makedirs(root, exist_ok=True)
        probe = f"{root.rstrip('/')}/.doctor-{uuid.uuid4().hex}"
        with files.open(probe, "wb") as stream:
            stream.write(b"zelo")
        files.rm(probe)
    except Exception as error:  # each storage backend raises its own errors
        return [
            Finding(
                _("storage"),
                Health.BAD,
                _("not writable (%(error)s)") % {"error": type(error).__name__},
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
                _("%(folder)s is not a writable folder") % {"folder": home},
                _("create the folder, or set ZELO_HOME to another one"),
            )
        ]
    free = shutil.disk_usage(home).free
    if free < LEAST_FREE_BYTES:
        detail = _("%(size)s GiB free in %(folder)s") % {"size": decimals(free / 1024**3, 1), "folder": home}
        return [
            Finding(_("home"), Health.NOTE, detail, _("free some disk space; the database stops when the disk is full"))
        ]
    return [
        Finding(
            _("home"),
            Health.GOOD,
            _("%(folder)s, %(size)s GiB free") % {"folder": home, "size": decimals(free / 1024**3, 0)},
        )
    ]


def check_files() -> list[Finding]:
    """Return what other users of this host can read or enter; root's home may be passed through, not listed."""
    home = Path(settings.ZELO_HOME)
    open_paths = [path for path in _private_paths(home) if _is_open(path, passing=path == home)]
    if not open_paths:
        return [Finding(_("files"), Health.GOOD, _("other users of this host cannot read them"))]
    detail = _("other users of this host can read %(paths)s") % {"paths": ", ".join(map(str, open_paths[:5]))}
    remedy = _("run `chmod -R go= %(folder)s`; under root, then `chmod 711 %(folder)s`") % {"folder": home}
    return [Finding(_("files"), Health.BAD, detail, remedy)]


def _private_paths(home: Path) -> list[Path]:
    """Return the home, what lies directly in it, and the storage if it is a local folder."""
    paths = [home, *(sorted(home.iterdir()) if home.is_dir() else [])]
    kind, _separator, place = settings.STORAGE_URL.partition("://")
    return [*paths, Path(place)] if kind == "file" and Path(place).parent != home else paths


def _is_open(path: Path, *, passing: bool) -> bool:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISLNK(mode) or stat.S_ISSOCK(mode):
        return False
    return bool(mode & (0o066 if passing and os.geteuid() == 0 else 0o077))


def check_safety() -> list[Finding]:
    findings = []
    if settings.DEBUG:
        findings.append(
            Finding(
                _("debug"),
                Health.BAD,
                _("the browser shows tracebacks"),
                _("unset ZELO_DEBUG on a shared server"),
            )
        )
    if not settings.HTTPS and any(host not in {"localhost", "127.0.0.1", "[::1]"} for host in settings.ALLOWED_HOSTS):
        detail = _("other hosts can reach the server without TLS")
        findings.append(
            Finding(
                _("encryption"), Health.NOTE, detail, _("put a TLS proxy in front of the server and set ZELO_HTTPS=1")
            )
        )
    owners = get_user_model().objects.filter(is_superuser=True, is_active=True)
    if not owners.exists():
        findings.append(
            Finding(_("owner"), Health.NOTE, _("the server has no owner yet"), _("run `python manage.py link`"))
        )
    return findings or [Finding(_("safety"), Health.GOOD, _("debug pages off, hosts restricted, owner set"))]


def check_plugins() -> list[Finding]:
    modules = load_plugins(enabled=settings.ZELO_PLUGINS)
    broken = [
        Finding(
            _("plugin %(name)s") % {"name": module.name},
            Health.BAD,
            module.error,
            _("fix or uninstall %(module)s") % {"module": module.module},
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
            Finding(
                _("endpoints"),
                Health.BAD,
                problem,
                _("fix ZELO_ENDPOINTS and restart the server, or change the endpoint on the page Endpoints"),
            )
            for problem in problems
        ]
    names = sorted(load_endpoints())
    if not names:
        detail = _("no endpoints are defined; judges that need no network work without them")
        return [Finding(_("endpoints"), Health.GOOD, detail)]
    return [Finding(_("endpoints"), Health.GOOD, ", ".join(names))]


def check_packages() -> list[Finding]:
    wanted = {
        "torch": _("local models and training"),
        "sentence_transformers": _("the embedding judge and dense retrieval"),
        "numba": _("fast rating"),
        "cryptography": _("the keys of stored endpoints"),
    }
    missing = {name: purpose for name, purpose in wanted.items() if importlib.util.find_spec(name) is None}
    findings = [
        Finding(
            _("package %(name)s") % {"name": name},
            Health.BAD,
            _("not installed; required for %(purpose)s") % {"purpose": purpose},
            _("pip install -r requirements.txt"),
        )
        for name, purpose in missing.items()
    ]
    return findings or [Finding(_("packages"), Health.GOOD, _("all required packages are installed"))]


CHECKS: tuple[Callable[[], list[Finding]], ...] = (
    check_database,
    check_tables,
    check_broker,
    check_workers,
    check_backlog,
    check_storage,
    check_home,
    check_files,
    check_safety,
    check_plugins,
    check_endpoints,
    check_packages,
)
