"""Judgments of one call about a set of documents know their call and where their two documents stood in it."""

from django.db import migrations, models
from django.db.models import F, Q

COLUMNS = "id, pair_id, annotator_id, by_person, swapped, kind, preference, truncated, created_at"
CALL = ", call, call_size, place_a, place_b"
VIEW = "CREATE OR REPLACE VIEW labeling_live_judgment AS SELECT {} FROM labeling_judgment WHERE superseded_at IS NULL;"

# A view loses columns only by being made anew.
BACKWARD = f"DROP VIEW labeling_live_judgment; {VIEW.format(COLUMNS)}"


class Migration(migrations.Migration):
    dependencies = [("labeling", "0012_stored_sentences")]

    operations = [
        migrations.AddField("judgment", "call", models.BigIntegerField(blank=True, null=True)),
        migrations.AddField("judgment", "call_size", models.PositiveSmallIntegerField(blank=True, null=True)),
        migrations.AddField("judgment", "place_a", models.PositiveSmallIntegerField(blank=True, null=True)),
        migrations.AddField("judgment", "place_b", models.PositiveSmallIntegerField(blank=True, null=True)),
        migrations.AddConstraint(
            "judgment",
            models.CheckConstraint(
                condition=Q(call__isnull=True, call_size__isnull=True, place_a__isnull=True, place_b__isnull=True)
                | Q(call__isnull=False, call_size__gte=3, place_a__lt=F("call_size"), place_b__lt=F("call_size"))
                & ~Q(place_a=F("place_b")),
                name="judgment_places_fit_call",
            ),
        ),
        migrations.RunSQL(VIEW.format(COLUMNS + CALL), BACKWARD),
    ]
