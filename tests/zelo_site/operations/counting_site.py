"""A site of two pages behind django-prometheus, with the product's hooks of gunicorn: for tests of several web processes."""

from __future__ import annotations

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from zelo_site.processes.gunicorn import on_exit as on_exit  # hooks of this site too
from zelo_site.processes.gunicorn import on_starting as on_starting


def process(request: HttpRequest) -> HttpResponse:
    """The id of the process that answers."""
    return HttpResponse(str(os.getpid()))


def counted(request: HttpRequest) -> HttpResponse:
    from zelo_site.operations.web_metrics import web_metrics

    return HttpResponse(web_metrics(), headers={"X-Folder": os.environ["PROMETHEUS_MULTIPROC_DIR"]})


urlpatterns = [path("process", process, name="process"), path("counted", counted)]


def application() -> object:
    """The WSGI application; gunicorn calls this in each worker process."""
    settings.configure(
        ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="of a test",
        MIDDLEWARE=[f"django_prometheus.middleware.Prometheus{each}Middleware" for each in ("Before", "After")],
    )  # fmt: skip
    return get_wsgi_application()
