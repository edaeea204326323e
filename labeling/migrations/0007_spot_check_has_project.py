"""Every spot check has a project, now that the trigger has filled it in."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("labeling", "0006_spot_check_project")]

    operations = [
        migrations.AlterField(
            model_name="spotcheck",
            name="project",
            field=models.ForeignKey(
                editable=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="spot_checks",
                to="labeling.project",
            ),
        )
    ]
