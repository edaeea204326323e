"""The reason `not_recorded`: a judge that replays recorded answers has none for the pair."""

from django.db import migrations, models

REASONS = [
    ("timeout", "timeout"),
    ("unavailable", "unavailable"),
    ("rate_limited", "rate limited"),
    ("refusal", "refusal"),
    ("unparseable", "unparseable"),
    ("label_mass", "label mass"),
    ("context_overflow", "context overflow"),
    ("content_filter", "content filter"),
    ("over_budget", "over budget"),
    ("bad_request", "bad request"),
    ("judge_error", "judge error"),
    ("not_recorded", "not recorded"),
]


class Migration(migrations.Migration):
    dependencies = [("workers", "0024_short_reads")]
    operations = [
        migrations.AlterField(
            "judgingtask", "reason", models.CharField(blank=True, choices=REASONS, max_length=30)
        ),
        migrations.AlterField("judgetrouble", "reason", models.CharField(choices=REASONS, max_length=30)),
    ]
