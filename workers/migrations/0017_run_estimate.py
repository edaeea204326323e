"""A run keeps the estimate with which it was ordered."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("workers", "0016_rate_limited")]
    operations = [
        migrations.AddField(
            model_name="run",
            name="estimate",
            field=models.JSONField(blank=True, db_default=models.Value({}, models.JSONField()), default=dict),
        ),
    ]
