"""Heartbeats of workers, written and read by `workers.monitoring.heartbeats`."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now


class Worker(models.Model):
    """The heartbeat of one process, by the database's clock. `gpus`: `workers.monitoring.gpus.Gpu` as plain values."""

    name = models.CharField(max_length=200, primary_key=True)
    queues = models.CharField(max_length=200)
    host = models.CharField(max_length=200)
    pid = models.PositiveIntegerField()
    gpus = models.JSONField(default=list, db_default=[])
    started_at = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(db_default=Now())

    @property
    def label(self) -> str:
        """The name without the host."""
        return self.name.partition("@")[0]
