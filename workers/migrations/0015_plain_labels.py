"""Labels of states in plain English; no column changes."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("workers", "0014_probe_state_is_its_jobs")]

    operations = [
        migrations.AlterField(
            model_name="endpointstate",
            name="mode",
            field=models.CharField(
                choices=[
                    ("closed", "working"),
                    ("paused", "rate limited (429)"),
                    ("open", "not answering"),
                    ("half_open", "testing with one call"),
                ],
                default="closed",
                max_length=10,
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="state",
            field=models.CharField(
                choices=[
                    ("open", "open"),
                    ("leased", "running"),
                    ("finished", "finished"),
                    ("failed", "failed"),
                    ("cancelled", "cancelled"),
                ],
                default="open",
                max_length=20,
            ),
        ),
    ]
