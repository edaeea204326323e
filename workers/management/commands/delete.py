"""`manage.py delete KIND PROJECT [ID ...]`: show what would be deleted, and delete it with --yes."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from labeling.models import Project
from workers.deletion.accounts import count_account, delete_account
from workers.deletion.orders import delete
from workers.deletion.projects import archive_project, purge_project, restore_project
from workers.deletion.targets import COUNT_LABELS, KINDS, DeletionRefused, UnknownTarget, count_project, find_target

PROJECT, RESTORE, PURGE, ACCOUNT = "project", "restore", "purge", "account"
WHOLE = (PROJECT, RESTORE, PURGE)


class Command(BaseCommand):
    help = (
        "Show what would be deleted with counts, and delete it with --yes. A project can be restored for 30 days "
        "(`delete restore SLUG`); `delete purge SLUG` deletes it permanently."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("kind", choices=[*WHOLE, ACCOUNT, *KINDS])
        parser.add_argument("where", help="project slug; the user name for an account")
        parser.add_argument("id", nargs="?", help="id or name of what is deleted in the project")
        parser.add_argument("--yes", action="store_true", help="delete; without it the command only counts")

    def handle(self, *args: Any, **options: Any) -> None:
        kind, where = options["kind"], options["where"]
        try:
            if kind == ACCOUNT:
                self._account(where, yes=options["yes"])
            elif kind in WHOLE:
                self._whole(kind, where, yes=options["yes"])
            else:
                self._target(kind, where, options["id"], yes=options["yes"])
        except (DeletionRefused, UnknownTarget) as error:
            raise CommandError(str(error)) from error

    def _target(self, kind: str, slug: str, wanted: str | None, *, yes: bool) -> None:
        if wanted is None:
            raise CommandError(f"name the {kind}: manage.py delete {kind} {slug} ID")
        target = find_target(_project(slug), kind, wanted)
        self._show(target.name, target.counted(), yes=yes)
        if yes:
            self.stdout.write(str(delete(target, wait=True).message))

    def _whole(self, kind: str, slug: str, *, yes: bool) -> None:
        project = _project(slug)
        if kind == RESTORE:
            restore_project(project)
            self.stdout.write(f"{slug} restored; its runs are paused")
            return
        self._show(project.name, count_project(project), yes=yes)
        if yes and kind == PROJECT:
            archive_project(project)
            self.stdout.write(f"{slug} deleted; `manage.py delete restore {slug}` brings it back for 30 days")
        elif yes:
            job = purge_project(project)
            self.stdout.write(f"{slug} is being purged by a worker (job {job.pk})")

    def _account(self, name: str, *, yes: bool) -> None:
        user = get_user_model().objects.filter(username=name).first()
        if user is None:
            raise CommandError(f"no user is named {name!r}; check the name")
        self._show(name, count_account(user), yes=yes)
        if yes:
            delete_account(user)
            self.stdout.write(f"{name} deleted")

    def _show(self, name: str, counts: dict[str, int], *, yes: bool) -> None:
        for key, number in counts.items():
            self.stdout.write(f"{number:>12,}  {COUNT_LABELS.get(key, key.replace('_', ' '))}")
        if not yes:
            self.stdout.write(f"nothing deleted; add --yes to delete {name}")


def _project(slug: str) -> Project:
    project = Project.with_archived.filter(slug=slug).first()
    if project is None:
        raise CommandError(f"no project has the slug {slug!r}; check the address of its page")
    return project
