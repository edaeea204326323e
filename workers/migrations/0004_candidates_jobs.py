"""At most one unfinished job of a stage for a project where no run stands behind it."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("labeling", "0003_judges_pause"),
        ("workers", "0003_probe_lease"),
    ]

    operations = [
        migrations.AddConstraint(
            model_name="job",
            constraint=models.UniqueConstraint(
                condition=models.Q(("run__isnull", True), ("state__in", ["open", "leased"])),
                fields=("project", "stage"),
                name="job_unfinished_once_without_run",
            ),
        ),
    ]
