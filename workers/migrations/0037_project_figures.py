"""Stored figures of whole projects, and indexes of the few tasks and calls that failed."""

import django.db.models.deletion
from django.db import migrations, models

FAILURES = [
    "timeout", "unavailable", "rate_limited", "refusal", "unparseable", "label_mass", "context_overflow", "content_filter",
    "over_budget", "bad_request", "judge_error", "not_recorded",
]  # fmt: skip


class Migration(migrations.Migration):

    dependencies = [("labeling", "0022_keys_checked_at_once"), ("workers", "0036_labels_of_allocations")]

    operations = [
        migrations.CreateModel(
            name="ProjectFigure",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=40)),
                ("value", models.JSONField(blank=True, null=True)),
                ("measured_at", models.DateTimeField(blank=True, null=True)),
                ("took_ms", models.PositiveIntegerField(default=0)),
                ("wanted_at", models.DateTimeField(blank=True, null=True)),
                (
                    "project",
                    models.ForeignKey(
                        db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name="+", to="labeling.project"
                    ),
                ),
            ],
            options={
                "ordering": ["id"],
                "constraints": [models.UniqueConstraint(fields=("project", "name"), name="project_figure_once")],
            },
        ),
        migrations.AddIndex(
            model_name="judgingtask",
            index=models.Index(condition=models.Q(("reason", ""), _negated=True), fields=["run"], name="judging_task_failed"),
        ),
        migrations.AddIndex(
            model_name="attempt",
            index=models.Index(condition=models.Q(("outcome__in", FAILURES)), fields=["run", "id"], name="attempt_failed"),
        ),
    ]
