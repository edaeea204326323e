"""Queries, documents and candidates."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Func, Q, Value
from django.db.models.functions import MD5

from labeling.models.projects import Project, visible_through


class Query(models.Model):
    """A query. The transaction that stores judgments of the query raises `judged_version`.

    An excluded query keeps its data and its pages; runs, spot checks and snapshots leave it out (`labeling.projects`).
    """

    # Without an index of its own: `query_external_id` begins with the project. The planner would prefer it to that one.
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="queries", db_index=False)
    external_id = models.CharField(max_length=500)
    text = models.TextField()
    domain = models.CharField(max_length=100, blank=True)
    metadata = models.JSONField(default=dict, blank=True)
    judged_version = models.BigIntegerField(default=0)
    excluded_at = models.DateTimeField(null=True, blank=True)

    objects = visible_through("project").as_manager()

    class Meta:
        verbose_name_plural = "queries"
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["project", "external_id"], name="query_external_id")]

    def __str__(self) -> str:
        return self.text


class Document(models.Model):
    # Without an index of its own: `document_external_id` begins with the project.
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="documents", db_index=False)
    external_id = models.CharField(max_length=500)
    text = models.TextField()
    metadata = models.JSONField(default=dict, blank=True)
    # Equal for texts that differ only in the blanks around them. A stored column, so that fits read no texts.
    text_hash = models.GeneratedField(
        expression=MD5(Func(F("text"), Value(" \t\n\r\v\f"), function="btrim")),
        output_field=models.CharField(max_length=32),
        db_persist=True,
    )

    objects = visible_through("project").as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["project", "external_id"], name="document_external_id")]

    def __str__(self) -> str:
        return self.external_id


class Candidate(models.Model):
    """A (query, document) pair, which gets a score. A grade comes from a person, never from a judge.

    A trigger keeps a candidate in its query, because `Pair.query` repeats it.
    """

    # Checked once a statement (`0022_keys_checked_at_once`). Without an index of its own: `candidate_once` begins with the query.
    query = models.ForeignKey(
        Query, on_delete=models.CASCADE, related_name="candidates", db_index=False, db_constraint=False
    )
    document = models.ForeignKey(Document, on_delete=models.CASCADE, related_name="candidates", db_constraint=False)
    first_stage_rank = models.PositiveIntegerField(null=True, blank=True)
    first_stage_score = models.FloatField(null=True, blank=True)
    grade = models.PositiveSmallIntegerField(null=True, blank=True)

    objects = visible_through("query__project").as_manager()

    class Meta:
        ordering = ["id"]
        # Few candidates have a grade in most projects.
        indexes = [models.Index(fields=["query"], condition=Q(grade__isnull=False), name="candidate_graded")]
        constraints = [
            models.UniqueConstraint(fields=["query", "document"], name="candidate_once"),
            models.CheckConstraint(
                condition=Q(first_stage_rank__isnull=True) | Q(first_stage_rank__gte=1), name="candidate_rank_from_1"
            ),
        ]


class UnmatchedGrade(models.Model):
    """A person's grade of a document that is no candidate of the query (yet), by the imported ids.

    It counts as relevant and not retrieved. `labeling.importing.unmatched_grades` moves it to the candidate once there is one.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="unmatched_grades", db_index=False)
    query_external_id = models.CharField(max_length=500)
    document_external_id = models.CharField(max_length=500)
    grade = models.PositiveSmallIntegerField()

    objects = visible_through("project").as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                fields=["project", "query_external_id", "document_external_id"], name="unmatched_grade_once"
            )
        ]


class ProjectCount(models.Model):
    """The numbers of a project's queries, documents and candidates, spread over some rows (`shard`): their sums count.

    Triggers keep them (`0023_project_counts`), because counting the rows of a large project takes long.
    """

    project = models.ForeignKey(
        Project, on_delete=models.CASCADE, related_name="counts", db_constraint=False, db_index=False
    )
    shard = models.SmallIntegerField()
    queries = models.BigIntegerField(default=0)
    documents = models.BigIntegerField(default=0)
    candidates = models.BigIntegerField(default=0)

    objects = visible_through("project").as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "shard"], name="project_count_once")]
