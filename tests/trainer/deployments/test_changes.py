"""Deploying, rolling back and comparing: what changes, what is refused, and that nothing is half done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from labeling.models import AuditEntry, Project
from tests.factories.rows import make_project, make_user
from trainer.deployments.changes import (
    DeploymentRefused,
    WarmingFailed,
    change_deployment,
    create_deployment,
    delete_deployment,
    deploy,
    roll_back,
)
from trainer.deployments.routing import find_target
from trainer.models import Deployment, Reranker
from trainer.publishing.manifests import BI_ENCODER
from trainer.serving.registry import TRAINED, UnknownReranker

pytestmark = pytest.mark.django_db


class Loads:
    """Notes the versions that were loaded, and fails for those that it is to fail for."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.broken: set[str] = set()

    def __call__(self, reranker: Reranker) -> None:
        if reranker.name in self.broken:
            raise WarmingFailed(f"{reranker.name} cannot be loaded")
        self.loaded.append(reranker.name)


@pytest.fixture
def warm() -> Loads:
    return Loads()


@pytest.fixture
def project() -> Project:
    return make_project(owner=make_user("owner"))


@pytest.fixture
def version(project: Project) -> Callable[..., Reranker]:
    def made(name: str, **given: Any) -> Reranker:
        values = {"kind": TRAINED, "location": f"rerankers/{name}", "checksum": name.ljust(64, "0")}
        return Reranker.objects.create(**{"project": project, "name": name, **values, **given})

    return made


def test_deploying_keeps_the_previous_version_for_a_rollback(project: Project, version: Any, warm: Loads) -> None:
    row = create_deployment(project, "search", version("v1"), warm=warm)
    deploy(row, version("v2"), warm=warm)
    row.refresh_from_db()
    assert row.current.name == "v2" and row.previous is not None and row.previous.name == "v1"
    roll_back(row, warm=warm)
    row.refresh_from_db()
    assert row.current.name == "v1" and row.previous.name == "v2"
    roll_back(row, warm=warm)
    row.refresh_from_db()
    assert row.current.name == "v2"
    assert warm.loaded == ["v1", "v2", "v1", "v2"]
    found = AuditEntry.objects.filter(project=project, action__startswith="deployment.").order_by("id")
    assert [(each.action, each.details["version"]) for each in found] == [
        ("deployment.created", "v1"),
        ("deployment.deployed", "v1 → v2"),
        ("deployment.rolled_back", "v2 → v1"),
        ("deployment.rolled_back", "v1 → v2"),
    ]


def test_a_version_that_cannot_be_loaded_changes_nothing(project: Project, version: Any, warm: Loads) -> None:
    row = create_deployment(project, "search", version("v1"), warm=warm)
    broken = version("v2")
    warm.broken = {"v2"}
    for change in (
        lambda: deploy(row, broken, warm=warm),
        lambda: change_deployment(row, warm=warm, variant=broken, variant_share=10),
        lambda: create_deployment(project, "other", broken, warm=warm),
    ):
        with pytest.raises(WarmingFailed, match="v2 cannot be loaded"):
            change()
    row.refresh_from_db()
    assert row.current.name == "v1" and row.previous is None and row.variant is None
    assert Deployment.objects.count() == 1 and AuditEntry.objects.filter(action__startswith="deployment.").count() == 1


def test_what_no_version_can_be_is_refused(project: Project, version: Any, warm: Loads) -> None:
    row = create_deployment(project, "search", version("v1"), warm=warm)
    held = version("held", release=Reranker.Release.HELD_BACK)
    embeds = version("embeds", manifest={"form": BI_ENCODER})
    other = make_project(owner=make_user("other"))
    theirs = version("theirs", project=other)
    for refused, said in (
        (held, "not a published reranker"),
        (theirs, "not a published reranker"),
        (row.current, "already"),
    ):
        with pytest.raises(DeploymentRefused, match=said):
            deploy(row, refused, warm=warm)
    with pytest.raises(DeploymentRefused, match="scores mean something else"):
        deploy(row, embeds, warm=warm)
    with pytest.raises(DeploymentRefused, match="no previous version"):
        roll_back(row, warm=warm)
    with pytest.raises(DeploymentRefused, match="variant is the current version"):
        change_deployment(row, warm=warm, variant=row.current)


