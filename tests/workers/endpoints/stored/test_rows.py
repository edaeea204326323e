"""Stored endpoints: found by every look-up within seconds, encrypted at rest, never shown, bound to their host."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from pytest_django import Settings

from labeling.access.annotators import get_judge
from labeling.models import AuditEntry, Project
from labeling.projects import create_project
from labeling.records import FailureKind
from tests.factories.questions import comparison, verdict
from tests.fake_judge.process import FakeJudge
from tests.processes.elsewhere import dripping
from workers.endpoints.registry import KeyMissing, UnknownEndpoint, endpoint_problems, get_endpoint, load_endpoints
from workers.endpoints.stored import rows as stored
from workers.endpoints.stored.changes import (
    EndpointRefused,
    add_endpoint,
    change_endpoint,
    encrypt_again,
    restore_endpoint,
    retire_endpoint,
)
from workers.judges.openai.http.connection_test import list_models, try_endpoint
from workers.judges.openai.judge import OpenAIHttpJudge
from workers.judging.streaming import Pump
from workers.models import EndpointDefinition, Run
from workers.monitoring.endpoint_list import find_row
from workers.runs.ordering import RunRefused, start_run

pytestmark = pytest.mark.django_db

KEY = "sk-test-0123456789-wxyz"
URL = "https://api.example.org/v1"


def secret_of(name: str) -> str:
    key = get_endpoint(name).api_key()
    return key.get_secret_value() if key else ""


def raw_row(name: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_jsonb(each)::text FROM workers_endpointdefinition each WHERE name = %s", [name])
        return str(cursor.fetchone()[0])


# --- secrets -----------------------------------------------------------------------------


def test_a_key_is_used_and_stands_nowhere_in_the_database_logs_and_texts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    row = add_endpoint("mine", {"base_url": f"{URL}/", "rpm": 50.0}, key=f" {KEY}\n")
    endpoint = get_endpoint("mine")
    assert (endpoint.base_url, endpoint.rpm, secret_of("mine")) == (URL, 50.0, KEY)
    assert row.key_ending == "wxyz" and row.key_set_at is not None
    with connection.cursor() as cursor:
        table = AuditEntry._meta.db_table
        cursor.execute(f"SELECT string_agg(to_jsonb(each)::text, ' ') FROM {table} each")
        audit = cursor.fetchone()[0]
    shown = f"{endpoint!r} {endpoint} {endpoint.model_dump()} {endpoint.model_dump_json()} {find_row('mine')!r} {row!r}"
    for text in (raw_row("mine"), audit, caplog.text, shown):
        assert KEY not in text and KEY[:12] not in text


def test_of_a_short_key_nothing_is_shown() -> None:
    assert add_endpoint("mine", {"base_url": URL}, key="elevenchars").key_ending == ""


def test_another_installation_cannot_read_the_key_and_the_doctor_says_so(settings: Settings) -> None:
    add_endpoint("mine", {"base_url": URL}, key=KEY)
    settings.SECRET_KEY = "another-" * 6
    stored.forget_stored()
    with pytest.raises(
        KeyMissing, match=r"cannot be read .encrypted under another key.*ZELO_ENDPOINTS_KEY.*enter the key"
    ):
        get_endpoint("mine").api_key()
    assert [problem[:15] for problem in endpoint_problems()] == ["endpoint 'mine'"]
    row = find_row("mine")
    assert row is not None and row.state == "no_key"
    change_endpoint("mine", {}, key="sk-new-0123456789-abcd")
    assert secret_of("mine") == "sk-new-0123456789-abcd"


def test_keys_move_to_a_new_secret_step_by_step(settings: Settings) -> None:
    add_endpoint("mine", {"base_url": URL}, key=KEY)
    settings.ZELO_ENDPOINTS_KEYS = ["n" * 40]
    assert encrypt_again() == (1, [])
    settings.SECRET_KEY = "another-" * 6  # no longer needed
    stored.forget_stored()
    assert secret_of("mine") == KEY
    settings.ZELO_ENDPOINTS_KEYS = []
    with pytest.raises(CommandError, match="cannot read the keys of mine: add the old secret"):
        call_command("endpoints", "rotate")


def test_a_stored_key_is_sent_to_no_other_host_and_to_no_other_row() -> None:
    add_endpoint("mine", {"base_url": URL}, key=KEY)
    add_endpoint("theirs", {"base_url": "https://evil.example.org/v1"})
    with pytest.raises(EndpointRefused, match=r"belong to https://api.example.org:443 .* enter them again") as error:
        change_endpoint("mine", {"base_url": "https://evil.example.org/v1"})
    assert error.value.field == "key"
    change_endpoint("mine", {"base_url": "https://API.example.org:443/v2"})  # the same host
    assert secret_of("mine") == KEY
    copied = EndpointDefinition.objects.get(name="mine").secrets
    EndpointDefinition.objects.filter(name="theirs").update(secrets=copied)
    EndpointDefinition.objects.filter(name="mine").update(base_url="https://evil.example.org/v1")
    stored.forget_stored()
    for name in ("mine", "theirs"):
        with pytest.raises(KeyMissing, match="another endpoint or address"):
            get_endpoint(name).api_key()
    change_endpoint("mine", {}, key="")
    assert get_endpoint("mine").api_key() is None and EndpointDefinition.objects.get(name="mine").secrets == ""


# --- definitions -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values", "key", "field", "message"),
    [
        ("mine", {"base_url": "ftp://host/v1"}, "", "base_url", "scheme"),
        ("mine", {"base_url": "file:///etc/passwd"}, "", "base_url", "scheme"),
        ("mine", {"base_url": "http://user:word@host/v1"}, "", "base_url", "user, password"),
        ("no spaces", {"base_url": URL}, "", "name", "pattern"),
        ("mine", {"base_url": URL, "rpm": -1}, "", "rpm", "greater than 0"),
        ("mine", {"base_url": URL, "api_key_env": "ZELO_SECRET_KEY"}, "", "", "has no api_key_env"),
        ("mine", {"base_url": URL, "api_key_file": "/etc/passwd"}, "", "", "has no api_key_file"),
        ("mine", {"base_url": URL, "stored_key": "x"}, "", "", "has no stored_key"),
        ("mine", {"base_url": URL}, "two words", "key", "copy it again"),
        ("given", {"base_url": URL}, "", "name", "ZELO_ENDPOINTS defines 'given'"),
        ("old", {"base_url": URL}, "", "name", "exists already"),
    ],
)
def test_a_wrong_definition_names_its_field(
    name: str, values: dict[str, Any], key: str, field: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZELO_ENDPOINTS", json.dumps([{"name": "given", "base_url": URL}]))
    add_endpoint("old", {"base_url": URL})
    with pytest.raises(EndpointRefused, match=message) as error:
        add_endpoint(name, values, key=key)
    assert error.value.field == field
    assert list(EndpointDefinition.objects.values_list("name", flat=True)) == ["old"]


def test_the_environment_wins_and_stays_read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    add_endpoint("both", {"base_url": "https://stored.example.org/v1"})
    add_endpoint("mine", {"base_url": URL})
    monkeypatch.setenv("ZELO_ENDPOINTS", json.dumps([{"name": "both", "base_url": URL}]))
    assert list(load_endpoints()) == ["both", "mine"]
    assert get_endpoint("both").base_url == URL
    row = find_row("both")
    assert row is not None and row.origin == "environment"
    monkeypatch.setenv("ZELO_ENDPOINTS", json.dumps([{"name": "given", "base_url": URL}]))
    for change in (lambda: change_endpoint("given", {"rpm": 5}), lambda: retire_endpoint("given")):
        with pytest.raises(EndpointRefused, match="defined by ZELO_ENDPOINTS; change it there"):
            change()


def test_the_audit_log_tells_what_changed() -> None:
    add_endpoint("mine", {"base_url": URL}, key=KEY)
    change_endpoint("mine", {"rpm": 60.0}, key="sk-new-0123456789-abcd")
    change_endpoint("mine", {"rpm": 60.0})
    details = list(AuditEntry.objects.order_by("id").values_list("action", "details"))
    assert details == [
        ("endpoint.added", {"base_url": URL, "key": "set"}),
        ("endpoint.changed", {"rpm": "– → 60.0", "key": "replaced"}),
    ]


def test_an_unreadable_row_is_a_problem_of_its_own() -> None:
    add_endpoint("mine", {"base_url": URL})
    add_endpoint("good", {"base_url": URL})
    EndpointDefinition.objects.filter(name="mine").update(settings={"of_a_later_version": 1})
    stored.forget_stored()
    assert list(load_endpoints()) == ["good"]
    assert endpoint_problems() == ["endpoint 'mine': of_a_later_version not valid; change it on the page Endpoints"]


# --- retiring ----------------------------------------------------------------------------


def judged_by(project: Project, name: str) -> Any:
    return get_judge(project, "openai-http", {"endpoint": name, "model": "m"})


def test_a_used_endpoint_is_not_retired_and_a_retired_one_starts_no_run() -> None:
    add_endpoint("mine", {"base_url": URL})
    project = create_project("with judges")
    judge = judged_by(project, "mine")
    run = Run.objects.create(project=project, state="paused")
    run.judges.add(judge)
    with pytest.raises(EndpointRefused, match=rf"run {run.pk} of with judges \(paused\); finish or cancel"):
        retire_endpoint("mine")
    Run.objects.filter(pk=run.pk).update(state="finished")
    retire_endpoint("mine")
    with pytest.raises(UnknownEndpoint, match="is retired; choose another"):
        get_endpoint("mine")
    with pytest.raises(RunRefused, match="is retired"):
        start_run(project, judges=[judge])
    assert "mine" not in load_endpoints()
    restore_endpoint("mine")
    assert get_endpoint("mine").base_url == URL
    assert OpenAIHttpJudge.problems(judge.options) == []


# --- seen everywhere ---------------------------------------------------------------------

LOOKS = """
import time, django
django.setup()
from workers.endpoints.registry import UnknownEndpoint, get_endpoint
seen, until = "", time.monotonic() + 60
while time.monotonic() < until:
    try:
        endpoint = get_endpoint("mine")
        key = endpoint.api_key()
        now = f"{endpoint.base_url} {key.get_secret_value() if key else 'none'}"
    except UnknownEndpoint as error:
        now = "retired" if "retired" in str(error) else "unknown"
    if now != seen:
        print(now, flush=True)
    seen = now
    time.sleep(0.05)
