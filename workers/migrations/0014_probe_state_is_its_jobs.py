"""State, lease and error of an injection probe are those of its job, which every probe has by now."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("workers", "0013_stored_sentences")]

    operations = [
        migrations.RemoveConstraint(model_name="injectionprobe", name="injection_probe_state"),
        migrations.RemoveField(model_name="injectionprobe", name="state"),
        migrations.RemoveField(model_name="injectionprobe", name="error"),
        migrations.RemoveField(model_name="injectionprobe", name="starts"),
        migrations.RemoveField(model_name="injectionprobe", name="lease_until"),
        migrations.RemoveField(model_name="injectionprobe", name="finished_at"),
        migrations.AlterField(
            model_name="injectionprobe",
            name="job",
            field=models.OneToOneField(
                on_delete=django.db.models.deletion.RESTRICT, related_name="probe", to="workers.job"
            ),
        ),
    ]
