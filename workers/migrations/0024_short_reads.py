"""How often the results of a completed batch were read and found short."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("workers", "0023_judge_teaching")]

    operations = [
        migrations.AddField(
            model_name="providerbatch",
            name="short_reads",
            field=models.PositiveIntegerField(db_default=0, default=0),
        ),
    ]
