"""Claim: every page answers within 300 ms on the demo's size of data, and within 500 ms on a project of 10,000 queries.

Starts database, broker and web server in a home of its own, without workers, and asks every page for its whole response over
HTTP, as a superuser: once cold, then three times, of which the median counts. The first project has something of everything
(`tests.factories.world`) and the demo's 35 questions with 26 documents each; the second 10,000 queries with answers, scores,
grades and figures. Addresses that only redirect, take a POST or send a file are left out. Prints a table and, as the last line,
one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # instead of this folder, whose names would shadow packages
HOST = "127.0.0.1"
TARGET_MS, TARGET_BIG_MS = 300.0, 500.0
BIG_QUERIES = 10_000
PATIENCE_S = 60.0
REPEATED = 3
# Not pages: signing in and out, files, health, interfaces for programs, and fragments of forms.
LEFT_OUT = {
    "enter", "sign-in", "sign-out", "healthz", "readyz", "metrics", "health", "download", "chart-file", "export-archive",
    "left-out", "doc-image", "unknown-operation", "unknown-address", "rerank-models", "rerank-model", "rerank-model-short", "rerank-info",
}  # fmt: skip


@dataclass
class Timed:
    """Milliseconds of one page: the first response and the median of the next."""

    name: str
    first: float
    median: float
    status: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="each page twice, and four documents a query in the large project"
    )
    arguments = parser.parse_args()
    repeated, documents = (1, 4) if arguments.quick else (REPEATED, 10)
    with running_server() as port:
        from tests.factories.world.site import EVERY_PAGE, make_world

        world = make_world()
        cookie = signed_in(world.users["owner"])
        fill(world.known["slug"], queries=34, documents=26, first=1)
        big = big_project(world, documents)
        small_times = [measure(port, cookie, name, world.known, repeated) for name in sorted(EVERY_PAGE)]
        big_times = [
            measure(port, cookie, name, big, repeated) for name in sorted(EVERY_PAGE) if "slug" in EVERY_PAGE[name]
        ]
    report([each for each in small_times if each], [each for each in big_times if each])


# --- the server ------------------------------------------------------------------------------


@contextlib.contextmanager
def running_server() -> Iterator[int]:
    """Services and the web server in a new home until the block ends; no worker acts on the rows that are made up."""
    home = Path(tempfile.mkdtemp(prefix="zelo-pages-"))
    home.chmod(0o711)  # PostgreSQL of root's runs as another user
    for name in ("DATABASE_URL", "BROKER_URL"):
        os.environ.pop(name, None)
    os.environ.update(ZELO_HOME=str(home), ZELO_LOG_LEVEL="ERROR", DJANGO_SETTINGS_MODULE="zelo_site.settings")
    from zelo_site.environment import prepare_environment

    prepare_environment()
    import django

    django.setup()
    from django.conf import settings
    from django.core.management import call_command
    from django.db import connection

    from zelo_site.processes.services import ServiceSupervisor
    from zelo_site.processes.stack import web_process

    port = free_port()
    try:
        with ServiceSupervisor(home):
            call_command("migrate", verbosity=0)
            settings.STATIC_ROOT.mkdir(parents=True, exist_ok=True)
            settings.FILE_UPLOAD_TEMP_DIR.mkdir(mode=0o700, exist_ok=True)
            process = subprocess.Popen(web_process(HOST, port).command, cwd=ROOT, env=os.environ)
            try:
                wait_for(port, process)
                yield port
            finally:
                process.terminate()
                process.wait(PATIENCE_S)
                connection.close()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit("the web server ended; see its messages above")
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE_S)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.1)
    raise SystemExit(f"the web server did not answer within {PATIENCE_S:.0f} s")


def signed_in(user: Any) -> str:
    """A session's cookie of this user, made a superuser, who may open every page."""
    from django.conf import settings
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.sessions.backends.db import SessionStore

    user.is_staff = user.is_superuser = True
    user.save()
    session = SessionStore()
    session.update(
        {
            SESSION_KEY: str(user.pk),
            BACKEND_SESSION_KEY: settings.AUTHENTICATION_BACKENDS[-1],
            HASH_SESSION_KEY: user.get_session_auth_hash(),
        }
    )
    session.create()
    return f"{settings.SESSION_COOKIE_NAME}={session.session_key}"


# --- the data --------------------------------------------------------------------------------

