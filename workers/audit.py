"""Who did what to the work and the money: an append-only list that nothing in the product changes.

`note` joins the caller's transaction, so that an entry exists exactly where its change does. Owners read the
entries of their projects, superusers all; see `zelo_site.pages.server.audit`.
"""

from __future__ import annotations

from typing import Any

from labeling.models import Project
from workers.models import AuditEntry


def note(action: str, *, project: Project | None, actor: Any = None, subject: str = "", **details: Any) -> AuditEntry:
    """Write one entry: `action` as "thing.done" ("run.paused"), `subject` what it was done to, `details` plain values.

    `actor` is a user, or None for the program itself and for commands on the server.
    """
    known = actor if getattr(actor, "is_authenticated", False) else None
    return AuditEntry.objects.create(
        project=project,
        actor=known,
        actor_name=known.get_username() if known is not None else "",
        action=action,
        subject=subject[:200],
        details=details,
    )
