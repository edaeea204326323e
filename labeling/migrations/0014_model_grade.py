"""Grades that models gave, apart from those of people."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("labeling", "0013_judgment_calls")]

    operations = [
        migrations.CreateModel(
            name="ModelGrade",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("value", models.FloatField()),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "annotator",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="model_grades",
                        to="labeling.annotator",
                    ),
                ),
                (
                    "candidate",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="model_grades", to="labeling.candidate"
                    ),
                ),
            ],
            options={"ordering": ["id"]},
        ),
        migrations.AddConstraint(
            model_name="modelgrade",
            constraint=models.UniqueConstraint(fields=("annotator", "candidate"), name="model_grade_once"),
        ),
        migrations.AddConstraint(
            model_name="modelgrade",
            constraint=models.CheckConstraint(
                condition=models.Q(("value__gte", 0.0), ("value__lte", 1.0)), name="model_grade_is_share"
            ),
        ),
    ]
