"""Celery application: `celery -A zelo_site worker -Q rating`. Its messages are hints, see workers.broker.hints."""

from zelo_site.environment import prepare_environment

prepare_environment()

from celery import Celery  # noqa: E402

app = Celery("zelo", task_cls="workers.broker.expiry:HintTask")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["workers"])
