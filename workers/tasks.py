"""Celery tasks: each takes an id, removes the mark of its hint, and calls one function."""

from __future__ import annotations

import time

from celery import Task, shared_task

from scoring.rating import rate_stale
from workers.archives import data_files
from workers.archives import importing as archives
from workers.broker.hints import hint_taken, leave_hint
from workers.deletion import job as deletion
from workers.jobs import calibration, candidates, distillation, evaluation, injection_probe, training, trial
from workers.jobs.recipe import job as recipe_jobs
from workers.jobs.refinement import job as refinement_jobs
from workers.jobs.teaching import job as teaching
from workers.judging import batches
from workers.monitoring import heartbeats, project_figures, query_figures
from workers.runs import advancing
from workers.runs.rounds.resting import resting_query_ids
from workers.webhooks import delivery

RATING_SLICE_S = 5.0  # then the worker takes the next hint, perhaps of another project
MEASURING_SLICE_S = 5.0


@shared_task(name="workers.tasks.judge", bind=True)
def judge(self: Task, annotator_id: int) -> None:
    hint_taken("judge", annotator_id)
    batches.judge_open(annotator_id, worker=heartbeats.process_name(self.request.hostname))


@shared_task(name="workers.tasks.rate")
def rate(project_id: int) -> None:
    hint_taken("rate", project_id)
    if rate_stale(project_id, slice_s=RATING_SLICE_S, resting=resting_query_ids).unfinished:
        leave_hint("rate", project_id)
    query_figures.note_certainty(project_id)
    for run_id in advancing.runs_to_advance(project_id):
        leave_hint("advance", run_id)


@shared_task(name="workers.tasks.advance")
def advance(run_id: int) -> None:
    hint_taken("advance", run_id)
    advancing.advance(run_id)


@shared_task(name="workers.tasks.calibrate")
def calibrate(project_id: int) -> None:
    hint_taken("calibrate", project_id)
    calibration.calibrate(project_id)


@shared_task(name="workers.tasks.probe", bind=True)
def probe(self: Task, job_id: int) -> None:
    hint_taken("probe", job_id)
    injection_probe.run_probe(job_id, worker=heartbeats.process_name(self.request.hostname))


@shared_task(name="workers.tasks.trial", bind=True)
def try_judge(self: Task, job_id: int) -> None:
    hint_taken("trial", job_id)
    trial.run_trial(job_id, worker=heartbeats.process_name(self.request.hostname))


@shared_task(name="workers.tasks.teach", bind=True)
def teach(self: Task, job_id: int) -> None:
    hint_taken("teach", job_id)
    teaching.run_teaching(job_id, worker=heartbeats.process_name(self.request.hostname))


@shared_task(name="workers.tasks.fill", bind=True)
def fill(self: Task, job_id: int) -> None:
    hint_taken("fill", job_id)
    candidates.fill(job_id, worker=heartbeats.process_name(self.request.hostname))


@shared_task(name="workers.tasks.evaluate", bind=True)
def evaluate(self: Task, job_id: int) -> None:
    hint_taken("evaluate", job_id)
    evaluation.evaluate(job_id, worker=heartbeats.process_name(self.request.hostname))


@shared_task(name="workers.tasks.train", bind=True)
def train(self: Task, job_id: int) -> None:
    hint_taken("train", job_id)
    training.train(job_id, worker=heartbeats.process_name(self.request.hostname))


@shared_task(name="workers.tasks.distill", bind=True)
def distill(self: Task, job_id: int) -> None:
    hint_taken("distill", job_id)
    distillation.distill(job_id, worker=heartbeats.process_name(self.request.hostname))


@shared_task(name="workers.tasks.refine", bind=True)
def refine(self: Task, job_id: int) -> None:
    hint_taken("refine", job_id)
    refinement_jobs.refine(job_id, worker=heartbeats.process_name(self.request.hostname))


@shared_task(name="workers.tasks.recipe", bind=True)
def recipe(self: Task, job_id: int) -> None:
    hint_taken("recipe", job_id)
    recipe_jobs.cook(job_id, worker=heartbeats.process_name(self.request.hostname))


@shared_task(name="workers.tasks.delete", bind=True)
def delete(self: Task, job_id: int) -> None:
    hint_taken("delete", job_id)
    deletion.carry_out_deletion(job_id, worker=heartbeats.process_name(self.request.hostname))


@shared_task(name="workers.tasks.unpack", bind=True)
def unpack(self: Task, job_id: int) -> None:
    hint_taken("unpack", job_id)
    archives.unpack(job_id, worker=heartbeats.process_name(self.request.hostname))


@shared_task(name="workers.tasks.load", bind=True)
def load(self: Task, job_id: int) -> None:
    hint_taken("load", job_id)
    data_files.load(job_id, worker=heartbeats.process_name(self.request.hostname))


@shared_task(name="workers.tasks.measure")
def measure(project_id: int) -> None:
    hint_taken("measure", project_id)
    is_left = project_figures.measure_wanted(project_id, until=time.monotonic() + MEASURING_SLICE_S)
    if is_left or query_figures.measure_stale(project_id, slice_s=MEASURING_SLICE_S):
        leave_hint("measure", project_id)


@shared_task(name="workers.tasks.deliver")
def deliver(webhook_id: int) -> None:
    hint_taken("deliver", webhook_id)
    delivery.deliver(webhook_id)
