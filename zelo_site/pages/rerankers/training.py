"""A project's trainings: starting one, and its live curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pydantic
from django import forms
from django.contrib import messages
from django.db.models import Exists, OuterRef, QuerySet
from django.forms import BoundField
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from labeling.models import Project
from labeling.plugins import Plugin, get_plugin, registered
from labeling.wording import translated
from scoring.models import Snapshot
from scoring.numerics.measures.resampling import Interval
from trainer.evaluation.gate import interval_of, is_worse_on_each
from trainer.models import Reranker, TrainingRun
from trainer.serving.registry import PAIRWISE_JUDGE
from workers.jobs.training import (
    TrainingRefused,
    cancel_training,
    publish_anyway,
    recommendation,
    resume_training,
    start_training,
)
from workers.monitoring.heartbeats import alive
from zelo_site.pages.charts.geometry import Axis, Tick, polyline, ticks
from zelo_site.pages.forms import BadForm, PageForm, PluginField, name_in_words, plugin_form, shown_form
from zelo_site.pages.live import live_fragment, rendered_fragment
from zelo_site.pages.scope import may_change, owned_project, visible_project

LIVE = "zelo/rerankers/parts/training_live.html"
WIDTH, HEIGHT = 600, 160
SHOWN = 50
DEFAULT_TRAINER = "embedding"  # marked while the project has no snapshot; the recommendation decides otherwise
# Margin above and below a curve, as a share of its largest value; a single point needs it for a readable axis.
LEAST_ROOM = 0.01


class TrainingForm(PageForm):
    """The snapshot and the trainer of a new training."""

    snapshot = forms.ModelChoiceField(Snapshot.objects.none(), label=gettext_lazy("Snapshot"))
    trainer = PluginField("trainer", default=DEFAULT_TRAINER, label=gettext_lazy("Trainer"))


@dataclass(frozen=True, slots=True)
class TrainerChoice:
    """A trainer in the form: its names instead of its class, which a template would call."""

    name: str
    label: str
    fields: list[BoundField]
    chosen: bool
    recommended: str = ""


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve over steps with the values at its ends; `best` is its highest point, in the view box."""

    points: str
    first: tuple[int, float]
    last: tuple[int, float]
    ticks: list[Tick]
    best: tuple[float, float] | None = None


# Below, no signs of the differences have a probability below .05 by chance (the sign-flip test of the gate).
FEWEST_TO_DIFFER = 6


@dataclass(frozen=True, slots=True)
class GateLine:
    """A comparison at the gate, as `trainer.evaluation.gate.GateRow` with its words."""

    rival: str
    split: str
    measure: str
    values: dict[str, Any]

    @property
    def interval(self) -> Interval:
        """Return the interval of the difference."""
        return interval_of(self.values, self.values["difference"])


def gate_lines(gate: dict[str, Any]) -> list[GateLine]:
    """Return the comparisons of a run's gate."""
    rivals = {"base": _("untrained base"), "first_stage": _("first stage")}
    measures = {"grades": f"NDCG@10 · {_('human grades')}", "elo": "NDCG@10 · Elo", "log_loss": _("log-loss")}
    return [
        GateLine(rivals[each["rival"]], each["split"], measures[each["reference"]], each)
        for each in gate.get("comparisons", [])
    ]


def gate_advice(gate: dict[str, Any], *, trainer: str = "") -> list[str]:
    """Return the likely reasons why a student was held back, each with what to try; or that too few queries prove nothing."""
    advice = {
        "few_queries": _("Few training queries. Judge more queries, or choose the embedding trainer.")
        if trainer not in ("embedding", "pairwise")
        else _("Few training queries. Judge more queries."),
        "close_labels": _("Labels close together. Judge with more answers a pair, or use a listwise or pairwise loss."),
        "good_base": _("The base already ranks these queries well. Use a smaller learning rate or fewer epochs.")
        if trainer != "pairwise"
        else _("The base already judges these pairs as well. Judge more pairs, or use a larger base."),
        "pairs_at_chance": _("No better than chance on held-out pairs. Judge more pairs, or use a larger base."),
        "good_first_stage": _("The first stage already ranks these queries well. Use a larger base."),
        "few_steps": _("The training ended before it had seen every pair once. Allow more steps."),
    }
    if gate.get("start_won"):
        return []
    compared = gate.get("comparisons", [])
    if not gate.get("held_back") and compared and max(each["queries"] for each in compared) < FEWEST_TO_DIFFER:
        return [
            _(
                "A difference on fewer than six queries is never more than chance. Judge more queries, or freeze with larger shares "
                "for dev and test."
            )
        ]
    facts = gate.get("facts", {})
    seen_once = facts.get("steps", 0) * facts.get("batch_size", 0) >= facts.get("train_pairs", 0)
    of_base = ["good_base" if seen_once else "few_steps", "few_queries"]
    reasons = of_base if gate.get("base_won") else gate.get("reasons", [])
    return [advice[each] for each in reasons if each in advice]


