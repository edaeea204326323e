"""Webhooks, and the triggers that store a delivery in the transaction in which a run, training or evaluation ends."""

import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models
from django.db.models import Q

EVENTS = [
    ("run.finished", "run finished"),
    ("training.finished", "training finished"),
    ("evaluation.finished", "evaluation finished"),
]
STATES = [("open", "waiting"), ("leased", "being sent"), ("delivered", "delivered"), ("failed", "failed")]

# Triggers see every way in which work can end; the arguments are the event and the stage of a job.
ADD_DELIVERIES = """
CREATE FUNCTION workers_add_deliveries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO workers_webhookdelivery (webhook_id, event, subject_id, outcome)
    SELECT id, TG_ARGV[0], NEW.id, NEW.state FROM workers_webhook
    WHERE project_id = NEW.project_id AND is_active AND TG_ARGV[0] = ANY(events);
    RETURN NULL;
END $$;
CREATE TRIGGER workers_run_ended AFTER UPDATE OF state ON workers_run FOR EACH ROW
    WHEN (NEW.state IN ('finished', 'failed', 'cancelled') AND OLD.state IS DISTINCT FROM NEW.state)
    EXECUTE FUNCTION workers_add_deliveries('run.finished');
CREATE TRIGGER workers_training_ended AFTER UPDATE OF state ON trainer_trainingrun FOR EACH ROW
    WHEN (NEW.state IN ('finished', 'held_back', 'failed', 'cancelled') AND OLD.state IS DISTINCT FROM NEW.state)
    EXECUTE FUNCTION workers_add_deliveries('training.finished');
CREATE TRIGGER workers_evaluation_ended AFTER UPDATE OF state ON workers_job FOR EACH ROW
    WHEN (NEW.stage = 'evaluate' AND NEW.state IN ('finished', 'failed', 'cancelled')
          AND OLD.state IS DISTINCT FROM NEW.state)
    EXECUTE FUNCTION workers_add_deliveries('evaluation.finished');
"""
REMOVE = """
DROP TRIGGER workers_run_ended ON workers_run;
DROP TRIGGER workers_training_ended ON trainer_trainingrun;
DROP TRIGGER workers_evaluation_ended ON workers_job;
DROP FUNCTION workers_add_deliveries();
"""


class Migration(migrations.Migration):
    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("labeling", "0018_archived_projects_retired_judges"),
        ("trainer", "0003_held_back_students"),
        ("workers", "0026_deletions"),
    ]
    operations = [
        migrations.CreateModel(
            "Webhook",
            [
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("url", models.TextField()),
                (
                    "events",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(choices=EVENTS, max_length=40), size=None
                    ),
                ),
                ("secret", models.TextField(blank=True)),
                ("is_active", models.BooleanField(default=True)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "created_by",
                    models.ForeignKey(
                        blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, to=settings.AUTH_USER_MODEL
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="webhooks", to="labeling.project"
                    ),
                ),
            ],
            options={
                "ordering": ["id"],
                "constraints": [
                    models.UniqueConstraint(fields=["project", "url"], name="webhook_url_once"),
                    models.CheckConstraint(condition=Q(url__regex="^https?://"), name="webhook_url_is_http"),
                    models.CheckConstraint(condition=Q(events__len__gte=1), name="webhook_has_events"),
                ],
            },
        ),
        migrations.CreateModel(
            "WebhookDelivery",
            [
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("event", models.CharField(max_length=40)),
                ("subject_id", models.BigIntegerField(default=0)),
                ("outcome", models.CharField(blank=True, max_length=20)),
                (
                    "state",
                    models.CharField(choices=STATES, db_default=models.Value("open"), default="open", max_length=10),
                ),
                ("attempts", models.PositiveSmallIntegerField(db_default=0, default=0)),
                ("next_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("lease_until", models.DateTimeField(blank=True, null=True)),
                ("status", models.PositiveSmallIntegerField(blank=True, null=True)),
                ("message", models.TextField(blank=True, db_default="")),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
                (
                    "webhook",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="deliveries", to="workers.webhook"
                    ),
                ),
            ],
            options={
                "ordering": ["-id"],
                "indexes": [
                    models.Index(
                        condition=Q(state__in=["open", "leased"]), fields=["next_at"], name="webhook_delivery_due"
                    )
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=Q(state="leased", lease_until__isnull=False)
                        | Q(state__in=["open", "delivered", "failed"], lease_until__isnull=True),
                        name="webhook_delivery_lease_fits_state",
                    )
                ],
            },
        ),
        migrations.RunSQL(ADD_DELIVERIES, REMOVE),
    ]
