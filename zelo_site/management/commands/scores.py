"""`manage.py scores PROJECT QUERY`: print a query's candidates by Elo."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from labeling.models import Candidate
from scoring.known_scores import best_elo_first
from zelo_site.cli.lookup import find_project, find_query
from zelo_site.cli.terminal import table
from zelo_site.processes.stack import database


class Command(BaseCommand):
    help = "Print the ranking of one query with Elo scores and 95 % intervals."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="project slug")
        parser.add_argument("query", help="query id from the imported file")
        parser.add_argument("--top", type=int, default=20)

    def handle(self, *args: Any, **options: Any) -> None:
        if options["top"] < 1:
            raise CommandError(f"--top is {options['top']}; pass 1 or more")
        with database():
            query = find_query(find_project(options["project"]), options["query"])
            rows = (
                Candidate.objects.filter(query=query)
                .select_related("document", "score")
                .order_by(*best_elo_first(), "id")[: options["top"]]
            )
            self.stdout.write(query.text + "\n")
            self.stdout.write(table(["document", "Elo", "±", "compared"], [self._row(row) for row in rows]))

    def _row(self, candidate: Candidate) -> list[str]:
        score = getattr(candidate, "score", None)
        if score is None or not score.comparisons:
            return [candidate.document.external_id, "–", "–", "0"]
        interval = f"{1.96 * score.elo_stderr:.0f}"
        return [candidate.document.external_id, f"{score.elo:.0f}", interval, str(score.comparisons)]
