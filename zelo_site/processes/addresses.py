"""The address under which browsers reach the server. `serve` notes it in ZELO_HOME, and commands that print links read it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from django.conf import settings

from zelo_site.processes.listening import is_loopback

UNKNOWN = "http://127.0.0.1:8000"
FILE = "address"


def public_address(listening: str) -> str:
    """The first name of ZELO_HOSTS behind TLS, else the address on which the server listens."""
    names = [host for host in settings.ALLOWED_HOSTS if host[:1] not in {"*", "."} and not is_loopback(host)]
    return f"https://{names[0]}" if settings.HTTPS and names else listening


def note_address(home: Path, address: str) -> None:
    """Store the address of the server that runs now."""
    (home / FILE).write_text(f"{address}\n", encoding="utf-8")


def served_address(home: Path) -> str:
    """The address of the server that runs, or ran last, in this home."""
    with contextlib.suppress(OSError):
        return (home / FILE).read_text(encoding="utf-8").strip() or UNKNOWN
    return public_address(UNKNOWN)
