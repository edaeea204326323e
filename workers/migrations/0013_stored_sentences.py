"""Why runs ended and what jobs did, stored as msgid and parameters instead of finished English sentences."""

import labeling.models.fields
from django.db import migrations
from labeling.migrations._sentences import convert

# The sentences of earlier versions, as they stood when they were stored.
SENTENCES = (
    "the design is complete",
    "the budget of %(n)s pairs is spent",
    "the budget of %(n)s calls is spent",
    "the budget of %(n)s tokens is spent",
    "the budget of $%(n)s is spent",
    "the project's cap of %(n)s calls is spent",
    "the project's cap of %(n)s tokens is spent",
    "the project's cap of $%(n)s is spent",
    "%(added)s questions in round %(round)s",
    "%(added)s candidates retrieved",
    "%(added)s candidates retrieved; %(left)s queries found none in the project's documents",
    "%(added)s candidates retrieved, %(ranked)s ranked; %(left)s queries found none in the project's documents",
    "%(added)s candidates retrieved, %(ranked)s ranked",
    "reranker '%(name)s' published",
    "published before",
)
def forwards(apps, schema_editor):
    convert(schema_editor, "workers_run", "reason", SENTENCES)
    convert(schema_editor, "workers_job", "message", SENTENCES)


def backwards(apps, schema_editor):
    """Nothing: earlier versions show the JSON, which is still readable."""


class Migration(migrations.Migration):
    dependencies = [("workers", "0012_audit_entry_moves")]

    operations = [
        migrations.AlterField("job", "message", labeling.models.fields.MessageField(blank=True)),
        migrations.AlterField("run", "reason", labeling.models.fields.MessageField(blank=True)),
        migrations.RunPython(forwards, backwards),
    ]
