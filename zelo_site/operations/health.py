"""GET /healthz and /readyz, for load balancers and supervisors; both need no key, no TLS and no host name, and name no address.

`/healthz`: this web process answers. `/readyz`: it can do its work, that is, the database answers and its tables are
current. A missing broker or worker does not make it unready: pages work and no work is lost; `/metrics` and
`manage.py doctor` report it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError, connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import resolve
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from workers.broker.client import broker_answers

PATHS = frozenset({"/healthz", "/readyz", "/health"})


class HealthMiddleware:
    """Answers health checks before the host's name is checked: who sends them knows an address and a port, not ZELO_HOSTS."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path_info not in PATHS:
            return self.get_response(request)
        request.resolver_match = resolve(request.path_info)
        found: HttpResponse = request.resolver_match.func(request)
        return found


@login_not_required
@never_cache
@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """200 while this process answers; it reads nothing."""
    return JsonResponse({"status": "ok"})


@login_not_required
@never_cache
@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """200 if the database answers and its tables are current, else 503 with the check that failed."""
    checks = {"database": _database_state(), "broker": "ok" if broker_answers() else "no answer; judging is paused"}
    ready = checks["database"] == "ok"
    return JsonResponse({"status": "ok" if ready else "not ready", "checks": checks}, status=200 if ready else 503)


@functools.cache
def _needed_migrations() -> frozenset[tuple[str, str]]:
    """The program's own migrations; to read them takes longer than the rest of a check, and anybody may ask for one."""
    return frozenset(MigrationLoader(None).graph.nodes)


def _database_state() -> str:
    try:
        missing = _needed_migrations() - set(MigrationRecorder(connection).applied_migrations())
    except DatabaseError:
        return "no answer"
    return f"{len(missing)} migrations not applied; run `manage.py migrate`" if missing else "ok"
