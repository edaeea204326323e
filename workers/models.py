"""What is to be done and what is being done: runs, jobs, judging tasks, paid calls, heartbeats.

The rows are the truth; a Celery message is only a hint that there is work. Transitions live in
`workers.judging.queue` and `workers.runs.advancing`.
"""

from __future__ import annotations

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from labeling.models import Annotator, Pair, Project, visible_through
from labeling.records import FailureKind


class Run(models.Model):
    """One order to judge: which queries, design, judges, budget; its state and spend.

    `is_spent`: it ended because a budget or cap was used up, and goes on when that is raised.
    In a cascade `cascade_first` is asked about every pair, the other judges where its |preference - 0.5| is
    below `cascade_threshold`.
    """

    class State(models.TextChoices):
        PLANNED = "planned", "planned"
        JUDGING = "judging", "judging"
        PAUSED = "paused", "paused"
        FINISHED = "finished", "finished"
        CANCELLED = "cancelled", "cancelled"
        FAILED = "failed", "failed"

    ACTIVE = (State.PLANNED, State.JUDGING)

    class Allocation(models.TextChoices):
        ALL = "all", "every judge on every pair"
        ROTATE = "rotate", "one judge a pair, in turn"
        CASCADE = "cascade", "the first judge on every pair, the others where it is unsure"

    class Orders(models.TextChoices):
        ONE = "one", "one order, random"
        BOTH = "both", "both orders"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="runs")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)
    query_ids = ArrayField(models.BigIntegerField(), null=True, blank=True)
    judges = models.ManyToManyField(Annotator, related_name="runs")
    sampler = models.CharField(max_length=80, default="cycles")
    sampler_options = models.JSONField(default=dict, blank=True)
    allocation = models.CharField(max_length=20, choices=Allocation.choices, default=Allocation.ALL)
    cascade_first = models.ForeignKey(Annotator, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    cascade_threshold = models.FloatField(null=True, blank=True)
    orders = models.CharField(max_length=20, choices=Orders.choices, default=Orders.ONE)
    seed = models.BigIntegerField(default=0)
    pair_budget = models.PositiveBigIntegerField(null=True, blank=True)
    call_budget = models.PositiveBigIntegerField(null=True, blank=True)
    token_budget = models.PositiveBigIntegerField(null=True, blank=True)
    cost_budget_micros = models.PositiveBigIntegerField(null=True, blank=True)
    state = models.CharField(max_length=20, choices=State.choices, default=State.PLANNED)
    reason = models.TextField(blank=True)
    is_spent = models.BooleanField(default=False, db_default=False)
    round = models.PositiveIntegerField(default=0)
    pairs_planned = models.PositiveBigIntegerField(default=0)
    tasks_planned = models.PositiveBigIntegerField(default=0)
    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = visible_through("project").as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["planned", "judging", "paused", "finished", "cancelled", "failed"]),
                name="run_state",
            ),
            models.CheckConstraint(
                condition=Q(
                    allocation__in=["all", "rotate"], cascade_first__isnull=True, cascade_threshold__isnull=True
                )
                | Q(
                    allocation="cascade",
                    cascade_first__isnull=False,
                    cascade_threshold__gt=0.0,
                    cascade_threshold__lte=0.5,
                ),
                name="run_allocation",
            ),
            models.CheckConstraint(condition=Q(orders__in=["one", "both"]), name="run_orders"),
        ]


class Job(models.Model):
    """One stage of work in the background for a project or a run; it owns its state."""

    class State(models.TextChoices):
        OPEN = "open", "open"
        LEASED = "leased", "being done"
        FINISHED = "finished", "finished"
        FAILED = "failed", "failed"
        CANCELLED = "cancelled", "cancelled"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="jobs")
    run = models.ForeignKey(Run, null=True, blank=True, on_delete=models.CASCADE, related_name="jobs")
    stage = models.CharField(max_length=40)
    payload = models.JSONField(default=dict, blank=True)
    state = models.CharField(max_length=20, choices=State.choices, default=State.OPEN)
    fence = models.PositiveIntegerField(default=0)
    leased_by = models.CharField(max_length=200, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveIntegerField(default=0)
    done = models.PositiveBigIntegerField(default=0)
    total = models.PositiveBigIntegerField(default=0)
    message = models.TextField(blank=True)
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = visible_through("project").as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(state="leased", lease_until__isnull=False)
                | Q(state__in=["open", "finished", "failed", "cancelled"], lease_until__isnull=True),
                name="job_lease_fits_state",
            ),
            # At most one unfinished job of a stage and run: a second hint finds it instead of adding one.
            models.UniqueConstraint(
                fields=["run", "stage"], condition=Q(state__in=["open", "leased"]), name="job_unfinished_once"
            ),
            # NULLs are distinct there; this one holds for jobs of a project without a run.
            models.UniqueConstraint(
                fields=["project", "stage"],
                condition=Q(state__in=["open", "leased"], run__isnull=True),
                name="job_unfinished_once_without_run",
            ),
        ]


