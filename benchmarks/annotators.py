"""Claim: 200 people who compare at the same time wait 150 ms at most for a pair, collide never and lose nothing.

Starts `manage.py up`, as `make up` does, in a home of its own, seeds a project that judges have answered, and lets
people work over HTTP: exponential thinking time, every fifth answer sent twice at once, some tabs opened again, some
people gone with their leases and some of those back too late. Afterwards every answer that was acknowledged is looked
up in the database. Prints a table and, as the last line, one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # instead of this folder, whose names would shadow packages
HOST = "127.0.0.1"
CSRF = "c" * 32
CHOICES = {"left_clearly": 0.95, "left_slightly": 0.75, "tie": 0.5, "right_slightly": 0.25, "right_clearly": 0.05}
LEASE_S = 10
DOUBLE, NEW_TAB, ABANDON = 0.20, 0.10, 0.04
TARGET_MS = 150.0
PATIENCE_S = 60.0
Items = list[dict[str, Any]]


@dataclass(frozen=True)
class Plan:
    """How many people work for how long on how much."""

    people: int
    seconds: float
    think_s: float
    queries: int
    documents: int


@dataclass
class Seen:
    """What the people saw: seconds of each request, acknowledged answers, how late the client itself was.

    `stolen`: the share of the processors' time that went to other machines on the same hardware.
    """

    latency: dict[str, list[float]] = field(default_factory=lambda: {"next": [], "submit": []})
    acknowledged: list[tuple[int, int, str, str]] = field(default_factory=list)  # (user, slot, choice, stored)
    problems: Counter[str] = field(default_factory=Counter)
    stored: Counter[str] = field(default_factory=Counter)
    lag: list[float] = field(default_factory=list)
    stolen: float = 0.0
    abandoned: int = 0
    doubles: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a shorter phase and a smaller project")
    parser.add_argument("--seconds", type=float, default=0.0, help="length of the phase (default 60, quick 8)")
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--think", type=float, default=5.0, help="mean thinking time, s")
    arguments = parser.parse_args()
    queries, documents = (12, 30) if arguments.quick else (150, 60)
    seconds = arguments.seconds or (8.0 if arguments.quick else 60.0)
    plan = Plan(arguments.people, seconds, arguments.think, queries, documents)
    with running_server() as port:
        began = time.monotonic()
        slug, sessions = seed(plan)
        print(f"seeded in {time.monotonic() - began:.0f} s", file=sys.stderr)
        warm_up(port, slug, [session for _, session in sessions[plan.people :]])
        print(f"warm after {time.monotonic() - began:.0f} s", file=sys.stderr)
        seen = asyncio.run(work(plan, port, slug, sessions))
        lost, duplicates = compare_with_database(seen, slug)
    report(plan, seen, lost, duplicates)


# --- the server --------------------------------------------------------------------------


@contextlib.contextmanager
def running_server() -> Iterator[int]:
    """`manage.py up` in a new home, until the block ends; this process reads the same database."""
    home = Path(tempfile.mkdtemp(prefix="zelo-annotators-"))
    home.chmod(0o711)  # PostgreSQL of root's runs as another user
    for name in ("DATABASE_URL", "BROKER_URL"):
        os.environ.pop(name, None)
    os.environ.update(ZELO_HOME=str(home), ZELO_LOG_LEVEL="ERROR", DJANGO_SETTINGS_MODULE="zelo_site.settings")
    port = free_port()
    command = [sys.executable, "-u", str(ROOT / "manage.py"), "up", "--host", HOST, "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        wait_for(port, process)
        from zelo_site.environment import prepare_environment

        prepare_environment()
        import django

        django.setup()
        yield port
    finally:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE_S)
        process.kill()
        shutil.rmtree(home, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1.0):
            return
        time.sleep(0.1)
    raise TimeoutError(f"no server on port {port} within {PATIENCE_S:.0f} s (exit code {process.poll()})")


def seed(plan: Plan) -> tuple[str, list[tuple[int, str]]]:
    """A project that one judge answered, with slots of two opinions a pair and gold; (user, session) of people.

    There are a quarter more people than chairs: newcomers take the place of those who go.
    """
    import numpy as np
    from django.contrib.auth import get_user_model
    from django.contrib.auth.models import User

    from labeling.access.annotators import get_judge
    from labeling.annotation.assignments import open_assignments
    from labeling.annotation.gold import set_gold
    from labeling.annotation.instruction import confirm_read, instruction_hash
    from labeling.judgments import record_judgments
    from labeling.models import Candidate, Document, Membership, Project, Query
    from labeling.pairs import store_pairs
    from labeling.projects import create_project
    from labeling.records import NewJudgment
    from scoring.numerics.design.static import random_cycles

    rng, words = np.random.default_rng(0), random.Random(0)
    project = create_project("Annotators", instruction="Prefer what answers the question.")
    Project.objects.filter(pk=project.pk).update(lease_s=LEASE_S, gold_every=10, gold_accuracy=0.0)
    users = get_user_model().objects.bulk_create(
        User(username=f"person-{n}", password="!") for n in range(plan.people + plan.people // 4)
    )
    Membership.objects.bulk_create(Membership(project=project, user=user, role="annotator") for user in users)
    for user in users:
        confirm_read(project, user, seen=instruction_hash(project))
    vocabulary = ["".join(words.choices("abcdefghijklmnopqrstuvwxyz", k=words.randint(2, 9))) for _ in range(5000)]
    judge, pairs = get_judge(project, "bm25"), []
    for number in range(plan.queries):
        query = Query.objects.create(project=project, external_id=f"q{number}", text=text_of(words, vocabulary, 8))
        texts = Document.objects.bulk_create(
            Document(
                project=project, external_id=f"q{number}-{n}", text=text_of(words, vocabulary, 120),
                metadata={"title": text_of(words, vocabulary, 5), "year": 2000 + n, "doc_id": n},
            )
            for n in range(plan.documents)
        )  # fmt: skip
        ids = np.array(
            [row.pk for row in Candidate.objects.bulk_create(Candidate(query=query, document=t) for t in texts)]
        )
        drawn = np.sort(ids[random_cycles(plan.documents, 2, rng)], axis=1)
        pairs += store_pairs(drawn[:, 0].tolist(), drawn[:, 1].tolist(), [query.pk] * len(drawn))
    record_judgments([NewJudgment(pair, judge.pk, False, float(rng.random())) for pair in pairs])
    for pair in pairs[::100]:
        set_gold(pair, 0.95)
    open_assignments(pairs, reason="random", overlap=2)
    return project.slug, [(user.pk, session_of(user)) for user in users]


def warm_up(port: int, slug: str, sessions: list[str]) -> None:
    """Wait until all processes are up, what the judge answered is rated, and each web thread has shown a pair to some
    newcomer: people come to a running server.
    """
    from django.db.models import F

    from labeling.models import Query
    from workers.broker.hints import leave_hint
    from zelo_site.processes.stack import workers_needed

    stale = Query.objects.filter(project__slug=slug).exclude(fit__judged_version=F("judged_version"))
    leave_hint("rate", Query.objects.filter(project__slug=slug).values_list("project_id", flat=True)[0])
    deadline = time.monotonic() + PATIENCE_S
    while (stale.exists() or workers_needed()) and time.monotonic() < deadline:
        time.sleep(0.2)

    async def look() -> None:
        for _ in range(3):
            await asyncio.gather(*(Tab(port, slug, session).post("next", {}) for session in sessions))

    asyncio.run(look())


def text_of(words: random.Random, vocabulary: list[str], length: int) -> str:
    return " ".join(words.choices(vocabulary, k=length))


def session_of(user: Any) -> str:
    """A signed-in session, as the sign-in page makes it."""
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.sessions.backends.db import SessionStore

    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return str(session.session_key)


# --- the people --------------------------------------------------------------------------


class Tab:
    """One browser tab: a connection kept open, and opened again when the server has closed it."""

    def __init__(self, port: int, slug: str, session: str) -> None:
        self.port = port
        self.path = f"/p/{slug}/compare/"
        self.head = (
            f"Host: {HOST}:{port}\r\nContent-Type: application/json\r\nX-CSRFToken: {CSRF}\r\n"
            f"Cookie: sessionid={session}; csrftoken={CSRF}\r\n"
        )
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, verb: str, message: dict[str, Any]) -> tuple[int, bytes]:
        body = json.dumps(message).encode()
        request = f"POST {self.path}{verb}/ HTTP/1.1\r\n{self.head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        for attempt in range(3):
            try:
                return await asyncio.wait_for(self._exchange(request), 30.0)
            except (OSError, asyncio.IncompleteReadError):
                # Closed while idle, as between any browser and server; sent again under the same key.
                self.close()
                if attempt == 2:
                    raise
        raise AssertionError

    async def _exchange(self, request: bytes) -> tuple[int, bytes]:
        if self.streams is None or self.streams[0].at_eof():
            self.close()
            self.streams = await asyncio.open_connection(HOST, self.port)
        reader, writer = self.streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.split("content-length:", 1)[1].split("\r\n", 1)[0])
        body = await reader.readexactly(length)
        if "connection: close" in head:
            self.close()
        return int(head.split(" ", 2)[1]), body

    def close(self) -> None:
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None


@dataclass
class Person:
    """Somebody at work. `spare` are people who come when this one goes."""

    user: int
    tab: Tab
    other_tab: Tab
    seen: Seen
    chance: random.Random
    until: float
    think_s: float

    async def work(self) -> bool:
        """Compare until the time is over; False when the person left for good."""
        items = await self.look()
        while time.monotonic() < self.until:
            if not items:
                await asyncio.sleep(1.0)
                items = await self.look()
                continue
            think_s = self.chance.expovariate(1.0 / self.think_s)
            if time.monotonic() + think_s > self.until:
                break
            await asyncio.sleep(think_s)
            if self.chance.random() < NEW_TAB:
                await self.open_again(items)
            if self.chance.random() < ABANDON:
                self.seen.abandoned += 1
                if self.chance.random() < 0.5:
                    return False
                await asyncio.sleep(max(0.0, min(1.5 * LEASE_S, self.until - time.monotonic())))
            items = await self.answer(items[0]["slot"])
        return True

    async def look(self) -> Items:
        return self.items_of(await self.ask(self.tab, "next", {}))

    async def open_again(self, items: Items) -> None:
        """A second tab shows the same pair while its lease lasts."""
        began = items[0]["at"]
        shown = self.items_of(await self.ask(self.other_tab, "next", {}))
        if time.monotonic() - began < LEASE_S - 2.0 and (not shown or shown[0]["slot"] != items[0]["slot"]):
            self.seen.problems["another pair in a second tab"] += 1

    async def answer(self, slot: int) -> Items:
        choice = self.chance.choice(list(CHOICES))
        message = {"key": str(uuid.uuid4()), "slot": slot, "answer": choice, "seconds": self.think_s}
        tabs = [self.tab]
        if self.chance.random() < DOUBLE:
            self.seen.doubles += 1
            tabs.append(self.other_tab)
        bodies = await asyncio.gather(*(self.ask(tab, "answer", message) for tab in tabs))
        if len(set(bodies)) != 1:
            self.seen.problems["another response to the same key"] += 1
        if bodies[0]:
            stored = str(json.loads(bodies[0])["stored"])
            self.seen.stored[stored] += 1
            self.seen.acknowledged.append((self.user, slot, choice, stored))
        return self.items_of(bodies[0])

    async def ask(self, tab: Tab, verb: str, message: dict[str, Any]) -> bytes:
        """One message, timed; b"" where it failed."""
        began = time.monotonic()
        try:
            status, body = await tab.post(verb, message)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            self.seen.problems[type(error).__name__] += 1
            tab.close()
            return b""
        self.seen.latency["submit" if verb == "answer" else "next"].append(time.monotonic() - began)
        if status != 200:
            self.seen.problems[f"{verb}: {status} {body[:120]!r}"] += 1
            return b""
        return body

    def items_of(self, body: bytes) -> Items:
        now = time.monotonic()
        return [{**item, "at": now} for item in json.loads(body)["items"]] if body else []


async def work(plan: Plan, port: int, slug: str, sessions: list[tuple[int, str]]) -> Seen:
    """All chairs at work at the same time, for the plan's seconds after all of them have begun."""
    seen, chance = Seen(), random.Random(1)
    newcomers = iter(sessions[plan.people :])
    until = time.monotonic() + plan.think_s + plan.seconds

    async def chair(user: int, session: str) -> None:
        await asyncio.sleep(chance.uniform(0.0, plan.think_s))
        while True:
            tabs = Tab(port, slug, session), Tab(port, slug, session)
            person = Person(user, *tabs, seen, random.Random(user), until, plan.think_s)
            stays = await person.work()
            for tab in tabs:
                tab.close()
            newcomer = None if stays else next(newcomers, None)
            if newcomer is None:
                return
            user, session = newcomer

    watch = asyncio.create_task(watch_lag(seen))
    before = processor_ticks()
    await asyncio.gather(*(chair(*each) for each in sessions[: plan.people]))
    watch.cancel()
    passed, stolen = (now - then for now, then in zip(processor_ticks(), before, strict=True))
    seen.stolen = stolen / max(passed, 1)
    return seen


