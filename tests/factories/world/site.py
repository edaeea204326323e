"""The whole site for tests that walk it: every page, every REST operation, and a project that has something of everything.

The tests of rights and of the audit log share it; each holds a table that a new address must be entered in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.test import Client
from django.urls import URLPattern

from labeling.access.links import make_link
from labeling.models import AccessLink, Annotator, DatasetImport, Membership, Project
from scoring.models import Snapshot
from scoring.spot_checks.plans import plan_spot_checks
from scoring.storage.files import storage
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

    def client(self, role: str) -> Client:
        client = Client()
        if role != "anonymous":
            client.force_login(self.users[role])
        return client


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
    snapshot = Snapshot.objects.create(
        name=f"{prefix}frozen", location=f"snapshots/{prefix}rights", checksum="0" * 64, rows=1
    )
    snapshot.projects.add(project)
    storage().write_bytes(f"snapshots/{prefix}rights/rows.parquet", b"rows")
    run = make_run(project)
    batch = ProviderBatch.objects.create(run=run, annotator=annotator, endpoint="fake", model="m", requests=3)
    known = {
        "slug": project.slug,
        "snapshot_id": snapshot.pk,
        "training_id": TrainingRun.objects.create(project=project, snapshot=snapshot, trainer="pointwise").pk,
        "move": "cancel",
        "change": "exclude",
        "chart": "elo",
        "suffix": "csv",
        "kind": "queries",
        "candidate_id": documents[0].pk,
        "key_id": 0,
        "query_id": query.pk,
        "pair_id": pair.pk,
        "run_id": run.pk,
        "batch_id": batch.pk,
        "job_id": Job.objects.create(project=project, stage="candidates").pk,
        "distillation_id": Job.objects.create(
            project=project,
            stage="distill",
            state=Job.State.FAILED,
            payload={"stage": "panel", "judges": [annotator.pk], "options": {}, "runs": {}},
        ).pk,
        "refinement_id": Job.objects.create(
            project=project,
            stage="refine",
            state=Job.State.FAILED,
            payload={"stage": "mine", "reranker": 0, "judges": [annotator.pk], "options": {}, "runs": {}},
        ).pk,
        "recipe_id": a_recipe(project, annotator).pk,
        "annotator_id": annotator.pk,
        "trial_id": JudgeTrial.objects.create(
            project=project,
            annotator=annotator,
            job=Job.objects.create(project=project, stage="trial", state="finished"),
        ).pk,
        "teaching_id": JudgeTeaching.objects.create(
            project=project,
            annotator=annotator,
            job=Job.objects.create(project=project, stage="teaching", state="finished"),
        ).pk,
        "import_id": DatasetImport.objects.create(project=project, file="f", importer="table", summary="none").pk,
        "exporter": "trec-run",
        "action": "pause",
        "webhook_id": Webhook.objects.create(
            project=project, url="https://hooks.example.org/zelo", events=["run.finished"]
        ).pk,
        "slot": 1,
        "reranker_id": Reranker.objects.create(
            project=project, name=f"{prefix}fish", kind=TRAINED, location="rerankers/none", checksum="0" * 64
        ).pk,
        "token": make_link(project=project, role="viewer"),
        "user_id": users["viewer"].pk,
        "link_id": AccessLink.objects.get(project=project).pk,
        "name": EndpointDefinition.objects.get_or_create(name="stored", base_url="http://127.0.0.1:9/v1")[0].name,
        "limit_id": OperatorLimit.objects.create(project=project, period="total", calls=1_000_000).pk,
        "plan_id": plan_spot_checks(project, reason="random", pairs=1).plan.pk,
    }
    known["version_id"] = Reranker.objects.create(
        project=project, name="carp", kind=TRAINED, location="rerankers/none", checksum="1" * 64
    ).pk
    known["delivery_id"] = WebhookDelivery.objects.create(
        webhook_id=known["webhook_id"], event="run.finished", state="failed", attempts=8
    ).pk
    known["deployment_id"] = Deployment.objects.create(
        project=project, name="search", current_id=known["version_id"], previous_id=known["version_id"]
    ).pk
    first = documents[0]
    known |= {"what": "query", "target_id": query.pk, "candidate_id": first.pk, "document_id": first.document_id}
    known |= {"address": "v1/rerank"}
    known |= {"doc": "tour", "image": "scale-light.png"}
    known["object_id"] = users["viewer"].pk  # in the admin, which opens no row to anybody here
    known["archived"] = deleted_project(users["owner"]).slug
    return World(users, known)


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
