"""The query and document of new candidates, and the annotator of new judgments, are checked once a statement, not row by row.

A foreign key looks up its row for each new one, at 4 microseconds of the database, though all candidates of a query have the same one
and an import has just made most of the documents. What the statement refers to is locked as a foreign key locks it, except what the
same transaction made, which nobody else can delete. The other half of a foreign key, that nobody deletes a row that others refer to,
is a constraint trigger.
"""

import django.db.models.deletion
from django.db import migrations, models

FORWARD = """
ALTER TABLE labeling_judgment DROP CONSTRAINT judgment_by_person_of_annotator;

-- Its plans are kept: one that was made while a table was small must not read the whole of it for each candidate later.
CREATE FUNCTION labeling_check_candidate_keys() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    missing record;
BEGIN
    PERFORM 1 FROM labeling_query WHERE id IN (SELECT query_id FROM added) ORDER BY id FOR KEY SHARE;
    PERFORM 1 FROM added CROSS JOIN LATERAL (
        SELECT 1 FROM labeling_document document WHERE document.id = added.document_id
            AND document.xmin <> pg_current_xact_id()::xid FOR KEY SHARE
    ) other;
    SELECT added.id, query.id IS NULL AS is_query INTO missing FROM added
    LEFT JOIN LATERAL (SELECT id FROM labeling_query WHERE id = added.query_id OFFSET 0) query ON TRUE
    LEFT JOIN LATERAL (SELECT id FROM labeling_document WHERE id = added.document_id OFFSET 0) document ON TRUE
    WHERE query.id IS NULL OR document.id IS NULL LIMIT 1;
    IF FOUND THEN
        RAISE foreign_key_violation USING
            MESSAGE = format('candidate %s has no %s', missing.id, CASE WHEN missing.is_query THEN 'query' ELSE 'document' END),
            TABLE = 'labeling_candidate',
            CONSTRAINT = CASE WHEN missing.is_query THEN 'candidate_of_query' ELSE 'candidate_of_document' END;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER labeling_candidate_added AFTER INSERT ON labeling_candidate
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION labeling_check_candidate_keys();

CREATE FUNCTION labeling_keep_candidate_document() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE foreign_key_violation USING
        MESSAGE = format('candidate %s keeps its document', OLD.id),
        TABLE = 'labeling_candidate', CONSTRAINT = 'candidate_keeps_document';
END $$;
CREATE TRIGGER labeling_candidate_keeps_document BEFORE UPDATE OF document_id ON labeling_candidate
    FOR EACH ROW WHEN (OLD.document_id <> NEW.document_id) EXECUTE FUNCTION labeling_keep_candidate_document();

CREATE FUNCTION labeling_refuse_while_candidates() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_TABLE_NAME = 'labeling_query' AND EXISTS (SELECT 1 FROM labeling_candidate WHERE query_id = OLD.id)
        OR TG_TABLE_NAME = 'labeling_document' AND EXISTS (SELECT 1 FROM labeling_candidate WHERE document_id = OLD.id)
    THEN
        RAISE foreign_key_violation USING
            MESSAGE = format('%s %s still has candidates', TG_TABLE_NAME, OLD.id),
            TABLE = 'labeling_candidate', CONSTRAINT = TG_NAME;
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER candidate_of_query AFTER DELETE ON labeling_query
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION labeling_refuse_while_candidates();
CREATE CONSTRAINT TRIGGER candidate_of_document AFTER DELETE ON labeling_document
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION labeling_refuse_while_candidates();

CREATE FUNCTION labeling_check_judgment_annotators() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wrong record;
BEGIN
    PERFORM 1 FROM labeling_annotator WHERE id IN (SELECT annotator_id FROM added) ORDER BY id FOR KEY SHARE;
    SELECT known.annotator_id, known.by_person INTO wrong FROM (SELECT DISTINCT annotator_id, by_person FROM added) known
    WHERE NOT EXISTS (
        SELECT 1 FROM labeling_annotator annotator
        WHERE annotator.id = known.annotator_id AND annotator.is_person = known.by_person
    ) LIMIT 1;
    IF FOUND THEN
        RAISE foreign_key_violation USING
            MESSAGE = format('no annotator is %s with is_person = %s', wrong.annotator_id, wrong.by_person),
            TABLE = 'labeling_judgment', CONSTRAINT = 'judgment_by_person_of_annotator';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER labeling_judgment_added AFTER INSERT ON labeling_judgment
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION labeling_check_judgment_annotators();

CREATE FUNCTION labeling_keep_judgment_annotator() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM labeling_annotator WHERE id = NEW.annotator_id AND is_person = NEW.by_person FOR KEY SHARE)
    THEN
        RAISE foreign_key_violation USING
            MESSAGE = format('no annotator is %s with is_person = %s', NEW.annotator_id, NEW.by_person),
            TABLE = 'labeling_judgment', CONSTRAINT = 'judgment_by_person_of_annotator';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER labeling_judgment_given_to_another AFTER UPDATE OF annotator_id, by_person ON labeling_judgment
    FOR EACH ROW WHEN (OLD.annotator_id <> NEW.annotator_id OR OLD.by_person <> NEW.by_person)
    EXECUTE FUNCTION labeling_keep_judgment_annotator();

CREATE FUNCTION labeling_refuse_while_judgments() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM labeling_judgment WHERE annotator_id = OLD.id)
        AND NOT EXISTS (SELECT 1 FROM labeling_annotator WHERE id = OLD.id AND is_person = OLD.is_person)
    THEN
        RAISE foreign_key_violation USING
            MESSAGE = format('annotator %s still has judgments', OLD.id),
            TABLE = 'labeling_judgment', CONSTRAINT = 'judgment_by_person_of_annotator';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER judgment_of_deleted_annotator AFTER DELETE ON labeling_annotator
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION labeling_refuse_while_judgments();
CREATE CONSTRAINT TRIGGER judgment_of_changed_annotator AFTER UPDATE OF id, is_person ON labeling_annotator
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (OLD.id <> NEW.id OR OLD.is_person <> NEW.is_person)
    EXECUTE FUNCTION labeling_refuse_while_judgments();
"""

