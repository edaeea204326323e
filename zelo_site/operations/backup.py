"""Writes a backup: one file with the database, the storage and the signing key, all of one moment.

The file is a tar archive: `database.dump` (pg_dump's custom format), `secret_key`, `storage/...` and, last, `manifest.json`. The database is dumped from one exported snapshot, in which every table is also counted and hashed, so that
a restore is compared row by row. The storage is copied after the dump: its files never change, and those that are newer than
the dump belong to no row. What the dump names and the storage lacks is listed in the manifest.

Work may continue during it. `zelo_site.operations.restore` reads the file.
Encryption: age (https://age-encryption.org/v1), for the holders of the given public keys.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyrage
from django.conf import settings
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from labeling import audit
from scoring.storage.files import storage
from zelo_site.processes.embedded import find_postgres

FORMAT, VERSION = "zelo-backup", 1
MANIFEST, DUMP, SECRET_KEY, STORAGE = "manifest.json", "database.dump", "secret_key", "storage/"
# Rows of these tables say who is signed in or alive; nobody misses them after a restore.
NOT_KEPT = ("django_session", "zelo_site_signinsession", "workers_worker")


class BackupFailed(RuntimeError):
    """The backup was not written; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Table:
    """The content of a table: its number of rows and the sum of their hashes, which does not depend on their order."""

    rows: int
    digest: str


@dataclass(slots=True)
class Manifest:
    """The contents of a backup. `files`: SHA-256 by path in the archive; `missing`: files that the storage no longer had."""

    made_at: str
    server_version: int
    migrations: list[str]
    tables: dict[str, Table]
    files: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def to_json(self) -> bytes:
        return json.dumps({"format": FORMAT, "version": VERSION, **asdict(self)}, indent=1).encode()


