"""Trains a pairwise student: soft binary cross-entropy on the panel's mean preference, both orders of every pair.

The untrained base is the first checkpoint; the log-loss on the dev pairs chooses. Imports no Django.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file

from labeling.plugins import Report
from labeling.records import FloatArray, PairExamples, Trained, TrainingData
from trainer.bases import Base, load_base
from trainer.recommendation import is_bi_encoder
from trainer.training import checkpoints
from trainer.training.adapters import PROBE_ROWS, attach_adapter, choose_bf16, optimizer_of, place_of, set_dropout
from trainer.training.dev_ndcg import not_finite
from trainer.training.fine_tuning import BEST, CHECKPOINTS, LOG_STEPS, threads_to_use
from trainer.training.losses.elo import NoPreferences
from trainer.training.memory import memory_in_use, with_less_memory
from trainer.training.pairwise.apart import ApartStudent, calibrated_temperature
from trainer.training.pairwise.figures import cross_entropies, some_pairs, symmetric
from trainer.training.pairwise.held_out import judged
from trainer.training.pairwise.inputs import batches
from trainer.training.pairwise.options import PairwiseOptions
from trainer.training.pairwise.student import AnyStudent, PairStudent, both_orders

LARGEST_GRADIENT = 1.0
# Sequences of one step are sorted by length within so many steps, so that a batch pads little.
STEPS_SORTED = 8


def train_pairwise(options: PairwiseOptions, data: TrainingData, workspace: Path, report: Report) -> Trained:
    """Train from the last checkpoint in `workspace`; compute fewer sequences at once while memory runs out.

    Raises NoPreferences, InstructionTooLong, UnsupportedBase, OutOfMemory, LossNotFinite, and the other errors of
    `trainer.bases`. On several GPUs only the first process trains.
    """
    torch.set_num_threads(options.threads or threads_to_use())
    base = load_base(options.base)
    if int(os.environ.get("RANK", "0")):
        return Trained(workspace / "adapter", options.base, options.max_length, facts={}, form="pairwise")
    if data.train_pairs is None or not len(data.train_pairs):
        raise NoPreferences(
            "the snapshot has no training pair with a preference of the panel; judge pairs, then freeze a new snapshot "
            "(snapshots of earlier versions hold no pairs)"
        )
    reads = options.instructions != "never"
    if not reads:
        data = replace(data, train_pairs=_untold(data.train_pairs), dev_pairs=_untold(data.dev_pairs))
    trained = with_less_memory(
        lambda most: _Course(options, base, data, workspace, report, most=most).run(),
        most=2 * options.batch_size, what="sequence", workspace=workspace, report=report,
    )  # fmt: skip
    return replace(trained, reads_instruction=reads)


def _untold(pairs: PairExamples | None) -> PairExamples | None:
    """The pairs without their instructions."""
    return None if pairs is None else replace(pairs, instructions=[""] * len(pairs))


@dataclass
class _State:
    """State in a checkpoint besides weights and optimizer."""

    best: float | None = None
    best_step: int = -1
    patience_used: int = 0
    stopped: bool = False
    tokens: int = 0
    seconds: float = 0.0
    looking_s: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)


class _Course:
    """One attempt at the whole training, with at most `most` sequences in memory."""

    def __init__(
        self, options: PairwiseOptions, base: Base, data: TrainingData, workspace: Path, report: Report, *, most: int
    ) -> None:
        assert data.train_pairs is not None
        self.options, self.workspace, self.report, self.most = options, workspace, report, most
        self.student = _student_of(base, options, dtype=place_of(options.precision)["dtype"])
        inner: Any = self.student.embedder[0] if isinstance(self.student, ApartStudent) else self.student.wrapped
        self.adapted = attach_adapter(inner, base, options, head=not isinstance(self.student, ApartStudent))
        if not isinstance(self.student, ApartStudent):
            self.student.model = self.adapted
        set_dropout(self.adapted, options.dropout)
        rng = np.random.default_rng([options.seed, 3])
        self.pairs = _some_without_instruction(data.train_pairs, options.without_instruction, rng)
        dev = data.dev_pairs
        self.dev = some_pairs(dev, options.dev_pairs) if dev is not None and len(dev) else None
        self.state = _State()
        self.sequences = both_orders(self.student.reader, self.pairs, range(len(self.pairs)))
        self.student.bf16 = choose_bf16(options, inner.model, self._first_logits, workspace)
        self.epoch_steps = -(-len(self.pairs) // options.batch_size)
        by_epochs = options.epochs * self.epoch_steps
        self.steps = min(options.max_steps or by_epochs, by_epochs)
        self.learned = [each for each in self.adapted.parameters() if each.requires_grad]
        self.optimizer, self.schedule = optimizer_of(self.learned, options, steps=self.steps)
        self._plans: dict[int, list[list[int]]] = {}

    def run(self) -> Trained:
        self._say_prepared()
        begun = self._resumed()
        if begun == 0:
            self._look(0)
        losses: list[float] = []
        self._train_mode()
        for step in range(begun, self.steps):
            if self.state.stopped:
                break
            since = time.monotonic()
            losses.append(self._step(step))
            self.state.seconds += time.monotonic() - since
            done = step + 1
            if not math.isfinite(losses[-1]):
                raise not_finite(f"the loss at step {done}")
            if done % LOG_STEPS == 0 or done == self.steps:
                self._say(done, float(np.mean(losses)))
                losses = []
            if done % self.options.eval_steps == 0 or done == self.steps:
                self._look(done)
                self._keep(done)
                self._train_mode()
        return self._trained(begun)

    def _first_logits(self, bf16: bool) -> torch.Tensor:
        """The logits of a few pairs, computed in bfloat16 or as they are."""
        self.student.bf16 = bf16
        return self.student.logits(self.sequences[0 : 2 * PROBE_ROWS : 2])

    def _train_mode(self) -> None:
        """Turn dropout on; an embedder's modules follow the adapted one."""
        (self.student.embedder if isinstance(self.student, ApartStudent) else self.adapted).train()

    # --- steps ---------------------------------------------------------------------------

    def _step(self, step: int) -> float:
        """One optimizer step over both orders of a batch of pairs, in parts of at most `most` sequences."""
        sequences, wanted, weights = self._of_step(step)
        self.state.tokens += sum(len(each.ids) for each in sequences)
        longest = max(len(each.ids) for each in sequences)
        total = 0.0
        for rows in batches([len(each.ids) for each in sequences], self.most * longest):
            logits = self.student.logits([sequences[at] for at in rows])
            targets = torch.tensor(wanted[rows], dtype=torch.float32, device=logits.device)
            own = torch.tensor(weights[rows], dtype=torch.float32, device=logits.device)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, weight=own, reduction="sum")
            (loss / len(sequences)).backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.learned, LARGEST_GRADIENT)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return total / len(sequences)

    def _of_step(self, step: int) -> tuple[list[Any], FloatArray, FloatArray]:
        """Sequences of both orders, P(first is the more relevant) and weights of each."""
        epoch, at = divmod(step, self.epoch_steps)
        pairs, chosen = self.pairs, self._plan(epoch)[at]
        sequences = [self.sequences[2 * row + order] for row in chosen for order in (0, 1)]
        wanted = np.column_stack([pairs.preferences[chosen], 1.0 - pairs.preferences[chosen]]).ravel()
        return sequences, wanted, np.repeat(pairs.weights[chosen], 2)

    def _plan(self, epoch: int) -> list[list[int]]:
        """The pairs of every step of an epoch, from seed and epoch alone: similar lengths together, steps in random order."""
        if epoch not in self._plans:
            rng = np.random.default_rng([self.options.seed, epoch])
            order = rng.permutation(len(self.pairs))
            lengths = np.array([len(each.ids) for each in self.sequences[0::2]])
            size = self.options.batch_size
            steps = []
            for start in range(0, len(order), STEPS_SORTED * size):
                part = order[start : start + STEPS_SORTED * size]
                part = part[np.argsort(lengths[part], kind="stable")]
                steps += [part[at : at + size].tolist() for at in range(0, len(part), size)]
            self._plans = {epoch: [steps[at] for at in rng.permutation(len(steps)).tolist()]}
        return self._plans[epoch]

    # --- checkpoints ---------------------------------------------------------------------

    def _look(self, step: int) -> None:
        """Answer the dev pairs, keep the adapter if its log-loss is the lowest, and apply early stopping."""
        if self.dev is None:
            return
        since = time.monotonic()
        value = self._log_loss(symmetric(*judged(self.student, self.dev)), self.dev.preferences)
        if not math.isfinite(value):
            raise not_finite("a logit of a dev pair")
        state = self.state
        state.curve.append((step, value))
        better = state.best is None or value < state.best
        state.patience_used = 0 if better else state.patience_used + 1
        if better:
            state.best, state.best_step = value, step
            self._save_adapter(step)
        state.stopped = bool(self.options.patience) and state.patience_used >= self.options.patience
        state.looking_s += time.monotonic() - since
        self.report("evaluated", step=step, log_loss=value, best=better)

    def _log_loss(self, logits: FloatArray, preferences: FloatArray) -> float:
        """Of a student that embeds texts apart, at the temperature with which it would be published; the base as well."""
        if isinstance(self.student, ApartStudent):
            own = self.student.temperature
            logits = logits * (own / calibrated_temperature(own, logits, preferences))
        return float(cross_entropies(logits, preferences).mean())

    def _save_adapter(self, step: int) -> Path:
        folder = self.workspace / BEST / f"step-{step}"
        draft = folder.with_name(f".{folder.name}")
        for old in (draft, folder):
            shutil.rmtree(old, ignore_errors=True)
        self.adapted.save_pretrained(str(draft))
        (draft / "README.md").unlink(missing_ok=True)
        draft.rename(folder)
        return folder

    def _keep(self, step: int) -> None:
        if not checkpoints.is_finite(checkpoints.trainable(self.adapted)):
            raise not_finite(f"a weight at step {step}")
        draft = checkpoints.begin_checkpoint(self.workspace / CHECKPOINTS, step)
        checkpoints.write_random_state(draft, 0)
        checkpoints.finish_checkpoint(
            draft, model=self.adapted, optimizer=self.optimizer, scheduler=self.schedule,
            state={"step": step, "course": vars(self.state)},
        )  # fmt: skip
        for folder in (self.workspace / BEST).glob("step-*"):
            if folder.name != f"step-{self.state.best_step}":
                shutil.rmtree(folder, ignore_errors=True)
        self.report("checkpoint", step=step)

    def _resumed(self) -> int:
        found = checkpoints.last_checkpoint(self.workspace / CHECKPOINTS)
        if found is None:
            return 0
        stored = checkpoints.read_state(found)
        self.state = _State(**stored["course"])
        checkpoints.restore_weights(found, self.adapted)
        checkpoints.restore_optimizer(found, self.optimizer, self.schedule)
        checkpoints.restore_random_state(found, 0)
        self.report("resumed", step=stored["step"])
        return int(stored["step"])

    def _trained(self, begun: int) -> Trained:
        step = self.state.curve[-1][0] if self.state.curve else self.steps
        source = self.workspace / BEST / f"step-{self.state.best_step}"
        if self.state.best_step < 0:
            source = self._save_adapter(self.steps)
        target = self.workspace / "adapter"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
        facts: dict[str, Any] = {
            "reads": "apart" if isinstance(self.student, ApartStudent) else "jointly",
            **self._temperature(source),
            "train_pairs": len(self.pairs),
            "cut_pairs": self._cut(),
            "steps": max(step, begun),
            "best_step": self.state.best_step,
            "dev_log_loss": self.state.best,
            "tokens": self.state.tokens,
            "seconds": round(self.state.seconds, 1),
            "batch_size": self.options.batch_size,
            "precision": "bf16" if self.student.bf16 else "fp32",
            "threads": torch.get_num_threads(),
        }
        return Trained(
            adapter=target,
            base=self.options.base,
            max_length=self.student.max_length,
            facts=facts,
            form="pairwise",
            base_won=self.state.best_step == 0,
        )

    def _temperature(self, adapter: Path) -> dict[str, float]:
        """The temperature of an embedder, chosen on the dev pairs; nothing for a student that reads jointly."""
        if not isinstance(self.student, ApartStudent):
            return {}
        set_peft_model_state_dict(self.adapted, load_file(str(adapter / "adapter_model.safetensors")))
        temperature = self.student.temperature
        if self.dev is not None:
            logits = symmetric(*judged(self.student, self.dev))
            temperature = calibrated_temperature(temperature, logits, self.dev.preferences)
        return {"temperature": temperature}

    # --- reports -------------------------------------------------------------------------

    def _cut(self) -> int:
        return sum(each.cut for each in self.sequences[0::2])

    def _say_prepared(self) -> None:
        lengths = np.array([len(each.ids) for each in self.sequences])
        trained, weights = self.adapted.get_nb_trainable_parameters()
        padded = sum(2 * len(rows) * max(len(self.sequences[2 * row].ids) for row in rows) for rows in self._plan(0))
        self.report(
            "prepared",
            rows=len(self.pairs),
            dev_rows=len(self.dev) if self.dev is not None else 0,
            cut_rows=self._cut(),
            longest=int(lengths.max()),
            tokens_an_epoch=int(lengths.sum()),
            padding=1.0 - float(lengths.sum()) / padded,
            trained_weights=int(trained),
            weights=int(weights),
            devices=1,
            device="cuda" if torch.cuda.is_available() else "cpu",
            threads=torch.get_num_threads(),
        )

    def _say(self, step: int, loss: float) -> None:
        seconds = max(self.state.seconds, 1e-6)
        self.report(
            "step",
            step=step,
            steps=self.steps,
            epoch=round(step / self.epoch_steps, 4),
            loss=loss,
            learning_rate=self.schedule.get_last_lr()[0],
            tokens=self.state.tokens,
            tokens_per_s=self.state.tokens / seconds,
            rows_per_s=step * self.options.batch_size / seconds,
            memory_bytes=memory_in_use(),
            eta_s=(seconds + self.state.looking_s) / step * (self.steps - step),
        )


def _student_of(base: Base, options: PairwiseOptions, *, dtype: str) -> AnyStudent:
    """The untrained student. Raises NotAnEmbedder, UnsupportedBase."""
    device = None if torch.cuda.is_available() else "cpu"
    if options.reads == "apart" or (options.reads == "auto" and is_bi_encoder(base)):
        return ApartStudent.of_base(base, max_length=options.max_length, device=device, dtype=dtype)
    return PairStudent.of_base(base, max_length=options.max_length, seed=options.seed, device=device, dtype=dtype)


def _some_without_instruction(pairs: PairExamples, share: float, rng: np.random.Generator) -> PairExamples:
    """The pairs, a random share of them without their instruction, so that the student can do without one."""
    without = rng.random(len(pairs)) < share
    told: Sequence[str] = [
        "" if left else text for left, text in zip(without.tolist(), pairs.instructions, strict=True)
    ]
    return PairExamples(**{**{name: getattr(pairs, name) for name in PairExamples.__slots__}, "instructions": told})
