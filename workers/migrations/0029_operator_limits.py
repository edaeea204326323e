"""The operator's limits, and the running totals that they are compared with: by endpoint, project, judge and day."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ("labeling", "0018_archived_projects_retired_judges"),
        ("workers", "0028_recipes"),
    ]

    operations = [
        migrations.CreateModel(
            name="EndpointSpend",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("endpoint", models.CharField(max_length=200)),
                ("project_id", models.BigIntegerField()),
                ("annotator_id", models.BigIntegerField()),
                ("day", models.DateField()),
                ("shard", models.SmallIntegerField()),
                ("calls", models.BigIntegerField(db_default=0, default=0)),
                ("in_flight", models.BigIntegerField(db_default=0, default=0)),
                ("lost", models.BigIntegerField(db_default=0, default=0)),
                ("answers", models.BigIntegerField(db_default=0, default=0)),
                ("answer_tokens", models.BigIntegerField(db_default=0, default=0)),
                ("answer_cost_micros", models.BigIntegerField(db_default=0, default=0)),
                ("unreached", models.BigIntegerField(db_default=0, default=0)),
                ("input_tokens", models.BigIntegerField(db_default=0, default=0)),
                ("output_tokens", models.BigIntegerField(db_default=0, default=0)),
                ("cost_micros", models.BigIntegerField(db_default=0, default=0)),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("annotator_id", "day", "shard"), name="endpoint_spend_once")],
                "indexes": [
                    models.Index(fields=["day", "endpoint"], name="endpoint_spend_by_day"),
                    models.Index(fields=["endpoint"], name="endpoint_spend_by_name"),
                ],
            },
        ),
        migrations.CreateModel(
            name="OperatorLimit",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("endpoint", models.CharField(blank=True, max_length=80)),
                ("project", models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name="operator_limits", to="labeling.project")),
                ("period", models.CharField(choices=[("day", "a day"), ("total", "in total")], max_length=10)),
                ("calls", models.PositiveBigIntegerField(blank=True, null=True)),
                ("tokens", models.PositiveBigIntegerField(blank=True, null=True)),
                ("cost_micros", models.PositiveBigIntegerField(blank=True, null=True)),
            ],
            options={
                "ordering": ["endpoint", "project", "period"],
                "constraints": [
                    models.UniqueConstraint(fields=("endpoint", "project", "period"), name="operator_limit_once", nulls_distinct=False),
                    models.CheckConstraint(
                        condition=models.Q(("calls__isnull", False), ("tokens__isnull", False), ("cost_micros__isnull", False), _connector="OR"),
                        name="operator_limit_limits",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="EndpointRestriction",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("endpoint", models.CharField(max_length=80, unique=True)),
                ("projects", models.ManyToManyField(related_name="allowed_endpoints", to="labeling.project")),
            ],
            options={"ordering": ["endpoint"]},
        ),
    ]