_FILL = """
WITH project AS (SELECT id FROM labeling_project WHERE slug = %(slug)s),
query AS (
    INSERT INTO labeling_query (project_id, external_id, text, domain, metadata, judged_version)
    SELECT project.id, 'made-' || n, 'how do I keep only the last ' || n || ' lines of a file that grows', '', '{}', 1
    FROM project, generate_series(%(first)s, %(first)s + %(queries)s - 1) n RETURNING id
), document AS (
    INSERT INTO labeling_document (project_id, external_id, text, metadata)
    SELECT project.id, 'made-' || n, repeat('A list-like sequence that is optimized for access near its ends. ', 6) || n,
           jsonb_build_object('title', 'Document number ' || n)
    FROM project, generate_series(1, %(queries)s * %(documents)s / 2 + %(documents)s) n RETURNING id
), numbered_query AS (SELECT id, row_number() OVER (ORDER BY id) - 1 AS n FROM query),
numbered_document AS (SELECT id, row_number() OVER (ORDER BY id) - 1 AS n FROM document)
INSERT INTO labeling_candidate (query_id, document_id, first_stage_rank, grade)
SELECT query.id, document.id, place, CASE WHEN place %% 5 = 1 THEN 1 + place %% 3 ELSE 0 END
FROM numbered_query query, generate_series(1, %(documents)s) place,
     LATERAL (SELECT id FROM numbered_document
              WHERE n = (query.n * %(documents)s / 2 + place - 1)) document
"""

_SCORES = """
INSERT INTO scoring_score (candidate_id, theta, stderr, elo, elo_stderr, relevance, calibrated, comparisons, island,
                           undefeated, winless, judged_version)
SELECT candidate.id, 1.5 - 0.1 * first_stage_rank, 0.2, 1500 + 418 * (1.5 - 0.1 * first_stage_rank), 84, 0.5, false, 8, 0,
       false, false, 1
FROM labeling_candidate candidate JOIN labeling_query query ON query.id = candidate.query_id
JOIN labeling_project project ON project.id = query.project_id
WHERE project.slug = %(slug)s ON CONFLICT DO NOTHING
"""

_FITS = """
INSERT INTO scoring_queryfit (query_id, rater, prior_precision, logit_scale, dispersion, gradient_norm, iterations, islands,
                              pairs, judgments, calibration_version, project_version, judged_version, error)
SELECT query.id, 'thurstone', 0.1, 2.41, 1, 0, 3, 1, 12, 12, 0, 0, 1, '' FROM labeling_query query
JOIN labeling_project project ON project.id = query.project_id WHERE project.slug = %(slug)s ON CONFLICT DO NOTHING
"""

_PAIRS = """
INSERT INTO labeling_pair (a_id, b_id, query_id)
SELECT first.id, second.id, first.query_id FROM labeling_candidate first
JOIN labeling_candidate second ON second.query_id = first.query_id AND second.id > first.id
    AND second.first_stage_rank - first.first_stage_rank <= %(near)s
JOIN labeling_query query ON query.id = first.query_id JOIN labeling_project project ON project.id = query.project_id
WHERE project.slug = %(slug)s ON CONFLICT DO NOTHING
"""

_JUDGMENTS = """
INSERT INTO labeling_judgment (pair_id, annotator_id, by_person, swapped, kind, preference, truncated)
SELECT pair.id, %(annotator)s, false, false, 'preference', 0.3 + 0.4 * (pair.id %% 7) / 6.0, false
FROM labeling_pair pair JOIN labeling_query query ON query.id = pair.query_id
JOIN labeling_project project ON project.id = query.project_id
WHERE project.slug = %(slug)s ON CONFLICT DO NOTHING
"""

_FIGURES = """
INSERT INTO workers_queryfigures (query_id, ndcg, certainty, disagreement, spend_micros, fitted_at)
SELECT fit.query_id, (fit.query_id %% 100) / 100.0, (fit.query_id %% 37) / 37.0, (fit.query_id %% 11) / 11.0, fit.query_id %% 500,
       fit.fitted_at
FROM scoring_queryfit fit JOIN labeling_query query ON query.id = fit.query_id
JOIN labeling_project project ON project.id = query.project_id WHERE project.slug = %(slug)s ON CONFLICT DO NOTHING
"""


