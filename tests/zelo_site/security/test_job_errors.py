"""Errors of jobs: owners see the addresses in them, viewers do not."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from labeling.models import Membership, Role
from labeling.records import Failure, FailureKind
from tests.factories.api import Api
from tests.factories.pages import make_project, make_user
from tests.factories.rows import make_member, make_tasks
from tests.factories.working import claim
from workers.judging import queue
from workers.models import Job
from zelo_site.security.job_errors import without_addresses

ERROR = "http://10.1.2.3:8000/v1 does not answer; see /srv/models/secret.log on gpu7.lan:22"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (ERROR, "[address] does not answer; see [address] on [address]"),
        ("connection to server at 192.168.0.4 failed", "connection to server at [address] failed"),
        ("[fe80::1]:80 refused, 2001:db8:0:1::5 too", "[address] refused, [address] too"),
        ("redis://:pw@cache.example/0", "[address]"),
        ("fe80::1 and fd00:1::5 refused at 12:30:45", "[address] and [address] refused at 12:30:45"),
        ("HTTPSConnectionPool(host='gpu7.example', port=443): no", "HTTPSConnectionPool(host=[address], port=443): no"),
        ("failed to resolve host 'db.example': unknown", "failed to resolve host [address]: unknown"),
        ('could not translate host name "db" to address', "could not translate host name [address] to address"),
        ("certificate is not valid for 'gpu7.example'", "certificate is not valid for [address]"),
        ("no answer of gpu7.internal or db.svc.cluster.local.", "no answer of [address] or [address]."),
        (
            "manifest.json of model.safetensors, std::move, the host 3",
            "manifest.json of model.safetensors, std::move, the host 3",
        ),
        (
            "3 of 4 queries; 12:30 left, ratio 1/2, version 1.2.3",
            "3 of 4 queries; 12:30 left, ratio 1/2, version 1.2.3",
        ),
    ],
)
def test_addresses_are_hidden_and_the_rest_stays(text: str, left: str) -> None:
    assert without_addresses(text) == left


@pytest.mark.django_db
def test_only_owners_see_addresses_in_errors() -> None:
    project = make_project()
    job = Job.objects.create(project=project, stage="candidates", state=Job.State.FAILED, error=ERROR)
    for role, sees in ((Role.OWNER, True), (Role.VIEWER, False)):
        user = make_user(str(role))
        Membership.objects.create(project=project, user=user, role=role)
        client = Client()
        client.force_login(user)
        page = client.get(reverse("jobs")).content.decode()
        assert "does not answer" in page
        assert ("10.1.2.3" in page) == sees
        assert ("10.1.2.3" in Api(user).get(f"/jobs/{job.pk}").json()["error"]) == sees


@pytest.mark.django_db
def test_only_owners_see_addresses_in_failures_of_calls_and_in_messages_of_jobs(stub_plugins: None) -> None:
    [task] = make_tasks(1)
    project = task.run.project
    [claimed] = claim(task, limit=1)
    queue.fail([(claimed, Failure(FailureKind.BAD_REQUEST, ERROR, retryable=False))])
    job = Job.objects.create(
        project=project, stage="evaluate", state=Job.State.FINISHED, message=f"not evaluated: {ERROR}"
    )
    for role, sees in ((Role.OWNER, True), (Role.VIEWER, False)):
        user = make_member(project, role)
        client = Client()
        client.force_login(user)
        pages = [client.get(reverse("failures", args=[project.slug])), client.get(reverse("jobs"))]
        operations = [Api(user).get(f"/projects/{project.slug}/failures"), Api(user).get(f"/jobs/{job.pk}")]
        for response in (*pages, *operations):
            assert "does not answer" in response.content.decode()
            assert ("10.1.2.3" in response.content.decode()) == sees, response.request["PATH_INFO"]
