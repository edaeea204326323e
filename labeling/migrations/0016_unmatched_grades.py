"""Grades of documents that are no candidates, and a hash of each document's text."""

import django.db.models.deletion
import django.db.models.functions.text
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("labeling", "0015_project_rubric")]

    operations = [
        migrations.AddField(
            model_name="document",
            name="text_hash",
            field=models.GeneratedField(
                db_persist=True,
                expression=django.db.models.functions.text.MD5(
                    models.Func(models.F("text"), models.Value(" \t\n\r\v\f"), function="btrim")
                ),
                output_field=models.CharField(max_length=32),
            ),
        ),
        migrations.CreateModel(
            name="UnmatchedGrade",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("query_external_id", models.CharField(max_length=500)),
                ("document_external_id", models.CharField(max_length=500)),
                ("grade", models.PositiveSmallIntegerField()),
                (
                    "project",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="unmatched_grades",
                        to="labeling.project",
                    ),
                ),
            ],
            options={"ordering": ["id"]},
        ),
        migrations.AddConstraint(
            model_name="unmatchedgrade",
            constraint=models.UniqueConstraint(
                fields=("project", "query_external_id", "document_external_id"), name="unmatched_grade_once"
            ),
        ),
    ]
