"""How strongly the preferences of one call about a set are correlated, for each judge that was asked about sets."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("scoring", "0005_gold_rows_move"), ("labeling", "0013_judgment_calls")]

    operations = [
        migrations.AddField("judgefit", "call_correlation", models.FloatField(blank=True, null=True)),
        migrations.AddField("judgefit", "call_correlation_stderr", models.FloatField(blank=True, null=True)),
        migrations.AddField("judgefit", "calls", models.PositiveIntegerField(db_default=0, default=0)),
    ]
