"""Indexes that others begin with go; tables that change all the time are cleaned up as they change.

Figures with these settings, not with others, are in docs/performance.md (`benchmarks/queue.py`).
"""

import django.db.models.deletion
from django.db import migrations, models


# By the share of the table, the default, a million tasks would gather 200,000 dead ones before anybody looks.
SETTINGS = {
    "workers_judgingtask": "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, "
    "autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.05",
    "workers_attempt": "autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 20000",
    "workers_spend": "fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000",
    "labeling_query": "fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05",
}


class Migration(migrations.Migration):

    dependencies = [
        ('labeling', '0007_spot_check_has_project'),
        ('workers', '0007_books'),
    ]

    operations = [
        migrations.AlterField(
            model_name='attempt',
            name='run',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='attempts', to='workers.run'),
        ),
        migrations.AlterField(
            model_name='judgingtask',
            name='annotator',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='tasks', to='labeling.annotator'),
        ),
        migrations.AlterField(
            model_name='judgingtask',
            name='pair',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='tasks', to='labeling.pair'),
        ),
        *(
            migrations.RunSQL(f"ALTER TABLE {table} SET ({values})", migrations.RunSQL.noop)
            for table, values in SETTINGS.items()
        ),
    ]
