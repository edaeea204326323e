"""Metrics of scores, judges, webhooks, batches, the database and backups; `zelo_site.operations.metrics` shows them all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from prometheus_client.core import GaugeMetricFamily, Metric

from labeling.models import AuditEntry
from workers.models import WebhookDelivery
from workers.monitoring.result_cache import costly
from workers.monitoring.table_sizes import table_sizes

# Queries of each project: fitted ones, stale ones, those whose last fit failed, and when the last fit was.
_FITS = """
SELECT project.slug, count(fit.query_id), count(*) FILTER (WHERE query.judged_version > COALESCE(fit.judged_version, 0)),
       count(*) FILTER (WHERE fit.error <> ''), COALESCE(extract(epoch FROM max(fit.fitted_at)), 0)::float8
FROM labeling_query query
JOIN labeling_project project ON project.id = query.project_id
LEFT JOIN scoring_queryfit fit ON fit.query_id = query.id
WHERE project.archived_at IS NULL GROUP BY project.slug ORDER BY project.slug
"""
_TROUBLE = "SELECT reason, count(*) FROM workers_judgetrouble GROUP BY reason ORDER BY reason"
_DELIVERIES = "SELECT state, count(*) FROM workers_webhookdelivery GROUP BY state ORDER BY state"
_BATCHES = "SELECT state, count(*) FROM workers_providerbatch GROUP BY state ORDER BY state"
_SESSIONS = """
SELECT count(*), COALESCE(max(extract(epoch FROM clock_timestamp() - xact_start)) FILTER (WHERE state <> 'idle'), 0)::float8,
       current_setting('max_connections')::int
FROM pg_stat_activity WHERE backend_type = 'client backend'
"""
BACKUPS = "server.backed_up"


def server_metrics() -> Iterator[Metric]:
    """All of them, read from the database."""
    yield from _fits()
    yield _counted("zelo_judges_in_trouble", "Judges that are paused because their answers fail.", _TROUBLE, "reason")
    messages = {(state,): 0 for state in WebhookDelivery.State.values}  # their first failure is a growth too
    messages |= {row[:1]: row[1] for row in read_rows(_DELIVERIES)}
    yield gauge("zelo_webhook_deliveries", "Messages of webhooks, by state.", list(messages.items()), ["state"])
    yield _counted("zelo_batches", "Batches at providers, by state.", _BATCHES, "state")
    yield from _database()
    last = AuditEntry.objects.filter(action=BACKUPS).order_by("-id").values_list("at", flat=True).first()
    text = "When the last backup was written, in Unix time; 0 without any."
    yield gauge("zelo_last_backup_timestamp_seconds", text, [((), last.timestamp() if last else 0.0)])


def _fits() -> Iterator[Metric]:
    rows: list[tuple[Any, ...]] = costly("zelo:metrics:fits", lambda: read_rows(_FITS))
    for name, text, column in (
        ("zelo_fitted_queries", "Queries with a fit.", 1),
        ("zelo_stale_queries", "Queries whose scores lack an answer.", 2),
        ("zelo_failed_fits", "Queries whose last fit failed.", 3),
        ("zelo_last_fit_timestamp_seconds", "When a query was last fitted, in Unix time; 0 without a fit.", 4),
    ):
        yield gauge(name, text, [((row[0],), row[column]) for row in rows], ["project"])


def _database() -> Iterator[Metric]:
    [(connections, oldest, most)] = read_rows(_SESSIONS)
    executor = MigrationExecutor(connection)
    missing = len(executor.migration_plan(executor.loader.graph.leaf_nodes()))
    sizes = [((each.name,), each.bytes) for each in table_sizes()]
    yield gauge("zelo_migrations_missing", "Migrations that are not applied.", [((), missing)])
    yield gauge("zelo_database_connections", "Open connections to the database server.", [((), connections)])
    yield gauge("zelo_database_connections_limit", "The most connections that it allows.", [((), most)])
    yield gauge("zelo_database_oldest_transaction_seconds", "Age of the oldest open transaction.", [((), oldest)])
    yield gauge("zelo_table_bytes", "Space in the database by kind of rows, with indexes.", sizes, ["kind"])


def _counted(name: str, text: str, statement: str, label: str) -> Metric:
    return gauge(name, text, [(row[:1], row[1]) for row in read_rows(statement)], [label])


def gauge(name: str, text: str, samples: Sequence[tuple[Sequence[Any], float]], labels: Sequence[str] = ()) -> Metric:
    """A gauge with these samples, each the labels' values and a number."""
    family = GaugeMetricFamily(name, text, labels=list(labels))
    for values, value in samples:
        family.add_metric([str(each) for each in values], float(value))
    return family


def read_rows(statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)
        return list(cursor.fetchall())
