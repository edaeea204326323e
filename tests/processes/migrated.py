"""The migrated database that every process of the tests copies: a copy takes a tenth of a second, the migrations ten.

It stays in the tests' home from one run to the next, named for what went into it.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings
from django.db import connection, connections

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "zelo_migrated_"
MADE_OF = ("*/migrations/*.py", "*/models.py", "*/models/*.py", "zelo_site/settings.py", "requirements.lock")


def migrated_database(home: Path) -> str:
    """The name of a database to which all migrations have been applied; the first who asks makes it."""
    name = PREFIX + fingerprint()
    with _locked(home / "migrated.lock"), connection._nodb_cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [PREFIX])
        found = {row[0] for row in cursor.fetchall()}
        if name not in found:
            for older in found:
                cursor.execute(f'DROP DATABASE IF EXISTS "{older}"')
            _migrate(f"{name}_unfinished")
            cursor.execute(f'ALTER DATABASE "{name}_unfinished" RENAME TO "{name}"')
    return name


def fingerprint() -> str:
    """A digest of all files that decide what the migrations make."""
    digest = hashlib.sha256()
    for pattern in MADE_OF:
        for path in sorted(ROOT.glob(pattern)):
            digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _migrate(name: str) -> None:
    """Make that database and close it, so that it can be copied."""
    before = {**connection.settings_dict}
    connection.settings_dict["TEST"] = {**before["TEST"], "NAME": name}
    try:
        connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
    finally:
        connection.close()
        connection.settings_dict.update(before)
        settings.DATABASES[connection.alias]["NAME"] = before["NAME"]
        connections[connection.alias].close()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
