"""Pairs of a statement are compared with the queries of their candidates at once, not row by row.

Three of the five foreign keys of a pair repeated what the other two and this check guarantee, at 4 microseconds a key and row: two
thirds of what storing a pair takes. Indexes and keys that others begin with or imply go too.
"""

import django.db.models.deletion
from django.db import migrations, models

FORWARD = """
ALTER TABLE labeling_pair DROP CONSTRAINT pair_a_of_query, DROP CONSTRAINT pair_b_of_query;

CREATE FUNCTION labeling_check_pair_queries() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wrong record;
BEGIN
    SELECT pair.id, one.query_id <> pair.query_id AS is_a INTO wrong
    FROM added pair JOIN labeling_candidate one ON one.id = pair.a_id
    JOIN labeling_candidate other ON other.id = pair.b_id
    WHERE one.query_id <> pair.query_id OR other.query_id <> pair.query_id
    LIMIT 1;
    IF FOUND THEN
        RAISE foreign_key_violation USING
            MESSAGE = format('the query of pair %s is not that of its candidates', wrong.id),
            TABLE = 'labeling_pair',
            CONSTRAINT = CASE WHEN wrong.is_a THEN 'pair_a_of_query' ELSE 'pair_b_of_query' END;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER labeling_pair_added AFTER INSERT ON labeling_pair
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION labeling_check_pair_queries();
CREATE TRIGGER labeling_pair_changed AFTER UPDATE ON labeling_pair
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION labeling_check_pair_queries();

CREATE FUNCTION labeling_keep_candidate_query() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE foreign_key_violation USING
        MESSAGE = format('candidate %s stays in its query: its pairs repeat it', OLD.id),
        TABLE = 'labeling_candidate', CONSTRAINT = 'candidate_keeps_query';
END $$;
CREATE TRIGGER labeling_candidate_keeps_query BEFORE UPDATE OF query_id ON labeling_candidate
    FOR EACH ROW WHEN (OLD.query_id <> NEW.query_id) EXECUTE FUNCTION labeling_keep_candidate_query();
"""

BACKWARD = """
DROP TRIGGER labeling_candidate_keeps_query ON labeling_candidate;
DROP FUNCTION labeling_keep_candidate_query();
DROP TRIGGER labeling_pair_changed ON labeling_pair;
DROP TRIGGER labeling_pair_added ON labeling_pair;
DROP FUNCTION labeling_check_pair_queries();
"""

# Backwards, after the unique key of candidates is there again.
COMPOSITE = """
ALTER TABLE labeling_pair
    ADD CONSTRAINT pair_a_of_query FOREIGN KEY (a_id, query_id)
        REFERENCES labeling_candidate (id, query_id) DEFERRABLE INITIALLY DEFERRED,
    ADD CONSTRAINT pair_b_of_query FOREIGN KEY (b_id, query_id)
        REFERENCES labeling_candidate (id, query_id) DEFERRABLE INITIALLY DEFERRED;
"""


class Migration(migrations.Migration):

    dependencies = [("labeling", "0020_excluded_queries_named_invitations")]

    operations = [
        migrations.RunSQL(FORWARD, BACKWARD),
        migrations.RunSQL(migrations.RunSQL.noop, COMPOSITE),
        migrations.RemoveConstraint(model_name="candidate", name="candidate_of_query"),
        migrations.AlterField(
            model_name="candidate",
            name="query",
            field=models.ForeignKey(
                db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name="candidates", to="labeling.query"
            ),
        ),
        migrations.AlterField(
            model_name="document",
            name="project",
            field=models.ForeignKey(
                db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name="documents", to="labeling.project"
            ),
        ),
        migrations.AlterField(
            model_name="pair",
            name="a",
            field=models.ForeignKey(
                db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name="pairs_as_a", to="labeling.candidate"
            ),
        ),
        migrations.AlterField(
            model_name="pair",
            name="query",
            field=models.ForeignKey(
                blank=True, db_constraint=False, null=True, on_delete=django.db.models.deletion.CASCADE, related_name="pairs",
                to="labeling.query",
            ),
        ),
        migrations.AlterField(
            model_name="judgment",
            name="annotator",
            field=models.ForeignKey(
                db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name="judgments",
                to="labeling.annotator",
            ),
        ),
    ]