def write_backup(
    target: Path,
    *,
    recipients: Sequence[str] = (),
    check: Callable[[Path], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Write a backup to `target`, which exists only once it is complete (mode 0600).

    `recipients`: age public keys (age1...); without any, the file is not encrypted. `check` gets the complete archive before
    it is encrypted, and raises if it is not good. Raises BackupFailed.
    """
    keys = read_recipients(recipients)
    folder = target.absolute().parent
    if not folder.is_dir():
        raise BackupFailed(f"{folder} is not a folder; create it, or choose another place")
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{target.name}.") as scratch:
            archive = Path(scratch) / "archive.tar"
            manifest = _write_archive(archive, Path(scratch), say)
            if check is not None:
                check(archive)
            if keys:
                sealed = Path(scratch) / "archive.age"
                with archive.open("rb") as source, sealed.open("wb") as out:
                    pyrage.encrypt_io(source, out, keys)
                archive = sealed
            archive.chmod(0o600)
            _flush(archive)
            archive.replace(target)
            _note_backup(target, manifest, encrypted=bool(keys))
    except OSError as error:
        raise BackupFailed(
            f"cannot write {target}: {error.strerror or error}; free some space, or choose another place"
        ) from error
    return manifest


def _note_backup(target: Path, manifest: Manifest, *, encrypted: bool) -> None:
    """Enter the backup in the audit log, unless the tables are those of an older program (`manage.py upgrade`)."""
    executor = MigrationExecutor(connection)
    if not executor.migration_plan(executor.loader.graph.leaf_nodes()):
        note_backup(target, rows=sum(table.rows for table in manifest.tables.values()), encrypted=encrypted)


def note_backup(target: Path, *, rows: int, encrypted: bool) -> None:
    """Enter a backup in the audit log; `/metrics` shows when the last one was written."""
    audit.note("server.backed_up", project=None, subject=target.name, rows=rows, encrypted=encrypted)


def read_recipients(names: Sequence[str]) -> list[Any]:
    """The age public keys. Raises BackupFailed."""
    keys = []
    for name in names:
        try:
            keys.append(pyrage.x25519.Recipient.from_str(name.strip()))
        except pyrage.RecipientError as error:
            raise BackupFailed(
                f"{name!r} is not a public key of age; expected age1..., as `age-keygen` prints it"
            ) from error
    return keys


def _write_archive(archive: Path, scratch: Path, say: Callable[[str], None]) -> Manifest:
    dump = scratch / DUMP
    with _snapshot() as (snapshot, tables):
        say(f"dumping {sum(table.rows for table in tables.values()):,} rows of {len(tables)} tables")
        _dump(dump, snapshot)
        manifest = Manifest(
            made_at=timezone.now().isoformat(timespec="seconds"),
            server_version=_server_version(),
            migrations=sorted(f"{app}.{name}" for app, name in MigrationRecorder(connection).applied_migrations()),
            tables=tables,
        )
    with tarfile.open(archive, "w") as tar:
        manifest.files[DUMP] = _add_file(tar, DUMP, dump)
        manifest.files[SECRET_KEY] = _add_bytes(tar, SECRET_KEY, settings.SECRET_KEY.encode())
        _add_storage(tar, scratch / "stored", manifest, say)
        _add_bytes(tar, MANIFEST, manifest.to_json())
    return manifest


def _add_storage(tar: tarfile.TarFile, scratch: Path, manifest: Manifest, say: Callable[[str], None]) -> None:
    """Add every stored file; one that is deleted meanwhile is listed as missing."""
    files = storage()
    names = files.names()
    say(f"copying {len(names):,} stored files")
    for name in names:
        try:
            files.download(name, scratch)
        except FileNotFoundError:
            manifest.missing.append(name)
        else:
            manifest.files[f"{STORAGE}{name}"] = _add_file(tar, f"{STORAGE}{name}", scratch)


# --- the database ------------------------------------------------------------------------


@contextlib.contextmanager
def _snapshot() -> Iterator[tuple[str, dict[str, Table]]]:
    """Export a snapshot of the database, and count its tables in it; it is valid until the block ends."""
    with connection.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        try:
            cursor.execute("SELECT pg_export_snapshot()")
            snapshot = str(cursor.fetchone()[0])
            yield snapshot, table_contents()
        finally:
            cursor.execute("ROLLBACK")


def table_contents() -> dict[str, Table]:
    """Rows and hash of every table that is kept, by name."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_stat_user_tables WHERE schemaname = 'public' ORDER BY relname")
        names = [str(row[0]) for row in cursor.fetchall()]
        found = {}
        for name in names:
            if name in NOT_KEPT:
                continue
            table = connection.ops.quote_name(name)
            cursor.execute(f"SELECT count(*), COALESCE(sum(hashtextextended(t::text, 0)), 0)::text FROM {table} t")
            rows, digest = cursor.fetchone()
            found[name] = Table(int(rows), str(digest))
    return found


def _server_version() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version_num")
        return int(cursor.fetchone()[0])


def _dump(target: Path, snapshot: str) -> None:
    command = ["pg_dump", "--format=custom", "--compress=1", "--no-owner", "--no-privileges", f"--snapshot={snapshot}"]
    command += [f"--exclude-table-data={name}" for name in NOT_KEPT]
    run_postgres([*command, f"--file={target}"])


def run_postgres(command: Sequence[str]) -> None:
    """Run pg_dump or pg_restore against the project's database. Raises BackupFailed."""
    tool = find_postgres(os.environ) / command[0]
    if not tool.is_file():
        found = shutil.which(command[0])
        if found is None:
            raise BackupFailed(f"{command[0]} was not found; install PostgreSQL's client programs, or set ZELO_PG_BIN")
        tool = Path(found)
    done = subprocess.run(
        [str(tool), *command[1:]],
        env=libpq_environment(),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise BackupFailed(f"{command[0]} failed: {'; '.join(lines[:3])}")


def libpq_environment() -> dict[str, str]:
    """The environment that makes PostgreSQL's programs use the project's database; passwords stay off command lines."""
    names = {
        "host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE",
        "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT", "sslcert": "PGSSLCERT", "sslkey": "PGSSLKEY",
    }  # fmt: skip
    parameters = connection.get_connection_params()
    own = {name: str(parameters[key]) for key, name in names.items() if parameters.get(key)}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, **own}


# --- files -------------------------------------------------------------------------------


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> str:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o600
    tar.addfile(entry, io.BytesIO(data))
    return hashlib.sha256(data).hexdigest()


def _add_file(tar: tarfile.TarFile, name: str, path: Path) -> str:
    """Move a file into the archive; return its SHA-256."""
    with path.open("rb") as stream:
        checksum = hashlib.file_digest(stream, "sha256").hexdigest()
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = path.stat().st_size, 0o600
        stream.seek(0)
        tar.addfile(entry, stream)
    path.unlink()
    return checksum


def _flush(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
