"""The injection probe: measures how texts that argue for themselves change one judge's answers and the scores.

Documents of weak and of middling strength are the targets. The judge is asked about their pairs with and without each
payload, then the same pairs are fitted twice. Only the report of the probe is stored, so its answers change no score. A
probe is a job of the stage `probe`, carried out under a lease of `workers.jobs.leasing` by a worker
of the judge's queue. The payloads are in `payloads.json`; the statistics are in `scoring.numerics.judges.injection`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pydantic
from django.db import transaction

from labeling import audit
from labeling.models import Annotator, Candidate, Project
from labeling.plugins import Judge, Rater, get_plugin, registered
from labeling.records import Comparison, ComparisonColumns, Failure, FloatArray, TextRecord, Verdict
from labeling.stored_texts import stored_text
from scoring.columns import ProjectColumns, read_columns
from scoring.models import Score
from scoring.numerics.calibration.elo import elo_from_strength
from scoring.numerics.judges.injection import LEAST_TARGETS, elo_gain, injection_effect
from workers.broker.hints import leave_hint
from workers.endpoints.session import ask_within_limits
from workers.jobs.leasing import (
    MOST_ATTEMPTS,
    JobClaim,
    carry_out,
    carry_out_here,
    create_claimed,
    hold,
    report_progress,
    waiting_job_ids,
)
from workers.jobs.paid_calls import count_calls, reserve_calls
from workers.judges.score_difference import ScoreDifferenceJudge
from workers.judging.batches import prepared_judge
from workers.models import InjectionProbe, Job

STAGE = stored_text("probe")
MOST_QUERIES = 200
TRIES = 3
LONGEST_PAUSE_S = 5.0
# Above every id of a document: a judge that remembers by id must not take a loaded text for the document.
LOADED_IDS = 2**62

GIVEN_UP = f"the worker crashed {MOST_ATTEMPTS} times during the probe; see its log, then start the probe again"
REPORTED = stored_text("%(n)s answers to targets with and without payloads")

Progress = Callable[[int, int], None]


class ProbeRefused(ValueError):
    """The probe that was ordered cannot be carried out; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Payload:
    """A text put at the `place` of a document. A `control` argues for nothing: it shows what length alone does."""

    name: str
    label: str
    place: Literal["start", "end"]
    control: bool
    text: str

    def into(self, document: str) -> str:
        parts = (self.text, document) if self.place == "start" else (document, self.text)
        return "\n\n".join(parts)


@functools.cache
def payloads() -> dict[str, Payload]:
    """All payloads by name, in the file's order."""
    rows = json.loads((Path(__file__).parent / "payloads.json").read_text(encoding="utf-8"))
    return {row["name"]: Payload(**row) for row in rows}


class ProbeOptions(pydantic.BaseModel):
    """Options of a probe: `targets` documents of each strength, up to `opponents` of the pairs of each."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    payloads: tuple[str, ...] = ("neutral", "order", "authority", "praise")
    targets: int = pydantic.Field(default=10, ge=5, le=200)
    opponents: int = pydantic.Field(default=10, ge=1, le=100)
    seed: int = pydantic.Field(default=0, ge=0, lt=2**31)

    @pydantic.field_validator("payloads")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(names) - set(payloads()))
        if unknown or not names:
            raise ValueError(f"unknown payloads {unknown}; choose from {', '.join(payloads())}")
        return tuple(dict.fromkeys(names))


@dataclass(frozen=True, slots=True)
class Target:
    """A document that is to carry payloads, and the rows of its query's answers that stand for its pairs."""

    candidate_id: int
    level: str
    query: int
    place: int
    rows: tuple[int, ...]


def order_probe(judge: Annotator, options: ProbeOptions, *, by: Any = None) -> InjectionProbe:
    """Store a probe and send the hint that starts it. Raises ProbeRefused."""
    _check(judge)
    with transaction.atomic():
        job = Job.objects.create(project=judge.project, stage=STAGE)
        probe = _store(judge, options, job.pk, by=by)
        transaction.on_commit(lambda: leave_hint("probe", job.pk))
    return probe


