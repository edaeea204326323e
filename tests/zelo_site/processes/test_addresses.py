"""Links carry the address under which the server is reached, whatever its port and whether a proxy encrypts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from zelo_site.processes.addresses import note_address, public_address, served_address

LISTENING = "http://127.0.0.1:8123"


@pytest.mark.parametrize(
    ("hosts", "https", "expected"),
    [
        (["localhost", "127.0.0.1"], False, LISTENING),
        (["localhost", "zelo.example"], False, LISTENING),
        (["localhost", "zelo.example"], True, "https://zelo.example"),
        (["*", ".example.org", "127.0.0.1"], True, LISTENING),
    ],
)
def test_the_public_address_is_the_name_behind_tls(settings: Any, hosts: list[str], https: bool, expected: str) -> None:
    settings.ALLOWED_HOSTS, settings.HTTPS = hosts, https
    assert public_address(LISTENING) == expected


@pytest.mark.django_db
def test_a_link_has_the_address_that_is_served(
    settings: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import nullcontext

    from zelo_site.processes.management.commands import link

    monkeypatch.setattr(link, "database", nullcontext)  # the tests' own
    settings.ZELO_HOME = tmp_path
    assert served_address(tmp_path) == "http://127.0.0.1:8000"
    note_address(tmp_path, LISTENING)
    call_command("link")
    assert capsys.readouterr().out.startswith(f"{LISTENING}/enter/")
    call_command("link", address="https://zelo.example/")
    assert capsys.readouterr().out.startswith("https://zelo.example/enter/")
