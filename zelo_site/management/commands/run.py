"""`manage.py run FILE`: import a file, judge it, and print Elo scores and, with grades, their NDCG.

Without a file, it judges an existing project.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pydantic
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection

from labeling.importing.dataset import ImportFailed, import_dataset
from labeling.models import Project
from labeling.plugins import UnknownPlugin, problem_of
from labeling.projects import BadProject, create_project
from labeling.retrieval.candidates import rank_candidates
from workers.models import Run
from workers.runs.choices.presets import PRESETS, get_preset
from workers.runs.choices.queries import QueryChoice
from workers.runs.ordering import RunRefused, start_run
from workers.runs.transitions import pause_run
from zelo_site.cli.closing import closing_lines
from zelo_site.cli.default_judges import default_judges
from zelo_site.cli.interrupts import INTERRUPTED, uninterrupted
from zelo_site.cli.judge_arguments import add_judge_arguments, check_prices, make_judges, read_judges
from zelo_site.cli.lookup import find_project
from zelo_site.cli.terminal import ProgressBar
from zelo_site.cli.watch import LOCAL_JUDGES, RunStopped, quality_table, watch
from zelo_site.processes.stack import working


class Command(BaseCommand):
    run: Run | None = None
    help = "Import queries with their documents, judge pairs, and print the quality of the scores."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "file", type=Path, nargs="?", help="zbench JSON lines, plain or gzipped (optional with --project)"
        )
        parser.add_argument("--qrels", type=Path, help="TREC qrels with human grades; judges never see them")
        parser.add_argument("--project", default="", help="slug of an existing project (default: create one)")
        parser.add_argument("--name", default="", help="name of the new project (default: the file name)")
        add_judge_arguments(
            parser,
            otherwise=f"a language model if OPENAI_API_KEY or OPENAI_BASE_URL is set, otherwise {' '.join(LOCAL_JUDGES)}",
        )
        parser.add_argument(
            "--preset",
            choices=[each.key for each in PRESETS],
            help="design, votes and queries in one word, as on the page",
        )
        parser.add_argument("--sampler", help="design (default: the preset's, otherwise cycles)")
        parser.add_argument("--allocation", choices=Run.Allocation.values, help="default: the preset's, otherwise all")
        parser.add_argument(
            "--threshold", type=float, help="cascade: ask the next judge when |p - 0.5| is below this value"
        )
        parser.add_argument("--orders", default="one", choices=["one", "both"])
        parser.add_argument("--query-text", default="", help="only queries that contain this text")
        parser.add_argument("--sample", type=int, help="largest number of queries, chosen at random")
        parser.add_argument("--certainty-below", type=float, help="only queries whose top-10 certainty is lower")
        parser.add_argument("--as-in-run", type=int, help="only the queries of this earlier run")
        parser.add_argument(
            "--judge-weights", choices=["equal", "anchored"], help="change how the project's fits weight judges"
        )
        parser.add_argument("--pairs", type=int, default=None, help="maximum number of pairs across all queries")
        parser.add_argument(
            "--calls", type=int, help="maximum number of calls; the remaining questions wait for another run"
        )
        parser.add_argument("--tokens", type=int, help="maximum number of input and output tokens")
        parser.add_argument("--dollars", type=float, help="budget in US dollars, at the endpoints' prices")
        parser.add_argument(
            "--sampler-options", default="", help='sampler options as JSON, for example {"enough_recall": 0.95}'
        )
        parser.add_argument("--seed", type=int, default=None)

    def handle(self, *args: Any, **options: Any) -> None:
        for path in (options["file"], options["qrels"]):
            if path is not None and not path.is_file():
                raise CommandError(f"file {path} does not exist; check the path")
        if options["file"] is None and not options["project"]:
            raise CommandError("nothing to judge; pass a file, or --project with a project slug")
        options["judges"] = read_judges(options) or default_judges()
        _complete(options)
        options["cost_budget_micros"] = _micros(options["dollars"])
        try:
            with working() as tick:
                self._run_until_stopped(options, tick)
        except KeyboardInterrupt:  # while the services start or stop
            raise CommandError("stopped", returncode=INTERRUPTED) from None
        except (BadProject, ImportFailed, RunRefused, RunStopped, UnknownPlugin, pydantic.ValidationError) as error:
            raise CommandError(problem_of(error)) from error

    def _run(self, options: dict[str, Any], tick: Any) -> None:
        check_prices(options["judges"], options["dollars"])
        project = self._project(options)
        if options["file"]:
            self._import(project, options["file"], "zbench-jsonl")
        if options["qrels"]:
            self._import(project, options["qrels"], "trec-qrels")
        bar = ProgressBar("2 Candidates", sys.stdout)
        ranked = rank_candidates(project, progress=bar.show)
        bar.end(f"{ranked:,} ranked by BM25" if ranked else "all have ranks")
        judges = make_judges(project, options["judges"])
        with uninterrupted():  # else the run might be stored and continue, unknown to `_stopped`
            self.run = run = start_run(
                project,
                judges=judges,
                sampler=options["sampler"],
                sampler_options=options["sampler_options"],
                allocation=options["allocation"],
                cascade_threshold=options["threshold"],
                orders=options["orders"],
                queries=options["queries"],
                judge_weights=options["judge_weights"],
                pair_budget=options["pairs"],
                call_budget=options["calls"],
                token_budget=options["tokens"],
                cost_budget_micros=options["cost_budget_micros"],
                seed=options["seed"],
            )
        try:
            watch(run, bar=ProgressBar("3-5 Judging", sys.stdout), tick=tick)
        except RunStopped as error:
            again = f"python manage.py run --project {project.slug}"
            raise RunStopped(f"{error}; the texts are kept: judge them again with `{again}`") from error
        self.stdout.write("\n" + quality_table(project))
        self.stdout.write("\n" + closing_lines(project, run))
        if run.is_unanswered:
            raise RunStopped(f"run {run.pk}: {run.reason}")
        self.stdout.write(f"\nproject {project.slug}; export the scores with `python manage.py export {project.slug}`")

    def _run_until_stopped(self, options: dict[str, Any], tick: Any) -> None:
        try:
            self._run(options, tick)
        except KeyboardInterrupt:
            connection.close()  # the signal may have interrupted a query
            raise CommandError(self._stopped(), returncode=INTERRUPTED) from None

    def _stopped(self) -> str:
        """Pause the run, so that a server's workers do not keep spending; return what to tell."""
        if self.run is None:
            return "stopped before the run started"
        try:
            paused = pause_run(self.run)
        except DatabaseError as error:
            return f"stopped; run {self.run.pk} could not be paused ({error}) and continues when workers run"
        if not paused:
            return f"stopped; run {self.run.pk} is {self.run.state}"
        return f"stopped; run {self.run.pk} is paused: resume it on the page of project {self.run.project.slug}"

    def _project(self, options: dict[str, Any]) -> Project:
        if not options["project"]:
            return create_project(options["name"] or options["file"].name.split(".")[0])
        return find_project(options["project"])

    def _import(self, project: Project, path: Path, importer: str) -> None:
        bar = ProgressBar("1 Import", sys.stdout)
        with path.open("rb") as stream:
            summary = import_dataset(project, stream, importer=importer, filename=path.name)
        bar.end(f"{path.name}: {summary}")


