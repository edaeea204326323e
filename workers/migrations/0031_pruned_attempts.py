"""Running totals keep what pruned calls have spent.

A transaction that sets `zelo.pruning` deletes calls without lowering the totals of their runs.
"""

from django.db import migrations

REMOVED = """
DROP TRIGGER workers_attempt_removed ON workers_attempt;
CREATE TRIGGER workers_attempt_removed AFTER DELETE ON workers_attempt
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT {when} EXECUTE FUNCTION workers_keep_books();
"""


class Migration(migrations.Migration):
    dependencies = [("workers", "0030_spend_by_endpoint")]

    operations = [
        migrations.RunSQL(
            REMOVED.format(when="WHEN (current_setting('zelo.pruning', true) IS DISTINCT FROM 'on')"),
            REMOVED.format(when=""),
        )
    ]
