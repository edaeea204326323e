"""Shares the limits of an endpoint among all workers.

About once a second, in one short transaction, a process reports the outcomes of its calls and draws slots and rates in
bulk; between these visits its `SharedGate` decides alone. With each visit it also shares what it has learned about the
endpoint's parameters. The rows are the only state: wiping the broker changes nothing, and the slots of a crashed process
expire. The rules are in `workers.endpoints.limiter_rules`.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from django.db import connection, transaction

from labeling.models import Annotator, Project
from workers.endpoints import learned
from workers.endpoints.gates import Channel, Grant, Report
from workers.endpoints.limiter_rules import CLOSED, HALF_OPEN, SHARE_S, Share, State, Usage, decide
from workers.models import EndpointShare, EndpointState

LONGEST_ERROR = 500
# An endpoint without a visit for so long is not shown.
FORGOTTEN_S = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class EndpointView:
    """An endpoint for display. `state`: closed, paused, open or half_open, and for how long; rates of the last minute."""

    name: str
    base_url: str
    model: str
    state: str
    label: str
    wait_s: float
    in_flight: int
    slots: int
    workers: int
    concurrency: int
    bears: int
    rpm_used: float
    rpm: float | None
    tpm_used: float
    tpm: float | None
    calls: int
    rate_limited: int
    outages: int
    last_error: str
    last_error_at: datetime | None
    last_answer_at: datetime | None
    seen_at: datetime
    identity: str = ""


def visit(channel: Channel, holder: str, report: Report) -> Grant:
    """Report the outcomes of calls, and draw slots and rates until the next visit; one short transaction."""
    with transaction.atomic():
        row = _locked_row(channel)
        now, others = _look_around(channel, holder)
        state, grant, booked = decide(
            _state_of(row), report, holder=holder, others=others, limits=channel.limits, now=now, luck=random.random()
        )
        _write(row, state, report, channel, now)
        _book(channel, holder, booked, report, now)
    return grant


def leave(channel: Channel, holder: str, report: Report) -> None:
    """Make the last report of a process that pauses; its slots and unused rates are free at once."""
    with transaction.atomic():
        row = _locked_row(channel)
        now, others = _look_around(channel, holder)
        state, _, _ = decide(
            _state_of(row), report, holder=holder, others=others, limits=channel.limits, now=now, luck=random.random()
        )
        if state.probe_by == holder:
            state = replace(state, probe_by="", probe_until=0.0)
        _write(row, state, report, channel, now)
        EndpointShare.objects.filter(endpoint_id=channel.identity, holder=holder).delete()


def read_learned(channel: Channel) -> None:
    """Let this process know what others have learned about the endpoint; for processes that do not visit it."""
    stored = EndpointState.objects.filter(pk=channel.identity).values_list("learned", flat=True).first()
    learned.exchange(channel.identity, stored or {})


def forget(token: str) -> None:
    """Free the slots of a crashed process, found by the token in its holders' names."""
    EndpointShare.objects.filter(holder__contains=f":{token}:").delete()
    EndpointState.objects.filter(probe_by__contains=f":{token}:").update(probe_by="", probe_until=None)


def endpoint_states(project: Project | None = None) -> list[EndpointView]:
    """Endpoints that workers have called recently: all, or those of the project's judges."""
    rows = EndpointState.objects.prefetch_related("shares")
    if project is not None:
        rows = rows.filter(name__in=_names_of(project))
    now = _database_now()
    views = [_view(row, now) for row in rows]
    return [view for view in views if now - view.seen_at.timestamp() < FORGOTTEN_S]


def _names_of(project: Project) -> set[str]:
    options = Annotator.objects.judges().filter(project=project).values_list("options__endpoint", flat=True)
    return {name for name in options if isinstance(name, str)}


