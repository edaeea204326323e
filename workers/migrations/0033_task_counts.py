"""How many tasks each judge has in each run, kept by triggers. Those that are there already are counted here once."""

import django.db.models.deletion
from django.db import migrations, models

KEEP = """
CREATE FUNCTION workers_keep_task_counts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO workers_taskcount AS counts (run_id, annotator_id, shard, tasks)
        SELECT run_id, annotator_id, pg_backend_pid() % 32, count(*) FROM added
        GROUP BY run_id, annotator_id ORDER BY run_id, annotator_id
        ON CONFLICT (run_id, annotator_id, shard) DO UPDATE SET tasks = counts.tasks + EXCLUDED.tasks;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO workers_taskcount AS counts (run_id, annotator_id, shard, tasks)
        SELECT run_id, annotator_id, pg_backend_pid() % 32, -count(*) FROM removed task
        WHERE EXISTS (SELECT 1 FROM workers_run run WHERE run.id = task.run_id)
        GROUP BY run_id, annotator_id ORDER BY run_id, annotator_id
        ON CONFLICT (run_id, annotator_id, shard) DO UPDATE SET tasks = counts.tasks + EXCLUDED.tasks;
    ELSE
        INSERT INTO workers_taskcount AS counts (run_id, annotator_id, shard, tasks)
        SELECT run, NEW.annotator_id, pg_backend_pid() % 32, change
        FROM (VALUES (OLD.run_id, -1), (NEW.run_id, 1)) AS moved (run, change) ORDER BY run
        ON CONFLICT (run_id, annotator_id, shard) DO UPDATE SET tasks = counts.tasks + EXCLUDED.tasks;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER workers_task_added AFTER INSERT ON workers_judgingtask
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION workers_keep_task_counts();
CREATE TRIGGER workers_task_removed AFTER DELETE ON workers_judgingtask
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION workers_keep_task_counts();
CREATE TRIGGER workers_task_moved AFTER UPDATE OF run_id ON workers_judgingtask
    FOR EACH ROW WHEN (OLD.run_id <> NEW.run_id) EXECUTE FUNCTION workers_keep_task_counts();
"""

COUNT = """
INSERT INTO workers_taskcount (run_id, annotator_id, shard, tasks)
SELECT run_id, annotator_id, 0, count(*) FROM workers_judgingtask GROUP BY run_id, annotator_id
"""

FORGET = """
DROP TRIGGER workers_task_added ON workers_judgingtask;
DROP TRIGGER workers_task_removed ON workers_judgingtask;
DROP TRIGGER workers_task_moved ON workers_judgingtask;
DROP FUNCTION workers_keep_task_counts();
"""


class Migration(migrations.Migration):

    dependencies = [
        ("workers", "0032_query_figures"),
    ]

    operations = [
        migrations.CreateModel(
            name='TaskCount',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('annotator_id', models.BigIntegerField()),
                ('shard', models.SmallIntegerField()),
                ('tasks', models.BigIntegerField(default=0)),
                ('run', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='task_counts', to='workers.run')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('run', 'annotator_id', 'shard'), name='task_count_once')],
            },
        ),
        migrations.RunSQL(
            "ALTER TABLE workers_taskcount ADD CONSTRAINT workers_taskcount_run FOREIGN KEY (run_id) REFERENCES workers_run (id) "
            "ON DELETE CASCADE",
            migrations.RunSQL.noop,
        ),
        migrations.RunSQL(
            "ALTER TABLE workers_taskcount SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, "
            "autovacuum_vacuum_threshold = 2000)",
            migrations.RunSQL.noop,
        ),
        migrations.RunSQL(COUNT, migrations.RunSQL.noop),
        migrations.RunSQL(KEEP, FORGET),
    ]