BACKWARD = """
DROP TRIGGER judgment_of_changed_annotator ON labeling_annotator;
DROP TRIGGER judgment_of_deleted_annotator ON labeling_annotator;
DROP FUNCTION labeling_refuse_while_judgments();
DROP TRIGGER labeling_judgment_given_to_another ON labeling_judgment;
DROP FUNCTION labeling_keep_judgment_annotator();
DROP TRIGGER labeling_judgment_added ON labeling_judgment;
DROP FUNCTION labeling_check_judgment_annotators();
DROP TRIGGER candidate_of_document ON labeling_document;
DROP TRIGGER candidate_of_query ON labeling_query;
DROP FUNCTION labeling_refuse_while_candidates();
DROP TRIGGER labeling_candidate_keeps_document ON labeling_candidate;
DROP FUNCTION labeling_keep_candidate_document();
DROP TRIGGER labeling_candidate_added ON labeling_candidate;
DROP FUNCTION labeling_check_candidate_keys();

ALTER TABLE labeling_judgment ADD CONSTRAINT judgment_by_person_of_annotator FOREIGN KEY (annotator_id, by_person)
    REFERENCES labeling_annotator (id, is_person) DEFERRABLE INITIALLY DEFERRED;
"""


class Migration(migrations.Migration):

    dependencies = [("labeling", "0021_pairs_checked_at_once")]

    operations = [
        migrations.RunSQL(FORWARD, BACKWARD),
        migrations.AlterField(
            model_name="query",
            name="project",
            field=models.ForeignKey(
                db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name="queries", to="labeling.project"
            ),
        ),
        migrations.AlterField(
            model_name="candidate",
            name="query",
            field=models.ForeignKey(
                db_constraint=False, db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name="candidates",
                to="labeling.query",
            ),
        ),
        migrations.AlterField(
            model_name="candidate",
            name="document",
            field=models.ForeignKey(
                db_constraint=False, on_delete=django.db.models.deletion.CASCADE, related_name="candidates",
                to="labeling.document",
            ),
        ),
    ]
