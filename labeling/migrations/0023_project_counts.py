"""How many queries, documents and candidates each project has, kept by triggers; and an index of the graded candidates.

Counting them takes as long as the project is large, and the list of projects, its API and each project's page show them.
"""

import django.db.models.deletion
from django.db import migrations, models

KEEP = """
-- Its plans are kept: one that was made while a table was small must not read the whole of it later.
CREATE FUNCTION labeling_keep_project_counts() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    direction integer := CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END;
BEGIN
    IF TG_TABLE_NAME = 'labeling_candidate' THEN
        INSERT INTO labeling_projectcount AS counts (project_id, shard, queries, documents, candidates)
        SELECT query.project_id, pg_backend_pid() % 1024, 0, 0, direction * sum(rows.number)
        FROM (SELECT query_id, count(*) AS number FROM changed GROUP BY query_id) rows
        JOIN labeling_query query ON query.id = rows.query_id GROUP BY query.project_id ORDER BY query.project_id
        ON CONFLICT (project_id, shard) DO UPDATE SET candidates = counts.candidates + EXCLUDED.candidates;
    ELSIF TG_TABLE_NAME = 'labeling_query' THEN
        INSERT INTO labeling_projectcount AS counts (project_id, shard, queries, documents, candidates)
        SELECT project_id, pg_backend_pid() % 1024, direction * count(*), 0, 0 FROM changed
        WHERE EXISTS (SELECT 1 FROM labeling_project project WHERE project.id = changed.project_id)
        GROUP BY project_id ORDER BY project_id
        ON CONFLICT (project_id, shard) DO UPDATE SET queries = counts.queries + EXCLUDED.queries;
    ELSE
        INSERT INTO labeling_projectcount AS counts (project_id, shard, queries, documents, candidates)
        SELECT project_id, pg_backend_pid() % 1024, 0, direction * count(*), 0 FROM changed
        WHERE EXISTS (SELECT 1 FROM labeling_project project WHERE project.id = changed.project_id)
        GROUP BY project_id ORDER BY project_id
        ON CONFLICT (project_id, shard) DO UPDATE SET documents = counts.documents + EXCLUDED.documents;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER labeling_query_counted AFTER INSERT ON labeling_query
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION labeling_keep_project_counts();
CREATE TRIGGER labeling_query_uncounted AFTER DELETE ON labeling_query
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION labeling_keep_project_counts();
CREATE TRIGGER labeling_document_counted AFTER INSERT ON labeling_document
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION labeling_keep_project_counts();
CREATE TRIGGER labeling_document_uncounted AFTER DELETE ON labeling_document
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION labeling_keep_project_counts();
CREATE TRIGGER labeling_candidate_counted AFTER INSERT ON labeling_candidate
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION labeling_keep_project_counts();
CREATE TRIGGER labeling_candidate_uncounted AFTER DELETE ON labeling_candidate
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION labeling_keep_project_counts();
"""

COUNT = """
LOCK TABLE labeling_query, labeling_document, labeling_candidate IN SHARE MODE;
INSERT INTO labeling_projectcount (project_id, shard, queries, documents, candidates)
SELECT project.id, 0, COALESCE(of_queries.number, 0), COALESCE(of_documents.number, 0), COALESCE(of_candidates.number, 0)
FROM labeling_project project
LEFT JOIN (SELECT project_id, count(*) AS number FROM labeling_query GROUP BY project_id) of_queries
    ON of_queries.project_id = project.id
LEFT JOIN (SELECT project_id, count(*) AS number FROM labeling_document GROUP BY project_id) of_documents
    ON of_documents.project_id = project.id
LEFT JOIN (
    SELECT query.project_id, count(*) AS number FROM labeling_candidate candidate
    JOIN labeling_query query ON query.id = candidate.query_id GROUP BY query.project_id
) of_candidates ON of_candidates.project_id = project.id
"""

FORGET = """
DROP TRIGGER labeling_query_counted ON labeling_query;
DROP TRIGGER labeling_query_uncounted ON labeling_query;
DROP TRIGGER labeling_document_counted ON labeling_document;
DROP TRIGGER labeling_document_uncounted ON labeling_document;
DROP TRIGGER labeling_candidate_counted ON labeling_candidate;
DROP TRIGGER labeling_candidate_uncounted ON labeling_candidate;
DROP FUNCTION labeling_keep_project_counts();
"""


class Migration(migrations.Migration):

    dependencies = [("labeling", "0022_keys_checked_at_once")]

    operations = [
        migrations.CreateModel(
            name="ProjectCount",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("shard", models.SmallIntegerField()),
                ("queries", models.BigIntegerField(default=0)),
                ("documents", models.BigIntegerField(default=0)),
                ("candidates", models.BigIntegerField(default=0)),
                (
                    "project",
                    models.ForeignKey(
                        db_constraint=False, db_index=False, on_delete=django.db.models.deletion.CASCADE,
                        related_name="counts", to="labeling.project",
                    ),
                ),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("project", "shard"), name="project_count_once")],
            },
        ),
        migrations.RunSQL(
            "ALTER TABLE labeling_projectcount ADD CONSTRAINT labeling_projectcount_project FOREIGN KEY (project_id) "
            "REFERENCES labeling_project (id) ON DELETE CASCADE",
            migrations.RunSQL.noop,
        ),
        migrations.RunSQL(
            "ALTER TABLE labeling_projectcount SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, "
            "autovacuum_vacuum_threshold = 2000)",
            migrations.RunSQL.noop,
        ),
        migrations.RunSQL(COUNT, migrations.RunSQL.noop),
        migrations.RunSQL(KEEP, FORGET),
        migrations.AddIndex(
            model_name="candidate",
            index=models.Index(condition=models.Q(("grade__isnull", False)), fields=["query"], name="candidate_graded"),
        ),
    ]
