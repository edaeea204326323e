"""Keeps the totals by endpoint and day, and adds up what was spent before.

A trigger of its own does that, in the form of the one of `Spend`. A call counts on the day on which it began. Deleting attempts
takes nothing back, except calls that were never made.
"""

from importlib import import_module

from django.db import migrations

KEEP = """
CREATE FUNCTION workers_keep_endpoint_spend() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        {into}
        FROM (SELECT annotator_id, {day} AS day, {named} FROM added call GROUP BY 1, 2) change {joined};
    ELSIF TG_OP = 'DELETE' THEN
        {into}
        FROM (SELECT annotator_id, {day} AS day, {negative} FROM removed call WHERE outcome = '' GROUP BY 1, 2) change
        {joined};
    ELSE
        {into}
        FROM (
            SELECT annotator_id, {day} AS day, {named} FROM added call GROUP BY 1, 2
            UNION ALL
            SELECT annotator_id, {day} AS day, {negative} FROM removed call GROUP BY 1, 2
        ) change {joined};
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER workers_attempt_added_at_endpoint AFTER INSERT ON workers_attempt
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION workers_keep_endpoint_spend();
CREATE TRIGGER workers_attempt_changed_at_endpoint AFTER UPDATE ON workers_attempt
    REFERENCING NEW TABLE AS added OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION workers_keep_endpoint_spend();
CREATE TRIGGER workers_attempt_removed_at_endpoint AFTER DELETE ON workers_attempt
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION workers_keep_endpoint_spend();
"""

ADD_UP = """
{into}
FROM (SELECT annotator_id, {day} AS day, {named} FROM workers_attempt call GROUP BY 1, 2) change {joined}
"""

ADD_CHECKS = """
INSERT INTO workers_endpointspend AS spend (endpoint, project_id, annotator_id, day, shard, calls, input_tokens,
                                            output_tokens, cost_micros)
SELECT judge.options ->> 'endpoint', judge.project_id, judge.id, (paid.created_at AT TIME ZONE 'UTC')::date, 0,
       sum(paid.calls), sum(paid.input_tokens), sum(paid.output_tokens), sum(paid.cost_micros)
FROM {table} paid JOIN labeling_annotator judge ON judge.id = paid.annotator_id
WHERE judge.options ->> 'endpoint' <> ''
GROUP BY 1, 2, 3, 4
ON CONFLICT (annotator_id, day, shard) DO UPDATE SET {raised}
"""

FORGET = """
DROP TRIGGER workers_attempt_added_at_endpoint ON workers_attempt;
DROP TRIGGER workers_attempt_changed_at_endpoint ON workers_attempt;
DROP TRIGGER workers_attempt_removed_at_endpoint ON workers_attempt;
DROP FUNCTION workers_keep_endpoint_spend();
"""


def filled(statement):
    books = import_module("workers.migrations.0007_books")
    columns = [*books.COLUMNS, "unreached"]
    counted = [each.replace("{answered}", books.ANSWERED) for each in books.COUNTED]
    counted.append(import_module("workers.migrations.0020_judge_trouble").UNREACHED)
    raised = ", ".join(f"{name} = spend.{name} + EXCLUDED.{name}" for name in columns)
    parts = {
        "into": (
            f"INSERT INTO workers_endpointspend AS spend (endpoint, project_id, annotator_id, day, shard, {', '.join(columns)})\n"
            "        SELECT judge.options ->> 'endpoint', judge.project_id, judge.id, change.day, "
            f"pg_backend_pid() % {books.SHARDS}, {', '.join(f'sum(change.{name})' for name in columns)}"
        ),
        "joined": (
            "JOIN labeling_annotator judge ON judge.id = change.annotator_id\n"
            "        WHERE judge.options ->> 'endpoint' <> '' GROUP BY 1, 2, 3, 4 ORDER BY 3, 4\n"
            f"        ON CONFLICT (annotator_id, day, shard) DO UPDATE SET {raised}"
        ),
        "day": "(call.started_at AT TIME ZONE 'UTC')::date",
        "named": ", ".join(f"{each} AS {name}" for each, name in zip(counted, columns)),
        "negative": ", ".join(f"-({each}) AS {name}" for each, name in zip(counted, columns)),
        "raised": raised,
    }
    for name, text in parts.items():
        statement = statement.replace("{" + name + "}", text)
    return statement


def keep(apps, schema_editor):
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(filled(KEEP))


def forget(apps, schema_editor):
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(FORGET)


def add_checks(apps, schema_editor):
    """Count what trials, teachings and probes have spent already. A teaching's calls count as its first judge's."""
    raised = ", ".join(
        f"{name} = spend.{name} + EXCLUDED.{name}" for name in ("calls", "input_tokens", "output_tokens", "cost_micros")
    )
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(filled(ADD_UP))
        for table in ("workers_injectionprobe", "workers_judgetrial", "workers_judgeteaching"):
            cursor.execute(ADD_CHECKS.replace("{table}", table).replace("{raised}", raised))


class Migration(migrations.Migration):

    dependencies = [("workers", "0029_operator_limits")]

    operations = [
        migrations.RunPython(keep, forget),
        migrations.RunPython(add_checks, migrations.RunPython.noop),
    ]
