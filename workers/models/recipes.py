"""Recipes: the whole method as one job, and the rows of its stages. `workers.jobs.recipe` changes them."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from labeling.models import Annotator, Project, visible_through
from labeling.models.fields import MessageField
from scoring.models import Snapshot
from trainer.models import TrainingRun
from workers.models.jobs import Job
from workers.models.runs import Run


class Recipe(models.Model):
    """One order of the whole method; its `job` has the state, the lease and the error.

    `judges` are the panel; `plan`: the estimate that was shown before the start, by stage.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="recipes")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)
    judges = models.ManyToManyField(Annotator, related_name="+")
    job = models.OneToOneField(Job, on_delete=models.CASCADE, related_name="recipe")
    options = models.JSONField(default=dict, blank=True)
    plan = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(db_default=Now())

    objects = visible_through("project").as_manager()

    class Meta:
        ordering = ["-id"]


class RecipeStage(models.Model):
    """One stage of a recipe: its state, and what it started. `reason`: why it is left out, or what it did."""

    class Name(models.TextChoices):
        PANEL = "panel", "panel"
        DISTILLATION = "distillation", "distillation"
        DESIGN = "design", "design"
        CALIBRATION = "calibration", "calibration"
        STUDENT = "student", "student"
        REFINEMENT = "refinement", "refinement"
        PROOF = "proof", "proof"

    class State(models.TextChoices):
        PLANNED = "planned", "planned"
        RUNNING = "running", "running"
        FINISHED = "finished", "finished"
        LEFT_OUT = "left_out", "left out"
        FAILED = "failed", "failed"

    recipe = models.ForeignKey(Recipe, on_delete=models.CASCADE, related_name="stages")
    number = models.PositiveSmallIntegerField()
    name = models.CharField(max_length=20, choices=Name.choices)
    state = models.CharField(max_length=20, choices=State.choices, default=State.PLANNED)
    reason = MessageField(blank=True)
    run = models.ForeignKey(Run, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    job = models.ForeignKey(Job, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    snapshot = models.ForeignKey(Snapshot, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    training = models.ForeignKey(TrainingRun, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = visible_through("recipe__project").as_manager()

    class Meta:
        ordering = ["recipe", "number"]
        constraints = [
            models.UniqueConstraint(fields=["recipe", "name"], name="recipe_stage_once"),
            models.UniqueConstraint(fields=["recipe", "number"], name="recipe_stage_in_order"),
            models.CheckConstraint(
                condition=Q(name__in=[
                    "panel", "distillation", "design", "calibration", "student", "refinement", "proof",
                ]),
                name="recipe_stage_name",
            ),
            models.CheckConstraint(
                condition=Q(state="planned", started_at__isnull=True, finished_at__isnull=True)
                | Q(state__in=["running", "failed"], started_at__isnull=False, finished_at__isnull=True)
                | Q(state="finished", started_at__isnull=False, finished_at__isnull=False)
                | Q(state="left_out", finished_at__isnull=True),
                name="recipe_stage_times_fit_state",
            ),
        ]  # fmt: skip
