"""Projects are archived before they are purged, and judges can be retired."""

from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("labeling", "0017_answers_from_files")]
    operations = [
        migrations.AddField("project", "archived_at", models.DateTimeField(blank=True, null=True)),
        migrations.AddField("annotator", "retired_at", models.DateTimeField(blank=True, null=True)),
        migrations.AddConstraint(
            "annotator",
            models.CheckConstraint(
                condition=Q(retired_at__isnull=True) | Q(paused_at__isnull=False, is_person=False),
                name="annotator_retired_is_paused_judge",
            ),
        ),
    ]
