"""`manage.py deployment PROJECT [NAME]`: list, create, deploy, roll back, compare, log, import or delete."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from labeling.importing.summary import ImportFailed
from labeling.models import Project
from trainer.deployments.changes import (
    DeploymentRefused,
    change_deployment,
    clear_log,
    create_deployment,
    delete_deployment,
    deploy,
    roll_back,
)
from trainer.deployments.request_log import import_logged
from trainer.deployments.routing import deployment_name
from trainer.models import Deployment, Reranker
from trainer.serving.protocols import model_id
from trainer.serving.registry import servable
from workers.management.arguments import project_of
from zelo_site.reranking import warm

SHARES = ("variant_share", "shadow_share", "log_share", "log_days")


class Command(BaseCommand):
    help = "Change what a deployment serves, or list the deployments of a project."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="project slug")
        parser.add_argument("name", nargs="?", default="", help="name of the deployment (default: list all)")
        parser.add_argument("--deploy", metavar="RERANKER", help="make a reranker the current version; create the name")
        parser.add_argument("--rollback", action="store_true", help="make the previous version the current one again")
        parser.add_argument("--variant", metavar="RERANKER", help="answer a share of the keys with it; none ends that")
        parser.add_argument("--variant-share", type=int, metavar="PERCENT", help="share of the keys")
        parser.add_argument("--shadow", metavar="RERANKER", help="compare a share of the requests; none ends that")
        parser.add_argument("--shadow-share", type=int, metavar="PERCENT", help="share of the requests")
        parser.add_argument("--log-share", type=int, metavar="PERCENT", help="share of the requests to store")
        parser.add_argument("--log-days", type=int, metavar="DAYS", help="how long they are kept")
        parser.add_argument("--import", dest="most", type=int, metavar="N", help="make N logged requests queries")
        parser.add_argument("--clear-log", action="store_true", help="delete the logged requests")
        parser.add_argument("--delete", action="store_true", help="delete the deployment with its log")

    def handle(self, *args: Any, **options: Any) -> None:
        project = project_of(options["project"])
        try:
            rows = [self._changed(project, options)] if options["name"] else Deployment.objects.filter(project=project)
        except (DeploymentRefused, ImportFailed) as error:
            raise CommandError(str(error)) from error
        for row in rows:
            if row is not None:
                self.stdout.write(described(row))

    def _changed(self, project: Project, options: dict[str, Any]) -> Deployment | None:
        name = options["name"]
        row = Deployment.objects.filter(project=project, name=name).first()
        if row is None:
            if not options["deploy"]:
                raise CommandError(
                    f"project {project.slug!r} has no deployment {name!r}; create it with --deploy RERANKER"
                )
            row = create_deployment(project, name, _reranker(project, options["deploy"]), warm=warm)
        elif options["deploy"]:
            row = deploy(row, _reranker(project, options["deploy"]), warm=warm)
        if options["rollback"]:
            row = roll_back(row, warm=warm)
        given = {each: options[each] for each in SHARES if options[each] is not None}
        for each in ("variant", "shadow"):
            if options[each]:
                given[each] = None if options[each] == "none" else _reranker(project, options[each])
        if given:
            row = change_deployment(row, **given, warm=warm)
        if options["most"]:
            found = import_logged(row, most=options["most"])
            self.stdout.write(
                f"{found.requests} requests: {found.queries} new queries, {found.documents} new documents"
            )
        if options["clear_log"]:
            self.stdout.write(f"{clear_log(row)} requests deleted")
        if options["delete"]:
            delete_deployment(row)
            self.stdout.write(f"{name} deleted")
            return None
        return row


def described(row: Deployment) -> str:
    """One line about a deployment."""
    said = f"{deployment_name(row)}: {row.current.name}"
    said += f", before {row.previous.name}" if row.previous else ""
    said += f", variant {row.variant.name} for {row.variant_share} % of the keys" if row.variant else ""
    said += f", shadow {row.shadow.name} for {row.shadow_share} % of the requests" if row.shadow else ""
    return said + (f", {row.log_share} % logged for {row.log_days} days" if row.log_share else "")


def _reranker(project: Project, name: str) -> Reranker:
    found = [
        each for each in servable().filter(project=project) if name in (each.name, model_id(each.name), str(each.pk))
    ]
    if len(found) != 1:
        known = ", ".join(each.name for each in servable().filter(project=project)[:20]) or "none"
        raise CommandError(f"{name!r} is not a published reranker of {project.slug!r}; expected one of: {known}")
    return found[0]
