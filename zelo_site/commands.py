"""The command that starts a worker for this installation, without secrets."""

from __future__ import annotations

import os
import shlex
from urllib.parse import urlsplit, urlunsplit

from zelo_site.services import home_folder

ADDRESSES = ("DATABASE_URL", "BROKER_URL", "STORAGE_URL")


def worker_command(queue: str, *, in_full: bool) -> str:
    """Return the command for one queue; `in_full`, for administrators, includes the addresses or ZELO_HOME."""
    command = f"python manage.py worker {queue}"
    if not in_full:
        return command
    given = {name: os.environ[name] for name in ADDRESSES if os.environ.get(name)}
    words = [f"{name}={shlex.quote(_without_secret(url))}" for name, url in given.items()]
    if not given.keys() >= {"DATABASE_URL", "BROKER_URL"} and os.environ.get("ZELO_HOME"):
        words.append(f"ZELO_HOME={shlex.quote(str(home_folder()))}")  # locates the embedded servers
    return " ".join([*words, command])


def _without_secret(url: str) -> str:
    """Return the address with its password replaced by PASSWORD."""
    parts = urlsplit(url)
    if not parts.password:
        return url
    user, host = parts.username or "", parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}:PASSWORD@{host}"))
