"""manage.py batches: the batches at providers, since when, what they hold; cancels one."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from workers.judging.provider_batches.delivery import BatchIsOver, ask_to_cancel
from workers.models import ProviderBatch


class Command(BaseCommand):
    help = "List the batches that are at a provider, or cancel one."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", nargs="?", help="slug of one project (default: all)")
        parser.add_argument("--all", action="store_true", help="also list batches that have ended")
        parser.add_argument("--cancel", type=int, metavar="ID", help="cancel this batch at its provider")

    def handle(self, *args: Any, **options: Any) -> None:
        batches = ProviderBatch.objects.select_related("run__project", "annotator").order_by("id")
        if options["project"]:
            batches = batches.filter(run__project__slug=options["project"])
        if options["cancel"] is not None:
            self._cancel(batches.filter(pk=options["cancel"]).first(), options["cancel"])
            return
        rows = list(batches if options["all"] else batches.filter(state__in=ProviderBatch.OUT))
        for batch in rows:
            self.stdout.write(_line(batch))
        if not rows:
            self.stdout.write("No batches are at a provider.")

    def _cancel(self, batch: ProviderBatch | None, number: int) -> None:
        if batch is None:
            raise CommandError(f"there is no batch {number}; list them with manage.py batches --all")
        try:
            ask_to_cancel(batch)
        except BatchIsOver as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"Cancelling batch {number}. Its unanswered questions return to the queue.")


def _line(batch: ProviderBatch) -> str:
    since = f"{batch.sent_at or batch.created_at:%Y-%m-%d %H:%M}"
    tokens = batch.input_tokens + batch.output_tokens
    parts = [
        f"{batch.pk}",
        batch.run.project.slug,
        batch.annotator.name,
        str(batch.get_state_display()),
        f"since {since}",
        f"{batch.completed} of {batch.requests} questions",
        f"up to {tokens:,} tokens, ${batch.cost_micros / 1e6:,.2f} reserved",
        batch.batch_id or batch.file_id,
        batch.message,
    ]
    return "  ".join(part for part in parts if part)
