"""Gold rows of SpotCheck become gold answers, with the plans that made them: in batches, and safe to run again.

It lies here and not in `labeling` because the links of the plans move as well.
"""

from collections.abc import Callable
from typing import Any

from django.db import migrations

BATCH = 2_000

FORWARD = """
WITH batch AS (
    SELECT id, pair_id, gold_preference, explanation, created_at FROM labeling_spotcheck
    WHERE gold_preference IS NOT NULL ORDER BY id LIMIT %s FOR UPDATE
), moved AS (
    INSERT INTO labeling_goldanswer (pair_id, preference, explanation, created_at)
    SELECT pair_id, gold_preference, explanation, created_at FROM batch ORDER BY id
    ON CONFLICT (pair_id) DO UPDATE SET preference = excluded.preference, explanation = excluded.explanation
    RETURNING id, pair_id
), linked AS (
    INSERT INTO scoring_spotcheckplan_gold (spotcheckplan_id, goldanswer_id)
    SELECT link.spotcheckplan_id, moved.id FROM moved JOIN batch ON batch.pair_id = moved.pair_id
    JOIN scoring_spotcheckplan_checks link ON link.spotcheck_id = batch.id ORDER BY link.id
    ON CONFLICT DO NOTHING
), unlinked AS (
    DELETE FROM scoring_spotcheckplan_checks link USING batch WHERE link.spotcheck_id = batch.id
)
DELETE FROM labeling_spotcheck gold USING batch WHERE gold.id = batch.id
"""

BACKWARD = """
WITH batch AS (
    SELECT id, pair_id, preference, explanation, created_at FROM labeling_goldanswer ORDER BY id LIMIT %s FOR UPDATE
), moved AS (
    INSERT INTO labeling_spotcheck (pair_id, slot, reason, gold_preference, explanation, created_at)
    SELECT pair_id, NULL, 'gold', preference, explanation, created_at FROM batch ORDER BY id
    RETURNING id, pair_id
), linked AS (
    INSERT INTO scoring_spotcheckplan_checks (spotcheckplan_id, spotcheck_id)
    SELECT link.spotcheckplan_id, moved.id FROM moved JOIN batch ON batch.pair_id = moved.pair_id
    JOIN scoring_spotcheckplan_gold link ON link.goldanswer_id = batch.id ORDER BY link.id
), unlinked AS (
    DELETE FROM scoring_spotcheckplan_gold link USING batch WHERE link.goldanswer_id = batch.id
)
DELETE FROM labeling_goldanswer gold USING batch WHERE gold.id = batch.id
"""


def in_batches(statement: str) -> Callable[[Any, Any], None]:
    """Run the statement until it moves nothing; each batch is a transaction of its own."""

    def move(apps: Any, schema_editor: Any) -> None:
        with schema_editor.connection.cursor() as cursor:
            while True:
                cursor.execute(statement, [BATCH])
                if cursor.rowcount == 0:
                    return

    return move


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("scoring", "0004_gold_of_plans")]

    operations = [migrations.RunPython(in_batches(FORWARD), in_batches(BACKWARD))]
