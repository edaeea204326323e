"""Trains an embedding student: cross-validated courses, one course over all queries, and the choice of checkpoint and scale.

The untrained base is the first candidate of that choice, so a student never leaves its base for the worse on the queries that
choose. Imports no Django.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from labeling.plugins import Report
from labeling.records import Examples, FloatArray, Trained, TrainingData
from trainer.bases import Base, load_base
from trainer.examples import drawn_queries
from trainer.instructions import check_instructions, told_data
from trainer.training import checkpoints
from trainer.training.adapters import start_of
from trainer.training.dev_ndcg import some_queries
from trainer.training.embedding.bi_encoder import BiEncoder, TokensDiffer
from trainer.training.embedding.course import Course, looks_of, steps_of
from trainer.training.embedding.lessons import HeldOut, Lessons, make_lessons
from trainer.training.embedding.line_search import FEWEST_QUERIES, SCALES, Choice, choose
from trainer.training.embedding.options import EmbeddingOptions
from trainer.training.embedding.token_weight import Signals, Weights, measured_weights, signals_of
from trainer.training.fine_tuning import CHECKPOINTS, threads_to_use
from trainer.training.losses.elo import NoPreferences, OneElo, elo_scale_of, with_preferences
from trainer.training.memory import with_less_memory
from trainer.training.options import START, START_SIGNALS

FOLDS, CANDIDATES = "folds", "candidates"
FEWEST_QUERIES_A_FOLD = 2


class NothingToChooseOn(ValueError):
    """There are neither dev queries nor folds to choose checkpoint and scale on."""


def nothing_to_choose_on(options: EmbeddingOptions, *, dev: int, train: int) -> NothingToChooseOn:
    """The error, with the remedy that helps: more queries, folds, or a larger dev split."""
    if options.start:
        why = f"a training that continues needs {FEWEST_QUERIES}; freeze a snapshot with a larger dev_share"
    elif train < 2 * FEWEST_QUERIES_A_FOLD:
        why = f"training queries with an order: {train}, and folds need {2 * FEWEST_QUERIES_A_FOLD}; judge more queries"
    else:
        why = f"folds is {options.folds}; set it to 2 or more, or freeze a snapshot with a larger dev_share"
    return NothingToChooseOn(f"nothing can choose the adapter's scale: dev queries with an order: {dev}; {why}")


def train_embedder(options: EmbeddingOptions, data: TrainingData, workspace: Path, report: Report) -> Trained:
    """Train from the last checkpoint in `workspace`; compute fewer texts at once while memory runs out.

    Raises NoPreferences, OneElo, NothingToChooseOn, NotAnEmbedder, SizeTooLarge, TokensDiffer, InstructionTooLong, OutOfMemory, LossNotFinite, and the
    errors of `trainer.bases`. On several GPUs only the first process trains.
    """
    torch.set_num_threads(options.threads or threads_to_use())
    base = load_base(options.base)
    data, reads = told_data(data, options)
    if int(os.environ.get("RANK", "0")):
        return Trained(adapter=workspace / "adapter", base=options.base, max_length=options.max_length, facts={})
    trained = with_less_memory(
        lambda most: _Training(options, base, data, workspace, report, most=most).run(),
        most=options.batch_size, what="text", workspace=workspace, report=report,
    )  # fmt: skip
    return replace(trained, reads_instruction=reads)


class _Training:
    """One attempt at the whole training, with at most `most` texts in memory."""

    def __init__(
        self, options: EmbeddingOptions, base: Base, data: TrainingData, workspace: Path, report: Report, *, most: int
    ) -> None:
        self.options, self.workspace, self.report, self.most = options, workspace, report, most
        self.train, self.dev = data.train, some_queries(data.dev, options.dev_rows)
        self.queries = with_preferences(self.train)
        self.dev_queries = _usable(self.dev)
        self.elo_scale = elo_scale_of(self.train, options.elo_scale)
        self.folds = self._folds()
        if not self.folds and len(self.dev_queries) < (FEWEST_QUERIES if options.start else 1):
            raise nothing_to_choose_on(options, dev=len(self.dev_queries), train=len(self.queries))
        count = len(self.queries)
        shortest = steps_of(options, min([count - len(part) for part in self.folds], default=count))
        self.looks = looks_of(options, count, shortest=shortest)
        self.model = BiEncoder(base, options)
        if options.token_similarity and self.model.token_size != self.model.sizes[0]:
            raise TokensDiffer(
                f"base {base.name!r} has token vectors of {self.model.token_size} numbers and embeddings of {self.model.sizes[0]}, "
                "so its tokens cannot be compared; turn token_similarity off, or choose another embedder"
            )
        if (start := start_of(options, workspace)) is not None:
            self.model.start_from(start)
        # Copies: `trainable` shares memory with the model, which the courses change.
        self.untrained = {name: each.clone() for name, each in checkpoints.trainable(self.model).items()}
        longest = min(options.max_length, self.model.whole_length)
        first = self.queries[0]
        shown = self.train.documents[first.start : first.stop]
        self.model.choose_precision(options, self.train.queries[first.start], shown, workspace)
        check_instructions(self.model.model.tokenizer, self.train, self.dev, longest=longest, base=options.base)

    def run(self) -> Trained:
        lessons = make_lessons(
            self.model,
            self.train,
            self.queries,
            max_length=self.options.max_length,
            most=self.most,
            pull=self.options.pull > 0.0,
        )
        self._say_prepared(lessons)
        parts = [self._fold(number, held_out, lessons) for number, held_out in enumerate(self.folds)]
        course, on_dev = self._whole(lessons)
        values = np.concatenate([*parts, on_dev])
        choice = choose(values)
        self.report("chosen", **self._told(choice, course))
        adapter = self._store(choice, course)
        weights = self._weights(choice)
        return Trained(
            adapter=adapter,
            base=self.options.base,
            max_length=self.model.whole_length,
            facts={**self._facts(choice, course, lessons, on_dev), **_told_weights(weights)},
            form="bi-encoder",
            embedding_sizes=self.model.sizes,
            token_weight=weights.tokens,
            list_weight=weights.context,
            base_won=choice.base_won and not self._has_new_weights(weights),
        )

    # --- courses -------------------------------------------------------------------------

    def _folds(self) -> list[list[int]]:
        """Numbers of the training queries that each fold holds out; none if the dev split is large enough, or if the start has
        learned from these queries.
        """
        if self.options.start:
            return []
        count = min(self.options.folds, len(self.queries) // FEWEST_QUERIES_A_FOLD)
        if count < 2 or len(self.dev_queries) >= self.options.enough_dev_queries:
            return []
        order = np.random.default_rng([self.options.seed, 7]).permutation(len(self.queries))
        return [sorted(part.tolist()) for part in np.array_split(order, count)]

    def _fold(self, number: int, held_out: Sequence[int], lessons: Lessons) -> FloatArray:
        """Values float64[queries, checkpoints, scales] of the queries that this course did not learn from."""
        kept = self.workspace / FOLDS / f"fold-{number}.json"
        if kept.exists() and self._weights_of_fold(number, 0).exists():
            return np.array(json.loads(kept.read_text()), dtype=np.float64)
        out = set(held_out)
        course = self._course([each for at, each in enumerate(lessons.lessons) if at not in out])
        measured = self._held_out(self.train, [self.queries[at] for at in held_out])
        looks: list[FloatArray] = []
        whole = steps_of(self.options, len(self.queries))
        told = _FoldReport(self.report, fold=number + 1, folds=len(self.folds), whole=whole)
        kept.parent.mkdir(exist_ok=True)

        def look(step: int) -> None:
            save_file(checkpoints.trainable(self.model), str(self._weights_of_fold(number, len(looks))))
            looks.append(measured.values())

        course.run(look, told)
        values = np.stack(looks, axis=1)
        draft = kept.with_suffix(".draft")
        draft.write_text(json.dumps(values.tolist()))
        draft.replace(kept)
        return values

    def _weights_of_fold(self, number: int, look: int) -> Path:
        return self.workspace / FOLDS / f"fold-{number}-look-{look}.safetensors"

    def _whole(self, lessons: Lessons) -> tuple[Course, FloatArray]:
        """The course over all training queries, and its values float64[queries, checkpoints, scales] on the dev split."""
        course = self._course(lessons.lessons)
        measured = self._held_out(self.dev, self.dev_queries)
        folder = self.workspace / CANDIDATES
        folder.mkdir(exist_ok=True)

        def look(step: int) -> None:
            values = measured.values() if self.dev_queries else np.zeros((0, 1))
            draft = folder / f".step-{step}"
            save_file(checkpoints.trainable(self.model), str(draft))
            draft.replace(folder / f"step-{step}.safetensors")
            (folder / f"step-{step}.json").write_text(json.dumps(values.tolist()))
            if self.dev_queries:
                self._say_evaluated(step, values, first=step == course.looks[0])

        course.run(look, self.report, folder=self.workspace / CHECKPOINTS)
        values = [json.loads((folder / f"step-{step}.json").read_text()) for step in course.looks]
        if not self.dev_queries:
            return course, np.zeros((0, len(course.looks), len(SCALES)))
        return course, np.stack([np.array(each, dtype=np.float64) for each in values], axis=1)

    def _held_out(self, examples: Examples, queries: Sequence[slice]) -> HeldOut:
        return HeldOut(self.model, examples, queries, most=self.most, length=self.options.dev_length)

    def _course(self, lessons: Sequence[Any]) -> Course:
        """A course from the untrained adapter."""
        with torch.no_grad():
            for name, weights in self.model.named_parameters():
                if weights.requires_grad:
                    weights.copy_(self.untrained[name])
        self.model.at_scale(1.0)
        torch.manual_seed(self.options.seed)
        return Course(self.model, lessons, self.options, elo_scale=self.elo_scale, most=self.most, looks=self.looks)

    # --- result --------------------------------------------------------------------------

    def _store(self, choice: Choice, course: Course) -> Path:
        """Write the chosen adapter; its scale is folded into the second matrix of every layer."""
        chosen = load_file(str(self.workspace / CANDIDATES / f"step-{course.looks[choice.checkpoint]}.safetensors"))
        self._load(chosen, choice.scale)
        target = self.workspace / "adapter"
        shutil.rmtree(target, ignore_errors=True)
        self.model.adapted.save_pretrained(str(target))
        (target / "README.md").unlink(missing_ok=True)
        return target

    def _weights(self, choice: Choice) -> Weights:
        """The weights of token and list similarity for the chosen adapter, which the model holds.

        With an adapter and folds every training query is scored by the fold that did not learn from it: the cosine would look too good
        on what it has learned. Without folds the dev queries choose, unless the untrained base was kept.
        """
        options = self.options
        if not (options.token_similarity or options.list_similarity):
            return Weights()
        has_learned = bool(options.start) or not choice.base_won
        enough = len(self.dev_queries) >= options.enough_dev_queries or (has_learned and not self.folds)
        examples, queries = (self.dev, self.dev_queries) if enough else (self.train, self.queries)
        places = drawn_queries(np.array([rows.stop - rows.start for rows in queries]), options.dev_rows).tolist()
        by_folds = bool(self.folds) and not choice.base_won and not enough
        with self._kept_weights():
            signals = self._signals_of_folds(choice, places) if by_folds else None
            return measured_weights(
                self.model, examples, [queries[at] for at in places], elo_scale=self.elo_scale, most=self.most,
                tokens=options.token_similarity, context=options.list_similarity, signals=signals,
            )  # fmt: skip

    def _has_new_weights(self, weights: Weights) -> bool:
        """Whether weights were chosen that the student from which the training continues, or the untrained base, does not have."""
        if not (self.options.token_similarity or self.options.list_similarity):
            return False
        kept = self.workspace / START / START_SIGNALS
        known = json.loads(kept.read_text()) if self.options.start and kept.exists() else {}
        return (weights.tokens, weights.context) != (known.get("token_weight", 0.0), known.get("list_weight", 0.0))

    def _signals_of_folds(self, choice: Choice, places: Sequence[int]) -> list[Signals]:
        """The signals of these training queries, each from the course of the fold that held it out."""
        wanted = set(places)
        found: dict[int, Signals] = {}
        for number, held_out in enumerate(self.folds):
            self._load(load_file(str(self._weights_of_fold(number, choice.checkpoint))), choice.scale)
            for at in (each for each in held_out if each in wanted):
                rows = self.queries[at]
                texts = self.train.documents[rows.start : rows.stop]
                found[at] = signals_of(self.model, self.train.queries[rows.start], texts, most=self.most)
        return [found[at] for at in places]

    @contextlib.contextmanager
    def _kept_weights(self) -> Iterator[None]:
        """Compute with the whole adapter, and bring back the weights afterwards."""
        self.model.at_scale(1.0)
        self.model.eval()
        kept = {name: each.clone() for name, each in checkpoints.trainable(self.model).items()}
        yield
        self._load(kept, 1.0)

    @torch.no_grad()
    def _load(self, weights: Mapping[str, torch.Tensor], scale: float) -> None:
        for name, own in self.model.named_parameters():
            if own.requires_grad:
                own.copy_(self.model.scaled(name, weights[name], scale))

    def _told(self, choice: Choice, course: Course) -> dict[str, Any]:
        return {
            "scale": choice.scale,
            "step": 0 if choice.base_won else course.looks[choice.checkpoint],
            "gain": choice.gain,
            "stderr": choice.stderr,
            "best_gain": choice.best_gain,
            "best_stderr": choice.best_stderr,
            "queries": choice.queries,
            "enough": choice.queries >= FEWEST_QUERIES,
            "base_won": choice.base_won,
        }

    def _facts(self, choice: Choice, course: Course, lessons: Lessons, on_dev: FloatArray) -> dict[str, Any]:
        scale = 0 if choice.base_won else SCALES.index(choice.scale)
        dev = float(on_dev[:, choice.checkpoint, scale].mean()) if len(on_dev) else None
        return {
            "train_rows": len(self.train),
            "train_queries": len(self.queries),
            "cut_rows": lessons.cut,
            "steps": course.steps,
            "best_step": 0 if choice.base_won else course.looks[choice.checkpoint],
            "adapter_scale": choice.scale,
            "held_out_queries": choice.queries,
            "held_out_gain": choice.gain,
            "held_out_gain_stderr": choice.stderr,
            "best_gain": choice.best_gain,
            "best_gain_stderr": choice.best_stderr,
            "folds": len(self.folds),
            "dev_ndcg@10": dev,
            "elo_scale": self.elo_scale,
            "temperature": float(self.model.log_temperature.detach().exp()),
            "embedding_sizes": list(self.model.sizes),
            "tokens": course.tokens,
            "padding": round(1.0 - course.tokens / max(course.padded, 1), 4),
            "rows_per_s": round(course.rows / max(course.seconds, 1e-6), 1),
            "seconds": round(course.seconds, 1),
            "texts_at_once": self.most,
            "precision": "bf16" if self.model.bf16 else "fp32",
            "threads": torch.get_num_threads(),
        }

    def _say_prepared(self, lessons: Lessons) -> None:
        trained, whole = self.model.adapted.get_nb_trainable_parameters()
        left_out = len({int(each) for each in self.train.query_ids}) - len(self.queries)
        self.report(
            "prepared",
            rows=len(self.train),
            dev_rows=len(self.dev),
            cut_rows=lessons.cut,
            longest=lessons.longest,
            tokens_an_epoch=sum(each.tokens for each in lessons.lessons),
            trained_weights=int(trained),
            weights=int(whole),
            device=self.model.model.device.type,
            devices=1,
            threads=torch.get_num_threads(),
            folds=len(self.folds),
            left_out_queries=left_out,
        )

    def _say_evaluated(self, step: int, values: FloatArray, *, first: bool) -> None:
        means = values.mean(axis=0)
        if first:
            self.report("evaluated", step=0, ndcg=float(means[0]), best=True)
        self.report("evaluated", step=step, ndcg=float(means[1:].max()), best=bool(means[1:].max() > means[0]))


def _told_weights(weights: Weights) -> dict[str, float]:
    return {"token_weight": weights.tokens, "list_weight": weights.context, "token_gain": weights.gain}


def _usable(examples: Examples) -> list[slice]:
    try:
        return with_preferences(examples)
    except (NoPreferences, OneElo):
        return []


class _FoldReport:
    """Reports the steps of a fold as a phase of its own, so that they do not enter the training's curves.

    The time left is that of all steps: of this fold, the later ones, and the `whole` steps over all queries.
    """

    def __init__(self, report: Report, *, fold: int, folds: int, whole: int) -> None:
        self._report, self._place, self._whole = report, {"fold": fold, "folds": folds}, whole

    def __call__(self, kind: str, **values: Any) -> None:
        if kind == "step":
            told = {name: values[name] for name in ("step", "steps", "tokens_per_s", "memory_bytes")}
            folds_left = self._place["folds"] - self._place["fold"]
            steps_left = values["steps"] - values["step"] + folds_left * values["steps"] + self._whole
            self._report("cross_validation", **self._place, **told, eta_s=steps_left * values["step_s"])
