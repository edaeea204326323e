"""Chooses what answers a request: a deployment's current version or variant, or a reranker by its own name.

`find_target` reads the database; a `Target` holds plain values, may be kept for a second or two, and chooses for each
request with `route`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from django.db.models import QuerySet

from labeling.models import Membership, Role
from trainer.deployments.shares import in_share
from trainer.models import Deployment, Reranker
from trainer.publishing.manifests import BI_ENCODER
from trainer.serving.model_cache import Artefact
from trainer.serving.registry import (
    UnknownReranker,
    artefact_of,
    find_embedder,
    find_reranker,
    form_of,
    full_name,
    servable,
)


@dataclass(frozen=True, slots=True)
class Version:
    """A reranker that may answer: its id, its full name, and its files under the name that the client asked for."""

    reranker_id: int
    name: str
    artefact: Artefact


@dataclass(frozen=True, slots=True)
class Route:
    """The route of a request. `version` answers; `shadow` computes it afterwards; `is_logged`: it is stored.

    Without a `deployment_id` the request named a reranker, and is neither compared nor stored.
    """

    version: Version
    deployment_id: int | None = None
    is_variant: bool = False
    shadow: Version | None = None
    is_logged: bool = False
    log_days: int = 30


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a model name: a reranker, or a deployment with its versions and settings."""

    current: Version
    deployment_id: int | None = None
    variant: Version | None = None
    variant_share: int = 0
    shadow: Version | None = None
    shadow_share: int = 0
    log_share: int = 0
    log_days: int = 30

    def route(self, key: str, *, draw: Callable[[], float] = random.random) -> Route:
        """The route of one request by a key that `key` identifies. `draw` gives numbers in [0, 1) for the samples."""
        variant = self.variant
        if variant is not None and not in_share(key, self.variant_share, of=str(self.deployment_id)):
            variant = None
        version = variant or self.current
        # A version is not compared with itself.
        shadow = self.shadow if self.shadow is not None and self.shadow.reranker_id != version.reranker_id else None
        return Route(
            version=version,
            deployment_id=self.deployment_id,
            is_variant=variant is not None,
            shadow=shadow if draw() * 100 < self.shadow_share else None,
            is_logged=draw() * 100 < self.log_share,
            log_days=self.log_days,
        )


def deployment_name(deployment: Deployment) -> str:
    """The full name of a deployment for programs: project/name."""
    return f"{deployment.project.slug}/{deployment.name}"


def usable_deployments(user: Any) -> QuerySet[Deployment]:
    """The deployments of the projects that `user` may read and whose current version can be served, with what they name."""
    found = Deployment.objects.filter(current__in=servable().values("pk"))
    found = found.select_related("project", "current__project", "variant__project", "shadow__project")
    if not user.is_superuser:
        roles = Membership.objects.filter(user=user, role__in=[Role.OWNER, Role.VIEWER])
        found = found.filter(project__in=roles.values("project"))
    return found.order_by("id")


def find_target(user: Any, name: str, *, embeds: bool = False) -> Target:
    """The reranker or deployment that `name` stands for. Names of deployments come first. Raises UnknownReranker.

    Without a name it is the only deployment, or else the only reranker. `embeds`: among embedding students.
    """
    usable = usable_deployments(user)
    if embeds and not name:
        usable = usable.filter(pk__in=[each.pk for each in usable if form_of(each.current) == BI_ENCODER])
    # Names first: most requests name no deployment, and the rows with all that they name take five times as long.
    names = {pk: (slug, own) for pk, slug, own in usable.values_list("pk", "project__slug", "name")}
    found = [pk for pk, (slug, own) in names.items() if f"{slug}/{own}" == name]
    found = found or [pk for pk, (_, own) in names.items() if own == name or not name]
    if len(found) > 1 and name:
        several = ", ".join("/".join(names[pk]) for pk in found[:20])
        raise UnknownReranker(
            f"several deployments have the name {name[:200]!r}: {several}; name one of them in `model`"
        )
    deployment = usable.filter(pk=found[0]).first() if len(found) == 1 else None
    if deployment is not None:
        return target_of(deployment)
    find = find_embedder if embeds else find_reranker
    return Target(_version(find(user, name, beside=["/".join(each) for each in names.values()])))


def target_of(deployment: Deployment) -> Target:
    """The versions and settings of a deployment, for requests."""
    name = deployment_name(deployment)
    variant, shadow = deployment.variant, deployment.shadow
    return Target(
        current=_version(deployment.current, name),
        deployment_id=deployment.pk,
        variant=None if variant is None else _version(variant, name),
        variant_share=deployment.variant_share,
        shadow=None if shadow is None else _version(shadow, name),
        shadow_share=deployment.shadow_share,
        log_share=deployment.log_share,
        log_days=deployment.log_days,
    )


def _version(reranker: Reranker, name: str = "") -> Version:
    own = artefact_of(reranker)
    artefact = replace(own, name=name or own.name)
    return Version(reranker.pk, full_name(reranker), artefact)
