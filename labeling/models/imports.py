"""Models of past imports and of the rows that were left out."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from labeling.models.projects import Project, visible_through


class DatasetImport(models.Model):
    """One stored import. `left_out_rows`: gzipped JSON lines of the rows that were left out, empty where there are none.

    `left_out` counts them all; `labeling.importing.reports` keeps the first rows alone of a very bad file.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="imports")
    file = models.CharField(max_length=200)
    importer = models.CharField(max_length=80)
    summary = models.TextField()
    left_out = models.PositiveIntegerField(default=0)
    left_out_rows = models.BinaryField(default=b"")
    imported_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)
    created_at = models.DateTimeField(db_default=Now())

    objects = visible_through("project").as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(left_out=0, left_out_rows=b"") | (Q(left_out__gt=0) & ~Q(left_out_rows=b"")),
                name="import_left_out_has_rows",
            ),
        ]
