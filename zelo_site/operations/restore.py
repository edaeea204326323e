"""Reads a backup back into an empty installation: all of it, or nothing.

Files are unpacked and checked first, then stored, and the database comes last, in one transaction. Afterwards every table
is counted and hashed again; a difference empties the database. See `zelo_site.operations.backup` for the format.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pyrage
from django.conf import settings
from django.db import connection

from scoring.storage.files import BLOCK, storage
from zelo_site.operations.backup import (
    DUMP,
    FORMAT,
    MANIFEST,
    SECRET_KEY,
    STORAGE,
    VERSION,
    BackupFailed,
    Manifest,
    Table,
    run_postgres,
    table_contents,
)

AGE_MAGIC = b"age-encryption.org/"


class RestoreRefused(RuntimeError):
    """Nothing was restored; the message says why and what to do."""


def restore_backup(
    source: Path, *, identity: Path | None = None, say: Callable[[str], None] = lambda line: None
) -> Manifest:
    """Restore `source` into this installation, whose database must hold no project and no account.

    `identity`: file with age's secret key for an encrypted backup. Raises RestoreRefused.
    """
    _refuse_content()
    try:
        with tempfile.TemporaryDirectory(dir=settings.ZELO_HOME, prefix="restore.") as scratch:
            archive = _decrypted(source, identity, Path(scratch) / "archive.tar")
            manifest = _unpack(archive, Path(scratch) / "files")
            say(f"backup of {manifest.made_at}: {len(manifest.files):,} files, checksums are right")
            _restore_storage(Path(scratch) / "files", manifest)
            _restore_key(Path(scratch) / "files")
            say("restoring the database")
            _restore_database(Path(scratch) / "files" / DUMP, manifest)
    except OSError as error:
        raise RestoreRefused(f"cannot restore {source}: {error.strerror or error}") from error
    return manifest


def _refuse_content() -> None:
    with connection.cursor() as cursor:
        known = set(connection.introspection.table_names(cursor))
        ours = {*connection.introspection.django_table_names(), "django_migrations"}
        if foreign := sorted(known - ours):
            raise RestoreRefused(
                f"this database holds tables of another program ({', '.join(foreign[:3])}), which a restore would remove; "
                "name an empty database in DATABASE_URL"
            )
        for table, what in (("labeling_project", "projects"), ("auth_user", "accounts")):
            if table in known:
                cursor.execute(f"SELECT count(*) FROM {connection.ops.quote_name(table)}")
                if count := cursor.fetchone()[0]:
                    raise RestoreRefused(
                        f"this database already holds {count:,} {what}; restore into an empty ZELO_HOME or an empty "
                        "database, so that nothing is overwritten"
                    )


# --- the archive -------------------------------------------------------------------------


def _decrypted(source: Path, identity: Path | None, target: Path) -> Path:
    with source.open("rb") as stream:
        encrypted = stream.read(len(AGE_MAGIC)) == AGE_MAGIC
    if not encrypted:
        return source
    if identity is None:
        raise RestoreRefused(f"{source} is encrypted; pass its secret key with --identity FILE")
    try:
        lines = identity.read_text().splitlines()
        keys = [pyrage.x25519.Identity.from_str(line.strip()) for line in lines if line.startswith("AGE-SECRET-KEY-")]
        if not keys:
            raise RestoreRefused(f"{identity} holds no secret key of age; expected a line AGE-SECRET-KEY-...")
        with source.open("rb") as stream, target.open("wb") as out:
            pyrage.decrypt_io(stream, out, keys)
    except (pyrage.DecryptError, pyrage.IdentityError, UnicodeDecodeError) as error:
        raise RestoreRefused(
            f"{identity} does not open {source} ({error}); pass the key that it was made for"
        ) from error
    return target


def _unpack(archive: Path, folder: Path) -> Manifest:
    """Unpack the archive, and compare every file with its checksum."""
    try:
        with tarfile.open(archive, "r|") as tar:
            found = {entry.name: _unpack_file(tar, entry, folder) for entry in tar if entry.isfile()}
    except tarfile.TarError as error:
        raise RestoreRefused(f"the backup is damaged or cut off ({error}); use another one") from error
    if found.pop(MANIFEST, None) is None:
        raise RestoreRefused(f"{MANIFEST} is missing: this is not a backup, or it is cut off; use another one")
    manifest = _read_manifest((folder / MANIFEST).read_bytes())
    wrong = sorted(name for name in {*manifest.files, *found} if found.get(name) != manifest.files.get(name))
    if wrong:
        raise RestoreRefused(f"the backup is damaged: {', '.join(wrong[:3])}; use another one")
    return manifest


def _read_manifest(text: bytes) -> Manifest:
    try:
        found: dict[str, Any] = json.loads(text)
        kind, version = found.pop("format"), found.pop("version")
        if kind != FORMAT or version > VERSION:
            raise RestoreRefused(
                f"this is {kind} version {version}; expected {FORMAT} up to {VERSION}: install a newer zelo"
            )
        tables = {name: Table(**table) for name, table in found.pop("tables").items()}
        return Manifest(tables=tables, **found)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RestoreRefused(
            f"the backup's {MANIFEST} cannot be read ({type(error).__name__}); use another one"
        ) from error


def _unpack_file(tar: tarfile.TarFile, entry: tarfile.TarInfo, folder: Path) -> str:
    parts = PurePosixPath(entry.name).parts
    if entry.issparse():  # a few bytes could unpack to more than any disk holds
        raise RestoreRefused(f"the backup holds {entry.name!r} as a sparse file, which no backup does; use another one")
    content = tar.extractfile(entry)
    if entry.name.startswith("/") or ".." in parts or "\\" in entry.name or content is None:
        raise RestoreRefused(f"the backup names the file {entry.name!r}, which leaves its folder; use another one")
    target = folder.joinpath(*parts)
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    digest = hashlib.sha256()
    with target.open("wb") as out:
        while block := content.read(BLOCK):
            digest.update(block)
            out.write(block)
    return digest.hexdigest()


# --- what is restored --------------------------------------------------------------------


def _restore_storage(folder: Path, manifest: Manifest) -> None:
    files = storage()
    for name in manifest.files:
        if name.startswith(STORAGE):
            with (folder / name).open("rb") as source, files.writing(name.removeprefix(STORAGE)) as target:
                shutil.copyfileobj(source, target, BLOCK)


def _restore_key(folder: Path) -> None:
    """The signing key of the home becomes the backup's, which opens stored keys of endpoints."""
    home = Path(settings.ZELO_HOME)
    draft = home / f"secret_key.{os.getpid()}"
    with contextlib.ExitStack() as undo:
        undo.callback(lambda: draft.unlink(missing_ok=True))
        draft.touch(mode=0o600)
        draft.write_bytes((folder / SECRET_KEY).read_bytes())
        draft.replace(home / "secret_key")


def _restore_database(dump: Path, manifest: Manifest) -> None:
    _empty()
    connection.close()
    try:
        run_postgres(
            ["pg_restore", "--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges", "--dbname",
             str(connection.get_connection_params()["dbname"]), str(dump)]
        )  # fmt: skip
        found = table_contents()
    except BackupFailed as error:
        raise RestoreRefused(str(error)) from error
    wrong = sorted(name for name, table in manifest.tables.items() if found.get(name) != table)
    if wrong:
        _empty()
        raise RestoreRefused(
            f"the restored tables differ from the backup's: {', '.join(wrong[:5])}; nothing was kept. Restore with the major "
            f"version of PostgreSQL that made it ({manifest.server_version // 10000})"
        )


def _empty() -> None:
    """Drop the tables that a start of the server made; there is no content in them."""
    with connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA public CASCADE")
        cursor.execute("CREATE SCHEMA public")