@pytest.mark.parametrize("name", ["", "Two Words", "a/b", "ä b", "x" * 81])
def test_names_are_those_that_programs_can_write(project: Project, version: Any, warm: Loads, name: str) -> None:
    with pytest.raises(DeploymentRefused, match="expected lowercase letters"):
        create_deployment(project, name, version("v1"), warm=warm)


def test_a_name_belongs_to_one_thing(project: Project, version: Any, warm: Loads) -> None:
    first = version("My fish")
    create_deployment(project, "search", first, warm=warm)
    with pytest.raises(DeploymentRefused, match="already; deploy to that one"):
        create_deployment(project, "search", first, warm=warm)
    with pytest.raises(DeploymentRefused, match="belongs to the reranker 'My fish'"):
        create_deployment(project, "my-fish", first, warm=warm)


def test_a_deployed_variant_ends(project: Project, version: Any, warm: Loads) -> None:
    row = create_deployment(project, "search", version("v1"), warm=warm)
    second = version("v2")
    change_deployment(row, warm=warm, variant=second, variant_share=20, shadow=second, shadow_share=5)
    deploy(row, second, warm=warm)
    row.refresh_from_db()
    assert (row.variant, row.variant_share, row.shadow, row.shadow_share) == (None, 0, None, 0)


def test_shares_out_of_range_are_refused_by_verb_and_database(project: Project, version: Any, warm: Loads) -> None:
    row = create_deployment(project, "search", version("v1"), warm=warm)
    for given in ({"log_share": 101}, {"log_days": 0}, {"log_days": 366}):
        with pytest.raises(DeploymentRefused, match="expected"):
            change_deployment(row, warm=warm, **given)
        with pytest.raises(IntegrityError), transaction.atomic():
            Deployment.objects.filter(pk=row.pk).update(**given)


def test_names_of_deployments_come_before_those_of_rerankers(project: Project, version: Any, warm: Loads) -> None:
    owner = project.membership_set.get().user
    first, second = version("v1"), version("v2")
    row = create_deployment(project, "search", first, warm=warm)
    for name in ("", "search", f"{project.slug}/search"):
        found = find_target(owner, name)
        assert found.deployment_id == row.pk and found.current.name == f"{project.slug}/v1"
        assert found.current.artefact.name == f"{project.slug}/search"
        assert found.current.artefact.checksum == first.checksum
    assert find_target(owner, "v2").current.reranker_id == second.pk
    stranger = make_user("stranger")
    with pytest.raises(UnknownReranker):
        find_target(stranger, f"{project.slug}/search")
    delete_deployment(row)
    with pytest.raises(UnknownReranker):
        find_target(owner, "search")


def test_a_key_gets_the_variant_in_its_share_alone(project: Project, version: Any, warm: Loads) -> None:
    owner = project.membership_set.get().user
    row = create_deployment(project, "search", version("v1"), warm=warm)
    change_deployment(row, warm=warm, variant=version("v2"), variant_share=30, log_share=25)
    target = find_target(owner, "search")
    routes = {str(key): target.route(str(key), draw=lambda: 0.24) for key in range(400)}
    variants = [key for key, route in routes.items() if route.is_variant]
    assert 70 < len(variants) < 170
    assert {routes[key].version.name for key in variants} == {f"{project.slug}/v2"}
    assert all(target.route(key).is_variant for key in variants)
    assert all(route.is_logged and route.shadow is None for route in routes.values())
    assert not target.route("1", draw=lambda: 0.25).is_logged


def test_a_version_is_not_its_own_shadow(project: Project, version: Any, warm: Loads) -> None:
    row = create_deployment(project, "search", version("v1"), warm=warm)
    second = version("v2")
    change_deployment(row, warm=warm, variant=second, variant_share=50, shadow=second, shadow_share=100)
    target = find_target(project.membership_set.get().user, "search")
    routes = [target.route(str(key)) for key in range(100)]
    assert {route.is_variant for route in routes} == {True, False}
    assert all((route.shadow is None) == route.is_variant for route in routes)