def curve(points: list[list[float]], *, steps: int, best_step: int | None = None) -> Curve | None:
    """Return the curve of (step, value), or None without values."""
    if not points:
        return None
    values = [value for __, value in points]
    room = max(0.05 * (max(values) - min(values)), LEAST_ROOM * max(map(abs, values))) or LEAST_ROOM
    y = Axis(min(values) - room, max(values) + room)
    x = Axis(0, max(steps, points[-1][0], 1))
    marked = next((point for point in points if point[0] == best_step), None)
    return Curve(
        points=polyline(_drawn(points, x), x=x, y=y, width=WIDTH, height=HEIGHT),
        first=(int(points[0][0]), points[0][1]),
        last=(int(points[-1][0]), points[-1][1]),
        ticks=ticks(y),
        best=None
        if marked is None
        else (round(x.at(marked[0]) * WIDTH / 100, 1), round(HEIGHT - y.at(marked[1]) * HEIGHT / 100, 1)),
    )


def _drawn(points: list[list[float]], x: Axis) -> list[tuple[float, float]]:
    """Return the points of the line; a single one becomes a short dash, because a line of one point is invisible."""
    if len(points) > 1:
        return [(step, value) for step, value in points]
    (step, value), half = points[0], (x.high - x.low) / 100
    return [(step - half, value), (step + half, value)]