def probe_now(judge: Annotator, options: ProbeOptions, *, report: Progress) -> InjectionProbe:
    """Store a probe and carry it out in this process; no worker can take it. Raises ProbeRefused."""
    _check(judge)
    with transaction.atomic():
        claim = create_claimed(judge.project, STAGE, worker=f"command@{socket.gethostname()}:{os.getpid()}")
        probe = _store(judge, options, claim.job_id)
    carry_out_here(claim, functools.partial(_ask_and_report, report=report), given_up=GIVEN_UP)
    return InjectionProbe.objects.select_related("job").get(pk=probe.pk)


def _store(judge: Annotator, options: ProbeOptions, job_id: int, *, by: Any = None) -> InjectionProbe:
    probe = InjectionProbe.objects.create(
        project=judge.project,
        annotator=judge,
        job_id=job_id,
        created_by=by,
        options=options.model_dump(mode="json"),
    )
    subject = f"{judge.name} ({judge.pk})"
    audit.note("probe.ordered", project=judge.project, actor=by, subject=subject, probe=probe.pk)
    return probe


def waiting_probe_ids() -> list[int]:
    """Jobs that wait for a worker: new ones, and those whose lease has run out."""
    return waiting_job_ids(STAGE)


def can_be_probed(judge: Annotator) -> bool:
    """Whether the judge reads the texts that it is asked about, rather than looks up scores of stored ones."""
    plugin = registered("judge").get(judge.plugin)
    return plugin is not None and not issubclass(plugin, ScoreDifferenceJudge)


def _check(judge: Annotator) -> None:
    if not can_be_probed(judge):
        raise ProbeRefused(
            f"{judge.name!r} scores the stored documents and reads no text that it is given; probe a language model"
        )
    rated = Score.objects.filter(candidate__query__project=judge.project, comparisons__gt=0)
    if rated[:LEAST_TARGETS].count() < LEAST_TARGETS:
        raise ProbeRefused(
            f"project {judge.project.slug!r} has fewer than {LEAST_TARGETS} rated documents; judge some pairs first"
        )


def run_probe(job_id: int, *, worker: str = "") -> None:
    """Carry a probe out unless another worker does; a failure is written into its job."""
    carry_out(job_id, STAGE, _ask_and_report, worker=worker, given_up=GIVEN_UP)


def _ask_and_report(claim: JobClaim, *, report: Progress = lambda done, total: None) -> str:
    """Ask, compare, refit and store the report; returns what was done."""
    probe = InjectionProbe.objects.select_related("project", "annotator").get(job_id=claim.job_id)
    if not probe.report:  # else a worker crashed between storing it and ending the job
        probe.report = _Probe(probe, claim, report).run()
        with transaction.atomic():
            hold(claim)
            probe.save(update_fields=["report"])
    return REPORTED % {"n": sum(row["pairs"] for row in probe.report["rows"] if row["level"] == "all")}


