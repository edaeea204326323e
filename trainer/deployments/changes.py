"""Changes deployments: create, deploy, roll back, set variant, shadow and log, delete. Page, REST and command call these.

A version is loaded by the ranking server before it becomes the current one, so that no request waits for it or fails;
`warm` does that and raises `WarmingFailed`. Requests that have begun end with the version that they began with.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import F, Q, QuerySet

from labeling import audit
from labeling.models import Project
from trainer.models import Deployment, LoggedRequest, Reranker
from trainer.serving.protocols import model_id
from trainer.serving.registry import form_of, servable

MOST_DEPLOYMENTS = 50
Warm = Callable[[Reranker], object]
_SHOWN = ("current", "variant", "variant_share", "shadow", "shadow_share", "log_share", "log_days")
_VERSIONS = ("current", "previous", "variant", "shadow")


class DeploymentRefused(ValueError):
    """The change was not made; the message says why and what helps."""


class WarmingFailed(DeploymentRefused):
    """The ranking server cannot load the version; what was served is still served."""


def create_deployment(project: Project, name: str, reranker: Reranker, *, warm: Warm, by: Any = None) -> Deployment:
    """A deployment whose current version is `reranker`. Raises DeploymentRefused."""
    name = name.strip()
    if not name or name != model_id(name) or len(name) > 80:
        raise DeploymentRefused(
            f"the name is {name[:80]!r}; expected lowercase letters, digits, '.', '_' and '-', such as {model_id(name)[:80]!r}"
        )
    _check_version(project, reranker)
    warm(reranker)
    try:
        with transaction.atomic():
            Project.objects.select_for_update().get(pk=project.pk)
            if Deployment.objects.filter(project=project).count() >= MOST_DEPLOYMENTS:
                raise DeploymentRefused(f"the project has {MOST_DEPLOYMENTS} deployments already; delete one first")
            taken = [each.name for each in Reranker.objects.filter(project=project) if model_id(each.name) == name]
            if taken:
                raise DeploymentRefused(f"the name {name!r} belongs to the reranker {taken[0]!r}; choose another name")
            made = Deployment.objects.create(project=project, name=name, current=reranker)
            audit.note("deployment.created", project=project, actor=by, subject=name, version=reranker.name)
    except IntegrityError:
        raise DeploymentRefused(f"the project has a deployment {name!r} already; deploy to that one") from None
    made.refresh_from_db()
    return made


def deploy(deployment: Deployment, reranker: Reranker, *, warm: Warm, by: Any = None) -> Deployment:
    """Make `reranker` the current version; the one before it is kept for `roll_back`. Raises DeploymentRefused.

    As variant or shadow it ends, because it now answers everybody.
    """
    _check_version(deployment.project, reranker, beside=deployment.current)
    warm(reranker)
    with transaction.atomic():
        row = _locked(deployment)
        if row.current_id == reranker.pk:
            raise DeploymentRefused(f"{reranker.name!r} is the current version already")
        _switch(row, reranker)
        audit.note(
            "deployment.deployed", project=row.project, actor=by, subject=row.name,
            version=f"{_called(row.previous)} → {reranker.name}",
        )  # fmt: skip
    return row


def roll_back(deployment: Deployment, *, warm: Warm, by: Any = None) -> Deployment:
    """Make the previous version the current one again; a second call undoes the first. Raises DeploymentRefused."""
    before = Deployment.objects.select_related("previous", "project", "current").get(pk=deployment.pk)
    if before.previous is None:
        raise DeploymentRefused(f"{before.name!r} has no previous version; deploy one instead")
    _check_version(before.project, before.previous)
    warm(before.previous)
    with transaction.atomic():
        row = _locked(deployment)
        if (row.current_id, row.previous_id) != (before.current_id, before.previous_id):
            raise DeploymentRefused(f"{row.name!r} has been changed; check it, then try again")
        _switch(row, before.previous)
        audit.note(
            "deployment.rolled_back", project=row.project, actor=by, subject=row.name,
            version=f"{_called(row.previous)} → {_called(row.current)}",
        )  # fmt: skip
    return row


def change_deployment(
    deployment: Deployment,
    *,
    warm: Warm,
    by: Any = None,
    **given: Any,
) -> Deployment:
    """Set what is given of `variant`, `variant_share`, `shadow`, `shadow_share`, `log_share` and `log_days`.

    A variant or shadow of None ends it. The ranking server loads new ones first. Raises DeploymentRefused.
    """
    for name in ("variant", "shadow"):
        version = given.get(name)
        if version is not None and version.pk != getattr(deployment, f"{name}_id"):
            _check_version(deployment.project, version, beside=deployment.current)
            warm(version)
    with transaction.atomic():
        row = _locked(deployment)
        before = _shown(row)
        for name, value in given.items():
            setattr(row, name, value)
        _check_settings(row)
        row.save(update_fields=["variant", "variant_share", "shadow", "shadow_share", "log_share", "log_days"])
        if "log_days" in given:
            LoggedRequest.objects.filter(deployment=row).update(expires_at=F("at") + timedelta(days=row.log_days))
        if changed := audit.changes(before, _shown(row)):
            audit.note("deployment.changed", project=row.project, actor=by, subject=row.name, **changed)
    return row


def delete_deployment(deployment: Deployment, *, by: Any = None) -> None:
    """Delete a deployment with its log; its versions stay, under their own names."""
    with transaction.atomic():
        row = _locked(deployment)
        audit.note("deployment.deleted", project=row.project, actor=by, subject=row.name, requests=row.requests.count())
        row.delete()


def clear_log(deployment: Deployment, *, by: Any = None) -> int:
    """Delete the logged requests of a deployment; returns how many there were."""
    with transaction.atomic():
        row = _locked(deployment)
        count, _ = LoggedRequest.objects.filter(deployment=row).delete()
        audit.note("deployment.log_cleared", project=row.project, actor=by, subject=row.name, requests=count)
    return count


def deployed(rerankers: QuerySet[Reranker] | list[int]) -> QuerySet[Deployment]:
    """The deployments that answer with one of these rerankers, as current version or variant."""
    return Deployment.objects.filter(Q(current__in=rerankers) | Q(variant__in=rerankers))


def _locked(deployment: Deployment) -> Deployment:
    found = Deployment.objects.select_for_update(of=("self",)).select_related("project", *_VERSIONS)
    try:
        return found.get(pk=deployment.pk)
    except Deployment.DoesNotExist:
        raise DeploymentRefused(f"deployment {deployment.name!r} has been deleted") from None


def _switch(row: Deployment, reranker: Reranker) -> None:
    row.previous, row.current = row.current, reranker
    for name in ("variant", "shadow"):
        if getattr(row, f"{name}_id") == reranker.pk:
            setattr(row, name, None)
            setattr(row, f"{name}_share", 0)
    row.save(update_fields=["current", "previous", "variant", "variant_share", "shadow", "shadow_share"])


def _check_version(project: Project, reranker: Reranker, *, beside: Reranker | None = None) -> None:
    if not servable().filter(project=project, pk=reranker.pk).exists():
        raise DeploymentRefused(f"{reranker.name!r} is not a published reranker of this project; publish it first")
    if beside is not None and form_of(beside) != form_of(reranker):
        raise DeploymentRefused(
            f"{reranker.name!r} is a {form_of(reranker)} and {beside.name!r} a {form_of(beside)}, whose scores mean "
            "something else; create another deployment for it"
        )


def _check_settings(row: Deployment) -> None:
    for name in ("variant", "shadow"):
        if getattr(row, f"{name}_id") is None:
            setattr(row, f"{name}_share", 0)
        elif getattr(row, f"{name}_id") == row.current_id:
            raise DeploymentRefused(f"{name} is the current version; choose another one, or none")
    for name in ("variant_share", "shadow_share", "log_share"):
        if not 0 <= getattr(row, name) <= 100:
            raise DeploymentRefused(f"{name} is {getattr(row, name)}; expected 0 to 100 percent")
    if not 1 <= row.log_days <= 365:
        raise DeploymentRefused(f"log_days is {row.log_days}; expected 1 to 365")


def _shown(row: Deployment) -> dict[str, Any]:
    return {name: _called(getattr(row, name)) if name in _VERSIONS else getattr(row, name) for name in _SHOWN}


def _called(reranker: Reranker | None) -> str:
    return reranker.name if reranker is not None else "none"