"""


@pytest.mark.django_db(transaction=True)
def test_another_process_sees_a_change_within_seconds() -> None:
    options = connection.settings_dict
    database = f"postgres://{options['USER']}@{quote(options['HOST'], safe='')}/{options['NAME']}"
    process = subprocess.Popen(
        [sys.executable, "-c", LOOKS], env={**os.environ, "DATABASE_URL": database}, stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).resolve().parents[4],
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert process.stdout.readline().strip() == "unknown"
        for change, expected in (
            (lambda: add_endpoint("mine", {"base_url": URL}, key=KEY), f"{URL} {KEY}"),
            (lambda: change_endpoint("mine", {}, key="sk-other-1234567"), f"{URL} sk-other-1234567"),
            (lambda: retire_endpoint("mine"), "retired"),
        ):
            change()
            began = time.monotonic()
            assert process.stdout.readline().strip() == expected
            assert time.monotonic() - began < 10  # two seconds, and the patience of a busy machine
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_running_slice_ends_when_its_endpoint_changes() -> None:
    add_endpoint("mine", {"base_url": URL}, key=KEY)
    project = create_project("judging")
    judge = judged_by(project, "mine")
    pump = Pump(judge, OpenAIHttpJudge.from_dict(judge.options), worker="w@host:1")  # type: ignore[arg-type]

    def is_redefined() -> bool:
        pump._compare_at = 0.0
        return pump._is_redefined(time.monotonic())

    assert not is_redefined()
    change_endpoint("mine", {"input_price": 1.0})  # no reason to begin again: prices are read for each answer
    assert not is_redefined()
    change_endpoint("mine", {}, key="sk-other-1234567")
    assert is_redefined()
    change_endpoint("mine", {}, key=KEY)
    assert not is_redefined()
    retire_endpoint("mine")
    assert is_redefined()


def test_what_was_read_last_serves_while_the_database_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    add_endpoint("mine", {"base_url": URL})
    assert get_endpoint("mine").base_url == URL

    def down() -> Any:
        raise OperationalError("no connection")

    monkeypatch.setattr(stored, "read_stored", down)
    monkeypatch.setattr(stored, "CACHED_S", 0.0)
    stored._cache.until = 0.0
    assert get_endpoint("mine").base_url == URL


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_read_before", [True, False])
def test_an_answer_that_comes_after_the_last_reading_is_kept(
    fake: FakeJudge, monkeypatch: pytest.MonkeyPatch, is_read_before: bool
) -> None:
    """A call takes longer than what was read is fresh: its answer is read on an event loop, which reaches no database."""
    add_endpoint("mine", {"base_url": fake.base_url}, key="sk-very-secret-0123456789")
    judge = OpenAIHttpJudge(OpenAIHttpJudge.Options(endpoint="mine", model="fake"))
    monkeypatch.setattr(stored, "CACHED_S", 0.0)
    if not is_read_before:
        ask = judge._ask

        async def ask_and_forget(*given: Any, **named: Any) -> None:
            await ask(*given, **named)
            stored.forget_stored()

        monkeypatch.setattr(judge, "_ask", ask_and_forget)
    assert verdict(judge.judge([comparison()])).preference is not None


# --- tests of a connection, and the command ----------------------------------------------


def test_a_test_shows_models_reply_and_the_reason_of_a_failure(fake: FakeJudge) -> None:
    add_endpoint("mine", {"base_url": fake.base_url, "timeout_s": 5.0}, key="sk-very-secret-0123456789")
    result = try_endpoint(get_endpoint("mine"), model="fake")
    assert result.passed and result.models == ["fake"] and result.chat is not None
    assert result.chat.reply and result.chat.seconds > 0
    fake.order_faults("quota")
    failed = try_endpoint(get_endpoint("mine"), model="fake")
    assert not failed.passed and failed.summary.startswith("over_budget: ")
    change_endpoint("mine", {}, key="sk-wrong-0123456789")
    refused = try_endpoint(get_endpoint("mine"))
    assert refused.summary.startswith("bad_request: HTTP 401") and "sk-wrong" not in repr(refused)
    change_endpoint("mine", {"base_url": "http://127.0.0.1:9/v1"}, key="")
    unreachable = try_endpoint(get_endpoint("mine"), model="fake")
    assert unreachable.summary.startswith("unavailable: ") and unreachable.chat is not None


def test_a_list_of_models_that_drips_ends_at_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    with dripping() as url:
        monkeypatch.setenv("ZELO_ENDPOINTS", json.dumps([{"name": "slow", "base_url": url}]))
        began = time.monotonic()
        models, step = list_models(get_endpoint("slow"), timeout_s=0.3)
    assert models == [] and step.kind is FailureKind.TIMEOUT and time.monotonic() - began < 2.0


def test_the_command_takes_keys_from_files_variables_and_stdin(
    fake: FakeJudge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*arguments: str) -> str:
        out = io.StringIO()
        call_command("endpoints", *arguments, stdout=out)
        return out.getvalue()

    (tmp_path / "key").write_text("sk-very-secret-0123456789\n")
    assert "no endpoints" in said("list")
    said("add", "mine", "--base-url", fake.base_url, "--key-file", str(tmp_path / "key"), "--options", '{"rpm": 600}')
    line = said("list")
    assert "mine  stored  unused" in line and "ends in …6789" in line and "very-secret" not in line
    assert "fake: " in said("test", "mine", "--model", "fake")
    monkeypatch.setenv("NEW_KEY", "sk-wrong-0123456789")
    said("change", "mine", "--key-env", "NEW_KEY")
    with pytest.raises(CommandError, match=r"HTTP 401.*; correct the key"):
        said("test", "mine", "--model", "fake")
    monkeypatch.setattr(sys, "stdin", io.StringIO("sk-very-secret-0123456789\n"))
    said("change", "mine", "--key-stdin")
    assert secret_of("mine") == "sk-very-secret-0123456789"
    said("retire", "mine")
    assert "retired" in said("list")
    said("restore", "mine")
    monkeypatch.setenv("NEW_KEY", "")
    for arguments, problem in (
        (["change", "mine", "--key-env", "NEW_KEY"], "holds no key"),
        (["change", "mine", "--key-file", "/nowhere"], "cannot be read"),
        (["change", "mine", "--options", "[]"], "not a JSON object"),
        (["change", "none"], "no stored endpoint is named 'none'"),
        (["add", "x", "--base-url", "ftp://x"], "base_url: "),
        (["test", "none"], "does not exist"),
    ):
        with pytest.raises(CommandError, match=problem):
            said(*arguments)


# --- headers and query -------------------------------------------------------------------


def test_headers_and_query_are_encrypted_and_only_their_names_are_shown() -> None:
    add_endpoint(
        "mine",
        {"base_url": f"{URL}?api-version=2026-01-01", "headers": {"X-Gateway": "hush-hush"}, "key_header": "api-key"},
        key=KEY,
    )
    access = get_endpoint("mine").access()
    assert dict(access.headers) == {"X-Gateway": "hush-hush", "api-key": KEY}
    assert dict(access.query) == {"api-version": "2026-01-01"}
    row = EndpointDefinition.objects.get(name="mine")
    assert row.secret_names == {"headers": ["X-Gateway"], "query": ["api-version"]}
    entry = AuditEntry.objects.get(action="endpoint.added")
    for text in (raw_row("mine"), str(entry.details), f"{get_endpoint('mine')!r} {find_row('mine')!r}"):
        assert "hush" not in text and KEY not in text
    change_endpoint("mine", {"headers": {}})
    assert dict(get_endpoint("mine").access().headers) == {"api-key": KEY}
    change_endpoint("mine", {"headers": {"X-Other": "more"}}, key="")
    access = get_endpoint("mine").access()
    assert dict(access.headers) == {"X-Other": "more"} and dict(access.query) == {"api-version": "2026-01-01"}
    with pytest.raises(EndpointRefused, match="headers and query belong to"):
        change_endpoint("mine", {"base_url": "https://evil.example.org/v1"})


@pytest.mark.parametrize("place", [{"env": "ZELO_SECRET_KEY"}, {"file": "/etc/passwd"}])
def test_a_stored_endpoint_reads_no_variables_and_files(place: dict[str, str]) -> None:
    with pytest.raises(EndpointRefused, match="reads no variables and files"):
        add_endpoint("mine", {"base_url": URL, "headers": {"X-Leak": place}})
