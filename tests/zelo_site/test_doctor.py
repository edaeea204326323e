"""The doctor: what is missing is named with its remedy, in the terminal and on the page."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client

from tests.factories.pages import make_user, page
from workers.monitoring.heartbeats import beat
from zelo_site import doctor
from zelo_site.doctor import Finding, Health, examine
from zelo_site.processes.services import make_home

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).resolve().parents[2]


def found(name: str) -> Finding:
    return next(finding for finding in examine() if finding.name == name)


def test_database_tables_and_broker_are_well() -> None:
    assert {found(name).health for name in ("database", "tables", "broker", "storage")} == {Health.GOOD}


def test_missing_worker_comes_with_its_command() -> None:
    finding = found("workers, judging-cpu")
    assert finding.health is Health.BAD
    assert "python manage.py worker judging-cpu" in finding.remedy


def test_living_worker_is_well() -> None:
    beat("judging@here", "judging-cpu")
    assert found("workers, judging-cpu").health is Health.GOOD
    assert found("workers, rating").health is Health.BAD


@pytest.mark.usefixtures("broker_down")
def test_dead_broker_is_found() -> None:
    assert found("broker").health is Health.BAD


def test_storage_that_cannot_be_written_to_is_found(settings: Any) -> None:
    settings.STORAGE_URL = "file:///proc/no-such-folder"
    assert found("storage").health is Health.BAD


def test_files_that_others_can_read_are_named(settings: Any, tmp_path: Path) -> None:
    settings.ZELO_HOME, settings.STORAGE_URL = tmp_path / "home", f"file://{tmp_path / 'storage'}"
    make_home(settings.ZELO_HOME)
    (settings.ZELO_HOME / "logs").mkdir(mode=0o700)
    (tmp_path / "storage").mkdir(mode=0o700)
    (settings.ZELO_HOME / "uploads").chmod(0o700)  # the umask of the tests is not zelo's
    assert found("files").health is Health.GOOD
    for path in (settings.ZELO_HOME / "logs", tmp_path / "storage", settings.ZELO_HOME):
        path.chmod(0o755)
        assert found("files").health is Health.BAD
        assert str(path) in found("files").detail
        path.chmod(0o700)


def test_home_and_files_are_private_from_the_start(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    code = "import os; os.umask(0o022); from zelo_site.environment import prepare_environment as p; p(); open(os.environ['ZELO_HOME'] + '/f', 'w')"
    kept = {name: value for name, value in os.environ.items() if name != "ZELO_SECRET_KEY"}
    subprocess.run([sys.executable, "-c", code], check=True, env={**kept, "ZELO_HOME": str(home)}, cwd=ROOT)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (home, *home.iterdir())}
    expected = 0o711 if os.geteuid() == 0 else 0o700
    assert modes == {"home": expected, "secret_key": 0o600, "uploads": 0o700, "f": 0o600}


def test_broken_check_is_a_finding_and_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def check_nothing() -> list[Finding]:
        raise RuntimeError("no")

    monkeypatch.setattr(doctor, "CHECKS", (check_nothing, doctor.check_database))
    findings = examine()
    assert [finding.health for finding in findings] == [Health.BAD, Health.GOOD]
    assert findings[0].name == "nothing"


def test_everything_bad_has_a_remedy(settings: Any) -> None:
    settings.DEBUG = True
    settings.ALLOWED_HOSTS = ["example.org"]
    assert all(finding.remedy for finding in examine() if finding.health is not Health.GOOD)


def test_no_secret_is_told(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://zelo:hush@example.org/zelo")
    settings.STORAGE_URL = "s3://key:hush@bucket"
    assert not any("hush" in finding.detail + finding.remedy for finding in examine())


def test_command_says_bad_by_its_exit_status() -> None:
    out = io.StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("doctor", json=True, stdout=out)
    assert ended.value.code == 1
    assert {row["name"] for row in json.loads(out.getvalue())} >= {"database", "broker"}


def test_page_shows_the_same(client: Client) -> None:
    client.force_login(make_user(is_staff=True))
    html = page(client, "doctor")
    assert "workers, judging-cpu" in html
    assert "python manage.py worker judging-cpu" in html
