"""A probe under way has a lease, so that one whose worker died is begun afresh."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("workers", "0002_cascades_probes")]

    operations = [
        migrations.AddField(
            model_name="injectionprobe",
            name="starts",
            field=models.PositiveSmallIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="injectionprobe",
            name="lease_until",
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