def fill(slug: str, *, queries: int, documents: int, first: int, judges: int = 2) -> None:
    """Add queries with answers, scores, grades and figures to a project, and let PostgreSQL look at the tables."""
    from django.db import connection

    from labeling.models import Project
    from tests.factories.pages import make_judge

    project = Project.objects.get(slug=slug)
    annotators = [make_judge(project, name=f"judge {number}") for number in range(judges)]
    values = {"slug": slug, "queries": queries, "documents": documents, "first": first, "near": 2}
    with connection.cursor() as cursor:
        for statement in (_FILL, _SCORES, _FITS, _PAIRS):
            cursor.execute(statement, values)
        for annotator in annotators:
            cursor.execute(_JUDGMENTS, {**values, "annotator": annotator.pk})
        cursor.execute(_FIGURES, values)
        cursor.execute("ANALYZE")


def big_project(world: Any, documents: int) -> dict[str, Any]:
    """A project of 10,000 queries; the parts of addresses that name its rows."""
    from labeling.models import Candidate, Pair, Query
    from tests.factories.pages import make_project, make_run

    project = make_project(world.users["owner"], name="Ten thousand queries")
    fill(project.slug, queries=BIG_QUERIES, documents=documents, first=1)
    query = Query.objects.filter(project=project).order_by("id")[BIG_QUERIES // 2]
    candidate = Candidate.objects.filter(query=query).order_by("id")[0]
    pair = Pair.objects.filter(query=query).order_by("id")[0]
    return {
        "slug": project.slug,
        "query_id": query.pk,
        "pair_id": pair.pk,
        "candidate_id": candidate.pk,
        "document_id": candidate.document_id,
        "run_id": make_run(project, state="finished").pk,
        "what": "query",
        "target_id": query.pk,
        "chart": "ndcg",
    }


# --- the measurement -------------------------------------------------------------------------


def measure(port: int, cookie: str, name: str, known: dict[str, Any], repeated: int) -> Timed | None:
    """Time a page; None if it is no page that answers a GET, or the project has no row for it."""
    from django.urls import NoReverseMatch, reverse

    from tests.factories.world.site import EVERY_PAGE

    if name in LEFT_OUT or name.startswith("admin:jsi18n") or not EVERY_PAGE[name] <= known.keys():
        return None
    try:
        address = reverse(name, kwargs={key: known[key] for key in EVERY_PAGE[name]})
    except NoReverseMatch:
        return None
    first, status = ask(port, cookie, address)
    if status != 200:
        if status >= 500:
            raise SystemExit(f"{address} answered {status}")
        return None
    times = [ask(port, cookie, address)[0] for _ in range(repeated)]
    return Timed(name, first, statistics.median(times), status)


def ask(port: int, cookie: str, address: str) -> tuple[float, int]:
    """Milliseconds until the whole response is here, and its status."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE_S)
    connection.request("GET", address, headers={"Cookie": cookie, "Accept-Language": "en"})
    response = connection.getresponse()
    response.read()
    connection.close()
    return 1000 * (time.perf_counter() - began), response.status


def report(small: list[Timed], big: list[Timed]) -> None:
    large = {each.name: each for each in big}
    print(f"{processor()}, {os.cpu_count()} cores; ms until the whole page is there: the first time, then the median")
    print(f"{'page':<44}{'first':>9}{'demo size':>11}{'first':>9}{'10,000':>9}")
    nothing = Timed("", 0.0, 0.0, 0)
    for each in sorted(small, key=lambda one: -max(one.median, large.get(one.name, nothing).median)):
        other = large.get(each.name)
        beside = f"{other.first:9.0f}{other.median:9.0f}" if other else f"{'–':>9}{'–':>9}"
        print(f"{each.name:<44}{each.first:9.0f}{each.median:11.0f}{beside}")
    slowest, slowest_big = max(small, key=lambda one: one.median), max(big, key=lambda one: one.median)
    result = {
        "benchmark": "pages",
        "pages": len(small),
        "pages_big": len(big),
        "slowest_ms": round(slowest.median, 1),
        "slowest": slowest.name,
        "slowest_first_ms": round(max(each.first for each in small), 1),
        "slowest_big_ms": round(slowest_big.median, 1),
        "slowest_big": slowest_big.name,
        "slowest_big_first_ms": round(max(each.first for each in big), 1),
        "queries_big": BIG_QUERIES,
        "target_met": slowest.median <= TARGET_MS and slowest_big.median <= TARGET_BIG_MS,
        "processor": processor(),
    }
    print(json.dumps(result))


def processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