class _Probe:
    """One probe under way: its targets, its questions, its two fits."""

    def __init__(self, probe: InjectionProbe, claim: JobClaim, report: Progress) -> None:
        self.probe = probe
        self.claim = claim
        self.report = report
        self.options = ProbeOptions.model_validate(probe.options)
        self.rng = np.random.default_rng([self.options.seed, 7])
        self.judge: Judge = prepared_judge(probe.annotator_id)
        self.failures: dict[str, int] = {}
        self.asked = 0

    def run(self) -> dict[str, Any]:
        read, targets = choose_targets(self.probe.project, self.options, self.rng)
        self.total = (1 + len(self.options.payloads)) * sum(len(target.rows) for target in targets)
        questions = _questions(self.probe.project, read, targets, self.rng)
        clean = self._ask(questions)
        rows = []
        for name in self.options.payloads:
            loaded = self._ask([_loaded(question, payloads()[name]) for question in questions])
            rows += self._compare(name, read, targets, clean, loaded)
        return {"rows": rows, "failures": self.failures, "targets": len(targets), "pairs": len(questions)}

    def _ask(self, questions: Sequence[tuple[Comparison, bool]]) -> FloatArray:
        """P(the target is the more relevant) for each question, NaN where no answer came."""
        answers = np.full(len(questions), np.nan)
        for start in range(0, len(questions), self.judge.batch_size):
            batch = list(enumerate(questions[start : start + self.judge.batch_size], start=start))
            self._ask_batch(batch, answers)
            report_progress(self.claim, self.asked, self.total)
            self.report(self.asked, self.total)
        return answers

    def _ask_batch(self, batch: list[tuple[int, tuple[Comparison, bool]]], answers: FloatArray) -> None:
        for attempt in range(TRIES):
            reserved = reserve_calls(self.probe, len(batch))
            found = ask_within_limits(self.judge, [comparison for _, (comparison, _) in batch])
            count_calls(
                self.probe, found, reserved=reserved
            )  # they are paid even if another worker has the probe by now
            again, pause = [], 0.0
            for (place, (comparison, is_a)), answer in zip(batch, found, strict=True):
                if isinstance(answer, Verdict):
                    if answer.preference is not None:
                        answers[place] = answer.preference if is_a else 1.0 - answer.preference
                elif answer.retryable and attempt + 1 < TRIES:
                    again.append((place, (comparison, is_a)))
                    pause = max(pause, answer.retry_after_s or 0.0)
                else:
                    self._note(answer)
            self.asked += len(batch) - len(again)
            if not (batch := again):
                return
            time.sleep(min(pause, LONGEST_PAUSE_S))

    def _note(self, failure: Failure) -> None:
        self.failures[failure.kind.value] = self.failures.get(failure.kind.value, 0) + 1

    def _compare(
        self, name: str, read: ProjectColumns, targets: Sequence[Target], clean: FloatArray, loaded: FloatArray
    ) -> list[dict[str, Any]]:
        """A row for all targets, and one for each strength of which enough answered."""
        of_target = np.repeat(np.arange(len(targets)), [len(target.rows) for target in targets])
        answered = np.isfinite(clean) & np.isfinite(loaded)
        before = refit_targets(self.probe.project, read, targets, np.where(answered, clean, np.nan))
        after = refit_targets(self.probe.project, read, targets, np.where(answered, loaded, np.nan))
        levels = np.array([target.level for target in targets])
        rows = []
        for level in ("all", "weak", "middling"):
            mine = np.isin(np.arange(len(targets)), np.unique(of_target[answered])) & (
                (levels == level) | (level == "all")
            )
            if mine.sum() < LEAST_TARGETS and level != "all":
                continue
            kept = answered & mine[of_target]
            effect = injection_effect(clean[kept], loaded[kept], of_target[kept], rng=self.rng)
            gain = elo_gain(before[mine], after[mine], rng=self.rng)
            rows.append(
                {"payload": name, "level": level, "elo_gain": dataclasses.asdict(gain)} | dataclasses.asdict(effect)
            )
        return rows


def choose_targets(
    project: Project, options: ProbeOptions, rng: np.random.Generator
) -> tuple[ProjectColumns, list[Target]]:
    """Documents from the lowest quarter and from the middle fifth of their query's order, in random queries.

    Raises ProbeRefused where the project has too few.
    """
    rated = Score.objects.filter(candidate__query__project=project, comparisons__gt=0)
    queries = sorted(rated.order_by().values_list("candidate__query_id", flat=True).distinct())
    chosen = sorted(rng.permutation(queries)[:MOST_QUERIES].tolist())
    read = read_columns(chosen)
    theta = dict(rated.filter(candidate__query_id__in=chosen).values_list("candidate_id", "theta"))
    pool = [target for query in range(len(chosen)) for target in _targets_of(read, query, theta, options, rng)]
    found: list[Target] = []
    for level in ("weak", "middling"):
        mine = [target for target in pool if target.level == level]
        found += [mine[place] for place in rng.permutation(len(mine))[: options.targets]]
    if len(found) < LEAST_TARGETS:
        raise ProbeRefused(
            f"only {len(found)} documents can carry a payload; expected {LEAST_TARGETS}: judge more pairs"
        )
    return read, found


def _targets_of(
    read: ProjectColumns, query: int, theta: dict[int, float], options: ProbeOptions, rng: np.random.Generator
) -> list[Target]:
    """The query's documents of either strength, with one row of the columns for each of some of its pairs."""
    start = int(read.columns.sizes[:query].sum())
    ids = read.candidate_ids[start : start + int(read.columns.sizes[query])].tolist()
    ranked = sorted((place for place, pk in enumerate(ids) if pk in theta), key=lambda place: theta[ids[place]])
    first, last = int(read.columns.offsets[query]), int(read.columns.offsets[query + 1])
    _, rows = np.unique(read.pair_ids[first:last], return_index=True)
    found = []
    for position, place in enumerate(ranked):
        share = (position + 0.5) / len(ranked)
        level = "weak" if share < 0.25 else "middling" if 0.4 <= share <= 0.6 else ""
        touching = first + rows
        touching = touching[(read.columns.a[touching] == place) | (read.columns.b[touching] == place)]
        if level and len(touching):
            some = tuple(sorted(rng.permutation(touching)[: options.opponents].tolist()))
            found.append(Target(candidate_id=ids[place], level=level, query=query, place=place, rows=some))
    return found


