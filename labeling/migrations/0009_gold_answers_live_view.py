"""Gold answers get a table of their own, and live judgments a view.

One trigger function sets the project of each row that belongs to a pair. The view names its columns, so that a new
column of the table leaves it as it is; PostgreSQL inlines it and uses the partial indexes of the table.
"""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

FORWARD = """
ALTER FUNCTION labeling_spotcheck_project() RENAME TO labeling_project_of_pair;
CREATE TRIGGER gold_answer_project BEFORE INSERT OR UPDATE OF pair_id, project_id ON labeling_goldanswer
    FOR EACH ROW EXECUTE FUNCTION labeling_project_of_pair();
CREATE VIEW labeling_live_judgment AS
    SELECT id, pair_id, annotator_id, by_person, swapped, kind, preference, truncated, created_at
    FROM labeling_judgment WHERE superseded_at IS NULL;
"""

BACKWARD = """
DROP VIEW labeling_live_judgment;
DROP TRIGGER gold_answer_project ON labeling_goldanswer;
ALTER FUNCTION labeling_project_of_pair() RENAME TO labeling_spotcheck_project;
"""


class Migration(migrations.Migration):
    dependencies = [("labeling", "0008_told_and_desk_counts")]

    operations = [
        migrations.CreateModel(
            name="GoldAnswer",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("preference", models.FloatField()),
                ("explanation", models.TextField(blank=True, db_default="", default="")),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "pair",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE, related_name="gold_answer", to="labeling.pair"
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        editable=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="gold_pairs",
                        to="labeling.project",
                    ),
                ),
            ],
            options={"ordering": ["id"]},
        ),
        migrations.AddConstraint(
            model_name="goldanswer",
            constraint=models.CheckConstraint(
                condition=models.Q(("preference__gte", 0.0), ("preference__lte", 1.0)), name="gold_answer_in_range"
            ),
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
