"""Backup and restore with the commands as they are run, between two homes; and every way in which a file is refused."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pyrage
import pytest
from django.db import connection

from tests.processes.installation import ROOT, connect, last_line, manage, own_environment
from zelo_site.operations.backup import NOT_KEPT, BackupFailed, read_recipients
from zelo_site.operations.restore import RestoreRefused, restore_backup
from zelo_site.processes.services import ServiceSupervisor

TEXTS = [
    {
        "query": {"id": f"q{query}", "query": f"how to cook dish {query}"},
        "documents": [{"id": f"d{query}-{n}", "content": f"dish {query} " + "long " * n} for n in range(4)],
    }
    for query in range(3)
]


SIGNED_IN = """
INSERT INTO auth_user (username, password, first_name, last_name, email, is_superuser, is_staff, is_active, date_joined)
VALUES ('ada', '!', '', '', '', false, false, true, now());
INSERT INTO django_session VALUES ('key', '', now() + interval '1 day');
INSERT INTO zelo_site_signinsession (user_id, session_id, browser) SELECT id, 'key', '' FROM auth_user;
"""


def output(environment: dict[str, str], *arguments: str) -> str:
    return last_line(manage(environment, *arguments), 900)


@pytest.mark.long
def test_a_second_home_gets_the_same_rows_files_and_key(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    homes = []
    for home in (first, second):
        home.mkdir()
        homes.append(own_environment(home))
    for environment in homes:
        environment.pop("ZELO_SECRET_KEY", None)
    identity = pyrage.x25519.Identity.generate()
    (tmp_path / "key").write_text(f"# kept elsewhere\n{identity}\n")
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps(line) for line in TEXTS))

    output(homes[0], "project", "cooking")
    output(homes[0], "import", "cooking", str(tmp_path / "texts.jsonl"))
    with ServiceSupervisor(first, environ=homes[0]), connect(homes[0]) as database:
        database.execute(SIGNED_IN)
    (first / "storage").mkdir(exist_ok=True)
    (first / "storage" / "artefact.bin").write_bytes(bytes(range(256)) * 100)
    backup = tmp_path / "backup"
    said = output(homes[0], "backup", str(backup), "--recipient", str(identity.to_public()))
    assert "1 stored files" in said and backup.read_bytes().startswith(b"age-encryption.org")
    assert backup.stat().st_mode & 0o077 == 0

    assert "restored" in output(homes[1], "restore", str(backup), "--identity", str(tmp_path / "key"))
    assert (second / "storage" / "artefact.bin").read_bytes() == (first / "storage" / "artefact.bin").read_bytes()
    assert (second / "secret_key").read_text() == (first / "secret_key").read_text()
    assert output(homes[1], "export", "cooking") == output(homes[0], "export", "cooking")

    again = manage(homes[1], "restore", str(backup), "--identity", str(tmp_path / "key"))
    said, _ = again.communicate(timeout=120)
    assert again.returncode == 1 and "already holds 1 projects" in said


@pytest.mark.django_db
def test_no_row_of_a_backup_refers_to_a_table_that_it_leaves_out() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint WHERE contype = 'f' "
            "AND confrelid::regclass::text = ANY(%s)",
            [list(NOT_KEPT)],
        )
        references = cursor.fetchall()
    assert references and {name for name, _ in references} <= set(NOT_KEPT)


@pytest.mark.long
def test_a_backup_with_work_going_on_loses_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "benchmarks" / "backup.py"), "--quick"],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    figures = json.loads(last_line(process, 900.0).strip().splitlines()[-1])
    assert (figures["scores_equal"], figures["lost"], figures["torn"]) == (1, 0, 0)
    assert figures["answers_meanwhile"] > 0 and figures["judgments"] == 25_000


def archive(path: Path, **files: bytes) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def manifest(**fields: Any) -> bytes:
    whole = {"format": "zelo-backup", "version": 1, "made_at": "", "server_version": 180000, "migrations": []}
    return json.dumps({**whole, "tables": {}, "files": {}, "missing": [], **fields}).encode()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"a": b"x"}, "manifest.json is missing"),
        ({"manifest.json": b"{"}, "cannot be read"),
        ({"manifest.json": manifest(version=2)}, "newer zelo"),
        ({"manifest.json": manifest(files={"database.dump": "0" * 64})}, "damaged: database.dump"),
        ({"extra": b"x", "manifest.json": manifest()}, "damaged: extra"),
        ({"../../etc/x": b"x", "manifest.json": manifest()}, "leaves its folder"),
    ],
    ids=["no-manifest", "no-json", "newer", "no-dump", "unlisted", "path"],
)
def test_a_file_that_is_no_whole_backup_restores_nothing(
    files: dict[str, bytes], problem: str, tmp_path: Path, settings: Any
) -> None:
    settings.ZELO_HOME = tmp_path
    with pytest.raises(RestoreRefused, match=problem):
        restore_backup(archive(tmp_path / "b.tar", **files))
    assert [each.name for each in tmp_path.iterdir()] == ["b.tar"]


@pytest.mark.django_db
def test_a_small_file_that_would_fill_the_disk_is_refused(tmp_path: Path, settings: Any) -> None:
    settings.ZELO_HOME = tmp_path
    bomb = tmp_path / "b.tar"
    with tarfile.open(bomb, "w", format=tarfile.PAX_FORMAT) as tar:
        entry = tarfile.TarInfo("storage/x")
        entry.size = 1
        size = str(10**15)
        entry.pax_headers = {"GNU.sparse.map": f"0,1,{size},0", "GNU.sparse.size": size, "GNU.sparse.major": "0"}
        tar.addfile(entry, io.BytesIO(b"x"))
    with pytest.raises(RestoreRefused, match="sparse"):
        restore_backup(bomb)


@pytest.mark.django_db
def test_other_files_are_refused_with_what_to_do(tmp_path: Path, settings: Any) -> None:
    settings.ZELO_HOME = tmp_path
    text, sealed, wrong = tmp_path / "text", tmp_path / "sealed", tmp_path / "wrong"
    text.write_text("no archive")
    mine, other = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    sealed.write_bytes(pyrage.encrypt(b"x", [mine.to_public()]))
    wrong.write_text(str(other))
    for source, identity, problem in (
        (text, None, "damaged"),
        (sealed, None, "--identity"),
        (sealed, wrong, "was made for"),
        (sealed, text, "no secret key"),
    ):
        with pytest.raises(RestoreRefused, match=problem):
            restore_backup(source, identity=identity)
    with pytest.raises(BackupFailed, match="age1"):
        read_recipients(["ssh-rsa AAAA"])


@pytest.mark.django_db
def test_a_database_of_another_program_is_left_alone(tmp_path: Path, settings: Any) -> None:
    settings.ZELO_HOME = tmp_path
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE invoices (id integer)")
    with pytest.raises(RestoreRefused, match=r"another program \(invoices\)"):
        restore_backup(archive(tmp_path / "b.tar", **{"manifest.json": manifest()}))
