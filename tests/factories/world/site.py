"""The whole site for tests that walk it: every page, every REST operation, and a project that has something of everything.

The tests of rights and of the audit log share it; each holds a table that a new address must be entered in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from django.conf import settings
from django.test import Client
from django.urls import URLPattern

from labeling.access.links import make_link
from labeling.models import AccessLink, Annotator, DatasetImport, Membership, Project
from scoring.models import Snapshot
from scoring.spot_checks.plans import plan_spot_checks
from scoring.storage.files import storage
from tests.factories.lessons import rows_file
from tests.factories.pages import (
    candidates_of,
    judge,
    make_judge,
    make_pair,
    make_project,
    make_query,
    make_run,
    make_user,
    score,
)
from trainer.models import Deployment, Reranker, TrainingRun
from trainer.serving.registry import TRAINED
from workers.deletion.projects import archive_project
from workers.models import (
    EndpointDefinition,
    Job,
    JudgeTeaching,
    JudgeTrial,
    OperatorLimit,
    ProviderBatch,
    Recipe,
    RecipeStage,
    Webhook,
    WebhookDelivery,
)
from zelo_site import urls
from zelo_site.api.root import api

Roles = tuple[str, ...]
ROLES: Roles = ("owner", "annotator", "viewer", "stranger", "anonymous")


@dataclass
class World:
    """One project with something of everything, somebody of every role, and the numbers that addresses name."""

    users: dict[str, Any]
    known: dict[str, Any]
    sessions: dict[str, str] = field(default_factory=dict)

    def client(self, role: str) -> Client:
        """A new client, signed in unless the role is anonymous or `sign_everybody_in` has done so."""
        client = Client()
        if session := self.sessions.get(role):
            client.cookies[settings.SESSION_COOKIE_NAME] = session
        elif role != "anonymous":
            client.force_login(self.users[role])
        return client

    def sign_everybody_in(self) -> None:
        """Once for all clients that follow: a sign-in costs as much as a page."""
        for role in self.users:
            self.sessions[role] = self.client(role).cookies[settings.SESSION_COOKIE_NAME].value


# What addresses name besides rows.
FIXED = {
    "move": "cancel", "change": "exclude", "chart": "elo", "suffix": "csv", "kind": "queries", "key_id": 0, "exporter": "trec-run",
    "action": "pause", "slot": 1, "what": "query", "address": "v1/rerank", "doc": "tour", "image": "scale-light.png",
}  # fmt: skip


def make_world(prefix: str = "") -> World:
    """A project with a run, a training, a snapshot, a plan, an invitation; a member of every role, and a stranger.

    A second world in one database needs a `prefix`, with which its users and texts begin.
    """
    users = {role: make_user(f"{prefix}{role}") for role in ROLES[:-1]}
    project = make_project(users["owner"], name=f"{prefix}Clinical search")
    for role in ("annotator", "viewer"):
        Membership.objects.create(project=project, user=users[role], role=role)
    query = make_query(project, text=f"{prefix}troponin rise after marathon", words=f"{prefix}document")
    documents = candidates_of(query)
    pair = make_pair(*documents[:2])
    annotator = make_judge(project, name=f"{prefix}MiniLM")
    judge(pair, annotator, 0.9)
    score(query, [1.0, 0.0, -1.0])
    texts = {
        "slug": project.slug,
        "query_id": query.pk,
        "target_id": query.pk,
        "candidate_id": documents[0].pk,
        "document_id": documents[0].document_id,
        "pair_id": pair.pk,
        "annotator_id": annotator.pk,
        "import_id": DatasetImport.objects.create(project=project, file="f", importer="table", summary="none").pk,
    }
    rerankers = _trained(project, prefix)
    judging = _judging(project, annotator)
    return World(users, FIXED | texts | rerankers | judging | _people(project, users) | _server(project, users))


def _trained(project: Project, prefix: str) -> dict[str, Any]:
    """A snapshot, a training, two rerankers and a deployment."""
    rows = rows_file()
    snapshot = Snapshot.objects.create(
        name=f"{prefix}frozen", location=f"snapshots/{prefix}rights", checksum=sha256(rows).hexdigest(), rows=1
    )
    snapshot.projects.add(project)
    storage().write_bytes(f"{snapshot.location}/rows.parquet", rows)
    fish, carp = (
        Reranker.objects.create(
            project=project, name=name, kind=TRAINED, location="rerankers/none", checksum=digit * 64
        )
        for name, digit in ((f"{prefix}fish", "0"), ("carp", "1"))
    )
    deployment = Deployment.objects.create(project=project, name="search", current=carp, previous=carp)
    return {
        "snapshot_id": snapshot.pk,
        "training_id": TrainingRun.objects.create(project=project, snapshot=snapshot, trainer="pointwise").pk,
        "reranker_id": fish.pk,
        "version_id": carp.pk,
        "deployment_id": deployment.pk,
    }


def _judging(project: Project, annotator: Annotator) -> dict[str, Any]:
    """A run with a batch, and a job of each stage that has an address of its own."""
    run = make_run(project)

    def failed(stage: str, first: str, **payload: Any) -> Job:
        payload |= {"stage": first, "judges": [annotator.pk], "options": {}, "runs": {}}
        return Job.objects.create(project=project, stage=stage, state=Job.State.FAILED, payload=payload)

    def finished(stage: str) -> Job:
        return Job.objects.create(project=project, stage=stage, state=Job.State.FINISHED)

    return {
        "run_id": run.pk,
        "batch_id": ProviderBatch.objects.create(
            run=run, annotator=annotator, endpoint="fake", model="m", requests=3
        ).pk,
        "job_id": Job.objects.create(project=project, stage="candidates").pk,
        "distillation_id": failed("distill", "panel").pk,
        "refinement_id": failed("refine", "mine", reranker=0).pk,
        "recipe_id": a_recipe(project, annotator).pk,
        "trial_id": JudgeTrial.objects.create(project=project, annotator=annotator, job=finished("trial")).pk,
        "teaching_id": JudgeTeaching.objects.create(project=project, annotator=annotator, job=finished("teaching")).pk,
    }


def _people(project: Project, users: dict[str, Any]) -> dict[str, Any]:
    """An invitation and a plan of spot checks."""
    return {
        "token": make_link(project=project, role="viewer"),
        "link_id": AccessLink.objects.get(project=project).pk,
        "user_id": users["viewer"].pk,
        "object_id": users["viewer"].pk,  # in the admin, which opens no row to anybody here
        "plan_id": plan_spot_checks(project, reason="random", pairs=1).plan.pk,
    }


def _server(project: Project, users: dict[str, Any]) -> dict[str, Any]:
    """An endpoint, a limit, a webhook with a failed delivery, and a deleted project."""
    webhook = Webhook.objects.create(project=project, url="https://hooks.example.org/zelo", events=["run.finished"])
    return {
        "name": EndpointDefinition.objects.get_or_create(name="stored", base_url="http://127.0.0.1:9/v1")[0].name,
        "limit_id": OperatorLimit.objects.create(project=project, period="total", calls=1_000_000).pk,
        "webhook_id": webhook.pk,
        "delivery_id": WebhookDelivery.objects.create(
            webhook=webhook, event="run.finished", state="failed", attempts=8
        ).pk,
        "archived": deleted_project(users["owner"]).slug,
    }


def a_recipe(project: Project, annotator: Annotator) -> Recipe:
    """A failed recipe with one planned stage."""
    job = Job.objects.create(project=project, stage="recipe", state=Job.State.FAILED)
    recipe = Recipe.objects.create(project=project, job=job, plan={"queries": 1})
    recipe.judges.add(annotator)
    RecipeStage.objects.create(recipe=recipe, number=1, name="design")
    return recipe


def deleted_project(owner: Any) -> Project:
    """A project that its owner has deleted."""
    project = make_project(owner)
    archive_project(project, by=owner)
    return project


def walk(
    patterns: list[Any], before: frozenset[str] = frozenset(), space: str = ""
) -> Iterator[tuple[str, frozenset[str]]]:
    """Every address's name with its namespace and what it names, those of included modules too, but for REST."""
    for pattern in patterns:
        named = before | set(pattern.pattern.converters)
        if isinstance(pattern, URLPattern):
            yield f"{space}{pattern.name}", named
        elif pattern.app_name != "ninja":
            yield from walk(pattern.url_patterns, named, f"{pattern.namespace}:" if pattern.namespace else space)


EVERY_PAGE = dict(walk(urls.urlpatterns))
EVERY_OPERATION = {
    f"{method.upper()} {path.removeprefix('/api/v1')}": path
    for path, methods in api.get_openapi_schema()["paths"].items()
    for method in methods
}
