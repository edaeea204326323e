"""What workers have learned about the parameters that the models of an endpoint accept."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [("workers", "0017_run_estimate")]

    operations = [
        migrations.AddField(
            model_name="endpointstate",
            name="learned",
            field=models.JSONField(blank=True, db_default={}, default=dict),
        ),
    ]