def processor_ticks() -> tuple[int, int]:
    """(all, stolen) ticks of all processors since the machine started; zeros where the kernel does not tell."""
    try:
        ticks = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return 0, 0
    return sum(ticks), ticks[7] if len(ticks) > 7 else 0


async def watch_lag(seen: Seen) -> None:
    """How late this process is to what it wanted to do: part of every latency below is its own."""
    while True:
        began = time.monotonic()
        await asyncio.sleep(0.02)
        seen.lag.append(time.monotonic() - began - 0.02)


# --- the reckoning -----------------------------------------------------------------------


def compare_with_database(seen: Seen, slug: str) -> tuple[int, int]:
    """(lost, duplicates): acknowledged answers that are not stored as given, and answers stored or accepted twice."""
    from labeling.access.handles import handle_of
    from labeling.models import Judgment, SpotCheck

    slots = SpotCheck.objects.filter(project__slug=slug).values_list("id", "pair_id")
    pair_of = {handle_of(slot): pair for slot, pair in slots}
    answers: dict[tuple[int, int], list[float | None]] = {}
    people = Judgment.objects.filter(annotator__project__slug=slug, by_person=True)
    for user, pair, preference, swapped in people.values_list("annotator__user", "pair", "preference", "swapped"):
        left = None if preference is None else round(1.0 - preference if swapped else preference, 2)
        answers.setdefault((user, pair), []).append(left)
    accepted = [each for each in seen.acknowledged if each[3] != "already"]
    lost = sum(CHOICES[choice] not in answers.get((user, pair_of[slot]), []) for user, slot, choice, _ in accepted)
    twice_stored = sum(len(each) - 1 for each in answers.values())
    held = [slot for _, slot, _, stored in accepted if stored == "answer"]
    twice_held = len(held) - len(set(held))
    unasked = len(answers) - len({(user, pair_of[slot]) for user, slot, _, _ in accepted})
    seen.problems["stored without being acknowledged"] += max(0, unasked)
    return lost, twice_stored + twice_held


