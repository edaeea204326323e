"""The audit log comes down from `workers` with its table, keeps names of projects, and refuses changes.

The table stays where it is; only the state and the content type move. The trigger lets the database clear the
references to a deleted project or user, and nothing else. TRUNCATE is not refused: it needs the owner of the table,
who could drop the trigger as well, and the tests flush with it.
"""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import labeling.models.audit

GUARD = """
UPDATE workers_auditentry entry SET project_name = project.name
FROM labeling_project project WHERE project.id = entry.project_id;

CREATE FUNCTION audit_entry_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE'
        AND (NEW.project_id IS NULL OR NEW.project_id IS NOT DISTINCT FROM OLD.project_id)
        AND (NEW.actor_id IS NULL OR NEW.actor_id IS NOT DISTINCT FROM OLD.actor_id)
        AND to_jsonb(NEW) - 'project_id' - 'actor_id' = to_jsonb(OLD) - 'project_id' - 'actor_id'
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'an entry of the audit log cannot be changed or deleted'
        USING ERRCODE = 'restrict_violation', HINT = 'Write another entry that corrects it.';
END $$;
CREATE TRIGGER audit_entry_stays BEFORE UPDATE OR DELETE ON workers_auditentry
    FOR EACH ROW EXECUTE FUNCTION audit_entry_stays();
"""

UNGUARD = """
DROP TRIGGER audit_entry_stays ON workers_auditentry;
DROP FUNCTION audit_entry_stays();
"""


def _move_content_type(apps, before, after):
    types = apps.get_model("contenttypes", "ContentType").objects
    if not types.filter(app_label=after, model="auditentry").exists():
        types.filter(app_label=before, model="auditentry").update(app_label=after)


def forward(apps, schema_editor):
    _move_content_type(apps, "workers", "labeling")


def backward(apps, schema_editor):
    _move_content_type(apps, "labeling", "workers")


class Migration(migrations.Migration):
    dependencies = [
        ("labeling", "0010_gold_columns_go_screen_names"),
        ("workers", "0009_worker_gpus"),
        ("contenttypes", "0002_remove_content_type_name"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.CreateModel(
                    name="AuditEntry",
                    fields=[
                        ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                        ("actor_name", models.CharField(blank=True, max_length=150)),
                        ("action", models.CharField(max_length=60)),
                        ("subject", models.CharField(blank=True, max_length=200)),
                        ("details", models.JSONField(blank=True, default=dict)),
                        ("at", models.DateTimeField(db_default=labeling.models.audit.ClockTimestamp())),
                        ("actor", models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, to=settings.AUTH_USER_MODEL)),
                        ("project", models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name="audit", to="labeling.project")),
                    ],
                    options={
                        "db_table": "workers_auditentry",
                        "verbose_name_plural": "audit entries",
                        "ordering": ["-id"],
                        "indexes": [models.Index(fields=["project", "-id"], name="audit_by_project")],
                    },
                )
            ]
        ),
        migrations.AddField(
            model_name="auditentry",
            name="project_name",
            field=models.CharField(blank=True, db_default="", default="", max_length=200),
        ),
        migrations.RunPython(forward, backward),
        migrations.RunSQL(GUARD, UNGUARD),
    ]
