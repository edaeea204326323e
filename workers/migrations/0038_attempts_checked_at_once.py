"""The run and the judge of new calls are checked once a statement, not call by call: all calls of a claim have the same ones.

The other half of the foreign keys, that nobody deletes a run or a judge that has calls, is a constraint trigger.
"""

import django.db.models.deletion
from django.db import migrations, models

FORWARD = """
CREATE FUNCTION workers_check_attempt_keys() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    missing record;
BEGIN
    PERFORM 1 FROM workers_run WHERE id IN (SELECT run_id FROM added) ORDER BY id FOR KEY SHARE;
    PERFORM 1 FROM labeling_annotator WHERE id IN (SELECT annotator_id FROM added) ORDER BY id FOR KEY SHARE;
    SELECT run.id IS NULL AS is_run, call.run_id, call.annotator_id INTO missing
    FROM (SELECT DISTINCT run_id, annotator_id FROM added) call
    LEFT JOIN workers_run run ON run.id = call.run_id LEFT JOIN labeling_annotator annotator ON annotator.id = call.annotator_id
    WHERE run.id IS NULL OR annotator.id IS NULL LIMIT 1;
    IF FOUND THEN
        RAISE foreign_key_violation USING
            MESSAGE = format('a call of the run %s by the judge %s: one of them is missing', missing.run_id, missing.annotator_id),
            TABLE = 'workers_attempt',
            CONSTRAINT = CASE WHEN missing.is_run THEN 'attempt_of_run' ELSE 'attempt_of_annotator' END;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER workers_attempt_keys_added AFTER INSERT ON workers_attempt
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION workers_check_attempt_keys();

CREATE FUNCTION workers_keep_attempt_keys() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE foreign_key_violation USING
        MESSAGE = format('call %s keeps its run and its judge', OLD.id),
        TABLE = 'workers_attempt', CONSTRAINT = 'attempt_keeps_keys';
END $$;
CREATE TRIGGER workers_attempt_keeps_keys BEFORE UPDATE OF run_id, annotator_id ON workers_attempt
    FOR EACH ROW WHEN (OLD.run_id <> NEW.run_id OR OLD.annotator_id <> NEW.annotator_id)
    EXECUTE FUNCTION workers_keep_attempt_keys();

CREATE FUNCTION workers_refuse_while_attempts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_TABLE_NAME = 'workers_run' AND EXISTS (SELECT 1 FROM workers_attempt WHERE run_id = OLD.id)
        OR TG_TABLE_NAME = 'labeling_annotator' AND EXISTS (SELECT 1 FROM workers_attempt WHERE annotator_id = OLD.id)
    THEN
        RAISE foreign_key_violation USING
            MESSAGE = format('%s %s still has calls', TG_TABLE_NAME, OLD.id),
            TABLE = 'workers_attempt', CONSTRAINT = TG_NAME;
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER attempt_of_run AFTER DELETE ON workers_run
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION workers_refuse_while_attempts();
CREATE CONSTRAINT TRIGGER attempt_of_annotator AFTER DELETE ON labeling_annotator
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION workers_refuse_while_attempts();
"""

BACKWARD = """
DROP TRIGGER attempt_of_annotator ON labeling_annotator;
DROP TRIGGER attempt_of_run ON workers_run;
DROP FUNCTION workers_refuse_while_attempts();
DROP TRIGGER workers_attempt_keeps_keys ON workers_attempt;
DROP FUNCTION workers_keep_attempt_keys();
DROP TRIGGER workers_attempt_keys_added ON workers_attempt;
DROP FUNCTION workers_check_attempt_keys();
"""


class Migration(migrations.Migration):

    dependencies = [("labeling", "0022_keys_checked_at_once"), ("workers", "0037_project_figures")]

    operations = [
        migrations.RunSQL(FORWARD, BACKWARD),
        migrations.AlterField(
            model_name="attempt",
            name="run",
            field=models.ForeignKey(
                db_constraint=False, db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name="attempts",
                to="workers.run",
            ),
        ),
        migrations.AlterField(
            model_name="attempt",
            name="annotator",
            field=models.ForeignKey(
                db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name="attempts",
                to="labeling.annotator",
            ),
        ),
    ]
