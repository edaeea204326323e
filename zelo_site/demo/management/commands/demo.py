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
from trainer.evaluation.leaderboard import NotEvaluated
from workers.stopping import leave
from zelo_site.cli.watch import RunStopped
from zelo_site.demo import steps
from zelo_site.demo import student as demo_student
from zelo_site.demo.sample import sample_questions
from zelo_site.processes.embedded import FolderUnusable, ServiceFailed
from zelo_site.processes.services import AlreadyRunning, BinaryNotFound
from zelo_site.processes.stack import PortTaken, Serving, serve
from zelo_site.processes.supervisor import exits_on_sigterm

PAGE_DEADLINE_S = 60.0
STOPPED = "\nstopped; run the same command to continue"


def wait_for_page(stack: Serving) -> None:
    """Wait until the web server answers, for at most a minute; its log has the reason if it does not."""
    address = urlsplit(stack.address)
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
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument("--questions", type=int, default=0, help="number of questions (0: all)")
        parser.add_argument("--reset", action="store_true", help="delete the demo project and start over")
        parser.add_argument("--exit", action="store_true", help="exit after printing the table instead of serving")

    def handle(self, *args: Any, **options: Any) -> None:
        questions = sample_questions()
        if not 0 <= options["questions"] <= len(questions):
            raise CommandError(f"--questions is {options['questions']}; pass 1 to {len(questions)}, or 0 for all")
        code = 0
        try:
            with exits_on_sigterm(), serve(options["host"], options["port"]) as stack:
                self._show(stack, questions[: options["questions"] or None], reset=options["reset"])
                if not options["exit"]:
                    self._say("\nPress Ctrl-C to stop; run the same command to continue, or add --reset to start over")
                    code = stack.wait()
                    if not code:
                        self._say(STOPPED)
        except KeyboardInterrupt:
            self._say(STOPPED)
        except (AlreadyRunning, BinaryNotFound, FolderUnusable, PortTaken, ServiceFailed, UnknownEmbedder) as error:
            raise CommandError(str(error)) from error
        leave(code)

    def _show(self, stack: Serving, questions: list[steps.Question], *, reset: bool) -> None:
        stream = cast(TextIO, self.stdout._out)  # the wrapper would add a newline after each drawing
        owner = ensure_owner()
        project = steps.find_demo()
        if project is not None and reset:
            steps.delete_demo(project, tick=stack.tick)
            project = None
        known = project is not None
        project = project or steps.make_demo(owner, questions)
        steps.import_documents(project, stream=stream)  # while the web server starts
        wait_for_page(stack)
        self._say_where(stack, owner, project, known=known)
        try:
            steps.show_demo(project, tick=stack.tick, stream=stream)
        except RunStopped as error:
            self._say(f"{error}; run again with --reset to start over")
        self._say("\n" + steps.proof(project) + "\n")
        self._show_student(stack, owner, project, stream)

    def _show_student(self, stack: Serving, owner: Any, project: Project, stream: TextIO) -> None:
        try:
            student = demo_student.show_student(project, by=owner, tick=stack.tick, stream=stream)
            self._say("\n" + demo_student.closing_table(project))
        except (demo_student.NoStudent, NotEvaluated) as error:
            self._say(f"no reranker: {error}")
            return
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
            self._say(f"  try reranker    {stack.address}{reverse('try-reranker', args=[project.slug, student.pk])}")

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
