"""SpotCheck loses the columns of gold, and each of its constraints says one thing.

Desk becomes ScreenState and Told becomes SeenAnswers, in the state alone: their tables keep their names.
"""

import django.db.models.deletion
from django.db import migrations, models

Q = models.Q


class Migration(migrations.Migration):
    dependencies = [("labeling", "0009_gold_answers_live_view"), ("scoring", "0005_gold_rows_move")]

    operations = [
        migrations.RemoveIndex(model_name="spotcheck", name="spot_check_open"),
        migrations.RemoveIndex(model_name="spotcheck", name="spot_check_gold"),
        *(
            migrations.RemoveConstraint(model_name="spotcheck", name=f"spot_check_{name}")
            for name in (
                "slot_once",
                "gold_once_a_pair",
                "two_before_a_person",
                "lease_has_place",
                "unnumbered_is_somebodys",
                "gold_in_range",
                "gold_is_not_asked_itself",
                "seconds_in_range",
            )
        ),
        migrations.RemoveField(model_name="spotcheck", name="gold_preference"),
        migrations.RemoveField(model_name="spotcheck", name="explanation"),
        migrations.AddIndex(
            model_name="spotcheck",
            index=models.Index(
                condition=Q(("judgment__isnull", True), ("slot__isnull", False)),
                fields=["project", "-priority", "id"],
                name="spot_check_open",
            ),
        ),
        *(
            migrations.AddConstraint(model_name="spotcheck", constraint=constraint)
            for constraint in (
                models.UniqueConstraint(fields=("pair", "slot"), name="spot_check_slot_once_a_pair"),
                models.UniqueConstraint(
                    condition=Q(("place__isnull", False)),
                    fields=("holder", "place"),
                    name="spot_check_place_once_a_person",
                ),
                models.CheckConstraint(
                    condition=Q(("slot__isnull", False), ("holder__isnull", False), _connector="OR"),
                    name="spot_check_private_slot_has_holder",
                ),
                models.CheckConstraint(
                    condition=Q(
                        Q(("lease_until__isnull", True), ("place__isnull", True)),
                        Q(("lease_until__isnull", False), ("place__isnull", False)),
                        _connector="OR",
                    ),
                    name="spot_check_lease_has_place",
                ),
                models.CheckConstraint(
                    condition=Q(("place__isnull", True), ("place__in", [1, 2]), _connector="OR"),
                    name="spot_check_place_is_1_or_2",
                ),
                models.CheckConstraint(
                    condition=Q(("judgment__isnull", True), ("lease_until__isnull", True), _connector="OR"),
                    name="spot_check_answer_ends_lease",
                ),
                models.CheckConstraint(
                    condition=Q(
                        ("seconds__isnull", True), Q(("seconds__gte", 0.0), ("seconds__lte", 86400.0)), _connector="OR"
                    ),
                    name="spot_check_seconds_within_a_day",
                ),
            )
        ),
        migrations.AlterModelTable(name="desk", table="labeling_desk"),
        migrations.AlterModelTable(name="told", table="labeling_told"),
        migrations.RenameModel(old_name="Desk", new_name="ScreenState"),
        migrations.RenameModel(old_name="Told", new_name="SeenAnswers"),
        migrations.AlterField(
            model_name="screenstate",
            name="person",
            field=models.OneToOneField(
                on_delete=django.db.models.deletion.CASCADE,
                primary_key=True,
                related_name="screen_state",
                serialize=False,
                to="labeling.annotator",
            ),
        ),
        migrations.AlterField(
            model_name="seenanswers",
            name="judgment",
            field=models.OneToOneField(
                on_delete=django.db.models.deletion.CASCADE,
                primary_key=True,
                related_name="seen_answers",
                serialize=False,
                to="labeling.judgment",
            ),
        ),
    ]
