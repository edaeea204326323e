"""Running totals of what judges cost, kept by triggers; caps of a project; open tasks in the order they are due.

The totals of attempts that are there already are added up here once. A foreign key that cascades in the database
lets a run go together with its books, whatever the order in which rows are deleted.
"""

import django.db.models.deletion
from django.db import migrations, models

KEEP_BOOKS = """
CREATE FUNCTION workers_keep_books() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO workers_spend AS books (run_id, annotator_id, shard, calls, in_flight, lost, answers, answer_tokens,
                                            answer_cost_micros, input_tokens, output_tokens, cost_micros)
        SELECT run_id, annotator_id, pg_backend_pid() % {shards}, {sums} FROM added call
        GROUP BY run_id, annotator_id ORDER BY run_id, annotator_id
        ON CONFLICT (run_id, annotator_id, shard) DO UPDATE SET {raised};
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO workers_spend AS books (run_id, annotator_id, shard, calls, in_flight, lost, answers, answer_tokens,
                                            answer_cost_micros, input_tokens, output_tokens, cost_micros)
        SELECT run_id, annotator_id, pg_backend_pid() % {shards}, {negative} FROM removed call
        WHERE EXISTS (SELECT 1 FROM workers_run run WHERE run.id = call.run_id)
        GROUP BY run_id, annotator_id ORDER BY run_id, annotator_id
        ON CONFLICT (run_id, annotator_id, shard) DO UPDATE SET {raised};
    ELSE
        INSERT INTO workers_spend AS books (run_id, annotator_id, shard, calls, in_flight, lost, answers, answer_tokens,
                                            answer_cost_micros, input_tokens, output_tokens, cost_micros)
        SELECT run_id, annotator_id, pg_backend_pid() % {shards}, sum(calls), sum(in_flight), sum(lost), sum(answers),
               sum(answer_tokens), sum(answer_cost_micros), sum(input_tokens), sum(output_tokens), sum(cost_micros)
        FROM (
            SELECT run_id, annotator_id, {named} FROM added call GROUP BY run_id, annotator_id
            UNION ALL
            SELECT run_id, annotator_id, {negative} FROM removed call GROUP BY run_id, annotator_id
        ) AS change (run_id, annotator_id, calls, in_flight, lost, answers, answer_tokens, answer_cost_micros,
                     input_tokens, output_tokens, cost_micros)
        GROUP BY run_id, annotator_id ORDER BY run_id, annotator_id
        ON CONFLICT (run_id, annotator_id, shard) DO UPDATE SET {raised};
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER workers_attempt_added AFTER INSERT ON workers_attempt
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION workers_keep_books();
CREATE TRIGGER workers_attempt_changed AFTER UPDATE ON workers_attempt
    REFERENCING NEW TABLE AS added OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION workers_keep_books();
CREATE TRIGGER workers_attempt_removed AFTER DELETE ON workers_attempt
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION workers_keep_books();
"""

ADD_UP = """
INSERT INTO workers_spend (run_id, annotator_id, shard, calls, in_flight, lost, answers, answer_tokens,
                           answer_cost_micros, input_tokens, output_tokens, cost_micros)
SELECT run_id, annotator_id, 0, {sums} FROM workers_attempt call GROUP BY run_id, annotator_id
"""

FORGET = """
DROP TRIGGER workers_attempt_added ON workers_attempt;
DROP TRIGGER workers_attempt_changed ON workers_attempt;
DROP TRIGGER workers_attempt_removed ON workers_attempt;
DROP FUNCTION workers_keep_books();
"""

# A connection writes its own rows, so that answers stored at the same time do not wait for each other.
SHARDS = 32
COUNTED = [
    "count(*)",
    "count(*) FILTER (WHERE call.outcome = '')",
    "count(*) FILTER (WHERE call.outcome = 'lost')",
    "count(*) FILTER (WHERE {answered})",
    "COALESCE(sum(call.input_tokens::bigint + call.output_tokens) FILTER (WHERE {answered}), 0)",
    "COALESCE(sum(call.cost_micros) FILTER (WHERE {answered}), 0)",
    "COALESCE(sum(call.input_tokens), 0)",
    "COALESCE(sum(call.output_tokens), 0)",
    "COALESCE(sum(call.cost_micros), 0)",
]
ANSWERED = "call.outcome IN ('preference', 'both_irrelevant', 'cannot_judge')"
COLUMNS = "calls in_flight lost answers answer_tokens answer_cost_micros input_tokens output_tokens cost_micros".split()


def filled(statement: str) -> str:
    sums = [each.replace("{answered}", ANSWERED) for each in COUNTED]
    parts = {
        "shards": str(SHARDS),
        "sums": ", ".join(sums),
        "named": ", ".join(sums),
        "negative": ", ".join(f"-({each})" for each in sums),
        "raised": ", ".join(f"{name} = books.{name} + EXCLUDED.{name}" for name in COLUMNS),
    }
    for name, text in parts.items():
        statement = statement.replace("{" + name + "}", text)
    return statement


class Migration(migrations.Migration):

    dependencies = [
        ('labeling', '0007_spot_check_has_project'),
        ('workers', "0006_endpoints"),
    ]

    operations = [
        migrations.CreateModel(
            name='Caps',
            fields=[
                ('project', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='caps', serialize=False, to='labeling.project')),
                ('calls', models.PositiveBigIntegerField(blank=True, null=True)),
                ('tokens', models.PositiveBigIntegerField(blank=True, null=True)),
                ('cost_micros', models.PositiveBigIntegerField(blank=True, null=True)),
            ],
            options={
                'verbose_name_plural': 'caps',
            },
        ),
        migrations.CreateModel(
            name='Spend',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('annotator_id', models.BigIntegerField()),
                ('shard', models.SmallIntegerField()),
                ('calls', models.BigIntegerField(default=0)),
                ('in_flight', models.BigIntegerField(default=0)),
                ('lost', models.BigIntegerField(default=0)),
                ('answers', models.BigIntegerField(default=0)),
                ('answer_tokens', models.BigIntegerField(default=0)),
                ('answer_cost_micros', models.BigIntegerField(default=0)),
                ('input_tokens', models.BigIntegerField(default=0)),
                ('output_tokens', models.BigIntegerField(default=0)),
                ('cost_micros', models.BigIntegerField(default=0)),
            ],
        ),
        migrations.RemoveIndex(
            model_name='judgingtask',
            name='judging_task_open',
        ),
        migrations.AddField(
            model_name='run',
            name='is_spent',
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.AddIndex(
            model_name='judgingtask',
            index=models.Index(condition=models.Q(('state', 'open')), fields=['annotator', 'run', 'next_at', 'id'], name='judging_task_due'),
        ),
        migrations.AddField(
            model_name='spend',
            name='run',
            field=models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='spends', to='workers.run'),
        ),
        migrations.AddConstraint(
            model_name='spend',
            constraint=models.UniqueConstraint(fields=('run', 'annotator_id', 'shard'), name='spend_once'),
        ),
        migrations.RunSQL(
            "ALTER TABLE workers_spend ADD CONSTRAINT workers_spend_run FOREIGN KEY (run_id) REFERENCES workers_run (id) "
            "ON DELETE CASCADE",
            migrations.RunSQL.noop,
        ),
        migrations.RunSQL(filled(ADD_UP), migrations.RunSQL.noop),
        migrations.RunSQL(filled(KEEP_BOOKS), FORGET),
    ]
