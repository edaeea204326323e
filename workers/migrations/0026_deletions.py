"""The spend of deleted runs, and jobs that delete: a project may have several unfinished ones."""

import django.db.models.deletion
from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("workers", "0025_not_recorded"), ("labeling", "0018_archived_projects_retired_judges")]
    operations = [
        migrations.CreateModel(
            "DeletedSpend",
            [
                (
                    "project",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="deleted_spend",
                        serialize=False,
                        to="labeling.project",
                    ),
                ),
                ("calls", models.PositiveBigIntegerField(default=0)),
                ("input_tokens", models.PositiveBigIntegerField(default=0)),
                ("output_tokens", models.PositiveBigIntegerField(default=0)),
                ("cost_micros", models.PositiveBigIntegerField(default=0)),
            ],
        ),
        migrations.RemoveConstraint("job", "job_unfinished_once_without_run"),
        migrations.AddConstraint(
            "job",
            models.UniqueConstraint(
                fields=["project", "stage"],
                condition=Q(state__in=["open", "leased"], run__isnull=True)
                & ~Q(stage__in=["probe", "trial", "teaching", "deletion"]),
                name="job_unfinished_once_without_run",
            ),
        ),
    ]
