"""Upgrades an installation to the program that is installed: checks, backup, migrations, restart.

`manage.py upgrade` runs it after the new program was installed, beside a running server or without one. The tables may still
be those of an older program, so nothing here reads them through the models.
"""

from __future__ import annotations

import datetime
import io
import shutil
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

from labeling import audit
from zelo_site.operations.backup import BackupFailed, note_backup, write_backup
from zelo_site.processes.restarting import RestartFailed, order_restart

# A backup needs its own size twice while it is written; the dump is smaller than the tables.
SPACE_FACTOR = 2
ALIVE_S = 20


class UpgradeRefused(RuntimeError):
    """The installation was not upgraded; the message says why and what to do."""


@dataclass(frozen=True)
class Plan:
    """The migrations that an upgrade applies, in order."""

    migrations: Sequence[str]


def upgrade(
    home: Path,
    *,
    is_running: bool,
    backup: Path | None,
    recipients: Sequence[str] = (),
    check_backup: Callable[[Path], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Plan:
    """Check, back up, migrate and restart; returns what was done. Raises UpgradeRefused, BackupFailed, RestartFailed.

    `is_running`: whether `manage.py up` holds the home. It then stops its processes for the migrations, or restarts them
    one after another where there are none. `backup`: the file to write, None to write none.
    """
    plan = examine(home, is_running=is_running)
    say(_summary(plan))
    if backup is not None:
        _check_space(backup)
        say(f"backing up to {backup}")
        manifest = write_backup(backup, recipients=recipients, check=check_backup, say=say)
    if is_running:
        say("stopping the processes, migrating, starting them" if plan.migrations else "restarting the processes")
        connection.close()
        try:
            order_restart(home, migrate=bool(plan.migrations))
        except RestartFailed as error:
            raise RestartFailed(f"{error}{_way_back(plan, backup)}") from error
    elif plan.migrations:
        say("migrating")
        try:
            call_command("migrate", verbosity=0)
        except DatabaseError as error:
            raise UpgradeRefused(f"the migrations failed: {error}{_way_back(plan, backup)}") from error
    if left := pending_migrations():
        raise UpgradeRefused(f"{len(left)} migrations are not applied, the first is {left[0]}; run the command again")
    if backup is not None and plan.migrations:  # before, the tables were older than the program
        rows = sum(table.rows for table in manifest.tables.values())
        note_backup(backup, rows=rows, encrypted=bool(recipients))
    last = plan.migrations[-1] if plan.migrations else ""
    audit.note("server.upgraded", project=None, subject=last, migrations=len(plan.migrations))
    return plan


def examine(home: Path, *, is_running: bool) -> Plan:
    """Check that this program can take over the installation. Raises UpgradeRefused."""
    try:
        call_command("check", stdout=io.StringIO())
    except SystemCheckError as error:
        raise UpgradeRefused(f"the settings have errors; correct them first:\n{error}") from error
    try:
        executor = MigrationExecutor(connection)
    except DatabaseError as error:
        raise UpgradeRefused(f"the database does not answer ({error}); start it, or check DATABASE_URL") from error
    unknown = sorted(set(executor.loader.applied_migrations) - set(executor.loader.disk_migrations or {}))
    # A squashed or removed migration of Django's own apps does no harm.
    ours = [
        f"{app}.{name}" for app, name in unknown if app in {"labeling", "scoring", "trainer", "workers", "zelo_site"}
    ]
    if ours:
        raise UpgradeRefused(
            f"the database is newer than this program: it has the migration {ours[-1]}; install the newer zelo again, "
            "or restore a backup of this one into an empty home"
        )
    migrations = pending_migrations()
    if migrations and (others := _other_workers(is_running=is_running)):
        raise UpgradeRefused(
            f"workers of other hosts or services are running ({', '.join(others[:5])}), and the tables will change; stop "
            "them first, and start them again with the new program"
        )
    return Plan(migrations)


def pending_migrations() -> list[str]:
    """The migrations of this program that the database lacks, in order."""
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [f"{migration.app_label}.{migration.name}" for migration, _ in plan]


def default_backup(home: Path, now: datetime.datetime) -> Path:
    """Return the file of the backup that an upgrade writes; its folder is private to the user."""
    folder = home / "backups"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / f"before-upgrade-{now:%Y-%m-%d-%H%M%S}"


def _other_workers(*, is_running: bool) -> list[str]:
    """Names of live workers that the running server of this home did not start; it starts those of its host alone."""
    with connection.cursor() as cursor:
        if "workers_worker" not in connection.introspection.table_names(cursor):
            return []
        cursor.execute(
            "SELECT name FROM workers_worker WHERE seen_at > clock_timestamp() - make_interval(secs => %s) "
            "AND (NOT %s OR host <> %s) ORDER BY name",
            [ALIVE_S, is_running, socket.gethostname()],
        )
        return [str(row[0]) for row in cursor.fetchall()]


def _check_space(backup: Path) -> None:
    folder = backup.absolute().parent
    if not folder.is_dir():
        raise BackupFailed(f"{folder} is not a folder; create it, or choose another place")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_database_size(current_database())")
        needed = SPACE_FACTOR * int(cursor.fetchone()[0])
    if (free := shutil.disk_usage(folder).free) < needed:
        raise BackupFailed(
            f"{folder} has {free:,} bytes free; expected {needed:,} for the backup. Free some space, name another place "
            "with --backup, or pass --no-backup"
        )


def _summary(plan: Plan) -> str:
    if not plan.migrations:
        return "the tables are current"
    return f"{len(plan.migrations)} migrations to apply, the last is {plan.migrations[-1]}"


def _way_back(plan: Plan, backup: Path | None) -> str:
    if not plan.migrations:
        return ""
    back = f", or install the older program and restore {backup} into an empty home" if backup is not None else ""
    return f". The processes are stopped. Correct the cause and run `manage.py upgrade` again{back}"
