"""Why an annotator is paused, stored as msgid and parameters instead of a finished English sentence."""

import labeling.models.fields
from django.db import migrations
from labeling.migrations._sentences import convert

# The sentences of earlier versions, as they stood when they were stored.
SENTENCES = (
    "paused by %(name)s",
    "its accuracy on known pairs fell from %(before)s (its first answers) to %(now)s (the last %(since)s answers)",
    "its accuracy on known pairs fell from %(before)s (its first queries) to %(now)s (the last %(since)s queries)",
    "%(right)s of %(answers)s answers to pairs whose answer is known were as expected (%(share)s); "
    "this project asks for %(expected)s",
)


def forwards(apps, schema_editor):
    convert(schema_editor, "labeling_annotator", "pause_reason", SENTENCES)


def backwards(apps, schema_editor):
    """Nothing: earlier versions show the JSON, which is still readable."""


class Migration(migrations.Migration):
    dependencies = [("labeling", "0011_audit_entry")]

    operations = [
        migrations.AlterField(
            "annotator", "pause_reason", labeling.models.fields.MessageField(blank=True, db_default="")
        ),
        migrations.RunPython(forwards, backwards),
    ]