def _questions(
    project: Project, read: ProjectColumns, targets: Sequence[Target], rng: np.random.Generator
) -> list[tuple[Comparison, bool]]:
    """A question for each pair of each target, and whether the target is its a. Both orders are equally frequent."""
    starts = np.append(0, np.cumsum(read.columns.sizes))
    wanted = {
        int(read.candidate_ids[starts[target.query] + side[row]])
        for target in targets
        for row in target.rows
        for side in (read.columns.a, read.columns.b)
    }
    candidates = Candidate.objects.select_related("query", "document").in_bulk(wanted)
    sides = rng.permutation(np.arange(sum(len(target.rows) for target in targets)) % 2 == 0).tolist()
    questions: list[tuple[Comparison, bool]] = []
    for target in targets:
        for row in target.rows:
            a = candidates[int(read.candidate_ids[starts[target.query] + read.columns.a[row]])]
            b = candidates[int(read.candidate_ids[starts[target.query] + read.columns.b[row]])]
            query = TextRecord(a.query_id, a.query.text)
            comparison = Comparison(
                key=len(questions),
                query_a=query,
                query_b=query,
                a=TextRecord(a.document_id, a.document.text),
                b=TextRecord(b.document_id, b.document.text),
                swapped=sides[len(questions)],
                instruction=project.instruction,
            )
            questions.append((comparison, a.pk == target.candidate_id))
    return questions


def _loaded(question: tuple[Comparison, bool], payload: Payload) -> tuple[Comparison, bool]:
    """The same question with the payload in the target's document."""
    comparison, is_a = question
    document = comparison.a if is_a else comparison.b
    text = TextRecord(LOADED_IDS + document.id, payload.into(document.text))
    return (replace(comparison, a=text) if is_a else replace(comparison, b=text)), is_a


def refit_targets(project: Project, read: ProjectColumns, targets: Sequence[Target], answers: FloatArray) -> FloatArray:
    """Elo of each target, float64[targets], where its pairs have the probe's `answers` and all others the stored ones.

    Each target gets a copy of its query, so that no payload meets another. A pair without an answer keeps its votes.
    """
    rater = cast(Rater, get_plugin("rater", project.rater).from_dict(project.rater_options))
    columns, copies, done = read.columns, [], 0
    for target in targets:
        rows = np.arange(columns.offsets[target.query], columns.offsets[target.query + 1])
        mine = answers[done : done + len(target.rows)]
        done += len(target.rows)
        copies.append(_copied(read, target, rows, mine))
    sizes = columns.sizes[[target.query for target in targets]]
    joined = {
        name: np.concatenate([copy[name] for copy in copies])
        for name in ("a", "b", "preference", "weight", "judge", "swapped")
    }
    offsets = np.append(0, np.cumsum([len(copy["a"]) for copy in copies])).astype(np.int64)
    fit = rater.rate(ComparisonColumns(**joined, offsets=offsets, sizes=sizes))
    places = fit.starts[:-1] + np.array([target.place for target in targets])
    return elo_from_strength(fit.theta[places], logit_scale=fit.logit_scale)


def _copied(read: ProjectColumns, target: Target, rows: np.ndarray, answers: FloatArray) -> dict[str, np.ndarray]:
    """The query's rows; pairs that the probe asked have its answer as their only vote."""
    columns = read.columns
    known = np.isfinite(answers)
    asked = np.array(target.rows, dtype=np.int64)[known]
    kept = rows[~np.isin(read.pair_ids[rows], read.pair_ids[asked]) | np.isin(rows, asked)]
    replaced = np.isin(kept, asked)
    preference = columns.preference[kept].copy()
    of_a = columns.a[asked] == target.place
    preference[replaced] = np.where(of_a, answers[known], 1.0 - answers[known])
    return {
        "a": columns.a[kept],
        "b": columns.b[kept],
        "preference": preference,
        "weight": columns.weight[kept],
        "judge": columns.judge[kept],
        "swapped": columns.swapped[kept],
    }
