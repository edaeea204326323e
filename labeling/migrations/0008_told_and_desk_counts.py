"""What people were told after an answer, how far each desk is, and an index of what is a person's own."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("labeling", "0007_spot_check_has_project")]

    operations = [
        migrations.CreateModel(
            name="Told",
            fields=[
                (
                    "judgment",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="told",
                        serialize=False,
                        to="labeling.judgment",
                    ),
                )
            ],
        ),
        migrations.AddField(
            model_name="desk", name="answers", field=models.PositiveIntegerField(blank=True, null=True)
        ),
        migrations.AddField(
            model_name="desk", name="passed", field=models.PositiveBigIntegerField(db_default=0, default=0)
        ),
        migrations.AddIndex(
            model_name="spotcheck",
            index=models.Index(condition=models.Q(("slot__isnull", True)), fields=["holder"], name="spot_check_own"),
        ),
        # Responses from before hold whole texts, and cannot be told again in the new form.
        migrations.RunSQL("DELETE FROM labeling_submission", migrations.RunSQL.noop),
    ]
