"""The space that each kind of rows takes in the database, indexes included."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings
from django.db import connection
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

# Tables by kind, as names or beginnings that end in *; the first that fits counts. Kinds of the same name have a limit of age.
TABLES = {
    "texts": ("labeling_query", "labeling_document"),
    "candidates": ("labeling_candidate", "labeling_pair", "labeling_modelgrade", "labeling_ratergrade"),
    "judgments": ("labeling_judgment", "labeling_spotcheck", "labeling_goldanswer"),
    "rationales": ("labeling_rationale",),
    "submissions": ("labeling_submission",),
    "imports": ("labeling_datasetimport",),
    "scores": ("scoring_*", "trainer_*"),
    "attempts": ("workers_attempt",),
    "tasks": ("workers_judgingtask",),
    "probes": ("workers_injectionprobe",),
    "trials": ("workers_judgetrial",),
    "jobs": ("workers_job",),
    "deliveries": ("workers_webhookdelivery",),
    "spend": ("workers_endpointspend",),
    "audit": ("workers_auditentry",),
    "sessions": ("django_session",),
}
OTHER = "other"
LABELS = {
    "texts": gettext_noop("Texts"),
    "candidates": gettext_noop("Candidates and pairs"),
    "judgments": gettext_noop("Answers"),
    "rationales": gettext_noop("Rationales"),
    "submissions": gettext_noop("Messages of the comparison screen"),
    "imports": gettext_noop("Rows left out of imports"),
    "scores": gettext_noop("Scores, snapshots and models"),
    "attempts": gettext_noop("Calls"),
    "tasks": gettext_noop("Questions and dead letters"),
    "probes": gettext_noop("Injection probes"),
    "trials": gettext_noop("Tests of judges"),
    "jobs": gettext_noop("Jobs"),
    "deliveries": gettext_noop("Webhook deliveries"),
    "spend": gettext_noop("Daily spend at endpoints"),
    "audit": gettext_noop("Audit log"),
    "sessions": gettext_noop("Sessions"),
    OTHER: gettext_noop("Other tables"),
}
_SIZES = """
SELECT relname, pg_total_relation_size(relid), n_live_tup FROM pg_stat_user_tables WHERE schemaname = 'public'
"""


@dataclass(frozen=True, slots=True)
class KindSize:
    """Bytes and about how many rows of one kind; `days`: how long ended rows stay, None for ever."""

    name: str
    bytes: int
    rows: int
    days: int | None

    @property
    def label(self) -> str:
        return _(LABELS[self.name])


def table_sizes() -> list[KindSize]:
    """The size of every kind, the largest first."""
    sizes = dict.fromkeys(LABELS, (0, 0))
    with connection.cursor() as cursor:
        cursor.execute(_SIZES)
        for table, size, rows in cursor.fetchall():
            kind = kind_of(str(table))
            sizes[kind] = (sizes[kind][0] + int(size), sizes[kind][1] + int(rows))
    found = [KindSize(name, size, rows, settings.ZELO_KEEP_DAYS.get(name)) for name, (size, rows) in sizes.items()]
    return sorted(found, key=lambda each: -each.bytes)


def kind_of(table: str) -> str:
    """The kind of a table's rows."""
    for kind, names in TABLES.items():
        if any(table == name or (name.endswith("*") and table.startswith(name[:-1])) for name in names):
            return kind
    return OTHER
