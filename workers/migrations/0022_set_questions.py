"""A task may be a question about a set of documents."""

import django.contrib.postgres.fields
from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("workers", "0021_provider_batches")]

    operations = [
        migrations.AddField(
            "judgingtask",
            "documents",
            django.contrib.postgres.fields.ArrayField(
                base_field=models.BigIntegerField(), blank=True, null=True, size=None
            ),
        ),
        migrations.AddConstraint(
            "judgingtask",
            models.CheckConstraint(
                condition=Q(documents__isnull=True) | Q(documents__len__gte=3), name="judging_task_set_has_three"
            ),
        ),
    ]
