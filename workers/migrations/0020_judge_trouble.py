"""Judges in trouble and trials; failed calls keep their message; calls that reached no model are counted apart."""

from importlib import import_module

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

KINDS = [
    (kind, kind.replace("_", " "))
    for kind in (
        "timeout unavailable rate_limited refusal unparseable label_mass context_overflow content_filter over_budget "
        "bad_request judge_error"
    ).split()
]

# A failed call without tokens and cost, of a kind that needs no model's reply.
UNREACHED = (
    "count(*) FILTER (WHERE call.outcome IN ('timeout', 'unavailable', 'rate_limited', 'context_overflow', "
    "'content_filter', 'over_budget', 'bad_request') AND call.input_tokens = 0 AND call.output_tokens = 0 "
    "AND call.cost_micros = 0)"
)


def keep_books(apps, schema_editor):
    """Replace the trigger's function by one that keeps the new column too, and count what is there already."""
    books = import_module("workers.migrations.0007_books")
    sums = [each.replace("{answered}", books.ANSWERED) for each in books.COUNTED] + [UNREACHED]
    parts = {
        "shards": str(books.SHARDS),
        "sums": ", ".join(sums),
        "named": ", ".join(sums),
        "negative": ", ".join(f"-({each})" for each in sums),
        "raised": ", ".join(f"{name} = books.{name} + EXCLUDED.{name}" for name in [*books.COLUMNS, "unreached"]),
    }
    function = books.KEEP_BOOKS.split("CREATE TRIGGER")[0].replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
    function = function.replace("output_tokens, cost_micros)\n", "output_tokens, cost_micros, unreached)\n")
    function = function.replace("sum(cost_micros)\n", "sum(cost_micros), sum(unreached)\n")
    for name, text in parts.items():
        function = function.replace("{" + name + "}", text)
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(function)
        cursor.execute(
            "INSERT INTO workers_spend (run_id, annotator_id, shard, calls, in_flight, lost, answers, answer_tokens, "
            "answer_cost_micros, input_tokens, output_tokens, cost_micros, unreached) "
            f"SELECT run_id, annotator_id, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, {UNREACHED} FROM workers_attempt call "
            "GROUP BY run_id, annotator_id ON CONFLICT (run_id, annotator_id, shard) "
            "DO UPDATE SET unreached = EXCLUDED.unreached"
        )


class Migration(migrations.Migration):
    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("labeling", "0012_stored_sentences"),
        ("workers", "0019_endpoint_definitions"),
    ]

    operations = [
        migrations.CreateModel(
            name="JudgeTrouble",
            fields=[
                ("annotator", models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name="trouble", serialize=False, to="labeling.annotator")),
                ("reason", models.CharField(choices=KINDS, max_length=30)),
                ("message", models.TextField(blank=True)),
                ("since", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={"ordering": ["annotator"]},
        ),
        migrations.CreateModel(
            name="JudgeTrial",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("report", models.JSONField(default=dict)),
                ("calls", models.PositiveBigIntegerField(default=0)),
                ("input_tokens", models.PositiveBigIntegerField(default=0)),
                ("output_tokens", models.PositiveBigIntegerField(default=0)),
                ("cost_micros", models.PositiveBigIntegerField(default=0)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("annotator", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="trials", to="labeling.annotator")),
                ("created_by", models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, to=settings.AUTH_USER_MODEL)),
                ("job", models.OneToOneField(on_delete=django.db.models.deletion.RESTRICT, related_name="trial", to="workers.job")),
                ("project", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="trials", to="labeling.project")),
            ],
            options={"ordering": ["-id"]},
        ),
        migrations.AddField("run", "is_unanswered", models.BooleanField(db_default=False, default=False)),
        migrations.AddField("attempt", "message", models.TextField(blank=True, db_default="")),
        migrations.AddField("attempt", "is_retryable", models.BooleanField(db_default=False, default=False)),
        migrations.AddField("attempt", "is_outage", models.BooleanField(db_default=False, default=False)),
        migrations.AddIndex("attempt", models.Index(fields=["annotator", "finished_at"], name="attempt_by_judge_and_end")),
        migrations.AlterField(
            "attempt",
            "annotator",
            models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name="attempts", to="labeling.annotator"),
        ),
        migrations.RemoveConstraint("job", "job_unfinished_once_without_run"),
        migrations.AddConstraint(
            "job",
            models.UniqueConstraint(
                fields=["project", "stage"],
                condition=models.Q(("run__isnull", True), ("state__in", ["open", "leased"]), models.Q(("stage__in", ["probe", "trial"]), _negated=True)),
                name="job_unfinished_once_without_run",
            ),
        ),
        migrations.AddField("spend", "unreached", models.BigIntegerField(default=0)),
        migrations.RunPython(keep_books, migrations.RunPython.noop),
    ]
