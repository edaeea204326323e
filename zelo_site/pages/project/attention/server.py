"""Problems of the server that stop a project's work: no broker, no worker, no room on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from django.conf import settings
from django.core.cache import cache
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from zelo_site.doctor import LEAST_FREE_BYTES
from zelo_site.pages.project.attention.causes import Cause, words_of
from zelo_site.pages.project.attention.needs import Audience, Button, Level, Need
from zelo_site.pages.project.queues import QueueState
from zelo_site.templatetags.figures import decimals

DISK_CACHE_S = 5
# Below this the next results do not fit; above it, up to the doctor's limit, there is time to act.
NO_ROOM_BYTES = 256 * 1024**2


def server_needs(*, broker: bool, missing: Sequence[QueueState], works: bool) -> list[Need]:
    """Return the server's problems; `works`: work of the project is waiting, for which each of `missing` needs a worker."""
    found = []
    if not broker:
        found.append(
            Need(
                "broker",
                Level.ERROR,
                _("The broker is not responding."),
                what=_(
                    "Workers are not notified of new work. No work is lost: workers poll for it, so scores update a little more slowly."
                ),
                again=_("Every process tries to reconnect every few seconds, and judging then resumes."),
                todo=_("Start Valkey or Redis, or the server with `make up`."),
                buttons=(Button(_("Check services"), reverse("doctor"), audience=Audience.SUPERUSERS),),
            )
        )
    elif works and missing:
        found.append(_no_worker(missing))
    if (free := free_bytes()) < LEAST_FREE_BYTES:
        found.append(_disk(free))
    return found


def _no_worker(missing: Sequence[QueueState]) -> Need:
    names = [queue.name for queue in missing]
    title = ngettext(
        "No worker serves the queue “%(names)s”.", "No worker serves the queues “%(names)s”.", len(names)
    ) % {"names": ", ".join(names)}
    lost = {name == "rating" for name in names}
    whats = [_("Without one, scores are not updated.")] if True in lost else []
    whats += [_("Without one, judges are not asked.")] if False in lost else []
    return Need(
        "queues",
        Level.ERROR,
        title,
        what=" ".join(whats),
        again=_("The work waits, and begins within seconds when a worker starts."),
        todo=_("Start one in zelo’s directory") + ":",
        command="\n".join(queue.command for queue in missing),
    )


def _disk(free: int) -> Need:
    words = words_of(Cause.DISK_FULL)
    size = decimals(free / 1024**3, 1)
    if free < NO_ROOM_BYTES:
        title, level = _("The server’s disk is full: %(size)s GiB are free.") % {"size": size}, Level.ERROR
        return Need("disk", level, title, what=words.what, again=words.again, todo=words.todo)
    title = _("The server’s disk is almost full: %(size)s GiB are free.") % {"size": size}
    return Need(
        "disk", Level.WARNING, title, what=_("Work continues until the disk is full; then nothing new can be stored."),
        again=_("This page refreshes every few seconds."), todo=words.todo,
    )  # fmt: skip


def free_bytes() -> int:
    """Return the free space where the server keeps its files, as it was at most five seconds ago."""

    def read() -> int:
        home = Path(settings.ZELO_HOME)
        while not home.exists() and home != home.parent:
            home = home.parent
        return shutil.disk_usage(home).free

    return int(cache.get_or_set("zelo:free-bytes", read, DISK_CACHE_S) or 0)
