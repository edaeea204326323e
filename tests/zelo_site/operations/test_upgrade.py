"""Upgrades: a home of an old program keeps every row, and a restart of a working server loses and doubles no answer."""

from __future__ import annotations

import gzip
import json
import os
import signal
from pathlib import Path

import pytest
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from tests.fake_judge.process import running_fake_judge
from tests.processes.installation import connect, free_port, last_line, manage, own_environment, rows, wait_for
from zelo_site.operations.upgrade import UpgradeRefused, examine
from zelo_site.processes.services import ServiceSupervisor

# The database of commit 7a96d3d with rows in every table, see `fill.py` beside it.
OLD = Path(__file__).parent / "old_home" / "dump.sql.gz"
# Rows of these tables have moved to others, are made by the migrations themselves, or are one for each connection.
MOVED = {
    "django_migrations", "django_content_type", "auth_permission", "workers_spend",
    "labeling_spotcheck", "scoring_spotcheckplan_checks", "workers_job", "workers_worker", "workers_auditentry",
}  # fmt: skip
# Ends a test that hangs; nothing here depends on the time that it takes.
PATIENCE_S = 900.0
SPENT = "SELECT run_id, annotator_id, sum(calls), sum(input_tokens), sum(cost_micros) FROM workers_spend GROUP BY 1, 2 ORDER BY 1, 2"
SCORES = "SELECT candidate_id, theta, stderr, elo, relevance FROM scoring_score ORDER BY candidate_id"


@pytest.mark.long
def test_a_home_of_an_old_program_keeps_every_row_and_score(tmp_path: Path) -> None:
    environment = own_environment(tmp_path)
    with ServiceSupervisor(tmp_path, environ=environment), connect(environment) as database:
        lines = gzip.decompress(OLD.read_bytes()).decode().splitlines()
        database.execute("\n".join(line for line in lines if not line.startswith("\\")))  # type: ignore[call-overload]
        database.execute("SELECT set_config('search_path', 'public', false)")
        tables = [name for (name,) in rows(database, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        before = {name: rows(database, f'SELECT count(*) FROM "{name}"')[0][0] for name in tables}
        scores, spent = rows(database, SCORES), rows(database, SPENT)
    assert len(tables) > 50 and all(before.values())

    said = last_line(manage(environment, "upgrade", "--check"), PATIENCE_S)
    assert "migrations to apply" in said and "the second home holds every row" in said and "upgraded:" in said
    [backup] = (tmp_path / "backups").iterdir()
    assert backup.stat().st_mode & 0o077 == 0

    with ServiceSupervisor(tmp_path, environ=environment), connect(environment) as database:
        now = {name: rows(database, f'SELECT count(*) FROM "{name}"')[0][0] for name in tables if name not in MOVED}
        assert now == {name: count for name, count in before.items() if name not in MOVED}
        assert rows(database, SCORES) == scores and rows(database, SPENT) == spent
        checks = rows(database, "SELECT count(*) FROM labeling_spotcheck")[0][0]
        gold = rows(database, "SELECT count(*), min(explanation) FROM labeling_goldanswer")[0]
        assert (checks, *gold) == (before["labeling_spotcheck"] - 1, 1, "the longer one")
        probes = rows(database, "SELECT count(*) FROM workers_job WHERE stage = 'probe'")[0][0]
        assert probes == before["workers_injectionprobe"]
        assert rows(database, "SELECT count(*) FROM workers_job")[0][0] == before["workers_job"] + probes
        assert rows(database, "SELECT count(*) FROM workers_auditentry")[0][0] >= before["workers_auditentry"]
    again = last_line(manage(environment, "upgrade", "--no-backup"), PATIENCE_S)
    assert "the tables are current" in again
    exported = last_line(manage(environment, "export", "cooking"), PATIENCE_S)
    assert len(exported.strip().splitlines()) == 3 or len(exported) > 200


QUERIES, DOCUMENTS = 6, 12
# While the server restarts, calls take so long that the work outlasts it on any machine.
SLOW_S = 3.0


@pytest.mark.long
def test_restarts_of_a_working_server_lose_and_double_no_answer(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment = own_environment(home)
    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(json.dumps(_query(number)) for number in range(QUERIES)))
    with running_fake_judge(tmp_path / "ledger.jsonl", "--latency-ms", "150") as judge:
        endpoint = {"name": "fake", "base_url": judge.base_url, "max_concurrency": 4, "timeout_s": 300.0}
        environment["ZELO_ENDPOINTS"] = json.dumps([endpoint])
        server = manage(environment, "up", "--port", str(free_port()))
        try:
            wait_for(
                environment, "SELECT count(*) FROM workers_worker WHERE queues LIKE '%http%'", 1, patience_s=PATIENCE_S
            )
            options = json.dumps({"endpoint": "fake", "model": "m"})
            run = manage(environment, "run", str(texts), "--judges", f"openai-http:{options}", "--sampler", "all")
            answers = "SELECT count(*) FROM labeling_judgment"
            wait_for(environment, answers, 20, patience_s=PATIENCE_S)
            judge.control("settings", {"latency_s": SLOW_S})
            assert "restarted" in last_line(manage(environment, "restart"), PATIENCE_S)
            done = wait_for(environment, answers, judge.summary()["calls"] + 4, patience_s=PATIENCE_S)
            assert "restarted" in last_line(manage(environment, "upgrade", "--no-backup"), PATIENCE_S)
            pairs = QUERIES * DOCUMENTS * (DOCUMENTS - 1) // 2
            assert done < pairs, "the second restart came while work went on"
            judge.control("settings", {"latency_s": 0.0})
            last_line(run, PATIENCE_S)
            with connect(environment) as database:
                counts = "SELECT count(*), count(DISTINCT (pair_id, annotator_id)) FROM labeling_judgment"
                assert rows(database, counts) == [(pairs, pairs)]
                assert rows(database, "SELECT count(*) FROM workers_judgingtask") == [(0,)]
                assert rows(database, "SELECT outcome, count(*) FROM workers_attempt GROUP BY 1") == [
                    ("preference", pairs)
                ]
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.communicate(timeout=PATIENCE_S)
        assert judge.summary()["calls"] == pairs, "each question was asked once"


def _query(number: int) -> dict[str, object]:
    documents = [{"id": f"d{number}-{place}", "content": "dish " * (place + 1)} for place in range(DOCUMENTS)]
    return {"query": {"id": f"q{number}", "query": f"how to cook dish {number}"}, "documents": documents}


@pytest.mark.django_db
def test_a_database_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    MigrationRecorder(connection).record_applied("workers", "9999_tables_of_tomorrow")
    with pytest.raises(UpgradeRefused, match=r"workers.9999_tables_of_tomorrow; install the newer zelo"):
        examine(tmp_path, is_running=False)


@pytest.mark.django_db
def test_workers_of_other_hosts_must_stop_before_the_tables_change(tmp_path: Path) -> None:
    insert = "INSERT INTO workers_worker (name, queues, host, pid, gpus) VALUES ('w@far', 'rating', 'far', 1, '[]')"
    with connection.cursor() as cursor:
        cursor.execute(insert)
    assert not examine(tmp_path, is_running=True).migrations
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'zelo_site'")
    with pytest.raises(UpgradeRefused, match=r"w@far.*stop them first"):
        examine(tmp_path, is_running=True)
