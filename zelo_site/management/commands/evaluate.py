"""`manage.py evaluate PROJECT`: evaluate all rerankers on one split of a snapshot and print the leaderboard."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from labeling.importing.lines import RowError
from labeling.models import Project
from labeling.stored_texts import counted
from scoring.models import Snapshot
from scoring.numerics.measures.rankings import UnknownMetric
from scoring.numerics.measures.resampling import Interval
from scoring.storage.files import StoredFileUnusable
from trainer.evaluation.entries import EntryRefused, enter_outside, enter_run_file
from trainer.evaluation.external.rerankers import OutsideInvalid, UnknownOutside
from trainer.evaluation.leaderboard import SPLITS, Against, Leaderboard, NotEvaluated, Row, leaderboard
from trainer.evaluation.llm_grades import NoLlmGrades, chosen_models
from trainer.evaluation.metrics import REFERENCES, parse_measures
from trainer.evaluation.system_orders import NAMES, NoSystemOrders, Pair, SystemOrders, all_system_orders
from trainer.models import Reranker
from workers.jobs.evaluation import EvaluationRefused, evaluate, order_evaluation, unfinished_evaluation
from workers.models import Job
from zelo_site.cli.lookup import find_project, find_snapshot
from zelo_site.cli.terminal import table
from zelo_site.cli.watch import POLL_S
from zelo_site.processes.stack import database

# Baselines that every row is compared with, by kind, as the heads of the table name them.
BASELINES = {"bm25": "BM25", "base": "untrained base"}


class Command(BaseCommand):
    help = "Evaluate the first stage, BM25, the base model, judges, Elo and all rerankers on held-out queries."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="project slug")
        parser.add_argument("--snapshot", help="number or name of the snapshot (default: the latest)")
        parser.add_argument("--split", default="test", choices=SPLITS)
        parser.add_argument(
            "--run-file",
            action="append",
            default=[],
            metavar="FILE",
            help="add a run file to the leaderboard first",
        )
        parser.add_argument(
            "--outside",
            action="append",
            default=[],
            metavar="NAME",
            help="add one of ZELO_RERANKERS to the leaderboard first",
        )

        parser.add_argument(
            "--measures",
            default="",
            metavar="NAMES",
            help="measures to print, separated by commas, such as ndcg@10,map,rbp.95@100; the first orders the rows",
        )
        parser.add_argument(
            "-c",
            "--complete",
            action="store_true",
            help="count queries that a reranker lacks as 0, as trec_eval -c does",
        )
        parser.add_argument(
            "--llm-grades",
            type=int,
            metavar="JUDGE",
            help="compare the orders by the LLM grades of this judge's id (default: the mean of all models)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            measures = parse_measures(options["measures"])
        except UnknownMetric as error:
            raise CommandError(str(error)) from error
        with database():
            project = find_project(options["project"])
            snapshot = find_snapshot(project, options["snapshot"])
            try:
                if options["llm_grades"] is not None:
                    chosen_models(project, options["llm_grades"])
                for path in options["run_file"]:
                    with Path(path).open("rb") as stream:
                        enter_run_file(project, Path(path).name, stream)
                for name in options["outside"]:
                    enter_outside(project, name)
                has_entered = bool(options["run_file"] or options["outside"])
                job = _ordered(project, snapshot, options["split"], rerun=has_entered)
            except (
                EvaluationRefused, EntryRefused, RowError, UnknownOutside, OutsideInvalid, NoLlmGrades, OSError,
            ) as error:  # fmt: skip
                raise CommandError(str(error)) from error
            _carry_out(job)
            if job.state == Job.State.FAILED:
                raise CommandError(job.error)
            self.stdout.write(job.message)
            try:
                self._print_all(project, snapshot, options, measures)
            except StoredFileUnusable as error:
                raise CommandError(str(error)) from error

    def _print_all(
        self, project: Project, snapshot: Snapshot, options: Mapping[str, Any], measures: tuple[str, ...]
    ) -> None:
        split, model = options["split"], options["llm_grades"]
        for reference in REFERENCES:
            try:
                self._print(
                    leaderboard(project, snapshot, split, reference, measures=measures, complete=options["complete"])
                )
            except NotEvaluated:
                self.stdout.write(f"\nreference {reference}: no data to evaluate against")
        self._print_orders(all_system_orders(project, snapshot, split, measure=measures[0], model=model))

    def _print_orders(self, orders: Sequence[SystemOrders | NoSystemOrders]) -> None:
        self.stdout.write("\ndo the references order the rerankers alike?")
        heads = ["references", "Kendall's tau", "Pearson's r", "rerankers", "queries", "documents"]
        found = [each for each in orders if isinstance(each, SystemOrders)]
        if found:
            self.stdout.write(table(heads, [_orders_row(each) for each in found]))
        for each in orders:
            if isinstance(each, NoSystemOrders):
                self.stdout.write(f"{_named_pair(each.pair)}: {each}")

    def _print(self, board: Leaderboard) -> None:
        self.stdout.write(
            f"\nreference {board.reference}, {counted(board.queries, 'query', 'queries')} of {board.split}"
        )
        if board.complete:
            self.stdout.write("queries that a reranker lacks count as 0")
        differences = [f"{board.labels[0]} vs {name}" for name in BASELINES.values()]
        heads = ["reranker", *board.labels, *differences, "queries", "documents"]
        self.stdout.write(table(heads, [_row(row) for row in board.rows]))
        if board.domains:
            self.stdout.write(f"\n{board.labels[0]} by domain (number of queries)")
            domains = [domain or "-" for domain in board.domains]
            self.stdout.write(table(["reranker", *domains], [_domain_row(row) for row in board.rows]))


def _row(row: Row) -> list[str]:
    """Format the measures, the differences and what matched; a run's documents that are not candidates are added."""
    leading, *others = row.metrics.values()
    matched = row.matched
    return [
        _named(row),
        _shown(leading),
        *(f"{each.estimate:z.3f}" for each in others),
        *(_difference(row.against.get(kind)) for kind in BASELINES),
        f"{matched.queries} of {matched.of_queries}" if matched else str(row.queries),
        f"{matched.documents} of {matched.of_documents}"
        + (f" + {matched.others} ({matched.others_graded} graded)" if matched.others else "")
        + (f", all scores equal in {counted(matched.equal, 'query', 'queries')}" if matched.equal else "")
        if matched
        else "",
    ]