def training_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the list and the form; a POST starts a training."""
    project = visible_project(request, slug)
    if request.method != "POST":
        return render(request, "zelo/rerankers/training.html", _context(request, project))
    owned_project(request, slug)
    try:
        values = TrainingForm(request.POST, rows={"snapshot": _snapshots(request, project)}).checked()
        trainer = get_plugin("trainer", values["trainer"])
        options = plugin_form(trainer, prefix=f"trainer-{trainer.name}")(request.POST).plain_options()
        run = start_training(project, values["snapshot"], trainer=trainer.name, options=options, by=request.user)
    except (BadForm, TrainingRefused, pydantic.ValidationError) as error:
        return render(request, "zelo/rerankers/training.html", _context(request, project, error), status=422)
    return redirect("training-run", slug=project.slug, training_id=run.pk)


def _context(request: HttpRequest, project: Project, error: Exception | None = None) -> dict[str, Any]:
    sent = request.POST if error is not None else None
    snapshots = list(_snapshots(request, project))
    form = shown_form(TrainingForm, sent, error, rows={"snapshot": _snapshots(request, project)})
    advised, reason = _advised(snapshots, request.POST.get("snapshot", ""))
    chosen = form["trainer"].value() if sent is not None else advised
    return {
        "project": project,
        "here": "training",
        "runs": list(_runs(project)[:SHOWN]),
        "snapshots": snapshots,
        "form": form,
        "trainers": [
            TrainerChoice(
                name, plugin.label, _fields(plugin, sent, error), name == chosen, reason if name == advised else ""
            )
            for name, plugin in registered("trainer").items()
        ],
        "error": error,
        "may_change": may_change(request, project),
    }


def _runs(project: Project) -> QuerySet[TrainingRun]:
    """Return the trainings, each with whether its held-back student was published anyway."""
    anyway = Reranker.objects.filter(training_run=OuterRef("pk"), release=Reranker.Release.PUBLISHED_ANYWAY)
    runs = TrainingRun.objects.filter(project=project).select_related("snapshot")
    return runs.annotate(published_anyway=Exists(anyway))


def _snapshots(request: HttpRequest, project: Project) -> QuerySet[Snapshot]:
    """Return the snapshots to train on; test collections are none of them."""
    return Snapshot.objects.visible_to(request.user).filter(projects=project).exclude(manifest__splits__train__rows=0)


def _advised(snapshots: list[Snapshot], chosen: str) -> tuple[str, str]:
    """Return the trainer that suits the chosen (or latest) snapshot and the base of the installation, and the reason."""
    snapshot = next((each for each in snapshots if str(each.pk) == chosen), snapshots[0] if snapshots else None)
    if snapshot is None:
        return DEFAULT_TRAINER, ""
    found = recommendation(snapshot)
    return found.trainer, translated(found.sentence)


def _fields(trainer: type[Plugin], sent: Any, error: Exception | None) -> list[BoundField]:
    return list(shown_form(plugin_form(trainer, prefix=f"trainer-{trainer.name}"), sent, error))


def run_page(request: HttpRequest, slug: str, training_id: int) -> HttpResponse:
    """Show one training; its top is the live fragment."""
    project = visible_project(request, slug)
    run = _run(request, project, training_id)
    context = _run_context(request, project, run)
    live, __ = rendered_fragment(request, LIVE, context)
    options = [(name_in_words(name), value) for name, value in run.options.items()]
    return render(request, "zelo/rerankers/training_run.html", {**context, "live": live, "options": options})


def run_live(request: HttpRequest, slug: str, training_id: int) -> HttpResponse:
    """Return the live fragment, or 204 if it is unchanged."""
    project = visible_project(request, slug)
    return live_fragment(request, LIVE, _run_context(request, project, _run(request, project, training_id)))


def _run(request: HttpRequest, project: Project, training_id: int) -> TrainingRun:
    runs = TrainingRun.objects.visible_to(request.user).filter(project=project).select_related("snapshot")
    return get_object_or_404(runs, pk=training_id)


def _run_context(request: HttpRequest, project: Project, run: TrainingRun) -> dict[str, Any]:
    progress = run.progress
    goes_on = run.state in (TrainingRun.State.PLANNED, TrainingRun.State.RUNNING)
    best = progress.get("best") or {}
    rerankers = list(run.rerankers.all())
    published = [each for each in rerankers if each.release != Reranker.Release.HELD_BACK]
    return {
        "project": project,
        "here": "training",
        "run": run,
        "told": progress,
        "goes_on": goes_on,
        "loss": curve(progress.get("loss") or [], steps=progress.get("steps", 0)),
        "ndcg": curve(progress.get("ndcg") or [], steps=progress.get("steps", 0), best_step=best.get("step")),
        "log_loss": curve(progress.get("log_loss") or [], steps=progress.get("steps", 0), best_step=best.get("step")),
        "can_resume": run.state in (TrainingRun.State.FAILED, TrainingRun.State.CANCELLED),
        "no_worker": goes_on and not any("training" in worker.queues.split(",") for worker in alive()),
        "rerankers": [each for each in rerankers if each in published and each.kind != PAIRWISE_JUDGE],
        "judges": [each for each in rerankers if each in published and each.kind == PAIRWISE_JUDGE],
        "pairs": (pairs := run.gate.get("pairs")),
        "pairs_interval": interval_of(pairs, pairs["log_loss"]) if pairs else None,
        "held_back": any(each.release == Reranker.Release.HELD_BACK for each in rerankers),
        "gate_lines": gate_lines(run.gate),
        "gate_advice": gate_advice(run.gate, trainer=run.trainer),
        "each_worse": is_worse_on_each(run.gate),
        "may_change": may_change(request, project),
    }


@require_POST
def move_training(request: HttpRequest, slug: str, training_id: int, move: str) -> HttpResponse:
    """Cancel or resume a training, or publish its held-back student; warn if its state has changed."""
    project = owned_project(request, slug)
    run = _run(request, project, training_id)
    if move == "cancel":
        if not cancel_training(run, by=request.user):
            state = translated(run.get_state_display())
            messages.warning(request, _("Nothing changed: the training is already %(state)s.") % {"state": state})
    elif move in ("resume", "publish"):
        try:
            (resume_training if move == "resume" else publish_anyway)(run, by=request.user)
        except TrainingRefused as error:
            messages.warning(request, str(error))
    else:
        raise Http404(f"unknown training action {move!r}")
    return redirect("training-run", slug=project.slug, training_id=run.pk)