FAILURE_KINDS = [(kind.value, kind.value.replace("_", " ")) for kind in FailureKind]


class JudgingTask(models.Model):
    """Unfinished work: one question to one judge in one order. Deleted by the transaction that
    stores the judgment; dead ones stay with their reason.
    """

    class State(models.TextChoices):
        OPEN = "open", "open"
        LEASED = "leased", "being asked"
        DEAD = "dead", "dead"

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="tasks")
    # Without indexes of their own: `judging_task_once` begins with the pair, `judging_task_due` with the annotator.
    pair = models.ForeignKey(Pair, on_delete=models.CASCADE, related_name="tasks", db_index=False)
    annotator = models.ForeignKey(Annotator, on_delete=models.CASCADE, related_name="tasks", db_index=False)
    swapped = models.BooleanField(default=False)
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    fence = models.PositiveIntegerField(default=0)
    leased_by = models.CharField(max_length=200, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_at = models.DateTimeField(db_default=Now())
    reason = models.CharField(max_length=30, choices=FAILURE_KINDS, blank=True)
    message = models.TextField(blank=True)

    objects = visible_through("run__project").as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["pair", "annotator", "swapped"], name="judging_task_once"),
            models.CheckConstraint(
                condition=Q(state="leased", lease_until__isnull=False) & ~Q(leased_by="")
                | Q(state__in=["open", "dead"], lease_until__isnull=True, leased_by=""),
                name="judging_task_lease_fits_state",
            ),
            models.CheckConstraint(condition=~Q(state="dead") | ~Q(reason=""), name="judging_task_dead_has_reason"),
        ]
        indexes = [
            models.Index(
                fields=["annotator", "run", "next_at", "id"], condition=Q(state="open"), name="judging_task_due"
            ),
            models.Index(fields=["lease_until"], condition=Q(state="leased"), name="judging_task_leased"),
            models.Index(fields=["run", "reason"], condition=Q(state="dead"), name="judging_task_dead"),
        ]


class Attempt(models.Model):
    """One paid call, written before it is made. No foreign key to the task: tasks go, books stay.

    `latency_ms` is what the judge measured of the call itself; None where it measured nothing.
    """

    task_id = models.BigIntegerField()
    fence = models.PositiveIntegerField()
    call = models.PositiveSmallIntegerField(default=1)
    run = models.ForeignKey(
        Run, on_delete=models.CASCADE, related_name="attempts", db_index=False
    )  # attempt_by_run_and_end
    annotator = models.ForeignKey(Annotator, on_delete=models.PROTECT, related_name="attempts")
    outcome = models.CharField(max_length=30, blank=True)
    input_tokens = models.PositiveIntegerField(default=0)
    output_tokens = models.PositiveIntegerField(default=0)
    cost_micros = models.PositiveBigIntegerField(default=0)
    latency_ms = models.PositiveIntegerField(null=True, blank=True)
    started_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = visible_through("run__project").as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["task_id", "fence", "call"], name="attempt_once")]
        indexes = [models.Index(fields=["run", "finished_at"], name="attempt_by_run_and_end")]


class Spend(models.Model):
    """The books of one judge in one run as running totals of its attempts, spread over some rows (`shard`).

    Triggers on `Attempt` keep them in the transaction of the change, each connection its own row, so that
    answers that are stored at the same time do not wait for each other. Read the sums by `workers.budgets.spend`.
    """

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="spends", db_constraint=False, db_index=False)
    annotator_id = models.BigIntegerField()
    shard = models.SmallIntegerField()
    calls = models.BigIntegerField(default=0)
    in_flight = models.BigIntegerField(default=0)
    lost = models.BigIntegerField(default=0)
    answers = models.BigIntegerField(default=0)
    answer_tokens = models.BigIntegerField(default=0)
    answer_cost_micros = models.BigIntegerField(default=0)
    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cost_micros = models.BigIntegerField(default=0)

    objects = visible_through("run__project").as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "annotator_id", "shard"], name="spend_once")]


class Caps(models.Model):
    """The most that all runs and probes of a project may spend; what is None sets no limit."""

    project = models.OneToOneField(Project, primary_key=True, on_delete=models.CASCADE, related_name="caps")
    calls = models.PositiveBigIntegerField(null=True, blank=True)
    tokens = models.PositiveBigIntegerField(null=True, blank=True)
    cost_micros = models.PositiveBigIntegerField(null=True, blank=True)

    objects = visible_through("project").as_manager()

    class Meta:
        verbose_name_plural = "caps"


