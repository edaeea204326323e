"""A plan of gold pairs names its gold answers."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("labeling", "0009_gold_answers_live_view"), ("scoring", "0003_plans_adjudications")]

    operations = [
        migrations.AddField(
            model_name="spotcheckplan",
            name="gold",
            field=models.ManyToManyField(related_name="plans", to="labeling.goldanswer"),
        ),
    ]