def percentile_ms(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return 1000.0 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def report(plan: Plan, seen: Seen, lost: int, duplicates: int) -> None:
    errors = sum(seen.problems.values())
    answers = sum(seen.stored.values())
    print(
        f"{plan.people} people, {plan.think_s:.0f} s to think, {plan.seconds:.0f} s; "
        f"{answers} answers ({answers / (plan.seconds + plan.think_s):.0f} a second): {dict(seen.stored)}; "
        f"{seen.doubles} sent twice at once, {seen.abandoned} leases abandoned; "
        f"{100.0 * seen.stolen:.1f} % of the processors' time went to other machines"
    )
    print(f"{'ms':<12} {'requests':>9} {'p50':>8} {'p95':>8} {'p99':>8} {'max':>8}")
    rows = {**seen.latency, "client lag": seen.lag}
    for name, values in rows.items():
        shown = " ".join(f"{percentile_ms(values, share):>8.1f}" for share in (0.5, 0.95, 0.99, 1.0))
        print(f"{name:<12} {len(values):>9} {shown}")
    for problem, count in seen.problems.most_common(8):
        if count:
            print(f"  {count} x {problem}")
    found = {name: round(percentile_ms(values, 0.95), 1) for name, values in rows.items()}
    print(
        json.dumps(
            {
                "benchmark": "annotators",
                "people": plan.people,
                "answers": answers,
                "next_p95_ms": found["next"],
                "submit_p95_ms": found["submit"],
                "client_lag_p95_ms": found["client lag"],
                "stolen": round(seen.stolen, 4),
                "duplicates": duplicates,
                "lost": lost,
                "errors": errors,
                "met": found["next"] <= TARGET_MS
                and found["submit"] <= TARGET_MS
                and duplicates == lost == errors == 0,
            }
        )
    )


if __name__ == "__main__":
    main()
