"""One course of an embedding training: steps over queries with all of their candidates, with exact resumption.

`trainer.training.embedding.training` runs one course for each fold of the cross-validation, and one over all queries. Imports
no Django.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from labeling.plugins import Report
from trainer.training import checkpoints
from trainer.training.adapters import optimizer_of
from trainer.training.dev_ndcg import not_finite
from trainer.training.embedding.bi_encoder import BiEncoder, backward_through, padded_tokens
from trainer.training.embedding.lessons import Lesson, Tokens
from trainer.training.embedding.options import EmbeddingOptions
from trainer.training.losses.listwise import softmax_distance
from trainer.training.memory import memory_in_use

LARGEST_GRADIENT = 1.0
# Steps, or seconds where steps are slow, between two reports.
REPORT_STEPS, REPORT_S = 10, 5.0
LOOKS = 1


def lesson_loss(
    model: BiEncoder, lessons: Sequence[Lesson], vectors: torch.Tensor, options: EmbeddingOptions, *, elo_scale: float
) -> torch.Tensor:
    """The loss of a step: mean over its queries, weighted, and over the embedding sizes.

    `vectors` float[n, size] are the unit vectors of the first query, its candidates, the second query, and so on. Each query
    adds KL(softmax(Elo / elo_scale) || softmax(cos / temperature)) and `pull` times the same from the base's softmax. Nested
    sizes: Matryoshka, Kusupati et al., arXiv 2205.13147.
    """
    temperature = model.log_temperature.exp()
    total = vectors.new_zeros(())
    in_batch = options.in_batch_negatives and len(lessons) > 1
    compared = compared_rows(lessons).to(vectors.device) if in_batch else None
    for size in model.sizes:
        cut = torch.nn.functional.normalize(vectors[:, :size], dim=-1)
        parts = cut.split([1 + len(each.documents) for each in lessons])
        every = torch.cat([own[1:] for own in parts])
        start = 0
        for number, (lesson, own) in enumerate(zip(lessons, parts, strict=True)):
            stop = start + len(lesson.documents)
            elo = lesson.elo.to(cut.device)
            wanted = torch.softmax(elo / elo_scale, dim=0)
            scores = own[1:] @ own[0] / temperature
            loss = softmax_distance(wanted, scores)
            if compared is not None:
                padded = cut.new_zeros(len(every)).index_copy(0, torch.arange(start, stop, device=cut.device), wanted)
                rows = compared[number]
                loss = softmax_distance(padded[rows], every[rows] @ own[0] / temperature)
            if options.pull:
                base = torch.softmax(lesson.base_cosines.to(cut) / options.temperature, dim=0)
                loss = loss + options.pull * softmax_distance(base, scores)
            total = total + lesson.weight * loss
            start = stop
    return total / (len(lessons) * len(model.sizes))


def compared_rows(lessons: Sequence[Lesson]) -> torch.Tensor:
    """bool[queries, candidates of all]: its own candidates, and those of others that may count as not relevant.

    A text that is among the query's own candidates has its own Elo there, and the same query twice shares what is relevant; equal
    tokens are one text.
    """
    asked = [_text_of(each.query) for each in lessons]
    shown = [[_text_of(each) for each in lesson.documents] for lesson in lessons]
    rows = [
        [
            owner == number or (asked[owner] != asked[number] and text not in set_of)
            for owner, texts in enumerate(shown)
            for text in texts
        ]
        for number, set_of in enumerate(map(set, shown))
    ]
    return torch.tensor(rows)


def _text_of(tokens: Tokens) -> bytes:
    return bytes(tokens["input_ids"].cpu().numpy().tobytes())


def epoch_steps(options: EmbeddingOptions, lessons: int) -> int:
    """Optimizer steps of one pass over the lessons."""
    return -(-lessons // options.queries_a_step)


def steps_of(options: EmbeddingOptions, lessons: int) -> int:
    """Optimizer steps of a course: epochs or steps, whichever ends first."""
    by_epochs = options.epochs * epoch_steps(options, lessons)
    return min(options.max_steps or by_epochs, by_epochs)


def looks_of(options: EmbeddingOptions, lessons: int, *, shortest: int) -> int:
    """The number of comparisons of every course, at equal shares of its steps; `shortest` is the steps of the shortest course."""
    wanted = round(steps_of(options, lessons) / options.eval_steps) if options.eval_steps else LOOKS
    return max(1, min(wanted, shortest))


class Course:
    """Steps over lessons; the model is compared `looks` times, at the steps that the attribute of that name lists."""

    def __init__(
        self,
        model: BiEncoder,
        lessons: Sequence[Lesson],
        options: EmbeddingOptions,
        *,
        elo_scale: float,
        most: int,
        looks: int,
    ) -> None:
        self._model, self._lessons, self._options = model, lessons, options
        self._elo_scale, self._most = elo_scale, most
        self._epoch_steps = epoch_steps(options, len(lessons))
        self.steps = steps_of(options, len(lessons))
        self.looks = [math.ceil(self.steps * at / looks) for at in range(1, looks + 1)]
        weights = [each for each in model.parameters() if each.requires_grad]
        self._optimizer, self._schedule = optimizer_of(weights, options, steps=self.steps)
        self.tokens = self.padded = self.rows = 0
        self.seconds = 0.0

    def run(self, look: Callable[[int], None], report: Report, *, folder: Path | None = None) -> None:
        """Train to the end and call `look` at every step of `looks`; with a folder, keep checkpoints and resume there."""
        begun = self._resumed(folder, report)
        self._model.train()
        losses: list[float] = []
        told = time.monotonic()
        for step in range(begun, self.steps):
            since = time.monotonic()
            losses.append(self._step(step))
            self.seconds += time.monotonic() - since
            done = step + 1
            if not math.isfinite(losses[-1]):
                raise not_finite(f"the loss at step {done}")
            if done % REPORT_STEPS == 0 or done == self.steps or time.monotonic() - told >= REPORT_S:
                self._say(report, done, float(np.mean(losses)))
                losses, told = [], time.monotonic()
            if done in self.looks:
                look(done)
                self._model.train()
                if folder is not None:
                    self._keep(folder, done, report)

    def _resumed(self, folder: Path | None, report: Report) -> int:
        found = checkpoints.last_checkpoint(folder) if folder is not None else None
        if found is None:
            return 0
        state = checkpoints.read_state(found)
        checkpoints.restore_weights(found, self._model)
        checkpoints.restore_optimizer(found, self._optimizer, self._schedule)
        checkpoints.restore_random_state(found, 0)
        self.tokens, self.seconds = state["tokens"], state["seconds"]
        self.padded, self.rows = state.get("padded", 0), state.get("rows", 0)
        report("resumed", step=state["step"])
        return int(state["step"])

    def _keep(self, folder: Path, step: int, report: Report) -> None:
        if not checkpoints.is_finite(checkpoints.trainable(self._model)):
            raise not_finite(f"a weight at step {step}")
        draft = checkpoints.begin_checkpoint(folder, step)
        checkpoints.write_random_state(draft, 0)
        counts = {name: getattr(self, name) for name in ("tokens", "padded", "rows", "seconds")}
        state = {"step": step, **counts}
        checkpoints.finish_checkpoint(
            draft, model=self._model, optimizer=self._optimizer, scheduler=self._schedule, state=state
        )
        report("checkpoint", step=step)

    def _step(self, step: int) -> float:
        lessons = self._of_step(step)
        texts = [text for each in lessons for text in (each.query, *each.documents)]
        lengths = [len(each["input_ids"]) for each in texts]
        self.tokens += sum(lengths)
        self.padded += padded_tokens(lengths, self._most, overhead=self._model.overhead)
        self.rows += sum(len(each.documents) for each in lessons)

        def loss(vectors: torch.Tensor) -> torch.Tensor:
            return lesson_loss(self._model, lessons, vectors, self._options, elo_scale=self._elo_scale)

        value = backward_through(self._model, texts, loss, most=self._most)
        learned = [each for each in self._model.parameters() if each.requires_grad]
        torch.nn.utils.clip_grad_norm_(learned, LARGEST_GRADIENT)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad()
        return value

    def _of_step(self, step: int) -> list[Lesson]:
        epoch, at = divmod(step, self._epoch_steps)
        order = np.random.default_rng([self._options.seed, epoch]).permutation(len(self._lessons))
        size = self._options.queries_a_step
        return [self._lessons[number] for number in order[at * size : (at + 1) * size].tolist()]

    def _say(self, report: Report, step: int, loss: float) -> None:
        rate = self.tokens / max(self.seconds, 1e-6)
        report(
            "step",
            step=step,
            steps=self.steps,
            epoch=round(step / self._epoch_steps, 4),
            loss=loss,
            learning_rate=self._schedule.get_last_lr()[0],
            tokens=self.tokens,
            tokens_per_s=rate,
            rows_per_s=self.rows / max(self.seconds, 1e-6),
            padding=1.0 - self.tokens / max(self.padded, 1),
            memory_bytes=memory_in_use(),
            step_s=self.seconds / step,
            eta_s=self.seconds / step * (self.steps - step),
        )
