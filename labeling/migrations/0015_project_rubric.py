"""The rubric of a project: criteria for judges that set none of their own."""

from __future__ import annotations

from django.db import migrations, models
from django.db.models import Value


class Migration(migrations.Migration):
    dependencies = [("labeling", "0014_model_grade")]

    operations = [
        migrations.AddField(
            model_name="project",
            name="rubric",
            field=models.JSONField(blank=True, db_default=Value([], models.JSONField()), default=list),
        ),
    ]
