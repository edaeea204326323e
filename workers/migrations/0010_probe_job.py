"""An injection probe gets a job; a project may have several unfinished jobs of that stage, one a judge."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("workers", "0009_worker_gpus")]

    operations = [
        migrations.AddField(
            model_name="injectionprobe",
            name="job",
            field=models.OneToOneField(
                null=True,
                on_delete=django.db.models.deletion.RESTRICT,
                related_name="probe",
                to="workers.job",
            ),
        ),
        migrations.RemoveConstraint(model_name="job", name="job_unfinished_once_without_run"),
        migrations.AddConstraint(
            model_name="job",
            constraint=models.UniqueConstraint(
                condition=models.Q(("run__isnull", True), ("state__in", ["open", "leased"]))
                & ~models.Q(("stage", "probe")),
                fields=("project", "stage"),
                name="job_unfinished_once_without_run",
            ),
        ),
    ]