class InjectionProbe(models.Model):
    """What texts that argue for themselves did to one judge; its answers stand in no other table.

    While it is asked, `lease_until` is in the future; `starts` counts the workers that began it and is their fence.
    `report` is a `workers.jobs.injection_probe.ProbeReport` as plain values once the probe has finished.
    """

    class State(models.TextChoices):
        OPEN = "open", "waiting"
        ASKING = "asking", "being asked"
        FINISHED = "finished", "finished"
        FAILED = "failed", "failed"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="probes")
    annotator = models.ForeignKey(Annotator, on_delete=models.CASCADE, related_name="probes")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)
    options = models.JSONField(default=dict)
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    error = models.TextField(blank=True)
    report = models.JSONField(default=dict)
    calls = models.PositiveBigIntegerField(default=0)
    input_tokens = models.PositiveBigIntegerField(default=0)
    output_tokens = models.PositiveBigIntegerField(default=0)
    cost_micros = models.PositiveBigIntegerField(default=0)
    starts = models.PositiveSmallIntegerField(default=0)
    lease_until = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = visible_through("project").as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["open", "asking", "finished", "failed"]), name="injection_probe_state"
            )
        ]


class Worker(models.Model):
    """A heartbeat: one process that says it is alive, by the database's clock. `gpus`: `workers.monitoring.gpus.Gpu` as plain values."""

    name = models.CharField(max_length=200, primary_key=True)
    queues = models.CharField(max_length=200)
    host = models.CharField(max_length=200)
    pid = models.PositiveIntegerField()
    gpus = models.JSONField(default=list, db_default=[])
    started_at = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(db_default=Now())

    @property
    def label(self) -> str:
        """Its name without the host's, which tells about the machines."""
        return self.name.partition("@")[0]


class EndpointState(models.Model):
    """One endpoint as all workers together have found it: what it bears, what it said last, whether it may be called.

    `identity` stands for address, key and, where limits are a model's own, model; it holds none of them in clear.
    Rows come with the first call and change only under their lock, by the rules of `workers.endpoints.limiter_rules`.
    """

    class Mode(models.TextChoices):
        CLOSED = "closed", "calls go through"
        PAUSED = "paused", "paused: it said 429"
        OPEN = "open", "out of order"
        HALF_OPEN = "half_open", "trying one call"

    identity = models.CharField(max_length=64, primary_key=True)
    name = models.CharField(max_length=80)
    base_url = models.TextField()
    model = models.CharField(max_length=200, blank=True)
    concurrency = models.PositiveIntegerField(default=0)
    rpm = models.FloatField(null=True, blank=True)
    tpm = models.FloatField(null=True, blank=True)
    mode = models.CharField(max_length=10, choices=Mode.choices, default=Mode.CLOSED)
    epoch = models.PositiveIntegerField(default=0)
    until = models.DateTimeField(null=True, blank=True)
    trips = models.PositiveIntegerField(default=0)
    failures = models.PositiveIntegerField(default=0)
    down_since = models.DateTimeField(null=True, blank=True)
    ceiling = models.FloatField(null=True, blank=True)
    probe_by = models.CharField(max_length=200, blank=True)
    probe_until = models.DateTimeField(null=True, blank=True)
    requests_from = models.DateTimeField(null=True, blank=True)
    tokens_from = models.DateTimeField(null=True, blank=True)
    minute = models.PositiveBigIntegerField(default=0)
    minute_requests = models.PositiveBigIntegerField(default=0)
    minute_tokens = models.FloatField(default=0.0)
    last_requests = models.PositiveBigIntegerField(default=0)
    last_tokens = models.FloatField(default=0.0)
    calls = models.PositiveBigIntegerField(default=0)
    turned_away = models.PositiveBigIntegerField(default=0)
    outages = models.PositiveBigIntegerField(default=0)
    last_error = models.TextField(blank=True)
    last_error_at = models.DateTimeField(null=True, blank=True)
    last_answer_at = models.DateTimeField(null=True, blank=True)
    seen_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["name", "model", "identity"]
        constraints = [
            models.CheckConstraint(
                condition=Q(mode__in=["closed", "half_open"], until__isnull=True)
                | Q(mode__in=["paused", "open"], until__isnull=False),
                name="endpoint_mode_fits_pause",
            )
        ]


class EndpointShare(models.Model):
    """The slots of an endpoint that one process holds until `until`; a process that dies gives them back by silence."""

    endpoint = models.ForeignKey(EndpointState, on_delete=models.CASCADE, related_name="shares")
    holder = models.CharField(max_length=200)
    slots = models.PositiveIntegerField()
    in_flight = models.PositiveIntegerField()
    wanted = models.PositiveIntegerField()
    until = models.DateTimeField()

    class Meta:
        ordering = ["endpoint", "holder"]
        constraints = [models.UniqueConstraint(fields=["endpoint", "holder"], name="endpoint_share_once")]
