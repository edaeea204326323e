"""An endpoint's count of 429 answers is named for what it counts."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("workers", "0015_plain_labels")]
    operations = [
        migrations.RenameField(model_name="endpointstate", old_name="turned_away", new_name="rate_limited"),
    ]
