"""How large a request may be: by address and sender, decided before the body is read, parsed or written to disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from labeling.access.api_keys import make_token
from labeling.models import Membership, Role
from tests.factories.pages import make_project, make_user
from zelo_site.processes import patient_worker
from zelo_site.security import request_limits

pytestmark = pytest.mark.django_db
LINE = b'{"query": "q", "document": "d"}\n'
LARGE = 3 * 1024 * 1024  # Django writes a file of this size to disk


@pytest.fixture
def uploads(settings: Any, tmp_path: Path) -> Path:
    """The folder of temporary files, which counts what is written to it."""
    settings.FILE_UPLOAD_TEMP_DIR = tmp_path / "uploads"
    return tmp_path / "uploads"


class UnreadBody:
    """A body that fails the test when something reads it."""

    def read(self, size: int = -1) -> bytes:
        raise AssertionError("the body was read")

    readline = read


def _send(client: Client, address: str, *, length: int, **headers: Any) -> Any:
    """Announce a multipart body of `length` bytes that nobody may read."""
    kind = "multipart/form-data; boundary=zelo"
    extra = {"CONTENT_TYPE": kind, "CONTENT_LENGTH": str(length), "wsgi.input": UnreadBody(), **headers}
    return client.post(address, **extra)


def _file() -> SimpleUploadedFile:
    return SimpleUploadedFile("texts.jsonl", LINE * (LARGE // len(LINE)))


@pytest.mark.parametrize("name", ["new-project", "preview-import", "sign-in", "projects"])
def test_visitor_is_refused_before_the_body_is_read(name: str) -> None:
    client = Client(enforce_csrf_checks=True)
    response = _send(client, reverse(name), length=200_000_000)
    assert response.status_code == 413
    assert "at most 65,536" in response.content.decode()


def test_visitor_may_send_a_small_form(client: Client) -> None:
    assert client.post(reverse("sign-in"), {"username": "a" * 2000, "password": "b"}).status_code == 403


def test_a_small_body_is_small_for_the_worker_too() -> None:
    assert request_limits.ANONYMOUS_BYTES <= patient_worker.SMALL_BODY_BYTES


def test_a_body_without_length_is_refused(client: Client) -> None:
    response = client.post(reverse("sign-in"), HTTP_TRANSFER_ENCODING="chunked")
    assert response.status_code == 411


def test_rights_come_before_parsing(uploads: Path) -> None:
    project = make_project()
    for role, status in ((None, 404), (Role.ANNOTATOR, 403), (Role.VIEWER, 403)):
        user = make_user(f"user-{role}")
        if role:
            Membership.objects.create(project=project, user=user, role=role)
        client = Client()
        client.force_login(user)
        assert _send(client, reverse("import", args=[project.slug]), length=LARGE).status_code == status
        if role != Role.VIEWER:
            assert _send(client, reverse("new-project"), length=LARGE).status_code == 403
    assert not uploads.exists()


def test_signed_in_users_send_at_most_two_megabytes_to_other_addresses(client: Client) -> None:
    client.force_login(make_user())
    assert _send(client, reverse("profile"), length=LARGE).status_code == 413


def test_owner_uploads_a_large_file(client: Client, uploads: Path) -> None:
    project, user = make_project(), make_user()
    Membership.objects.create(project=project, user=user, role=Role.OWNER)
    client.force_login(user)
    response = client.post(reverse("preview-import"), {"file": _file(), "project": project.slug})
    assert response.status_code == 200
    assert uploads.is_dir()
    assert list(uploads.iterdir()) == []
    assert uploads.stat().st_mode & 0o077 == 0


def test_uploads_in_progress_are_bounded_together(client: Client, uploads: Path, settings: Any) -> None:
    settings.ZELO_MAX_UPLOAD_BYTES = 2 * LARGE
    uploads.mkdir()
    (uploads / "of-another.upload").write_bytes(b"x" * (LARGE + 1))
    project, user = make_project(), make_user()
    Membership.objects.create(project=project, user=user, role=Role.OWNER)
    client.force_login(user)
    assert _send(client, reverse("import", args=[project.slug]), length=LARGE).status_code == 503
    assert _send(client, reverse("import", args=[project.slug]), length=2 * LARGE + 1).status_code == 413


def test_uploads_that_begin_together_share_the_limit(client: Client, uploads: Path, settings: Any) -> None:
    settings.ZELO_MAX_UPLOAD_BYTES = 2 * LARGE
    project, user = make_project(), make_user()
    Membership.objects.create(project=project, user=user, role=Role.OWNER)
    client.force_login(user)
    address = reverse("import", args=[project.slug])
    seen: list[int] = []

    class FirstBody:
        """A body that has not arrived when the second upload asks for room."""

        def read(self, size: int = -1) -> bytes:
            if not seen:
                seen.append(_send(client, address, length=LARGE + 1).status_code)
            return b""

        readline = read

    _send(client, address, length=LARGE + 1, **{"wsgi.input": FirstBody()})
    assert seen == [503]
    assert list(uploads.iterdir()) == []
    (uploads / "of-a-killed-process.reserved").write_bytes(b"x" * LARGE)
    with pytest.raises(AssertionError, match="the body was read"):
        _send(client, address, length=LARGE + 1)
    assert list(uploads.iterdir()) == []


def test_a_full_disk_refuses_uploads(client: Client, uploads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_limits, "FREE_BYTES", 2**60)
    project, user = make_project(), make_user()
    Membership.objects.create(project=project, user=user, role=Role.OWNER)
    client.force_login(user)
    assert _send(client, reverse("import", args=[project.slug]), length=LARGE).status_code == 507


def test_operations_answer_with_problems_and_need_a_valid_key(client: Client, uploads: Path) -> None:
    project, user = make_project(), make_user()
    address = f"/api/v1/projects/{project.slug}/imports"
    for key, status in (("zelo_wrong", 401), (make_token(user, name="k"), 404)):
        response = _send(client, address, length=LARGE, HTTP_AUTHORIZATION=f"Bearer {key}")
        assert response.status_code == status
    response = _send(
        client, "/api/v1/projects", length=LARGE, HTTP_AUTHORIZATION=f"Bearer {make_token(user, name='l')}"
    )
    assert response.status_code == 413
    assert response.json()["status"] == 413
    response = _send(client, "/v1/rerank", length=LARGE, HTTP_AUTHORIZATION="Bearer zelo_wrong")
    assert response.status_code == 401, "the key is what is wrong, not the size"
    assert response["WWW-Authenticate"] == "Bearer" and "no valid key" in response.json()["error"]["message"]
