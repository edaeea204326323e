"""Grades that single raters gave; the project's grade of a document is their lower median."""

from __future__ import annotations

from django.db import models

from labeling.models.judgments import Annotator
from labeling.models.projects import visible_through


class RaterGrade(models.Model):
    """One rater's grade of a document for a query, by the imported ids, so that it may come before the texts.

    `labeling.importing.answers.rater_grades` stores them and combines those of people into the project's grades.
    """

    annotator = models.ForeignKey(Annotator, on_delete=models.CASCADE, related_name="rater_grades", db_index=False)
    query_external_id = models.CharField(max_length=500)
    document_external_id = models.CharField(max_length=500)
    grade = models.PositiveSmallIntegerField()

    objects = visible_through("annotator__project").as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                fields=["annotator", "query_external_id", "document_external_id"], name="rater_grade_once"
            )
        ]
        indexes = [
            models.Index(fields=["query_external_id", "document_external_id"], name="rater_grade_of_document"),
        ]
