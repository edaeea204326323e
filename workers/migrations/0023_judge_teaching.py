"""Teachings of judges."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("labeling", "0014_model_grade"),
        ("workers", "0022_set_questions"),
    ]

    operations = [
        migrations.CreateModel(
            name="JudgeTeaching",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("options", models.JSONField(default=dict)),
                ("held_out", models.JSONField(default=list)),
                ("rows", models.JSONField(default=list)),
                ("report", models.JSONField(default=dict)),
                ("calls", models.PositiveBigIntegerField(default=0)),
                ("input_tokens", models.PositiveBigIntegerField(default=0)),
                ("output_tokens", models.PositiveBigIntegerField(default=0)),
                ("cost_micros", models.PositiveBigIntegerField(default=0)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("annotator", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="teachings", to="labeling.annotator")),
                ("created_by", models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, to=settings.AUTH_USER_MODEL)),
                ("job", models.OneToOneField(on_delete=django.db.models.deletion.RESTRICT, related_name="teaching", to="workers.job")),
                ("project", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="teachings", to="labeling.project")),
                ("taught", models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name="taught_by", to="labeling.annotator")),
            ],
            options={"ordering": ["-id"]},
        ),
        migrations.RemoveConstraint("job", "job_unfinished_once_without_run"),
        migrations.AddConstraint(
            "job",
            models.UniqueConstraint(
                fields=["project", "stage"],
                condition=models.Q(("run__isnull", True), ("state__in", ["open", "leased"]), models.Q(("stage__in", ["probe", "trial", "teaching"]), _negated=True)),
                name="job_unfinished_once_without_run",
            ),
        ),
    ]