def _view(row: EndpointState, now: float) -> EndpointView:
    shares = [share for share in row.shares.all() if share.until.timestamp() > now]
    requests, tokens = _state_of(row).usage.last_minute(now)
    wait_s = max(0.0, row.until.timestamp() - now) if row.until else 0.0
    return EndpointView(
        name=row.name, base_url=row.base_url, model=row.model, state=row.mode,
        label=EndpointState.Mode(row.mode).label, wait_s=wait_s,
        in_flight=sum(share.in_flight for share in shares), slots=sum(share.slots for share in shares),
        workers=len(shares), concurrency=row.concurrency,
        bears=row.concurrency if row.ceiling is None else min(row.concurrency, int(row.ceiling)),
        rpm_used=requests, rpm=row.rpm, tpm_used=tokens, tpm=row.tpm, calls=row.calls, rate_limited=row.rate_limited,
        outages=row.outages, last_error=row.last_error, last_error_at=row.last_error_at,
        last_answer_at=row.last_answer_at, seen_at=row.seen_at, identity=row.identity,
    )  # fmt: skip


# --- rows --------------------------------------------------------------------------------


def _locked_row(channel: Channel) -> EndpointState:
    rows = EndpointState.objects.select_for_update().filter(pk=channel.identity)
    row = rows.first()
    if row is None:
        EndpointState.objects.bulk_create([EndpointState(identity=channel.identity)], ignore_conflicts=True)
        row = rows.get()
    return row


def _look_around(channel: Channel, holder: str) -> tuple[float, list[Share]]:
    """(the database's time, read under the lock, and the valid shares of others); deletes expired shares."""
    now = _database_now()
    living: list[Share] = []
    dead: list[int] = []
    for share in EndpointShare.objects.filter(endpoint_id=channel.identity).exclude(holder=holder):
        if share.until.timestamp() > now:
            living.append(Share(share.slots, share.wanted))
        else:
            dead.append(share.pk)
    if dead:
        EndpointShare.objects.filter(pk__in=dead).delete()
    return now, living


def _database_now() -> float:
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
        return float(cursor.fetchone()[0])


def _book(channel: Channel, holder: str, slots: int, report: Report, now: float) -> None:
    EndpointShare.objects.bulk_create(
        [
            EndpointShare(
                endpoint_id=channel.identity, holder=holder, slots=slots, in_flight=report.in_flight,
                wanted=report.wanted, until=_when(now + SHARE_S),
            )
        ],
        update_conflicts=True,
        unique_fields=["endpoint", "holder"],
        update_fields=["slots", "in_flight", "wanted", "until"],
    )  # fmt: skip


def _state_of(row: EndpointState) -> State:
    return State(
        mode=row.mode, epoch=row.epoch, until=_seconds(row.until), trips=row.trips, failures=row.failures,
        down_since=row.down_since.timestamp() if row.down_since else None,
        ceiling=math.inf if row.ceiling is None else row.ceiling,
        probe_by=row.probe_by, probe_until=_seconds(row.probe_until),
        requests_from=_seconds(row.requests_from), tokens_from=_seconds(row.tokens_from),
        usage=Usage(row.minute, row.minute_requests, row.minute_tokens, row.last_requests, row.last_tokens),
    )  # fmt: skip


def _write(row: EndpointState, state: State, report: Report, channel: Channel, now: float) -> None:
    row.name, row.base_url, row.model = channel.name, channel.base_url, channel.model
    row.concurrency, row.rpm, row.tpm = channel.limits.concurrency, channel.limits.rpm, channel.limits.tpm
    row.mode, row.epoch, row.trips, row.failures = state.mode, state.epoch, state.trips, state.failures
    row.until = None if state.mode in {CLOSED, HALF_OPEN} else _when(state.until)
    row.down_since = None if state.down_since is None else _when(state.down_since)
    row.ceiling = None if math.isinf(state.ceiling) else state.ceiling
    row.probe_by, row.probe_until = state.probe_by, _when(state.probe_until)
    row.requests_from, row.tokens_from = _when(state.requests_from), _when(state.tokens_from)
    usage = state.usage
    row.minute, row.minute_requests, row.minute_tokens = usage.minute, usage.requests, usage.tokens
    row.last_requests, row.last_tokens = usage.last_requests, usage.last_tokens
    row.calls += report.requests
    row.rate_limited += report.all_rate_limited
    row.outages += report.all_outages
    if report.error:
        row.last_error, row.last_error_at = report.error[:LONGEST_ERROR], _when(now)
    if report.answered:
        row.last_answer_at = _when(now)
    row.learned = learned.exchange(channel.identity, row.learned)
    row.seen_at = _when(now)
    row.save()


def _seconds(when: datetime | None) -> float:
    return when.timestamp() if when else 0.0


def _when(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
