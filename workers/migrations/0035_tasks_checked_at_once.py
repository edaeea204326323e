"""The run and the judge of new tasks are checked once a statement, by the foreign keys of their counts, not once a task.

Every new task changes a row of `TaskCount`, which exists only while its run and its judge do. The other half of a foreign key, that
nobody deletes a run or a judge that has tasks, is a constraint trigger.
"""

import django.db.models.deletion
from django.db import migrations, models

FORWARD = """
DELETE FROM workers_taskcount counts
WHERE NOT EXISTS (SELECT 1 FROM labeling_annotator annotator WHERE annotator.id = counts.annotator_id);
ALTER TABLE workers_taskcount ADD CONSTRAINT workers_taskcount_annotator FOREIGN KEY (annotator_id)
    REFERENCES labeling_annotator (id) ON DELETE CASCADE;

CREATE OR REPLACE FUNCTION workers_keep_task_counts() RETURNS trigger LANGUAGE plpgsql AS $$
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
          AND EXISTS (SELECT 1 FROM labeling_annotator annotator WHERE annotator.id = task.annotator_id)
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

CREATE FUNCTION workers_refuse_while_tasks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_TABLE_NAME = 'workers_run' AND EXISTS (SELECT 1 FROM workers_judgingtask WHERE run_id = OLD.id)
        OR TG_TABLE_NAME = 'labeling_annotator' AND EXISTS (SELECT 1 FROM workers_judgingtask WHERE annotator_id = OLD.id)
    THEN
        RAISE foreign_key_violation USING
            MESSAGE = format('%s %s still has tasks', TG_TABLE_NAME, OLD.id),
            TABLE = 'workers_judgingtask', CONSTRAINT = TG_NAME;
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER judging_task_of_run AFTER DELETE ON workers_run
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION workers_refuse_while_tasks();
CREATE CONSTRAINT TRIGGER judging_task_of_annotator AFTER DELETE ON labeling_annotator
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION workers_refuse_while_tasks();
"""

BACKWARD = """
DROP TRIGGER judging_task_of_run ON workers_run;
DROP TRIGGER judging_task_of_annotator ON labeling_annotator;
DROP FUNCTION workers_refuse_while_tasks();
ALTER TABLE workers_taskcount DROP CONSTRAINT workers_taskcount_annotator;
"""


class Migration(migrations.Migration):

    dependencies = [("labeling", "0021_pairs_checked_at_once"), ("workers", "0034_informative_allocation")]

    operations = [
        migrations.RunSQL(FORWARD, BACKWARD),
        migrations.AlterField(
            model_name="judgingtask",
            name="run",
            field=models.ForeignKey(
                db_constraint=False, on_delete=django.db.models.deletion.CASCADE, related_name="tasks", to="workers.run"
            ),
        ),
        migrations.AlterField(
            model_name="judgingtask",
            name="annotator",
            field=models.ForeignKey(
                db_constraint=False, db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name="tasks",
                to="labeling.annotator",
            ),
        ),
    ]
