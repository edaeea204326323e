"""Heartbeats tell of GPUs."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('workers', '0008_upkeep'),
    ]

    operations = [
        migrations.AddField(
            model_name='worker',
            name='gpus',
            field=models.JSONField(db_default=[], default=list),
        ),
    ]
