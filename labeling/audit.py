"""Writes the audit log: every verb that changes data, access or spending calls `note`.

`note` joins the verb's transaction, so that an entry exists exactly where its change does. Pages, endpoints and
commands write no entry; they pass `by` to the verb. `zelo_site.pages.server.audit` shows the entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labeling.models import AuditEntry, Project

LONGEST_VALUE = 500


def note(action: str, *, project: Project | None, actor: Any = None, subject: str = "", **details: Any) -> AuditEntry:
    """Write one entry: `action` as "thing.done" ("run.paused"), `subject` what it was done to, `details` plain values.

    `actor` is a user, or None for the program itself and for commands on the server.
    """
    known = actor if getattr(actor, "is_authenticated", False) else None
    return AuditEntry.objects.create(
        project=project,
        project_name=project.name if project is not None else "",
        actor=known,
        actor_name=known.get_username() if known is not None else "",
        action=action,
        subject=_storable(subject)[:200],
        details={name: _storable(value) if isinstance(value, str) else value for name, value in details.items()},
    )


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, str]:
    """The values of `after` that differ from `before`, each as "old → new"; long ones are cut.

    Of options, which are mappings, only those that differ are named.
    """
    found: dict[str, str] = {}
    for name, value in after.items():
        old = before.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            found |= changes(old, {**dict.fromkeys(old), **value})
        elif old != value:
            found[name] = f"{_shown(old)} → {_shown(value)}"
    return found


def _shown(value: Any) -> str:
    text = "–" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def _storable(text: str) -> str:
    """Without what PostgreSQL refuses: NUL and half surrogate pairs, which names of files may hold."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()