def _complete(options: dict[str, Any]) -> None:
    """Fill in what the preset says and no option overrides, and the choice of queries."""
    settings = get_preset(options["preset"]).settings if options["preset"] else None
    asked = options["sampler"]
    options["sampler"] = asked or (settings.sampler if settings else "cycles")
    options["allocation"] = options["allocation"] or (settings.allocation if settings else Run.Allocation.ALL)
    if options["sampler_options"] or settings is None or asked:
        options["sampler_options"] = _sampler_options(options["sampler_options"] or "{}")
    else:
        options["sampler_options"] = dict(settings.sampler_options)
    sample = options["sample"]
    if sample is not None and sample < 1:
        raise CommandError(f"--sample is {sample}; pass a number of queries, 1 or more")
    below = options["certainty_below"]
    if below is not None and not 0.0 <= below <= 1.0:
        raise CommandError(f"--certainty-below is {below}; pass a share from 0 to 1")
    chosen = QueryChoice(options["query_text"], sample, below, options["as_in_run"])
    options["queries"] = settings.queries if settings is not None and chosen.is_all else chosen


def _sampler_options(text: str) -> dict[str, Any]:
    try:
        options = json.loads(text)
    except ValueError as error:
        raise CommandError(f"--sampler-options is {text!r}, which is not JSON ({error}); pass a JSON object") from error
    if not isinstance(options, dict):
        raise CommandError(f'--sampler-options is {text!r}; pass a JSON object such as {{"degree": 4}}')
    return options


def _micros(dollars: float | None) -> int | None:
    if dollars is None:
        return None
    if not 0 < dollars < 1e12:
        raise CommandError(f"--dollars is {dollars}; pass a number above 0, or omit the option for no limit")
    return max(1, round(dollars * 1e6))