def _shown(own: Interval, form: str = "z.3f") -> str:
    """Format a mean with its interval, or say why there is none."""
    interval = f"{own.low:{form}}, {own.high:{form}}" if own.unknown is None else f"no interval: {own.unknown}"
    return f"{own.estimate:{form}} [{interval}]"


def _orders_row(found: SystemOrders) -> list[str]:
    """Format the agreement of two references and what matched."""
    judged = (
        f"{number} of {found.candidates} by {NAMES[reference]}"
        for reference, number in zip(found.pair, found.documents, strict=True)
    )
    return [
        _named_pair(found.pair) + (f" of {', '.join(found.models)}" if found.models else ""),
        *(
            f"{own.estimate:z.2f} [{own.low:z.2f}, {own.high:z.2f}]"
            for own in (found.agreement.kendall, found.agreement.pearson)
        ),
        str(len(found.systems)) + (f" without {', '.join(found.left_out)}" if found.left_out else ""),
        str(found.queries),
        ", ".join(judged),
    ]


def _named_pair(pair: Pair) -> str:
    return f"{NAMES[pair[0]]} and {NAMES[pair[1]]}"


def _difference(against: Against | None) -> str:
    return "" if against is None else _shown(against.test.difference, "+z.3f")


def _named(row: Row) -> str:
    """The reranker's name, and that the gate held it back."""
    reranker = row.evaluation.reranker
    is_published = reranker.release == Reranker.Release.PUBLISHED
    return row.name if is_published else f"{row.name} ({reranker.get_release_display()})"


def _ordered(project: Project, snapshot: Snapshot, split: str, *, rerun: bool) -> Job:
    """Return the waiting evaluation of this split, such as after a training, or a new one. Raises EvaluationRefused.

    A running evaluation has already chosen its rerankers. With `rerun`, wait for it and start another.
    """
    unfinished = unfinished_evaluation(project)
    if unfinished is not None and rerun and unfinished.state == Job.State.LEASED:
        _carry_out(unfinished)
        unfinished = unfinished_evaluation(project)
    wanted = {"snapshot": snapshot.pk, "split": split, "rerankers": None}
    if unfinished is not None and wanted.items() <= unfinished.payload.items():
        return unfinished
    return order_evaluation(project, snapshot, split)


def _carry_out(job: Job) -> None:
    """Run the job here until it ends; if a worker has leased it, wait, and take over if the worker dies."""
    while True:
        evaluate(job.pk, worker="manage.py evaluate")
        job.refresh_from_db()
        if job.state not in {Job.State.OPEN, Job.State.LEASED}:
            return
        time.sleep(POLL_S)


def _domain_row(row: Row) -> list[str]:
    """Format a figure; rows with fewer queries, such as a judge of one project, show their number."""
    found = ["-" if own is None else f"{_shown(own)} ({own.count})" for own in row.by_domain]
    return [_named(row), *found]
