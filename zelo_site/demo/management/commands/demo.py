"""`manage.py demo`: start the whole server and judge a sample project.

The steps are in `zelo_site.demo.steps`, the processes in `zelo_site.processes.stack`.
"""

from __future__ import annotations

import contextlib
import http.client
import time
from argparse import ArgumentParser
from typing import Any, TextIO, cast
from urllib.parse import urlsplit

from django.core.management.base import BaseCommand, CommandError
from django.urls import reverse

from labeling.access.links import ensure_owner, make_link
from labeling.models import Project
from labeling.retrieval.embedder import UnknownEmbedder
from labeling.stored_texts import stored_text
from scoring.quality import graded_queries
from trainer.evaluation.leaderboard import NotEvaluated
from workers.stopping import leave
from zelo_site.cli.interrupts import INTERRUPTED
from zelo_site.cli.watch import RunStopped
from zelo_site.demo import steps
from zelo_site.demo import student as demo_student
from zelo_site.demo.announcing import add_to_story, forget_story
from zelo_site.demo.comparison import comparison_rows, comparison_table, weak_rows
from zelo_site.demo.sample.panel import Panel
from zelo_site.demo.steps import BadQuestions
from zelo_site.processes.embedded import FolderUnusable, ServiceFailed
from zelo_site.processes.listening import Exposed, add_listening_arguments, check_listening
from zelo_site.processes.services import AlreadyRunning, BinaryNotFound
from zelo_site.processes.stack import PortTaken, Serving, serve
from zelo_site.processes.supervisor import exits_on_sigterm

PAGE_DEADLINE_S = 60.0
# The exit code of --exit without a proof.
NOTHING_TO_SHOW = 1
IMPORTS = stored_text(
    "The collection is Python's own documentation; a test of graded questions and more questions to learn from come with the sample."
)
WEAK = stored_text(
    "Weak judges first: two that count words and one that compares embeddings answer pairs of the test questions."
)
PANEL = stored_text(
    "Now the panel: a large language model with three prompts has judged pairs; its recorded answers are replayed."
)
COMPARES = stored_text("Which order is best? NDCG@10 on the test questions, with grades that no judge has seen.")
ASKS = stored_text("Ask the student a question of your own.")
STOPPED = "\nstopped; run the same command to continue"


def wait_for_page(stack: Serving) -> None:
    """Wait until the web server answers, for at most a minute; its log has the reason if it does not."""
    address = urlsplit(stack.listening)
    deadline = time.monotonic() + PAGE_DEADLINE_S
    while time.monotonic() < deadline:
        stack.tick()
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=PAGE_DEADLINE_S)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("HEAD", reverse("sign-in"))
            connection.getresponse()
            return
        time.sleep(0.1)


class Command(BaseCommand):
    help = "Start the whole server, judge sample questions about Python's standard library, and measure the scores."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (loopback by default)")
        add_listening_arguments(parser)
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument("--questions", type=int, default=0, help="number of test questions (0: all)")
        parser.add_argument("--reset", action="store_true", help="delete the demo project and start over")
        parser.add_argument("--exit", action="store_true", help="exit after printing the table instead of serving")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            panel = steps.chosen_panel(options["questions"])
        except BadQuestions as error:
            raise CommandError(str(error)) from error
        self._say("starting the database, the broker, the workers and the web server ...")
        try:
            check_listening(options["host"], options)
            with exits_on_sigterm(), serve(options["host"], options["port"]) as stack:
                code = NOTHING_TO_SHOW if not self._show(stack, panel, reset=options["reset"]) else 0
                if not options["exit"]:
                    self._say("\nPress Ctrl-C to stop; run the same command to continue, or add --reset to start over")
                    code = stack.wait()
        except KeyboardInterrupt:
            code = INTERRUPTED
        except (
            AlreadyRunning,
            BinaryNotFound,
            Exposed,
            FolderUnusable,
            PortTaken,
            ServiceFailed,
            UnknownEmbedder,
        ) as error:
            raise CommandError(str(error)) from error
        if code == INTERRUPTED or not (code or options["exit"]):
            self._say(STOPPED)
        leave(code)

    def _show(self, stack: Serving, panel: Panel, *, reset: bool) -> bool:
        """Go through all steps; whether they came to their end."""
        stream = cast(TextIO, self.stdout._out)  # the wrapper would add a newline after each drawing
        owner = ensure_owner()
        project = steps.find_demo()
        if project is not None and reset:
            steps.delete_demo(project, tick=stack.tick)
            project = None
        known = project is not None
        project = project or steps.make_demo(owner, panel)
        forget_story(project.pk)
        teller = steps.Teller(project, stream)
        teller.step(IMPORTS)
        steps.import_documents(project, stream=stream)  # while the web server starts
        wait_for_page(stack)
        self._say_where(stack, owner, project, known=known)
        try:
            self._judge(stack, project, teller, stream)
        except RunStopped as error:
            self._say(f"{error}; run again with --reset to start over")
            return False
        return self._show_student(stack, owner, project, stream)

    def _judge(self, stack: Serving, project: Project, teller: steps.Teller, stream: TextIO) -> None:
        """Weak judges, then the panel, then the table."""
        teller.step(WEAK)
        steps.judge_weakly(project, tick=stack.tick, stream=stream)
        add_to_story(project.pk, rows=tuple(weak_rows(project)))
        teller.step(PANEL)
        steps.judge_by_panel(project, tick=stack.tick, stream=stream)
        rows = comparison_rows(project)
        add_to_story(project.pk, rows=tuple(rows))
        teller.step(COMPARES)
        self._say(comparison_table(rows, len(graded_queries(project.pk))))

    def _show_student(self, stack: Serving, owner: Any, project: Project, stream: TextIO) -> bool:
        try:
            student = demo_student.show_student(project, by=owner, tick=stack.tick, stream=stream)
            self._say("\n" + demo_student.closing_table(project))
            rows = [*comparison_rows(project), *demo_student.student_rows(project)]
            add_to_story(project.pk, rows=tuple(rows), student=student.pk if student else 0, is_over=True)
        except (demo_student.NoStudent, NotEvaluated) as error:
            self._say(f"no reranker: {error}")
            return False
        self._say(f"\n  leaderboard     {stack.address}{reverse('proof', args=[project.slug])}")
        if student is None:
            run = demo_student.held_back(project)
            page = (
                reverse("training-run", args=[project.slug, run.pk])
                if run
                else reverse("training", args=[project.slug])
            )
            self._say(f"  why held back   {stack.address}{page}")
        else:
            steps.Teller(project, stream).step(ASKS)
            self._say(f"  ask the student {stack.address}{reverse('try-reranker', args=[project.slug, student.pk])}")
        return True

    def _say_where(self, stack: Serving, owner: Any, project: Project, *, known: bool) -> None:
        link = reverse("enter", args=[make_link(owner)])
        page = reverse("project", args=[project.slug])
        self._say(
            f"\n  zelo runs at    {stack.address}\n  sign in (once)  {stack.address}{link}?next={page}\n"
            f"  logs            {stack.logs}\n" + ("\ncontinuing the existing demo" if known else "")
        )

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()
